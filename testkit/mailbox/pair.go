// Package mailbox holds e-mail to a real pair of servers: Debian's dovecot and
// postfix, installed in a machine of the test's own (testkit/box), and the real
// binary in front of them.
package mailbox

import (
	"context"
	"fmt"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/testkit/box"
	"hermes/testkit/email"
)

// The names of the pair, which no server of the world has.
const (
	// Host is where both servers are, and what their certificate is for.
	Host = "127.0.0.1"
	// Agent is the address of the agent's mailbox; its account is "agent".
	Agent = "agent@example.test"
	// Account is the user name of both servers.
	Account = "agent"
	// People is the domain of everybody else.
	People = "people.test"
)

// packages is where scripts/setup puts what is to be installed.
const packages = "packages"

// Missing says why there can be no pair here, "" when there can be one.
func Missing() string {
	if why := box.Missing(); why != "" {
		return why
	}
	_, noIMAP := exec.LookPath("dovecot")
	_, noSMTP := exec.LookPath("postfix")
	if noIMAP == nil && noSMTP == nil {
		return ""
	}
	if _, err := os.Stat(filepath.Join(packages, "complete")); err != nil {
		return "the packages of dovecot and postfix are not there (scripts/setup fetches them)"
	}
	return ""
}

// Pair is a machine with both servers. It belongs to one test.
type Pair struct {
	*box.Box
	// Authority is a file of this machine with the certificate of both.
	Authority string
	t         *testing.T
}

// postfixConfig is a server that takes mail of anybody on port 25, and mail of
// those who have an account on 465 (TLS) and 587 (STARTTLS). See postconf(5).
const postfixConfig = `compatibility_level = 3.6
myhostname = mx.example.test
mydestination = example.test, people.test
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
home_mailbox = Maildir/
recipient_delimiter = +
alias_maps =
alias_database =
biff = no
message_size_limit = 41943040
mailbox_size_limit = 0
smtpd_client_connection_rate_limit = 0
default_transport = error:nothing leaves this machine
smtpd_tls_cert_file = /etc/mail.pem
smtpd_tls_key_file = /etc/mail.key
smtpd_tls_security_level = may
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
`

// submission is what both of postfix's services for accounts have in common.
const submission = "smtpd -o smtpd_sasl_auth_enable=yes -o smtpd_tls_auth_only=yes -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject"

// dovecotConfig is a server on 993 (TLS) and 143 (STARTTLS) for the accounts of
// the machine, added to what Debian configures. See
// https://doc.dovecot.org/2.3/configuration_manual/.
const dovecotConfig = `listen = 127.0.0.1
ssl = required
ssl_cert = </etc/mail.pem
ssl_key = </etc/mail.key
mail_location = maildir:~/Maildir
auth_mechanisms = plain login
mail_max_userip_connections = 50
service auth {
  unix_listener /var/spool/postfix/private/auth {
    mode = 0660
    user = postfix
    group = postfix
  }
}
namespace inbox {
  mailbox Sent {
    auto = subscribe
    special_use = \Sent
  }
}
`

// Debian's unit postfix.service only pulls in the one that runs, which is named
// below wherever something is to have happened when systemctl comes back.

// Start boots the machine and both servers, with an account for the agent and
// for each of the people. It skips the test where that cannot be.
func Start(t *testing.T, password string, people ...string) *Pair {
	t.Helper()
	if why := Missing(); why != "" {
		t.Skip(why)
	}
	p := &Pair{Box: box.Start(t), Authority: filepath.Join(t.TempDir(), "authority.pem"), t: t}
	p.install()
	p.Root(t, "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj '/CN=mx.example.test' "+
		"-addext subjectAltName=IP:127.0.0.1 -keyout /etc/mail.key -out /etc/mail.pem 2>&1")
	if err := os.WriteFile(p.Authority, []byte(p.Read("/etc/mail.pem")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range append([]string{Account}, people...) {
		p.User(t, name)
	}
	p.Password(password)
	p.Write(t, "/etc/postfix/main.cf", postfixConfig)
	p.Write(t, "/etc/dovecot/local.conf", dovecotConfig)
	p.Root(t, fmt.Sprintf(`postconf -M submission/inet='submission inet n - n - - %[1]s -o smtpd_tls_security_level=encrypt' &&
		postconf -M submissions/inet='submissions inet n - n - - %[1]s -o smtpd_tls_wrappermode=yes' &&
		postconf -F '*/*/chroot = n' && systemctl restart dovecot postfix@-`, submission))
	return p
}

// install puts the packages in. Nothing starts by itself.
func (p *Pair) install() {
	p.t.Helper()
	files, err := filepath.Glob(filepath.Join(packages, "*.deb"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.Write(p.t, "/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")
	for _, f := range files {
		p.Install(p.t, f, "/var/cache/mail/"+filepath.Base(f))
	}
	if len(files) > 0 {
		p.Root(p.t, `chmod 755 /usr/sbin/policy-rc.d && echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections &&
			DEBIAN_FRONTEND=noninteractive dpkg --force-unsafe-io -i /var/cache/mail/*.deb 2>&1`)
	}
}

// Password changes the password of the agent's mailbox.
func (p *Pair) Password(password string) {
	p.t.Helper()
	p.Root(p.t, "chpasswd <<<"+Account+":"+password)
}

// KeepCopies lets postfix put a copy of what the agent sends into the mailbox
// Sent, as many providers do, or not. See sender_bcc_maps in postconf(5) and
// .forward files in local(8).
func (p *Pair) KeepCopies(keep bool) {
	p.t.Helper()
	maps := ""
	if keep {
		maps = "inline:{" + Agent + "=agent+sent@example.test}"
		p.Root(p.t, "echo /home/agent/Maildir/.Sent/ > /home/agent/.forward+sent && chown agent: /home/agent/.forward+sent")
	}
	p.Root(p.t, "postconf -e 'sender_bcc_maps = "+maps+"' && systemctl reload postfix@-")
}

// Deliver hands a mail to the agent's server as another server does, over port
// 25. from is of the envelope: "" is that of a bounce.
func (p *Pair) Deliver(ctx context.Context, from string, raw []byte) error {
	conn, err := p.Dial(ctx, "tcp", Host+":25")
	if err != nil {
		return err
	}
	defer conn.Close()
	if at, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(at)
	}
	c, err := smtp.NewClient(conn, Host)
	if err != nil {
		return err
	}
	if err := c.Mail(from); err != nil {
		return err
	}
	if err := c.Rcpt(Agent); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(raw); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return c.Quit()
}

// Mails are what lies in a person's mailbox, in no order.
func (p *Pair) Mails(ctx context.Context, account string) ([]email.Mail, error) {
	out, err := p.Try(ctx, fmt.Sprintf(`cd /home/%s/Maildir 2>/dev/null || exit 0; for f in new/* cur/*; do [ ! -f "$f" ] || { cat "$f"; printf '\0'; }; done`, account))
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	var list []email.Mail
	for raw := range strings.SplitSeq(strings.TrimSuffix(out, "\x00"), "\x00") {
		if raw != "" {
			list = append(list, email.Parse([]byte(raw)))
		}
	}
	return list, nil
}

// Renumber gives the agent's mailbox another UIDVALIDITY, as after its move to
// another server: dovecot has to count its files anew.
func (p *Pair) Renumber(t *testing.T) {
	t.Helper()
	was := p.Root(t, "head -c 40 /home/agent/Maildir/dovecot-uidlist")
	p.Root(t, "systemctl stop dovecot && rm -f /home/agent/Maildir/dovecot* && systemctl start dovecot")
	p.Until(t, 30*time.Second, "another UIDVALIDITY", func(ctx context.Context) error {
		is, err := p.Try(ctx, "head -c 40 /home/agent/Maildir/dovecot-uidlist")
		if err == nil && is == was {
			err = fmt.Errorf("still %q", is)
		}
		return err
	})
}
