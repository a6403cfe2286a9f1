package cron

import (
	"context"
	"fmt"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// RunView is a run with what became of its messages: two facts.
type RunView struct {
	domain.Run
	Receipts    []string      `json:"receipts,omitempty"`        // the platforms' ids of what arrived
	Attempts    int           `json:"attempts,omitempty"`        // most attempts of one message
	DeliveredAt time.Time     `json:"delivered_at,omitzero"`     // when the last message arrived
	Late        time.Duration `json:"delivery_late,omitempty"`   // between the run's end and that, in nanoseconds; 0 when in time
	Reason      string        `json:"delivery_reason,omitempty"` // why a message did not arrive, or not yet
}

// lateAfter is how long after the end of its run a message still counts as in
// time.
const lateAfter = time.Minute

// Runs lists a job's runs, or all jobs' when ref is "", newest first.
func (s *Service) Runs(ctx context.Context, ref string, limit int) ([]RunView, error) {
	f := ledger.RunFilter{Limit: limit}
	if ref != "" {
		job, err := s.Find(ctx, ref)
		switch {
		case err == nil:
			f.Job = job.ID
		case domain.IsCode(err, domain.NotFound) && validID(domain.JobID(ref)):
			f.Job = domain.JobID(ref) // a removed job's runs stay
		default:
			return nil, err
		}
	}
	runs, err := s.opt.Store.Runs(ctx, f)
	if err != nil {
		return nil, err
	}
	out := make([]RunView, 0, len(runs))
	for _, r := range runs {
		v, err := s.withDelivery(ctx, r)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// withDelivery looks at a run's messages.
func (s *Service) withDelivery(ctx context.Context, r domain.Run) (RunView, error) {
	v := RunView{Run: r}
	if r.Delivery == "" {
		return v, nil
	}
	ds, err := s.opt.Store.Deliveries(ctx, ledger.DeliveryFilter{RunID: r.ID, Limit: 1000})
	if err != nil {
		return v, err
	}
	for _, d := range ds {
		v.Attempts = max(v.Attempts, d.Attempt)
		if d.Receipt != "" {
			v.Receipts = append(v.Receipts, d.Receipt)
		}
		if d.SentAt.After(v.DeliveredAt) {
			v.DeliveredAt = d.SentAt
			if late := d.SentAt.Sub(d.CreatedAt); late > lateAfter {
				v.Late = late
			}
		}
		switch {
		case d.State == domain.DeliveryDead:
			v.Reason = fmt.Sprintf("the message to %s was given up: %s", d.To, d.Reason)
		case d.State == domain.DeliveryRetrying && v.Reason == "":
			v.Reason = fmt.Sprintf("the message to %s is tried again at %s: %s", d.To, d.NextAt.UTC().Format("15:04:05 UTC"), d.Reason)
		}
	}
	return v, nil
}

// Text is one line about a run; run and delivery stay two facts.
func (v RunView) Text(zone *time.Location) string {
	text := fmt.Sprintf("%-6d %s  %-11s", v.ID, v.Instant.In(zone).Format("2006-01-02 15:04:05"), v.State)
	if !v.EndedAt.IsZero() && !v.StartedAt.IsZero() {
		text += fmt.Sprintf(" %6s", v.EndedAt.Sub(v.StartedAt).Round(100*time.Millisecond))
	} else {
		text += fmt.Sprintf(" %6s", "-")
	}
	text += "  delivery: " + orDefault(v.Delivery, "none")
	if v.Late > 0 {
		text += " (late by " + v.Late.Round(time.Second).String() + ")"
	}
	if v.Manual {
		text += "  (manual)"
	}
	for _, why := range []string{v.Error, v.Reason} {
		if why != "" {
			first, _, _ := strings.Cut(why, "\n")
			text += "  " + first
		}
	}
	return text
}
