//go:build systemd

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
	"testing"
	"time"

	"hermes/testkit/box"
	"hermes/testkit/llm"
	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

const (
	program = "/usr/local/bin/hermes"
	spare   = "/opt/hermes" // the same program, for commands while the other is spoiled
	apiKey  = "systemd-key-of-the-api"
	// stepLimit bounds each thing that a test waits for.
	stepLimit = 45 * time.Second
)

// world is a box with one user, the model's fake, and the profiles of the tests.
type world struct {
	*box.Box
	user  *box.User
	brain *llm.Server
	gates sync.Map // word → chan struct{}: closed when an answer may go on
}

// profile is one gateway of the world.
type profile struct {
	*world
	t     *testing.T
	name  string
	unit  string
	port  int
	tg    *telegram.Server
	loads int // loads that were put on it
}

// TestSystemd runs everything in one box, one case after another; each has a
// profile of its own, and the reboot comes last.
func TestSystemd(t *testing.T) {
	if why := box.Missing(); why != "" {
		t.Skip(why)
	}
	ctx, cancel := rig.Deadline(5 * time.Minute)
	defer cancel()
	binary, err := rig.Build(ctx, t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Box: box.Start(t)}
	w.Install(t, binary, program)
	w.Install(t, binary, spare)
	w.user = w.User(t, "ada")
	w.Root(t, "loginctl enable-linger ada")
	w.user.AwaitManager(t)
	w.fakes(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *world)
	}{
		{"HandOverUnderLoad", testHandOverUnderLoad},
		{"Killed", testKilled},
		{"SystemdRestart", testSystemdRestart},
		{"Ends", testEnds},
		{"Neighbours", testNeighbours},
		{"Environment", testEnvironment},
		{"Watchdog", testWatchdog},
		{"HandWritten", testHandWritten},
		{"BadSuccessor", testBadSuccessor},
		{"SelfHarm", testSelfHarm},
		{"StubbornTools", testStubbornTools},
		{"SilentBus", testSilentBus},
		{"StopsInBetween", testStopsInBetween},
		{"TwoReplace", testTwoReplace},
		{"Reboot", testReboot},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, w) })
	}
}

// fakes starts the model within the box's network.
func (w *world) fakes(t *testing.T) {
	t.Helper()
	err := w.Inside(func() (err error) {
		w.brain, err = llm.Start(w.think)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.brain.Close)
	w.brain.KeepRequests(16)
}

// think answers "say X" at once, "think X" once its gate is open, "stream X" in
// pieces, of which the last waits for the gate, and "run X" with what the shell
// says to X.
func (w *world) think(r llm.Request) llm.Reply {
	verb, id, _ := strings.Cut(r.LastUser(), " ")
	pass := func(ctx context.Context) {
		select {
		case <-w.gate(id):
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

func (w *world) gate(id string) chan struct{} {
	c, _ := w.gates.LoadOrStore(id, make(chan struct{}))
	return c.(chan struct{})
}

// profile makes a profile with a bot, the API and the fakes.
func (w *world) profile(t *testing.T, name string, port int) *profile {
	t.Helper()
	p := &profile{world: w, t: t, name: name, unit: "hermes-gateway-" + name + ".service", port: port}
	err := w.Inside(func() (err error) {
		p.tg, err = telegram.New(telegram.Options{Token: fmt.Sprintf("%d:AAF-fake_token_of_the_test_server_0000", 7_000_000_000+int64(port))})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.tg.Close)
	w.user.Run(t, "hermes profile create "+name)
	w.user.Write(t, p.file("config.yaml"), fmt.Sprintf("model:\n  default: fake\n  provider: custom\n  base_url: %s\n  api_key: systemd-key-of-the-model\napprovals:\n  mode: \"off\"\nagent:\n  restart_drain_timeout: 4\nstreaming:\n  enabled: false\nsession_reset:\n  mode: none\n", w.brain.URL()))
	p.env("")
	return p
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
	p.user.Run(p.t, "hermes -p "+p.name+" gateway install")
	p.onFailure()
	p.t.Cleanup(p.remove)
}

// onFailure shows the journal of a case that failed.
func (p *profile) onFailure() {
	p.t.Cleanup(func() {
		if p.t.Failed() {
			ctx, cancel := rig.Deadline(stepLimit)
			defer cancel()
			out, _ := p.Try(ctx, "journalctl --no-pager -o cat -n 60 _SYSTEMD_USER_UNIT="+p.unit+" + USER_UNIT="+p.unit)
			p.t.Logf("the journal of %s:\n%s", p.unit, out)
		}
	})
}

// remove ends the profile's gateway, so that the next case has the machine for
// itself.
func (p *profile) remove() {
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	if out, err := p.user.Try(ctx, "systemctl --user disable --now "+p.unit); err != nil {
		p.t.Errorf("%s does not end: %v %s", p.unit, err, out)
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

func (p *profile) mainPID() int {
	p.t.Helper()
	n, err := strconv.Atoi(p.show("MainPID"))
	if err != nil {
		p.t.Fatal(err)
	}
	return n
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

// awaitAnother waits until the unit has another main process than old, which
// runs.
func (p *profile) awaitAnother(old int) int {
	p.t.Helper()
	var pid int
	p.Until(p.t, stepLimit, p.unit+" to be started again", func(ctx context.Context) error {
		out, err := p.user.Try(ctx, "systemctl --user show -p MainPID -p ActiveState --value "+p.unit)
		if err != nil {
			return err
		}
		f := strings.Fields(out)
		if len(f) != 2 {
			return fmt.Errorf("systemctl says %q", out)
		}
		if pid, _ = strconv.Atoi(f[0]); pid == 0 || pid == old || f[1] != "active" {
			return fmt.Errorf("main PID %s, %s", f[0], f[1])
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
	n := p.brain.Count()
	p.tg.Say(u, "think "+id)
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	if err := p.brain.Wait(ctx, n+1); err != nil {
		p.t.Fatal(err)
	}
}

// converse lets a person write and waits for the answer.
func (p *profile) converse(u telegram.User, id string) error {
	p.tg.Say(u, "say "+id)
	return p.sees(u, "answer "+id)
}

// sees waits until the bot has written a text, or a text that begins so.
func (p *profile) sees(u telegram.User, text string) error {
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	_, err := p.tg.WaitFor(ctx, u.ID, func(m telegram.Message) bool {
		return m.FromBot && (m.Text == text || strings.HasSuffix(text, "…") && strings.HasPrefix(m.Text, strings.TrimSuffix(text, "…")))
	})
	if err != nil {
		return fmt.Errorf("%q was not written: %w\n%s", text, err, p.tg.Transcript(u.ID))
	}
	return nil
}

// once holds that the bot wrote a text exactly once.
func (p *profile) once(u telegram.User, text string) {
	p.t.Helper()
	n := 0
	for _, m := range p.tg.Replies(u.ID) {
		if m.Text == text {
			n++
		}
	}
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
