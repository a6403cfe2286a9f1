package cron

import (
	"context"
	"fmt"
	"strings"

	"hermes/internal/domain"
)

// CommandUsage is the help of /cron.
const CommandUsage = `/cron list — the jobs of this profile
/cron add "every 10m" what to do — create a job that answers here
/cron show|next|runs|run|pause|resume|remove JOB
/cron edit JOB schedule|prompt|name|deliver|timezone NEW VALUE
/cron status — does anything fire?
/cron lint — advice about all jobs`

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
	case "edit":
		return s.editText(ctx, rest)
	case "help":
		return CommandUsage, nil
	}
	if rest == "" {
		return CommandUsage, nil
	}
	return s.commandOn(ctx, strings.ToLower(verb), rest)
}

// commandOn is a verb about one job.
func (s *Service) commandOn(ctx context.Context, verb, ref string) (string, error) {
	switch verb {
	case "show":
		v, err := s.Show(ctx, ref)
		return v.Text(), err
	case "next":
		v, times, err := s.Next(ctx, ref, 5)
		var b strings.Builder
		for _, t := range times {
			b.WriteString(bothClocks(t, v.Zone) + "\n")
		}
		return orDefault(b.String(), "It does not fire again."), err
	case "runs", "history":
		runs, err := s.Runs(ctx, ref, 10)
		var b strings.Builder
		for _, r := range runs {
			b.WriteString(r.Text(s.opt.Zone()) + "\n")
		}
		return orDefault(b.String(), "It has not run yet."), err
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

// maxChatJobs bounds the list that a chat is sent.
const maxChatJobs = 20

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
