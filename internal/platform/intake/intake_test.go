package intake_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform/intake"
	"hermes/testkit/adapter"
)

type world struct {
	intake.Intake
	sink    *adapter.Inbox
	log     adapter.Log
	health  *health.Registry
	waiting []bool
	stored  []string
}

func newWorld() *world {
	w := &world{sink: adapter.NewInbox(), health: health.New(time.Now)}
	w.Intake = intake.Intake{
		Sink: w.sink, What: "messages wait, because they cannot be stored", Log: w.log.Logger(), Health: w.health.Part("demo"), Now: time.Now,
		Scrub: func(err error) error { return errors.New(strings.ReplaceAll(err.Error(), "secret", "***")) },
		First: time.Second, Most: 4 * time.Second,
		Waiting: func(on bool) { w.waiting = append(w.waiting, on) },
		Stored:  func(events []domain.Inbound) { w.stored = append(w.stored, strings.Join(adapter.Texts(events), "+")) },
	}
	return w
}

func batch(n int) (out []domain.Inbound) {
	for i := range n {
		out = append(out, domain.Inbound{EventID: strconv.Itoa(i), Text: strconv.Itoa(i)})
	}
	return out
}

// While nothing can be stored it is tried again, with pauses that grow, and it
// shows; then everything is stored once, with its position.
func TestWaitsForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, left := newWorld(), 4
		w.sink.SetAccept(func([]domain.Inbound) error {
			if left--; left >= 0 {
				if p := w.health.Parts(); left < 3 && (p[0].State != health.Degraded || !strings.Contains(p[0].Message, "messages wait, because they cannot be stored: the disk is full; none is lost")) {
					t.Errorf("shown as %+v", p)
				}
				return domain.E(domain.StorageFull, errors.New("secret"), "the disk is full")
			}
			return nil
		})
		began := time.Now()
		if err := w.Accept(t.Context(), "me", batch(3), "c1"); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != (1+2+4+4)*time.Second {
			t.Errorf("it took %s", d)
		}
		cursor, _ := w.sink.Cursor(t.Context(), "me")
		if got := adapter.Texts(w.sink.Events()); !slices.Equal(got, []string{"0", "1", "2"}) || cursor != "c1" || w.sink.Commits() != 1 {
			t.Errorf("%q was stored in %d commits, up to %q", got, w.sink.Commits(), cursor)
		}
		if !slices.Equal(w.waiting, []bool{true, true, true, true, false}) || !slices.Equal(w.stored, []string{"0+1+2"}) {
			t.Errorf("told %v, %v", w.waiting, w.stored)
		}
		if strings.Contains(w.log.String(), "secret") || strings.Count(w.log.String(), "tried again") != 4 {
			t.Errorf("logged %s", &w.log)
		}
	})
}

// An event that can never be stored is left out alone, whatever stands around it,
// and the position goes on.
func TestLeavesOutWhatIsRefused(t *testing.T) {
	for _, code := range []domain.Code{domain.Invalid, domain.TooLarge} {
		for refused := range 3 {
			w := newWorld()
			w.sink.SetAccept(func(events []domain.Inbound) error {
				if slices.Contains(adapter.Texts(events), strconv.Itoa(refused)) {
					return domain.E(code, nil, "no")
				}
				return nil
			})
			if err := w.Accept(t.Context(), "me", batch(3), "c1"); err != nil {
				t.Fatal(err)
			}
			want := slices.Delete([]string{"0", "1", "2"}, refused, refused+1)
			cursor, _ := w.sink.Cursor(t.Context(), "me")
			if got := adapter.Texts(w.sink.Events()); !slices.Equal(got, want) || cursor != "c1" || len(w.waiting) != 0 {
				t.Errorf("%d refused (%s): %q was stored, up to %q", refused, code, got, cursor)
			}
			if strings.Count(w.log.String(), "left out") != 1 || !strings.Contains(w.log.String(), "event="+strconv.Itoa(refused)) {
				t.Errorf("logged %s", &w.log)
			}
		}
	}
	w := newWorld() // a position that is refused by itself is no reason to stop
	w.sink.SetAccept(func([]domain.Inbound) error { return domain.E(domain.Invalid, nil, "no") })
	if err := w.Accept(t.Context(), "me", nil, "c1"); err != nil || w.sink.Commits() != 0 {
		t.Errorf("%v, %d commits", err, w.sink.Commits())
	}
	if err := w.Accept(t.Context(), "me", batch(1), ""); err != nil || w.sink.Commits() != 0 {
		t.Errorf("%v, %d commits", err, w.sink.Commits())
	}
}

// It gives up when it is told to, and when the account is another process's.
func TestGivesUp(t *testing.T) {
	w := newWorld()
	w.sink.SetAccept(func([]domain.Inbound) error { return domain.E(domain.Fenced, nil, "another process") })
	if err := w.Accept(t.Context(), "me", batch(2), "c"); !domain.IsCode(err, domain.Fenced) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.sink.SetAccept(func([]domain.Inbound) error { cancel(); return domain.E(domain.StorageFull, nil, "full") })
	if err := w.Accept(ctx, "me", batch(2), "c"); !domain.IsCode(err, domain.StorageFull) {
		t.Error(err)
	}
	synctest.Test(t, func(t *testing.T) { // in the pause
		w := newWorld()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		w.sink.SetAccept(func([]domain.Inbound) error { return domain.E(domain.StorageFull, nil, "full") })
		if err := w.Accept(ctx, "me", batch(2), "c"); !domain.IsCode(err, domain.StorageFull) || w.sink.Commits() != 0 || len(w.stored) != 0 {
			t.Errorf("%v, %d commits", err, w.sink.Commits())
		}
	})
}
