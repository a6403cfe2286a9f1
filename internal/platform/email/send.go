package email

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
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
// keep one. A mail that may have been sent is looked for in the mailbox of sent
// mail, where the provider keeps one.
func (a *Adapter) Send(ctx context.Context, to domain.Address, p domain.Part, nonce string) (string, error) {
	if e := a.checkAddress(to); e != nil {
		return "", e
	}
	if strings.TrimSpace(p.Text) == "" && len(p.Attachments) == 0 {
		return "", giveUp("email_empty", "there is nothing in the message that could be mailed")
	}
	id := a.messageID(nonce)
	receipt, look := a.sends.begin(to.String(), nonce)
	if receipt != "" {
		return receipt, nil
	}
	var th thread
	known := true
	if to.ThreadID != "" {
		th, known = a.threads.get(to.ThreadID)
	}
	if look || !known {
		found, sent := a.lookUp(ctx, to.ThreadID, id, look)
		if sent {
			a.log.Info("a mail that may have been sent has been sent", "message_id", id)
			a.sends.done(to.String(), nonce, id)
			return id, nil
		}
		if !known && found != (thread{}) {
			th = found
			a.threads.set(to.ThreadID, th)
		}
	}
	m, e := a.compose(to, p, id, th)
	if e != nil {
		return "", e
	}
	if e := a.deliver(ctx, m); e != nil {
		if e.Uncertain {
			a.sends.unknown(nonce)
		}
		return "", e
	}
	a.sends.done(to.String(), nonce, id)
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
	return nil
}

// compose makes the mail.
func (a *Adapter) compose(to domain.Address, p domain.Part, id string, th thread) (*mail.Msg, *platform.Error) {
	m := mail.NewMsg(mail.WithCharset(mail.CharsetUTF8))
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
	stop   func() bool
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
	stop := func() bool { return true }
	client, err := mail.NewClient(s.Host, mail.WithPort(s.Port), mail.WithTimeout(a.cfg.Timeout), mail.WithTLSPolicy(policy),
		mail.WithTLSConfig(a.tlsFor(s)), mail.WithSMTPAuth(mail.SMTPAuthNoAuth), mail.WithHELO(domainOf(a.cfg.Address)), mail.WithoutNoop(),
		mail.WithDialContextFunc(func(dial context.Context, _, _ string) (conn net.Conn, err error) {
			if conn, err = a.dial(dial, s); err == nil {
				stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
			}
			return conn, err
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
	c := &smtpConn{client, conn, stop}
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
		// The server has the whole mail; whether it kept it is not known.
		e.Uncertain = se.Reason == mail.ErrSMTPDataClose
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

// lookTime bounds the look into the mailbox before a mail goes.
const lookTime = 20 * time.Second

// lookUp asks the mailbox for what this process does not know: the thread, and
// whether the mail was sent. What cannot be found out is left open: a mail that
// may come twice is better than none.
func (a *Adapter) lookUp(ctx context.Context, root, id string, look bool) (th thread, sent bool) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	c, e := a.dialIMAP(ctx, nil)
	if e != nil {
		a.log.Warn("the mailbox could not be asked whether a mail was sent; it is sent", "reason", e.Reason)
		return th, false
	}
	defer c.end()
	if look {
		if sent = a.wasSent(c, id); sent {
			return th, true
		}
	}
	if root != "" {
		th = a.findThread(c, root)
	}
	return th, false
}

// wasSent looks for a mail among those that the provider keeps as sent.
func (a *Adapter) wasSent(c *imapConn, id string) bool {
	name := a.cfg.SentMailbox
	if name == "" {
		name = c.sentMailbox()
	}
	if name == "" {
		return false
	}
	if _, err := c.open(name, true); err != nil {
		return false
	}
	uids, err := c.search(&imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Message-ID", Value: id}}}, 1)
	return err == nil && len(uids) > 0
}

// sentMailbox is the mailbox that the server marks as that of sent mail
// (https://www.rfc-editor.org/rfc/rfc6154), else one that is called so.
func (c *imapConn) sentMailbox() string {
	var list []*imap.ListData
	err := c.within(func() (err error) {
		list, err = c.List("", "*", nil).Collect()
		return err
	})
	if err != nil {
		return ""
	}
	named := ""
	for _, l := range list {
		for _, at := range l.Attrs {
			if at == imap.MailboxAttrSent {
				return l.Mailbox
			}
		}
		switch strings.ToLower(l.Mailbox) {
		case "sent", "sent items", "sent mail", "sent messages", "inbox.sent":
			named = l.Mailbox
		}
	}
	return named
}

// findThread reads the subject and the newest mail of a thread.
func (a *Adapter) findThread(c *imapConn, root string) (th thread) {
	if _, err := c.open(a.cfg.Mailbox, true); err != nil {
		return th
	}
	with := func(name string) imap.SearchCriteria {
		return imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: name, Value: root}}}
	}
	uids, err := c.search(&imap.SearchCriteria{Or: [][2]imap.SearchCriteria{{with("Message-ID"), with("References")}}}, 1)
	if err != nil || len(uids) == 0 {
		return th
	}
	got, err := c.fetch(imap.UIDSetNum(uids...), &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{headerSection}})
	if err != nil || len(got) == 0 || len(got[0].BodySection) == 0 {
		return th
	}
	h := readHeader(got[0].BodySection[0].Bytes)
	th.subject = plainSubject(h.subject())
	if ids := h.ids("Message-Id"); len(ids) > 0 {
		th.last = ids[0]
	}
	return th
}
