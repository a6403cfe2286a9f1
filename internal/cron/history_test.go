package cron

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// send plays the dispatcher: one attempt at what waits for the home channel.
func (r *rig) send(how func(context.Context, ledger.DeliveryRef) error) {
	r.t.Helper()
	d, ok, _, err := r.store.ClaimDelivery(r.t.Context(), telegramHome, r.clock.Now())
	if err != nil || !ok {
		r.t.Fatalf("nothing to send: %v", err)
	}
	if err := how(r.t.Context(), ledger.DeliveryRef{ID: d.ID, Attempt: d.Attempt}); err != nil {
		r.t.Fatal(err)
	}
}

// A platform that was down for an hour: the run stays ok, the delivery is
// waiting with its reason, and then late.
func TestLateDeliveryIsMarked(t *testing.T) {
	r := newRig(t)
	id := r.watchdog("disk", "echo full")
	r.tick(10 * time.Minute)
	r.send(func(ctx context.Context, d ledger.DeliveryRef) error {
		return r.store.MarkRetry(ctx, d, r.clock.Now().Add(time.Minute), "connection refused", false, nil, nil)
	})
	last := func() (RunView, View, Status) {
		runs, err := r.service.Runs(t.Context(), "disk", 1)
		if err != nil || len(runs) != 1 {
			t.Fatalf("%v %v", runs, err)
		}
		v, err := r.service.Show(t.Context(), string(id))
		if err != nil {
			t.Fatal(err)
		}
		st, err := r.service.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return runs[0], v, st
	}
	run, view, st := last()
	if run.State != domain.RunOK || run.Delivery != "retrying" || !strings.Contains(run.Text(time.UTC), "connection refused") ||
		!strings.Contains(view.Text(), "retrying") || len(st.Undelivered) != 1 || !strings.Contains(st.Text(r.clock.Now()), "is tried again: connection refused") {
		t.Errorf("%+v\n%s\n%s", run, view.Text(), st.Text(r.clock.Now()))
	}
	r.clock.Advance(time.Hour)
	r.send(func(ctx context.Context, d ledger.DeliveryRef) error {
		return r.store.MarkSent(ctx, d, "77", r.clock.Now())
	})
	run, view, st = last()
	if run.Late != time.Hour || run.Receipts[0] != "77" || run.Attempts != 2 || !strings.Contains(run.Text(time.UTC), "delivery: sent (late by 1h0m0s)") ||
		!strings.Contains(view.Text(), "late by 1h0m0s") || *view.LastStatus != "ok" || view.LastDeliveryError != nil || len(st.Undelivered) != 0 {
		t.Errorf("%+v\n%s\n%+v", run, view.Text(), st)
	}
}

func TestDeadDeliveryIsShownWithItsReason(t *testing.T) {
	r := newRig(t)
	id := r.watchdog("disk", "echo full")
	r.tick(10 * time.Minute)
	r.send(func(ctx context.Context, d ledger.DeliveryRef) error {
		return r.store.MarkDead(ctx, d, "Forbidden: bot was kicked", r.clock.Now())
	})
	v, err := r.service.Show(t.Context(), string(id))
	if err != nil || *v.LastStatus != "ok" || v.LastDelivery != "dead" || v.LastDeliveryError == nil || !strings.Contains(*v.LastDeliveryError, "bot was kicked") {
		t.Errorf("%+v, %v", v, err)
	}
	st, err := r.service.Status(t.Context())
	if err != nil || !strings.Contains(st.Text(r.clock.Now()), "was given up; `hermes deliveries retry 1` sends it again: Forbidden") {
		t.Errorf("%v\n%s", err, st.Text(r.clock.Now()))
	}
}

// Status tells from evidence that a scheduler is stuck or behind.
func TestStatusTellsOfAStuckScheduler(t *testing.T) {
	r := newRig(t)
	r.watchdog("disk", "exit 0")
	s := r.scheduler()
	if !s.lead() {
		t.Fatal("the lease is taken")
	}
	defer s.release()
	s.report(r.clock.Now(), begin.Add(10*time.Minute), nil)
	other := NewService(ServiceOptions{Store: r.open(), Home: r.home, Wall: r.clock, Zone: func() *time.Location { return time.UTC }})
	text := func() string {
		st, err := other.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.Text(r.clock.Now())
	}
	if got := text(); !strings.Contains(got, "✓ A scheduler runs") || !strings.Contains(got, "1 active job") || strings.Contains(got, "Behind") {
		t.Error(got)
	}
	r.clock.Advance(11 * time.Minute)
	if got := text(); !strings.Contains(got, "STALLED") || !strings.Contains(got, "Behind: 'disk' was due 1m0s ago") {
		t.Error(got)
	}
}

func TestListPages(t *testing.T) {
	r := newRig(t)
	for i := range 5 {
		r.watchdog(fmt.Sprintf("job%d", i), fmt.Sprintf("exit %d", i))
	}
	if _, err := r.service.Pause(t.Context(), "JOB4", ""); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		page  Page
		total int
		want  string
	}{
		{Page{}, 4, "job0 job1 job2 job3"}, {Page{Limit: 2, Offset: 1}, 4, "job1 job2"}, {Page{All: true, Offset: 4}, 5, "job4"}, {Page{Limit: 3, Offset: 9}, 4, ""},
	} {
		views, total, err := r.service.List(t.Context(), c.page)
		var names []string
		for _, v := range views {
			names = append(names, v.Name)
		}
		if err != nil || total != c.total || strings.Join(names, " ") != c.want {
			t.Errorf("%+v: %v of %d, %v", c.page, names, total, err)
		}
	}
}
