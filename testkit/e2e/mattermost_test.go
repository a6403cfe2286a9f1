package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"hermes/internal/control"
	"hermes/internal/health"
	"hermes/testkit/fault"
	"hermes/testkit/llm"
	"hermes/testkit/mattermost"
)

// Mattermost as a user has it: a question answered, one that was asked while
// nobody ran, one whose answer was sent in the instant of a crash, and a thread
// in a channel.
func TestMattermost(t *testing.T) {
	t.Parallel()
	mm, err := mattermost.New(mattermost.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mm.Close)
	w := setUp(t, options{brain: obedient(llm.NewGate()), env: fmt.Sprintf(
		"MATTERMOST_URL=%s\nMATTERMOST_TOKEN=%s\nMATTERMOST_ALLOW_ALL_USERS=true\nMATTERMOST_REPLY_MODE=thread\n", mm.URL(), mm.Token())})
	w.mu.Lock()
	w.secrets["Mattermost's token"] = mm.Token()
	w.mu.Unlock()
	ann, town := mm.AddUser("ann"), mm.AddChannel("Town", "O")
	dm := mm.Direct(ann)
	sees := func(channel, text string) mattermost.Message {
		t.Helper()
		m, err := mm.WaitFor(w.deadline(), channel, func(m mattermost.Message) bool { return m.FromBot && strings.Contains(m.Text, text) })
		if err != nil {
			t.Fatalf("the channel never showed %q: %v\n%s", text, err, w.logs())
		}
		return m
	}
	count := func(channel, text string) (n int) {
		for _, m := range mm.Replies(channel) {
			if strings.Contains(m.Text, text) {
				n++
			}
		}
		return n
	}

	p := w.start()
	w.waitStatus("Mattermost is connected", onMattermost)
	mm.Say(ann, "hello")
	sees(dm, "you said: hello")
	root := mm.Post(mattermost.Post{From: ann, Channel: town.ID, Text: "@hermes what now?"})
	if m := sees(town.ID, "you said: what now?"); m.Root != root.ID {
		t.Errorf("the answer stands in the thread %q", m.Root)
	}
	mm.Post(mattermost.Post{From: ann, Channel: town.ID, Root: root.ID, Text: "!status"})
	sees(town.ID, "Session")
	mm.Say(ann, "run rm -rf "+filepath.Join(t.TempDir(), "absent")+" && echo removed-$((1+1))")
	asked, err := mm.WaitFor(w.deadline(), dm, func(m mattermost.Message) bool { return len(m.Reactions) > 1 })
	if err != nil {
		t.Fatalf("no question with numbers: %v\n%s", err, w.logs())
	}
	mm.Press(ann, asked.ID, "one")
	sees(dm, "removed-2")
	w.settled()
	w.stop(p)

	mm.Say(ann, "anybody there?")
	p = w.start()
	sees(dm, "you said: anybody there?")
	w.settled()

	defer mm.Fail("POST /posts", fault.Lost())()
	mm.Say(ann, "crash")
	sees(dm, "you said: crash")
	p.Kill()
	mm.ForgetPending() // the crash lasted longer than the server remembers
	p = w.start()
	mm.Say(ann, "after it")
	sees(dm, "you said: after it")
	w.settled()
	for _, text := range []string{"hello", "anybody there?", "crash", "after it"} {
		if n := count(dm, "you said: "+text); n != 1 {
			t.Errorf("%q was answered %d times", text, n)
		}
	}
	w.stop(p)
}

// Mattermost's own buttons: its server calls the API, which asks it for no key,
// also right after a restart; and a forged call presses nothing.
func TestMattermostsOwnButtons(t *testing.T) {
	t.Parallel()
	mm, err := mattermost.New(mattermost.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mm.Close)
	w := setUp(t, options{brain: obedient(llm.NewGate()), api: true})
	w.write(".env", w.env+fmt.Sprintf("MATTERMOST_URL=%s\nMATTERMOST_TOKEN=%s\nMATTERMOST_ALLOW_ALL_USERS=true\nMATTERMOST_CALLBACK_URL=http://127.0.0.1:%d\n",
		mm.URL(), mm.Token(), w.apiPort))
	ann := mm.AddUser("ann")
	dm := mm.Direct(ann)
	p := w.start()
	w.waitStatus("Mattermost is connected", onMattermost)
	mm.Say(ann, "run rm -rf "+filepath.Join(t.TempDir(), "absent")+" && echo removed-$((1+1))")
	asked, err := mm.WaitFor(w.deadline(), dm, func(m mattermost.Message) bool { return m.FromBot && len(m.Buttons) > 1 })
	if err != nil {
		t.Fatalf("no question with buttons: %v\n%s", err, w.logs())
	}
	forged := mm.CallOf(ann, asked.ID, 0)
	forged.Body["context"] = map[string]any{"choice": 0, "channel": dm, "signature": "0000"}
	if status, said, err := forged.Make(t.Context()); err != nil || status != 403 {
		t.Errorf("a forged call was answered with %d %q, %v", status, said, err)
	}
	w.stop(p)
	p = w.start()
	if status, said, err := mm.CallOf(ann, asked.ID, 0).Make(t.Context()); err != nil || status != 200 {
		t.Fatalf("a press was answered with %d %q, %v\n%s", status, said, err, w.logs())
	}
	if _, err := mm.WaitFor(w.deadline(), dm, func(m mattermost.Message) bool { return m.FromBot && strings.Contains(m.Text, "removed-2") }); err != nil {
		t.Fatalf("nothing came of the press: %v\n%s", err, w.logs())
	}
	w.stop(p)

	// With the API off the buttons lead nowhere, which the start says.
	w.write(".env", strings.Replace(w.env, "API_SERVER_ENABLED=true", "API_SERVER_ENABLED=false", 1)+fmt.Sprintf("MATTERMOST_URL=%s\nMATTERMOST_TOKEN=%s\nMATTERMOST_ALLOW_ALL_USERS=true\nMATTERMOST_CALLBACK_URL=http://127.0.0.1:%d\n",
		mm.URL(), mm.Token(), w.apiPort))
	p = w.start()
	if out := w.must("gateway", "status"); !strings.Contains(strings.Join(strings.Fields(out), " "), "but the API is off, so that a press goes nowhere") {
		t.Errorf("status does not say that the buttons lead nowhere:\n%s", out)
	}
	w.stop(p)
}

// onMattermost tells whether the gateway is connected.
func onMattermost(s control.Status) bool {
	for _, part := range s.Parts {
		if part.Name == "platform.mattermost" {
			return part.State == health.OK && part.Evidence["bot"] == "@hermes"
		}
	}
	return false
}
