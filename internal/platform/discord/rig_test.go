package discord_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/discord"
	"hermes/internal/platform/settings"
	"hermes/internal/secret"
	"hermes/testkit/adapter"
	fake "hermes/testkit/discord"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an adapter against a fake Discord, with an inbox in memory.
type rig struct {
	*discord.Adapter
	srv    *fake.Server
	sink   *adapter.Inbox
	health *health.Registry
	logs   *adapter.Log
	ctx    context.Context
}

func newRig(t testing.TB, o fake.Options, change func(*discord.Config)) *rig {
	t.Helper()
	srv, err := fake.New(o)
	if err != nil {
		t.Fatal(err)
	}
	kit := adapter.NewKit(t, srv.Close, srv.Token())
	r := &rig{srv: srv, sink: kit.Sink, health: kit.Health, logs: kit.Log, ctx: kit.Ctx}
	c := discord.Config{Token: secret.Value(srv.Token()), TokenOrigin: ".env line 2 (DISCORD_BOT_TOKEN)", BaseURL: srv.URL(), Rooms: settings.Rooms{Reactions: true}}
	if change != nil {
		change(&c)
	}
	r.Adapter, err = discord.New(c, discord.Deps{Deps: platform.Deps{
		Log:    r.logs.Logger(),
		Health: r.health.Part("platform.discord"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.Hasten()
	t.Cleanup(r.CloseIdle)
	return r
}

// adapterFor makes another adapter for the rig's server.
func adapterFor(t testing.TB, r *rig, c discord.Config) *discord.Adapter {
	t.Helper()
	c.Token, c.BaseURL = secret.Value(r.srv.Token()), r.srv.URL()
	a, err := discord.New(c, discord.Deps{})
	must(t, err)
	a.Hasten()
	t.Cleanup(a.CloseIdle)
	return a
}

// connected starts the adapter and waits for its session.
func (r *rig) connected(t testing.TB) (stop func() error) {
	t.Helper()
	stop = r.run(t)
	must(t, r.srv.WaitConnected(r.ctx))
	return stop
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run starts the adapter; the returned function ends it and gives Run's error.
func (r *rig) run(t testing.TB) (stop func() error) {
	t.Helper()
	return adapter.Run(t, r.ctx, r.Adapter, r.sink)
}

func (r *rig) part() health.Part { return r.health.Parts()[0] }

func address(chat string) domain.Address {
	return domain.Address{Platform: discord.Name, ChatID: chat}
}
