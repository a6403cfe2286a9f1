package cron

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hermes/internal/domain"
	"hermes/internal/failpoint"
)

const (
	// maxScriptOutput bounds what is kept of each stream: its head and tail.
	maxScriptOutput = 256 << 10
	// killGrace is what a process group gets between TERM and KILL.
	killGrace = 5 * time.Second
	// pipeGrace is how long children that outlive the script may hold its output open.
	pipeGrace = 2 * time.Second
)

// scriptResult is how a script ended.
type scriptResult struct {
	stdout, stderr string // valid UTF-8, bounded
	wake           bool   // the last line did not say {"wakeAgent": false}
	timedOut       bool
	err            error // nil: exit 0; else a sentence for people
}

// scriptRun is one start of a script.
type scriptRun struct {
	path    string // resolved
	dir     string // "" means the script's folder
	env     []string
	timeout time.Duration // 0 means none
}

// run runs the script in a process group of its own and waits for it. When ctx
// ends or the time is up, the group gets TERM, and KILL after killGrace.
func (r scriptRun) run(ctx context.Context) scriptResult {
	argv, err := commandFor(r.path)
	if err != nil {
		return scriptResult{err: err}
	}
	program, err := lookPath(argv[0], r.env)
	if err != nil {
		return scriptResult{err: err}
	}
	var stdout, stderr headTail
	cmd := &exec.Cmd{Path: program, Args: argv, Env: r.env, Dir: r.dir, Stdout: &stdout, Stderr: &stderr,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}, WaitDelay: pipeGrace}
	if cmd.Dir == "" {
		cmd.Dir = filepath.Dir(r.path)
	}
	if r.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.timeout, errScriptTime)
		defer cancel()
	}
	if err := cmd.Start(); err != nil {
		return scriptResult{err: domain.E(domain.Invalid, err, "the script could not be started in %s", cmd.Dir)}
	}
	failpoint.Hit(failpoint.ScriptStarted)
	lowerPriority(cmd.Process.Pid)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	cut := false
	select {
	case err = <-done:
	case <-ctx.Done():
		cut = true
		err = endGroup(cmd.Process.Pid, done)
	}
	failpoint.Hit(failpoint.ScriptEnded)
	res := scriptResult{stdout: stdout.text(), stderr: stderr.text()}
	res.wake = wantsAgent(res.stdout)
	switch {
	case cut && errors.Is(context.Cause(ctx), errScriptTime):
		res.timedOut = true
		res.err = domain.E(domain.Timeout, nil, "Script timed out after %ds: %s", int(r.timeout.Seconds()), r.path)
	case cut:
		res.err = domain.E(domain.Cancelled, context.Cause(ctx), "the gateway was stopped and ended the script before it had finished")
	default:
		res.err = r.explain(err, &res)
	}
	return res
}

// errScriptTime is the cause of a context that ended with the script's time.
var errScriptTime = errors.New("the script's time is up")

// endGroup ends a process group and waits for its leader.
func endGroup(pid int, done <-chan error) error {
	_ = syscall.Kill(-pid, syscall.SIGTERM)
	timer := time.NewTimer(killGrace)
	defer timer.Stop()
	select {
	case err := <-done:
		// The leader is gone; whoever it left behind goes too.
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		return err
	case <-timer.C:
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		return <-done
	}
}

// explain turns an exit status into a sentence.
func (r scriptRun) explain(err error, res *scriptResult) error {
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil // a child that still holds the pipes is no failure of the script
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return domain.E(domain.Internal, err, "the script's end could not be read")
	}
	text := fmt.Sprintf("Script exited with code %d", exit.ExitCode())
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		text = "Script was ended by signal " + status.Signal().String()
	}
	if exit.ExitCode() == 127 || strings.Contains(res.stderr, "command not found") || strings.Contains(res.stderr, ": not found") {
		text += ". A command was not found; PATH was " + orDefault(envValue(r.env, "PATH"), "empty")
	}
	return domain.E(domain.Unavailable, nil, "%s", text)
}

// lookPath finds a program in the PATH that the script will have, not ours.
func lookPath(name string, env []string) (string, error) {
	if strings.ContainsRune(name, filepath.Separator) {
		if _, err := os.Stat(name); err != nil {
			return "", domain.E(domain.NotFound, nil, "the interpreter %s does not exist on this machine; change the script's first line", name)
		}
		return name, nil
	}
	path := envValue(env, "PATH")
	for _, dir := range filepath.SplitList(path) {
		candidate := filepath.Join(dir, name)
		if info, err := os.Stat(candidate); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && filepath.IsAbs(candidate) {
			return candidate, nil
		}
	}
	if name == "bash" {
		if _, err := os.Stat("/bin/bash"); err == nil {
			return "/bin/bash", nil
		}
	}
	return "", domain.E(domain.NotFound, nil, "%s: command not found. PATH was %s", name, orDefault(path, "empty"))
}

func envValue(env []string, key string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if k, v, _ := strings.Cut(env[i], "="); k == key {
			return v
		}
	}
	return ""
}

// lowerPriority makes the kernel prefer the script over the gateway when it
// needs memory (https://man7.org/linux/man-pages/man5/proc_pid_oom_score_adj.5.html).
// It is a preference: where it cannot be set, the script runs all the same.
func lowerPriority(pid int) {
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("500"), 0)
}

// wantsAgent reads the gate that a script may print as its last line:
// {"wakeAgent": false} says that there is nothing to do.
func wantsAgent(stdout string) bool {
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	var gate struct {
		WakeAgent *bool `json:"wakeAgent"`
	}
	if json.Unmarshal([]byte(strings.TrimSpace(lines[len(lines)-1])), &gate) != nil || gate.WakeAgent == nil {
		return true
	}
	return *gate.WakeAgent
}

// headTail keeps the first and the last half of maxScriptOutput bytes.
type headTail struct {
	head, tail []byte
	dropped    int64
}

// Write takes everything and never fails, so that a script is not blocked.
func (b *headTail) Write(p []byte) (int, error) {
	n := len(p)
	const half = maxScriptOutput / 2
	if room := half - len(b.head); room > 0 {
		take := min(room, len(p))
		b.head, p = append(b.head, p[:take]...), p[take:]
	}
	if len(p) > half {
		b.dropped += int64(len(p) - half)
		p = p[len(p)-half:]
	}
	b.tail = append(b.tail, p...)
	if over := len(b.tail) - half; over > 0 {
		b.dropped += int64(over)
		b.tail = append(b.tail[:0], b.tail[over:]...)
	}
	return n, nil
}

// text is what was kept, as valid UTF-8 without NUL bytes.
func (b *headTail) text() string {
	var out bytes.Buffer
	out.Write(b.head)
	if b.dropped > 0 {
		fmt.Fprintf(&out, "\n… %d bytes left out …\n", b.dropped)
	}
	out.Write(b.tail)
	return cleanText(out.String())
}

// cleanText makes any bytes storable and sendable text.
func cleanText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
}

// tailOf is the end of a text, cut at a line where possible.
func tailOf(s string, limit int) string {
	s = strings.TrimSpace(s)
	if len(s) <= limit {
		return s
	}
	s = s[len(s)-limit:]
	if i := strings.IndexByte(s, '\n'); i >= 0 && i < limit/2 {
		s = s[i+1:]
	}
	return "…" + strings.ToValidUTF8(s, "")
}
