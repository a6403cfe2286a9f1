package gateway

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/secret"
)

// idle makes a gateway that is built and not started, on a clock of the test's.
func idle(t *testing.T, now *time.Time) *Gateway {
	t.Helper()
	p := home.Profile{Name: "default", Home: filepath.Join(t.TempDir(), ".hermes")}
	p.Root = p.Home
	process := []string{"HOME=" + t.TempDir(), "TELEGRAM_BOT_TOKEN=7000000001:AAF-fake_token_of_the_test_server_0000", "TELEGRAM_HOME_CHANNEL=42"}
	env, _, err := home.LoadEnv(p, process)
	if err != nil {
		t.Fatal(err)
	}
	cfg, _, err := home.Load(p, env)
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(t.Context(), Options{Profile: p, Config: cfg, Env: env, Process: process, Log: slog.New(slog.DiscardHandler),
		Redactor: secret.NewRedactor(), Now: func() time.Time { return *now }, CronOnly: true, NoBallast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	return g
}

// A scheduler that has not looked for long is down, and the home channel hears
// of it, once.
func TestAStuckSchedulerIsHeardOf(t *testing.T) {
	now := time.Now()
	g := idle(t, &now)
	alerts := func() []domain.Delivery {
		ds, err := g.store.Deliveries(context.Background(), ledger.DeliveryFilter{})
		if err != nil {
			t.Fatal(err)
		}
		return ds
	}
	part := g.health.Part("cron")
	if g.checkScheduler(t.Context(), false) {
		t.Error("one that has not begun yet is called stuck")
	}
	part.OK()
	part.Note("last_looked", now.Format(time.RFC3339))
	now = now.Add(time.Minute)
	if g.checkScheduler(t.Context(), false) || len(alerts()) != 0 {
		t.Error("one that sleeps for a minute is called stuck")
	}
	now = now.Add(time.Minute)
	if !g.checkScheduler(t.Context(), false) || !g.checkScheduler(t.Context(), true) {
		t.Error("one that is stuck is not called so")
	}
	got := alerts()
	if len(got) != 1 || got[0].To.ChatID != "42" || !strings.Contains(got[0].Part.Text, "has not looked for due jobs for 2m") {
		t.Errorf("%+v", got)
	}
	for _, p := range g.health.Parts() {
		if p.Name == "cron" && (p.State != health.Down || p.Code != "stuck") {
			t.Errorf("%+v", p)
		}
	}
	part.OK()
	part.Note("last_looked", now.Format(time.RFC3339))
	if g.checkScheduler(t.Context(), true) {
		t.Error("one that looks again is still called stuck")
	}
}
