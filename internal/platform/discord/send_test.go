package discord_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/discord"
	"hermes/testkit/adapter"
	fake "hermes/testkit/discord"
	"hermes/testkit/fault"
)

func TestSend(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	ann := r.srv.AddUser("Ann")
	dm := r.srv.DM(ann)
	said := r.srv.Say(ann, dm, "hello")
	id, err := r.Send(r.ctx, address(dm), domain.Part{Text: "**hi** @everyone", ReplyTo: said, Silent: true}, "nonce")
	must(t, err)
	m := r.srv.Replies(dm)
	if len(m) != 1 || m[0].ID != id || m[0].Content != "**hi** @everyone" || m[0].ReplyTo != said || m[0].Nonce != "nonce" || m[0].Flags != 1<<12 {
		t.Errorf("%+v", m)
	}
	// A reply to what is gone is sent as none.
	r.srv.Delete(dm, said)
	if _, err := r.Send(r.ctx, address(dm), domain.Part{Text: "again", ReplyTo: said}, "other"); err != nil {
		t.Error(err)
	}
	for _, bad := range []domain.Address{{ChatID: "general"}, {ChatID: ""}, {ChatID: dm, ThreadID: "x"}, {ChatID: "../1"}} {
		_, err := r.Send(r.ctx, bad, domain.Part{Text: "x"}, "n")
		adapter.Fails(t, err, platform.GiveUp)
	}
	_, err = r.Send(r.ctx, address(dm), domain.Part{Text: "  \n"}, "n")
	adapter.Fails(t, err, platform.GiveUp)
	_, err = r.Send(r.ctx, address("1"), domain.Part{Text: "x"}, "n")
	if e := adapter.Fails(t, err, platform.GiveUp); e.Code != "discord_chat" {
		t.Errorf("%+v", e)
	}
}

// A message whose answer was lost is not sent twice: Discord knows its nonce.
func TestARepeatedSendIsOneMessage(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	dm := r.srv.DM(r.srv.AddUser("Ann"))
	long := strings.Repeat("n", 40) // over Discord's limit
	for _, nonce := range []string{"short", long} {
		r.srv.Fail("create_message", fault.CutAfter())
		_, err := r.Send(r.ctx, address(dm), domain.Part{Text: nonce}, nonce)
		if e := adapter.Fails(t, err, platform.Retry); !e.Uncertain {
			t.Errorf("%+v", e)
		}
		id, err := r.Send(r.ctx, address(dm), domain.Part{Text: nonce}, nonce)
		must(t, err)
		if m := r.srv.Replies(dm); m[len(m)-1].ID != id {
			t.Errorf("%+v", m)
		}
	}
	if n := len(r.srv.Replies(dm)); n != 2 {
		t.Errorf("%d messages", n)
	}
}

func TestSendFilesInSeveralMessages(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	dm := r.srv.DM(r.srv.AddUser("Ann"))
	dir := t.TempDir()
	var files []domain.Attachment
	for i := range 12 {
		path := filepath.Join(dir, fmt.Sprintf("f%d.txt", i))
		must(t, os.WriteFile(path, []byte(strings.Repeat("x", i+1)), 0o600))
		files = append(files, domain.Attachment{Path: path})
	}
	r.srv.Fail("create_message", fault.Fault{}) // a fault that does nothing, for the first
	p := domain.Part{Text: "files", Attachments: files, Buttons: []domain.Button{{Label: "ok", Command: "/ok"}}}
	r.srv.Fail("create_message", fault.CutAfter())
	_, err := r.Send(r.ctx, address(dm), p, "n")
	adapter.Fails(t, err, platform.Retry)
	id, err := r.Send(r.ctx, address(dm), p, "n")
	must(t, err)
	m := r.srv.Replies(dm)
	if len(m) != 2 || m[0].ID != id || len(m[0].Files) != 10 || len(m[1].Files) != 2 || m[0].Content != "files" || len(m[1].Buttons) != 1 || m[1].Files[1].Size != 12 {
		t.Errorf("%+v", m)
	}
	for name, path := range map[string]string{"gone": filepath.Join(dir, "none"), "a folder": dir} {
		_, err := r.Send(r.ctx, address(dm), domain.Part{Attachments: []domain.Attachment{{Path: path}}}, "n")
		if e := adapter.Fails(t, err, platform.GiveUp); e.Code != "discord_file" {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

func TestHowASendFails(t *testing.T) {
	hold := make(chan struct{})
	t.Cleanup(func() { close(hold) })
	for name, c := range map[string]struct {
		fault fault.Fault
		want  platform.Error
		said  string
	}{
		"429 of a channel":  {fake.TooMany(7.5, false), platform.Error{Kind: platform.Retry, RetryAfter: 7500 * time.Millisecond, Code: "discord_429"}, "7.5s"},
		"429 of the bot":    {fake.TooMany(20, true), platform.Error{Kind: platform.Retry, RetryAfter: 20 * time.Second, Global: true, Code: "discord_429"}, "20s"},
		"429 of the front":  {fault.Fault{Status: 429, Body: "<html>", RetryAfter: 60}, platform.Error{Kind: platform.Retry, RetryAfter: time.Minute, Global: true, Code: "discord_429"}, ""},
		"401":               {fault.Fault{Status: 401, Message: "401: Unauthorized"}, platform.Error{Kind: platform.BadCredentials, Code: "discord_token"}, ".env line 2"},
		"502":               {fault.BadGateway(), platform.Error{Kind: platform.Retry, Uncertain: true, Code: "discord_502"}, ""},
		"500":               {fault.Fault{Status: 500}, platform.Error{Kind: platform.Retry, Uncertain: true, Code: "discord_500"}, ""},
		"cut":               {fault.CutBefore(), platform.Error{Kind: platform.Retry, Uncertain: true, Code: "discord_unknown"}, ""},
		"black hole":        {fault.Fault{Hold: hold}, platform.Error{Kind: platform.Retry, Uncertain: true, Code: "discord_unknown"}, "in time"},
		"closed to the bot": {fault.Fault{Status: 403, Code: "50007", Message: "Cannot send messages to this user"}, platform.Error{Kind: platform.GiveUp, Code: "discord_blocked"}, "direct messages"},
		"rights":            {fault.Fault{Status: 403, Code: "50013", Message: "Missing Permissions"}, platform.Error{Kind: platform.GiveUp, Code: "discord_rights"}, "Send Messages"},
		"archived":          {fault.Fault{Status: 400, Code: "50083", Message: "Thread is archived"}, platform.Error{Kind: platform.GiveUp, Code: "discord_archived"}, ""},
		"slow mode":         {fake.SlowMode(3), platform.Error{Kind: platform.Retry, Code: "discord_slowmode", RetryAfter: 3 * time.Second}, ""},
		"too large":         {fault.Fault{Status: 413, Body: "<html>"}, platform.Error{Kind: platform.GiveUp, Code: "discord_file"}, "10 MiB"},
		"not Discord":       {fault.Fault{Status: 404, Body: "<html>"}, platform.Error{Kind: platform.Retry, Code: "discord_404"}, "base_url"},
		"unknown":           {fault.Fault{Status: 418, Code: "99", Message: "teapot"}, platform.Error{Kind: platform.GiveUp, Code: "discord_418"}, "teapot"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, fake.Options{}, func(c *discord.Config) {
				if c.SendTimeout = time.Minute; name == "black hole" {
					c.SendTimeout = 50 * time.Millisecond
				}
			})
			dm := r.srv.DM(r.srv.AddUser("Ann"))
			c.fault.Times = -1
			r.srv.Fail("create_message", c.fault)
			_, err := r.Send(r.ctx, address(dm), domain.Part{Text: "x"}, "n")
			e := adapter.Fails(t, err, c.want.Kind)
			if e.RetryAfter != c.want.RetryAfter || e.Global != c.want.Global || e.Uncertain != c.want.Uncertain || e.Code != c.want.Code || !strings.Contains(e.Reason, c.said) {
				t.Errorf("%+v", e)
			}
			if strings.Contains(e.Error(), r.srv.Token()) {
				t.Error("the token is in the error")
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		r := newRig(t, fake.Options{}, nil)
		r.srv.GoDark()
		_, err := r.Send(r.ctx, address("1"), domain.Part{Text: "x"}, "n")
		if e := adapter.Fails(t, err, platform.Retry); e.Uncertain || e.Code != "discord_unreachable" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("stopped", func(t *testing.T) {
		r := newRig(t, fake.Options{}, nil)
		ctx, cancel := context.WithCancel(r.ctx)
		cancel()
		_, err := r.Send(ctx, address("1"), domain.Part{Text: "x"}, "n")
		if e := adapter.Fails(t, err, platform.Retry); e.Uncertain || e.Code != "discord_stopped" {
			t.Errorf("%+v", e)
		}
	})
}

// The limit is obeyed before it is hit: nothing is sent that would be refused.
func TestRateLimitsAreObeyed(t *testing.T) {
	r := newRig(t, fake.Options{Messages: 3}, nil)
	r.Patience(0)
	dm, other := r.srv.DM(r.srv.AddUser("Ann")), r.srv.DM(r.srv.AddUser("Bob"))
	for i := range 3 {
		_, err := r.Send(r.ctx, address(dm), domain.Part{Text: "x"}, fmt.Sprint("n", i))
		must(t, err)
	}
	_, err := r.Send(r.ctx, address(dm), domain.Part{Text: "x"}, "n4")
	if e := adapter.Fails(t, err, platform.Retry); e.RetryAfter <= 0 || e.RetryAfter > 5*time.Second || e.Global || e.Uncertain {
		t.Errorf("%+v", e)
	}
	_, err = r.Send(r.ctx, address(other), domain.Part{Text: "x"}, "n5")
	must(t, err)
	if n := r.srv.Calls("create_message"); n != 4 {
		t.Errorf("%d calls", n)
	}
	r.srv.Fail("typing", fake.TooMany(30, true))
	adapter.Fails(t, r.Typing(r.ctx, address(dm)), platform.Retry)
	_, err = r.Send(r.ctx, address(other), domain.Part{Text: "x"}, "n6")
	if e := adapter.Fails(t, err, platform.Retry); !e.Global {
		t.Errorf("%+v", e)
	}
	if n := r.srv.Calls("create_message"); n != 4 {
		t.Errorf("%d calls", n)
	}
}

func TestEdit(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	ann := r.srv.AddUser("Ann")
	dm := r.srv.DM(ann)
	id, err := r.Send(r.ctx, address(dm), domain.Part{Text: "one", Buttons: []domain.Button{{Label: "a", Command: "/a"}}}, "n")
	must(t, err)
	must(t, r.Edit(r.ctx, address(dm), id, domain.Part{Text: "two"}))
	must(t, r.Edit(r.ctx, address(dm), id, domain.Part{Text: "two"}))
	if m := r.srv.Replies(dm)[0]; m.Content != "two" || len(m.Buttons) != 0 || !slices.Equal(m.Edits, []string{"one"}) {
		t.Errorf("%+v", m)
	}
	adapter.Fails(t, r.Edit(r.ctx, address(dm), r.srv.Say(ann, dm, "hers"), domain.Part{Text: "x"}), platform.EditRefused)
	r.srv.Delete(dm, id)
	adapter.Fails(t, r.Edit(r.ctx, address(dm), id, domain.Part{Text: "x"}), platform.EditRefused)
	adapter.Fails(t, r.Edit(r.ctx, address(dm), "x", domain.Part{Text: "x"}), platform.EditRefused)
}

// Where a thread cannot be opened, the answer goes to the channel.
func TestAThreadThatCannotBeOpened(t *testing.T) {
	w := newWorld(t, nil)
	id := w.srv.Say(w.ann, w.channel, "hello")
	w.srv.Fail("start_thread", fault.Fault{Status: 403, Code: "50013", Message: "Missing Permissions"})
	to := domain.Address{Platform: discord.Name, ChatID: w.channel, ThreadID: id}
	receipt, err := w.Send(w.ctx, to, domain.Part{Text: "answer"}, "n")
	must(t, err)
	if m := w.srv.Replies(w.channel); len(m) != 1 || m[0].ReplyTo != id {
		t.Errorf("%+v", m)
	}
	must(t, w.Edit(w.ctx, to, receipt, domain.Part{Text: "better"}))
	w.srv.Fail("start_thread", fault.BadGateway())
	_, err = w.Send(w.ctx, to, domain.Part{Text: "answer"}, "n2")
	adapter.Fails(t, err, platform.Retry)
}

func TestSetCommands(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	cmds := []platform.Command{{Name: "Status", Description: "What it does\nnow"}, {Name: "set-home"}, {Name: "bad name"}, {Name: "status"}, {Name: "long", Description: strings.Repeat("ä", 300)}}
	must(t, r.SetCommands(r.ctx, cmds))
	must(t, r.SetCommands(r.ctx, cmds)) // nothing changed: it is read, not written
	got := r.srv.Commands()
	if len(got) != 3 || got[2].Name != "status" || got[2].Description != "What it does now" || len(got[0].Options) != 1 || r.srv.Calls("commands") != 3 {
		t.Errorf("%+v after %d calls", got, r.srv.Calls("commands"))
	}
}
