package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hermes/internal/control"
	"hermes/internal/doctor"
	"hermes/testkit/discord"
	"hermes/testkit/llm"
	"hermes/testkit/port"
	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

// patience bounds every wait for evidence. It is long because the machine may
// be busy; a passing test does not come near it.
const patience = 60 * time.Second

// build compiles the binary once for the whole test process.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "hermes-faults-")
	if err != nil {
		return "", err
	}
	return rig.Build(context.Background(), dir, "")
})

func TestMain(m *testing.M) {
	code := m.Run()
	if file, err := build(); err == nil {
		os.RemoveAll(filepath.Dir(file))
	}
	os.Exit(code)
}

// shape is what an installation is made of.
type shape struct {
	profile   string // "" is the default one
	noBot     bool
	discord   bool
	noAPI     bool
	noModel   bool
	cronOnly  bool // a scheduler alone
	unstarted bool
	empty     bool   // no home at all
	as        int    // the user as whom everything runs; 0 is the test's own
	versions  bool   // installed as install.sh does, with a newer version on offer
	disk      string // options of a tmpfs for the home; "" is the disk of temporary files
}

// world is one installation with its surroundings.
type world struct {
	t       *testing.T
	shape   shape
	dir     string // the user's home
	home    *rig.Home
	shell   *rig.Home // the same home, for bash
	tg      *telegram.Server
	dc      *discord.Server
	brain   *llm.Server
	port    int
	fill    map[string]string // for what a fix leaves to the operator
	secrets []string
	said    string // by doctor, in IDs; see settled
	since   time.Time

	ahead atomic.Int64 // of a service's clock; see elsewhen

	mu    sync.Mutex
	procs []*rig.Process

	release func() // lets go of what a fault holds
	schema  int    // of the ledger, before it was changed

	archive string // of the newer version, where there are versions
	offer   string // the part of config.yaml that says where releases are

	binary string // the program itself, where a wrapper stands in front of it
}

// modelKey and apiKey are the secrets of every world.
const (
	modelKey = "sk-faults-key-of-the-model-0001"
	apiKey   = "faults-key-of-the-api-0123456789"
)

// setUp makes a healthy installation of a shape and starts it.
func setUp(t *testing.T, s shape) *world {
	t.Helper()
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, shape: s, dir: t.TempDir(), fill: map[string]string{}, secrets: []string{modelKey, apiKey}}
	if w.brain, err = llm.Start(llm.Echo); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.brain.Close)
	w.brain.RequireKey(modelKey)
	if w.tg, err = telegram.New(telegram.Options{Token: "7000000002:AAF-faults_token_of_the_test_server"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.tg.Close)
	w.secrets = append(w.secrets, w.tg.Token())
	w.port = lentPort(t)
	root := filepath.Join(w.dir, ".hermes")
	w.home = &rig.Home{Dir: root, Binary: binary, Env: []string{"EDITOR=false", "SYSTEMD_OFFLINE=1"}}
	bin := filepath.Join(w.dir, "bin")
	if err := errors.Join(os.MkdirAll(bin, 0o755), os.Symlink(binary, filepath.Join(bin, "hermes"))); err != nil {
		t.Fatal(err)
	}
	// The clock of the machine is nobody's to set from here.
	w.must(os.WriteFile(filepath.Join(bin, "timedatectl"), []byte("#!/bin/sh\n"), 0o755))
	w.home.Env = append(w.home.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	w.shell = &rig.Home{Dir: root, Binary: "/bin/bash", Env: w.home.Env}
	t.Cleanup(w.end)
	if s.versions {
		w.install()
	}
	if s.empty {
		return w
	}
	if s.disk != "" {
		w.mount(s.disk)
	}
	w.must(os.MkdirAll(w.path(), 0o700))
	if s.profile != "" {
		w.must(os.Chmod(root, 0o700))
	}
	w.write("config.yaml", w.config())
	w.write(".env", w.env())
	if s.as != 0 {
		w.become(s.as)
	}
	if !s.unstarted {
		w.start()
	}
	return w
}

// config is a config.yaml that fits the fakes.
func (w *world) config() string {
	text := "session_reset:\n  mode: none\n" + w.offer
	if !w.shape.noModel {
		text += fmt.Sprintf("model:\n  default: fake-1\n  provider: custom\n  base_url: %s\n  api_key: %s\n", w.brain.URL(), modelKey)
	}
	return text
}

// env is a .env that fits the fakes.
func (w *world) env() string {
	text := ""
	if !w.shape.noBot {
		text += fmt.Sprintf("TELEGRAM_BOT_TOKEN=%s\nTELEGRAM_BASE_URL=%s\nTELEGRAM_ALLOW_ALL_USERS=true\nTELEGRAM_HOME_CHANNEL=%d\n", w.tg.Token(), w.tg.URL(), w.homeChat())
	}
	if w.shape.discord {
		var err error
		if w.dc, err = discord.New(discord.Options{}); err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(w.dc.Close)
		text += fmt.Sprintf("DISCORD_BOT_TOKEN=%s\nDISCORD_BASE_URL=%s\nDISCORD_ALLOW_ALL_USERS=true\n", w.dc.Token(), w.dc.URL())
		w.secrets = append(w.secrets, w.dc.Token())
	}
	if !w.shape.noAPI {
		text += fmt.Sprintf("API_SERVER_ENABLED=true\nAPI_SERVER_PORT=%d\nAPI_SERVER_KEY=%s\n", w.port, apiKey)
	}
	return text
}

// homeChat is a chat of the fake that takes messages.
func (w *world) homeChat() int64 { return w.tg.AddUser("operator").ID }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// path is a path in the profile's home.
func (w *world) path(elem ...string) string {
	dir := w.home.Dir
	if w.shape.profile != "" {
		dir = filepath.Join(dir, "profiles", w.shape.profile)
	}
	return filepath.Join(append([]string{dir}, elem...)...)
}

// write makes a file of the profile, as an editor would.
func (w *world) write(name, text string) {
	w.t.Helper()
	w.must(os.MkdirAll(filepath.Dir(w.path(name)), 0o700))
	w.must(os.WriteFile(w.path(name), []byte(text), 0o600))
}

// edit replaces a text in a file of the profile.
func (w *world) edit(name, from, to string) {
	w.t.Helper()
	text, err := os.ReadFile(w.path(name))
	w.must(err)
	if !strings.Contains(string(text), from) {
		w.t.Fatalf("%s holds no %q:\n%s", name, from, text)
	}
	w.must(os.WriteFile(w.path(name), []byte(strings.Replace(string(text), from, to, 1)), 0o600))
}

// add puts lines behind a file of the profile.
func (w *world) add(name, lines string) {
	w.t.Helper()
	f, err := os.OpenFile(w.path(name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	w.must(err)
	_, err = f.WriteString(lines)
	w.must(errors.Join(err, f.Close()))
}

// args are the arguments of a command for the profile.
func (w *world) args(args ...string) []string {
	if w.shape.profile == "" {
		return args
	}
	return append([]string{"-p", w.shape.profile}, args...)
}

func (w *world) deadline() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

// start starts what serves the shape, and waits until it does.
func (w *world) start() *rig.Process {
	w.t.Helper()
	verb := "gateway"
	if w.shape.cronOnly {
		verb = "cron"
	}
	p, err := w.home.StartArgs(nil, w.args(verb, "run")...)
	w.must(err)
	w.keep(p)
	w.must(p.Ready(w.deadline()))
	return p
}

func (w *world) keep(p *rig.Process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.procs = append(w.procs, p)
}

// stop ends what serves, as an operator would, and waits until the process has
// let go of everything.
func (w *world) stop() {
	w.t.Helper()
	w.hermes("gateway", "stop")
	for _, p := range w.procs {
		select {
		case <-p.Done():
		case <-w.deadline().Done():
			w.t.Fatalf("it does not end:\n%s", p.Output())
		}
	}
}

// hermes runs a command for the profile, which must succeed.
func (w *world) hermes(args ...string) string {
	w.t.Helper()
	out, err := w.home.Run(w.deadline(), w.args(args...)...)
	if err != nil {
		w.t.Fatalf("hermes %v: %v\n%s", args, err, out)
	}
	return out
}

// status is what the gateway says of itself.
func (w *world) status() (s control.Status) {
	w.t.Helper()
	out, _ := w.home.Run(w.deadline(), w.args("gateway", "status", "--json")...)
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		w.t.Fatalf("status: %v\n%s", err, out)
	}
	return s
}

// until waits for a condition that another process brings about.
func (w *world) until(what string, ok func() bool) {
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
			w.t.Fatalf("it did not come to pass within %s: %s\n%s", patience, what, w.logs())
		}
	}
}

// part waits until a part of the gateway is in a state.
func (w *world) part(name, state string) {
	w.t.Helper()
	w.until(name+" to be "+state, func() bool {
		for _, p := range w.status().Parts {
			if p.Name == name && string(p.State) == state {
				return true
			}
		}
		return false
	})
}

// doctor asks what is wrong.
func (w *world) doctor(args ...string) doctor.Report {
	w.t.Helper()
	cmd := w.home.Command(w.deadline(), w.args(append([]string{"doctor", "--json"}, args...)...)...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	var r doctor.Report
	if err := json.Unmarshal(out, &r); err != nil {
		w.t.Fatalf("doctor --json: %v\n%s", err, out)
	}
	if want := map[bool]int{true: 0, false: 1}[r.Healthy]; cmd.ProcessState.ExitCode() != want {
		w.t.Errorf("doctor says healthy: %v, and exits with %d", r.Healthy, cmd.ProcessState.ExitCode())
	}
	w.search("doctor --json", string(out))
	return r
}

// search holds that a text shows no secret.
func (w *world) search(what, text string) {
	w.t.Helper()
	for _, s := range w.secrets {
		if strings.Contains(text, s) {
			w.t.Errorf("%s shows a secret:\n%s", what, text)
		}
	}
}

// numbers are PIDs and ids of jobs.
var numbers = regexp.MustCompile(`((?:kill(?: -9| -CONT)?|cron (?:remove|edit|run|resume)|deliveries (?:retry|drop)) )[0-9a-f]+(?: [0-9]+)*`)

// newPort is the port that a fix proposes: the next one that is free.
var newPort = regexp.MustCompile(`API_SERVER_PORT [0-9]+`)

// tokenURL is the address of a sign-in service.
var tokenURL = regexp.MustCompile(`--token-url \S+`)

// blank is what a fix leaves to the operator.
var blank = regexp.MustCompile(`<([^<>]+)>`)

// follow does what a fix says: it runs the command as an operator would paste
// it, with the blanks filled in. A command that stays in the foreground is left
// running once it serves.
func (w *world) follow(fix string) {
	w.t.Helper()
	line := blank.ReplaceAllStringFunc(fix, func(b string) string {
		name := blank.FindStringSubmatch(b)[1]
		v, ok := w.fill[name]
		if !ok {
			w.t.Fatalf("the fix has a blank that the fault does not fill in, %s: %s", b, fix)
		}
		return v
	})
	line = strings.ReplaceAll(line, "sudo ", "")
	if strings.HasSuffix(line, "gateway run") || strings.HasSuffix(line, "gateway run --replace") || strings.HasSuffix(line, "cron run") {
		p, err := w.shell.StartArgs(nil, "-c", line)
		w.must(err)
		w.keep(p)
		if err := p.Ready(w.deadline()); err != nil {
			w.t.Fatalf("%s: %v", line, err)
		}
		return
	}
	if out, err := w.shell.Run(w.deadline(), "-c", line); err != nil {
		w.t.Fatalf("%s: %v\n%s%s", line, err, out, w.logs())
	}
}

// logs is what the processes printed.
func (w *world) logs() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for i, p := range w.procs {
		out := p.Output()
		fmt.Fprintf(&b, "--- process %d\n%s", i+1, out[max(0, len(out)-4000):])
	}
	return b.String()
}

// end stops everything that a fix may have started too.
func (w *world) end() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w.mu.Lock()
	for _, p := range w.procs {
		_ = p.Cmd.Process.Signal(syscall.SIGCONT) // one that a failed test left suspended
	}
	w.mu.Unlock()
	_, _ = w.home.Run(ctx, w.args("gateway", "stop")...)
	w.mu.Lock()
	procs := w.procs
	w.mu.Unlock()
	for _, p := range procs {
		_, _ = p.Stop(ctx)
		w.search("a process's output", p.Output())
	}
}

// lentPort gives a port for the gateway. It and the one behind it, which doctor
// proposes when it is taken, are given to nobody else on this machine.
func lentPort(t *testing.T) int {
	t.Helper()
	for range 100 {
		first, err := port.Lend("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n := netip.MustParseAddrPort(first.Addr()).Port()
		second, err := port.Lend(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), n+1).String())
		if err != nil {
			first.Release()
			continue
		}
		t.Cleanup(first.Release)
		t.Cleanup(second.Release)
		return int(n)
	}
	t.Fatal("no two ports in a row are free")
	return 0
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
