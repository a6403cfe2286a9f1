package email

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"strings"
	"sync/atomic"

	mail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"

	"hermes/internal/domain"
	"hermes/internal/lazyregexp"
	"hermes/internal/platform"
	"hermes/internal/platform/files"
)

// Send sends a mail; its receipt is its Message-ID. A thread of the address is
// answered: its subject and the mail that came last are named.
//
// The Message-ID is the same at every attempt, so that mailboxes which look at it
// keep one; see Trace.
func (a *Adapter) Send(ctx context.Context, to domain.Address, p domain.Part, nonce string) (string, error) {
	if e := a.checkAddress(to); e != nil {
		return "", e
	}
	if strings.TrimSpace(p.Text) == "" && len(p.Attachments) == 0 {
		return "", giveUp("email_empty", "there is nothing in the message that could be mailed")
	}
	id := a.messageID(nonce)
	if receipt, ok := a.sends.get(nonce); ok {
		return receipt, nil
	}
	var th thread
	if to.ThreadID != "" {
		var known bool
		if th, known = a.threads.get(to.ThreadID); !known {
			if th = a.lookUp(ctx, to.ThreadID); th != (thread{}) {
				a.threads.set(to.ThreadID, th)
			}
		}
	}
	m, e := a.compose(to, p, id, th)
	if e != nil {
		return "", e
	}
	if e := a.deliver(ctx, m); e != nil {
		return "", e
	}
	a.sends.set(nonce, id)
	return id, nil
}

func giveUp(code, reason string) *platform.Error {
	return &platform.Error{Kind: platform.GiveUp, Code: code, Reason: reason}
}

// checkAddress refuses what is no address, and our own.
func (a *Adapter) checkAddress(to domain.Address) *platform.Error {
	p, err := netmail.ParseAddress(to.ChatID)
	switch {
	case err != nil || p.Address != to.ChatID || strings.ContainsAny(to.ChatID, "\r\n"):
		return giveUp("email_address", fmt.Sprintf("%q is no e-mail address: write it alone, such as email:ann@example.com", clip(to.ChatID, 80)))
	case a.ours(to.ChatID):
		return giveUp("email_self", to.ChatID+" is the agent's own address: a mail to it would come back as a question")
	}
	if to.ThreadID != "" && (to.ThreadID != plainID(to.ThreadID) || strings.ContainsAny(to.ThreadID, "<>")) {
		return giveUp("email_thread", fmt.Sprintf("%q is no thread of mails: write its first Message-ID without < and >, or leave it out", clip(to.ThreadID, 80)))
	}
	return nil
}

// compose makes the mail.
func (a *Adapter) compose(to domain.Address, p domain.Part, id string, th thread) (*mail.Msg, *platform.Error) {
	m := mail.NewMsg(mail.WithCharset(mail.CharsetUTF8), mail.WithNoDefaultUserAgent())
	if err := errors.Join(m.FromFormat(a.cfg.Name, a.cfg.Address), m.To(to.ChatID)); err != nil {
		return nil, giveUp("email_address", "the mail cannot be addressed: "+err.Error())
	}
	subject, text := titled(p.Text)
	m.SetMessageIDWithValue(id)
	m.SetDateWithValue(a.now())
	// https://www.rfc-editor.org/rfc/rfc3834#section-5
	kind := "auto-generated"
	if to.ThreadID != "" {
		kind = "auto-replied"
		last := th.last
		if last == "" {
			last = to.ThreadID
		}
		refs := "<" + to.ThreadID + ">"
		if last != to.ThreadID {
			refs += " <" + last + ">"
		}
		m.SetGenHeaderPreformatted(mail.HeaderInReplyTo, "<"+last+">")
		m.SetGenHeaderPreformatted(mail.HeaderReferences, refs)
		text = p.Text
		subject = "Re: " + th.subject
		if th.subject == "" {
			subject = "Re: your message"
		}
	}
	m.SetGenHeader("Auto-Submitted", kind)
	m.SetGenHeader("X-Auto-Response-Suppress", "All")
	m.Subject(subject)
	m.SetBodyString(mail.TypeTextPlain, text)
	if page := htmlOf(text); p.Markup && page != "" {
		m.AddAlternativeString(mail.TypeTextHTML, page)
	}
	var size int64
	for _, f := range p.Attachments {
		open, n, e := takes.Open(&f, safeName(f.Name))
		if e != nil {
			return nil, e
		}
		open.Close()
		if size += n; size > maxUpload {
			return nil, giveUp("email_file", fmt.Sprintf("the files have more than %d MB together, which mail servers do not take", maxUpload>>20))
		}
		name := safeName(f.Name)
		if name == "" {
			name = "file"
		}
		m.AttachFile(f.Path, mail.WithFileName(name))
	}
	return m, nil
}

// takes is what most mail servers take of one mail.
var takes = files.Service{Code: "email_file", Most: maxUpload, TooLarge: fmt.Sprintf("mail servers take (%d MB)", maxUpload>>20)}

var bold = lazyregexp.New(`^\*\*([^*\n]{1,150})\*\*\s*(\n|$)`)

// titled finds the subject of a mail that answers none: a first line in bold,
// as `hermes send -s` writes it, else the beginning of the text.
func titled(text string) (subject, rest string) {
	unescape := strings.NewReplacer(`\`, "")
	if m := bold.FindStringSubmatchIndex(text); m != nil {
		rest = strings.TrimSpace(text[m[1]:])
		if rest == "" {
			rest = text
		}
		return unescape.Replace(text[m[2]:m[3]]), rest
	}
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	first = strings.TrimSpace(strings.Trim(first, "#*_`> "))
	if first == "" {
		first = "A message from your agent"
	}
	return clip(unescape.Replace(first), 70), text
}

// htmlOf renders Markdown as a page. Raw HTML in it is left out.
func htmlOf(text string) string {
	var b bytes.Buffer
	if err := goldmark.New(goldmark.WithExtensions(extension.GFM)).Convert([]byte(text), &b); err != nil {
		return ""
	}
	return "<!DOCTYPE html><html><body>\n" + b.String() + "</body></html>\n"
}

// smtpConn is a connection to the SMTP server that is logged in.
type smtpConn struct {
	client *mail.Client
	conn   *smtp.Client
	raw    *sendConn
	stop   func() bool
}

// sendConn notes that something could not be written, so that the server cannot
// have the end of what was.
type sendConn struct {
	net.Conn
	cut atomic.Bool
}

func (c *sendConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil {
		c.cut.Store(true)
	}
	return n, err
}

// end takes leave of the server.
func (s *smtpConn) end() {
	_ = s.client.CloseWithSMTPClient(s.conn)
	s.stop()
}

// dialSMTP connects and logs in.
func (a *Adapter) dialSMTP(ctx context.Context) (*smtpConn, *platform.Error) {
	s := a.cfg.SMTP
	policy := mail.NoTLS // what TLS there is, dial has made
	if s.Security == StartTLS {
		policy = mail.TLSMandatory
	}
	stop, raw := func() bool { return true }, &sendConn{}
	client, err := mail.NewClient(s.Host, mail.WithPort(s.Port), mail.WithTimeout(a.cfg.Timeout), mail.WithTLSPolicy(policy),
		mail.WithTLSConfig(a.tlsFor(s)), mail.WithSMTPAuth(mail.SMTPAuthNoAuth), mail.WithHELO(domainOf(a.cfg.Address)), mail.WithoutNoop(),
		mail.WithDialContextFunc(func(dial context.Context, _, _ string) (net.Conn, error) {
			conn, err := a.dial(dial, s)
			if err != nil {
				return nil, err
			}
			raw.Conn = conn
			stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
			return raw, nil
		}))
	if err != nil {
		return nil, &platform.Error{Kind: platform.GiveUp, Code: "email_smtp", Reason: "the SMTP server's settings do not fit together", Cause: a.scrubError(err)}
	}
	conn, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		stop()
		if code, said, ok := smtpCode(err); ok {
			e := a.refusedMail("a connection", code, said)
			e.Kind = platform.Retry // it says nothing of the mail
			return nil, e
		}
		return nil, a.unreachable("SMTP", err)
	}
	c := &smtpConn{client, conn, raw, stop}
	if a.cfg.NoSMTPAuth {
		return c, nil
	}
	if e := a.logIn(c); e != nil {
		c.end()
		return nil, e
	}
	return c, nil
}

// logIn proves who we are, by PLAIN or LOGIN: the connection is protected, or
// does not leave the machine.
func (a *Adapter) logIn(c *smtpConn) *platform.Error {
	offered, kinds := c.conn.Extension("AUTH")
	kinds = " " + strings.ToUpper(kinds) + " "
	local := a.cfg.SMTP.Security == Plain
	var how smtp.Auth
	switch {
	case strings.Contains(kinds, " PLAIN "):
		how = smtp.PlainAuth("", a.cfg.User, a.cfg.Password.Reveal(), a.cfg.SMTP.Host, local)
	case strings.Contains(kinds, " LOGIN "):
		how = smtp.LoginAuth(a.cfg.User, a.cfg.Password.Reveal(), a.cfg.SMTP.Host, local)
	case !offered:
		return &platform.Error{Kind: platform.Retry, Code: "email_auth", Reason: "the SMTP server " + a.cfg.SMTP.address() + " takes no password there: use port 587 or 465, or set EMAIL_SMTP_AUTH=false where it wants none"}
	default:
		return &platform.Error{Kind: platform.Retry, Code: "email_auth", Reason: "the SMTP server offers only ways to log in that hermes does not have (" + clip(clean(strings.TrimSpace(kinds)), 80) + "); PLAIN or LOGIN is needed: an app password, perhaps"}
	}
	err := c.conn.Auth(how)
	if err == nil {
		return nil
	}
	if code, said, ok := smtpCode(err); ok {
		e := a.refusedMail("the login", code, said)
		if e.Kind == platform.GiveUp {
			e.Kind, e.Code, e.Reason = platform.BadCredentials, "email_login", a.wrongPassword("SMTP", said)
		}
		return e
	}
	return a.unreachable("SMTP", err)
}

// deliver hands a mail to the server.
func (a *Adapter) deliver(ctx context.Context, m *mail.Msg) *platform.Error {
	c, e := a.dialSMTP(ctx)
	if e != nil {
		return e
	}
	defer c.end()
	err := c.client.SendWithSMTPClient(c.conn, m)
	cut := c.raw.cut.Load()
	if err == nil || m.IsDelivered() {
		return nil // what failed afterwards concerns the connection
	}
	var se *mail.SendError
	if !errors.As(err, &se) {
		e := a.unreachable("SMTP", err)
		e.Uncertain = true
		return e
	}
	if se.ErrorCode() == 0 {
		e := a.unreachable("SMTP", err)
		// Where all of it was written, the server may have it, and whether it kept
		// it is not known.
		e.Uncertain = se.Reason == mail.ErrSMTPDataClose && !cut
		return e
	}
	what := "the mail"
	switch se.Reason {
	case mail.ErrSMTPMailFrom:
		what = "mail from " + a.cfg.Address
	case mail.ErrSMTPRcptTo:
		what = "mail to that address"
	}
	return a.refusedMail(what, se.ErrorCode(), err.Error())
}
