package email_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/email"
	"hermes/testkit/adapter"
	fake "hermes/testkit/email"
	"hermes/testkit/fault"
)

// Mail comes by push and by asking, over every kind of connection, with who
// wrote it and where it belongs.
func TestReceive(t *testing.T) {
	for _, o := range []fake.Options{{}, {NoIdle: true}, {Security: "tls"}, {Security: "starttls"}} {
		t.Run(o.Security+map[bool]string{true: "poll", false: "push"}[o.NoIdle], func(t *testing.T) {
			r := newRig(t, o, nil)
			r.srv.Write(ann("this was there before anybody asked"))
			stop := r.connect()
			first := r.srv.Write(ann("what is the time?"))
			in := r.sink.Wait(t, r.ctx, 1)[0]
			want := domain.Source{
				Address: domain.Address{Platform: "email", ChatID: "ann@people.test", ThreadID: first}, Account: r.srv.Address(), ChatType: domain.ChatDM,
				ChatName: "A question", UserID: "ann@people.test", UserName: "Ann", MessageID: first,
			}
			if in.Source != want || !strings.HasPrefix(in.EventID, first) || in.Text != "Subject: A question\n\nwhat is the time?" {
				t.Errorf("got %+v\n%q", in.Source, in.Text)
			}
			r.srv.Write(fake.Letter{From: "ann@people.test", Subject: "Re: A question", Answers: "hermes.x@example.test", Root: first, Text: "and now?\n\nOn Monday the agent wrote:\n> late\n"})
			in = r.sink.Wait(t, r.ctx, 2)[1]
			if in.ThreadID != first || in.Text != "and now?" {
				t.Errorf("the answer is in the thread %q and says %q", in.ThreadID, in.Text)
			}
			if p := r.part(); p.State != health.OK || p.Evidence["bot"] != r.srv.Address() {
				t.Errorf("shown as %+v", p)
			}
			if err := stop(); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

// What comes while nobody reads is read once, when somebody does; what could
// not be stored is read again.
func TestCatchUp(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	stop := r.connect()
	r.srv.Write(ann("one"))
	r.sink.Wait(t, r.ctx, 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for range 45 { // more than are read at once
		r.srv.Write(ann("while away"))
	}
	r.sink.SetAccept(func([]domain.Inbound) error { return domain.E(domain.StorageFull, nil, "the disk is full") })
	r.Adapter = r.another()
	r.run()
	r.logs.Wait(t, r.ctx, "could not be stored", 3)
	r.sink.SetAccept(nil)
	r.sink.Wait(t, r.ctx, 46)
	r.srv.Write(ann("last"))
	got := r.sink.Wait(t, r.ctx, 47)
	if got[46].Text != "Subject: A question\n\nlast" || r.sink.Again() != 0 {
		t.Errorf("%q, %d repeats", got[46].Text, r.sink.Again())
	}
}

// A mailbox that is numbered anew is read again, and nothing is answered twice:
// neither what was answered, nor what was there before the first connection.
func TestRenumbered(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	old := fake.Letter{From: "ann@people.test", Subject: "old", Text: "old", ID: "old@people.test", At: time.Now().Add(-time.Hour)}
	r.srv.Write(old)
	// One that came in the minute before counts by the server's clock, not by ours.
	before := []fake.Letter{old}
	for i := range 45 { // more than are read at once
		before = append(before, fake.Letter{From: "ann@people.test", Subject: "recent", Text: "recent", ID: fmt.Sprintf("recent%d@people.test", i), At: time.Now().Add(-2 * time.Second)})
		r.srv.Write(before[i+1])
	}
	stop := r.connect()
	known := fake.Letter{From: "ann@people.test", Subject: "known", Text: "known", ID: "known@people.test"}
	r.srv.Write(known)
	r.sink.Wait(t, r.ctx, 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	missed := fake.Letter{From: "ann@people.test", Subject: "missed", Text: "missed", ID: "missed@people.test"}
	r.srv.Renumber(func() {
		for _, l := range append(before, known, missed) {
			r.srv.Write(l)
		}
	})
	r.Adapter = r.another()
	r.connect()
	r.sink.Wait(t, r.ctx, 2)
	r.srv.Write(ann("after"))
	got := r.sink.Wait(t, r.ctx, 3)
	if got[1].MessageID != "missed@people.test" || len(got) != 3 || !strings.Contains(got[2].Text, "after") {
		t.Errorf("got %q, %q and %q", got[0].EventID, got[1].EventID, got[2].EventID)
	}
}

// A connection that is cut, or dead without having ended, is made anew, and what
// came meanwhile is read.
func TestConnectionsDie(t *testing.T) {
	r := newRig(t, fake.Options{}, func(c *email.Config) { c.IdleEvery, c.Timeout = 150*time.Millisecond, 300*time.Millisecond })
	r.connect()
	r.srv.Drop()
	r.logs.Wait(t, r.ctx, "connected to the mailbox", 2)
	r.srv.Silence()
	r.srv.Write(ann("into a dead line"))
	if in := r.sink.Wait(t, r.ctx, 1)[0]; !strings.Contains(in.Text, "dead line") {
		t.Errorf("%q", in.Text)
	}
	if !strings.Contains(r.logs.String(), "email_timeout") {
		t.Error("the dead connection is not told")
	}
	r.logs.Wait(t, r.ctx, "connected to the mailbox", 3)
}

// A refused password ends the platform and is told with where it stands; a
// server that is only busy is asked again.
func TestLoginRefused(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	refuse := func(r *rig, code, text string) (forgive func()) {
		return r.srv.Fail("login", fault.Fault{Times: -1, Code: code, Message: text})
	}
	quiet := refuse(r, "UNAVAILABLE", "Temporary authentication failure")
	r.run()
	r.logs.Wait(t, r.ctx, "email_busy", 2)
	open := refuse(r, "", "Too many simultaneous connections")
	quiet()
	r.logs.Wait(t, r.ctx, "simultaneous", 1)
	open()
	r.logs.Wait(t, r.ctx, "connected to the mailbox", 1)

	for code, text := range map[string]string{"AUTHENTICATIONFAILED": "Invalid credentials (Failure)", "": "LOGIN failed."} {
		r := newRig(t, fake.Options{}, nil)
		refuse(r, code, text)
		e := adapter.ErrorOf(t, r.Run(r.ctx, r.sink))
		if e.Kind != platform.BadCredentials || !strings.Contains(e.Reason, ".env line 3 (EMAIL_PASSWORD)") || !strings.Contains(e.Reason, "app password") {
			t.Errorf("%+v", e)
		}
		if p := r.part(); p.State != health.Down {
			t.Errorf("shown as %+v", p)
		}
	}
}

// What a machine wrote is never answered, nor what comes from ourselves.
func TestNeverAnswered(t *testing.T) {
	r := newRig(t, fake.Options{}, func(c *email.Config) { c.Aliases = []string{"bot@example.test"} })
	r.connect()
	for what, l := range map[string]fake.Letter{
		"Auto-Submitted":   {Extra: "Auto-Submitted: auto-replied (vacation)\n"},
		"Precedence":       {Extra: "Precedence: Bulk\n"},
		"List-Id":          {Extra: "List-Id: <users.list.test>\n"},
		"Suppress":         {Extra: "X-Auto-Response-Suppress: DR, OOF, AutoReply\n"},
		"report":           {Body: "Content-Type: multipart/report; report-type=delivery-status; boundary=x\n\n--x\nContent-Type: text/plain\n\nno\n--x--\n"},
		"null sender":      {Extra: "Return-Path: <>\n"},
		"mailer daemon":    {From: "Mail Delivery <MAILER-DAEMON@mx.test>"},
		"no-reply":         {From: "no-reply@shop.test"},
		"ourselves":        {From: "Agent <AGENT@example.test>"},
		"our alias":        {From: "bot@example.test"},
		"our id":           {ID: "hermes.00112233445566778899aabbccddeeff@example.test"},
		"two senders":      {From: "ann@people.test, eve@people.test"},
		"two From headers": {Extra: "From: eve@people.test\n"},
		"no sender":        {From: "undisclosed:;"},
	} {
		if l.From == "" {
			l.From = "ann@people.test"
		}
		l.Subject, l.Text = what, what
		r.srv.Write(l)
	}
	r.srv.Write(fake.Letter{From: "ann@people.test", Extra: "Auto-Submitted: no\n", Subject: "a person", Text: "hello"})
	got := r.sink.Wait(t, r.ctx, 1)
	if len(got) != 1 || got[0].ChatName != "a person" {
		t.Errorf("%d events; the first is %q", len(got), got[0].ChatName)
	}
	if n := r.part().Evidence["not_answered"]; n != "14" {
		t.Errorf("%s mails are said not to be answered", n)
	}
}

// Two machines that hide what they are do not keep each other busy.
func TestFloodOfOneSender(t *testing.T) {
	r := newRig(t, fake.Options{}, func(c *email.Config) { c.PerSender, c.SenderEvery = 3, time.Hour })
	r.connect()
	for range 10 {
		r.srv.Write(fake.Letter{From: "loop@machines.test", Subject: "Re: x", Text: "and again"})
	}
	r.srv.Write(ann("a person"))
	if got := r.sink.Wait(t, r.ctx, 4); len(got) != 4 || got[3].UserID != "ann@people.test" {
		t.Errorf("%d events", len(got))
	}
}

// With require_dmarc only mail counts of which our own provider's server says
// that it is from whom it says it is.
func TestRequireDMARC(t *testing.T) {
	r := newRig(t, fake.Options{}, func(c *email.Config) { c.RequireDMARC, c.AuthServer = true, "mx.example.test" })
	r.connect()
	for i, header := range []string{
		"",
		"Authentication-Results: mx.example.test; spf=pass; dmarc=fail header.from=people.test\nAuthentication-Results: mx.example.test; dmarc=pass header.from=people.test\n",
		"Authentication-Results: evil.test; dmarc=pass header.from=people.test\n",
		"Authentication-Results: mx.example.test; dmarc=pass header.from=evil.test\n",
		"Authentication-Results: mx.example.test; spf=pass (dmarc=pass) smtp.mailfrom=people.test\n",
		"Authentication-Results: mx.example.test;\n dkim=pass header.d=people.test;\n dmarc=pass (p=REJECT sp=REJECT) header.from=people.test\nAuthentication-Results: evil.test; dmarc=fail\n",
	} {
		l := ann("mail")
		l.Subject, l.Extra = string(rune('a'+i)), header
		r.srv.Write(l)
	}
	if got := r.sink.Wait(t, r.ctx, 1); len(got) != 1 || got[0].ChatName != "f" {
		t.Errorf("heard %d; the first is %q", len(got), got[0].ChatName)
	}
}

// Where our own provider's server is named, mail of which it says that it is
// forged is not heard, and other mail is.
func TestRefusesForged(t *testing.T) {
	r := newRig(t, fake.Options{}, func(c *email.Config) { c.AuthServer = "mx.example.test" })
	r.connect()
	for i, header := range []string{
		"Authentication-Results: mx.example.test; dmarc=fail (p=none) header.from=people.test\nAuthentication-Results: mx.example.test; dmarc=pass header.from=people.test\n",
		"Authentication-Results: evil.test; dmarc=fail header.from=people.test\n",
		"Authentication-Results: mx.example.test; dmarc=none header.from=people.test\n",
		"",
	} {
		l := ann("mail")
		l.Subject, l.Extra = string(rune('a'+i)), header
		r.srv.Write(l)
	}
	if got := r.sink.Wait(t, r.ctx, 3); len(got) != 3 || got[0].ChatName != "b" || got[2].ChatName != "d" {
		t.Errorf("heard %d; the first is %q", len(got), got[0].ChatName)
	}
	if said := r.part().Evidence["senders"]; !strings.Contains(said, "unless mx.example.test") {
		t.Errorf("senders are believed %s", said)
	}
}

// Attachments come as references with safe names, and are fetched decoded and
// bounded.
func TestAttachments(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	r.connect()
	body := "Content-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: multipart/alternative; boundary=a\n\n--a\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nGr=FC=DFe\n--a\nContent-Type: text/html; charset=utf-8\n\n<p>page</p>\n--a--\n" +
		"--m\nContent-Type: application/pdf; name=x.pdf\nContent-Disposition: attachment; filename=\"../../etc/pass\u202efdp.sh\"\nContent-Transfer-Encoding: base64\n\naGVsbG8gZmls\nZQ==\n" +
		"--m\nContent-Type: image/png\nContent-ID: <logo>\n\nxx\n--m\nContent-Type: image/jpeg; name=\"=?utf-8?q?b=C3=BCro.jpg?=\"\nContent-Disposition: inline\nContent-Transfer-Encoding: base64\n\n/9j/\n--m--\n"
	r.srv.Write(fake.Letter{From: "ann@people.test", Subject: "files", Body: body})
	in := r.sink.Wait(t, r.ctx, 1)[0]
	if in.Text != "Subject: files\n\nGrüße" {
		t.Errorf("text %q", in.Text)
	}
	if len(in.Attachments) != 2 {
		t.Fatalf("%d attachments: %+v", len(in.Attachments), in.Attachments)
	}
	pdf, jpg := in.Attachments[0], in.Attachments[1]
	if pdf.Name != "passfdp.sh" || pdf.Kind != domain.Document || jpg.Name != "büro.jpg" || jpg.Kind != domain.Image {
		t.Errorf("%+v, %+v", pdf, jpg)
	}
	var b strings.Builder
	got, err := r.Fetch(r.ctx, pdf, 1000, &b)
	if err != nil || b.String() != "hello file" || got.Size != 10 {
		t.Errorf("fetched %q, %+v, %v", b.String(), got, err)
	}
	for ref, most := range map[string]int64{pdf.Ref: 5, "9/1/2/base64": 1000, "x": 1000, "1/99/2/base64": 1000} {
		a := domain.Attachment{Ref: ref}
		if _, err := r.Fetch(r.ctx, a, most, &strings.Builder{}); adapter.ErrorOf(t, err).Kind != platform.GiveUp {
			t.Errorf("%s: %v", ref, err)
		}
	}
	broken := r.another()
	r.srv.Close()
	if _, err := broken.Fetch(r.ctx, pdf, 1000, &strings.Builder{}); adapter.ErrorOf(t, err).Kind != platform.Retry {
		t.Errorf("%v", err)
	}
}

// What is wrong with the configuration is said all at once, and no password
// leaves the machine unprotected.
func TestConfig(t *testing.T) {
	_, err := email.New(email.Config{
		Address: "Agent <agent@example.test>", IMAP: email.Server{Host: "mail.example.test", Security: "none"}, SMTP: email.Server{Host: "x y", Security: "ssl"}, RequireDMARC: true,
	}, email.Deps{})
	for _, want := range []string{"EMAIL_ADDRESS", "EMAIL_PASSWORD", "EMAIL_IMAP_SECURITY=none", "EMAIL_SMTP_HOST", "EMAIL_SMTP_SECURITY", "EMAIL_AUTHSERV_ID"} {
		if !domain.IsCode(err, domain.Config) || !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %s: %v", want, err)
		}
	}
}

// Nobody answers, nobody is there, another certificate, another protocol: each
// is told apart.
func TestUnreachable(t *testing.T) {
	r := newRig(t, fake.Options{Security: "tls"}, nil)
	check := func(what, code string, change func(*email.Config)) {
		t.Helper()
		c := r.config
		change(&c)
		a, err := email.New(c, email.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		if e := adapter.ErrorOf(t, a.Check(r.ctx)); e.Code != code || e.Kind != platform.Retry || e.Uncertain {
			t.Errorf("%s: %+v (%v)", what, e, e.Cause)
		}
	}
	check("an unknown authority", "email_certificate", func(*email.Config) {})
	check("no such name", "email_host", func(c *email.Config) { c.IMAP.Host = "no-such-host.invalid" })
	plain := newRig(t, fake.Options{}, nil)
	check("no TLS there", "email_tls", func(c *email.Config) { c.IMAP.Port = plain.srv.IMAPPort() })
	check("nobody there", "email_unreachable", func(c *email.Config) { c.IMAP.Port = 1 })
	if err := r.Check(r.ctx); err != nil {
		t.Errorf("a good configuration: %v", err)
	}
	r.srv.Fail("auth", fault.Fault{Times: -1, Status: 535, Message: "5.7.8 no"})
	if e := adapter.ErrorOf(t, r.Check(r.ctx)); e.Kind != platform.BadCredentials {
		t.Errorf("%+v", e)
	}
}

// Mail that is broken is read as far as it can be, and closes the mailbox to
// nobody.
func TestOddMail(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	r.connect()
	for i, l := range []fake.Letter{
		{Subject: "cut", Body: "Content-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: text/plain\n\nhalf"},
		{Subject: "no boundary", Body: "Content-Type: multipart/mixed\n\nall of it"},
		{Subject: "unknown", Body: "Content-Type: text/plain; charset=x-nobody-knows\nContent-Transfer-Encoding: x-strange\n\nas it is"},
		{Subject: "base64", Body: "Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\nbm90IGFsbA==!!!"},
		{Subject: "=?x-nobody-knows?q?=E4?=", Text: "odd subject"},
		{Subject: "nothing", Text: " "},
		{Subject: "forwarded", Body: "Content-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: text/html\n\n<p>see\n--m\nContent-Type: message/rfc822\n\nFrom: x@y.test\nSubject: inner\n\ninner\n--m--\n"},
	} {
		l.From = "ann@people.test"
		r.srv.Write(l)
		in := r.sink.Wait(t, r.ctx, i+1)[i]
		for _, want := range []string{"half", "all of it", "as it is", "not all", "odd subject", "nothing", "see"}[i : i+1] {
			if !strings.Contains(in.Text, want) {
				t.Errorf("%s: %q", l.Subject, in.Text)
			}
		}
		if l.Subject == "forwarded" && (len(in.Attachments) != 1 || in.Attachments[0].Name != "file.eml") {
			t.Errorf("%+v", in.Attachments)
		}
	}
	if !strings.Contains(r.part().Evidence["reconnects"], "0") {
		t.Errorf("the connection was lost %s times", r.part().Evidence["reconnects"])
	}
}
