package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hermes/internal/control"
	"hermes/internal/health"
	"hermes/testkit/llm"
	"hermes/testkit/telegram"
)

// A ledger of which nothing but the first page is left: the gateway does not
// crash, does not pretend, keeps the file, and goes on with a new one.
func TestADamagedLedger(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	p := w.start()
	ann := w.tg.AddUser("Ann")
	for i := range 5 {
		text := fmt.Sprintf("message %d %s", i, strings.Repeat("filling ", 100))
		w.tg.Say(ann, text)
		w.sees(ann.ID, strings.TrimSpace(text))
	}
	w.stop(p)
	path := filepath.Join(w.home.Dir, "ledger.db")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	junk := []byte(strings.Repeat("damage! ", 512))
	for at := int64(4096); at < st.Size(); at += 4096 {
		if _, err := f.WriteAt(junk, at); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	p = w.launch(nil, "gateway", "run")
	s := w.waitStatus("it says what is wrong", func(s control.Status) bool {
		return s.PID == p.Cmd.Process.Pid && s.State == "running" && !s.Healthy && shows(s, "damaged")
	})
	if s.Ledger.Salvaged == nil {
		t.Fatalf("it does not say where the file is: %+v", s.Ledger)
	}
	if kept, err := os.ReadFile(s.Ledger.Salvaged.Kept); err != nil || !strings.Contains(string(kept), "damage! ") {
		t.Errorf("the file was not kept: %v", err)
	}
	w.tg.Say(ann, "a new beginning")
	w.sees(ann.ID, "a new beginning")
	w.stop(p)
}

// The scheduler alone, beside a gateway of the same profile: no second
// instance, no second poller, and each firing once.
func TestTheSchedulerBesideTheGateway(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	ops := w.tg.AddUser("Ops")
	w.write(".env", w.env+fmt.Sprintf("TELEGRAM_HOME_CHANNEL=%d\n", ops.ID))
	w.write("scripts/tell.sh", "#!/bin/sh\necho fired once >> \"$HERMES_HOME/fired\"\necho the script speaks\n")
	if err := os.Chmod(filepath.Join(w.home.Dir, "scripts", "tell.sh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, code := w.run("cron", "create", "0 4 * * *", "--no-agent", "--script", "tell.sh", "--name", "tell", "--deliver", "telegram"); code != 0 {
		t.Fatalf("%d %s", code, out)
	}
	p := w.start()
	c := w.launch(nil, "cron", "run")
	w.eventually("both run", func() bool {
		out, _ := w.run("cron", "status")
		return strings.Contains(out, fmt.Sprint(p.Cmd.Process.Pid)) || c.Output() != ""
	})
	if out, code := w.run("cron", "run", "tell"); code != 0 {
		t.Errorf("%d %s", code, out)
	}
	w.sees(ops.ID, "the script speaks")
	w.settled()
	fired, err := os.ReadFile(filepath.Join(w.home.Dir, "fired"))
	if n := strings.Count(string(fired), "fired once"); n != 1 || w.count(ops.ID, "the script speaks") != 1 {
		t.Errorf("it ran %d times (%v) and was told %d times", n, err, w.count(ops.ID, "the script speaks"))
	}
	if s, _ := w.status(); !s.Healthy {
		t.Errorf("%v", s.Problems)
	}
	w.stop(c)
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "still there?")
	w.sees(ann.ID, "still there?")
	w.stop(p)
}

// A home whose path is too long for a socket; see unix(7).
func TestALongPath(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("a-long-name-", 10))
	w := setUp(t, options{dir: dir})
	short, err := os.MkdirTemp("", "run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	w.home.Env = []string{"XDG_RUNTIME_DIR=" + short}
	p := w.start()
	if s, code := w.status(); code != 0 || part(s, "control").State != health.OK {
		t.Errorf("exit %d, %v", code, s.Problems)
	}
	w.stop(p)
}

// A stop lets a stream that a client reads come to its end.
func TestAStopDrainsAStream(t *testing.T) {
	t.Parallel()
	gate := llm.NewGate()
	w := setUp(t, options{api: true, brain: obedient(gate)})
	p := w.start()
	body := `{"stream":true,"messages":[{"role":"user","content":"gate stream"}]}`
	req, err := http.NewRequestWithContext(w.deadline(), http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/v1/chat/completions", w.apiPort), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.apiKey)
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	got := make(chan string, 1)
	go func() {
		res, err := c.Do(req)
		if err != nil {
			got <- err.Error()
			return
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		got <- fmt.Sprint(string(text), err)
	}()
	<-gate.Arrived()
	_ = p.Cmd.Process.Signal(syscall.SIGTERM)
	w.waitOutput(p, "gateway stopping")
	gate.Open()
	text := <-got
	if !strings.Contains(text, "[DONE]") || !strings.Contains(text, "answer") {
		t.Errorf("the client read %q", text)
	}
	w.ended(p, 0)
}

// Only who may talk to the agent may allow what it asks for, and a button
// allows once.
func TestWhoMayApprove(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{strangers: true, brain: obedient(nil)})
	ann, mallory := w.tg.AddUser("Ann"), w.tg.AddUser("Mallory")
	w.write(".env", w.env+fmt.Sprintf("TELEGRAM_ALLOWED_USERS=%d\nTELEGRAM_REQUIRE_MENTION=false\n", ann.ID))
	p := w.start()
	group := w.tg.AddSupergroup("Team", false)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.Mkdir(victim, 0o755); err != nil {
		t.Fatal(err)
	}
	w.tg.Post(telegram.Post{From: ann, Chat: group.ID, Text: "run rm -rf " + victim + " && echo gone-$((1+1))"})
	asked, err := w.tg.WaitFor(w.deadline(), group.ID, func(m telegram.Message) bool { return m.FromBot && len(m.Buttons) > 0 })
	if err != nil {
		t.Fatal(err, w.tg.Transcript(group.ID), w.logs())
	}
	query := w.tg.Press(mallory, asked, asked.Buttons[0][0].Data)
	w.tg.Post(telegram.Post{From: mallory, Chat: group.ID, Text: "/approve always"})
	w.tg.Post(telegram.Post{From: mallory, Chat: group.ID, Text: "yes"})
	if err := w.tg.WaitAnswered(w.deadline(), query); err != nil {
		t.Errorf("the stranger's button shows its clock for ever: %v", err)
	}
	w.eventually("the stranger's messages were dealt with", func() bool { return w.tg.Pending() == 0 })
	if _, err := os.Stat(victim); err != nil {
		t.Fatal("a stranger allowed it")
	}
	w.tg.Press(ann, asked, asked.Buttons[0][0].Data)
	w.sees(group.ID, "gone-2")
	w.tg.Press(ann, asked, asked.Buttons[0][0].Data)
	w.settled()
	if n := w.count(group.ID, "gone-2"); n != 1 {
		t.Errorf("it ran %d times", n)
	}
	w.stop(p)
}

// What the agent's commands see and may do: none of the profile's secrets
// (which the end of every scenario looks for in what the model was shown), and
// nothing that ends the gateway.
func TestWhatCommandsCannotDo(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{api: true, brain: obedient(nil), env: "MY_OWN_API_KEY=replaced\n"})
	own := w.newSecret("the operator's own key", "own-")
	w.write(".env", strings.Replace(w.env, "MY_OWN_API_KEY=replaced", "MY_OWN_API_KEY="+own, 1)+fmt.Sprintf("API_SERVER_ENABLED=true\nAPI_SERVER_PORT=%d\nAPI_SERVER_KEY=%s\n", w.apiPort, w.apiKey))
	p := w.start()
	pid := p.Cmd.Process.Pid
	for i, c := range []string{
		"env; echo done-0", "printenv MY_OWN_API_KEY; echo done-1", "cat " + w.home.Dir + "/.env; echo done-2", "cat /proc/$PPID/environ | tr '\\0' '\\n'; echo done-3",
		"grep -r TOKEN " + w.home.Dir + "; echo done-4", "base64 < " + w.home.Dir + "/config.yaml; echo done-5",
		fmt.Sprintf("kill -9 %d; echo done-6", pid), "kill -TERM $PPID; echo done-7", "pkill -f 'gateway run'; echo done-8", w.home.Binary + " gateway stop; echo done-9",
		fmt.Sprintf("curl -s --unix-socket %s/gateway.sock -X POST http://x/stop; echo done-10", w.home.Dir),
	} {
		who := w.tg.AddUser(fmt.Sprintf("P%d", i))
		w.tg.Say(who, "run "+c)
		m, err := w.tg.WaitFor(w.deadline(), who.ID, func(m telegram.Message) bool {
			return m.FromBot && (len(m.Buttons) > 0 || strings.HasPrefix(m.Text, "result: "))
		})
		if err != nil {
			t.Fatalf("%s: %v\n%s", c, err, w.logs())
		}
		first, _, _ := strings.Cut(m.Text, "\n")
		t.Logf("%.60s → %.150s", strings.ReplaceAll(c, w.home.Dir, "~/.hermes"), first)
		select {
		case <-p.Done():
			t.Fatalf("%s ended the gateway\n%s", c, p.Output())
		default:
		}
		// What only asked is denied, so that it cannot happen later.
		w.tg.Say(who, "/deny")
	}
	w.settled()
	if s, code := w.status(); code != 0 || s.PID != pid {
		t.Errorf("exit %d, %v", code, s.Problems)
	}
	w.stop(p)
}
