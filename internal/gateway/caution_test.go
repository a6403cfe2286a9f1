package gateway

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/starts"
)

// careful makes a gateway of nothing but its caution.
func careful(plan starts.Plan) *Gateway {
	g := &Gateway{Options: Options{Now: time.Now, Log: slog.New(slog.DiscardHandler), Profile: home.Profile{Name: "default"}, Safe: &Safe{Plan: plan}}}
	g.health = health.New(time.Now)
	g.caution = newCaution(g)
	return g
}

func TestAPartIsHeldBackUntilItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := careful(starts.Plan{Quarantine: []starts.Quarantined{{Part: "api", Until: time.Now().Add(5 * time.Minute), Times: 1, Why: "a test"}}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var apiAt, cronAt time.Time
		began := time.Now()
		g.caution.start(ctx, "cron", func() { cronAt = time.Now() })
		g.caution.start(ctx, "api", func() { apiAt = time.Now(); g.health.Part("api").OK() })
		if !cronAt.Equal(began) || !g.caution.has("cron") {
			t.Error("the other part waited")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if p := g.health.Parts(); g.caution.has("api") || p[0].Name != "api" || p[0].Code != "quarantine" {
			t.Errorf("started, or not said: %+v", p)
		}
		g.work.Wait()
		if got := apiAt.Sub(began); got != 5*time.Minute {
			t.Errorf("tried again after %s", got)
		}
	})
}

func TestWithCareOnePartStartsAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := careful(starts.Plan{Slow: true, Deaths: 2})
		var at []time.Time
		for _, part := range []string{"cron", "api", "platform.telegram"} {
			g.caution.start(t.Context(), part, func() { at = append(at, time.Now()); g.health.Part(part).OK() })
		}
		g.work.Wait()
		if len(at) != 3 {
			t.Fatalf("%d parts started", len(at))
		}
		for i := range 2 {
			if pause := at[i+1].Sub(at[i]); pause < slowStep || pause > slowStep+proofLimit {
				t.Errorf("%s between two parts", pause)
			}
		}
	})
}

func TestNothingStartsOnceItStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := careful(starts.Plan{Quarantine: []starts.Quarantined{{Part: "cron", Until: time.Now().Add(time.Minute)}}})
		g.caution.start(t.Context(), "cron", func() { t.Error("started after the stop") })
		g.caution.close()
		g.work.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if g.caution.enter(ctx, "cron") {
			t.Error("entered after the end")
		}
	})
}

// A job that is held back stays due, and the others run.
func TestAHeldJobStaysDue(t *testing.T) {
	g := careful(starts.Plan{Quarantine: []starts.Quarantined{{Part: "job.bad", Until: time.Now().Add(time.Minute)}}})
	j := &carefulJobs{Store: dueStore{due: []domain.Run{{ID: 1, Job: "bad"}, {ID: 2, Job: "good"}, {ID: 3, Job: "good"}}}, c: g.caution, runs: map[int64]domain.JobID{}}
	got, err := j.DueRuns(t.Context(), 1)
	if err != nil || len(got) != 1 || got[0].ID != 2 {
		t.Errorf("due: %+v %v", got, err)
	}
	g.Safe.Plan.Quarantine[0].Until = time.Now().Add(-time.Second)
	if got, _ := j.DueRuns(t.Context(), 0); len(got) != 3 {
		t.Errorf("due when its time has come: %+v", got)
	}
}

// dueStore is a ledger that knows due runs only.
type dueStore struct {
	cron.Store
	due []domain.Run
}

func (d dueStore) DueRuns(context.Context, int) ([]domain.Run, error) { return d.due, nil }
