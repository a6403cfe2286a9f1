// Package rig runs the real binary in a throw-away home, as an operator would,
// so that tests and benchmarks can kill it, restart it and look at what it left.
package rig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Build compiles the binary into dir, with build tags ("" for none).
func Build(ctx context.Context, dir, tags string) (string, error) {
	out := filepath.Join(dir, "hermes")
	if tags != "" {
		out += "-" + tags
	}
	root, err := Root(ctx)
	if err != nil {
		return "", err
	}
	return out, build(ctx, root, out, "test", "-tags", tags)
}

// BuildOther compiles the binary of another release, with build tags ("" for
// none): changed maps paths within the module to what stands there instead. The sources themselves stay as they
// are; see -overlay in `go help build`.
func BuildOther(ctx context.Context, dir, version, tags string, changed map[string]string) (string, error) {
	root, err := Root(ctx)
	if err != nil {
		return "", err
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for path, text := range changed {
		file := filepath.Join(dir, version, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return "", err
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return "", err
		}
		overlay.Replace[filepath.Join(root, filepath.FromSlash(path))] = file
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	list, out := filepath.Join(dir, version, "overlay.json"), filepath.Join(dir, "hermes-"+version)
	if err := os.WriteFile(list, text, 0o600); err != nil {
		return "", err
	}
	return out, build(ctx, root, out, version, "-overlay", list, "-tags", tags)
}

// Source reads a file of the module.
func Source(ctx context.Context, path string) (string, error) {
	root, err := Root(ctx)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
	return string(text), err
}

func build(ctx context.Context, root, out, version string, flags ...string) error {
	args := append([]string{"build", "-ldflags", "-s -w -X hermes/internal/cli.version=" + version, "-o", out}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/hermes")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("the binary does not build: %w\n%s", err, text)
	}
	return nil
}

// Root is the folder of the module.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", err
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// Home is a throw-away home of one profile.
type Home struct {
	Dir    string // HERMES_HOME
	Binary string
	Env    []string // beside a bare environment
}

// NewHome makes a home with the given config.yaml and .env.
func NewHome(dir, binary, config, env string) (*Home, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for name, text := range map[string]string{"config.yaml": config, ".env": env} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return &Home{Dir: dir, Binary: binary}, nil
}

// environ is what the process gets: nothing of the test's own but a PATH.
func (h *Home) environ(extra []string) []string {
	env := []string{"HOME=" + filepath.Dir(h.Dir), "HERMES_HOME=" + h.Dir, "PATH=" + os.Getenv("PATH"),
		"HERMES_GATEWAY_LOCK_DIR=" + filepath.Join(h.Dir, "locks"), "TZ=UTC"}
	return append(append(env, h.Env...), extra...)
}

// Command makes a command of the binary in this home.
func (h *Home) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, h.Binary, args...)
	cmd.Env = h.environ(nil)
	return cmd
}

// Run runs a command to its end and gives its output, standard error included.
func (h *Home) Run(ctx context.Context, args ...string) (string, error) {
	out, err := h.Command(ctx, args...).CombinedOutput()
	return string(out), err
}

// Process is a running gateway.
type Process struct {
	Cmd   *exec.Cmd
	ready chan struct{}
	done  chan struct{}
	said  chan struct{} // closed when nobody can print any more
	err   error
	mu    sync.Mutex
	log   bytes.Buffer
}

// maxLog bounds what is kept of a process's output.
const maxLog = 1 << 20

// Start starts `hermes gateway run`, with extra environment.
func (h *Home) Start(env ...string) (*Process, error) { return h.StartArgs(env, "gateway", "run") }

// StartArgs starts any long-running command.
func (h *Home) StartArgs(env []string, args ...string) (*Process, error) {
	p := &Process{Cmd: exec.Command(h.Binary, args...), ready: make(chan struct{}), done: make(chan struct{}), said: make(chan struct{})}
	p.Cmd.Env = h.environ(env)
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.Cmd.Stdout, p.Cmd.Stderr = w, w
	if err := p.Cmd.Start(); err != nil {
		r.Close()
		w.Close()
		return nil, err
	}
	w.Close()
	go p.read(r)
	go func() {
		p.err = p.Cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// read keeps the output and notes when the gateway says that it runs.
func (p *Process) read(r io.ReadCloser) {
	defer close(p.said)
	defer r.Close()
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), 4<<20)
	told := false
	for in.Scan() {
		if !told && strings.Contains(in.Text(), "gateway running") {
			told = true
			close(p.ready)
		}
		p.mu.Lock()
		if p.log.Len() < maxLog {
			p.log.Write(in.Bytes())
			p.log.WriteByte('\n')
		}
		p.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, r)
}

// Output is what the process printed so far.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// Whole is everything that the process printed. It waits until neither it nor a
// child of it can print more, or ctx ends.
func (p *Process) Whole(ctx context.Context) string {
	select {
	case <-p.said:
	case <-ctx.Done():
	}
	return p.Output()
}

// Ready waits until the gateway says that it runs.
func (p *Process) Ready(ctx context.Context) error {
	select {
	case <-p.ready:
		return nil
	case <-p.done:
		return fmt.Errorf("the process ended before it was ready: %v\n%s", p.err, p.Output())
	case <-ctx.Done():
		return fmt.Errorf("the process is not ready: %w\n%s", ctx.Err(), p.Output())
	}
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill ends it as a crash would, and waits.
func (p *Process) Kill() {
	_ = p.Cmd.Process.Kill()
	<-p.done
}

// Stop asks it to end (SIGTERM) and gives its exit code.
func (p *Process) Stop(ctx context.Context) (int, error) {
	if err := p.Cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return -1, err
	}
	select {
	case <-p.done:
		return p.Cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		p.Kill()
		return -1, fmt.Errorf("the process did not stop: %w\n%s", ctx.Err(), p.Output())
	}
}

// RSS is the resident memory of the process in bytes.
func (p *Process) RSS() int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.Cmd.Process.Pid))
	if err != nil {
		return 0
	}
	var size, rss int64
	_, _ = fmt.Sscan(string(text), &size, &rss)
	return rss * int64(os.Getpagesize())
}

// Deadline is a context for one step of a test.
func Deadline(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}
