package slack_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/platform"
	"hermes/internal/platform/settings"
	"hermes/internal/platform/slack"
	"hermes/internal/secret"
	"hermes/testkit/adapter"
	fake "hermes/testkit/slack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an adapter against a fake server, with an inbox in memory.
type rig struct {
	*slack.Adapter
	srv    *fake.Server
	config slack.Config
	kit    adapter.Kit
	sink   *adapter.Inbox
	health *health.Registry
	logs   *adapter.Log
	ctx    context.Context
}

func newRig(t testing.TB, change func(*slack.Config)) *rig {
	t.Helper()
	return newRigWith(t, fake.Options{}, change)
}

func newRigWith(t testing.TB, o fake.Options, change func(*slack.Config)) *rig {
	t.Helper()
	srv, err := fake.New(o)
	if err != nil {
		t.Fatal(err)
	}
	kit := adapter.NewKit(t, srv.Close, srv.Token(), srv.AppToken(), "ticket=")
	r := &rig{srv: srv, kit: kit, sink: kit.Sink, health: kit.Health, logs: kit.Log, ctx: kit.Ctx}
	r.config = slack.Config{Token: secret.Value(srv.Token()), TokenOrigin: ".env line 2 (SLACK_BOT_TOKEN)", AppToken: secret.Value(srv.AppToken()),
		BaseURL: srv.URL(), Rooms: settings.Rooms{RequireMention: true}, PingEvery: 20 * time.Millisecond}
	if change != nil {
		change(&r.config)
	}
	r.Adapter = r.another(t)
	return r
}

// another makes one more adapter of the same account, as the next life of the
// process does.
func (r *rig) another(t testing.TB) *slack.Adapter {
	t.Helper()
	a, err := slack.New(r.config, platform.Deps{
		Log:    r.logger(),
		Health: r.health.Part("platform.slack"),
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
	return r.kit.Connect(t, r.Adapter, "all that was written in Slack is read")
}

func (r *rig) part() health.Part { return r.health.Parts()[0] }

func address(channel string) domain.Address {
	return domain.Address{Platform: slack.Name, ChatID: channel}
}

type configuration = slack.Config

// with makes one more adapter, configured otherwise.
func (r *rig) with(t testing.TB, change func(*configuration)) *slack.Adapter {
	t.Helper()
	was := r.config
	defer func() { r.config = was }()
	change(&r.config)
	return r.another(t)
}

// newServer serves HTTP elsewhere and gives its address.
func newServer(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func secretValue(s string) secret.Value { return secret.Value(s) }

func profile(extra map[string]string) home.PlatformConfig {
	return home.PlatformConfig{Token: "xoxb-1-2-abc", Extra: extra, RequireMention: true, Typing: true}
}
