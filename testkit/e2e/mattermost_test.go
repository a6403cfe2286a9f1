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
	w.waitStatus("Mattermost is connected", func(s control.Status) bool {
		for _, part := range s.Parts {
			if part.Name == "platform.mattermost" {
				return part.State == health.OK && part.Evidence["bot"] == "@hermes"
			}
		}
		return false
	})
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
