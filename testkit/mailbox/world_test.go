package mailbox

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hermes/internal/control"
	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/testkit/email"
	"hermes/testkit/llm"
	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

// patience bounds every wait for evidence; a passing test does not come near it.
const patience = 60 * time.Second

// world is a profile whose mailbox is the agent's on the pair. Its process lives
// in the box's network; its files lie in the test's folder.
type world struct {
	*Pair
	t        *testing.T
	home     *rig.Home
	password string
	tg       *telegram.Server
	brain    *llm.Server
	gate     atomic.Pointer[llm.Gate]
	report   string // a file that the model sends
	gateway  *rig.Process
	letters  int
}

func setUp(t *testing.T) *world {
	t.Helper()
	if why := Missing(); why != "" {
		t.Skip(why)
	}
	ctx, cancel := rig.Deadline(5 * time.Minute)
	defer cancel()
	dir := t.TempDir()
	binary, err := rig.Build(ctx, dir, "failpoint")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, password: "mail-" + rand.Text(), report: filepath.Join(dir, "report.txt")}
	if err := os.WriteFile(w.report, []byte("the report\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Pair = Start(t, w.password, "ann", "eve", "gone", "loop")
	err = w.Inside(func() (err error) {
		if w.tg, err = telegram.New(telegram.Options{}); err == nil {
			w.brain, err = llm.Start(w.think)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.tg.Close)
	t.Cleanup(w.brain.Close)
	config := fmt.Sprintf("model:\n  default: fake\n  provider: custom\n  base_url: %s\n  api_key: a-key-of-the-tests-model\nstreaming:\n  enabled: false\nsession_reset:\n  mode: none\n", w.brain.URL())
	if w.home, err = rig.NewHome(filepath.Join(dir, ".hermes"), binary, config, ""); err != nil {
		t.Fatal(err)
	}
	w.home.Env = []string{"SSL_CERT_FILE=" + w.Authority}
	w.configure(993, 465)
	t.Cleanup(func() {
		if w.gateway != nil {
			w.gateway.Kill()
		}
	})
	return w
}

// configure writes the profile's .env.
func (w *world) configure(imapPort, smtpPort int, more ...string) {
	w.t.Helper()
	env := fmt.Sprintf("EMAIL_ADDRESS=%s\nEMAIL_USERNAME=%s\nEMAIL_PASSWORD=%s\nEMAIL_IMAP_HOST=%s\nEMAIL_IMAP_PORT=%d\nEMAIL_SMTP_HOST=%s\nEMAIL_SMTP_PORT=%d\nEMAIL_ALLOWED_USERS=ann@people.test,agent@example.test,mailer-daemon@mx.example.test\nEMAIL_HOME_ADDRESS=ann@people.test\nTELEGRAM_BOT_TOKEN=%s\nTELEGRAM_BASE_URL=%s\nTELEGRAM_ALLOW_ALL_USERS=true\nHERMES_LOG_LEVEL=info\n",
		Agent, Account, w.password, Host, imapPort, Host, smtpPort, w.tg.Token(), w.tg.URL()) + strings.Join(more, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(w.home.Dir, ".env"), []byte(env), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// think is the model: it repeats what it is told, sends its report when it is
// asked for it, and waits at the gate when it is told to.
func (w *world) think(r llm.Request) llm.Reply {
	said := r.LastUser()
	reply := llm.Reply{Text: "you said: " + said}
	if strings.Contains(said, "send the report") {
		reply.Text = "here it is\n\nMEDIA:" + w.report
	}
	if strings.Contains(said, "at the gate") {
		reply.Before = w.gate.Load().Pass
	}
	return reply
}

// start starts the gateway as if it had not just died (see testkit/torture), and
// waits until it reads the mailbox.
func (w *world) start(env ...string) {
	w.t.Helper()
	w.launch(env...)
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	if err := w.gateway.Ready(ctx); err != nil {
		w.t.Fatal(err)
	}
	w.mailboxIs("read", health.OK)
}

func (w *world) launch(env ...string) {
	w.t.Helper()
	if err := os.Remove(filepath.Join(w.home.Dir, "gateway-starts.json")); err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	err := w.Inside(func() (err error) {
		w.gateway, err = w.home.Start(env...)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// stop ends the gateway as an operator does.
func (w *world) stop() {
	w.t.Helper()
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	if code, err := w.gateway.Stop(ctx); err != nil || code != 0 {
		w.t.Fatalf("exit %d, %v\n%s", code, err, w.gateway.Output())
	}
}

// until waits for evidence.
func (w *world) until(what string, try func(context.Context) error) {
	w.t.Helper()
	w.Until(w.t, patience, what, func(ctx context.Context) error {
		err := try(ctx)
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("%w\n%s", err, w.gateway.Output())
		}
		return err
	})
}

// status is what `hermes gateway status` says.
func (w *world) status(ctx context.Context) (s control.Status, err error) {
	out, _ := w.home.Command(ctx, "gateway", "status", "--json").Output() // its exit code says how it goes
	if err := json.Unmarshal(out, &s); err != nil {
		return s, fmt.Errorf("%w: %s", err, out)
	}
	return s, nil
}

// mailboxIs waits until the mailbox is in a state, and gives what is shown of it.
func (w *world) mailboxIs(what string, want health.State) (found health.Part) {
	w.t.Helper()
	w.until("the mailbox to be "+what, func(ctx context.Context) error {
		s, err := w.status(ctx)
		for _, part := range s.Parts {
			if part.Name == "platform.email" {
				found = part
				if part.State == want && (want != health.OK || part.Evidence["bot"] == Agent) {
					return nil
				}
			}
		}
		return fmt.Errorf("it is %+v %w", found, err)
	})
	return found
}

// settled waits until nothing is under way, so that doubles would be seen.
func (w *world) settled() {
	w.t.Helper()
	w.until("nothing to be under way", func(ctx context.Context) error {
		s, err := w.status(ctx)
		d := s.Ledger.Delivery
		if err == nil && (s.PID == 0 || s.Work.Running > 0 || s.Ledger.Inbound["received"] > 0 || d["pending"]+d["sending"]+d["retrying"] > 0) {
			err = fmt.Errorf("%+v %+v", s.Work, s.Ledger)
		}
		return err
	})
	w.until("postfix to have delivered all", func(ctx context.Context) error {
		out, err := w.Try(ctx, "postqueue -j")
		if err == nil && out != "" {
			err = errors.New(out)
		}
		return err
	})
}

// letter is a mail to the agent.
type letter struct {
	from, subject, text string
	id, answers         string // Message-IDs, plain; "" for an id that is made up
	extra               string // header lines
	envelope            string // its sender; "" means from
	bounce              bool   // its sender is empty
	body                string // in place of text: from Content-Type on
}

// write delivers a mail and gives its Message-ID.
func (w *world) write(l letter) string {
	w.t.Helper()
	w.letters++
	if l.from == "" {
		l.from = "Ann <ann@people.test>"
	}
	if l.id == "" {
		l.id = fmt.Sprintf("letter%d@people.test", w.letters)
	}
	if l.envelope == "" && !l.bounce {
		l.envelope = "someone@people.test"
	}
	text := fmt.Sprintf("%sFrom: %s\nTo: %s\nSubject: %s\nDate: %s\nMessage-ID: <%s>\n", l.extra, l.from, Agent, l.subject, time.Now().Format(time.RFC1123Z), l.id)
	if l.answers != "" {
		text += fmt.Sprintf("In-Reply-To: <%s>\nReferences: <%s>\n", l.answers, l.answers)
	}
	text += "MIME-Version: 1.0\n"
	if l.body != "" {
		text += l.body
	} else {
		text += "Content-Type: text/plain; charset=utf-8\n\n" + l.text + "\n"
	}
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	if err := w.Deliver(ctx, l.envelope, []byte(strings.ReplaceAll(text, "\n", "\r\n"))); err != nil {
		w.t.Fatalf("the letter %q: %v", l.subject, err)
	}
	return l.id
}

// answers are the mails of Ann that say something.
func (w *world) answers(ctx context.Context, text string) (found []email.Mail, err error) {
	all, err := w.Mails(ctx, "ann")
	for _, m := range all {
		if strings.Contains(m.Text, text) {
			found = append(found, m)
		}
	}
	return found, err
}

// answered waits for n mails of Ann that say something, and holds that there are
// no more once nothing is under way.
func (w *world) answered(text string, n int) []email.Mail {
	w.t.Helper()
	var found []email.Mail
	look := func(ctx context.Context) (err error) {
		if found, err = w.answers(ctx, text); err == nil && len(found) < n {
			err = fmt.Errorf("only %d mails", len(found))
		}
		return err
	}
	w.until(fmt.Sprintf("Ann to read %q", text), look)
	w.settled()
	w.until("Ann to look again", look)
	if len(found) != n {
		w.t.Errorf("Ann read %q %d times, not %d", text, len(found), n)
		for _, m := range found {
			w.t.Logf("%s", m.Raw)
		}
	}
	return found
}

// deliveries lists what was sent, newest first.
func (w *world) deliveries(ctx context.Context) (list []domain.Delivery, err error) {
	out, err := w.home.Command(ctx, "deliveries", "--json").Output()
	if err == nil {
		err = json.Unmarshal(out, &list)
	}
	return list, err
}

// show tells what both sides said.
func (w *world) show(t *testing.T) {
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	out, _ := w.Try(ctx, "journalctl --no-pager -o short-precise -n 60 -u dovecot -u 'postfix*'; ls -lR --full-time /home/agent/Maildir/new /home/agent/Maildir/cur | tail -30; postqueue -p")
	t.Logf("the gateway:\n%s\nthe servers:\n%s", w.gateway.Output(), out)
}

// in is the world for one case.
func (w *world) in(t *testing.T) *world {
	w.t = t
	return w
}
