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
	"hermes/testkit/slack"
)

// Slack as a user has it: a question answered, a mention answered in a thread
// of its own, a command, a button, questions that were asked while nobody ran,
// and one whose answer was sent in the instant of a crash.
func TestSlack(t *testing.T) {
	t.Parallel()
	sl, err := slack.New(slack.Options{Token: "xoxb-2000000000001-2000000000002-e2e0secret0of0the0bot", AppToken: "xapp-1-A0FAKEAPP1-2000000000003-e2e0secret0of0the0app"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sl.Close)
	w := setUp(t, options{brain: obedient(llm.NewGate()), env: fmt.Sprintf(
		"SLACK_BOT_TOKEN=%s\nSLACK_APP_TOKEN=%s\nSLACK_BASE_URL=%s\nSLACK_ALLOW_ALL_USERS=true\n", sl.Token(), sl.AppToken(), sl.URL())})
	w.mu.Lock()
	w.secrets["Slack's bot token"], w.secrets["Slack's app token"] = sl.Token(), sl.AppToken()
	w.mu.Unlock()
	ann := sl.AddUser("Ann")
	dm, general := sl.Direct(ann), sl.AddChannel("general", "public_channel")
	sees := func(channel, text string) slack.Message {
		t.Helper()
		m, err := sl.WaitFor(w.deadline(), channel, func(m slack.Message) bool { return m.FromBot && strings.Contains(m.Text, text) })
		if err != nil {
			t.Fatalf("the channel never showed %q: %v\n%s", text, err, w.logs())
		}
		return m
	}
	count := func(channel, text string) (n int) {
		for _, m := range sl.Replies(channel) {
			if strings.Contains(m.Text, text) {
				n++
			}
		}
		return n
	}
	connected := func() {
		t.Helper()
		w.waitStatus("Slack is connected", func(s control.Status) bool {
			for _, part := range s.Parts {
				if part.Name == "platform.slack" {
					return part.State == health.OK && part.Evidence["bot"] == "@hermes"
				}
			}
			return false
		})
	}

	p := w.start()
	connected()
	sl.Say(ann, dm, "hello")
	sees(dm, "you said: hello")
	root := sl.Say(ann, general, sl.Mention()+" what now?")
	if m := sees(general, "you said: what now?"); m.Thread != root.TS {
		t.Errorf("the answer stands in the thread %q", m.Thread)
	}
	sl.Post(slack.Post{From: ann, Channel: general, Thread: root.TS, Text: "and then?"})
	sees(general, "you said: and then?")
	sl.Post(slack.Post{From: ann, Channel: general, Thread: root.TS, Text: "!status"})
	sees(general, "Session")
	sl.Post(slack.Post{From: ann, Channel: general, Thread: root.TS, Text: "!help"})
	sees(general, "!stop")
	sl.Say(ann, general, "chatter")
	used := sl.Command(ann, dm, "/hermes", "status")
	if err := sl.WaitAck(w.deadline(), used); err != nil {
		t.Error("the command shows as failed")
	}
	sees(dm, "Session")
	sl.Say(ann, dm, "run rm -rf "+filepath.Join(t.TempDir(), "absent")+" && echo removed-$((1+1))")
	asked, err := sl.WaitFor(w.deadline(), dm, func(m slack.Message) bool { return len(m.Buttons) > 1 })
	if err != nil {
		t.Fatalf("no question with buttons: %v\n%s", err, w.logs())
	}
	sl.Press(ann, asked, 0)
	sees(dm, "removed-2")
	w.settled()
	w.stop(p)

	sl.Say(ann, dm, "anybody there?")
	late := sl.Say(ann, general, sl.Mention()+" anybody here?")
	sl.Post(slack.Post{From: ann, Channel: general, Thread: root.TS, Text: "and in the thread?"})
	p = w.start()
	sees(dm, "you said: anybody there?")
	if m := sees(general, "you said: anybody here?"); m.Thread != late.TS {
		t.Errorf("the late answer stands in the thread %q", m.Thread)
	}
	sees(general, "you said: and in the thread?")
	w.settled()

	defer sl.Fail("chat.postMessage", fault.Lost())()
	sl.Say(ann, dm, "crash")
	sees(dm, "you said: crash")
	p.Kill()
	p = w.start()
	connected()
	sl.Say(ann, dm, "after it")
	sees(dm, "you said: after it")
	w.settled()
	for _, text := range []string{"hello", "anybody there?", "crash", "after it"} {
		if n := count(dm, "you said: "+text); n != 1 {
			t.Errorf("%q was answered %d times", text, n)
		}
	}
	for _, text := range []string{"what now?", "and then?", "anybody here?", "and in the thread?"} {
		if n := count(general, "you said: "+text); n != 1 {
			t.Errorf("%q was answered %d times", text, n)
		}
	}
	if n := count(general, "chatter"); n != 0 {
		t.Error("what was not said to the bot was answered")
	}
	w.stop(p)
}
