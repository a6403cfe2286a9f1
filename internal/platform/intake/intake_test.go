package intake_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform/intake"
)

// sink stores what it is asked to, unless refuse has a reason against it.
type sink struct {
	refuse  func(events []domain.Inbound, cursor string) error
	batches []string // "text text @cursor", in the order of the commits
}

func (s *sink) Accept(_ context.Context, account string, events []domain.Inbound, cursor string) error {
	if account != "bot" {
		return errors.New("another account")
	}
	if s.refuse != nil {
		if err := s.refuse(events, cursor); err != nil {
			return err
		}
	}
	var words []string
	for _, e := range events {
		words = append(words, e.Text)
	}
	s.batches = append(s.batches, strings.Join(append(words, "@"+cursor), " "))
	return nil
}

func (s *sink) Cursor(context.Context, string) (string, error) { return "", nil }

func texts(all ...string) (out []domain.Inbound) {
	for _, s := range all {
		out = append(out, domain.Inbound{EventID: s, Text: s})
	}
	return out
}

// over makes an intake, the state that it reports and a list of what it says it
// has stored.
func over(s *sink) (i *intake.Intake, state func() health.Part, stored *[]string) {
	r := health.New(time.Now)
	stored = &[]string{}
	return &intake.Intake{
		Sink: s, Service: "Pigeon", Health: r.Part("platform.pigeon"), Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Scrub: func(err error) error { return err }, First: time.Second, Most: 4 * time.Second,
		Stored: func(events []domain.Inbound) {
			for _, e := range events {
				*stored = append(*stored, e.Text)
			}
		},
	}, func() health.Part { return r.Parts()[0] }, stored
}

func TestWhatCannotBeStoredNowIsStoredLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		began := time.Now()
		s := &sink{refuse: func([]domain.Inbound, string) error {
			if at = append(at, time.Since(began)); len(at) <= 4 {
				return domain.E(domain.Unavailable, nil, "the disk is full")
			}
			return nil
		}}
		i, state, stored := over(s)
		stuck := 0
		i.Stuck = func() {
			stuck++
			if p := state(); stuck == 2 && (p.State != health.Degraded || !strings.Contains(p.Message, "messages from Pigeon wait, because they cannot be stored: the disk is full; none is lost")) {
				t.Errorf("while nothing can be stored, health says %+v", p)
			}
		}
		if err := i.Accept(t.Context(), "bot", texts("a", "b"), "7"); err != nil {
			t.Fatal(err)
		}
		if want := []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 11 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("it was tried after %v, want %v", at, want)
		}
		if !slices.Equal(s.batches, []string{"a b @7"}) || !slices.Equal(*stored, []string{"a", "b"}) || stuck != 4 {
			t.Errorf("%q was committed, %q reported, and %d times it was stuck", s.batches, *stored, stuck)
		}
		if p := state(); p.State != health.OK || p.Evidence["last_event"] == "" {
			t.Errorf("once all is stored, health says %+v", p)
		}
	})
}

// One event that the ledger never takes is left out; the others, and the
// position, are stored, and the position not before the last of them.
func TestWhatCanNeverBeStoredIsLeftOut(t *testing.T) {
	for bad, want := range map[string][]string{
		"a": {"b @", "c @7"},
		"b": {"a @", "c @7"},
		"c": {"a @", "b @", "@7"},
	} {
		s := &sink{refuse: func(events []domain.Inbound, _ string) error {
			if slices.ContainsFunc(events, func(e domain.Inbound) bool { return e.Text == bad }) {
				return domain.E(domain.TooLarge, nil, "too large")
			}
			return nil
		}}
		i, state, _ := over(s)
		if err := i.Accept(t.Context(), "bot", texts("a", "b", "c"), "7"); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.batches, want) {
			t.Errorf("without %s, %q was committed, want %q", bad, s.batches, want)
		}
		if p := state(); p.State == health.Degraded {
			t.Errorf("nothing waits, and health says %+v", p)
		}
	}
}

func TestAnotherProcessEndsIt(t *testing.T) {
	s := &sink{refuse: func([]domain.Inbound, string) error { return domain.E(domain.Fenced, nil, "another process owns it") }}
	i, _, stored := over(s)
	if err := i.Accept(t.Context(), "bot", texts("a", "b"), "7"); !domain.IsCode(err, domain.Fenced) || len(*stored) != 0 {
		t.Errorf("%v, and %q was stored", err, *stored)
	}
}

func TestAnEndWhileItWaitsLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{refuse: func([]domain.Inbound, string) error { return domain.E(domain.Unavailable, nil, "the disk is full") }}
		i, _, stored := over(s)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := i.Accept(ctx, "bot", texts("a"), "7"); err == nil || len(*stored) != 0 {
			t.Errorf("it says %v, with %q stored, though nothing was: the caller would acknowledge", err, *stored)
		}
	})
}

func TestNothingIsNoCommit(t *testing.T) {
	s := &sink{}
	i, _, _ := over(s)
	if err := i.Accept(t.Context(), "bot", nil, ""); err != nil || len(s.batches) != 0 {
		t.Errorf("%v %q", err, s.batches)
	}
}
