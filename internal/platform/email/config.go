package email

import (
	"cmp"
	"fmt"
	"net"
	netmail "net/mail"
	"strconv"
	"strings"
	"time"

	"hermes/internal/home"
	"hermes/internal/platform/settings"
	"hermes/internal/secret"
)

// Security is how a connection is protected.
type Security string

// The kinds of protection.
const (
	TLS      Security = "tls"      // from the first byte (ports 993 and 465)
	StartTLS Security = "starttls" // after the greeting, and never without (143 and 587)
	Plain    Security = "none"     // on a loopback address only
)

// Server is one of the two servers of an account.
type Server struct {
	Host     string
	Port     int      // 0 means 993 for IMAP, 587 for SMTP
	Security Security // "" means what the port stands for
}

// Config is one mailbox. Address, Password and both servers are required.
type Config struct {
	Address        string
	Name           string // shown beside the address
	User           string // of both servers; "" means Address
	Password       secret.Value
	PasswordOrigin string // where the password stands, for messages to people
	IMAP, SMTP     Server
	NoSMTPAuth     bool     // the SMTP server wants no password
	Mailbox        string   // that is read; "" means INBOX
	SentMailbox    string   // "" means the one that the server marks as such
	Aliases        []string // further addresses of ours, whose mail is never answered
	KeepUnread     bool     // do not mark as read what was taken

	// RequireDMARC hears only mail of which a header Authentication-Results of
	// AuthServer, our own provider's server, says dmarc=pass. Without it the
	// sender's address is what the sender says that it is, and only mail of which
	// AuthServer, where it is set, says dmarc=fail is not heard.
	RequireDMARC bool
	AuthServer   string

	PollEvery   time.Duration // where the server cannot push; 0 means 15 s
	IdleEvery   time.Duration // between proofs of a connection on which the server pushes; 0 means 4 min
	Timeout     time.Duration // of one answer of a server; 0 means 30 s
	MaxText     int           // bytes of a mail's text that are read; 0 means 256 KiB
	PerSender   int           // mails that one sender may write in a burst; 0 means 60
	SenderEvery time.Duration // between mails of one sender beyond it; 0 means 30 s
}

// FromProfile reads the configuration of a profile. It answers domain.Config
// with every problem in one message.
func FromProfile(p home.PlatformConfig) (Config, error) {
	x, r := p.Extra, settings.Of("email", p)
	c := Config{
		Address: r.Text("address"), Name: x["name"], User: x["username"], Password: p.Token, PasswordOrigin: p.TokenOrigin,
		IMAP:    Server{Host: x["imap_host"], Port: int(r.Number("imap_port", 1, 65535)), Security: Security(strings.ToLower(x["imap_security"]))},
		SMTP:    Server{Host: x["smtp_host"], Port: int(r.Number("smtp_port", 1, 65535)), Security: Security(strings.ToLower(x["smtp_security"]))},
		Mailbox: x["mailbox"], SentMailbox: x["sent_mailbox"], AuthServer: strings.ToLower(r.Text("authserv_id")), Aliases: r.List("aliases"),
		PollEvery:    time.Duration(r.Number("poll_interval", 1, 24*60*60)) * time.Second,
		RequireDMARC: r.Flag("require_dmarc", false), KeepUnread: !r.Flag("mark_seen", true), NoSMTPAuth: !r.Flag("smtp_auth", true),
	}
	checked := c
	checked.setDefaults()
	r.Problem(checked.problems()...)
	if err := r.Err(notSetUp); err != nil {
		return Config{}, err
	}
	return c, nil
}

const notSetUp = "e-mail is"

// Identity names the account that only one process may read.
func Identity(p home.PlatformConfig) string {
	return strings.ToLower(cmp.Or(p.Extra["username"], p.Extra["address"]) + "@" + p.Extra["imap_host"])
}

func (c *Config) setDefaults() {
	c.User = cmp.Or(c.User, c.Address)
	c.Name = oneLine(c.Name)
	c.Mailbox = cmp.Or(c.Mailbox, "INBOX")
	c.IMAP.Port = cmp.Or(c.IMAP.Port, 993)
	c.SMTP.Port = cmp.Or(c.SMTP.Port, 587)
	for _, s := range []*Server{&c.IMAP, &c.SMTP} {
		if s.Security == "" {
			s.Security = TLS
			if s.Port == 143 || s.Port == 587 || s.Port == 25 {
				s.Security = StartTLS
			}
		}
	}
	c.PollEvery = settings.Or(c.PollEvery, 15*time.Second)
	c.IdleEvery = settings.Or(c.IdleEvery, 4*time.Minute)
	c.Timeout = settings.Or(c.Timeout, 30*time.Second)
	c.MaxText = cmp.Or(c.MaxText, 256<<10)
	c.PerSender = cmp.Or(c.PerSender, 60)
	c.SenderEvery = settings.Or(c.SenderEvery, 30*time.Second)
}

// problems lists what New could not work with.
func (c Config) problems() []string {
	var out []string
	if a, err := netmail.ParseAddress(c.Address); err != nil || a.Address != c.Address {
		out = append(out, fmt.Sprintf("EMAIL_ADDRESS is %q: write the address alone, such as agent@example.com", clip(c.Address, 80)))
	}
	if !c.Password.IsSet() {
		out = append(out, "there is no password: put EMAIL_PASSWORD=… into .env (many providers want one made for the purpose, an app password)")
	}
	for _, s := range []struct {
		name string
		Server
	}{{"IMAP", c.IMAP}, {"SMTP", c.SMTP}} {
		if s.Host == "" || strings.ContainsAny(s.Host, " /@") {
			out = append(out, fmt.Sprintf("EMAIL_%s_HOST is %q: write the name of the server", s.name, clip(s.Host, 80)))
		}
		switch {
		case s.Security == Plain && !loopback(s.Host):
			out = append(out, "EMAIL_"+s.name+"_SECURITY=none would send the password readably over the network: it is allowed for this machine only; write tls or starttls")
		case s.Security != TLS && s.Security != StartTLS && s.Security != Plain:
			out = append(out, fmt.Sprintf("EMAIL_%s_SECURITY is %q: write tls, starttls or none", s.name, clip(string(s.Security), 20)))
		}
	}
	if c.RequireDMARC && c.AuthServer == "" {
		out = append(out, "EMAIL_REQUIRE_DMARC needs EMAIL_AUTHSERV_ID: the first word of the Authentication-Results headers that your own provider adds, such as mx.example.com")
	}
	return out
}

// loopback tells whether a server is on this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (s Server) address() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }
