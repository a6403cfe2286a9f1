package people

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"hermes/testkit/email"
	"hermes/testkit/fault"
)

func newEmail(o Options) (*Platform, error) {
	srv, err := email.New(email.Options{SaveSent: true})
	if err != nil {
		return nil, err
	}
	p := &Platform{OwnLife: true, secret: srv.Password(), closing: []func(){srv.Close}}
	imap, err := p.through(o, "127.0.0.1:"+strconv.Itoa(srv.IMAPPort()))
	if err != nil {
		return p.build(err)
	}
	smtp, err := p.through(o, "127.0.0.1:"+strconv.Itoa(srv.SMTPPort()))
	p.Env = fmt.Sprintf("EMAIL_ADDRESS=%s\nEMAIL_PASSWORD=%s\nEMAIL_IMAP_HOST=127.0.0.1\nEMAIL_IMAP_PORT=%s\nEMAIL_IMAP_SECURITY=none\nEMAIL_SMTP_HOST=127.0.0.1\nEMAIL_SMTP_PORT=%s\nEMAIL_SMTP_SECURITY=none\nEMAIL_ALLOW_ALL_USERS=true\n",
		srv.Address(), srv.Password(), portOf(imap), portOf(smtp))
	p.Revoke = func() {
		srv.Fail("login", fault.Fault{Times: -1, Code: "AUTHENTICATIONFAILED", Message: "Invalid credentials"})
		srv.Fail("auth", fault.Fault{Times: -1, Status: 535, Message: "Authentication failed"})
		srv.Drop()
	}
	p.points = []string{SendBefore, SendAfter}
	p.watch = func(f func(string)) {
		if f == nil {
			srv.Watch(nil)
			return
		}
		srv.Watch(func(taken bool) {
			if taken {
				f(SendAfter)
				return
			}
			f(SendBefore)
		})
	}
	var names counter
	p.Join = func() Person { return &writer{srv: srv, address: names.next() + "@people.test"} }
	return p.build(err)
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// writer is somebody who writes mails.
type writer struct {
	srv     *email.Server
	address string
}

func (w *writer) Say(_ context.Context, text string) error {
	w.srv.Write(email.Letter{From: w.address, Subject: "a question", Text: text})
	return nil
}

func (w *writer) mine(m email.Mail) bool { return strings.EqualFold(m.To, w.address) }

func (w *writer) Heard() (out []string) {
	for _, m := range w.srv.Sent() {
		if w.mine(m) {
			out = append(out, m.Text)
		}
	}
	return out
}

func (w *writer) WaitFor(ctx context.Context, ok func(string) bool) error {
	_, err := w.srv.WaitFor(ctx, func(m email.Mail) bool { return w.mine(m) && ok(m.Text) })
	return err
}
