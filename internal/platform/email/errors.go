package email

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"

	"github.com/emersion/go-imap/v2"

	"hermes/internal/lazyregexp"
	"hermes/internal/platform"
	"hermes/internal/platform/settings"
	"hermes/internal/secret"
)

// busy is what servers say when they refuse a login for another reason than the
// password (RFC 5530 gives codes for it, which not all of them send).
var busy = lazyregexp.New(`(?i)temporar|try again|unavailable|too many|limit|overload|maintenance|internal|timed? ?out|backend|concurrent|simultaneous`)

// refusedLogin classifies a login that an IMAP server did not grant.
func (a *Adapter) refusedLogin(err error) *platform.Error {
	var said *imap.Error
	if !errors.As(err, &said) || said.Type != imap.StatusResponseTypeNo {
		return a.unreachable("IMAP", err)
	}
	e := &platform.Error{Kind: platform.BadCredentials, Code: "email_login", Reason: a.wrongPassword("IMAP", said.Text)}
	switch said.Code {
	case imap.ResponseCodeAuthenticationFailed, imap.ResponseCodeAuthorizationFailed, imap.ResponseCodeExpired, imap.ResponseCodeContactAdmin:
		return e
	case imap.ResponseCodeUnavailable, imap.ResponseCodeInUse, imap.ResponseCodeLimit, imap.ResponseCodeServerBug:
	default:
		if !busy.MatchString(said.Text) {
			return e
		}
	}
	return &platform.Error{Kind: platform.Retry, Code: "email_busy", Reason: "the IMAP server lets nobody in now: " + a.scrub(said.Text)}
}

func (a *Adapter) wrongPassword(server, said string) string {
	return fmt.Sprintf("the %s server refuses the login of %s with the password%s: %s. Many providers want IMAP switched on in their settings and a password made for the purpose (an app password); put it into EMAIL_PASSWORD",
		server, a.cfg.User, settings.Origin(a.cfg.PasswordOrigin), strings.TrimSuffix(a.scrub(clip(clean(said), 200)), "."))
}

// unreachable classifies a connection that could not be made or broke.
func (a *Adapter) unreachable(server string, err error) *platform.Error {
	host := a.cfg.IMAP
	if server == "SMTP" {
		host = a.cfg.SMTP
	}
	e := &platform.Error{Kind: platform.Retry, Code: "email_unreachable", Cause: a.scrubError(err), Reason: "the " + server + " server " + host.address() + " cannot be reached"}
	var dns *net.DNSError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	var said *imap.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		e.Code, e.Reason = "email_host", "there is no server named "+host.Host+": check EMAIL_"+server+"_HOST"
	case errors.As(err, &unknown), errors.As(err, &name):
		e.Code, e.Reason = "email_certificate", "the "+server+" server "+host.address()+" shows a certificate that is not valid for it: check EMAIL_"+server+"_HOST, or install its authority on this machine"
	case errors.As(err, &record):
		e.Code, e.Reason = "email_tls", "the "+server+" server "+host.address()+" does not begin with TLS: set EMAIL_"+server+"_SECURITY=starttls, or another port"
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		e.Code, e.Reason = "email_timeout", "the "+server+" server "+host.address()+" did not answer in time"
	case errors.As(err, &said):
		e.Code, e.Reason = "email_refused", "the "+server+" server refused a command: "+a.scrub(clip(clean(said.Text), 200))
	}
	return e
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// refusedMail classifies what an SMTP server said of a mail
// (https://www.rfc-editor.org/rfc/rfc5321#section-4.2).
func (a *Adapter) refusedMail(what string, code int, said string) *platform.Error {
	said = a.scrub(clip(clean(said), 300))
	e := &platform.Error{Kind: platform.GiveUp, Code: fmt.Sprintf("smtp_%d", code), Reason: fmt.Sprintf("the mail server refused %s: %d %s", what, code, said)}
	switch {
	case code >= 400 && code < 500:
		e.Kind = platform.Retry
		e.Reason = fmt.Sprintf("the mail server does not take %s now: %d %s", what, code, said)
	case code == 530 || code == 534 || code == 535 || code == 538:
		e.Kind, e.Code, e.Reason = platform.BadCredentials, "email_login", a.wrongPassword("SMTP", said)
	}
	return e
}

// smtpCode finds a server's answer in an error.
func smtpCode(err error) (code int, said string, ok bool) {
	var t *textproto.Error
	if errors.As(err, &t) {
		return t.Code, t.Msg, true
	}
	return 0, "", false
}

// scrub takes the password out of a text.
func (a *Adapter) scrub(s string) string { return secret.Hide(s, a.cfg.Password) }

// scrubError takes the password out of an error's text.
func (a *Adapter) scrubError(err error) error { return secret.HideIn(err, a.cfg.Password) }
