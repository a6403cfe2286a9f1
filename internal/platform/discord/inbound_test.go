package discord_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/platform/discord"
	"hermes/testkit/adapter"
	fake "hermes/testkit/discord"
)

// world is a server with a channel and a thread.
type world struct {
	*rig
	ann                    fake.User
	guild, channel, thread string
}

func newWorld(t *testing.T, change func(*discord.Config)) *world {
	t.Helper()
	r := newRig(t, fake.Options{}, change)
	w := &world{rig: r, ann: r.srv.AddUser("Ann")}
	w.guild = r.srv.AddGuild("guild")
	w.channel = r.srv.AddChannel(w.guild, "general")
	w.thread = r.srv.AddThread(w.ann, w.channel, "talk")
	return w
}

func (w *world) at() string { return "<@" + w.srv.Bot().ID + ">" }

// Who and what is heard in a server. Each case says several things; the ones
// that are heard are listed, as they come in.
func TestWhatIsHeardInServers(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*discord.Config, *world)
		say    func(*world)
		want   []string
	}{
		"mentions only": {
			func(c *discord.Config, _ *world) { c.RequireMention = true },
			func(w *world) {
				w.srv.Say(w.ann, w.channel, "chatter")
				w.srv.Say(w.ann, w.channel, w.at()+" do it")
				w.srv.Say(w.ann, w.channel, "do it, <@!"+w.srv.Bot().ID+">")
				w.srv.Say(w.ann, w.channel, w.at())
				w.srv.Say(w.ann, w.channel, "not <@"+w.ann.ID+"> me")
			}, []string{"do it", "do it,", "@hermes"},
		},
		"everything": {
			func(*discord.Config, *world) {},
			func(w *world) { w.srv.Say(w.ann, w.channel, "hi <@"+w.ann.ID+"> in <#"+w.channel+"> <:party:123>") },
			[]string{"hi @Ann in #general :party:"},
		},
		"patterns": {
			func(c *discord.Config, _ *world) {
				c.RequireMention = true
				c.MentionPatterns = []*regexp.Regexp{regexp.MustCompile("(?i)hermes")}
			},
			func(w *world) {
				w.srv.Say(w.ann, w.channel, "ho")
				w.srv.Say(w.ann, w.channel, "Hermes, hi")
			}, []string{"Hermes, hi"},
		},
		"free channel, with its threads": {
			func(c *discord.Config, w *world) { c.RequireMention = true; c.Free = []string{w.channel} },
			func(w *world) {
				w.srv.Say(w.ann, w.channel, "a")
				w.srv.Say(w.ann, w.thread, "b")
			}, []string{"a", "b"},
		},
		"allowed channels": {
			func(c *discord.Config, w *world) { c.Allowed = []string{w.channel} },
			func(w *world) {
				other := w.srv.AddChannel(w.guild, "other")
				w.srv.Say(w.ann, other, "no")
				w.srv.Say(w.ann, w.thread, "in the thread")
				w.srv.Say(w.ann, w.srv.DM(w.ann), "direct")
			}, []string{"in the thread", "direct"},
		},
		"ignored": {
			func(c *discord.Config, w *world) { c.IgnoredThreads = []string{w.thread} },
			func(w *world) {
				w.srv.Say(w.ann, w.thread, "no")
				w.srv.Say(w.ann, w.channel, "yes")
			}, []string{"yes"},
		},
		"ignored channel": {
			func(c *discord.Config, w *world) { c.IgnoredChannels = []string{w.channel} },
			func(w *world) {
				w.srv.Say(w.ann, w.thread, "no")
				w.srv.Say(w.ann, w.channel, "no")
				w.srv.Say(w.ann, w.srv.AddChannel(w.guild, "other"), "yes")
			}, []string{"yes"},
		},
		"bots": {
			func(*discord.Config, *world) {},
			func(w *world) {
				w.srv.Say(w.srv.AddBot("Robot"), w.channel, w.at()+" no")
				w.srv.Say(w.srv.Bot(), w.channel, "no")
				w.srv.Say(w.ann, w.channel, "yes")
			}, []string{"yes"},
		},
		"bots that mention": {
			func(c *discord.Config, _ *world) { c.AllowBots = "mentions" },
			func(w *world) {
				robot := w.srv.AddBot("Robot")
				w.srv.Say(robot, w.channel, "no")
				w.srv.Say(robot, w.channel, w.at()+" yes")
			}, []string{"yes"},
		},
		"service messages": {
			func(*discord.Config, *world) {},
			func(w *world) {
				w.srv.Write(w.ann, w.channel, fake.Post{Text: "joined", Type: 7})
				w.srv.Say(w.ann, w.channel, "yes")
			}, []string{"yes"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var cfg discord.Config
			w := newWorld(t, nil)
			c.change(&cfg, w)
			w.Adapter = adapterFor(t, w.rig, cfg)
			w.connected(t)
			c.say(w)
			w.srv.Say(w.ann, w.srv.DM(w.ann), "end")
			got := adapter.Texts(w.sink.WaitFor(t, w.ctx, "end"))
			if !slices.Equal(got, append(c.want, "end")) {
				t.Errorf("heard %q, want %q", got, c.want)
			}
		})
	}
}

func TestWhereAMessageCameFrom(t *testing.T) {
	w := newWorld(t, func(c *discord.Config) { c.RequireMention = true; c.AutoThread = true })
	w.connected(t)
	id := w.srv.Say(w.ann, w.channel, w.at()+" hello")
	w.srv.Say(w.ann, w.thread, w.at()+" there")
	events := w.sink.Wait(t, w.ctx, 2)
	if e := events[0]; e.ChatID != w.channel || e.ThreadID != id || e.ChatType != domain.ChatGroup || e.ChatName != "general" || !e.Mentioned {
		t.Errorf("%+v", e)
	}
	if e := events[1]; e.ChatID != w.channel || e.ThreadID != w.thread || e.ChatName != "general / talk" {
		t.Errorf("%+v", e)
	}
	// The answer opens the thread, and what follows there needs no mention.
	to := events[0].Address
	must(t, w.Typing(w.ctx, to))
	receipt, err := w.Send(w.ctx, to, domain.Part{Text: "answer", ReplyTo: id}, "n1")
	must(t, err)
	if m := w.srv.Replies(id); len(m) != 1 || m[0].ID != receipt || m[0].Content != "answer" {
		t.Fatalf("the thread shows %+v", m)
	}
	if m := w.srv.Messages(w.channel)[0]; !slices.Equal(m.Reactions, []string{"👀"}) || w.srv.Typing(id) != 1 {
		t.Errorf("%+v", m)
	}
	w.srv.Say(w.ann, id, "and further?")
	if e := w.sink.Wait(t, w.ctx, 3)[2]; e.Address != to || e.Text != "and further?" || !e.Mentioned {
		t.Errorf("%+v", e)
	}
	// An answer to one of the bot's messages is a mention.
	w.srv.Write(w.ann, id, fake.Post{Text: "why?", ReplyTo: receipt})
	if e := w.sink.Wait(t, w.ctx, 4)[3]; e.ReplyText != "answer" || !e.Mentioned {
		t.Errorf("%+v", e)
	}
	must(t, w.Edit(w.ctx, to, receipt, domain.Part{Text: "better"}))
	if m := w.srv.Replies(id); m[0].Content != "better" {
		t.Errorf("%+v", m)
	}
}

func TestNoThreadWhereItIsNotWanted(t *testing.T) {
	w := newWorld(t, nil)
	w.Adapter = adapterFor(t, w.rig, discord.Config{AutoThread: true, NoThreadChannels: []string{w.channel}})
	w.connected(t)
	w.srv.Say(w.ann, w.channel, w.at()+" hello")
	if e := w.sink.Wait(t, w.ctx, 1)[0]; e.ThreadID != "" {
		t.Errorf("%+v", e)
	}
}

func TestAButtonIsPressed(t *testing.T) {
	w := newWorld(t, nil)
	w.connected(t)
	_, err := w.Send(w.ctx, address(w.channel), domain.Part{Text: "allow?", Buttons: []domain.Button{{Label: "Yes", Command: "/approve 1"}, {Label: "No", Command: "/deny 1"}}}, "n")
	must(t, err)
	m, err := w.srv.Next(w.ctx, w.channel)
	must(t, err)
	if len(m.Buttons) != 2 {
		t.Fatalf("%+v", m)
	}
	id := w.srv.Press(w.ann, m, m.Buttons[0].Data)
	e := w.sink.Wait(t, w.ctx, 1)[0]
	if !e.Button || e.Text != "/approve 1" || e.UserID != w.ann.ID || e.ChatID != w.channel || e.EventID != "i"+id || e.MessageID != m.ID {
		t.Errorf("%+v", e)
	}
	must(t, w.srv.WaitAnswered(w.ctx, id))
}

func TestFilesComeIn(t *testing.T) {
	w := newWorld(t, func(c *discord.Config) { c.MaxFile = 100 })
	w.connected(t)
	dm := w.srv.DM(w.ann)
	w.srv.Write(w.ann, dm, fake.Post{Files: map[string][]byte{"../../etc/a.png": []byte("picture")}, Mime: "image/png"})
	w.srv.Write(w.ann, dm, fake.Post{Files: map[string][]byte{"voice.ogg": []byte("sound")}, Mime: "audio/ogg", Flags: 1 << 13})
	w.srv.Write(w.ann, dm, fake.Post{Text: "big", Files: map[string][]byte{"big.bin": make([]byte, 200)}})
	events := w.sink.Wait(t, w.ctx, 3)
	at := events[0].Attachments[0]
	if at.Kind != domain.Image || at.Name != "a.png" || at.MIME != "image/png" || at.Size != 7 || strings.Contains(at.Ref, "http") {
		t.Errorf("%+v", at)
	}
	if k := events[1].Attachments[0].Kind; k != domain.Voice {
		t.Errorf("kind %q", k)
	}
	var b strings.Builder
	got, err := w.Fetch(w.ctx, at, 1000, &b)
	must(t, err)
	if b.String() != "picture" || got.Size != 7 {
		t.Errorf("%q %+v", b.String(), got)
	}
	if _, err := w.Fetch(w.ctx, events[2].Attachments[0], 1000, &b); !strings.Contains(err.Error(), "DISCORD_MAX_ATTACHMENT_BYTES") {
		t.Error(err)
	}
	lying := at
	lying.Size = 1
	b.Reset()
	if _, err := w.Fetch(w.ctx, lying, 3, &b); err == nil || b.Len() > 3 {
		t.Errorf("%v after %d bytes", err, b.Len())
	}
	w.srv.Delete(dm, events[0].MessageID)
	for _, ref := range []string{at.Ref, "1/2", "../x/1", ""} {
		gone := at
		gone.Ref = ref
		if _, err := w.Fetch(w.ctx, gone, 1000, &b); err == nil {
			t.Errorf("%q was fetched", ref)
		}
	}
}

// A channel that is not known is asked for; a message in one is as well heard.
func TestAnUnknownChannel(t *testing.T) {
	w := newWorld(t, nil)
	w.connected(t)
	w.srv.Say(w.ann, w.channel, "a")
	w.sink.Wait(t, w.ctx, 1)
	w.srv.Hide(w.channel)
	_, err := w.Send(w.ctx, address(w.channel), domain.Part{Text: "x"}, "n")
	if err == nil || !strings.Contains(err.Error(), "View Channel") {
		t.Error(err)
	}
}
