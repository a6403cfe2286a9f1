package slack_test

import (
	"slices"
	"strings"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/slack"
	"hermes/testkit/adapter"
	fake "hermes/testkit/slack"
)

// stored connects, lets people do things, and gives what was stored before
// "the end" was said.
func (r *rig) stored(t *testing.T, do func(ann fake.User)) []domain.Inbound {
	t.Helper()
	ann := r.srv.AddUser("ann")
	r.connect(t)
	do(ann)
	before := r.srv.Acked()
	r.srv.Say(ann, r.srv.Direct(ann), "the end")
	must(t, r.srv.WaitAcked(r.ctx, before+1))
	for n := 1; ; n++ {
		events := r.sink.Wait(t, r.ctx, n)
		if i := slices.IndexFunc(events, func(in domain.Inbound) bool { return in.Text == "the end" }); i >= 0 {
			return events[:i]
		}
		n = len(events)
	}
}

func TestWhatIsHeardInChannels(t *testing.T) {
	mention := func(r *rig) string { return r.srv.Mention() }
	for _, c := range []struct {
		name   string
		change func(*configuration)
		say    func(r *rig, ann fake.User, channel string)
		want   []string
	}{
		{"only what names the bot", nil, func(r *rig, ann fake.User, ch string) {
			r.srv.Say(ann, ch, "chatter")
			r.srv.Say(ann, ch, mention(r)+", do it")
			r.srv.Say(ann, ch, "do it "+mention(r))
			r.srv.Say(ann, ch, "ask "+mention(r)+" about it")
			r.srv.Say(ann, ch, mention(r))
			r.srv.Post(fake.Post{From: ann, Channel: ch, Text: "<!channel> listen"})
		}, []string{"do it", "do it", "ask @hermes about it", "@hermes"}},
		{"everything", func(c *configuration) { c.RequireMention = false }, func(r *rig, ann fake.User, ch string) {
			r.srv.Say(ann, ch, "chatter")
		}, []string{"chatter"}},
		{"everything in a channel by name", func(c *configuration) { c.Free = []string{"#General"} }, func(r *rig, ann fake.User, ch string) {
			r.srv.Say(ann, ch, "chatter")
			r.srv.Say(ann, r.srv.AddChannel("other", "private_channel"), "chatter there")
		}, []string{"chatter"}},
		{"only in some channels", func(c *configuration) { c.Allowed = []string{"other"} }, func(r *rig, ann fake.User, ch string) {
			r.srv.Say(ann, ch, mention(r)+" here")
			r.srv.Say(ann, r.srv.AddChannel("other", "private_channel"), mention(r)+" there")
		}, []string{"there"}},
		{"a thread in which the bot has written", nil, func(r *rig, ann fake.User, ch string) {
			root := r.srv.Say(ann, ch, "begin")
			to := address(ch)
			to.ThreadID = root.TS
			if _, err := r.Send(r.ctx, to, domain.Part{Text: "I am here"}, "n1"); err != nil {
				t.Error(err)
			}
			r.srv.Post(fake.Post{From: ann, Channel: ch, Thread: root.TS, Text: "go on"})
			other := r.srv.Say(ann, ch, "another")
			r.srv.Post(fake.Post{From: ann, Channel: ch, Thread: other.TS, Text: "among us"})
		}, []string{"go on"}},
		{"a mention that comes twice", nil, func(r *rig, ann fake.User, ch string) {
			r.srv.Post(fake.Post{From: ann, Channel: ch, Text: mention(r) + " once", Mention: true})
		}, []string{"once"}},
		{"bots", nil, func(r *rig, ann fake.User, ch string) {
			r.srv.Post(fake.Post{From: ann, Channel: ch, Text: mention(r) + " from a bot", BotID: "B77", Subtype: "bot_message"})
		}, nil},
		{"bots that mention it", func(c *configuration) { c.AllowBots = "mentions" }, func(r *rig, ann fake.User, ch string) {
			r.srv.Post(fake.Post{From: ann, Channel: ch, Text: mention(r) + " from a bot", BotID: "B77"})
			r.srv.Post(fake.Post{From: ann, Channel: r.srv.Direct(ann), Text: "from a bot, to nobody", BotID: "B77"})
		}, []string{"from a bot"}},
		{"edits, joins and deletions", nil, func(r *rig, ann fake.User, ch string) {
			dm := r.srv.Direct(ann)
			m := r.srv.Say(ann, ch, "chatter")
			r.srv.Edit(ch, m.TS, mention(r)+" edited")
			r.srv.Post(fake.Post{From: ann, Channel: dm, Text: "joined", Subtype: "channel_join"})
			r.srv.Event(map[string]any{"type": "message", "subtype": "message_deleted", "channel": dm, "ts": "1.000001", "deleted_ts": m.TS})
		}, nil},
		{"an ignored thread", func(c *configuration) { c.IgnoredThreads = []string{"1712345678.000100"} }, func(r *rig, ann fake.User, ch string) {
			r.srv.Post(fake.Post{From: ann, Channel: ch, Thread: "1712345678.000100", Text: mention(r) + " here"})
		}, nil},
		{"commands with an exclamation mark", nil, func(r *rig, ann fake.User, ch string) {
			r.srv.Say(ann, ch, mention(r)+" !Stop now")
			r.srv.Say(ann, r.srv.Direct(ann), "!important")
			r.srv.Say(ann, r.srv.Direct(ann), "/status")
		}, []string{"/Stop now", "!important", "/status"}},
		{"groups", nil, func(r *rig, ann fake.User, _ string) {
			group := r.srv.AddChannel("mpdm-ann--bob-1", "mpim")
			r.srv.Say(ann, group, "among us")
			r.srv.Say(ann, group, mention(r)+" and you")
		}, []string{"and you"}},
		{"markup", nil, func(r *rig, ann fake.User, _ string) {
			dm := r.srv.Direct(ann)
			for _, text := range []string{"see <https://e.x/?a=1&amp;b=2|here> or <http://e.x|e.x> or <https://e.x/y>", "ask <@" + ann.ID + "> in <#C9|ops>",
				"mail <mailto:a@e.x|a@e.x> at <!date^1^{date}|noon>, <!here> <!subteam^S1|@ops>", "&amp;lt; 1 &lt; 2"} {
				r.srv.Post(fake.Post{From: ann, Channel: dm, Text: text})
			}
		}, []string{"see here (https://e.x/?a=1&b=2) or http://e.x or https://e.x/y", "ask @ann in #ops", "mail a@e.x at noon, @here @ops", "&lt; 1 < 2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.change)
			must(t, r.SetCommands(r.ctx, []platform.Command{{Name: "stop"}, {Name: "status"}}))
			general := r.srv.AddChannel("general", "public_channel")
			events := r.stored(t, func(ann fake.User) { c.say(r, ann, general) })
			if got := adapter.Texts(events); !slices.Equal(got, c.want) && len(got)+len(c.want) > 0 {
				t.Errorf("heard was %q, want %q", got, c.want)
			}
		})
	}
}

// A question in a channel is answered in a thread of its own, unless it is
// switched off; one in a direct message is answered there.
func TestWhereAnswersGo(t *testing.T) {
	for _, off := range []bool{false, true} {
		r := newRig(t, func(c *slack.Config) { c.NoThreads = off })
		general := r.srv.AddChannel("general", "public_channel")
		var root, direct fake.Message
		events := r.stored(t, func(ann fake.User) {
			root = r.srv.Say(ann, general, r.srv.Mention()+" one")
			r.srv.Post(fake.Post{From: ann, Channel: general, Thread: root.TS, Text: r.srv.Mention() + " two"})
			direct = r.srv.Say(ann, r.srv.Direct(ann), "three")
			r.srv.Post(fake.Post{From: ann, Channel: r.srv.Direct(ann), Thread: direct.TS, Text: "four"})
		})
		want := []string{root.TS, root.TS, "", direct.TS}
		if off {
			want[0] = ""
		}
		for i, in := range events {
			if in.ThreadID != want[i] || (in.ChatType == domain.ChatDM) != (i > 1) {
				t.Errorf("%q goes to the thread %q of a %s, want %q", in.Text, in.ThreadID, in.ChatType, want[i])
			}
		}
		if len(events) != 4 {
			t.Errorf("heard was %q", adapter.Texts(events))
		}
	}
}

func TestButtonsAndCommands(t *testing.T) {
	r := newRig(t, nil)
	must(t, r.SetCommands(r.ctx, []platform.Command{{Name: "status"}, {Name: "stop"}}))
	general := r.srv.AddChannel("general", "public_channel")
	var asked fake.Message
	events := r.stored(t, func(ann fake.User) {
		to := address(general)
		to.ThreadID = r.srv.Say(ann, general, "begin").TS
		if _, err := r.Send(r.ctx, to, domain.Part{Text: "sure?", Buttons: []domain.Button{{Label: "Yes", Command: "/approve 7"}}}, "n1"); err != nil {
			t.Fatal(err)
		}
		asked, _ = r.srv.Next(r.ctx, general)
		for _, id := range []string{
			r.srv.Press(ann, asked, 0),
			r.srv.Press(ann, asked, 0), // once more is another press
			r.srv.Command(ann, r.srv.Direct(ann), "/hermes", "status all"),
			r.srv.Command(ann, general, "/stop", ""),
			r.srv.Command(ann, general, "/hermes", "what is &lt;this&gt;?"),
			r.srv.Command(ann, general, "/hermes", ""),
		} {
			must(t, r.srv.WaitAck(r.ctx, id))
		}
	})
	want := []string{"/approve 7", "/approve 7", "/status all", "/stop", "what is <this>?", "/help"}
	if got := adapter.Texts(events); !slices.Equal(got, want) {
		t.Fatalf("heard was %q, want %q", got, want)
	}
	for i, in := range events {
		if in.Button != (i < 2) || in.UserName != "ann" || !in.Mentioned {
			t.Errorf("%q was read as %+v of %#v", in.Text, in, in.Source)
		}
	}
	if p := events[0]; p.MessageID != asked.TS || p.ThreadID != asked.Thread || p.ChatID != general || p.ChatName != "general" || p.EventID == events[1].EventID {
		t.Errorf("the press was read as %#v", p.Source)
	}
	if c := events[2]; c.ChatType != domain.ChatDM || events[3].ChatType != domain.ChatGroup {
		t.Errorf("the command was read as %#v", c.Source)
	}
}

func TestChannels(t *testing.T) {
	r := newRig(t, nil)
	r.srv.Direct(r.srv.AddUser("ann"))
	open, private, group := r.srv.AddChannel("general", "public_channel"), r.srv.AddChannel("board", "private_channel"), r.srv.AddChannel("mpdm-a--b-1", "mpim")
	r.srv.Archive(r.srv.AddChannel("old", "public_channel"))
	r.srv.Outside(r.srv.AddChannel("elsewhere", "public_channel"), true)
	for range 230 { // more than a page
		r.srv.AddChannel("more", "public_channel")
	}
	got, err := r.Channels(r.ctx)
	must(t, err)
	for _, want := range []platform.Channel{{ID: open, Name: "general", Type: "channel"}, {ID: private, Name: "board", Type: "private"}, {ID: group, Name: "mpdm-a--b-1", Type: "group"}} {
		if !slices.Contains(got, want) {
			t.Errorf("%+v is not among them", want)
		}
	}
	if len(got) != 233 {
		t.Errorf("%d are listed, want 233", len(got))
	}
}

func TestARenamedChannelIsTold(t *testing.T) {
	r := newRig(t, nil)
	general := r.srv.AddChannel("general", "public_channel")
	changed := make(chan struct{}, 8)
	a, err := slack.New(r.config, platform.Deps{Log: r.logger(), Changed: func() { changed <- struct{}{} }})
	must(t, err)
	a.Hasten()
	t.Cleanup(a.CloseIdle)
	r.Adapter = a
	r.connect(t)
	ann := r.srv.AddUser("ann")
	r.srv.RenameChannel(general, "platform")
	select {
	case <-changed:
	case <-r.ctx.Done():
		t.Fatal("the new name was not told")
	}
	r.srv.Say(ann, general, r.srv.Mention()+" hello")
	if got := r.sink.Wait(t, r.ctx, 1)[0]; got.ChatName != "platform" {
		t.Errorf("the channel is called %q", got.ChatName)
	}
}

func TestTokensThatAreWrong(t *testing.T) {
	good := slack.Config{Token: "xoxb-1-2-abc", AppToken: "xapp-1-A1-2-abc"}
	if _, err := slack.New(good, platform.Deps{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ bot, app, says string }{
		{"xapp-1-A1-2-abc", "xoxb-1-2-abc", "swapped"},
		{"xoxp-1-2-abc", "xapp-1-A1-2-abc", "of a user"},
		{"xoxb-1-2-abc", "xoxb-1-2-abc", "holds the bot's token"},
		{"xapp-1-A1-2-abc", "xapp-1-A1-2-abc", "holds the app-level token"},
		{"xoxb-1-2-abc", "", "SLACK_APP_TOKEN is not set"},
		{"xoxb-1-2 abc", "xapp-1-A1-2-abc", "copied with something else"},
		{"abc", "xapp-1-A1-2-abc", "no token of Slack's"},
		{"xoxe-1-abc", "xapp-1-A1-2-abc", "refresh"},
		{"xoxd-abc", "xapp-1-A1-2-abc", "browser"},
	} {
		cfg := good
		cfg.Token, cfg.AppToken = secretValue(c.bot), secretValue(c.app)
		_, err := slack.New(cfg, platform.Deps{})
		if domain.CodeOf(err) != domain.Config || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s and %s: %v", c.bot, c.app, err)
		}
		if err != nil && (strings.Contains(err.Error(), "abc")) {
			t.Errorf("the message holds a token: %v", err)
		}
	}
}

func TestFromProfile(t *testing.T) {
	p := profile(map[string]string{"app_token": "xapp-1-A1-2-abc", "allow_bots": "mentions", "reply_in_thread": "false", "catch_up": "24h", "free_response_channels": "a, b"})
	c, err := slack.FromProfile(p)
	must(t, err)
	if c.AllowBots != "mentions" || !c.NoThreads || c.CatchUp.Hours() != 24 || len(c.Free) != 2 || slack.AppToken(p).Reveal() != "xapp-1-A1-2-abc" {
		t.Errorf("it was read as %+v", c)
	}
	_, err = slack.FromProfile(profile(map[string]string{"allow_bots": "some", "reply_in_thread": "perhaps", "catch_up": "soon", "proxy": "x", "base_url": ":"}))
	for _, want := range []string{"SLACK_APP_TOKEN", "SLACK_ALLOW_BOTS", "SLACK_REPLY_IN_THREAD", "catch_up", "proxy", "base_url"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named: %v", want, err)
		}
	}
}
