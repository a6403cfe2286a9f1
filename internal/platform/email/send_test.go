package email_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/email"
	"hermes/testkit/adapter"
	fake "hermes/testkit/email"
	"hermes/testkit/fault"
)

func to(address, thread string) domain.Address {
	return domain.Address{Platform: "email", ChatID: address, ThreadID: thread}
}

// An answer stands in its thread, in this life of the process and the next, and
// says that a machine wrote it.
func TestAnswers(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	r.connect()
	root := r.srv.Write(ann("first"))
	in := r.sink.Wait(t, r.ctx, 1)[0]
	r.srv.Write(fake.Letter{From: "ann@people.test", Subject: "RE: Aw: A question", Answers: root, Text: "second", ID: "second@people.test"})
	r.sink.Wait(t, r.ctx, 2)
	file := filepath.Join(t.TempDir(), "report.txt")
	if err := os.WriteFile(file, []byte("the report"), 0o600); err != nil {
		t.Fatal(err)
	}
	part := domain.Part{Text: "Look **here**:\n\n- <script>alert(1)</script>", Markup: true, Attachments: []domain.Attachment{{Path: file, Name: "report.txt"}}}
	id, err := r.Send(r.ctx, in.Address, part, "nonce-1")
	if err != nil {
		t.Fatal(err)
	}
	m := r.srv.Sent()[0]
	if m.ID != id || m.To != "ann@people.test" || m.Subject != "Re: A question" || m.InReplyTo != "second@people.test" || strings.Join(m.References, " ") != root+" second@people.test" {
		t.Errorf("sent %+v", m)
	}
	if m.Header.Get("Auto-Submitted") != "auto-replied" || m.Header.Get("X-Auto-Response-Suppress") != "All" {
		t.Errorf("it does not say what it is: %v", m.Header)
	}
	if !strings.Contains(m.Text, "Look **here**") || !strings.Contains(m.HTML, "<strong>here</strong>") || strings.Contains(m.HTML, "<script>") || string(m.Files["report.txt"]) != "the report" {
		t.Errorf("text %q, page %q, files %v", m.Text, m.HTML, m.Files)
	}
	again, err := r.Send(r.ctx, in.Address, part, "nonce-1")
	if err != nil || again != id || len(r.srv.Sent()) != 1 {
		t.Errorf("a repetition: %q, %v, %d mails", again, err, len(r.srv.Sent()))
	}

	// The next life knows the thread from the mailbox.
	if _, err := r.another().Send(r.ctx, in.Address, domain.Part{Text: "later"}, "nonce-2"); err != nil {
		t.Fatal(err)
	}
	if m := r.srv.Sent()[1]; m.Subject != "Re: A question" || m.InReplyTo != "second@people.test" {
		t.Errorf("the next life answers %q to %q", m.Subject, m.InReplyTo)
	}
}

// A mail that answers none has a subject of its own.
func TestSubjects(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	for i, c := range []struct{ text, subject, body string }{
		{"**Disks**\n\n/var is full", "Disks", "/var is full"},
		{"# The *report*\n\nall is well", "The *report", "# The *report*"},
		{"Grüße " + strings.Repeat("x", 100), "Grüße " + strings.Repeat("x", 64) + "…", "Grüße"},
	} {
		if _, err := r.Send(r.ctx, to("ann@people.test", ""), domain.Part{Text: c.text}, "n"+c.text[:3]); err != nil {
			t.Fatal(err)
		}
		if m := r.srv.Sent()[i]; m.Subject != c.subject || !strings.HasPrefix(m.Text, c.body) || m.Header.Get("Auto-Submitted") != "auto-generated" {
			t.Errorf("%q: subject %q, text %q", c.text, m.Subject, m.Text)
		}
	}
}

// Every answer of a server is told apart, and what is not known is said so.
func TestSendFailures(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	for _, c := range []struct {
		stage     string
		fault     fault.Fault
		kind      platform.Kind
		uncertain bool
		says      string
	}{
		{"mail", fault.Fault{Status: 550, Message: "not yours"}, platform.GiveUp, false, "mail from agent@example.test"},
		{"rcpt", fault.Fault{Status: 550, Message: "no such user"}, platform.GiveUp, false, "no such user"},
		{"rcpt", fault.Fault{Status: 451, Message: "greylisted"}, platform.Retry, false, "greylisted"},
		{"data", fault.Fault{Status: 554, Message: "no"}, platform.GiveUp, false, "554"},
		{"end", fault.Fault{Status: 452, Message: "disk full"}, platform.Retry, false, "452"},
		{"end", fault.Fault{Status: 552, Message: "too large"}, platform.GiveUp, false, "too large"},
		{"rcpt", fault.CutBefore(), platform.Retry, false, "cannot be reached"},
		{"end", fault.CutBefore(), platform.Retry, true, "cannot be reached"},
	} {
		r.srv.Fail(c.stage, c.fault)
		_, err := r.Send(r.ctx, to("ann@people.test", ""), domain.Part{Text: "x"}, "n"+c.says)
		if e := adapter.ErrorOf(t, err); e.Kind != c.kind || e.Uncertain != c.uncertain || !strings.Contains(e.Reason, c.says) {
			t.Errorf("%+v: %+v", c.fault, e)
		}
	}
	back := r.srv.Fail("auth", fault.Fault{Times: -1, Status: 454, Message: "4.7.0 Temporary authentication failure"})
	if _, err := r.Send(r.ctx, to("ann@people.test", ""), domain.Part{Text: "x"}, "a"); adapter.ErrorOf(t, err).Kind != platform.Retry {
		t.Errorf("%v", err)
	}
	back()
	back = r.srv.Fail("auth", fault.Fault{Times: -1, Status: 535, Message: "5.7.8 wrong"})
	_, err := r.Send(r.ctx, to("ann@people.test", ""), domain.Part{Text: "x"}, "b")
	if e := adapter.ErrorOf(t, err); e.Kind != platform.BadCredentials || !strings.Contains(e.Reason, ".env line 3") {
		t.Errorf("%+v", e)
	}
	back()
	for _, address := range []string{"nobody", "Ann <ann@people.test>", "ann@people.test\r\nBcc: eve@people.test", r.srv.Address()} {
		if _, err := r.Send(r.ctx, to(address, ""), domain.Part{Text: "x"}, "c"); adapter.ErrorOf(t, err).Kind != platform.GiveUp {
			t.Errorf("%q: %v", address, err)
		}
	}
	for _, p := range []domain.Part{{}, {Attachments: []domain.Attachment{{Path: "/nowhere", Name: "x"}}}} {
		if _, err := r.Send(r.ctx, to("ann@people.test", ""), p, "d"); adapter.ErrorOf(t, err).Kind != platform.GiveUp {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if n := len(r.srv.Sent()); n != 0 {
		t.Errorf("%d mails were sent", n)
	}
}

// A mail that comes back is told with what the server said, and can be sent
// again; what only looks like that is not.
func TestComesBack(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	r.connect()
	id, err := r.Send(r.ctx, to("ann@people.test", ""), domain.Part{Text: "x"}, "a")
	if err != nil {
		t.Fatal(err)
	}
	report := func(kind, action, id string) string {
		return "Content-Type: multipart/report; report-type=" + kind + "; boundary=r\n\n--r\nContent-Type: text/plain\n\nsorry\n" +
			"--r\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.test\nArrival-Date: today\n\nFinal-Recipient: rfc822; other@people.test\nAction: relayed\nStatus: 2.0.0\n\n" +
			"Final-Recipient: rfc822; ann@people.test\nAction: " + action + "\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 nobody\n    of that name\n" +
			"--r\nContent-Type: message/rfc822\n\nFrom: agent@example.test\nTo: <ann@people.test>\nMessage-ID: <" + id + ">\nSubject: x\n\nMessage-ID: <hermes.none@example.test>\nx\n--r--\n"
	}
	for _, body := range []string{
		report("delivery-status", "delayed", id), report("delivery-status", "failed", "somebody@else.test"), report("delivery-status", "failed", id), "Content-Type: multipart/report\n\nnothing",
		strings.Replace(report("delivery-status", "failed", id), "multipart/report", "multipart/mixed", 1),
	} {
		r.srv.Write(fake.Letter{From: "MAILER-DAEMON@mx.test", Subject: "Undelivered", Body: body})
	}
	r.srv.Write(ann("a person"))
	if in := r.sink.Wait(t, r.ctx, 1); len(in) != 1 || in[0].UserID != "ann@people.test" {
		t.Errorf("%d events: %+v", len(in), in)
	}
	want := "ann@people.test " + id + " the mail came back: 550 5.1.1 nobody of that name"
	if back := r.sink.Back(); len(back) != 1 || back[0] != want {
		t.Errorf("%q, not %q", back, want)
	}
	if again, err := r.Send(r.ctx, to("ann@people.test", ""), domain.Part{Text: "x"}, "a"); err != nil || again != id || len(r.srv.Sent()) != 2 {
		t.Errorf("sent again: %q, %v, %d mails", again, err, len(r.srv.Sent()))
	}
}

// breaking is a connection that breaks before the end of a mail is written.
type breaking struct{ net.Conn }

func (c breaking) Write(b []byte) (int, error) {
	if bytes.HasSuffix(b, []byte("\r\n.\r\n")) {
		_ = c.Close()
	}
	return c.Conn.Write(b)
}

// A mail whose end could not be written was not sent, for certain.
func TestEndNotWritten(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	a, err := email.New(r.config, email.Deps{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return breaking{c}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Send(r.ctx, to("ann@people.test", ""), domain.Part{Text: "x"}, "a")
	if e := adapter.ErrorOf(t, err); e.Kind != platform.Retry || e.Uncertain {
		t.Errorf("%+v", e)
	}
}

// What became of a mail is read from the mailbox: a copy of it or an answer to it
// shows that it was sent; a copy of the mail before it, and none of it, that it
// was not. Nothing else proves anything.
func TestTrace(t *testing.T) {
	ask := func(r *rig, a *email.Adapter, nonce, last string) (string, error) {
		return a.Trace(r.ctx, to("ann@people.test", ""), nonce, last)
	}
	r := newRig(t, fake.Options{SaveSent: true}, func(c *email.Config) { c.Timeout = 2 * time.Second })
	if _, err := ask(r, r.Adapter, "first", ""); !errors.Is(err, platform.ErrNoTrace) {
		t.Errorf("before anything was sent: %v", err)
	}
	last, err := r.Send(r.ctx, to("ann@people.test", ""), domain.Part{Text: "before"}, "before")
	if err != nil {
		t.Fatal(err)
	}
	for i, next := range []bool{false, true} {
		nonce := string(rune('a' + i))
		r.srv.Fail("end", fault.CutAfter())
		_, err := r.Send(r.ctx, to("ann@people.test", ""), domain.Part{Text: "once"}, nonce)
		if e := adapter.ErrorOf(t, err); !e.Uncertain {
			t.Fatalf("%+v", e)
		}
		a := r.Adapter
		if next {
			a = r.another()
		}
		if id, err := ask(r, a, nonce, ""); err != nil || id != r.srv.Sent()[i+1].ID {
			t.Errorf("a mail with a copy: %q, %v", id, err)
		}
	}
	if _, err := ask(r, r.Adapter, "never", last); !errors.Is(err, platform.ErrNotTaken) {
		t.Errorf("a mail without a copy: %v", err)
	}
	if _, err := ask(r, r.Adapter, "never", "another@example.test"); !errors.Is(err, platform.ErrNoTrace) {
		t.Errorf("where the mail before it has none either: %v", err)
	}
	if id, err := ask(r, r.Adapter, "before", ""); err != nil || id != last {
		t.Errorf("a mail that this process sent: %q, %v", id, err)
	}

	bare := newRig(t, fake.Options{}, nil)
	if last, err = bare.Send(bare.ctx, to("ann@people.test", ""), domain.Part{Text: "before"}, "before"); err != nil {
		t.Fatal(err)
	}
	next := bare.another()
	if _, err := ask(bare, next, "before", last); !errors.Is(err, platform.ErrNoTrace) {
		t.Errorf("no copies are kept, and nobody answered: %v", err)
	}
	bare.srv.Write(fake.Letter{From: "ann@people.test", Subject: "Re: before", Text: "yes", Root: "root@people.test", Answers: last})
	if id, err := ask(bare, next, "before", last); err != nil || id != last {
		t.Errorf("a mail that was answered: %q, %v", id, err)
	}
	bare.srv.Close()
	if _, err := ask(bare, next, "other", last); adapter.ErrorOf(t, err).Kind != platform.Retry {
		t.Errorf("nobody there: %v", err)
	}
}

// A copy that is late is waited for.
func TestTraceWaitsForCopies(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	for _, nonce := range []string{"before", "late"} {
		if _, err := r.Send(r.ctx, to("ann@people.test", ""), domain.Part{Text: nonce}, nonce); err != nil {
			t.Fatal(err)
		}
	}
	sent := r.srv.Sent()
	r.srv.Copy(sent[0])
	looks := 0
	r.srv.OnSearch(func() {
		if looks++; looks == 4 { // an answer, a copy, the copy of the one before, the copy again
			r.srv.Copy(sent[1])
		}
	})
	if id, err := r.another().Trace(r.ctx, to("ann@people.test", ""), "late", sent[0].ID); err != nil || id != sent[1].ID {
		t.Errorf("%q, %v after %d looks", id, err, looks)
	}
}
