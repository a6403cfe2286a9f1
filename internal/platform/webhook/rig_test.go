package webhook_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform/webhook"
	"hermes/internal/secret"
	"hermes/testkit/adapter"
	fake "hermes/testkit/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	routeKey  = "the-route's-own-secret-1"
	commonKey = "whsec_dGhlIHNlY3JldCBvZiBhbGwgcm91dGVz"
)

// rig is an adapter that listens, with an inbox in memory.
type rig struct {
	*webhook.Adapter
	t      *testing.T
	sink   *adapter.Inbox
	health *health.Registry
	logs   *adapter.Log
	ctx    context.Context
	now    time.Time
}

func config() webhook.Config {
	return webhook.Config{
		Host: "127.0.0.1", Port: -1, Secrets: []secret.Value{commonKey},
		Routes: map[string]webhook.Route{"own": {Secret: []string{routeKey}}, "common": {}},
	}
}

func newRig(t *testing.T, c webhook.Config) *rig {
	t.Helper()
	kit := adapter.NewKit(t, func() {}, routeKey, commonKey)
	r := &rig{t: t, sink: kit.Sink, health: kit.Health, logs: kit.Log, ctx: kit.Ctx, now: time.Now()}
	a, err := webhook.New(c, webhook.Deps{
		Log: r.logs.Logger(), Health: r.health.Part("platform.webhook"), Now: func() time.Time { return r.now },
		Home: func(p domain.Platform) (domain.Address, bool) {
			return domain.Address{Platform: p, ChatID: "home"}, p == "telegram"
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Adapter = a
	return r
}

// serve starts the adapter; the returned function ends it.
func (r *rig) serve() (stop func() error) {
	r.t.Helper()
	if err := r.Check(r.ctx); err != nil { // which binds
		r.t.Fatal(err)
	}
	return adapter.Run(r.t, r.ctx, r.Adapter, r.sink)
}

func (r *rig) url(route string) string {
	return "http://" + r.Listener().Addr().String() + "/webhooks/" + route
}

// call makes a call that must be answered with a status.
func (r *rig) call(c fake.Call, status int) fake.Answer {
	r.t.Helper()
	a, err := c.Send(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	if a.Status != status {
		r.t.Fatalf("answered %d %v, want %d\n%s", a.Status, a.Body, status, r.logs)
	}
	return a
}
