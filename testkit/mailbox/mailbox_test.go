package mailbox

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/health"
	"hermes/testkit/email"
	"hermes/testkit/llm"
	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

// The real binary and a real mail server, through what happens to both. The
// cases share one machine and one profile, one after another.
func TestDovecotAndPostfix(t *testing.T) {
	w := setUp(t)
	w.write(letter{subject: "old", text: "from before anybody read this mailbox"})
	w.start()
	for _, c := range []struct {
		name string
		test func(*testing.T, *world)
	}{
		{"Thread", testThread},
		{"Files", testFiles},
		{"MachinesAndLoops", testLoops},
		{"UnknownRecipient", testUnknownRecipient},
		{"Away", testAway},
		{"KilledWhileReading", testKilledWhileReading},
		{"KilledWhileSending", testKilledWhileSending},
		{"KilledWithCopies", testKilledWithCopies},
		{"Renumbered", testRenumbered},
		{"DovecotRestarts", testDovecotRestarts},
		{"PostfixDown", testPostfixDown},
		{"WrongPassword", testWrongPassword},
	} {
		if !t.Run(c.name, func(t *testing.T) { c.test(t, w.in(t)) }) {
			w.show(t)
			break
		}
	}
	w.in(t).stop()
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	if old, err := w.answers(ctx, "before anybody read"); err != nil || len(old) > 0 {
		t.Errorf("mail from before the first connection was answered %d times, %v", len(old), err)
	}
	if strings.Contains(w.gateway.Output(), w.password) {
		t.Error("the password stands in the log")
	}
}

// A question is answered in its thread, and so is the next one.
func testThread(t *testing.T, w *world) {
	root := w.write(letter{subject: "A question", text: "what is the time?"})
	first := w.answered("you said: Subject: A question\n\nwhat is the time?", 1)[0]
	if first.Subject != "Re: A question" || first.InReplyTo != root || strings.Join(first.References, " ") != root || first.Header.Get("Auto-Submitted") != "auto-replied" {
		t.Errorf("%q answers %q of %v", first.Subject, first.InReplyTo, first.References)
	}
	id := w.write(letter{subject: "Re: A question", answers: root, text: "and now?\n\nOn Monday the agent wrote:\n> late"})
	second := w.answered("you said: and now?", 1)[0]
	if second.InReplyTo != id || strings.Join(second.References, " ") != root+" "+id {
		t.Errorf("the second answers %q of %v", second.InReplyTo, second.References)
	}
}

// A file comes in and one goes out.
func testFiles(t *testing.T, w *world) {
	w.write(letter{subject: "files", body: "Content-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: text/html; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n<p>Gr=FC=DFe, send the report</p>\n" +
		"--m\nContent-Type: text/csv; name=numbers.csv\nContent-Disposition: attachment; filename=numbers.csv\nContent-Transfer-Encoding: base64\n\nMSwyLDMK\n--m--\n"})
	m := w.answered("here it is", 1)[0]
	if string(m.Files["report.txt"]) != "the report\n" {
		t.Errorf("the answer has the files %v", m.Files)
	}
	asked := w.brain.Requests()
	if said := asked[len(asked)-1].LastUser(); !strings.Contains(said, "Grüße") || !strings.Contains(said, "numbers.csv") {
		t.Errorf("the model was told %q", said)
	}
}

// What a machine wrote, what came back and what comes from ourselves is never
// answered: a holiday, a bounce of the real server, and a mail that is sent on
// to where it came from. Of the mail that bounced it is known that it never arrived.
func testLoops(t *testing.T, w *world) {
	before := w.brain.Count()
	w.write(letter{subject: "away", text: "on holiday", extra: "Auto-Submitted: auto-replied (vacation)\n"})
	w.write(letter{from: "MAILER-DAEMON@mx.example.test", subject: "Undelivered", text: "no", bounce: true})
	w.write(letter{from: Agent, subject: "it is me", text: "really"})
	w.Write(t, "/home/gone/.forward", "nobody-at-all@people.test\n")
	w.Write(t, "/home/loop/.forward", Agent+"\n")
	for _, to := range []string{"gone", "loop"} {
		if out, err := w.home.Run(t.Context(), "send", "-t", "email:"+to+"@people.test", "news for "+to); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	w.until("five mails not to be answered", func(ctx context.Context) error {
		s, err := w.status(ctx)
		for _, part := range s.Parts {
			if part.Name == "platform.email" && part.Evidence["not_answered"] == "5" {
				return nil
			}
		}
		return fmt.Errorf("%+v %w", s.Parts, err)
	})
	w.until("what came back to be told", func(ctx context.Context) error {
		list, err := w.deliveries(ctx)
		for _, d := range list {
			if d.To.ChatID == "gone@people.test" && d.State == domain.DeliveryDead && strings.Contains(d.Reason, "the mail came back: ") && strings.Contains(d.Reason, "unknown user") {
				return nil
			}
		}
		return fmt.Errorf("%+v %w", list, err)
	})
	w.write(letter{subject: "a person", text: "hello after the machines"})
	w.answered("hello after the machines", 1)
	if n := w.brain.Count() - before; n != 1 {
		t.Errorf("the model was asked %d times", n)
	}
}

// A recipient that the server does not know is told at once, with what it said.
func testUnknownRecipient(t *testing.T, w *world) {
	out, err := w.home.Run(t.Context(), "send", "-t", "email:absent@people.test", "is anybody there?")
	if err == nil || !strings.Contains(out, "550") || !strings.Contains(out, "absent@people.test") {
		t.Errorf("%v: %s", err, out)
	}
	list, err := w.deliveries(t.Context())
	if err != nil || len(list) == 0 || list[0].State != domain.DeliveryDead || !strings.Contains(list[0].Reason, "550") {
		t.Errorf("%+v, %v", list, err)
	}
	if out, err := w.home.Run(t.Context(), "deliveries", "ack"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// What comes while nobody runs is answered once somebody does, over STARTTLS as
// well.
func testAway(_ *testing.T, w *world) {
	w.stop()
	w.write(letter{subject: "later", text: "anybody there?"})
	w.configure(143, 587)
	w.start()
	w.answered("anybody there?", 1)
}

// killedAt lets the gateway die at a mark, which a letter makes it reach, and
// starts it again.
func (w *world) killedAt(mark string, l letter) {
	w.t.Helper()
	w.stop()
	w.launch("HERMES_FAILPOINT=" + mark)
	w.write(l)
	select {
	case <-w.gateway.Done():
	case <-w.t.Context().Done():
		w.t.Fatal("it never died")
	}
	w.start()
}

// Killed between the fetch and the commit, and between the commit and the mark
// as read, it answers once.
func testKilledWhileReading(_ *testing.T, w *world) {
	for _, mark := range []string{failpoint.InboundBeforeCommit, failpoint.InboundCommitted} {
		text := "killed at " + mark
		w.killedAt(mark, letter{subject: "kill", text: text})
		w.answered(text, 1)
	}
}

const repeatMark = "may be a repeat"

// Killed between the server's yes and the receipt, it cannot know: the mail comes
// again with the same Message-ID and says so.
func testKilledWhileSending(t *testing.T, w *world) {
	text := "killed after the server took it"
	w.killedAt(failpoint.DeliverySent, letter{subject: "kill", text: text})
	both := w.answered(text, 2)
	if n := marked(both); n != 1 || both[0].ID != both[1].ID {
		t.Errorf("%d of %d are marked; they are %s and %s", n, len(both), both[0].ID, both[1].ID)
	}
}

// Where the server keeps copies of what is sent, it knows: what was sent does not
// come again, and what was not comes without a word of a repetition.
func testKilledWithCopies(t *testing.T, w *world) {
	w.KeepCopies(true)
	defer w.KeepCopies(false)
	w.write(letter{subject: "copies", text: "the first that is kept"})
	w.answered("the first that is kept", 1)
	for _, mark := range []string{failpoint.DeliverySent, failpoint.DeliveryClaimed} {
		text := "with copies at " + mark
		w.killedAt(mark, letter{subject: "kill", text: text})
		if marked(w.answered(text, 1)) != 0 {
			t.Errorf("%s: the answer is marked as a repetition", mark)
		}
	}
}

// marked counts the mails that say that they may be repetitions.
func marked(list []email.Mail) (n int) {
	for _, m := range list {
		if strings.Contains(m.Text, repeatMark) {
			n++
		}
	}
	return n
}

// A mailbox that is numbered anew is read again, and nothing is answered twice.
func testRenumbered(t *testing.T, w *world) {
	before := w.brain.Count()
	w.Renumber(t)
	w.write(letter{subject: "renumbered", text: "numbered anew"})
	w.answered("numbered anew", 1)
	if n := w.brain.Count() - before; n != 1 {
		t.Errorf("the model was asked %d times", n)
	}
	if !strings.Contains(w.gateway.Output(), "numbered anew;") {
		t.Error("the log does not say that it was")
	}
}

// A server that restarts cuts the wait for news; what comes meanwhile is
// answered.
func testDovecotRestarts(t *testing.T, w *world) {
	w.Root(t, "systemctl stop dovecot")
	w.write(letter{subject: "meanwhile", text: "while the mailbox was closed"})
	if p := w.mailboxIs("unreachable", health.Degraded); p.Code != "email_unreachable" {
		t.Errorf("shown as %+v", p)
	}
	w.Root(t, "systemctl start dovecot")
	w.answered("while the mailbox was closed", 1)
	w.mailboxIs("read", health.OK)
}

// An answer for which there is no server waits, visibly, and comes late, once,
// with no word of a repetition: it never left.
func testPostfixDown(t *testing.T, w *world) {
	gate := llm.NewGate()
	w.gate.Store(gate)
	w.write(letter{subject: "slow", text: "answer me at the gate"})
	<-gate.Arrived()
	w.Root(t, "systemctl stop postfix@-")
	gate.Open()
	w.until("the answer to wait", func(ctx context.Context) error {
		list, err := w.deliveries(ctx)
		if err == nil && (len(list) == 0 || list[0].State != domain.DeliveryRetrying || !strings.Contains(list[0].Reason, "SMTP server 127.0.0.1:587 cannot be reached") || list[0].Uncertain) {
			err = fmt.Errorf("%+v", list[0])
		}
		return err
	})
	w.Root(t, "systemctl start postfix@-")
	if m := w.answered("answer me at the gate", 1)[0]; strings.Contains(m.Text, repeatMark) {
		t.Errorf("it is marked: %s", m.Text)
	}
}

// A password that is refused is said, with what to do; the other platform goes
// on, and once it is right again nothing was lost.
func testWrongPassword(t *testing.T, w *world) {
	w.stop()
	w.Password("another-" + w.password)
	w.launch()
	p := w.mailboxIs("refused", health.Down)
	if p.Code != "email_login" || !strings.Contains(p.Message, "EMAIL_PASSWORD") {
		t.Errorf("shown as %+v", p)
	}
	w.write(letter{subject: "locked out", text: "while the password was wrong"})
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "hello from elsewhere")
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	if _, err := w.tg.WaitFor(ctx, ann.ID, func(m telegram.Message) bool { return m.FromBot && m.Text == "you said: hello from elsewhere" }); err != nil {
		t.Error(err)
	}
	w.stop()
	w.Password(w.password)
	w.start()
	w.answered("while the password was wrong", 1)
}
