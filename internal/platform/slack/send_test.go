package slack_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/delivery/markup"
	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/testkit/adapter"
	"hermes/testkit/fault"
	fake "hermes/testkit/slack"
)

func TestSend(t *testing.T) {
	r := newRig(t, nil)
	ann, general := r.srv.AddUser("ann"), r.srv.AddChannel("general", "public_channel")
	root := r.srv.Say(ann, general, "begin")
	part := markup.Render("**bold** & <plain>", r.Capabilities())[0]
	to := address(general)
	to.ThreadID = root.TS
	ts, err := r.Send(r.ctx, to, part, "n1")
	must(t, err)
	m, err := r.srv.Next(r.ctx, general)
	must(t, err)
	if m.TS != ts || m.Thread != root.TS || m.Text != "*bold* &amp; &lt;plain&gt;" || m.Plain {
		t.Errorf("it shows %+v", m)
	}
	_, err = r.Send(r.ctx, address(general), domain.Part{Text: "a < *b*"}, "n2")
	must(t, err)
	if m, err = r.srv.Next(r.ctx, general); err != nil || m.Text != "a &lt; *b*" || !m.Plain || m.Thread != "" {
		t.Errorf("plain text shows as %+v, %v", m, err)
	}
	_, err = r.Send(r.ctx, address(ann.ID), domain.Part{Text: "to a user"}, "n3")
	must(t, err)
	if m, err = r.srv.Next(r.ctx, r.srv.Direct(ann)); err != nil || m.Text != "to a user" {
		t.Errorf("to a user goes %+v, %v", m, err)
	}
}

func TestEdit(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("ann")
	dm := r.srv.Direct(ann)
	buttons := []domain.Button{{Label: "Yes", Command: "/approve"}, {Label: strings.Repeat("long ", 40), Command: "/deny"}}
	ts, err := r.Send(r.ctx, address(dm), domain.Part{Text: "sure?", Buttons: buttons}, "n1")
	must(t, err)
	m, err := r.srv.Next(r.ctx, dm)
	must(t, err)
	if len(m.Buttons) != 2 || m.Buttons[0].Value != "/approve" || m.Buttons[0].Label != "Yes" || len([]rune(m.Buttons[1].Label)) > 75 || m.Buttons[0].ActionID == m.Buttons[1].ActionID {
		t.Errorf("the buttons are %+v", m.Buttons)
	}
	must(t, r.Edit(r.ctx, address(dm), ts, domain.Part{Text: "done"}))
	if m = r.srv.Replies(dm)[0]; m.Text != "done" || len(m.Buttons) != 0 {
		t.Errorf("after the edit it shows %+v", m)
	}
	adapter.Fails(t, r.Edit(r.ctx, address(dm), ts, domain.Part{Text: strings.Repeat("x", 4001)}), platform.EditRefused)
	adapter.Fails(t, r.Edit(r.ctx, address(dm), "1.000001", domain.Part{Text: "x"}), platform.EditRefused)
	adapter.Fails(t, r.Edit(r.ctx, address(dm), "nonsense", domain.Part{Text: "x"}), platform.EditRefused)
}

// An answer that got lost costs no second message, in this life and the next.
func TestASendOfUnknownOutcomeIsLookedUp(t *testing.T) {
	for _, inThread := range []bool{false, true} {
		for _, arrived := range []bool{true, false} {
			r := newRig(t, nil)
			ann := r.srv.AddUser("ann")
			dm := r.srv.Direct(ann)
			to := address(dm)
			if inThread {
				to.ThreadID = r.srv.Say(ann, dm, "begin").TS
			}
			f := fault.CutBefore()
			if arrived {
				f = fault.CutAfter()
			}
			r.srv.Fail("chat.postMessage", f)
			_, err := r.Send(r.ctx, to, domain.Part{Text: "once"}, "n1")
			if e := adapter.Fails(t, err, platform.Retry); !e.Uncertain {
				t.Errorf("the outcome is called certain: %v", e)
			}
			again, err := r.Send(r.ctx, to, domain.Part{Text: "once"}, "n1")
			must(t, err)
			next, err := r.another(t).Send(r.ctx, to, domain.Part{Text: "once"}, "n1")
			must(t, err)
			if got := r.srv.Replies(dm); len(got) != 1 || got[0].TS != again || next != again {
				t.Errorf("in a thread %v, arrived %v: %d messages are shown; receipts %s and %s", inThread, arrived, len(got), again, next)
			}
		}
	}
}

func TestFilesAreSharedOnce(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("ann")
	dm := r.srv.Direct(ann)
	path := filepath.Join(t.TempDir(), "report.txt")
	must(t, os.WriteFile(path, []byte("figures"), 0o600))
	part := domain.Part{Text: "here", Attachments: []domain.Attachment{{Path: path, Name: "report.txt"}}}
	r.srv.Fail("files.completeUploadExternal", fault.CutAfter())
	_, err := r.Send(r.ctx, address(dm), part, "n1")
	adapter.Fails(t, err, platform.Retry)
	ts, err := r.Send(r.ctx, address(dm), part, "n1")
	must(t, err)
	_, err = r.another(t).Send(r.ctx, address(dm), part, "n1")
	must(t, err)
	got := r.srv.Replies(dm)
	if len(got) != 2 || got[0].TS != ts || got[0].Text != "here" || len(got[1].Files) != 1 || string(got[1].Files[0].Data) != "figures" {
		t.Errorf("shown is %+v", got)
	}
	// The same file under another message is another file.
	_, err = r.Send(r.ctx, address(dm), part, "n2")
	must(t, err)
	if got := r.srv.Replies(dm); len(got) != 4 {
		t.Errorf("%d messages are shown, want 4", len(got))
	}
	_, err = r.Send(r.ctx, address(dm), domain.Part{Attachments: part.Attachments}, "n3")
	must(t, err)
	if got := r.srv.Replies(dm); len(got) != 6 || !strings.Contains(got[4].Text, "report.txt") {
		t.Errorf("a file without a word shows as %+v", got[4:])
	}
}

func TestFilesThatCannotBeSent(t *testing.T) {
	r := newRig(t, nil)
	dm := r.srv.Direct(r.srv.AddUser("ann"))
	empty := filepath.Join(t.TempDir(), "empty")
	must(t, os.WriteFile(empty, nil, 0o600))
	for _, path := range []string{"", "/nonexistent/file", t.TempDir(), empty} {
		_, err := r.Send(r.ctx, address(dm), domain.Part{Text: "x", Attachments: []domain.Attachment{{Path: path, Name: "x"}}}, "n"+path)
		if e := adapter.Fails(t, err, platform.GiveUp); e.Code != "slack_file" {
			t.Errorf("%s: %v", path, e)
		}
	}
}

func TestFetch(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("ann")
	dm := r.srv.Direct(ann)
	r.connect(t)
	var leaked http.Header
	elsewhere := newServer(t, func(_ http.ResponseWriter, q *http.Request) { leaked = q.Header.Clone() })
	r.srv.Post(fake.Post{From: ann, Channel: dm, Text: "see", Files: []fake.File{{Name: "../a.png", MIME: "image/png", Data: []byte("picture")}, {Name: "b.txt", Data: []byte("far"), URL: elsewhere + "/b.txt"}}})
	in := r.sink.Wait(t, r.ctx, 1)[0]
	if len(in.Attachments) != 2 || in.Attachments[0].Kind != domain.Image || in.Attachments[0].Name != "a.png" {
		t.Fatalf("the files are %+v", in.Attachments)
	}
	var b bytes.Buffer
	at, err := r.Fetch(r.ctx, in.Attachments[0], 100, &b)
	must(t, err)
	if b.String() != "picture" || at.Size != 7 {
		t.Errorf("fetched was %q as %+v", b.String(), at)
	}
	_, err = r.Fetch(r.ctx, in.Attachments[1], 100, &b)
	adapter.Fails(t, err, platform.GiveUp)
	if leaked != nil {
		t.Errorf("another host was asked, with %v", leaked)
	}
	small := in.Attachments[0]
	small.Size = 0 // as if Slack had not said it
	_, err = r.Fetch(r.ctx, small, 3, &bytes.Buffer{})
	adapter.Fails(t, err, platform.GiveUp)
	r.srv.DropScope("files:read")
	_, err = r.Fetch(r.ctx, in.Attachments[0], 100, &b)
	if e := adapter.Fails(t, err, platform.GiveUp); !strings.Contains(e.Reason, "files:read") {
		t.Errorf("it says %v", e)
	}
	_, err = r.Fetch(r.ctx, domain.Attachment{Ref: "../x"}, 100, &b)
	adapter.Fails(t, err, platform.GiveUp)
}

// Each way to be refused is told from the others.
func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault fault.Fault
		kind  platform.Kind
		says  string
		wait  time.Duration
		maybe bool
	}{
		{"limit", fault.TooMany(7), platform.Retry, "pause", 7 * time.Second, false},
		{"limit by name", fault.Fault{Code: "ratelimited", RetryAfter: 3}, platform.Retry, "pause", 3 * time.Second, false},
		{"token", fake.Refusal("token_revoked"), platform.BadCredentials, "SLACK_BOT_TOKEN (.env line 2", 0, false},
		{"swapped", fake.Refusal("not_allowed_token_type"), platform.BadCredentials, "xoxb-", 0, false},
		{"scope", fake.MissingScope("chat:write"), platform.GiveUp, "chat:write", 0, false},
		{"absent", fake.Refusal("channel_not_found"), platform.GiveUp, "/invite", 0, false},
		{"archived", fake.Refusal("is_archived"), platform.GiveUp, "archived", 0, false},
		{"unheard of", fake.Refusal("some_new_error"), platform.GiveUp, "some_new_error", 0, false},
		{"their fault", fake.Refusal("internal_error"), platform.Retry, "fault of its own", 0, true},
		{"502", fault.BadGateway(), platform.Retry, "fault of its own", 0, true},
		{"a portal", fault.Fault{Status: http.StatusOK, Body: "<html>"}, platform.Retry, "not Slack", 0, true},
		{"a redirect", fault.Redirect(http.StatusFound, "https://example.org/"), platform.Retry, "not Slack", 0, false},
		{"404", fault.Fault{Status: http.StatusNotFound, Body: "x"}, platform.Retry, "not Slack", 0, false},
		{"cut", fault.CutBefore(), platform.Retry, "may have been", 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			dm := r.srv.Direct(r.srv.AddUser("ann"))
			r.srv.Fail("chat.postMessage", c.fault)
			_, err := r.Send(r.ctx, address(dm), domain.Part{Text: "x"}, "n1")
			e := adapter.Fails(t, err, c.kind)
			if !strings.Contains(e.Reason, c.says) || e.RetryAfter != c.wait || e.Uncertain != c.maybe || e.Code == "" {
				t.Errorf("it is classified as %+v", e)
			}
		})
	}
}

func TestAddressesThatAreNone(t *testing.T) {
	r := newRig(t, nil)
	for _, to := range []domain.Address{address(""), address("general"), address("C1 2"), {Platform: "slack", ChatID: "C123", ThreadID: "7"}} {
		_, err := r.Send(r.ctx, to, domain.Part{Text: "x"}, "n")
		adapter.Fails(t, err, platform.GiveUp)
	}
	_, err := r.Send(r.ctx, address("C123"), domain.Part{Text: " "}, "n")
	adapter.Fails(t, err, platform.GiveUp)
	_, err = r.Send(r.ctx, address("C123"), domain.Part{Text: strings.Repeat("x", 40_001), Markup: true, Plain: "x"}, "n")
	adapter.Fails(t, err, platform.MarkupRefused)
}

func TestAThreadThatIsGone(t *testing.T) {
	r := newRig(t, nil)
	dm := r.srv.Direct(r.srv.AddUser("ann"))
	to := address(dm)
	to.ThreadID = "1.000001"
	_, err := r.Send(r.ctx, to, domain.Part{Text: "x"}, "n1")
	must(t, err)
	if m := r.srv.Replies(dm); len(m) != 1 || m[0].Thread != "" {
		t.Errorf("shown is %+v", m)
	}
}

func TestTypingReactsAndShowsAStatus(t *testing.T) {
	r := newRig(t, nil)
	r.Adapter = r.with(t, func(c *configuration) { c.Reactions = true })
	ann, general := r.srv.AddUser("ann"), r.srv.AddChannel("general", "public_channel")
	r.connect(t)
	said := r.srv.Say(ann, general, r.srv.Mention()+" hello")
	in := r.sink.Wait(t, r.ctx, 1)[0]
	for range 2 {
		must(t, r.Typing(r.ctx, in.Address))
	}
	m, err := r.srv.WaitFor(r.ctx, general, func(m fake.Message) bool { return len(m.Reactions) > 0 })
	must(t, err)
	if m.TS != said.TS || m.Reactions[0] != "eyes" || r.srv.Calls("reactions.add") != 1 || r.srv.Typing(general) != 2 {
		t.Errorf("reactions %v, %d asked for; %d times a status", m.Reactions, r.srv.Calls("reactions.add"), r.srv.Typing(general))
	}
	r.srv.DropScope("assistant:write")
	for range 3 {
		must(t, r.Typing(r.ctx, in.Address))
	}
	if n := r.srv.Calls("assistant.threads.setStatus"); n != 3 {
		t.Errorf("an app that may not was asked %d times", n)
	}
}

// Edits wait for Slack's limit before it is hit.
func TestTheLimitIsObeyedBeforeItIsHit(t *testing.T) {
	r := newRig(t, nil)
	r.ObeyTiers()
	dm := r.srv.Direct(r.srv.AddUser("ann"))
	ts, err := r.Send(r.ctx, address(dm), domain.Part{Text: "x"}, "n1")
	must(t, err)
	for err == nil {
		err = r.Edit(r.ctx, address(dm), ts, domain.Part{Text: "y"})
	}
	if e := adapter.Fails(t, err, platform.Retry); e.RetryAfter <= 0 || e.RetryAfter > 2*time.Second {
		t.Errorf("it is classified as %+v", e)
	}
	if n := r.srv.Calls("chat.update"); n > 15 {
		t.Errorf("%d edits went at once", n)
	}
	// A pause that Slack asks for is kept too.
	r.srv.Fail("conversations.open", fault.TooMany(60))
	for range 3 {
		_, err = r.Send(r.ctx, address("U123"), domain.Part{Text: "x"}, "n2")
		adapter.Fails(t, err, platform.Retry)
	}
	if n := r.srv.Calls("conversations.open"); n != 1 {
		t.Errorf("a method that is to rest was asked %d times", n)
	}
}

// In a long thread, which Slack gives from its older end, it is found too.
func TestAMessageAtTheEndOfALongThreadIsFound(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("ann")
	dm := r.srv.Direct(ann)
	to := address(dm)
	to.ThreadID = r.srv.Say(ann, dm, "begin").TS
	for range 900 {
		r.srv.Post(fake.Post{From: ann, Channel: dm, Thread: to.ThreadID, Text: "more", Unheard: true})
	}
	r.srv.Fail("chat.postMessage", fault.CutAfter())
	_, err := r.Send(r.ctx, to, domain.Part{Text: "once"}, "n1")
	adapter.Fails(t, err, platform.Retry)
	_, err = r.another(t).Send(r.ctx, to, domain.Part{Text: "once"}, "n1")
	must(t, err)
	if got := r.srv.Replies(dm); len(got) != 1 {
		t.Errorf("%d messages are shown", len(got))
	}
}
