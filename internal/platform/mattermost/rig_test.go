package mattermost_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/mattermost"
	"hermes/internal/platform/settings"
	"hermes/internal/secret"
	"hermes/testkit/adapter"
	fake "hermes/testkit/mattermost"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an adapter against a fake server, with an inbox in memory.
type rig struct {
	*mattermost.Adapter
	srv    *fake.Server
	config mattermost.Config
	kit    adapter.Kit
	sink   *adapter.Inbox
	health *health.Registry
	logs   *adapter.Log
	ctx    context.Context
}

func newRig(t testing.TB, change func(*mattermost.Config)) *rig {
	t.Helper()
	return newRigWith(t, fake.Options{}, change)
}

func newRigWith(t testing.TB, o fake.Options, change func(*mattermost.Config)) *rig {
	t.Helper()
	srv, err := fake.New(o)
	if err != nil {
		t.Fatal(err)
	}
	kit := adapter.NewKit(t, srv.Close, srv.Token())
	r := &rig{srv: srv, kit: kit, sink: kit.Sink, health: kit.Health, logs: kit.Log, ctx: kit.Ctx}
	r.config = mattermost.Config{Token: secret.Value(srv.Token()), TokenOrigin: ".env line 2 (MATTERMOST_TOKEN)", URL: srv.URL(), Rooms: settings.Rooms{RequireMention: true}, PingEvery: 20 * time.Millisecond}
	if change != nil {
		change(&r.config)
	}
	r.Adapter = r.another(t)
	return r
}

// another makes one more adapter of the same account, as the next life of the
// process does.
func (r *rig) another(t testing.TB) *mattermost.Adapter {
	t.Helper()
	a, err := mattermost.New(r.config, platform.Deps{
		Log:    r.logger(),
		Health: r.health.Part("platform.mattermost"),
	})
	if err != nil {
		t.Fatal(err)
	}
	a.Hasten()
	t.Cleanup(a.CloseIdle)
	return a
}

func (r *rig) logger() *slog.Logger {
	return r.logs.Logger()
}

// run starts the adapter; the returned function ends it and gives Run's error.
func (r *rig) run(t testing.TB) (stop func() error) {
	t.Helper()
	return adapter.Run(t, r.ctx, r.Adapter, r.sink)
}

// connect starts the adapter and waits until it is up to date.
func (r *rig) connect(t testing.TB) (stop func() error) {
	t.Helper()
	return r.kit.Connect(t, r.Adapter, "connected to Mattermost")
}

func (r *rig) part() health.Part { return r.health.Parts()[0] }

func address(channel string) domain.Address {
	return domain.Address{Platform: mattermost.Name, ChatID: channel}
}
