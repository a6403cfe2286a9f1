package e2e

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hermes/internal/control"
	"hermes/testkit/llm"
	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

// patience bounds every wait for evidence. It is long because the machine may
// be busy; a passing test does not come near it.
const patience = 60 * time.Second

// build compiles the binary once for the whole test process.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "hermes-e2e-")
	if err != nil {
		return "", err
	}
	built.Store(&dir)
	return rig.Build(context.Background(), dir, "")
})

var built atomic.Pointer[string]

func TestMain(m *testing.M) {
	code := m.Run()
	if dir := built.Load(); dir != nil {
		os.RemoveAll(*dir)
	}
	os.Exit(code)
}

// world is one scenario's surroundings: a bot, a model and a home.
type world struct {
	t       *testing.T
	tg      *telegram.Server
	brain   *llm.Server
	home    *rig.Home
	config  string // config.yaml that fits the fakes
	env     string // .env that fits the fakes
	apiKey  string
	apiPort int

	mu      sync.Mutex
	secrets map[string]string // by what they are
	procs   []*rig.Process
	seen    []string // what was read from outside, for the search for secrets
}

// newSecret makes a secret that exists in this scenario only.
func (w *world) newSecret(what, prefix string) string {
	b := make([]byte, 18)
	_, _ = rand.Read(b)
	s := prefix + hex.EncodeToString(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets[what] = s
	return s
}

// options change what setUp writes.
type options struct {
	brain     llm.Brain
	config    string // added to config.yaml
	env       string // added to .env
	noModel   bool
	strangers bool // nobody is allowed beforehand
	api       bool
	dir       string // in place of a temporary folder
	telegram  telegram.Options
}

func setUp(t *testing.T, o options) *world {
	t.Helper()
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, secrets: map[string]string{}}
	if o.brain == nil {
		o.brain = llm.Echo
	}
	if o.telegram.Token == "" {
		o.telegram.Token = "7000000001:" + w.newSecret("the bot's token", "AAF-")
	}
	if w.tg, err = telegram.New(o.telegram); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.tg.Close)
	if w.brain, err = llm.Start(o.brain); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.brain.Close)
	w.config = "session_reset:\n  mode: none\n" + o.config
	if !o.noModel {
		key := w.newSecret("the model's key", "sk-")
		w.brain.RequireKey(key)
		w.config += fmt.Sprintf("model:\n  default: fake-1\n  provider: custom\n  base_url: %s\n  api_key: %s\n", w.brain.URL(), key)
	}
	w.env = fmt.Sprintf("TELEGRAM_BOT_TOKEN=%s\nTELEGRAM_BASE_URL=%s\n", w.tg.Token(), w.tg.URL()) + o.env
	if !o.strangers {
		w.env += "TELEGRAM_ALLOW_ALL_USERS=true\n"
	}
	if o.api {
		w.apiKey, w.apiPort = w.newSecret("the API's key", "api-"), freePort(t)
		w.env += fmt.Sprintf("API_SERVER_ENABLED=true\nAPI_SERVER_PORT=%d\nAPI_SERVER_KEY=%s\n", w.apiPort, w.apiKey)
	}
	if o.dir == "" {
		o.dir = t.TempDir()
	}
	if w.home, err = rig.NewHome(filepath.Join(o.dir, ".hermes"), binary, w.config, w.env); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.end)
	return w
}

// freePort gives a port that nobody listens on now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// deadline is the bound of one wait.
func (w *world) deadline() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

// launch starts a long-running command without waiting.
func (w *world) launch(env []string, args ...string) *rig.Process {
	w.t.Helper()
	p, err := w.home.StartArgs(env, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.procs = append(w.procs, p)
	w.mu.Unlock()
	return p
}

// start starts the gateway, with arguments before "gateway run", and waits
// until it runs.
func (w *world) start(args ...string) *rig.Process {
	w.t.Helper()
	p := w.launch(nil, append(args, "gateway", "run")...)
	if err := p.Ready(w.deadline()); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// stop ends a gateway and holds that it ended cleanly.
func (w *world) stop(p *rig.Process) {
	w.t.Helper()
	code, err := p.Stop(w.deadline())
	if err != nil || code != 0 {
		w.t.Fatalf("exit %d, %v\n%s", code, err, p.Output())
	}
}

// run runs a command of the command line to its end.
func (w *world) run(args ...string) (out string, code int) {
	w.t.Helper()
	cmd := w.home.Command(w.deadline(), args...)
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("%v: %v", args, err)
	}
	w.keep(string(b))
	return string(b), cmd.ProcessState.ExitCode()
}

// keep remembers what was shown outside.
func (w *world) keep(text string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, text)
	return text
}

// status is `gateway status --json`, with its exit code.
func (w *world) status(args ...string) (s control.Status, code int) {
	w.t.Helper()
	text, code := w.run(append(args, "gateway", "status", "--json")...)
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		w.t.Fatalf("gateway status --json: %v\n%s", err, text)
	}
	return s, code
}

// waitStatus waits until the status is as wanted.
func (w *world) waitStatus(what string, ok func(control.Status) bool, args ...string) control.Status {
	w.t.Helper()
	var last control.Status
	w.eventually(what, func() bool { last, _ = w.status(args...); return ok(last) })
	return last
}

// eventually waits for a condition that another process brings about.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx := w.deadline(); ; {
		if ok() {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Fatalf("it did not come to pass in %s: %s\n%s", patience, what, w.logs())
		}
	}
}

// logs is what the processes printed, for messages of failed tests.
func (w *world) logs() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for i, p := range w.procs {
		fmt.Fprintf(&b, "--- process %d\n%s", i+1, tail(p.Output(), 6000))
	}
	return b.String()
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// sees waits until a chat shows a message of the bot that contains a text.
func (w *world) sees(chat int64, text string) telegram.Message {
	w.t.Helper()
	m, err := w.tg.WaitFor(w.deadline(), chat, func(m telegram.Message) bool { return m.FromBot && !m.Deleted && strings.Contains(m.Text, text) })
	if err != nil {
		w.t.Fatalf("the chat never showed %q: %v\n%s%s", text, err, w.tg.Transcript(chat), w.logs())
	}
	return m
}

// count is how many messages of the bot in a chat contain a text.
func (w *world) count(chat int64, text string) int {
	n := 0
	for _, m := range w.tg.Replies(chat) {
		if !m.Deleted && strings.Contains(m.Text, text) {
			n++
		}
	}
	return n
}

// settled waits until nothing is to be done or sent, so that doubles are seen.
func (w *world) settled(args ...string) {
	w.t.Helper()
	w.waitStatus("nothing is under way", func(s control.Status) bool {
		d := s.Ledger.Delivery
		return s.PID != 0 && s.Work.Running == 0 && s.Ledger.Inbound["received"] == 0 && d["pending"]+d["sending"]+d["retrying"] == 0
	}, args...)
}

// api makes a request with the key, and gives the status and the whole body.
func (w *world) api(method, path, body string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.deadline(), method, fmt.Sprintf("http://127.0.0.1:%d%s", w.apiPort, path), strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.apiKey)
	req.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil {
		return res.StatusCode, err.Error()
	}
	return res.StatusCode, w.keep(string(text))
}

// end stops what still runs and searches everything for the secrets.
func (w *world) end() {
	if w.apiPort != 0 {
		for _, path := range []string{"/health/detailed", "/metrics", "/v1/models"} {
			w.api(http.MethodGet, path, "")
		}
	}
	w.run("gateway", "status", "--json")
	w.mu.Lock()
	procs := w.procs
	w.mu.Unlock()
	for _, p := range procs {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		_, _ = p.Stop(ctx)
		cancel()
		w.keep(p.Output())
	}
	for _, r := range w.brain.Requests() {
		w.keep(string(r.Raw))
	}
	w.searchHome()
	for what, s := range w.secrets {
		for _, text := range w.seen {
			if i := strings.Index(text, s); i >= 0 {
				w.t.Errorf("%s was shown: …%s", what, strings.ReplaceAll(text[max(0, i-200):i], "\n", "⏎"))
			}
		}
	}
}

// mayHoldSecrets are the files whose purpose it is.
func mayHoldSecrets(name string) bool {
	return strings.HasPrefix(name, ".env") || strings.HasPrefix(name, "config.yaml") || name == "auth.json" ||
		name == "webhook_subscriptions.json"
}

// searchHome looks into every file of the home, the ledger too.
func (w *world) searchHome() {
	err := filepath.WalkDir(w.home.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || mayHoldSecrets(d.Name()) {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() > 64<<20 || d.Name() == "ledger.ballast" {
			return err
		}
		text, err := os.ReadFile(path)
		for what, s := range w.secrets {
			if strings.Contains(string(text), s) {
				w.t.Errorf("%s stands in %s", what, path)
			}
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Errorf("the home could not be searched for secrets: %v", err)
	}
}
