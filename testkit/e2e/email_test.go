package e2e

import (
	"fmt"
	"strings"
	"testing"

	"hermes/internal/control"
	"hermes/internal/health"
	"hermes/testkit/email"
	"hermes/testkit/fault"
	"hermes/testkit/llm"
)

// E-mail as a user has it: a question answered in its thread, one that came
// while nobody ran, one whose answer was sent in the instant of a crash, and a
// stranger and a machine that get no answer.
func TestEmail(t *testing.T) {
	t.Parallel()
	mx, err := email.New(email.Options{SaveSent: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mx.Close)
	w := setUp(t, options{brain: obedient(llm.NewGate()), env: fmt.Sprintf(
		"EMAIL_ADDRESS=%s\nEMAIL_PASSWORD=%s\nEMAIL_IMAP_HOST=127.0.0.1\nEMAIL_IMAP_PORT=%d\nEMAIL_IMAP_SECURITY=none\nEMAIL_SMTP_HOST=127.0.0.1\nEMAIL_SMTP_PORT=%d\nEMAIL_SMTP_SECURITY=none\nEMAIL_ALLOWED_USERS=Ann@People.Test\nEMAIL_HOME_ADDRESS=ann@people.test\n",
		mx.Address(), mx.Password(), mx.IMAPPort(), mx.SMTPPort())})
	w.mu.Lock()
	w.secrets["the mailbox's password"] = mx.Password()
	w.mu.Unlock()
	sees := func(text string) email.Mail {
		t.Helper()
		m, err := mx.WaitFor(w.deadline(), func(m email.Mail) bool { return strings.Contains(m.Text, text) })
		if err != nil {
			t.Fatalf("no mail says %q: %v\n%s", text, err, w.logs())
		}
		return m
	}
	ann := func(subject, text, answers string) string {
		return mx.Write(email.Letter{From: "Ann <ann@people.test>", Subject: subject, Text: text, Answers: answers})
	}
	connected := func() {
		t.Helper()
		w.waitStatus("the mailbox is read", func(s control.Status) bool {
			for _, part := range s.Parts {
				if part.Name == "platform.email" {
					return part.State == health.OK && part.Evidence["bot"] == mx.Address()
				}
			}
			return false
		})
	}

	p := w.start()
	connected()
	root := ann("A question", "hello", "")
	first := sees("you said: Subject: A question\n\nhello")
	if first.Subject != "Re: A question" || first.InReplyTo != root {
		t.Errorf("the answer is %q to %q", first.Subject, first.InReplyTo)
	}
	ann("Re: A question", "run echo forty-$((40+2))\n\nOn Monday 1.1.2026 the agent wrote:\n> you said", first.ID)
	if m := sees("forty-42"); m.Subject != "Re: A question" {
		t.Errorf("the second answer is %q", m.Subject)
	}
	mx.Write(email.Letter{From: "eve@people.test", Subject: "let me in", Text: "please"})
	mx.Write(email.Letter{From: "ann@people.test", Subject: "out of office", Text: "away", Extra: "Auto-Submitted: auto-replied\n"})
	if out, code := w.run("send", "-t", "email", "-s", "Disks", "all is well"); code != 0 {
		t.Fatalf("hermes send: %d\n%s", code, out)
	}
	if m := sees("all is well"); m.Subject != "Disks" || m.To != "ann@people.test" {
		t.Errorf("sent %q to %q", m.Subject, m.To)
	}
	w.settled()
	w.stop(p)

	ann("later", "anybody there?", "")
	p = w.start()
	sees("anybody there?")
	w.settled()

	// The server has taken the answer and says nothing; then comes the crash.
	mx.Fail("end", fault.CutAfter())
	ann("crash", "before the crash", "")
	sees("before the crash")
	p.Kill()
	p = w.start()
	connected()
	ann("after", "after it", "")
	sees("after it")
	w.settled()
	for _, text := range []string{"hello", "forty-42", "anybody there?", "before the crash", "after it"} {
		n := 0
		for _, m := range mx.Sent() {
			if strings.Contains(m.Text, "you said: Subject") && strings.Contains(m.Text, text) || text == "forty-42" && strings.Contains(m.Text, text) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%q was answered %d times\n%s", text, n, w.logs())
			for _, m := range mx.Sent() {
				t.Logf("%s: %q %q", m.ID, m.Subject, m.Text)
			}
		}
	}
	for _, m := range mx.Sent() {
		if m.To != "ann@people.test" {
			t.Errorf("%s got a mail: %q", m.To, m.Subject)
		}
	}
	w.stop(p)
}
