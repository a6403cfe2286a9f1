package email_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/email"
	"hermes/testkit/adapter"
	fake "hermes/testkit/email"
)

// hears writes letters and gives what is heard of each, in order.
func hears(t *testing.T, r *rig, letters ...fake.Letter) []domain.Inbound {
	t.Helper()
	before := len(r.sink.Wait(t, r.ctx, 0))
	for i, l := range letters {
		if l.From == "" {
			l.From = "ann@people.test"
		}
		r.srv.Write(l)
		r.sink.Wait(t, r.ctx, before+i+1)
	}
	return r.sink.Wait(t, r.ctx, before+len(letters))[before:]
}

// Text is read in whatever characters it was written, in the body and in the
// subject, and where its label is wrong or missing.
func TestCharsets(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	r.connect()
	for label, c := range map[string]struct {
		text string
		in   encoding.Encoding
	}{
		"iso-2022-jp":    {"こんにちは、元気ですか", japanese.ISO2022JP},
		"Shift_JIS":      {"こんにちは", japanese.ShiftJIS},
		"euc-jp":         {"こんにちは", japanese.EUCJP},
		"gb18030":        {"你好，世界𠀀", simplifiedchinese.GB18030},
		"gb2312":         {"你好", simplifiedchinese.GBK},
		"big5":           {"你好", traditionalchinese.Big5},
		"ks_c_5601-1987": {"안녕하세요", korean.EUCKR},
		"koi8-r":         {"привет", charmap.KOI8R},
		"windows-1251":   {"привет", charmap.Windows1251},
		"windows-1252":   {"“quoted” – 5 €", charmap.Windows1252},
		"iso-8859-15":    {"5 € œuvre", charmap.ISO8859_15},
		"utf8":           {"Grüße 😀", encoding.Nop},
	} {
		raw, err := c.in.NewEncoder().String(c.text)
		if err != nil {
			t.Fatalf("%s: %v", label, err)
		}
		b64 := base64.StdEncoding.EncodeToString([]byte(raw))
		in := hears(t, r, fake.Letter{Subject: "=?" + label + "?B?" + b64 + "?=", Body: "Content-Type: text/plain; charset=\"" + label + "\"\nContent-Transfer-Encoding: base64\n\n" + b64 + "\n"})[0]
		if want := "Subject: " + c.text + "\n\n" + c.text; in.Text != want || in.ChatName != c.text {
			t.Errorf("%s: %q, not %q", label, in.Text, want)
		}
	}
	for _, c := range []struct{ subject, kind, text, want string }{
		{"Gr\xfc\xdfe", "", "sch\xf6n", "Subject: Grüße\n\nschön"},
		{"x", "; charset=utf-8", "sch\xf6n", "Subject: x\n\nschön"},
		{"x", "; charset=us-ascii", "sch\xc3\xb6n", "Subject: x\n\nschön"},
		{"x", "; charset=x-nobody-knows", "sch\xf6n", "Subject: x\n\nschön"},
		{"Grüße", "", "schön", "Subject: Grüße\n\nschön"},
		{"=?utf-8?Q?Gr=C3?= =?utf-8?Q?=BC=C3=9Fe?=", "", "split", "Subject: Grüße\n\nsplit"},
		{"=?utf-8?Q?half =?=", "", "a broken word", "Subject: =?utf-8?Q?half =?=\n\na broken word"},
	} {
		in := hears(t, r, fake.Letter{Subject: c.subject, Body: "Content-Type: text/plain" + c.kind + "\nContent-Transfer-Encoding: 8bit\n\n" + c.text + "\n"})[0]
		if in.Text != c.want {
			t.Errorf("%q: %q, not %q", c.kind, in.Text, c.want)
		}
	}
}

// The forms that mail programs give to one message.
func TestForms(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	r.connect()
	nested := "Content-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: multipart/related; boundary=r\n\n--r\nContent-Type: multipart/alternative; boundary=a\n\n" +
		"--a\nContent-Type: text/plain; charset=utf-8\n\nplain\n--a\nContent-Type: text/html\n\n<p>page</p>\n--a--\n--r\nContent-Type: image/png; name=logo.png\nContent-ID: <logo>\nContent-Disposition: inline; filename=logo.png\n\nxx\n--r--\n" +
		"--m\nContent-Type: application/octet-stream\nContent-Disposition: attachment; filename*0*=utf-8''b%C3%BCro; filename*1=.bin\n\nyy\n--m--\n"
	for _, c := range []struct {
		what, body, want, files string
	}{
		{"nested", nested, "plain", "logo.png büro.bin"},
		{"broken quoted-printable", "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nGr=C3=BC=ZZ 100 =\n% sure= \nend=", "100 % sure", ""},
		{"quoted-printable that is none", "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\na = b and http://x.test/?q=zz&r=1\nthe end", "the end", ""},
		{"a page alone", "Content-Type: text/html\n\n<div>Hello<br>you</div><div>bye</div>", "Hello\nyou\nbye", ""},
		{"an empty plain part", "Content-Type: multipart/alternative; boundary=a\n\n--a\nContent-Type: text/plain\n\n \n--a\nContent-Type: text/html\n\n<p>page</p>\n--a--\n", "page", ""},
		{"flowed", "Content-Type: text/plain; charset=utf-8; format=flowed\n\nThis is one long \nline of text.\n\n > not a quotation\nAnother.\n-- \nAnn", "This is one long line of text.\n\n> not a quotation\nAnother.", ""},
		{"flowed, delsp", "Content-Type: text/plain; charset=utf-8; format=flowed; delsp=yes\n\nこんに \nちは\n", "こんにちは", ""},
		{"flowed quotation", "Content-Type: text/plain; format=flowed\n\nYes.\n\nOn 1.1.2026 Ann wrote:\n> a long \n> question\n", "Yes.", ""},
		{"winmail.dat", "Content-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: text/plain\n\nsee the file\n--m\nContent-Type: application/ms-tnef; name=winmail.dat\nContent-Transfer-Encoding: base64\n\neJ8+\n--m--\n", "see the file", "winmail.dat"},
		{"a named text", "Content-Type: text/plain; name=body.txt\nContent-Disposition: inline\n\nthe whole text", "", "body.txt"},
		{"nothing at all", "Content-Type: text/plain\n\n", "", ""},
		{"no content type", "X-Other: y\n\nsimply text", "simply text", ""},
		{"a broken content type", "Content-Type: text/plain; charset=\"utf-8\n\nstill text", "still text", ""},
		{"a broken disposition", "Content-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: text/plain\n\nsee\n--m\nContent-Type: application/pdf; name=\"a b.pdf\"\nContent-Disposition: attachment; filename=a b.pdf\n\nxx\n--m--\n", "see", "a b.pdf"},
	} {
		in := hears(t, r, fake.Letter{Subject: "Re: x", Body: c.body})[0]
		var files []string
		for _, f := range in.Attachments {
			files = append(files, f.Name)
		}
		if c.want == "" && c.files == "" {
			c.want = "(an empty mail)"
		}
		if !strings.Contains(in.Text, c.want) || c.want == "" && in.Text != "" || strings.Join(files, " ") != c.files {
			t.Errorf("%s: %q with %q", c.what, in.Text, files)
		}
		if strings.HasPrefix(c.what, "flowed") && in.Text != c.want {
			t.Errorf("%s: %q", c.what, in.Text)
		}
	}
	if p := r.part(); p.Evidence["reconnects"] != "0" {
		t.Errorf("the connection was lost %s times", p.Evidence["reconnects"])
	}
}

// Large mails cost what their bounds say, and close the mailbox to nobody.
func TestLargeMail(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	r.connect()
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "Cc: Somebody With A Name <person%d@people.test>\n", i)
	}
	line := strings.Repeat("x", 70) + "\n"
	deep := "Content-Type: multipart/mixed; boundary=b0\n\n"
	for i := range 500 {
		deep += fmt.Sprintf("--b%d\nContent-Type: multipart/mixed; boundary=b%d\n\n", i, i+1)
	}
	for _, c := range []struct {
		what string
		l    fake.Letter
		want string
	}{
		{"ten megabytes of text", fake.Letter{Text: "begin\n" + strings.Repeat(line, 10<<20/len(line))}, "begin"},
		{"one line of ten megabytes", fake.Letter{Text: "begin " + strings.Repeat("x", 10<<20)}, "begin"},
		{"a page of ten megabytes", fake.Letter{Body: "Content-Type: text/html\n\n<p>begin" + strings.Repeat("<b>x</b> ", 10<<20/9)}, "begin"},
		{"a thousand recipients", fake.Letter{Extra: many.String(), Text: "to all"}, "to all"},
		{"a thousand parts", fake.Letter{Body: "Content-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: text/plain\n\nbegin\n" + strings.Repeat("--m\nContent-Type: image/png; name=x.png\n\nx\n", 1000) + "--m--\n"}, "begin"},
		{"five hundred levels", fake.Letter{Body: deep + "--b500\nContent-Type: text/plain\n\nbottom\n"}, ""},
		{"a long header", fake.Letter{Extra: "X-Long: " + strings.Repeat("y", 100<<10) + "\n", Text: "after it"}, "after it"},
	} {
		c.l.Subject = "Re: x"
		in := hears(t, r, c.l)[0]
		if !strings.Contains(in.Text, c.want) || len(in.Text) > 300<<10 || len(in.Attachments) > 10 {
			t.Errorf("%s: %d bytes, %d files: %.80q", c.what, len(in.Text), len(in.Attachments), in.Text)
		}
	}
	if p := r.part(); p.Evidence["reconnects"] != "0" {
		t.Errorf("the connection was lost %s times", p.Evidence["reconnects"])
	}
}

// A mail at which the program panics is left out, and what comes with it and
// after it is heard.
func TestPanicAtAMail(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	var armed atomic.Bool
	a, err := email.New(r.config, email.Deps{Log: r.logs.Logger(), Health: r.health.Part("platform.email"), Now: func() time.Time {
		if armed.CompareAndSwap(true, false) {
			panic("a defect")
		}
		return time.Now()
	}})
	if err != nil {
		t.Fatal(err)
	}
	a.Hasten()
	r.Adapter = a
	stop := r.connect()
	r.srv.Write(ann("one"))
	r.sink.Wait(t, r.ctx, 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.srv.Write(ann("spoiled"))
	r.srv.Write(ann("two"))
	armed.Store(true)
	r.run()
	if in := r.sink.Wait(t, r.ctx, 2)[1]; !strings.Contains(in.Text, "two") {
		t.Errorf("heard %q", in.Text)
	}
	r.srv.Write(ann("three"))
	if in := r.sink.Wait(t, r.ctx, 3)[2]; !strings.Contains(in.Text, "three") || !strings.Contains(r.logs.String(), "a defect") {
		t.Errorf("heard %q", in.Text)
	}
}

// Who wrote a mail is its one address, whatever is written around it, and no
// name passes for another person's address.
func TestSender(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	r.connect()
	for _, c := range []struct{ from, user, name string }{
		{`"ann@people.test" <eve@evil.test>`, "eve@evil.test", ""},
		{`=?utf-8?q?ann=40people.test?= <eve@evil.test>`, "eve@evil.test", ""},
		{`"Ann <ann@people.test>" <eve@evil.test>`, "eve@evil.test", ""},
		{`Ann (ann@people.test) <eve@evil.test>`, "eve@evil.test", "Ann"},
		{"\"Ann\n Other\" <Eve@Evil.Test>", "eve@evil.test", "Ann Other"},
		{`=?utf-8?q?Ann=0D=0ABcc=3A_x?= <eve@evil.test>`, "eve@evil.test", "Ann Bcc: x"},
		{"\"\u202etset.elpoep\" <eve@evil.test>", "eve@evil.test", "tset.elpoep"},
		{"mi\u212Ae@people.test", "mi\u212Ae@people.test", ""}, // KELVIN SIGN, whose small letter is k
		{"eve@evil.test", "eve@evil.test", ""},
		// What programs write that do not know the grammar, and that has one meaning.
		{"Doe, John <john@people.test>", "john@people.test", "Doe, John"},
		{"J\xfcrgen <j@people.test>", "j@people.test", "Jürgen"},
		{"Jürgen <j@people.test>", "j@people.test", "Jürgen"},
		{"Ann [Sales] <ann@people.test>", "ann@people.test", "Ann [Sales]"},
		{"Ann: Sales <ann@people.test>", "ann@people.test", "Ann: Sales"},
		{"\"Ann <ann@people.test>", "ann@people.test", "Ann"},
	} {
		in := hears(t, r, fake.Letter{From: c.from, Subject: "Re: x", Text: "y"})[0]
		if in.UserID != c.user || in.ChatID != c.user || in.UserName != c.name {
			t.Errorf("%q is %q, named %q", c.from, in.UserID, in.UserName)
		}
	}
	for _, from := range []string{"ann@people.test <eve@evil.test>", "<@people.test:eve@evil.test>", "ann@people.test, eve@evil.test", "ann@people.test\x00@evil.test", "<>", "ann",
		"Doe, John <john@people.test> <eve@evil.test>", "Doe, ann@people.test <eve@evil.test>", "Doe, John <eve@evil.test> (ann@people.test)", "Doe, ann\uff20people.test <eve@evil.test>", "a, <>", "a, <ann@people.test,eve@evil.test>"} {
		r.srv.Write(fake.Letter{From: from, Subject: "Re: x", Text: "not to be heard"})
	}
	if in := hears(t, r, fake.Letter{Subject: "Re: x", Text: "the end"})[0]; in.Text != "the end" {
		t.Errorf("heard %q of %q", in.Text, in.UserID)
	}
}

// A line end in what somebody else wrote makes no header of ours.
func TestHeaderInjection(t *testing.T) {
	r := newRig(t, fake.Options{}, func(c *email.Config) { c.Name = "Agent\r\nBcc: eve@evil.test" })
	r.connect()
	in := hears(t, r, fake.Letter{Subject: "=?utf-8?q?x=0D=0ABcc:_eve=40evil.test?=", Text: "y", ID: "a\rBcc:eve@evil.test"})[0]
	thread := in.Address
	for i, c := range []struct {
		to   domain.Address
		text string
	}{
		{thread, "an answer"},
		{to("ann@people.test", ""), "**title\rBcc: eve@evil.test**\n\nand text"},
		{to("ann@people.test", ""), "title\rBcc: eve@evil.test\nand text"},
	} {
		if _, err := r.Send(r.ctx, c.to, domain.Part{Text: c.text}, fmt.Sprint(i)); err != nil {
			t.Errorf("%q: %v", c.text, err)
		}
	}
	for _, m := range r.srv.Sent() {
		if head, _, _ := strings.Cut(string(m.Raw), "\r\n\r\n"); m.Header.Has("Bcc") || strings.Contains(strings.ReplaceAll(head, "\r\n", ""), "\r") {
			t.Errorf("sent:\n%q", head)
		}
	}
	for _, none := range []string{"x>\r\nBcc: <eve@evil.test", "x\nBcc: eve@evil.test", "<x@y>", "a b", "ü"} {
		if _, err := r.Send(r.ctx, to("ann@people.test", none), domain.Part{Text: "x"}, none); adapter.ErrorOf(t, err).Kind != platform.GiveUp {
			t.Errorf("the thread %q: %v", none, err)
		}
	}
	// A line that is only a dot ends no mail.
	if _, err := r.Send(r.ctx, to("ann@people.test", ""), domain.Part{Text: "one\n.\ntwo\n..three"}, "dots"); err != nil {
		t.Fatal(err)
	}
	if m := r.srv.Sent()[3]; !strings.Contains(m.Text, "one\n.\ntwo\n..three") {
		t.Errorf("sent %q", m.Text)
	}
}

// Two mails are two, also where their programs give them no Message-ID, or all
// the same; one that comes twice is one.
func TestIdentity(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	r.connect()
	at := time.Now()
	got := hears(t, r,
		fake.Letter{ID: "-", Subject: "none", Text: "one", At: at},
		fake.Letter{ID: "-", Subject: "none", Text: "two", At: at},
		fake.Letter{ID: "1@localhost", Subject: "same", Text: "one", At: at},
		fake.Letter{ID: "1@localhost", Subject: "same", Text: "two", At: at.Add(time.Hour)},
		fake.Letter{ID: "1@localhost", From: "bob@people.test", Subject: "same", Text: "three", At: at})
	r.srv.Write(fake.Letter{ID: "1@localhost", From: "ann@people.test", Subject: "same", Text: "one", At: at})
	r.srv.Write(fake.Letter{ID: "-", From: "ann@people.test", Subject: "none", Text: "one", At: at})
	end := hears(t, r, fake.Letter{Subject: "Re: x", Text: "the end"})
	if end[0].Text != "the end" || r.sink.Again() != 2 {
		t.Errorf("heard %q, %d known ones", end[0].Text, r.sink.Again())
	}
	seen := map[string]bool{}
	for _, in := range got {
		seen[in.EventID] = true
	}
	if len(seen) != 5 {
		t.Errorf("%d events of five mails", len(seen))
	}
}

// A mail of the future or of the past is one of now.
func TestDates(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	r.connect()
	for _, date := range []string{"Fri, 01 Jan 2100 00:00:00 +0000", "Thu, 01 Jan 1970 00:00:00 +0000", "yesterday", ""} {
		in := hears(t, r, fake.Letter{Subject: "Re: x", Text: "y", Extra: "Date: " + date + "\n"})[0]
		if d := time.Since(in.SentAt); d > time.Hour || d < -time.Hour {
			t.Errorf("%q was sent at %s", date, in.SentAt)
		}
	}
}

// FuzzMail feeds mails: what comes of them can be stored, is bounded, and names
// no file that leads anywhere.
func FuzzMail(f *testing.F) {
	for _, seed := range []string{
		"From: ann@people.test\r\nSubject: =?utf-8?q?x=0A?=\r\nMessage-ID: <a@b>\r\nReferences: <c@d> <e@f>\r\n\r\ntext",
		"From: a@b\nContent-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: text/plain; format=flowed; charset=iso-2022-jp\n\n\x1b$Ba \n--m\nContent-Disposition: attachment; filename=../../x\nContent-Transfer-Encoding: base64\n\nxx\n--m--",
		"From: A, B <a@b>\nContent-Type: multipart/report; boundary=r\n\n--r\nContent-Type: message/delivery-status\n\nX: y\n\nAction: failed\nDiagnostic-Code: smtp; 550 \x00no\n--r\nContent-Type: message/rfc822\n\nTo: a@b\nMessage-ID: <hermes.x@example.test>\n\n--r--",
		"From: a@b\nContent-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n<p>=C3=\n<a href=3D\"http://x\">y",
	} {
		f.Add([]byte(seed))
	}
	a, err := email.New(email.Config{Address: "agent@example.test", Password: "a-password", IMAP: email.Server{Host: "mx.example.test"}, SMTP: email.Server{Host: "mx.example.test"}, MaxText: 1000}, email.Deps{})
	if err != nil {
		f.Fatal(err)
	}
	storable := func(s string) bool {
		return utf8.ValidString(s) && !strings.ContainsRune(s, 0)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		in, ok, back := a.Read(raw)
		if !storable(back) || len(back) > 2000 || strings.Contains(back, "\n") {
			t.Fatalf("came back: %q", back)
		}
		if !ok {
			return
		}
		for _, s := range []string{in.UserID, in.UserName, in.ChatID, in.ThreadID, in.MessageID, in.EventID, in.ChatName} {
			if !storable(s) || len(s) > 2000 || strings.ContainsAny(s, "\r\n") {
				t.Fatalf("%q of %q", s, raw)
			}
		}
		if !storable(in.Text) || len(in.Text) > 20_000 || in.Text == "" && len(in.Attachments) == 0 || strings.Count(in.UserID, "@") < 1 {
			t.Fatalf("%q said %q", in.UserID, in.Text)
		}
		for _, f := range in.Attachments {
			if !storable(f.Name) || f.Name == "" || f.Name[0] == '.' || strings.ContainsAny(f.Name, "/\\\n") || len(f.Name) > 250 {
				t.Fatalf("a file is named %q", f.Name)
			}
		}
	})
}
