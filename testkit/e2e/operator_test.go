package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"hermes/internal/control"
	"hermes/internal/health"
	"hermes/testkit/telegram"
)

// profile makes a named profile with the given files.
func (w *world) profile(name, config, env string) {
	w.t.Helper()
	if out, code := w.run("profile", "create", name); code != 0 {
		w.t.Fatalf("profile create: %d %s", code, out)
	}
	dir := filepath.Join(w.home.Dir, "profiles", name)
	for file, text := range map[string]string{"config.yaml": config, ".env": env} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
}

// part is a part of a status; the zero value when there is none.
func part(s control.Status, name string) health.Part {
	for _, p := range s.Parts {
		if p.Name == name {
			return p
		}
	}
	return health.Part{}
}

// shows tells whether one of the status's problems contains a text.
func shows(s control.Status, text string) bool {
	return strings.Contains(strings.Join(s.Problems, "\n"), text)
}

func TestTwoProfilesSideBySide(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{api: true})
	other, err := telegram.New(telegram.Options{Token: "7000000002:" + w.newSecret("the second bot's token", "AAF-")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	port := freePort(t)
	w.profile("drj", w.config, fmt.Sprintf("TELEGRAM_BOT_TOKEN=%s\nTELEGRAM_BASE_URL=%s\nTELEGRAM_ALLOW_ALL_USERS=true\nAPI_SERVER_ENABLED=1\nAPI_SERVER_PORT=%d\n", other.Token(), other.URL(), port))
	p, q := w.start(), w.start("-p", "drj")
	ann, bob := w.tg.AddUser("Ann"), other.AddUser("Bob")
	w.tg.Say(ann, "hello default")
	other.Say(bob, "hello drj")
	w.sees(ann.ID, "hello default")
	if _, err := other.WaitFor(w.deadline(), bob.ID, func(m telegram.Message) bool { return m.FromBot && m.Text == "hello drj" }); err != nil {
		t.Fatal(err, q.Output())
	}
	for _, args := range [][]string{nil, {"-p", "drj"}} {
		if s, code := w.status(args...); code != 0 || !s.Healthy {
			t.Errorf("%v: exit %d, %v", args, code, s.Problems)
		}
	}
	list, _ := w.run("gateway", "list")
	for _, want := range []string{"default", "drj", fmt.Sprint(p.Cmd.Process.Pid), fmt.Sprint(q.Cmd.Process.Pid), fmt.Sprintf(":%d", port), fmt.Sprintf(":%d", w.apiPort)} {
		if !strings.Contains(list, want) {
			t.Errorf("gateway list has no %s:\n%s", want, list)
		}
	}
	w.stop(p)
	if s, code := w.status(); code == 0 || s.State != "stopped" {
		t.Errorf("a stopped gateway: exit %d, %+v", code, s)
	}
	if s, code := w.status("-p", "drj"); code != 0 || s.Profile != "drj" {
		t.Errorf("the other one: exit %d, %v", code, s.Problems)
	}
	if text, code := w.run("-p", "drj", "logs", "--tail"); code != 0 || !strings.Contains(text, "gateway running") {
		t.Errorf("logs --tail: %d %s", code, text)
	}
	out, code := w.run("gateway", "-p", "drj", "stop")
	if code != 0 || !strings.Contains(out, "Stopped") {
		t.Errorf("stop: %d %s", code, out)
	}
	w.ended(q, 0)
	if out, code := w.run("gateway", "stop"); code != 0 || !strings.Contains(out, "not running") {
		t.Errorf("stop of a stopped one: %d %s", code, out)
	}
}

// Two profiles with one bot: the second says who has it, its other parts run,
// and it takes over soon after the holder was killed.
func TestOneBotInTwoProfiles(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	port := freePort(t)
	w.profile("liam", w.config, w.env+fmt.Sprintf("API_SERVER_ENABLED=true\nAPI_SERVER_PORT=%d\n", port))
	p := w.start()
	_ = w.tg.WaitPolling(w.deadline())
	q := w.start("-p", "liam")
	s := w.waitStatus("the second is refused the bot", func(s control.Status) bool { return part(s, "platform.telegram").State == health.Down }, "-p", "liam")
	want := fmt.Sprintf("already in use by profile default (PID %d)", p.Cmd.Process.Pid)
	if !shows(s, want) {
		t.Errorf("status does not say %q: %v", want, s.Problems)
	}
	if part(s, "api").State != health.OK {
		t.Errorf("the API of the second: %+v", part(s, "api"))
	}
	w.waitOutput(q, want)
	p.Kill()
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "who is there?")
	w.sees(ann.ID, "who is there?")
	if s := w.waitStatus("the second is healthy", func(s control.Status) bool { return s.Healthy }, "-p", "liam"); part(s, "platform.telegram").State != health.OK {
		t.Errorf("%+v", part(s, "platform.telegram"))
	}
	w.stop(q)
}

// A port that somebody else holds never ends the gateway, is explained with the
// holder's name, and is taken as soon as it is free.
func TestAPortThatIsTaken(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{api: true})
	w.profile("drj", w.config, fmt.Sprintf("API_SERVER_ENABLED=true\nAPI_SERVER_PORT=%d\n", w.apiPort))
	p := w.start()
	q := w.start("-p", "drj")
	s := w.waitStatus("the port is taken", func(s control.Status) bool { return part(s, "api").State == health.Down }, "-p", "drj")
	if !shows(s, "API_SERVER_PORT already in use") || !shows(s, fmt.Sprint(p.Cmd.Process.Pid)) || !shows(s, "profile default") {
		t.Errorf("status names no holder: %v", s.Problems)
	}
	w.waitOutput(q, "API_SERVER_PORT already in use")
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "unharmed?")
	w.sees(ann.ID, "unharmed?")
	w.stop(p)
	w.waitStatus("the port was taken over", func(s control.Status) bool { return s.Healthy && s.API.Address != "" }, "-p", "drj")
	w.stop(q)
}

func TestASecondInstanceIsRefused(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	p := w.start()
	out, code := w.run("gateway", "run")
	if code != 1 || !strings.Contains(out, fmt.Sprintf("PID %d", p.Cmd.Process.Pid)) {
		t.Errorf("exit %d: %s", code, out)
	}
	if s, code := w.status(); code != 0 || s.PID != p.Cmd.Process.Pid {
		t.Errorf("the first one suffered: exit %d, %v", code, s.Problems)
	}
	w.stop(p)
}

func TestAProfileThatDoesNotExist(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	for _, args := range [][]string{{"-p", "nobody", "gateway", "run"}, {"gateway", "run", "--profile", "nobody"}, {"--profile=nobody", "gateway", "status"}, {"-p", "nobody", "cron", "run"}, {"logs", "-p", "nobody"}} {
		if out, code := w.run(args...); code != 78 || !strings.Contains(out, "hermes profile create nobody") {
			t.Errorf("%v: exit %d: %s", args, code, out)
		}
	}
	if _, err := os.Stat(filepath.Join(w.home.Dir, "profiles", "nobody")); err == nil {
		t.Error("a command for a profile that does not exist made it")
	}
}

func TestATokenButNoModel(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{noModel: true, api: true})
	p := w.start()
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "hello?")
	m := w.sees(ann.ID, "hermes model")
	if !strings.Contains(m.Text, "o model is set") {
		t.Errorf("the bot said %q", m.Text)
	}
	if s, code := w.status(); code == 0 || s.Healthy || !shows(s, "hermes model") {
		t.Errorf("status: exit %d, %v", code, s.Problems)
	}
	status, body := w.api("POST", "/v1/chat/completions", `{"model":"test","messages":[{"role":"user","content":"ping"}]}`)
	var e struct {
		Error struct{ Message, Type string }
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || status < 400 || !strings.Contains(e.Error.Message, "hermes model") {
		t.Errorf("the API said %d %s", status, body)
	}
	if n := w.brain.Count(); n != 0 {
		t.Errorf("a model was called %d times", n)
	}
	w.stop(p)
}

var pairingCommand = regexp.MustCompile("hermes -p liam pairing approve telegram ([A-Z0-9]+)")

// The first hour: a stranger, the code in the operator's log, the command that
// the log shows, an answer, and a home channel that stands in .env.
func TestPairingAndHomeChannel(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{strangers: true})
	w.profile("liam", w.config, w.env+"# kept\n")
	p := w.start("-p", "liam")
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "let me in")
	asked := w.sees(ann.ID, "pairing code")
	m := pairingCommand.FindStringSubmatch(p.Output())
	if m == nil || !strings.Contains(asked.Text, m[1]) {
		t.Fatalf("log and chat do not show the same code: %v\n%s\n%s", m, asked.Text, p.Output())
	}
	if out, code := w.run(strings.Fields(m[0])[1:]...); code != 0 {
		t.Fatalf("%s: %d %s", m[0], code, out)
	}
	w.tg.Say(ann, "and now?")
	w.sees(ann.ID, "and now?")
	w.tg.Say(ann, "/sethome")
	w.sees(ann.ID, "home channel")
	env, err := os.ReadFile(filepath.Join(w.home.Dir, "profiles", "liam", ".env"))
	if err != nil || !strings.Contains(string(env), fmt.Sprintf("TELEGRAM_HOME_CHANNEL=%d", ann.ID)) || !strings.Contains(string(env), "# kept") {
		t.Errorf(".env: %v", err)
	}
	bob := w.tg.AddUser("Bob")
	w.tg.Say(bob, "me too")
	w.sees(bob.ID, "pairing code")
	if out, code := w.run("-p", "liam", "pairing", "approve", "telegram", "WRONGONE"); code == 0 {
		t.Errorf("a wrong code was accepted: %s", out)
	}
	w.tg.Say(bob, "me too!")
	w.settled("-p", "liam")
	if w.count(bob.ID, "me too!") != 0 {
		t.Error("a stranger was answered")
	}
	if out, _ := w.run("-p", "liam", "pairing", "list"); !strings.Contains(out, fmt.Sprint(ann.ID)) {
		t.Errorf("pairing list: %s", out)
	}
	w.stop(p)
}

// A bind that the network can reach needs a key; without one the API is down
// with the exact words, and everything else goes on.
func TestBindGuard(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ host, key, want string }{
		"no key":      {"0.0.0.0", "", "Refusing to start: binding to 0.0.0.0 requires API_SERVER_KEY"},
		"IPv6":        {"::", "", "Refusing to start: binding to :: requires API_SERVER_KEY"},
		"short key":   {"0.0.0.0", "short", "at least 16 characters"},
		"placeholder": {"0.0.0.0", "change-me-change-me-change-me", "placeholder"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setUp(t, options{})
			port := freePort(t)
			w.write(".env", w.env+fmt.Sprintf("API_SERVER_ENABLED=true\nAPI_SERVER_HOST=%s\nAPI_SERVER_PORT=%d\nAPI_SERVER_KEY=%s\n", c.host, port, c.key))
			p := w.start()
			s := w.waitStatus("the API is refused", func(s control.Status) bool { return part(s, "api").State == health.Down })
			if !shows(s, c.want) || s.Healthy {
				t.Errorf("status: %v", s.Problems)
			}
			w.waitOutput(p, c.want)
			if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
				conn.Close()
				t.Error("something listens all the same")
			}
			ann := w.tg.AddUser("Ann")
			w.tg.Say(ann, "and the chat?")
			w.sees(ann.ID, "and the chat?")
			w.stop(p)
		})
	}
}

// write replaces a file of the home.
func (w *world) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.home.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func TestMisspeltKeysAreReported(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{env: "API_SEVER_PORT=8642\nTELEGRAM_ALOWED_USERS=1\n", config: "aproovals:\n  mode: manual\n"})
	p := w.start()
	for _, want := range []string{"API_SERVER_PORT", "TELEGRAM_ALLOWED_USERS", "approvals"} {
		if s, _ := w.status(); !strings.Contains(strings.Join(s.Warnings, "\n"), want) {
			t.Errorf("status does not name %s: %v", want, s.Warnings)
		}
		w.waitOutput(p, want)
	}
	w.stop(p)
}

// The ways in which units name a profile all lead to the same folder.
func TestHowUnitsNameAProfile(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	w.profile("liam", w.config, w.env)
	root, liam := w.home.Dir, filepath.Join(w.home.Dir, "profiles", "liam")
	for _, c := range []struct {
		name, home string
		args       []string
		env        []string
		want       string
	}{
		{"hand-written", root, []string{"--profile", "liam", "gateway", "run"}, nil, "liam"},
		{"generated", liam, []string{"--profile", "liam", "gateway", "run"}, nil, "liam"},
		{"home only", liam, []string{"gateway", "run"}, nil, "liam"},
		{"without its @", root, []string{"--profile", "", "gateway", "run"}, nil, "default"},
		{"flag behind", root, []string{"gateway", "run", "-p", "liam"}, nil, "liam"},
		// EnvironmentFile= gave old values; the file on disk wins, also over a
		// variable that it no longer has.
		{"environment file", root, []string{"--profile", "liam", "gateway", "run"}, []string{"TELEGRAM_BOT_TOKEN=1:old", "TELEGRAM_BASE_URL=http://127.0.0.1:1"}, "liam"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := w.launch(append([]string{"HERMES_HOME=" + c.home}, c.env...), c.args...)
			if err := p.Ready(w.deadline()); err != nil {
				t.Fatal(err)
			}
			args := []string{"-p", c.want}
			if s, _ := w.status(args...); s.Profile != c.want || s.PID != p.Cmd.Process.Pid {
				t.Errorf("it serves %q", s.Profile)
			}
			ann := w.tg.AddUser("Ann" + c.name)
			w.tg.Say(ann, "hello "+c.name)
			w.sees(ann.ID, "hello "+c.name)
			w.stop(p)
		})
	}
}
