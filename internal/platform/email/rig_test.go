package email_test

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/health"
	"hermes/internal/platform/email"
	"hermes/internal/secret"
	"hermes/testkit/adapter"
	fake "hermes/testkit/email"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an adapter against a provider, with an inbox in memory.
type rig struct {
	*email.Adapter
	t      *testing.T
	srv    *fake.Server
	config email.Config
	kit    adapter.Kit
	sink   *adapter.Inbox
	health *health.Registry
	logs   *adapter.Log
	ctx    context.Context
}

func newRig(t *testing.T, o fake.Options, change func(*email.Config)) *rig {
	t.Helper()
	srv, err := fake.New(o)
	if err != nil {
		t.Fatal(err)
	}
	kit := adapter.NewKit(t, srv.Close, srv.Password())
	r := &rig{t: t, srv: srv, kit: kit, sink: kit.Sink, health: kit.Health, logs: kit.Log, ctx: kit.Ctx}
	security := email.Security(o.Security)
	if security == "" {
		security = email.Plain
	}
	r.config = email.Config{
		Address: srv.Address(), Password: secret.Value(srv.Password()), PasswordOrigin: ".env line 3 (EMAIL_PASSWORD)",
		IMAP: email.Server{Host: "127.0.0.1", Port: srv.IMAPPort(), Security: security}, SMTP: email.Server{Host: "127.0.0.1", Port: srv.SMTPPort(), Security: security},
		PollEvery: 20 * time.Millisecond, IdleEvery: 500 * time.Millisecond, Timeout: 5 * time.Second,
	}
	if change != nil {
		change(&r.config)
	}
	r.Adapter = r.another()
	return r
}

// another makes one more adapter of the account, as the next life of the
// process does.
func (r *rig) another() *email.Adapter {
	r.t.Helper()
	a, err := email.New(r.config, email.Deps{
		TLS: &tls.Config{RootCAs: r.srv.Roots(), MinVersion: tls.VersionTLS12},
		Log: r.logs.Logger(), Health: r.health.Part("platform.email"),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	a.Hasten()
	return a
}

// run starts the adapter; the returned function ends it and gives Run's error.
func (r *rig) run() (stop func() error) {
	r.t.Helper()
	return adapter.Run(r.t, r.ctx, r.Adapter, r.sink)
}

// connect starts the adapter and waits until it is up to date.
func (r *rig) connect() (stop func() error) {
	r.t.Helper()
	return r.kit.Connect(r.t, r.Adapter, "connected to the mailbox")
}

func (r *rig) part() health.Part { return r.health.Parts()[0] }

func ann(text string) fake.Letter {
	return fake.Letter{From: "Ann <ann@people.test>", Subject: "A question", Text: text}
}
