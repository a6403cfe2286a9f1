package terminal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
	"hermes/internal/tool"
)

// Bounds of background commands.
const (
	keepEnded = 32       // ended ones whose output is kept
	keepLog   = 16 << 20 // bytes of output kept on disk for each, the last ones
	trimEvery = time.Minute
)

// Process is a background command. All that is known of it lies in files of the
// profile's processes/ folder: <id>.json (this), <id>.out (its output, stdout
// and stderr in order), <id>.exit (its exit code, written by the shim that runs
// it), <id>.in (its input, where it has one). So each gateway of the profile,
// before and after a crash or a hand-over, sees the same.
type Process struct {
	ID         string            `json:"id"`
	Command    string            `json:"command"`
	Workdir    string            `json:"workdir"`
	SessionKey domain.SessionKey `json:"session_key,omitempty"`
	Source     domain.Source     `json:"source"`
	BootID     string            `json:"boot_id"`
	proc
	StartedAt time.Time `json:"started_at"`

	// What follows is found out, not kept.
	Running  bool      `json:"-"`
	ExitCode int       `json:"-"` // -1 when it was killed, or died with the machine
	EndedAt  time.Time `json:"-"`
}

// shim runs a command and keeps its exit code, also when no gateway lives to
// see its end. It survives the TERM that ends the command, which it must report.
const shim = `echo 500 2>/dev/null >/proc/self/oom_score_adj
exit_file=$1; shift
trap : TERM INT HUP
"$@"
code=$?
echo "$code" >"$exit_file.tmp" && mv "$exit_file.tmp" "$exit_file"
exit "$code"
`

func (t *Terminal) dir() string { return filepath.Join(t.o.Home, "processes") }

func (t *Terminal) file(id, suffix string) string { return filepath.Join(t.dir(), id+suffix) }

// background starts a command and returns at once.
func (t *Terminal) background(env tool.Env, a terminalArgs, dir string) (tool.Result, error) {
	if err := t.enter(env.SessionKey); err != nil {
		return tool.Result{}, err
	}
	defer t.leave(env.SessionKey)
	live := 0
	for _, p := range t.processes("") {
		if p.Running {
			live++
		}
	}
	if live >= t.o.MaxBackground {
		return tool.Result{}, domain.E(domain.TooLarge, nil, "%d background commands run already, which is the most; end one with the process tool first", live)
	}
	p := Process{ID: newID(), Command: a.Command, Workdir: dir, SessionKey: env.SessionKey, Source: env.Source, BootID: bootID(), StartedAt: time.Now()}
	cmd, err := t.spawn(&p, env.Vars, a.Stdin)
	if err != nil {
		t.forget(p.ID)
		return tool.Result{}, err
	}
	t.look(p, cmd)
	t.prune()
	return tool.Result{Content: fmt.Sprintf("Started in the background with id %s (PID %d). Use the process tool to poll, wait, or kill it.", p.ID, p.PID)}, nil
}

// spawn starts the shim with its files, and records it.
func (t *Terminal) spawn(p *Process, vars map[string]string, stdin bool) (*exec.Cmd, error) {
	fail := func(err error) error {
		return domain.E(domain.Unavailable, err, "the background command could not be started; it did not run")
	}
	script := filepath.Join(t.dir(), "run.sh")
	if b, err := plain.Read(script); err != nil || string(b) != shim {
		if err := home.WriteAtomic(script, []byte(shim), 0o700); err != nil {
			return nil, err
		}
	}
	out, err := plain.OpenFile(t.file(p.ID, ".out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fail(err)
	}
	defer out.Close()
	cmd := exec.Command("/bin/sh", script, t.file(p.ID, ".exit"), t.o.Shell, "-c", p.Command)
	cmd.Dir, cmd.Env = p.Workdir, t.environ(p.ID, vars)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = ownSession()
	if stdin {
		// Opened for both directions: reading waits for writers, and whoever
		// writes does not wait for a reader.
		if err := syscall.Mkfifo(t.file(p.ID, ".in"), 0o600); err != nil {
			return nil, fail(err)
		}
		in, err := os.OpenFile(t.file(p.ID, ".in"), os.O_RDWR, 0)
		if err != nil {
			return nil, fail(err)
		}
		defer in.Close()
		cmd.Stdin = in
	}
	if err := cmd.Start(); err != nil {
		return nil, fail(err)
	}
	p.proc, _ = identify(cmd.Process.Pid)
	b, err := json.Marshal(p)
	if err == nil {
		err = home.WriteAtomic(t.file(p.ID, ".json"), b, 0o600)
	}
	if err != nil {
		// A command that nobody could find again must not run.
		killTree(p.proc, p.ID, 0)
		_ = cmd.Wait() // it was killed; the error that matters is err
		return nil, fail(err)
	}
	return cmd, nil
}

// attend waits for the end of a background command, keeps its output within
// bounds meanwhile, and reports the end once. cmd is nil for an adopted one.
func (t *Terminal) attend(p Process, cmd *exec.Cmd) {
	trimming := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(trimming)
		tick := time.NewTicker(trimEvery)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				t.trim(p.ID)
			}
		}
	}()
	err := watch(t.ctx, p.proc)
	close(ended)
	<-trimming
	if err != nil {
		if cmd != nil {
			cmd.Process.Release()
		}
		return // the gateway stops; the next one takes it up
	}
	if cmd != nil {
		_ = cmd.Wait() // the exit code stands in a file
	} else {
		reap(p.PID)
	}
	t.trim(p.ID)
	// Two gateways may see the end of one command during a hand-over; the file
	// decides which of them reports it.
	f, err := os.OpenFile(t.file(p.ID, ".done"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	f.Close()
	t.settle(&p)
	t.o.Log.Info("background command ended", "id", p.ID, "pid", p.PID, "exit_code", p.ExitCode)
	if t.o.OnEnd != nil {
		t.o.OnEnd(p)
	}
}

// Adopt takes up the background commands that other gateways of the profile
// started and that nobody here looks after yet. New does so; a successor calls
// it again once its predecessor has gone, since that one may have started more.
func (t *Terminal) Adopt() {
	for _, p := range t.processes("") {
		if _, err := os.Stat(t.file(p.ID, ".done")); err == nil {
			continue
		}
		t.look(p, nil)
	}
	t.prune()
}

// look attends to a command in a goroutine of its own, unless one does.
func (t *Terminal) look(p Process, cmd *exec.Cmd) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.attended[p.ID] {
		return
	}
	t.attended[p.ID] = true
	t.tasks.Add(1)
	go func() {
		defer t.tasks.Done()
		t.attend(p, cmd)
	}()
}

// trim gives back the disk space of all but the last part of an output.
func (t *Terminal) trim(id string) {
	f, err := plain.OpenFile(t.file(id, ".out"), os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > keepLog {
		if err := punch(f, info.Size()-keepLog); err != nil {
			err = f.Truncate(0)
			t.o.Log.Warn("the output of a background command was cut, since it was too long", "id", id, "error", err)
		}
	}
}

// processes lists the background commands of a session, or all, oldest first.
func (t *Terminal) processes(key domain.SessionKey) []Process {
	names, err := filepath.Glob(t.file("*", ".json"))
	if err != nil {
		return nil
	}
	boot := bootID()
	var out []Process
	for _, name := range names {
		b, err := plain.Read(name)
		var p Process
		if err != nil || json.Unmarshal(b, &p) != nil || p.ID != strings.TrimSuffix(filepath.Base(name), ".json") {
			continue
		}
		if key != "" && p.SessionKey != key {
			continue
		}
		p.Running = p.BootID == boot && p.PID > 0 && p.alive()
		if !p.Running {
			t.settle(&p)
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Process) int { return a.StartedAt.Compare(b.StartedAt) })
	return out
}

// settle fills in how an ended command ended.
func (t *Terminal) settle(p *Process) {
	p.Running, p.ExitCode = false, -1
	if b, err := plain.Read(t.file(p.ID, ".exit")); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			p.ExitCode = n
		}
	}
	for _, suffix := range []string{".exit", ".done", ".out"} {
		if info, err := os.Stat(t.file(p.ID, suffix)); err == nil {
			p.EndedAt = info.ModTime()
			return
		}
	}
}

// prune forgets the oldest ended commands.
func (t *Terminal) prune() {
	var ended []Process
	for _, p := range t.processes("") {
		if !p.Running {
			ended = append(ended, p)
		}
	}
	for len(ended) > keepEnded {
		t.forget(ended[0].ID)
		ended = ended[1:]
	}
}

func (t *Terminal) forget(id string) {
	for _, suffix := range []string{".json", ".out", ".exit", ".exit.tmp", ".done", ".in"} {
		os.Remove(t.file(id, suffix))
	}
	t.mu.Lock()
	delete(t.unended, id)
	delete(t.attended, id)
	t.mu.Unlock()
}

func (t *Terminal) kill(p Process) { killTree(p.proc, p.ID, t.o.Grace) }

// readOutput reads a part of an output: the last n bytes before end, or before
// the file's end when end is negative.
func (t *Terminal) readOutput(id string, n int64) (text string, size int64) {
	f, err := plain.Open(t.file(id, ".out"))
	if err != nil {
		return "", 0
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", 0
	}
	from := max(0, info.Size()-n)
	b := make([]byte, info.Size()-from)
	k, err := f.ReadAt(b, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", info.Size()
	}
	// What was punched out reads as zeros.
	return t.redact(legible(b[:k])), info.Size()
}
