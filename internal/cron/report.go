package cron

import (
	"context"
	"fmt"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// Planner turns a text into messages for an address, within its platform's
// limits. It finds MEDIA: lines itself.
type Planner interface {
	// Plan renders Markdown. kind is "cron" for results and "alert" for what
	// went wrong.
	Plan(to domain.Address, kind, markdown string) []domain.NewDelivery
}

// outcome is how a run went, before it is committed.
type outcome struct {
	state   domain.RunState
	text    string // what was said; whole or, after a failure, in part
	errText string
	prompt  string
	model   string
	usage   domain.Usage
	ended   bool // committed by the agent already
}

// failed tells whether it has to be reported.
func (o outcome) failed() bool {
	return o.state == domain.RunFailed || o.state == domain.RunTimedOut || o.state == domain.RunInterrupted
}

const (
	maxRunOutput = 16 << 10 // of an output kept in the run's row
	// alwaysReported is how many failures in a row are each reported; then one
	// summary comes every summaryEvery until it works again.
	alwaysReported = 3
	summaryEvery   = 6 * time.Hour
	streakLookback = 100
)

// streak is the row of failures that a run's job has behind it.
type streak struct {
	count    int       // failures directly before this run
	since    time.Time // instant of the first of them
	reported time.Time // when one of them was last reported
	hidden   int       // failures since then
}

// streakOf looks at the runs that ended before the given one: mostly the last
// one tells all.
func (s *Scheduler) streakOf(ctx context.Context, run domain.Run) streak {
	var k streak
	for _, look := range []int{4, streakLookback} {
		runs, err := s.opt.Store.Runs(ctx, ledger.RunFilter{Job: run.Job, Limit: look, States: []domain.RunState{
			domain.RunOK, domain.RunSilent, domain.RunFailed, domain.RunTimedOut, domain.RunInterrupted}})
		if err != nil {
			s.log.Warn("earlier runs could not be read; this failure is reported as the first", "job", run.Job, "error", err)
			return streak{}
		}
		var whole bool
		if k, whole = countStreak(runs, run); whole || len(runs) < look {
			break
		}
	}
	return k
}

// countStreak counts the failures before run; whole says that the success
// before them was seen.
func countStreak(runs []domain.Run, run domain.Run) (k streak, whole bool) {
	for _, r := range runs {
		if r.ID == run.ID || r.Instant.After(run.Instant) {
			continue
		}
		if r.State == domain.RunOK || r.State == domain.RunSilent {
			return k, true
		}
		k.count++
		k.since = r.Instant
		if r.Delivery != "" && k.reported.IsZero() {
			k.reported = r.EndedAt
		}
		if k.reported.IsZero() {
			k.hidden++
		}
	}
	return k, false
}

// deliveries are the messages that a run's end commits.
func (s *Scheduler) deliveries(ctx context.Context, job domain.Job, d Definition, run domain.Run, o *outcome) []domain.NewDelivery {
	k := s.streakOf(ctx, run)
	if o.failed() {
		return s.alertFailure(job, d, run, o, k)
	}
	var out []domain.NewDelivery
	to, problems := s.opt.Targets.Resolve(d.Deliver, d.Origin)
	if o.state == domain.RunOK {
		body := o.text
		if !d.NoAgent && s.opt.Config().WrapResponse {
			body = wrap(job.Name, job.ID, body)
		}
		out = s.planAll(to, "cron", body, run.ID)
		if len(problems) > 0 {
			o.errText = strings.Join(problems, "; ")
			// The result itself stays private; that it had nowhere to go does not.
			out = append(out, s.alert(d, fmt.Sprintf("⚠️ The result of cron job '%s' could not be delivered: %s. It is kept: `hermes cron runs %s`.", job.Name, o.errText, job.ID), run.ID)...)
		}
	}
	if k.count > 0 && !k.reported.IsZero() {
		out = append(out, s.alert(d, fmt.Sprintf("✅ Cron job '%s' works again after %s (since %s).", job.Name, plural(k.count, "failed run"), s.clockOf(d, k.since)), run.ID)...)
	}
	return out
}

// alertFailure reports a failed run, or leaves it to the next summary.
func (s *Scheduler) alertFailure(job domain.Job, d Definition, run domain.Run, o *outcome, k streak) []domain.NewDelivery {
	if o.state == domain.RunInterrupted && orDefault(d.OnInterrupt, InterruptFail) == InterruptRetry && retries(run) < maxRetries {
		return nil // it is run again
	}
	now := s.wall.Now()
	if k.count >= alwaysReported && !k.reported.IsZero() && now.Sub(k.reported) < summaryEvery {
		return nil
	}
	var b strings.Builder
	if d.NoAgent {
		fmt.Fprintf(&b, "⚠ Cron watchdog '%s' script failed\n\n%s\n\nTime: %s", job.Name, fenced(o.errText), s.clockOf(d, now))
	} else {
		fmt.Fprintf(&b, "⚠️ Cron job '%s' failed:\n%s", job.Name, o.errText)
		if text := strings.TrimSpace(o.text); text != "" {
			fmt.Fprintf(&b, "\n\nPartial result (the run did not finish):\n\n%s", text)
		}
	}
	switch n := k.count + 1; {
	case n == alwaysReported:
		fmt.Fprintf(&b, "\n\nThis is failure %d in a row. From now on there is one summary every %d hours, and a message when it works again. `hermes cron pause %s` stops it.", n, int(summaryEvery.Hours()), job.ID)
	case n > alwaysReported:
		fmt.Fprintf(&b, "\n\n%d failures in a row since %s, %d of them not reported one by one.", n, s.clockOf(d, k.since), k.hidden)
	}
	return s.alert(d, b.String(), run.ID)
}

// alert addresses a warning: to the job's failure targets, else its targets,
// else any home channel, so that a broken job is never silent.
func (s *Scheduler) alert(d Definition, text string, run int64) []domain.NewDelivery {
	list := d.FailureDeliver
	if len(list) == 0 {
		list = d.Deliver
	}
	to, problems := s.opt.Targets.Resolve(list, d.Origin)
	if len(to) == 0 && len(problems) > 0 {
		if home, ok := s.opt.Targets.anyHome(); ok {
			to = []domain.Address{home}
		}
	}
	return s.planAll(to, "alert", text, run)
}

// planAll renders a text for every address.
func (s *Scheduler) planAll(to []domain.Address, kind, text string, run int64) []domain.NewDelivery {
	var out []domain.NewDelivery
	for _, a := range to {
		for _, nd := range s.opt.Planner.Plan(a, kind, s.redact(text)) {
			nd.RunID, nd.Kind = run, kind
			out = append(out, nd)
		}
	}
	return out
}

// wrap puts the frame around an agent's answer that says where it comes from.
func wrap(name string, id domain.JobID, body string) string {
	return fmt.Sprintf("Cronjob Response: %s (job_id: %s)\n-------------\n\n%s\n\nNote: the agent does not see this message in your chat. To stop the job: /cron pause %s", name, id, strings.TrimSpace(body), id)
}

func fenced(s string) string {
	fence := "```"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	return fence + "\n" + strings.TrimSpace(s) + "\n" + fence
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// clockOf shows an instant in the job's zone.
func (s *Scheduler) clockOf(d Definition, t time.Time) string {
	zone, err := d.zone(s.opt.Zone())
	if err != nil {
		zone = s.opt.Zone()
	}
	return t.In(zone).Format("2006-01-02 15:04:05 MST")
}
