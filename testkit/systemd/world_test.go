package systemd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hermes/testkit/box"
	"hermes/testkit/llm"
	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

const (
	// spare is the program as it was built. Nothing spoils it: what is restarted to
	// something else is the program of a world.
	spare  = "/usr/local/bin/hermes"
	apiKey = "systemd-key-of-the-api"
	// stepLimit bounds each thing that a test waits for.
	stepLimit = 45 * time.Second
)

// machine is the box that all cases share.
type machine struct {
	*box.Box
	brain *llm.Server
	gates sync.Map // word → *gate
	ports atomic.Int32
	dies  sync.Once // installDying
}

// world is one person of the machine, with a manager, a bus and a program that
// no other case touches; so cases run beside each other, whatever they freeze,
// kill or spoil.
type world struct {
	*machine
	user    *box.User
	program string
}

// profile is one gateway of a world.
type profile struct {
	*world
	t     *testing.T
	name  string
	mode  mode
	unit  string // "" where no service manager runs it
	port  int
	tg    *telegram.Server
	loads int // loads that were put on it
}

// newMachine boots a box with the program and the model's fake.
func newMachine(t *testing.T) *machine {
	t.Helper()
	ctx, cancel := rig.Deadline(5 * time.Minute)
	defer cancel()
	binary, err := rig.Build(ctx, t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{Box: box.Start(t)}
	m.ports.Store(8800)
	m.Install(t, binary, spare)
	m.fakes(t)
	return m
}

// world makes a person who lingers, and that person's own copy of the program.
func (m *machine) world(t *testing.T, name string) *world {
	t.Helper()
	w := &world{machine: m, user: m.User(t, name), program: "/opt/" + name + "/hermes"}
	m.Root(t, fmt.Sprintf("loginctl enable-linger %s && mkdir -p /opt/%s", name, name))
	w.restoreProgram(t)
	w.user.AwaitManager(t)
	return w
}

// restoreProgram puts the program as it was built in its place.
func (w *world) restoreProgram(t *testing.T) {
	t.Helper()
	w.Root(t, fmt.Sprintf("ln %s %s.good && mv -f %s.good %s || rm -f %s.good", spare, w.program, w.program, w.program, w.program))
}

// spoilProgram puts a script in the program's place.
func (w *world) spoilProgram(t *testing.T, text string) {
	t.Helper()
	w.Write(t, w.program, text)
	w.Root(t, "chmod 755 "+w.program)
}

// nextPort is a port that no other case uses.
func (m *machine) nextPort() int { return int(m.ports.Add(1)) }

// fakes starts the model within the box's network.
func (m *machine) fakes(t *testing.T) {
	t.Helper()
	err := m.Inside(func() (err error) {
		m.brain, err = llm.Start(m.think)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.brain.Close)
	m.brain.KeepRequests(16)
}

// think answers "say X" at once, "think X" once its gate is open, "stream X" in
// pieces, of which the last waits for the gate, and "run X" with what the shell
// says to X.
func (m *machine) think(r llm.Request) llm.Reply {
	verb, id, _ := strings.Cut(r.LastUser(), " ")
	pass := func(ctx context.Context) {
		g := m.gateOf(id)
		g.once.Do(func() { close(g.reached) })
		select {
		case <-g.open:
		case <-ctx.Done():
		}
	}
	switch verb {
	case "stream":
		return llm.Reply{Text: "one two three " + id, Pieces: []string{"one ", "two ", "three ", id}, BeforePiece: func(ctx context.Context, i int) {
			if i == 2 {
				pass(ctx)
			}
		}}
	case "run":
		arguments, err := json.Marshal(map[string]string{"command": id})
		if err != nil {
			return llm.Reply{Text: err.Error()}
		}
		return llm.ToolThenAnswer("terminal", string(arguments), "it said: ")(r)
	case "think":
		return llm.Reply{Text: "answer " + id, Before: pass}
	}
	return llm.Reply{Text: "answer " + id}
}

// gate is where an answer waits.
type gate struct {
	open    chan struct{} // closed when it may go on
	reached chan struct{} // closed when the model is at it
	once    sync.Once
}

func (m *machine) gateOf(id string) *gate {
	g, _ := m.gates.LoadOrStore(id, &gate{open: make(chan struct{}), reached: make(chan struct{})})
	return g.(*gate)
}

// gate is what to close so that the answer named id goes on.
func (m *machine) gate(id string) chan struct{} { return m.gateOf(id).open }

// word is a word that no other case says.
func (p *profile) word(w string) string { return fmt.Sprintf("%s-%d", w, p.port) }

// profile makes a profile with a bot, the API and the fakes.
func (w *world) profile(t *testing.T, name string, port int) *profile {
	t.Helper()
	w.user.Run(t, spare+" profile create "+name)
	p := w.newProfile(t, name, port)
	p.configure()
	return p
}

// newProfile is a profile that nothing was made of yet but its bot.
func (w *world) newProfile(t *testing.T, name string, port int) *profile {
	t.Helper()
	p := &profile{world: w, t: t, mode: generated, name: name, unit: "hermes-gateway-" + name + ".service", port: port}
	err := w.Inside(func() (err error) {
		p.tg, err = telegram.New(telegram.Options{Token: fmt.Sprintf("%d:AAF-fake_token_of_the_test_server_0000", 7_000_000_000+int64(port))})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.tg.Close)
	return p
}

// configure writes the configuration, which leads to the fakes.
func (p *profile) configure() {
	p.t.Helper()
	p.user.Write(p.t, p.file("config.yaml"), fmt.Sprintf("model:\n  default: fake\n  provider: custom\n  base_url: %s\n  api_key: systemd-key-of-the-model\napprovals:\n  mode: \"off\"\nagent:\n  restart_drain_timeout: 4\nstreaming:\n  enabled: false\nsession_reset:\n  mode: none\n", p.brain.URL()))
	p.env("")
}

func (p *profile) file(name string) string {
	return p.user.Home + "/.hermes/profiles/" + p.name + "/" + name
}

// env writes the profile's .env, with lines that come last.
func (p *profile) env(more string) {
	p.t.Helper()
	p.user.Write(p.t, p.file(".env"), fmt.Sprintf("TELEGRAM_BOT_TOKEN=%s\nTELEGRAM_BASE_URL=%s\nTELEGRAM_ALLOW_ALL_USERS=true\nAPI_SERVER_ENABLED=true\nAPI_SERVER_PORT=%d\nAPI_SERVER_KEY=%s\nHERMES_LOG_LEVEL=info\n%s",
		p.tg.Token(), p.tg.URL(), p.port, apiKey, more))
	p.user.Run(p.t, "chmod 600 "+p.file(".env"))
}

// install makes the generated unit and starts it.
func (p *profile) install() {
	p.t.Helper()
	p.onFailure()
	p.t.Cleanup(p.remove)
	p.user.Run(p.t, p.program+" -p "+p.name+" gateway install")
}

// onFailure shows the journal of a case that failed.
func (p *profile) onFailure() {
	p.t.Cleanup(func() {
		if p.t.Failed() && p.mode.managed() {
			ctx, cancel := rig.Deadline(stepLimit)
			defer cancel()
			out, _ := p.Try(ctx, fmt.Sprintf("journalctl --no-pager -o cat -n 60 _UID=%[1]d _SYSTEMD_USER_UNIT=%[2]s + _UID=%[1]d USER_UNIT=%[2]s", p.user.UID, p.unit))
			p.t.Logf("the journal of %s:\n%s", p.unit, out)
		}
	})
}

// remove ends the profile's gateway and takes its files away, so that the next
// case has the machine for itself.
func (p *profile) remove() {
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	stop := "systemctl --user disable --now " + p.unit + " && systemctl --user reset-failed"
	if !p.mode.managed() {
		stop = spare + " -p " + p.name + " gateway stop"
	}
	if out, err := p.user.Try(ctx, stop); err != nil {
		p.t.Errorf("%s does not end: %v %s", p.name, err, out)
	}
	if !p.t.Failed() {
		_, _ = p.user.Try(ctx, "rm -rf ~/.hermes/profiles/"+p.name)
	}
}

// cli runs a command for the profile, which must succeed.
func (p *profile) cli(args string) string {
	p.t.Helper()
	return p.user.Run(p.t, spare+" -p "+p.name+" "+args)
}

// cliFails runs a command for the profile, which must not succeed.
func (p *profile) cliFails(args string) string {
	p.t.Helper()
	return p.user.Fails(p.t, spare+" -p "+p.name+" "+args)
}

// show is a property of the profile's unit.
func (p *profile) show(property string) string {
	p.t.Helper()
	return p.user.Property(p.t, p.unit, property)
}

// url is an address of the API.
func (p *profile) url(path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", p.port, path) }

// client makes an HTTP client of the box's network.
func (w *world) client(keepAlive bool) *http.Client {
	return &http.Client{Timeout: stepLimit, Transport: &http.Transport{DialContext: w.Dial, DisableKeepAlives: !keepAlive, MaxIdleConnsPerHost: 1}}
}

// awaitServing waits until a new connection is served.
func (p *profile) awaitServing() {
	p.t.Helper()
	c := p.client(false)
	p.Until(p.t, stepLimit, p.unit+" to serve", func(ctx context.Context) error {
		return p.health(ctx, c)
	})
}

func (p *profile) health(ctx context.Context, c *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url("/health"), nil)
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

// awaitAnother waits until another process than old serves as the main one.
func (p *profile) awaitAnother(old int) int {
	p.t.Helper()
	var pid int
	p.Until(p.t, stepLimit, p.name+" to be started again", func(ctx context.Context) (err error) {
		if pid, err = p.lookPID(); err != nil {
			return err
		}
		if pid == 0 || pid == old {
			return fmt.Errorf("main PID %d", pid)
		}
		if p.mode.managed() {
			out, err := p.user.Try(ctx, "systemctl --user is-active "+p.unit)
			if state := strings.TrimSpace(out); state != "active" {
				return fmt.Errorf("%s: %w", state, err)
			}
		}
		return nil
	})
	return pid
}

// until waits for a condition to be seen.
func (p *profile) until(what string, holds func() bool) {
	p.t.Helper()
	p.Until(p.t, stepLimit, what, func(context.Context) error {
		if !holds() {
			return fmt.Errorf("not seen")
		}
		return nil
	})
}

// begin lets a person ask something that takes until its gate is opened, and
// returns when the model is at it.
func (p *profile) begin(u telegram.User, id string) {
	p.t.Helper()
	p.tg.Say(u, "think "+id)
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	select {
	case <-p.gateOf(id).reached:
	case <-ctx.Done():
		p.t.Fatalf("the model was never asked for %s:\n%s", id, p.tg.Transcript(u.ID))
	}
}

// converse lets a person write and waits for the answer.
func (p *profile) converse(u telegram.User, id string) error {
	p.tg.Say(u, "say "+id)
	return p.sees(u, "answer "+id)
}

// repeated stands before what a process was sending when it died: Telegram cannot
// be asked whether it arrived, so it is sent again with this mark.
const repeated = "♻️ (may be a repeat)\n"

// sees waits until the bot has written a text, or a text that begins so.
func (p *profile) sees(u telegram.User, text string) error {
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	_, err := p.tg.WaitFor(ctx, u.ID, func(m telegram.Message) bool {
		return m.FromBot && (strings.TrimPrefix(m.Text, repeated) == text || strings.HasSuffix(text, "…") && strings.HasPrefix(m.Text, strings.TrimSuffix(text, "…")))
	})
	if err != nil {
		return fmt.Errorf("%q was not written: %w\n%s", text, err, p.tg.Transcript(u.ID))
	}
	return nil
}

// once holds that the bot wrote a text exactly once, but for a repetition that is
// marked as one.
func (p *profile) once(u telegram.User, text string) {
	p.t.Helper()
	n, marked := 0, 0
	for _, m := range p.tg.Replies(u.ID) {
		switch m.Text {
		case text:
			n++
		case repeated + text:
			marked = 1
		}
	}
	n = max(n, marked)
	if n != 1 {
		p.t.Errorf("%q was written %d times:\n%s", text, n, p.tg.Transcript(u.ID))
	}
}

// want holds that an output has parts, however its lines are folded.
func want(t *testing.T, out string, parts ...string) {
	t.Helper()
	flat := strings.Join(strings.Fields(out), " ")
	for _, part := range parts {
		if !strings.Contains(flat, part) {
			t.Errorf("%q is missing in:\n%s", part, out)
		}
	}
}

// started is when a process of the box began, after the machine's boot:
// field 22 of /proc/PID/stat, see proc_pid_stat(5).
func (p *profile) started(pid int) time.Duration {
	p.t.Helper()
	text := p.Root(p.t, fmt.Sprintf("cat /proc/%d/stat", pid))
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	ticks, err := strconv.ParseInt(f[19], 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100
}

// uptime is the time since the machine's boot.
func uptime(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), " ")
	seconds, err := strconv.ParseFloat(first, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(seconds * float64(time.Second))
}
