// Package email is a mail provider for tests: an IMAP server
// (go-imap's imapmemserver, RFC 9051 with IDLE) and an SMTP server (go-smtp,
// RFC 5321) over one mailbox, with people who write to it and read what it
// sends, and with the ways in which such servers fail.
package email

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/emersion/go-message/mail"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"hermes/testkit/fault"
)

// Options change the provider. The zero value speaks without TLS and pushes.
type Options struct {
	Address  string // "" means agent@example.test
	Password string // "" means one that is made up
	Security string // tls, starttls or none ("")
	NoIdle   bool   // the server cannot push
	SaveSent bool   // what is sent is kept in the mailbox Sent
	// Listen gives a listener for each of the two servers; nil means ports of
	// 127.0.0.1.
	Listen func() (net.Listener, error)
}

// Server is a running provider. Its methods are safe for concurrent use.
type Server struct {
	o       Options
	imap    *imapserver.Server
	smtp    *smtp.Server
	tls     *tls.Config
	roots   *x509.CertPool
	imapAt  *net.TCPAddr
	smtpAt  *net.TCPAddr
	mailbox *imapmemserver.User
	ids     atomic.Int64
	faults  *fault.Rules

	mu      sync.Mutex
	conns   map[*conn]bool
	sent    []Mail
	changed chan struct{}
	logins  int
	watch   func(taken bool)
	search  func()
}

// Mail is one that was sent.
type Mail struct {
	From, To   string // of the envelope
	Subject    string
	ID         string
	InReplyTo  string
	References []string
	Text       string
	HTML       string
	Header     mail.Header
	Files      map[string][]byte
	Raw        []byte
}

// New starts a provider on ports of its own.
func New(o Options) (*Server, error) {
	if o.Address == "" {
		o.Address = "agent@example.test"
	}
	if o.Password == "" {
		o.Password = "mail-" + rand.Text()
	}
	if o.Listen == nil {
		o.Listen = func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }
	}
	s := &Server{o: o, mailbox: imapmemserver.NewUser(o.Address, o.Password), conns: map[*conn]bool{}, changed: make(chan struct{}), faults: fault.New(nil)}
	if err := errors.Join(s.mailbox.Create("INBOX", nil), s.mailbox.Create("Sent", nil), s.certify()); err != nil {
		return nil, err
	}
	quiet := log.New(io.Discard, "", 0)
	caps := imap.CapSet{imap.CapIMAP4rev1: {}}
	if !o.NoIdle {
		caps[imap.CapIdle] = struct{}{}
	}
	io := &imapserver.Options{Caps: caps, Logger: quiet, InsecureAuth: o.Security == "" || o.Security == "none", NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
		return &imapSession{UserSession: imapmemserver.NewUserSession(s.mailbox), s: s}, nil, nil
	}}
	s.smtp = smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &smtpSession{s: s, c: c}, nil }))
	s.smtp.Domain, s.smtp.ErrorLog, s.smtp.AllowInsecureAuth, s.smtp.MaxMessageBytes = "mx.example.test", quiet, io.InsecureAuth, 40<<20
	if o.Security == "starttls" {
		io.TLSConfig, s.smtp.TLSConfig = s.tls, s.tls
	}
	s.imap = imapserver.New(io)
	var err error
	if s.imapAt, err = s.serve(s.imap.Serve); err != nil {
		return nil, err
	}
	if s.smtpAt, err = s.serve(s.smtp.Serve); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// serve listens for one of the servers.
func (s *Server) serve(serve func(net.Listener) error) (*net.TCPAddr, error) {
	l, err := s.o.Listen()
	if err != nil {
		return nil, err
	}
	var on net.Listener = &listener{l, s}
	if s.o.Security == "tls" {
		on = tls.NewListener(on, s.tls)
	}
	go func() { _ = serve(on) }()
	return l.Addr().(*net.TCPAddr), nil
}

// certify makes a certificate for 127.0.0.1.
func (s *Server) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a mail provider"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	s.roots = x509.NewCertPool()
	s.roots.AddCert(cert)
	s.tls = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	return nil
}

// Address and Password are the account's.
func (s *Server) Address() string { return s.o.Address }

// Password is the account's password.
func (s *Server) Password() string { return s.o.Password }

// IMAPPort is where mail is read.
func (s *Server) IMAPPort() int { return s.imapAt.Port }

// SMTPPort is where mail is sent.
func (s *Server) SMTPPort() int { return s.smtpAt.Port }

// Roots are the authorities that vouch for the servers.
func (s *Server) Roots() *x509.CertPool { return s.roots }

// Close ends both servers.
func (s *Server) Close() {
	s.faults.Close()
	if s.imap != nil {
		_ = s.imap.Close()
	}
	if s.smtp != nil {
		_ = s.smtp.Close()
	}
	s.Drop()
}

// Letter is a mail that somebody writes.
type Letter struct {
	From    string // address, perhaps with a name
	Subject string
	Text    string
	Body    string // in place of Text: everything from Content-Type on, with its empty line
	ID      string // Message-ID, plain; "" means one that is made up, "-" none
	Answers string // In-Reply-To and References
	Root    string // first of References, where it is another
	Extra   string // further header lines, each ending with a line break
	At      time.Time
}

// Write puts a letter into the mailbox and gives its Message-ID.
func (s *Server) Write(l Letter) string {
	if l.ID == "" {
		l.ID = fmt.Sprintf("letter%d.%s@people.test", s.ids.Add(1), strings.ToLower(rand.Text()[:6]))
	}
	if l.At.IsZero() {
		l.At = time.Now()
	}
	var b strings.Builder
	b.WriteString(l.Extra)
	fmt.Fprintf(&b, "From: %s\nTo: %s\nSubject: %s\nDate: %s\n", l.From, s.o.Address, l.Subject, l.At.Format(time.RFC1123Z))
	if l.ID != "-" {
		fmt.Fprintf(&b, "Message-ID: <%s>\n", l.ID)
	}
	if l.Answers != "" {
		refs := "<" + l.Answers + ">"
		if l.Root != "" {
			refs = "<" + l.Root + "> " + refs
		}
		fmt.Fprintf(&b, "In-Reply-To: <%s>\nReferences: %s\n", l.Answers, refs)
	}
	b.WriteString("MIME-Version: 1.0\n")
	if l.Body != "" {
		b.WriteString(l.Body)
	} else {
		b.WriteString("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n" + l.Text)
	}
	s.put("INBOX", []byte(strings.ReplaceAll(b.String(), "\n", "\r\n")), l.At)
	return l.ID
}

func (s *Server) put(mailbox string, raw []byte, at time.Time) {
	if _, err := s.mailbox.Append(mailbox, literal{bytes.NewReader(raw)}, &imap.AppendOptions{Time: at}); err != nil {
		panic(err) // the mailbox is always there
	}
}

type literal struct{ *bytes.Reader }

func (l literal) Size() int64 { return l.Reader.Size() }

// Renumber gives the mailbox another UIDVALIDITY, with copies of the letters
// that keep puts in, as after a server's move. Connections end.
func (s *Server) Renumber(keep func()) {
	if err := errors.Join(s.mailbox.Delete("INBOX"), s.mailbox.Create("INBOX", nil)); err != nil {
		panic(err)
	}
	keep()
	s.Drop()
}

// Drop cuts every connection.
func (s *Server) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close()
	}
}

// Silence makes every open connection dead without ending it: nothing is heard
// and nothing is said any more. Later connections live.
func (s *Server) Silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.silent.Store(true)
	}
}

// Open is how many connections there are.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Fail arms a fault (fault.Rules.Fail) for a stage: "login" of IMAP, whose response
// code is the fault's Code, or of SMTP "auth", "mail", "rcpt", "data" or "end", whose
// reply has the fault's Status, and which Act takes the mail all the same. What is
// held does not notice that its client goes, as real servers do not: a mail that
// was written whole is taken when it goes on.
func (s *Server) Fail(stage string, f fault.Fault) (cancel func()) { return s.faults.Fail(stage, f) }

// Watch sets a function that is called with each mail that has come in whole:
// before it is taken, and before the client is told that it was. nil takes it
// away.
func (s *Server) Watch(f func(taken bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch = f
}

// OnSearch sets a function that is called before each search in a mailbox.
func (s *Server) OnSearch(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.search = f
}

// Copy puts a mail into the mailbox of sent mail.
func (s *Server) Copy(m Mail) { s.put("Sent", m.Raw, time.Now()) }

func (s *Server) tell(taken bool) {
	s.mu.Lock()
	f := s.watch
	s.mu.Unlock()
	if f != nil {
		f(taken)
	}
}

// Logins is how often somebody was let into the mailbox.
func (s *Server) Logins() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logins
}

// Sent are the mails that were taken.
func (s *Server) Sent() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Mail(nil), s.sent...)
}

// WaitFor waits for a mail.
func (s *Server) WaitFor(ctx context.Context, ok func(Mail) bool) (Mail, error) {
	for {
		s.mu.Lock()
		sent, changed := append([]Mail(nil), s.sent...), s.changed
		s.mu.Unlock()
		for _, m := range sent {
			if ok(m) {
				return m, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Mail{}, fmt.Errorf("no such mail among %d: %w", len(sent), ctx.Err())
		}
	}
}

// listener gives connections that can fail.
type listener struct {
	net.Listener
	s *Server
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	one := &conn{Conn: c, s: l.s, closed: make(chan struct{})}
	l.s.mu.Lock()
	l.s.conns[one] = true
	l.s.mu.Unlock()
	return one, nil
}

type conn struct {
	net.Conn
	s      *Server
	silent atomic.Bool
	once   sync.Once
	closed chan struct{}
}

func (c *conn) Write(b []byte) (int, error) {
	if c.silent.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.silent.Load() && err == nil {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		go func() { // Drop holds the lock
			c.s.mu.Lock()
			defer c.s.mu.Unlock()
			delete(c.s.conns, c)
		}()
	})
	return c.Conn.Close()
}

// imapSession is one connection to the mailbox.
type imapSession struct {
	*imapmemserver.UserSession
	s *Server
}

func (i *imapSession) Login(user, password string) error {
	if f := i.s.faults.Take("login", ""); f.Answers() {
		return &imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCode(f.Code), Text: f.Message}
	}
	i.s.mu.Lock()
	i.s.logins++
	i.s.mu.Unlock()
	return i.s.mailbox.Login(user, password)
}

// Idle tells first what came before it began, as real servers do.
func (i *imapSession) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	if err := i.Poll(w, true); err != nil {
		return err
	}
	return i.UserSession.Idle(w, stop)
}

// Search tells OnSearch.
func (i *imapSession) Search(kind imapserver.NumKind, c *imap.SearchCriteria, o *imap.SearchOptions) (*imap.SearchData, error) {
	i.s.mu.Lock()
	f := i.s.search
	i.s.mu.Unlock()
	if f != nil {
		f()
	}
	return i.UserSession.Search(kind, c, o)
}

// smtpSession is one connection that sends.
type smtpSession struct {
	s        *Server
	c        *smtp.Conn
	known    bool
	from, to string
}

func (t *smtpSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (t *smtpSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if err := t.stage("auth"); err != nil {
			return err
		}
		if user != t.s.o.Address || password != t.s.o.Password {
			return smtp.ErrAuthFailed
		}
		t.known = true
		return nil
	}), nil
}

// stage fails where a fault says so.
func (t *smtpSession) stage(name string) error {
	f, err := t.meet(name)
	if err == nil {
		err = t.refuse(f)
	}
	return err
}

// meet gives the fault of a stage, if there is one, once it holds nothing any more.
func (t *smtpSession) meet(stage string) (*fault.Armed, error) {
	f := t.s.faults.Take(stage, "")
	if !f.Wait(context.Background()) {
		return nil, t.cut()
	}
	return f, nil
}

// refuse is a fault's answer.
func (t *smtpSession) refuse(f *fault.Armed) error {
	switch {
	case !f.Answers():
		return nil
	case f.Cut:
		return t.cut()
	}
	return &smtp.SMTPError{Code: f.Status, EnhancedCode: smtp.NoEnhancedCode, Message: f.Message}
}

func (t *smtpSession) cut() error {
	_ = t.c.Conn().Close()
	return io.EOF
}

func (t *smtpSession) Mail(from string, _ *smtp.MailOptions) error {
	if !t.known {
		return smtp.ErrAuthRequired
	}
	t.from = from
	return t.stage("mail")
}

func (t *smtpSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	t.to = to
	return t.stage("rcpt")
}

func (t *smtpSession) Data(r io.Reader) error {
	if err := t.stage("data"); err != nil {
		return err
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	t.s.tell(false)
	f, err := t.meet("end")
	if err != nil {
		return err
	}
	if !f.Answers() || f.Act {
		t.s.take(t.from, t.to, raw)
	}
	t.s.tell(true)
	f.Linger(context.Background())
	return t.refuse(f)
}

func (t *smtpSession) Reset()        {}
func (t *smtpSession) Logout() error { return nil }

// Parse reads a mail as a mail program does.
func Parse(raw []byte) Mail {
	m := Mail{Raw: raw, Files: map[string][]byte{}}
	r, err := mail.CreateReader(bytes.NewReader(raw))
	if err != nil {
		return m
	}
	m.Header = r.Header
	m.Subject, _ = r.Header.Subject()
	m.ID, _ = r.Header.MessageID()
	if ids, _ := r.Header.MsgIDList("In-Reply-To"); len(ids) > 0 {
		m.InReplyTo = ids[0]
	}
	m.References, _ = r.Header.MsgIDList("References")
	for {
		p, err := r.NextPart()
		if err != nil {
			return m
		}
		body, _ := io.ReadAll(p.Body)
		switch h := p.Header.(type) {
		case *mail.InlineHeader:
			if kind, _, _ := h.ContentType(); kind == "text/html" {
				m.HTML += strings.ReplaceAll(string(body), "\r\n", "\n")
			} else {
				m.Text += strings.ReplaceAll(string(body), "\r\n", "\n")
			}
		case *mail.AttachmentHeader:
			name, _ := h.Filename()
			m.Files[name] = body
		}
	}
}

// take keeps a mail.
func (s *Server) take(from, to string, raw []byte) {
	m := Parse(raw)
	m.From, m.To = from, to
	if s.o.SaveSent {
		s.Copy(m)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, m)
	close(s.changed)
	s.changed = make(chan struct{})
}
