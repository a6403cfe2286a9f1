package e2e

import (
	"fmt"
	"strings"
	"testing"

	"hermes/internal/control"
	"hermes/internal/health"
	"hermes/testkit/discord"
	"hermes/testkit/fault"
	"hermes/testkit/llm"
)

// Discord as a user has it: a question answered, a mention answered in a thread
// of its own, questions that were asked while nobody ran, and one whose answer
// was sent in the instant of a crash.
func TestDiscord(t *testing.T) {
	t.Parallel()
	dc, err := discord.New(discord.Options{Token: discord.Token("1100000000000000001", "Gfake1.e2e_secret_of_the_discord_bot_0000000000000")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dc.Close)
	w := setUp(t, options{brain: obedient(llm.NewGate()), env: fmt.Sprintf(
		"DISCORD_BOT_TOKEN=%s\nDISCORD_BASE_URL=%s\nDISCORD_ALLOW_ALL_USERS=true\n", dc.Token(), dc.URL())})
	w.mu.Lock()
	w.secrets["Discord's token"] = dc.Token()
	w.mu.Unlock()
	ann := dc.AddUser("Ann")
	dm := dc.DM(ann)
	guild := dc.AddGuild("guild")
	general, quiet := dc.AddChannel(guild, "general"), dc.AddChannel(guild, "quiet")
	sees := func(channel, text string) discord.Message {
		t.Helper()
		m, err := dc.WaitFor(w.deadline(), channel, func(m discord.Message) bool { return m.FromBot && strings.Contains(m.Content, text) })
		if err != nil {
			t.Fatalf("the channel never showed %q: %v\n%s%s", text, err, dc.Transcript(channel), w.logs())
		}
		return m
	}
	count := func(channel, text string) (n int) {
		for _, m := range dc.Replies(channel) {
			if strings.Contains(m.Content, text) {
				n++
			}
		}
		return n
	}
	mention := "<@" + dc.Bot().ID + "> "
	connected := func() {
		t.Helper()
		w.waitStatus("Discord is connected", func(s control.Status) bool {
			for _, part := range s.Parts {
				if part.Name == "platform.discord" {
					return part.State == health.OK && part.Evidence["bot"] == "@hermes"
				}
			}
			return false
		})
	}

	p := w.start()
	connected()
	dc.Say(ann, dm, "hello")
	sees(dm, "you said: hello")
	thread := dc.Say(ann, general, mention+"what now?")
	sees(thread, "you said: what now?")
	dc.Say(ann, thread, "and then?")
	sees(thread, "you said: and then?")
	dc.Say(ann, general, "chatter")
	used := dc.Slash(ann, dm, "status", "")
	sees(dm, "Session")
	if err := dc.WaitAnswered(w.deadline(), used); err != nil {
		t.Error("the command shows as failed")
	}
	w.eventually("the commands are registered", func() bool { return len(dc.Commands()) > 5 })
	w.settled()
	w.stop(p)

	dc.Say(ann, dm, "anybody there?")
	late := dc.Say(ann, quiet, mention+"anybody here?")
	p = w.start()
	sees(dm, "you said: anybody there?")
	sees(late, "you said: anybody here?")
	w.settled()

	lost := fault.Lost()
	lost.Chat = dm
	dc.Fail("create_message", lost)
	dc.Say(ann, dm, "crash")
	sees(dm, "you said: crash")
	p.Kill()
	p = w.start()
	connected()
	dc.Say(ann, dm, "after it")
	sees(dm, "you said: after it")
	w.settled()
	for _, text := range []string{"hello", "anybody there?", "crash", "after it"} {
		if n := count(dm, "you said: "+text); n != 1 {
			t.Errorf("%q was answered %d times", text, n)
		}
	}
	if n := len(dc.Replies(general)) + len(dc.Replies(quiet)); n != 0 {
		t.Errorf("%d answers stand in the channels in place of their threads", n)
	}
	w.stop(p)
}
