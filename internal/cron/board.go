package cron

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// Board is what the schedule page shows: a page of the jobs, each with its
// recent past and its next firings.
type Board struct {
	Now       time.Time  `json:"now"`
	Jobs      []BoardJob `json:"jobs"`
	Total     int        `json:"total"`
	Offset    int        `json:"offset"`
	Scheduler Status     `json:"scheduler"`
}

// BoardJob is one row of the board.
type BoardJob struct {
	View
	Next []Firing `json:"next"`
	Past []Cell   `json:"past"` // oldest first, the last one is now
	Step string   `json:"step"` // what a cell is: "1 day", "3 hours"
}

// Firing is an instant by both clocks.
type Firing struct {
	Local string    `json:"local"` // in the job's zone, RFC 3339
	UTC   time.Time `json:"utc"`
}

// Cell is one stretch of a job's past. State is the worst that happened in it:
// failed, timed_out, interrupted, undelivered, missed, skipped, running, ok,
// silent, none (nothing was due), or unknown (older than what is kept).
type Cell struct {
	From  string         `json:"from"` // in the job's zone, RFC 3339
	State string         `json:"state"`
	Runs  map[string]int `json:"runs,omitempty"` // how many by state; undelivered counts beside them
	Note  string         `json:"note,omitempty"` // the first line of the latest error
}

const (
	boardCells   = 30
	boardFirings = 3
	boardRuns    = 200 // as many as the ledger keeps of a job
	maxBoardJobs = 200

	cellUndelivered = "undelivered"
	cellNone        = "none"
	cellUnknown     = "unknown"
)

// severity orders what a cell may show, the worst first.
var severity = []string{string(domain.RunFailed), string(domain.RunTimedOut), string(domain.RunInterrupted), cellUndelivered,
	string(domain.RunMissed), string(domain.RunSkipped), string(domain.RunRunning), string(domain.RunDue), string(domain.RunOK), string(domain.RunSilent)}

// Board gives a page of at most limit jobs (200 at most), paused and completed
// ones too.
func (s *Service) Board(ctx context.Context, limit, offset int) (Board, error) {
	if limit <= 0 || limit > maxBoardJobs {
		limit = maxBoardJobs
	}
	b := Board{Now: s.wall.Now(), Jobs: []BoardJob{}, Offset: max(offset, 0)}
	var err error
	if b.Scheduler, err = s.Status(ctx); err != nil {
		return b, err
	}
	if b.Total, err = s.opt.Store.CountJobs(ctx, ledger.JobFilter{}); err != nil {
		return b, err
	}
	jobs, err := s.opt.Store.ListJobs(ctx, ledger.JobFilter{Limit: limit, Offset: b.Offset})
	if err != nil {
		return b, err
	}
	for _, j := range jobs {
		row, err := s.boardJob(ctx, j, b.Now)
		if err != nil {
			return b, err
		}
		b.Jobs = append(b.Jobs, row)
	}
	return b, nil
}

func (s *Service) boardJob(ctx context.Context, job domain.Job, now time.Time) (BoardJob, error) {
	row := BoardJob{Next: []Firing{}}
	var err error
	if row.View, err = s.view(ctx, job); err != nil {
		return row, err
	}
	zone := s.opt.Zone()
	if d, err := DefinitionOf(job); err == nil {
		if sch, err := d.ParseSchedule(zone); err == nil {
			zone = sch.Zone()
			if job.Enabled && !job.NextAt.IsZero() {
				for _, t := range firings(sch, job, now, boardFirings) {
					row.Next = append(row.Next, Firing{t.In(zone).Format(time.RFC3339), t.UTC()})
				}
			}
		}
	}
	runs, err := s.opt.Store.Runs(ctx, ledger.RunFilter{Job: job.ID, Limit: boardRuns})
	row.Past, row.Step = cells(runs, now.In(zone))
	return row, err
}

// stretches are the widths that a cell may have.
var stretches = []struct {
	width time.Duration
	name  string
}{{time.Hour, "1 hour"}, {3 * time.Hour, "3 hours"}, {6 * time.Hour, "6 hours"}, {12 * time.Hour, "12 hours"}, {24 * time.Hour, "1 day"}}

// cells sorts runs, newest first, into stretches that end with now: of a day
// each, or shorter where what is kept of a frequent job does not fill days.
func cells(runs []domain.Run, now time.Time) (out []Cell, step string) {
	pick := stretches[len(stretches)-1]
	var kept time.Time // before it, runs may have been removed
	if len(runs) >= boardRuns {
		kept = runs[len(runs)-1].Instant
		i := slices.IndexFunc(stretches[:len(stretches)-1], func(c struct {
			width time.Duration
			name  string
		}) bool {
			return now.Sub(kept) <= boardCells*c.width
		})
		if i >= 0 {
			pick = stretches[i]
		}
	}
	start := begins(now, pick.width, boardCells-1)
	for i := range boardCells {
		from, to := start[i], now.Add(time.Second)
		if i+1 < boardCells {
			to = start[i+1]
		}
		c := Cell{From: from.Format(time.RFC3339), State: cellNone}
		if to.Before(kept) {
			c.State = cellUnknown
		}
		for _, r := range runs {
			if !r.Instant.Before(from) && r.Instant.Before(to) {
				c.add(r)
			}
		}
		out = append(out, c)
	}
	return out, pick.name
}

// begins lists where the cells begin: whole hours of the wall clock, or its
// midnights, back from now.
func begins(now time.Time, width time.Duration, back int) []time.Time {
	var out []time.Time
	y, m, d := now.Date()
	hours := int(width / time.Hour)
	hour := now.Hour() / hours * hours
	for i := back; i >= 0; i-- {
		out = append(out, time.Date(y, m, d, hour-i*hours, 0, 0, 0, now.Location()))
	}
	return out
}

// add counts a run in; runs come newest first.
func (c *Cell) add(r domain.Run) {
	if c.Runs == nil {
		c.Runs = map[string]int{}
	}
	count := func(state string) {
		c.Runs[state]++
		if c.State == cellNone || c.State == cellUnknown || slices.Index(severity, state) < slices.Index(severity, c.State) {
			c.State = state
		}
	}
	count(string(r.State))
	why := r.Error
	if r.Delivery == string(domain.DeliveryDead) || r.Delivery == string(domain.DeliveryRetrying) || r.State == domain.RunOK && r.Error != "" {
		count(cellUndelivered)
		why = cmp.Or(why, "a message did not arrive")
	}
	if c.Note == "" && why != "" {
		c.Note = fmt.Sprintf("%s: %s", r.Instant.UTC().Format("15:04 UTC"), firstLine(why, 160))
	}
}

// firstLine cuts a text to its first line and to a number of runes.
func firstLine(s string, limit int) string {
	for i, r := range []rune(s) {
		if r == '\n' || i == limit {
			return string([]rune(s)[:i])
		}
	}
	return s
}
