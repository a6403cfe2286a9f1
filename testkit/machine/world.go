package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"hermes/internal/ledger/sqlite"
	"hermes/testkit/llm"
	"hermes/testkit/machine/agent"
	"hermes/testkit/people"
)

// The gateway's home on the machine.
const home = agent.Home + "/hermes"

// diskMiB is the size of a world's disk.
const diskMiB = 96

// World is a machine and what it talks to: Telegram, a model, and a receiver of
// words. These are on the side of the test, so that what they saw survives each
// cut of the machine's power.
type World struct {
	*Machine
	Telegram *people.Platform
	Words    *Words
	brain    *llm.Server
}

// NewWorld makes a world with a fresh home on a disk.
func (k *Kit) NewWorld(ctx context.Context, think llm.Brain, seed uint64, files map[string]string) (_ *World, err error) {
	w := &World{}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	if w.Telegram, err = people.New("telegram", people.Options{Watched: true}); err != nil {
		return w, err
	}
	if w.brain, err = llm.Start(think); err != nil {
		return w, err
	}
	if w.Words, err = newWords(); err != nil {
		return w, err
	}
	all := map[string]string{
		"hermes/.env": w.Telegram.Env + "HERMES_LOG_LEVEL=info\n",
		"hermes/config.yaml": fmt.Sprintf(`model:
  default: fake
  provider: custom
  base_url: %s
  api_key: key-of-the-model-on-the-machine
approvals:
  mode: "off"
display:
  busy_input_mode: queue
streaming:
  enabled: false
session_reset:
  mode: none
`, w.brain.URL()),
	}
	for name, text := range files {
		all[name] = text
	}
	image, err := k.Image(ctx, diskMiB, all)
	if err != nil {
		return w, err
	}
	disk, err := NewDisk(image, seed)
	if err != nil {
		return w, err
	}
	ports := make([]int, 3)
	for i, u := range []string{valueOf(w.Telegram.Env, "TELEGRAM_BASE_URL"), w.brain.URL(), w.Words.url} {
		if ports[i], err = portOf(u); err != nil {
			return w, err
		}
	}
	w.Machine = k.NewMachine(disk, ports...)
	return w, nil
}

// Close ends what the machine talks to.
func (w *World) Close() {
	if w.Telegram != nil {
		w.Telegram.Close()
	}
	if w.brain != nil {
		w.brain.Close()
	}
	if w.Words != nil {
		w.Words.srv.Close()
	}
}

func valueOf(env, name string) string {
	for line := range strings.Lines(env) {
		if v, ok := strings.CutPrefix(line, name+"="); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func portOf(address string) (int, error) {
	u, err := url.Parse(address)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(u.Port())
}

// hermes is a command of the binary in the world's home.
func hermes(args ...string) agent.Command {
	return agent.Command{Args: append([]string{"/bin/hermes"}, args...), Most: 2 * time.Minute,
		Env: []string{"HERMES_HOME=" + home, "HERMES_GATEWAY_LOCK_DIR=" + home + "/locks"}}
}

// Hermes runs a command of the binary, which must end well.
func (l *Life) Hermes(ctx context.Context, args ...string) (string, error) {
	r, err := l.Run(ctx, hermes(args...))
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("hermes %s ends with %d:\n%s", strings.Join(args, " "), r.Code, r.Output)
	}
	return r.Output, err
}

// Serve starts the gateway.
func (l *Life) Serve(ctx context.Context) error { return l.Start(ctx, hermes("gateway", "run")) }

// Leave stops the gateway as a service manager does, which must end well.
func (l *Life) Leave(ctx context.Context) error {
	r, err := l.Stop(ctx)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("the gateway ends with %d:\n%s", r.Code, r.Output)
	}
	return err
}

// Ledger copies the ledger out of the machine into dir, and opens the copy. The
// gateway must have ended.
func (l *Life) Ledger(ctx context.Context, dir string) (*sqlite.Store, error) {
	path := filepath.Join(dir, "ledger.db")
	for _, suffix := range []string{"", "-wal"} {
		text, err := l.File(ctx, home+"/ledger.db"+suffix)
		if err != nil && !agent.NotFound(err) {
			return nil, err
		}
		if err := os.WriteFile(path+suffix, text, 0o600); err != nil {
			return nil, err
		}
	}
	return sqlite.Open(ctx, sqlite.Options{Path: path, Kind: "test", NoBallast: true})
}

// Word is a word that a program on the machine left.
type Word struct {
	Text string
	At   time.Time // on the test's clock
}

// Words receives words from programs on the machine: GET /word.
type Words struct {
	url string
	srv *http.Server

	mu      sync.Mutex
	list    []Word
	changed chan struct{}
}

func newWords() (*Words, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &Words{url: "http://" + ln.Addr().String(), changed: make(chan struct{})}
	w.srv = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(res http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.list = append(w.list, Word{strings.Trim(r.URL.Path, "/"), time.Now()})
		close(w.changed)
		w.changed = make(chan struct{})
		w.mu.Unlock()
		res.WriteHeader(http.StatusOK)
	})}
	go func() {
		if err := w.srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			panic(err)
		}
	}()
	return w, nil
}

// Leave is the command of a shell on the machine that leaves a word.
func (w *Words) Leave(word string) string { return "wget -q -O - " + w.url + "/" + word }

// Count tells how often a word was left.
func (w *Words) Count(word string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, got := range w.list {
		if got.Text == word {
			n++
		}
	}
	return n
}

// Await waits until a word was left n times.
func (w *Words) Await(ctx context.Context, word string, n int) error {
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		got := w.Count(word)
		if got >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%q was left %d times, not %d: %w", word, got, n, ctx.Err())
		}
	}
}

// complaints are what a kernel and a gateway say of a disk that a cut has spoilt.
var complaints = [][]byte{[]byte("EXT4-fs error"), []byte("malformed"), []byte("salvage"), []byte("panic:"), []byte("I/O error")}

// Complaint is the first line of the console that tells of damage, "" for none.
func (l *Life) Complaint() string {
	for line := range strings.Lines(l.Console()) {
		for _, c := range complaints {
			if bytes.Contains([]byte(line), c) {
				return strings.TrimSpace(line)
			}
		}
	}
	return ""
}
