package cron

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"hermes/internal/approval"
	"hermes/internal/domain"
)

// assembled is what a run's agent is asked.
type assembled struct {
	text    string
	missing []string // notices of skills that could not be loaded
	// blocked are the reasons why the agent must not be asked.
	blocked []string
}

// prompt puts a turn's prompt together, skills, earlier outputs, the script's
// output and the job's own words, and looks at all of it as at what a new job
// says: skills and files may have changed since, and what others wrote comes in
// by outputs.
func (s *Scheduler) prompt(d Definition, script *scriptResult) assembled {
	var a assembled
	var b strings.Builder
	for i, name := range d.Skills {
		text, err := "", error(domain.E(domain.TooLarge, nil, "a job takes %d skills at most", maxSkills))
		if i < maxSkills {
			text, err = readSkill(filepath.Join(s.opt.Home, "skills"), name)
		}
		if err != nil {
			notice := fmt.Sprintf("The skill %q could not be loaded: %s", name, domain.MessageOf(err))
			a.missing = append(a.missing, notice)
			fmt.Fprintf(&b, "[%s]\n\n", notice)
			continue
		}
		blocked, _ := scanText(text)
		a.block(fmt.Sprintf("the skill %q", name), blocked)
		fmt.Fprintf(&b, "## Skill: %s\n\n%s\n\n", name, text)
	}
	for _, id := range d.ContextFrom {
		if text := s.outputs.newest(id); text != "" {
			text = headOf(text, maxContext)
			a.block(fmt.Sprintf("the newest output of job %s", id), scanData(text))
			fmt.Fprintf(&b, "## Newest output of job %s\n\n%s\n\n", id, text)
		}
	}
	if script != nil {
		a.block("the script's output", scanData(script.stdout+"\n"+script.stderr))
		b.WriteString(scriptSection(*script))
	}
	blocked, _ := scanText(d.Prompt)
	a.block("the prompt", blocked)
	b.WriteString(d.Prompt)
	a.text = strings.TrimSpace(b.String())
	return a
}

func (a *assembled) block(what string, reasons []string) {
	for _, reason := range reasons {
		a.blocked = append(a.blocked, what+": "+reason)
	}
}

// err is the reason to refuse the prompt; "" when there is none.
func (a *assembled) err() string {
	if len(a.blocked) == 0 {
		return ""
	}
	return "Blocked: the agent was not asked because of " + strings.Join(a.blocked, "; ") + ". The run's output file has the whole; mend what it names, or run it as a script with --no-agent"
}

// scanData gives the reasons to refuse a text that the agent is to read as data:
// what speaks to the model, or has it carry secrets out. That a log names a file
// or a command, or holds unseen characters, is no reason.
func scanData(text string) []string {
	var out []string
	for _, f := range approval.ScanPrompt(text) {
		if (f.Code == approval.ScanInjection || f.Code == approval.ScanExfil) && !slices.Contains(out, f.Reason) {
			out = append(out, f.Reason)
		}
	}
	return out
}
