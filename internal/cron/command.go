package cron

import (
	"context"
	"fmt"
	"strings"
	"time"

	"hermes/internal/cron/schedule"
	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// CommandUsage is the help of /cron.
const CommandUsage = `/cron list — the jobs of this profile
/cron add "every 10m" what to do — create a job that answers here
/cron show|next|runs|run|pause|resume|remove JOB
/cron edit JOB schedule|prompt|name|deliver|timezone NEW VALUE
/cron runs — the last runs of all jobs
/cron next "weekdays at 9am" — what a schedule means
/cron status — does anything fire?
/cron tick — look at once for what is due
/cron lint — advice about all jobs
/cron examples — how schedules are written
/cron export — all jobs as jobs.json`

// Command answers /cron in a chat. args is what stands behind the command,
// origin the chat. It never fails: what went wrong is the reply.
func (s *Service) Command(ctx context.Context, args string, origin Origin) string {
	reply, err := s.command(ctx, args, origin)
	if err != nil {
		return "⚠ " + domain.MessageOf(err)
	}
	return strings.TrimSpace(reply)
}

func (s *Service) command(ctx context.Context, args string, origin Origin) (string, error) {
	verb, rest, _ := strings.Cut(strings.TrimSpace(args), " ")
	rest = strings.TrimSpace(rest)
	switch strings.ToLower(verb) {
	case "", "list", "ls":
		return s.listText(ctx, strings.Contains(rest, "all"))
	case "add", "create", "new":
		when, prompt := splitSchedule(rest)
		if when == "" || prompt == "" {
			return "", domain.E(domain.Invalid, nil, "write the schedule in quotes and then what to do, e.g. /cron add \"weekdays at 9am\" summarise my mail")
		}
		made, err := s.Create(ctx, Change{Schedule: &when, Prompt: &prompt, Origin: &origin})
		return made.Text() + s.NotRunning(ctx), err
	case "status":
		st, err := s.Status(ctx)
		return st.Text(s.wall.Now()), err
	case "lint":
		return s.lintText(ctx)
	case "tick":
		s.opt.Changed()
		return "What is due begins now; /cron runs shows it. " + s.NotRunning(ctx), nil
	case "examples":
		return s.examplesText()
	case "export":
		return s.exportText(ctx)
	case "import":
		return "", domain.E(domain.Invalid, nil, "jobs are imported from a file of the gateway's machine, so do it in a shell there: `hermes cron import FILE`")
	case "edit":
		return s.editText(ctx, rest)
	case "help":
		return CommandUsage, nil
	}
	verb = strings.ToLower(verb)
	if verb == "runs" || verb == "history" {
		return s.runsText(ctx, unquote(rest))
	}
	if rest == "" {
		return CommandUsage, nil
	}
	return s.commandOn(ctx, verb, unquote(rest))
}

// commandOn is a verb about one job.
func (s *Service) commandOn(ctx context.Context, verb, ref string) (string, error) {
	switch verb {
	case "show":
		v, err := s.Show(ctx, ref)
		return v.Text(), err
	case "next":
		return s.nextText(ctx, ref)
	case "run":
		job, _, err := s.Run(ctx, ref)
		return fmt.Sprintf("Job '%s' runs now. %s", job.Name, s.NotRunning(ctx)), err
	case "pause":
		v, err := s.Pause(ctx, ref, "")
		return fmt.Sprintf("Job '%s' is paused; /cron resume %s lets it fire again.", v.Name, v.ID), err
	case "resume":
		e, err := s.Resume(ctx, ref, "")
		return e.Text() + s.NotRunning(ctx), err
	case "remove", "rm", "delete":
		job, err := s.Remove(ctx, ref)
		return fmt.Sprintf("Job '%s' (%s) is removed.", job.Name, job.ID), err
	}
	return CommandUsage, nil
}

// nextText tells the next firings of a job, or of a schedule to be tried out.
func (s *Service) nextText(ctx context.Context, ref string) (string, error) {
	v, times, err := s.Next(ctx, ref, 5)
	var b strings.Builder
	if domain.IsCode(err, domain.NotFound) {
		if words, tried, preview := s.Preview(ref, "", 5); preview == nil {
			fmt.Fprintln(&b, words)
			times, err = tried, nil
		}
	}
	for _, t := range times {
		b.WriteString(bothClocks(t, orDefault(v.Zone, t.Location().String())) + "\n")
	}
	return orDefault(b.String(), "It does not fire again."), err
}

// runsText lists the last runs of a job, or of all.
func (s *Service) runsText(ctx context.Context, ref string) (string, error) {
	runs, err := s.Runs(ctx, ref, maxChatRuns)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, r := range runs {
		if ref == "" {
			fmt.Fprintf(&b, "%s  ", r.Job)
		}
		b.WriteString(r.Text(s.opt.Zone()) + "\n")
	}
	if len(runs) == 0 && ref == "" {
		return "No runs yet.", nil
	}
	return orDefault(b.String(), "It has not run yet."), nil
}

// examplesText shows how schedules and jobs are written in a chat.
func (s *Service) examplesText() (string, error) {
	schedules, err := ExampleSchedules(s.wall.Now(), s.opt.Zone())
	return "Schedules, and what they mean now:\n" + schedules + `
Jobs:
/cron add "weekdays at 9am" Summarise the night's mail. If a source fails, say which.
/cron add "in 2h" Remind me of the oven
/cron edit "Remind me of the oven" schedule in 3h
Jobs of scripts are made in a shell: hermes cron examples`, err
}

// ExampleSchedules lists forms of schedules with their meaning, one a line.
func ExampleSchedules(now time.Time, zone *time.Location) (string, error) {
	var b strings.Builder
	for _, text := range []string{"every 10m", "30m", "in 2h", "0 9 * * 1-5", "*/15 8-18 * * mon-fri", "0 9 L * *", "@daily", "every monday at 9am", "weekdays at 9:30pm"} {
		sch, err := schedule.Parse(text, now, zone)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "  %-24s %s\n", `"`+text+`"`, sch.Words())
	}
	return b.String(), nil
}

// exportText is jobs.json where a chat can hold it.
func (s *Service) exportText(ctx context.Context) (string, error) {
	n, err := s.opt.Store.CountJobs(ctx, ledger.JobFilter{})
	if err != nil {
		return "", err
	}
	var b []byte
	if n <= maxChatJobs {
		if b, err = s.Export(ctx); err != nil {
			return "", err
		}
	}
	if n > maxChatJobs || len(b) > maxChatExport {
		return "", domain.E(domain.TooLarge, nil, "%s are too much for a chat; in a shell: `hermes cron export > jobs.json`", plural(n, "job"))
	}
	return "```json\n" + string(b) + "```", nil
}

// lintText is the advice about all jobs.
func (s *Service) lintText(ctx context.Context) (string, error) {
	found, err := s.Lint(ctx)
	var b strings.Builder
	for _, f := range found[:min(len(found), maxChatJobs)] {
		fmt.Fprintf(&b, "'%s' (%s)\n", f.Name, f.Job)
		for _, a := range f.Advice {
			fmt.Fprintf(&b, "- %s\n", a)
		}
	}
	if more := len(found) - maxChatJobs; more > 0 {
		fmt.Fprintf(&b, "… and %d jobs more: `hermes cron lint`\n", more)
	}
	return orDefault(b.String(), "Nothing to say about any job."), err
}

// editText changes one field of a job: the job in quotes when its name has
// spaces, the field, and everything after it as the new value.
func (s *Service) editText(ctx context.Context, line string) (string, error) {
	ref, rest := splitSchedule(line)
	field, value, _ := strings.Cut(rest, " ")
	if value = strings.TrimSpace(value); ref == "" || value == "" {
		return "", domain.E(domain.Invalid, nil, "write the job, what to change, and the new value, e.g. /cron edit digest schedule weekdays at 9am")
	}
	var c Change
	switch strings.ToLower(field) {
	case "schedule":
		value = strings.Trim(value, `"'“”„`)
		c.Schedule = &value
	case "prompt":
		c.Prompt = &value
	case "name":
		c.Name = &value
	case "timezone":
		c.Timezone = &value
	case "deliver":
		targets := SplitTargets(value)
		c.Deliver = &targets
	default:
		return "", domain.E(domain.Invalid, nil, "%q cannot be changed here; it is one of schedule, prompt, name, deliver, timezone. `hermes cron edit` changes everything", field)
	}
	e, err := s.Edit(ctx, ref, c)
	if err != nil {
		return "", err
	}
	return e.Text() + s.NotRunning(ctx), nil
}

func (s *Service) listText(ctx context.Context, all bool) (string, error) {
	views, total, err := s.List(ctx, Page{All: all, Limit: maxChatJobs})
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, v := range views {
		b.WriteString(v.Text() + "\n")
	}
	if len(views) == 0 {
		b.WriteString("There are no jobs that fire. /cron add \"every day at 9am\" what to do — creates one.\n")
	}
	if total > len(views) {
		fmt.Fprintf(&b, "… and %d more: `hermes cron list --offset %d`\n", total-len(views), len(views))
	}
	return b.String() + s.NotRunning(ctx), nil
}

// The bounds of what a chat is sent.
const (
	maxChatJobs   = 20
	maxChatRuns   = 10
	maxChatExport = 8 << 10 // bytes
)

// unquote takes the quotes off a line that is quoted as a whole.
func unquote(line string) string {
	if inner, rest := splitSchedule(line); rest == "" && strings.Contains(line, " ") {
		return inner
	}
	return line
}

// splitSchedule takes a schedule in quotes, or a single word, off a line.
func splitSchedule(line string) (when, rest string) {
	for _, q := range []struct{ open, close string }{{`"`, `"`}, {"'", "'"}, {"“", "”"}, {"„", "“"}} {
		if after, ok := strings.CutPrefix(line, q.open); ok {
			if when, rest, ok = strings.Cut(after, q.close); ok {
				return strings.TrimSpace(when), strings.TrimSpace(rest)
			}
		}
	}
	when, rest, _ = strings.Cut(line, " ")
	return when, strings.TrimSpace(rest)
}
