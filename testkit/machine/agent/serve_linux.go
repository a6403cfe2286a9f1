package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// most bounds what is kept of a program's output.
const most = 1 << 20

// Server answers orders on the machine. The zero value is ready.
type Server struct {
	mu      sync.Mutex
	gateway *exec.Cmd
	output  *tail
	done    chan struct{}
}

// tail keeps the beginning of an output, bounded.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
	to  io.Writer // gets all of it; may be nil
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.buf.Len() < most {
		t.buf.Write(p)
	}
	if t.to != nil {
		_, _ = t.to.Write(p)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}

// Handler is the server's HTTP side.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /run", order(s.run))
	mux.HandleFunc("POST /gateway", order(s.start))
	mux.HandleFunc("GET /gateway", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.stands(), nil) })
	mux.HandleFunc("DELETE /gateway", func(w http.ResponseWriter, r *http.Request) { s.stop(w, r) })
	mux.HandleFunc("POST /clock", order(setClock))
	mux.HandleFunc("POST /sleep", order(sleep))
	mux.HandleFunc("GET /file", readFile)
	mux.HandleFunc("PUT /file", writeFile)
	return mux
}

// order decodes an order, carries it out and answers.
func order[In, Out any](do func(context.Context, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		out, err := do(r.Context(), in)
		answer(w, out, err)
	}
}

func answer(w http.ResponseWriter, out any, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		_ = json.NewEncoder(w).Encode(out) // the test sees a cut answer
	}
}

// environ is a bare environment, as a service has it.
func environ(extra []string) []string {
	return append([]string{"HOME=" + Home, "PATH=/bin", "TZ=UTC"}, extra...)
}

func (s *Server) run(ctx context.Context, c Command) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Most)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	out := &tail{}
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = environ(c.Env), out, out, time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return Result{}, err
	}
	return Result{Output: out.String(), Code: cmd.ProcessState.ExitCode()}, nil
}

func (s *Server) start(_ context.Context, c Command) (Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gateway != nil && s.stood() {
		return Result{}, errors.New("it runs already")
	}
	cmd, out, done := exec.Command(c.Args[0], c.Args[1:]...), &tail{to: os.Stderr}, make(chan struct{})
	cmd.Env, cmd.Stdout, cmd.Stderr = environ(c.Env), out, out
	if err := cmd.Start(); err != nil {
		return Result{}, err
	}
	s.gateway, s.output, s.done = cmd, out, done
	go func() {
		_ = cmd.Wait() // its state is read where it is asked for
		close(done)
	}()
	return Result{Running: true}, nil
}

// stood tells whether the gateway still runs; the caller holds mu.
func (s *Server) stood() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

func (s *Server) stands() Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gateway == nil {
		return Result{}
	}
	r := Result{Output: s.output.String(), Running: s.stood()}
	if !r.Running {
		r.Code = s.gateway.ProcessState.ExitCode()
	}
	return r
}

func (s *Server) stop(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	cmd, done := s.gateway, s.done
	s.mu.Unlock()
	if cmd == nil {
		http.Error(w, "no gateway was started", http.StatusConflict)
		return
	}
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-done:
		answer(w, s.stands(), nil)
	case <-r.Context().Done():
	}
}

// setClock changes the clock that the machine shows.
func setClock(_ context.Context, c Clock) (Times, error) {
	to := c.Set
	if c.Step != 0 {
		to = time.Now().Add(c.Step)
	}
	if !to.IsZero() {
		tv := unix.NsecToTimeval(to.UnixNano())
		if err := unix.Settimeofday(&tv); err != nil {
			return Times{}, err
		}
	}
	if c.Tick != 0 {
		if _, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_TICK, Tick: c.Tick}); err != nil {
			return Times{}, err
		}
	}
	t := Times{Wall: time.Now().Round(0)}
	for id, to := range map[int32]*time.Duration{unix.CLOCK_MONOTONIC: &t.Mono, unix.CLOCK_BOOTTIME: &t.Boot} {
		var ts unix.Timespec
		if err := unix.ClockGettime(id, &ts); err != nil {
			return Times{}, err
		}
		*to = time.Duration(ts.Nano())
	}
	return t, nil
}

// sleep suspends the machine once the answer is on its way.
func sleep(_ context.Context, state string) (Result, error) {
	f, err := os.OpenFile("/sys/power/state", os.O_WRONLY, 0)
	if err != nil {
		return Result{}, err
	}
	time.AfterFunc(300*time.Millisecond, func() {
		defer f.Close()
		if _, err := f.WriteString(state); err != nil {
			_, _ = io.WriteString(os.Stderr, "the machine does not sleep: "+err.Error()+"\n")
		}
	})
	return Result{}, nil
}

func readFile(w http.ResponseWriter, r *http.Request) {
	text, err := os.ReadFile(r.URL.Query().Get("path"))
	if err != nil {
		answer(w, nil, err)
		return
	}
	_, _ = w.Write(text)
}

func writeFile(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f, err := os.OpenFile(q.Get("path"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = io.Copy(f, r.Body)
		if err == nil && q.Get("sync") == "true" {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
	}
	answer(w, Result{}, err)
}
