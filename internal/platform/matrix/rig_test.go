package matrix_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/platform"
	"hermes/internal/platform/matrix"
	"hermes/internal/platform/settings"
	"hermes/internal/secret"
	"hermes/testkit/adapter"
	fake "hermes/testkit/matrix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an adapter against a fake server, with an inbox in memory.
type rig struct {
	*matrix.Adapter
	srv    *fake.Server
	config matrix.Config
	kit    adapter.Kit
	sink   *adapter.Inbox
	health *health.Registry
	logs   *adapter.Log
	ctx    context.Context
	file   string // of the session

	renamed atomic.Int64 // times that the rooms were said not to be what they were
}

func newRig(t testing.TB, change func(*matrix.Config)) *rig {
	t.Helper()
	return newRigWith(t, fake.Options{}, change)
}

func newRigWith(t testing.TB, o fake.Options, change func(*matrix.Config)) *rig {
	t.Helper()
	srv, err := fake.New(o)
	if err != nil {
		t.Fatal(err)
	}
	kit := adapter.NewKit(t, srv.Close, srv.Token(), srv.Password(), "syt_login_")
	r := &rig{srv: srv, kit: kit, sink: kit.Sink, health: kit.Health, logs: kit.Log, ctx: kit.Ctx, file: filepath.Join(t.TempDir(), "session.json")}
	r.config = matrix.Config{Homeserver: srv.URL(), Token: secret.Value(srv.Token()), TokenOrigin: ".env line 2 (MATRIX_ACCESS_TOKEN)", Rooms: settings.Rooms{RequireMention: true}}
	if change != nil {
		change(&r.config)
	}
	r.Adapter = r.another(t)
	return r
}

// another makes one more adapter of the same account, as the next life of the
// process does.
func (r *rig) another(t testing.TB) *matrix.Adapter {
	t.Helper()
	a, err := matrix.New(r.config, matrix.Deps{
		Deps: platform.Deps{
			Log:     r.logger(),
			Health:  r.health.Part("platform.matrix"),
			Changed: func() { r.renamed.Add(1) },
		},
		SessionFile: r.file,
		Admits: func(_ context.Context, user string) (bool, error) {
			return !strings.HasPrefix(user, "@eve:"), nil
		},
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

// connect starts the adapter and waits until it listens.
func (r *rig) connect(t testing.TB) (stop func() error) {
	t.Helper()
	return r.kit.Connect(t, r.Adapter, "connected to Matrix")
}

// direct makes a direct room with a person, which the account is in.
func (r *rig) direct(t testing.TB, with fake.User) string {
	t.Helper()
	room := r.srv.Invite(with, true)
	if err := r.srv.WaitJoined(r.ctx, room); err != nil {
		t.Fatal("the invitation was not accepted")
	}
	return room
}

// room makes a room with a name, which the account is in.
func (r *rig) room(t testing.TB, by fake.User, name string) string {
	t.Helper()
	room := r.srv.Open(fake.Room{By: by, Name: name})
	if err := r.srv.WaitJoined(r.ctx, room); err != nil {
		t.Fatal("the invitation was not accepted")
	}
	return room
}

func (r *rig) part() health.Part { return r.health.Parts()[0] }

func address(channel string) domain.Address {
	return domain.Address{Platform: matrix.Name, ChatID: channel}
}

// with makes one more adapter, configured otherwise.
func (r *rig) with(t testing.TB, change func(*matrix.Config)) *matrix.Adapter {
	t.Helper()
	was := r.config
	defer func() { r.config = was }()
	change(&r.config)
	return r.another(t)
}

func profile(extra map[string]string) home.PlatformConfig {
	return home.PlatformConfig{Token: "syt_abc", Extra: extra, RequireMention: true, Typing: true}
}

func patterns(s ...string) (out []*regexp.Regexp) {
	for _, p := range s {
		out = append(out, regexp.MustCompile("(?i)"+p))
	}
	return out
}
