package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hermes/testkit/discord"
)

// Channels by their names: with the gateway down and up, from a command, from a
// job, and as the home channel; and a name that is gone is refused.
func TestChannelsByName(t *testing.T) {
	t.Parallel()
	dc, err := discord.New(discord.Options{Token: discord.Token("1100000000000000002", "Gfake2.e2e_secret_of_the_discord_bot_0000000000001")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dc.Close)
	acme, other := dc.AddGuild("Acme"), dc.AddGuild("Other")
	engineering, general := dc.AddChannel(acme, "engineering"), dc.AddChannel(acme, "general")
	dc.AddChannel(other, "general")
	w := setUp(t, options{env: fmt.Sprintf("DISCORD_BOT_TOKEN=%s\nDISCORD_BASE_URL=%s\nDISCORD_ALLOW_ALL_USERS=true\nDISCORD_HOME_CHANNEL=Acme/#general\n", dc.Token(), dc.URL())})
	w.mu.Lock()
	w.secrets["Discord's token"] = dc.Token()
	w.mu.Unlock()
	sees := func(channel, text string) {
		t.Helper()
		if _, err := dc.WaitFor(w.deadline(), channel, func(m discord.Message) bool { return strings.Contains(m.Content, text) }); err != nil {
			t.Fatalf("the channel never showed %q: %v\n%s%s", text, err, dc.Transcript(channel), w.logs())
		}
	}
	refused := func(says string, args ...string) {
		t.Helper()
		if out, code := w.run(args...); code != 2 || !strings.Contains(out, says) {
			t.Errorf("%v: exit %d, without %q:\n%s", args, code, says, out)
		}
	}

	// Nothing runs, and nothing is known yet.
	if out := w.must("send", "--list"); !strings.Contains(out, "discord:"+engineering) || !strings.Contains(out, "Acme/#engineering") {
		t.Errorf("the channels are not listed:\n%s", out)
	}
	w.must("send", "-t", "#engineering", "by a command")
	sees(engineering, "by a command")
	w.must("send", "-t", "discord", "to the home channel")
	sees(general, "to the home channel")
	refused("Acme/#general (discord:"+general+")", "send", "-t", "discord:#general", "x")
	refused("is it Acme/#engineering", "send", "-t", "discord:#enginering", "x")
	refused("discord knows no chat named", "cron", "create", "every 10m", "say hello", "--deliver", "discord:#nowhere")

	w.start()
	w.script("hello.sh", "echo by a job\n", 0o600)
	w.must("cron", "create", "0 0 1 1 *", "--no-agent", "--script", "hello.sh", "--deliver", "discord:#engineering", "--name", "hello")
	if r := w.runJob("hello"); r.Delivery != "sent" {
		t.Fatalf("%+v", r)
	}
	sees(engineering, "by a job")

	// The gateway learns the new name from the event, and the file has it.
	dc.RenameChannel(engineering, "platform")
	w.eventually("the file has the new name", func() bool {
		var form struct {
			Platforms map[string][]struct{ ID, Name string }
		}
		text, err := os.ReadFile(filepath.Join(w.home.Dir, "channel_directory.json"))
		if err != nil || json.Unmarshal(text, &form) != nil {
			return false
		}
		for _, e := range form.Platforms["discord"] {
			if e.ID == engineering && e.Name == "platform" {
				return true
			}
		}
		return false
	})
	before := len(dc.Replies(engineering))
	if r := w.runJob("hello"); !strings.Contains(r.Error, "discord knows no chat named") {
		t.Errorf("a name that is gone is not told: %+v", r)
	}
	sees(general, "discord knows no chat named") // the home channel hears what went wrong
	if n := len(dc.Replies(engineering)); n != before {
		t.Error("a name that is gone still has a chat")
	}
}
