// Package terminal runs shell commands for the agent: in the foreground with a
// time limit, or in the background, where they outlive the turn, the session
// and the gateway. A command runs in a session of its own, with no terminal,
// nothing to read, none of the gateway's secrets in its environment, and is
// the first that the kernel takes when memory runs out. Ending a command ends
// everything that it started.
package terminal

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"hermes/internal/approval"
	"hermes/internal/domain"
	"hermes/internal/plain"
	"hermes/internal/tool"
)

const (
	defaultTimeout = 180 * time.Second
	maxTimeout     = 30 * time.Minute // of a foreground command
	defaultGrace   = 3 * time.Second
	drainTime      = 300 * time.Millisecond
	maxLingering   = 32
	markName       = "HERMES_TOOL_RUN"
)

// Options is what a Terminal needs. Home is required.
type Options struct {
	Home  string          // the profile's home; background commands live in its processes/ folder
	Shell string          // absolute; "" means bash, or sh where there is none
	Env   func() []string // the environment that commands start from; nil means an empty one with a PATH
	// Hidden names variables that commands never see (those of .env), Secrets
	// are values that no variable of theirs may hold. Both may be nil.
	Hidden  func() []string
	Secrets func() []string
	// Redact takes secrets out of output; nil shows it as it is.
	Redact func(string) string
	// Approval is the profile's approval options; nil asks as the zero value does.
	Approval func() approval.Options

	Timeout time.Duration // of a foreground command that names none; 0 means 180 s
	Grace   time.Duration // between TERM and KILL; 0 means 3 s
	// MaxBackground bounds the background commands that run at once; 0 means 16.
	MaxBackground int
	// EndBackground makes Close end the background commands too; else they live
	// on and are found again by the next Terminal of the profile.
	EndBackground bool
	// OnEnd is told, once for each, of background commands that ended, also of
	// those that an earlier gateway had started. It must not block for long.
	OnEnd func(Process)
	Log   *slog.Logger // nil discards
}

// Terminal runs commands. It is safe for concurrent use.
type Terminal struct {
	o     Options
	ctx   context.Context
	stop  context.CancelFunc
	tasks sync.WaitGroup // foreground runs, readers, watchers

	mu        sync.Mutex
	closed    bool
	lingering map[*os.File]bool // outputs that a command left open behind itself
	running   map[domain.SessionKey]int
	attended  map[string]bool   // background commands that a goroutine of ours waits for
	unended   map[string]string // the line that was begun on a background command's input
}

// New makes a Terminal, takes up the background commands of earlier gateways,
// and gives the tools `terminal` and `process`. Errors: domain.Unavailable when
// the processes folder cannot be made, domain.NotFound without any shell.
func New(o Options) (*Terminal, []tool.Tool, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Env == nil {
		o.Env = func() []string { return []string{"PATH=/usr/local/bin:/usr/bin:/bin"} }
	}
	o.Timeout = orDefault(o.Timeout, defaultTimeout)
	o.Grace = orDefault(o.Grace, defaultGrace)
	if o.MaxBackground == 0 {
		o.MaxBackground = 16
	}
	if o.Shell == "" {
		for _, name := range []string{"bash", "sh"} {
			if path, err := exec.LookPath(name); err == nil {
				o.Shell = path
				break
			}
		}
		if o.Shell == "" {
			return nil, nil, domain.E(domain.NotFound, nil, "there is no bash and no sh in PATH, so no command can be run; install one or take terminal out of the toolsets")
		}
	}
	t := &Terminal{o: o, lingering: map[*os.File]bool{}, running: map[domain.SessionKey]int{}, attended: map[string]bool{}, unended: map[string]string{}}
	if err := os.MkdirAll(t.dir(), 0o700); err != nil {
		return nil, nil, domain.E(domain.Unavailable, err, "the folder %s cannot be made, so background commands could not be kept; check the owner of the profile's home", t.dir())
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.Adopt()
	return t, []tool.Tool{t.terminalTool(), t.processTool()}, nil
}

func orDefault(d, or time.Duration) time.Duration {
	if d <= 0 {
		return or
	}
	return d
}

// Close ends the foreground commands, and with EndBackground the others, and
// waits for them until ctx ends. Nothing may be called afterwards.
func (t *Terminal) Close(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	open := t.lingering
	t.lingering = map[*os.File]bool{}
	t.mu.Unlock()
	t.stop()
	for f := range open {
		f.Close()
	}
	if t.o.EndBackground {
		for _, p := range t.processes("") {
			if p.Running {
				t.kill(p)
			}
		}
	}
	done := make(chan struct{})
	go func() { t.tasks.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Running counts the commands of a session that run now, in the foreground and
// in the background. A session that has some is not reset for being idle.
func (t *Terminal) Running(key domain.SessionKey) int {
	t.mu.Lock()
	n := t.running[key]
	t.mu.Unlock()
	for _, p := range t.processes(key) {
		if p.Running {
			n++
		}
	}
	return n
}

type terminalArgs struct {
	Command    string  `json:"command"`
	Workdir    string  `json:"workdir"`
	Timeout    float64 `json:"timeout"`
	Background bool    `json:"background"`
	Stdin      bool    `json:"stdin"`
}

func (t *Terminal) terminalTool() tool.Tool {
	return tool.Tool{
		Name: "terminal", Toolset: "terminal",
		Description: "Run a shell command and get its output (stdout and stderr in order) and exit code. Each call starts in workdir with a fresh shell. " +
			"There is no terminal and nothing to type into: do not start interactive programs. For servers, watchers and anything longer than the timeout set background; the process tool then reads, waits and ends it.",
		Schema: json.RawMessage(`{"type":"object","properties":{
			"command":{"type":"string","description":"The command, for bash."},
			"workdir":{"type":"string","description":"Folder to run in; relative to the current one."},
			"timeout":{"type":"number","description":"Seconds after which it is ended; at most 1800."},
			"background":{"type":"boolean","description":"Start it and return at once with an id."},
			"stdin":{"type":"boolean","description":"With background: keep its input open for the process tool's write."}},
			"required":["command"]}`),
		Guard: t.guard,
		Label: func(raw json.RawMessage) string {
			var a terminalArgs
			if tool.Decode(raw, &a) != nil {
				return "terminal"
			}
			return t.redact(short(a.Command, 60))
		},
		Run: func(ctx context.Context, env tool.Env, raw json.RawMessage) (tool.Result, error) {
			var a terminalArgs
			if err := tool.Decode(raw, &a, "command"); err != nil {
				return tool.Result{}, err
			}
			dir, err := workdir(env, a.Workdir)
			if err != nil {
				return tool.Result{}, err
			}
			if a.Background {
				return t.background(env, a, dir)
			}
			return t.foreground(ctx, env, a, dir)
		},
	}
}

// guard asks the approval package.
func (t *Terminal) guard(_ context.Context, env tool.Env, raw json.RawMessage) (tool.Decision, error) {
	var a terminalArgs
	if err := tool.Decode(raw, &a, "command"); err != nil {
		return tool.Decision{}, err
	}
	o := t.approval(env)
	if dir, err := workdir(env, a.Workdir); err == nil {
		o.Workdir = dir
	}
	return tool.Decide(approval.Analyze(a.Command, o), "This command", t.redact(a.Command)), nil
}

// approval is the profile's approval options for one call.
func (t *Terminal) approval(env tool.Env) approval.Options {
	var base approval.Options
	if t.o.Approval != nil {
		base = t.o.Approval()
	}
	o := tool.ApprovalFor(base, env)
	if o.ReadFile == nil {
		o.ReadFile = readScript
	}
	return o
}

// readScript reads a regular file of at most 256 KiB, without waiting for one
// that is none.
func readScript(path string) ([]byte, error) {
	const most = 256 << 10
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > most {
		return nil, errors.Join(err, fs.ErrInvalid)
	}
	f, err := plain.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

// workdir is where a command runs. domain.Invalid when it is no folder.
func workdir(env tool.Env, named string) (string, error) {
	dir := env.Workdir
	if rest, ok := strings.CutPrefix(named, "~"); ok && (rest == "" || rest[0] == '/') {
		if home, err := os.UserHomeDir(); err == nil {
			named = home + rest
		}
	}
	switch {
	case filepath.IsAbs(named):
		dir = named
	case named != "":
		dir = filepath.Join(dir, named)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", domain.E(domain.Invalid, err, "the folder %s does not exist, so nothing was run; make it first or name another", dir)
	}
	return filepath.Clean(dir), nil
}

// launch puts the score for the kernel's out-of-memory killer in front of a
// command: set before exec, so that all that it starts inherits it.
const launch = `echo 500 2>/dev/null >/proc/self/oom_score_adj; exec "$@"`

func (t *Terminal) environ(mark string, vars map[string]string) []string {
	var hidden, secrets []string
	if t.o.Hidden != nil {
		hidden = t.o.Hidden()
	}
	if t.o.Secrets != nil {
		secrets = t.o.Secrets()
	}
	env := append(Environ(t.o.Env(), hidden, secrets), markName+"="+mark)
	for _, k := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, k+"="+vars[k])
	}
	return env
}

func (t *Terminal) redact(s string) string {
	if t.o.Redact == nil {
		return s
	}
	return t.o.Redact(s)
}

// foreground runs a command and waits for it.
func (t *Terminal) foreground(ctx context.Context, env tool.Env, a terminalArgs, dir string) (tool.Result, error) {
	if err := t.enter(env.SessionKey); err != nil {
		return tool.Result{}, err
	}
	defer t.leave(env.SessionKey)
	limit := t.o.Timeout
	if a.Timeout > 0 {
		limit = min(time.Duration(a.Timeout*float64(time.Second)), maxTimeout)
	}
	mark := newID()
	out := &collector{}
	if env.CacheDir != "" {
		out.path = filepath.Join(env.CacheDir, "terminal", "output-"+mark+".txt")
	}
	defer out.close()

	began := time.Now()
	cmd, drained, err := t.start(a.Command, dir, mark, env.Vars, out)
	if err != nil {
		return tool.Result{}, err
	}
	root, _ := identify(cmd.Process.Pid)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	timer := time.NewTimer(limit)
	defer timer.Stop()
	var why error
	select {
	case err = <-ended:
	case <-timer.C:
		why = domain.E(domain.Timeout, nil, "it was ended after %s, its time limit, with all that it had started; give a longer timeout, or run it in the background", round(limit))
	case <-ctx.Done():
		why = context.Cause(ctx)
	case <-t.ctx.Done():
		why = domain.E(domain.Cancelled, nil, "it was ended because the gateway stops; it can be run again")
	}
	if why != nil {
		killTree(root, mark, t.o.Grace)
		err = <-ended
	}
	open := t.drain(drained)
	text := t.redact(out.text())
	if why != nil {
		return tool.Result{Content: strings.TrimSpace(text + "\n[not finished]")}, why
	}
	return tool.Result{Content: report(text, err, time.Since(began), open, cmd.Env)}, nil
}

// output is the reading end of a command's output; done is closed when nobody
// writes to it any more.
type output struct {
	file *os.File
	done chan struct{}
}

// start starts a command whose output goes to out.
func (t *Terminal) start(command, dir, mark string, vars map[string]string, out io.Writer) (*exec.Cmd, output, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, output{}, domain.E(domain.Unavailable, err, "no pipe could be made for the command's output; too many files may be open")
	}
	cmd := exec.Command("/bin/sh", "-c", launch, "sh", t.o.Shell, "-c", command)
	cmd.Dir, cmd.Env = dir, t.environ(mark, vars)
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = ownSession()
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, output{}, domain.E(domain.Unavailable, err, "the command could not be started; it did not run")
	}
	o := output{r, make(chan struct{})}
	t.tasks.Add(1)
	go func() {
		defer t.tasks.Done()
		defer close(o.done)
		_, _ = io.Copy(out, r) // ends when the last writer has gone, or r is closed
		r.Close()
		t.mu.Lock()
		delete(t.lingering, r)
		t.mu.Unlock()
	}()
	return cmd, o, nil
}

// drain waits a little for the rest of the output. A process that the command
// left behind may hold it open for ever: reading goes on without anybody
// waiting, so that it is not killed by writing. open says that there is one.
func (t *Terminal) drain(o output) (open bool) {
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	select {
	case <-o.done:
		return false
	case <-timer.C:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.lingering) >= maxLingering {
		o.file.Close()
	} else {
		t.lingering[o.file] = true
	}
	return true
}

// report is what the model is told of a command that ended.
func report(text string, err error, took time.Duration, open bool, env []string) string {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		text = "[no output]"
	}
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exitCode(exit.ProcessState)
	}
	note := fmt.Sprintf("\n[exit code %d, %s]", code, round(took))
	switch code {
	case 127:
		path := "(none)"
		for _, kv := range env {
			if v, ok := strings.CutPrefix(kv, "PATH="); ok {
				path = v
			}
		}
		note += "\n[a command was not found; PATH is " + path + "]"
	case 137:
		note += "\n[it was killed; the machine may have run out of memory]"
	}
	if open {
		note += "\n[a process that it started still runs, unwatched; start such a thing with background=true to read its output and end it]"
	}
	return text + note
}

func (t *Terminal) enter(key domain.SessionKey) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return domain.E(domain.Cancelled, nil, "the gateway is stopping, so no command is started; try again in a moment")
	}
	t.tasks.Add(1)
	t.running[key]++
	return nil
}

func (t *Terminal) leave(key domain.SessionKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running[key]--; t.running[key] <= 0 {
		delete(t.running, key)
	}
	t.tasks.Done()
}

// exitCode is the code as a shell counts it: 128 + n for signal n.
func exitCode(s *os.ProcessState) int {
	if n := signalOf(s); n > 0 {
		return 128 + n
	}
	return s.ExitCode()
}

func newID() string {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}

// short is the first line of s, at most n characters of it.
func short(s string, n int) string {
	s, more, _ := strings.Cut(strings.TrimSpace(s), "\n")
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	if more != "" {
		s += " …"
	}
	return s
}
