package telegram_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/telegram"
	"hermes/testkit/adapter"
	"hermes/testkit/fault"
	fake "hermes/testkit/telegram"
)

func TestSendAndEdit(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	hers := r.srv.Say(alice, "hi")
	to := address(alice.ID)
	id, err := r.Send(r.ctx, to, domain.Part{
		Text: `<b>Hello</b> &lt;you&gt; <a href="https://example.org">there</a>`, Plain: "Hello", Markup: true,
		ReplyTo: strconv.Itoa(hers.ID), Silent: true,
		Buttons: []domain.Button{
			{Label: "Once", Command: "/approve"}, {Label: "Session", Command: "/approve session"}, {Label: "Deny", Command: "/deny"},
			{Label: "A label so long that it stands alone", Command: "/x"},
			{Label: "Too long", Command: strings.Repeat("x", 65)},
		},
	}, "n1")
	if err != nil {
		t.Fatal(err)
	}
	m := r.srv.Replies(alice.ID)[0]
	if strconv.Itoa(m.ID) != id || m.Text != "Hello <you> there" || m.ReplyTo != hers.ID || !m.Silent || len(m.Entities) != 2 {
		t.Errorf("receipt %s, shown as %+v", id, m)
	}
	var rows []string
	for _, row := range m.Buttons {
		var labels []string
		for _, b := range row {
			labels = append(labels, b.Text+"="+b.Data)
		}
		rows = append(rows, strings.Join(labels, " "))
	}
	if want := []string{"Once=/approve Session=/approve session", "Deny=/deny", "A label so long that it stands alone=/x"}; !slices.Equal(rows, want) {
		t.Errorf("the buttons are %q", rows)
	}
	edited := domain.Part{Text: "a < b"} // no markup: nothing to parse
	for range 2 {                        // the second changes nothing, which is no failure
		if err := r.Edit(r.ctx, to, id, edited); err != nil {
			t.Fatal(err)
		}
	}
	if m := r.srv.Replies(alice.ID)[0]; m.Text != "a < b" || m.Buttons != nil || !slices.Equal(m.Edits, []string{"Hello <you> there"}) {
		t.Errorf("after the edit it is %+v", m)
	}
	if err := r.Typing(r.ctx, to); err != nil || r.srv.Typing(alice.ID) != 1 {
		t.Errorf("typing: %v", err)
	}
}

func TestEditRefused(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	hers := r.srv.Say(alice, "hi")
	for _, id := range []string{"99", strconv.Itoa(hers.ID), "no number"} {
		adapter.Fails(t, r.Edit(r.ctx, address(alice.ID), id, domain.Part{Text: "x"}), platform.EditRefused)
	}
	id, err := r.Send(r.ctx, address(alice.ID), domain.Part{Text: "x"}, "n")
	if err != nil {
		t.Fatal(err)
	}
	adapter.Fails(t, r.Edit(r.ctx, address(alice.ID), id, domain.Part{Text: "<b>", Markup: true}), platform.MarkupRefused)
}

func TestTopics(t *testing.T) {
	r := newRig(t, nil)
	forum := r.srv.AddSupergroup("Forum", true)
	plans := r.srv.AddTopic(forum.ID, "Plans")
	send := func(thread string) fake.Message {
		to := address(forum.ID)
		to.ThreadID = thread
		if _, err := r.Send(r.ctx, to, domain.Part{Text: "to " + thread}, "n"); err != nil {
			t.Fatal(err)
		}
		all := r.srv.Replies(forum.ID)
		return all[len(all)-1]
	}
	if m := send(strconv.Itoa(plans)); m.Thread != plans {
		t.Errorf("in the topic: %+v", m)
	}
	if m := send("1"); m.Thread != 0 { // General
		t.Errorf("in General: %+v", m)
	}
	r.srv.DropTopic(forum.ID, plans)
	if m := send(strconv.Itoa(plans)); m.Thread != 0 {
		t.Errorf("to a topic that is gone: %+v", m)
	}
	if m := r.srv.Calls("sendMessage"); m != 4 {
		t.Errorf("%d calls", m)
	}
}

func TestSendFailures(t *testing.T) {
	type c struct {
		name      string
		fault     fault.Fault
		kind      platform.Kind
		code      string
		uncertain bool
		says      string
	}
	for _, c := range []c{
		{"blocked", fault.Fault{Status: 403, Message: "Forbidden: bot was blocked by the user"}, platform.GiveUp, "telegram_403", false, "the user has blocked the bot"},
		{"kicked", fault.Fault{Status: 403, Message: "Forbidden: bot was kicked from the supergroup chat"}, platform.GiveUp, "telegram_403", false, "not in that chat any more"},
		{"never met", fault.Fault{Status: 403, Message: "Forbidden: bot can't initiate conversation with a user"}, platform.GiveUp, "telegram_403", false, "/start"},
		{"deleted account", fault.Fault{Status: 403, Message: "Forbidden: user is deactivated"}, platform.GiveUp, "telegram_403", false, "deleted"},
		{"chat not found", fault.Fault{Status: 400, Message: "Bad Request: chat not found"}, platform.GiveUp, "telegram_chat", false, "no such chat"},
		{"no rights", fault.Fault{Status: 400, Message: "Bad Request: not enough rights to send text messages to the chat"}, platform.GiveUp, "telegram_rights", false, "administrator"},
		{"too long", fault.Fault{Status: 400, Message: "Bad Request: message is too long"}, platform.GiveUp, "telegram_length", false, "too long"},
		{"markup", fault.Fault{Status: 400, Message: "Bad Request: can't parse entities: Unsupported start tag"}, platform.MarkupRefused, "telegram_markup", false, "can't parse"},
		{"migrated", fake.Migrated(-100777), platform.Moved, "telegram_moved", false, "supergroup"},
		{"something new", fault.Fault{Status: 400, Message: "Bad Request: MOON_PHASE_INVALID"}, platform.GiveUp, "telegram_400", false, "MOON_PHASE_INVALID"},
		{"revoked", fault.Fault{Status: 401}, platform.BadCredentials, "telegram_401", false, ".env line 2"},
		{"malformed token", fault.Fault{Status: 404}, platform.BadCredentials, "telegram_404", false, "@BotFather"},
		{"no Bot API", fault.Fault{Status: 404, Body: "<html>"}, platform.Retry, "telegram_404", false, "base_url"},
		{"redirect", fault.Fault{Status: 302, Body: "<html>"}, platform.Retry, "telegram_302", false, "base_url"},
		{"too large", fault.Fault{Status: 413}, platform.GiveUp, "telegram_413", false, "50 MB"},
		{"flood", fault.TooMany(7), platform.Retry, "telegram_429", false, "7s"},
		{"502", fault.BadGateway(), platform.Retry, "telegram_502", true, "fault of its own"},
		{"500", fault.Fault{Status: 500}, platform.Retry, "telegram_500", true, "fault of its own"},
		{"cut after", fault.CutAfter(), platform.Retry, "telegram_unknown", true, "may have been carried out"},
		{"cut before", fault.CutBefore(), platform.Retry, "telegram_unknown", true, "may have been carried out"},
		{"never answered", fault.Fault{BlackHole: true}, platform.Retry, "telegram_unknown", true, "in time"},
		{"garbled", fault.Fault{Status: 200, Body: `{"ok":tr`}, platform.Retry, "telegram_unknown", true, "may have been"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(cfg *telegram.Config) { cfg.SendTimeout = 300 * time.Millisecond })
			alice := r.srv.AddUser("Alice")
			r.srv.Fail("sendMessage", c.fault)
			_, err := r.Send(r.ctx, address(alice.ID), domain.Part{Text: "x"}, "n")
			e := adapter.Fails(t, err, c.kind)
			if e.Code != c.code || e.Uncertain != c.uncertain || !strings.Contains(e.Reason, c.says) {
				t.Errorf("got %+v", e)
			}
			if e.RetryAfter != time.Duration(c.fault.RetryAfter)*time.Second || c.kind == platform.Moved && e.NewChatID != "-100777" {
				t.Errorf("got %+v", e)
			}
			want := 0
			if c.fault.Act {
				want = 1
			}
			if n := len(r.srv.Replies(alice.ID)); n != want {
				t.Errorf("%d messages are shown, want %d", n, want)
			}
		})
	}
}

func TestWhatWasNotWrittenIsCertain(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	r.srv.GoDark()
	_, err := r.Send(r.ctx, address(alice.ID), domain.Part{Text: "x"}, "n")
	if e := adapter.Fails(t, err, platform.Retry); e.Uncertain || e.Code != "telegram_unreachable" {
		t.Errorf("refused connection: %+v", e)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	cancel()
	_, err = r.Send(ctx, address(alice.ID), domain.Part{Text: "x"}, "n")
	if e := adapter.Fails(t, err, platform.Retry); e.Uncertain || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %+v", e)
	}
}

func TestCancelledWhileItIsAnsweredIsUncertain(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	r.srv.Fail("sendMessage", fault.Fault{BlackHole: true})
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan error, 1)
	go func() {
		_, err := r.Send(ctx, address(alice.ID), domain.Part{Text: "x"}, "n")
		done <- err
	}()
	if err := r.srv.WaitCalls(r.ctx, "sendMessage", 1); err != nil {
		t.Fatal(err)
	}
	cancel()
	if e := adapter.Fails(t, <-done, platform.Retry); !e.Uncertain {
		t.Errorf("got %+v", e)
	}
}

func TestAConnectionThatWentStaleIsReplaced(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	for i := range 20 {
		if _, err := r.Send(r.ctx, address(alice.ID), domain.Part{Text: "x"}, "n"); err != nil {
			// The server may close just as the request is written; then nobody knows.
			if e := platform.AsError(err); !e.Uncertain {
				t.Fatalf("send %d: %v", i, err)
			}
		}
		r.srv.GoDark()
		if err := r.srv.ComeBack(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFloodControlOfTheWholeAccount(t *testing.T) {
	r := newRig(t, nil)
	alice, bob := r.srv.AddUser("Alice"), r.srv.AddUser("Bob")
	send := func(chat int64) *platform.Error {
		r.srv.Fail("sendMessage", fault.TooMany(30))
		_, err := r.Send(r.ctx, address(chat), domain.Part{Text: "x"}, "n")
		return adapter.Fails(t, err, platform.Retry)
	}
	if e := send(alice.ID); e.Global || e.RetryAfter != 30*time.Second {
		t.Errorf("one chat: %+v", e)
	}
	if e := send(alice.ID); e.Global {
		t.Errorf("the same chat again: %+v", e)
	}
	if e := send(bob.ID); !e.Global {
		t.Errorf("another chat too: %+v", e)
	}
}

func TestBadAddresses(t *testing.T) {
	r := newRig(t, nil)
	for _, to := range []domain.Address{{ChatID: ""}, {ChatID: "x"}, {ChatID: "@"}, {ChatID: "1", ThreadID: "x"}} {
		_, err := r.Send(r.ctx, to, domain.Part{Text: "x"}, "n")
		adapter.Fails(t, err, platform.GiveUp)
		adapter.Fails(t, r.Typing(r.ctx, to), platform.GiveUp)
	}
	_, err := r.Send(r.ctx, address(1), domain.Part{Text: " "}, "n")
	adapter.Fails(t, err, platform.GiveUp)
	if n := r.srv.Calls("sendMessage"); n != 0 {
		t.Errorf("%d requests were made for them", n)
	}
	news := r.srv.AddChannel("News", "news")
	if _, err := r.Send(r.ctx, domain.Address{ChatID: "@news"}, domain.Part{Text: "x"}, "n"); err != nil || len(r.srv.Replies(news.ID)) != 1 {
		t.Errorf("to a channel by name: %v", err)
	}
	if !r.IsGroup("-5") || !r.IsGroup("@news") || r.IsGroup("5") {
		t.Error("groups are told wrongly")
	}
}

func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFilesOut(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	for _, c := range []struct {
		kind       domain.AttachmentKind
		name       string
		data       []byte
		want       string
		wantedName string
	}{
		{domain.Image, "a.png", picture(t, 20, 10), "photo", "a.png"},
		{domain.Image, "strip.png", picture(t, 9999, 9), "document", "strip.png"}, // Telegram shows no such photo
		{domain.Image, "a.svg", []byte("<svg/>"), "document", "a.svg"},
		{domain.Image, "broken.png", []byte("not a picture"), "document", "broken.png"},
		{domain.Image, "large.png", append(picture(t, 20, 10), make([]byte, 10<<20)...), "document", "large.png"},
		{domain.Document, `re"port".pdf`, []byte("%PDF"), "document", "re_port_.pdf"},
		{domain.Voice, "v.ogg", []byte("OggS"), "voice", "v.ogg"},
		{domain.Audio, "a.mp3", []byte("ID3"), "audio", "a.mp3"},
		{domain.Video, "a.mp4", []byte("ftyp"), "video", "a.mp4"},
		{"", "odd", []byte("x"), "document", "odd"},
	} {
		path := write(t, "on disk"+filepath.Ext(c.name), c.data)
		_, err := r.Send(r.ctx, address(alice.ID), domain.Part{
			Text: "<i>see</i> " + c.name, Markup: true, Attachments: []domain.Attachment{{Kind: c.kind, Path: path, Name: c.name}},
		}, c.name)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		all := r.srv.Replies(alice.ID)
		m := all[len(all)-1]
		if m.File == nil || m.File.Kind != c.want || m.File.Name != c.wantedName || !slices.Equal(r.srv.FileData(m.File.ID), c.data) || m.Text != "see "+c.name {
			t.Errorf("%s is shown as %+v with %+v", c.name, m, m.File)
		}
	}
}

func TestFilesThatCannotGo(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	large := filepath.Join(t.TempDir(), "large")
	f, err := os.Create(large)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(50<<20 + 1); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, path := range []string{filepath.Join(t.TempDir(), "none"), t.TempDir(), "/dev/null", write(t, "empty", nil), large} {
		_, err := r.Send(r.ctx, address(alice.ID), domain.Part{Text: "x", Attachments: []domain.Attachment{{Kind: domain.Document, Path: path}}}, "n")
		adapter.Fails(t, err, platform.GiveUp)
	}
	if n := len(r.srv.Replies(alice.ID)); n != 0 {
		t.Errorf("%d messages are shown", n)
	}
}

func TestACaptionThatDoesNotFitGoesBehind(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	file := write(t, "a.txt", []byte("x"))
	id, err := r.Send(r.ctx, address(alice.ID), domain.Part{Text: strings.Repeat("x", 1025), Attachments: []domain.Attachment{{Kind: domain.Document, Path: file}}}, "n")
	if err != nil {
		t.Fatal(err)
	}
	m := r.srv.Replies(alice.ID)
	if len(m) != 2 || m[0].File == nil || m[0].Text != "" || len(m[1].Text) != 1025 || strconv.Itoa(m[1].ID) != id {
		t.Errorf("receipt %s, shown as %+v", id, m)
	}
	if _, err := r.Send(r.ctx, address(alice.ID), domain.Part{Text: "<b>" + strings.Repeat("&amp;", 1024) + "</b>", Markup: true, Attachments: []domain.Attachment{{Kind: domain.Document, Path: file}}}, "n"); err != nil {
		t.Fatal(err)
	}
	if m := r.srv.Replies(alice.ID); len(m) != 3 || len(m[2].Text) != 1024 {
		t.Errorf("a caption of 1,024 visible characters: %d messages", len(m))
	}
}

func TestARetryDoesNotRepeatWhatArrived(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	p := domain.Part{Text: "three files", Buttons: []domain.Button{{Label: "OK", Command: "/ok"}}}
	for i := range 3 {
		p.Attachments = append(p.Attachments, domain.Attachment{Kind: domain.Document, Path: write(t, fmt.Sprint(i), []byte{'a'}), Name: fmt.Sprint(i)})
	}
	r.srv.Fail("sendDocument", fault.Fault{}) // the first goes
	r.srv.Fail("sendDocument", fault.TooMany(1))
	_, err := r.Send(r.ctx, address(alice.ID), p, "n")
	adapter.Fails(t, err, platform.Retry)
	id, err := r.Send(r.ctx, address(alice.ID), p, "n")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range r.srv.Replies(alice.ID) {
		names = append(names, m.File.Name+" "+m.Text+strings.Repeat("+", len(m.Buttons)))
	}
	if want := []string{"0 three files", "1 ", "2 +"}; !slices.Equal(names, want) || id != "1" {
		t.Errorf("receipt %s, shown %q", id, names)
	}
}

func TestSendsOfManyFilesAreRememberedWithinBounds(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	file := write(t, "a", []byte("a"))
	two := domain.Part{Attachments: []domain.Attachment{{Kind: domain.Document, Path: file}, {Kind: domain.Document, Path: file}}}
	const broken = 300 // more than are remembered
	for i := range broken {
		r.srv.Fail("sendDocument", fault.Fault{})
		r.srv.Fail("sendDocument", fault.TooMany(1))
		_, err := r.Send(r.ctx, address(alice.ID), two, strconv.Itoa(i))
		adapter.Fails(t, err, platform.Retry)
	}
	for nonce, more := range map[string]int{strconv.Itoa(broken - 1): 1, "0": 2} {
		before := len(r.srv.Replies(alice.ID))
		if _, err := r.Send(r.ctx, address(alice.ID), two, nonce); err != nil {
			t.Fatal(err)
		}
		if n := len(r.srv.Replies(alice.ID)) - before; n != more {
			t.Errorf("the retry of %s sent %d files, want %d", nonce, n, more)
		}
	}
}

func TestManySendsAtOnce(t *testing.T) {
	r := newRig(t, nil)
	const chats, each = 20, 10
	var wg sync.WaitGroup
	for range chats {
		u := r.srv.AddUser("User")
		wg.Go(func() {
			for i := range each {
				if _, err := r.Send(r.ctx, address(u.ID), domain.Part{Text: strconv.Itoa(i)}, "n"); err != nil {
					t.Error(err)
				}
			}
			for i, m := range r.srv.Replies(u.ID) {
				if m.Text != strconv.Itoa(i) {
					t.Errorf("message %d is %q", i, m.Text)
				}
			}
		})
	}
	wg.Wait()
	if n := r.srv.Calls("sendMessage"); n != chats*each {
		t.Errorf("%d requests for %d messages", n, chats*each)
	}
}

func BenchmarkSend(b *testing.B) {
	r := newRig(b, nil)
	alice := r.srv.AddUser("Alice")
	for b.Loop() {
		if _, err := r.Send(context.Background(), address(alice.ID), domain.Part{Text: "<b>x</b>", Markup: true}, "n"); err != nil {
			b.Fatal(err)
		}
	}
}
