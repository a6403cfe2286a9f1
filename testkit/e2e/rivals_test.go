package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"hermes/internal/control"
	"hermes/internal/health"
	"hermes/testkit/fault"
	"hermes/testkit/rig"
)

// Of many that start at once exactly one serves; the others are refused.
func TestManyStartAtOnce(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	const rivals = 6
	procs := make([]*rig.Process, rivals)
	for i := range procs {
		procs[i] = w.launch(nil, "gateway", "run")
	}
	s := w.waitStatus("one serves", func(s control.Status) bool { return s.Healthy })
	for _, p := range procs {
		if p.Cmd.Process.Pid != s.PID {
			w.ended(p, 1)
			if !strings.Contains(p.Output(), "lready running") {
				t.Errorf("a loser said %s", p.Output())
			}
		}
	}
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "who is it?")
	w.sees(ann.ID, "who is it?")
	w.settled()
	if n := w.count(ann.ID, "who is it?"); n != 1 {
		t.Errorf("answered %d times", n)
	}
}

// A token that Telegram refuses degrades that platform only, and the status
// says where it stands.
func TestABadToken(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{api: true})
	bad := "7000000009:" + w.newSecret("the stale token", "AAX-")
	w.write(".env", "# a comment\n"+strings.Replace(w.env, w.tg.Token(), bad, 1))
	p := w.start()
	s := w.waitStatus("the token is refused", func(s control.Status) bool { return part(s, "platform.telegram").State == health.Down })
	if !shows(s, ".env") || !shows(s, "line 2") && !shows(s, ".env:2") {
		t.Errorf("the status does not say where the token stands: %v", s.Problems)
	}
	if status, body := w.api(http.MethodPost, "/v1/chat/completions", `{"messages":[{"role":"user","content":"still here"}]}`); status != 200 || !strings.Contains(body, "still here") {
		t.Errorf("the API: %d %s", status, body)
	}
	w.stop(p)
}

// Another program takes the bot by a webhook: the status says so, nothing is
// lost, and it ends by itself once the webhook is gone.
func TestAWebhookOfAnotherProgram(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	p := w.start()
	if err := w.tg.WaitPolling(w.deadline()); err != nil {
		t.Fatal(err)
	}
	w.tg.SetWebhook("https://elsewhere.example/hook")
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "who hears me?")
	w.waitStatus("it says who has the bot", func(s control.Status) bool { return !s.Healthy && shows(s, "webhook") })
	w.tg.SetWebhook("")
	w.sees(ann.ID, "who hears me?")
	w.waitStatus("healthy", func(s control.Status) bool { return s.Healthy })
	w.stop(p)
}

// Killed on a full disk and started again there: what was accepted before is
// still answered, once there is space at the latest.
func TestKilledOnAFullDisk(t *testing.T) {
	dir := volume(t, 400)
	w := setUp(t, options{dir: dir})
	p := w.start()
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "first")
	w.sees(ann.ID, "first")
	w.settled()
	w.eventually("the reserve is in place", func() bool {
		st, err := os.Stat(filepath.Join(w.home.Dir, "ledger.ballast"))
		return err == nil && st.Size() == 16<<20
	})
	filler := fill(t, dir)
	p.Kill()
	w.tg.Say(ann, "second")
	p = w.launch(nil, "gateway", "run")
	w.waitStatus("it says that there is no space", func(s control.Status) bool { return s.PID == p.Cmd.Process.Pid && !s.Healthy && shows(s, "space") })
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	freed := time.Now()
	w.sees(ann.ID, "second")
	t.Logf("answered %s after there was space", time.Since(freed).Round(time.Millisecond))
	w.waitStatus("healthy again", func(s control.Status) bool { return s.Healthy })
	w.settled()
	for _, text := range []string{"first", "second"} {
		if n := w.count(ann.ID, text); n != 1 {
			t.Errorf("%q was answered %d times\n%s", text, n, w.tg.Transcript(ann.ID))
		}
	}
	w.stop(p)
}

// Somebody who blocks the bot, or a group that it was thrown out of, costs
// nobody else anything.
func TestAChatThatIsGone(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	p := w.start()
	ann, bob := w.tg.AddUser("Ann"), w.tg.AddUser("Bob")
	release := w.tg.Fail("sendMessage", fault.Fault{Chat: strconv.FormatInt(bob.ID, 10), Times: -1, Status: 403, Message: "Forbidden: bot was blocked by the user"})
	for i := range 3 {
		w.tg.Say(bob, fmt.Sprintf("blocked %d", i))
	}
	w.tg.Say(ann, "unharmed")
	w.sees(ann.ID, "unharmed")
	s := w.waitStatus("the dead letters are shown", func(s control.Status) bool { return s.Ledger.Delivery["dead"] > 0 })
	t.Logf("%v", s.Problems)
	if out, code := w.run("deliveries", "--dead"); code != 0 || !strings.Contains(out, "blocked") {
		t.Errorf("deliveries --dead: exit %d\n%s", code, out)
	}
	release()
	w.tg.Say(bob, "unblocked")
	w.sees(bob.ID, "unblocked")
	w.stop(p)
}
