package cron

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"hermes/internal/approval"
	"hermes/internal/cron/schedule"
	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/plain"
)

// Finding is advice about a job; it never stops anything.
type Finding struct {
	Job    domain.JobID `json:"job"`
	Name   string       `json:"name"`
	Advice []string     `json:"advice"`
}

// Lint looks at every job.
func (s *Service) Lint(ctx context.Context) ([]Finding, error) {
	jobs, err := s.opt.Store.ListJobs(ctx, ledger.JobFilter{})
	if err != nil {
		return nil, err
	}
	twins := duplicates(jobs)
	var out []Finding
	for _, j := range jobs {
		d, err := DefinitionOf(j)
		if err != nil {
			out = append(out, Finding{j.ID, j.Name, []string{domain.MessageOf(err)}})
			continue
		}
		advice := s.advice(d, twins[j.ID])
		if err := s.check(j.Name, d); err != nil {
			advice = append([]string{"it will fail: " + domain.MessageOf(err)}, advice...)
		}
		if len(advice) > 0 {
			out = append(out, Finding{j.ID, j.Name, advice})
		}
	}
	return out, nil
}

// advice says what a job leaves open, and what looks wrong about it.
func (s *Service) advice(d Definition, twins []string) []string {
	out := s.missing(d)
	const noRestart = "; a job must not stop or restart the gateway that runs it, and it is refused when it tries. Use /restart in chat"
	_, flagged := scanText(d.Prompt)
	for _, reason := range flagged {
		out = append(out, "the prompt: "+reason+noRestart)
	}
	if d.Script != "" {
		if path, err := s.scripts.Resolve(d.Script); err == nil {
			if text, err := plain.Read(path); err == nil {
				// A script is the operator's own work: it is flagged, never refused.
				blocked, flagged := scanText(headOf(string(text), 1<<20))
				for _, reason := range blocked {
					out = append(out, "the script: "+reason)
				}
				for _, reason := range flagged {
					out = append(out, "the script: "+reason+noRestart)
				}
			}
		}
	}
	for _, name := range d.Skills {
		if _, err := readSkill(filepath.Join(s.opt.Home, "skills"), name); err != nil {
			out = append(out, fmt.Sprintf("the skill %q: %s", name, domain.MessageOf(err)))
		}
	}
	if len(twins) > 0 {
		out = append(out, "it looks like a duplicate of "+strings.Join(twins, ", "))
	}
	return out
}

// scanText sorts what speaks against a text: reasons to refuse it as a prompt,
// and what is worth a warning because it would end the gateway.
func scanText(text string) (blocked, flagged []string) {
	for _, f := range approval.ScanPrompt(text) {
		to := &blocked
		if f.Code == approval.ScanLifecycle {
			to = &flagged
		}
		if !slices.Contains(*to, f.Reason) {
			*to = append(*to, f.Reason)
		}
	}
	return blocked, flagged
}

// missing lists what neither the settings nor the prompt say.
func (s *Service) missing(d Definition) []string {
	var out []string
	if len(d.Deliver) == 0 || slices.Equal(d.Deliver, []string{DeliverLocal}) {
		out = append(out, "delivery: the result is only saved; --deliver telegram (or origin, all, discord:#channel) sends it")
	}
	if sch, err := d.ParseSchedule(s.opt.Zone()); err == nil && d.Timezone == "" && sch.Kind() != schedule.Interval {
		out = append(out, "timezone: the schedule is read in "+sch.Zone().String()+"; --timezone Asia/Seoul fixes it for this job")
	}
	if d.NoAgent {
		return out
	}
	says := func(words ...string) bool {
		prompt := strings.ToLower(d.Prompt)
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(prompt, w) })
	}
	if d.Archive == "" && !says("archive", "save ", "write ", "store ") {
		out = append(out, "archive: the result is kept in cron/output only; --archive '/abs/%Y-%m-%d.md' keeps it where you want")
	}
	if d.Script == "" && len(d.Skills) == 0 && len(d.ContextFrom) == 0 && !says("http", "/", "source", "search", "look up", "check", "read ") {
		out = append(out, "source: the prompt does not say where its facts come from; name a URL, a file, a --script or a --skill")
	}
	if len(d.FailureDeliver) == 0 && !says("fail", "error", "unavailable", "cannot") {
		out = append(out, "failure: the prompt does not say what to do when a source cannot be reached (a failed run itself is always reported)")
	}
	if d.Model == "" && d.Provider == "" {
		out = append(out, "model: it runs with whatever model is configured at the time; --provider and --model pin one")
	}
	return out
}

// duplicates finds jobs that do the same: the same name, or the same work.
func duplicates(jobs []domain.Job) map[domain.JobID][]string {
	byName, byWork := map[string][]domain.Job{}, map[string][]domain.Job{}
	for _, j := range jobs {
		byName[strings.ToLower(j.Name)] = append(byName[strings.ToLower(j.Name)], j)
		// Only what is compared is read, since this goes over every job.
		var work struct {
			Prompt, Script string
			Skills         []string
		}
		if json.Unmarshal(j.Definition, &work) == nil {
			k := strings.Join([]string{letters(work.Prompt), work.Script, strings.Join(work.Skills, " ")}, "\x00")
			byWork[k] = append(byWork[k], j)
		}
	}
	out := map[domain.JobID][]string{}
	for _, groups := range []map[string][]domain.Job{byName, byWork} {
		for _, group := range groups {
			for _, j := range group {
				out[j.ID] = addTwins(out[j.ID], group, j.ID)
			}
		}
	}
	for _, list := range out {
		slices.Sort(list)
	}
	maps.DeleteFunc(out, func(_ domain.JobID, list []string) bool { return len(list) == 0 })
	return out
}

// maxTwins bounds how many others of a group each job is told of: thousands of
// jobs that are all alike must not cost the square of their number.
const maxTwins = 5

// addTwins adds the others of a group to what a job is told.
func addTwins(told []string, group []domain.Job, self domain.JobID) []string {
	named := 0
	for _, other := range group {
		if other.ID == self {
			continue
		}
		if named == maxTwins {
			return append(told, fmt.Sprintf("and %d more", len(group)-1-maxTwins))
		}
		named++
		if label := "'" + other.Name + "' (" + string(other.ID) + ")"; !slices.Contains(told, label) {
			told = append(told, label)
		}
	}
	return told
}

// letters keeps a text's letters and digits, so that spacing and punctuation
// do not hide a duplicate.
func letters(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, s)
}
