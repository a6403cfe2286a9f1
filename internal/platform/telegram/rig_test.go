package telegram_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/telegram"
	"hermes/internal/secret"
	"hermes/testkit/adapter"
	fake "hermes/testkit/telegram"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an adapter against a fake Telegram, with an inbox in memory.
type rig struct {
	*telegram.Adapter
	srv    *fake.Server
	sink   *adapter.Inbox
	health *health.Registry
	logs   *adapter.Log
	ctx    context.Context
}

func newRig(t testing.TB, change func(*telegram.Config)) *rig {
	t.Helper()
	srv, err := fake.New(fake.Options{})
	if err != nil {
		t.Fatal(err)
	}
	kit := adapter.NewKit(t, srv.Close, srv.Token())
	r := &rig{srv: srv, sink: kit.Sink, health: kit.Health, logs: kit.Log, ctx: kit.Ctx}
	c := telegram.Config{Token: secret.Value(srv.Token()), TokenOrigin: ".env line 2 (TELEGRAM_BOT_TOKEN)", BaseURL: srv.URL(), PollTimeout: time.Second}
	if change != nil {
		change(&c)
	}
	r.Adapter, err = telegram.New(c, platform.Deps{
		Log:    r.logs.Logger(),
		Health: r.health.Part("platform.telegram"),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Hasten(time.Hour)
	t.Cleanup(r.CloseIdle)
	return r
}

// run starts the adapter; the returned function ends it and gives Run's error.
func (r *rig) run(t testing.TB) (stop func() error) {
	t.Helper()
	return adapter.Run(t, r.ctx, r.Adapter, r.sink)
}

func (r *rig) part() health.Part { return r.health.Parts()[0] }

func address(chat int64) domain.Address {
	return domain.Address{Platform: telegram.Name, ChatID: itoa(chat)}
}

// receive waits for a signal of the adapter.
func receive(t testing.TB, ctx context.Context, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-ctx.Done():
		t.Fatal("it did not happen")
	}
}
