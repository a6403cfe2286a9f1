package cron

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"hermes/internal/cron/schedule"
	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// CommandUsage is the help of /cron.
const CommandUsage = `/cron list — the jobs of this profile
/cron add "every 10m" what to do — create a job that answers here
/cron show|next|runs|run|pause|resume|remove JOB
/cron add "every 10m" --no-agent --script disk.sh --name disk — options as in a shell
/cron edit JOB schedule|prompt|name|deliver|timezone NEW VALUE
/cron edit JOB --schedule "…" --skill S --model M … — the same with options
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
		return s.createText(ctx, rest, origin)
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
/cron add "every 10m" --no-agent --script disk.sh --name disk --deliver telegram
Scripts lie in the scripts folder of the gateway's machine; hermes cron examples in a shell there has ready ones`, err
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

// chatFlags are the options of a job as a chat may give them. What writes a
// file of its own choice is left to the shell, where approvals do not end.
func chatFlags(editing bool) (*pflag.FlagSet, *Flags) {
	set := pflag.NewFlagSet("cron", pflag.ContinueOnError)
	f := NewFlags(set, editing)
	return set, f
}

// chatChange reads the options of a chat's line, and gives the words that are
// none.
func chatChange(line string, editing bool) (Change, []word, error) {
	set, f := chatFlags(editing)
	rest, err := parseLine(line, set)
	if err != nil {
		return Change{}, nil, err
	}
	c, err := f.Change()
	if err == nil && c.Archive != nil {
		err = domain.E(domain.Forbidden, nil, "--archive writes files of the gateway's machine, so it is set in a shell there: `hermes cron edit`")
	}
	return c, rest, err
}

// createText makes a job of a schedule, a prompt and options in any order.
func (s *Service) createText(ctx context.Context, line string, origin Origin) (string, error) {
	c, rest, err := chatChange(line, false)
	if err != nil {
		return "", err
	}
	when, rest := s.takeSchedule(line, rest)
	if prompt := joined(line, rest); prompt != "" {
		c.Prompt = &prompt
	}
	if when == "" || c.Prompt == nil && c.Script == nil && c.Skills == nil {
		return "", domain.E(domain.Invalid, nil, "write the schedule in quotes and then what to do, e.g. /cron add \"weekdays at 9am\" summarise my mail")
	}
	c.Schedule, c.Origin = &when, &origin
	made, err := s.Create(ctx, c)
	return made.Text() + s.NotRunning(ctx), err
}

// maxScheduleWords bounds how many words a schedule without quotes has.
const maxScheduleWords = 8

// takeSchedule takes the schedule off the words: a quoted one, else as many
// words as are one together, else the first.
func (s *Service) takeSchedule(line string, words []word) (when string, rest []word) {
	if len(words) == 0 {
		return "", nil
	}
	if !words[0].quoted {
		for n := min(len(words), maxScheduleWords); n > 1; n-- {
			text := joined(line, words[:n])
			if _, err := schedule.Parse(text, s.wall.Now(), s.opt.Zone()); err == nil {
				return text, words[n:]
			}
		}
	}
	return strings.TrimSpace(words[0].text), words[1:]
}

// editText changes a job: its id or name, in quotes when it has spaces, and
// options; or a field and everything after it as the new value.
func (s *Service) editText(ctx context.Context, line string) (string, error) {
	c, rest, err := chatChange(line, true)
	if err != nil {
		return "", err
	}
	if len(rest) == 0 || len(rest) == 1 && line[rest[0].from:rest[0].to] == strings.TrimSpace(line) {
		return "", domain.E(domain.Invalid, nil, "write the job and what to change, e.g. /cron edit digest --schedule \"weekdays at 9am\" --timezone Asia/Seoul, or /cron edit digest prompt and the new value")
	}
	if len(rest) > 1 {
		field, value := strings.ToLower(rest[1].text), joined(line, rest[2:])
		switch field {
		case "schedule":
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
			return "", domain.E(domain.Invalid, nil, "%q cannot be changed so; it is one of schedule, prompt, name, deliver, timezone, or an option such as --script", rest[1].text)
		}
		if value == "" {
			return "", domain.E(domain.Invalid, nil, "behind %s belongs the new value", field)
		}
	}
	e, err := s.Edit(ctx, rest[0].text, c)
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
	if words := splitLine(line); len(words) == 1 {
		return words[0].text
	}
	return line
}
