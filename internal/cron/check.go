package cron

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"hermes/internal/domain"
)

const (
	maxName   = 200
	maxPrompt = 128 << 10 // bytes
)

// check refuses a job that could never do what it says.
func (s *Service) check(name string, d Definition) error {
	prompt := strings.TrimSpace(d.Prompt)
	switch {
	case prompt == "" && d.Script == "" && len(d.Skills) == 0:
		return domain.E(domain.Invalid, nil, "EMPTY_PAYLOAD: the job has nothing to do; give it a prompt, a --skill or a --script")
	case d.NoAgent && d.Script == "":
		return domain.E(domain.Invalid, nil, "NO_AGENT_WITHOUT_SCRIPT: without the agent only a script can run; name one with --script, or leave --no-agent out")
	case utf8.RuneCountInString(name) > maxName:
		return domain.E(domain.TooLarge, nil, "the job's name has more than %d characters", maxName)
	case len(d.Prompt) > maxPrompt:
		return domain.E(domain.TooLarge, nil, "the prompt has %d bytes; at most %d are kept. Put long material into a file that the prompt names", len(d.Prompt), maxPrompt)
	case len(d.Skills) > maxSkills:
		return domain.E(domain.TooLarge, nil, "the job names %d skills; at most %d are loaded. Leave out those that it does not need", len(d.Skills), maxSkills)
	case d.TimeoutSeconds < 0 || d.GraceMinutes < 0:
		return domain.E(domain.Invalid, nil, "a timeout or grace cannot be negative")
	}
	for _, p := range []struct {
		flag, value string
		allowed     []string
	}{
		{"catch-up", d.CatchUp, []string{CatchUpOne, CatchUpAll, CatchUpNone}},
		{"overlap", d.Overlap, []string{OverlapSkip, OverlapQueue, OverlapParallel}},
		{"on-interrupt", d.OnInterrupt, []string{InterruptFail, InterruptRetry}},
	} {
		if p.value != "" && !slices.Contains(p.allowed, p.value) {
			return domain.E(domain.Invalid, nil, "%q is no value of %s; it is one of %s", p.value, p.flag, strings.Join(p.allowed, ", "))
		}
	}
	if d.Script != "" {
		if path, err := s.scripts.Resolve(d.Script); err != nil {
			return domain.E(domain.Invalid, err, "%s. A script is named by its path in the scripts folder, e.g. --script disk-watchdog.sh", domain.MessageOf(err))
		} else if _, err := commandFor(path); err != nil {
			return err
		}
	}
	if d.Workdir != "" {
		if info, err := os.Stat(d.Workdir); err != nil || !filepath.IsAbs(d.Workdir) || !info.IsDir() {
			return domain.E(domain.Invalid, nil, "workdir %q must be an absolute path of a folder that exists", d.Workdir)
		}
	}
	if d.Archive != "" && (!filepath.IsAbs(d.Archive) || strings.Contains(d.Archive, "/../") || strings.HasSuffix(d.Archive, "/")) {
		return domain.E(domain.Invalid, nil, "archive %q must be an absolute path of a file, e.g. /home/me/reports/%%Y-%%m-%%d.md", d.Archive)
	}
	if _, problems := s.opt.Targets.Resolve(append(slices.Clone(d.Deliver), d.FailureDeliver...), d.Origin); len(problems) > 0 {
		return domain.E(domain.Invalid, nil, "%s", strings.Join(problems, "; "))
	}
	if blocked, _ := scanText(d.Prompt); len(blocked) > 0 {
		return domain.E(domain.Forbidden, nil, "Blocked: the prompt is refused because %s. Say it differently, or put it into a script that you wrote yourself", strings.Join(blocked, "; "))
	}
	return nil
}
