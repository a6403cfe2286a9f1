package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hermes/internal/cron"
	"hermes/internal/domain"
)

// schedulerChecks are about jobs: whether they fire, and as they were meant.
func schedulerChecks() []check { return []check{checkScheduler, checkImport, checkJobs} }

// checkScheduler says whether what fires jobs is alive.
func checkScheduler(c *Case) []Finding {
	s := c.Ledger.Cron
	if s == nil {
		return nil
	}
	f := Finding{Class: Scheduler, Severity: Error, depth: ofPart}
	switch part := c.part("cron"); {
	case !s.Running && (s.Active > 0 || c.cronOnly()):
		f.ID, f.What = "scheduler.not_running", fmt.Sprintf("no scheduler runs, and %d jobs wait for one", s.Active)
		f.Evidence, f.Means, f.Fix = []string{s.Who}, "No job fires by itself.", c.serve()
	case part.Known && part.Code == "stuck" || s.Stalled:
		f.ID, f.What = "scheduler.stalled", "the scheduler has not looked for due jobs for long"
		f.Evidence = []string{"its last sign of life: " + s.Heartbeat.Local().Format(time.DateTime)}
		f.Means, f.Fix = "No job fires until it is started anew.", c.schedulerAnew(s.PID)
	case s.Running && s.Behind > 60:
		f.ID, f.Severity, f.What = "scheduler.behind", Warning, fmt.Sprintf("the job %q should have fired %d s ago", s.NextName, s.Behind)
		f.Evidence, f.Means, f.Fix = []string{"due at " + s.Next.Local().Format(time.DateTime)}, "Jobs fire late.", c.schedulerAnew(s.PID)
	case part.bad():
		f.ID, f.Severity, f.What = "scheduler.degraded", Warning, "the scheduler is held up"
		f.Evidence, f.Means, f.Fix = []string{"status: " + part.Message}, "Jobs may fire late.", c.hermes("cron status")
	default:
		return nil
	}
	return []Finding{f}
}

// schedulerAnew is the command that sets a scheduler going again which does not
// do its work: that of the gateway, or one that runs alone.
func (c *Case) schedulerAnew(pid int) string {
	unit := c.Units.cronFile()
	switch {
	case c.Gateway.Status != nil || pid <= 0:
		return c.hermes("gateway restart")
	case processState(pid) == "T" || processState(pid) == "t":
		return fmt.Sprintf("kill -CONT %d", pid)
	case c.Units.managed() && unit != nil:
		return systemctl(unit.System, "restart "+unit.Name)
	}
	return fmt.Sprintf("kill %d && ", pid) + c.hermes("cron run")
}

// checkImport says that the jobs of the older system were not taken over.
func checkImport(c *Case) []Finding {
	part := c.part("cron.import")
	if !part.bad() {
		return nil
	}
	path := c.Profile.Path("cron", "jobs.json")
	return []Finding{{ID: "scheduler.import", Class: Scheduler, Severity: Error, depth: ofWork, What: "the jobs of the older system could not be taken over",
		Evidence: []string{part.Message}, Means: "None of them fires.", Fix: fmt.Sprintf("mv %[1]s %[1]s.broken && ", path) + c.hermes("gateway restart")}}
}

// checkJobs looks at each job.
func checkJobs(c *Case) []Finding {
	var out []Finding
	told := map[string]bool{}
	for _, j := range c.Ledger.Jobs {
		for _, f := range c.judgeJob(j, told) {
			f.Class, f.depth, f.about = Scheduler, ofWork, string(j.ID)
			if f.Severity == "" {
				f.Severity = Error
			}
			if strings.HasPrefix(f.ID, "delivery.") {
				f.Class = Delivery
			}
			out = append(out, f)
		}
	}
	return out
}

// judgeJob says what keeps one job from doing its work. told holds jobs that
// were named as somebody's duplicate already.
func (c *Case) judgeJob(j cron.View, told map[string]bool) []Finding {
	var out []Finding
	id := string(j.ID)
	add := func(f Finding) {
		f.Evidence = append([]string{fmt.Sprintf("the job %q (%s), %s", j.Name, j.ID, j.ScheduleText)}, f.Evidence...)
		out = append(out, f)
	}
	switch {
	case j.State == "error":
		add(Finding{ID: "scheduler.job_unreadable", What: fmt.Sprintf("the job %q cannot be read", j.Name), Evidence: []string{deref(j.LastError)},
			Means: "It never fires.", Fix: c.hermes("cron remove " + id)})
		return out
	case !j.Enabled && j.State == "paused":
		reason := deref(j.PausedReason)
		add(Finding{ID: "scheduler.job_paused", Severity: Advice, What: fmt.Sprintf("the job %q is paused", j.Name), Evidence: some(reason), Means: "It does not fire until it is resumed.", Fix: c.hermes("cron resume " + id)})
		return out
	case !j.Enabled:
		return nil // it is over
	case j.NextRunAt == nil && !c.ran(j):
		add(Finding{ID: "scheduler.job_never", What: fmt.Sprintf("the job %q will never fire", j.Name), Evidence: []string{j.ScheduleWords},
			Means: "Its schedule has no instant that is still to come.", Fix: c.hermes("cron edit " + id + " --schedule '<schedule>'")})
	}
	c.judgeFiles(j, add)
	if _, err := time.LoadLocation(j.Timezone); j.Timezone != "" && err != nil {
		add(Finding{ID: "scheduler.job_timezone", What: fmt.Sprintf("the timezone of the job %q does not exist: %s", j.Name, j.Timezone), Means: "It fires by the profile's clock.", Fix: c.hermes("cron edit " + id + " --timezone <Area/City>")})
	}
	if len(j.Duplicates) > 0 && !told[id] {
		for _, other := range j.Duplicates {
			if i := strings.LastIndexByte(other, '('); i >= 0 {
				told[strings.TrimSuffix(other[i+1:], ")")] = true
			}
		}
		twin := j.Duplicates[0][strings.LastIndexByte(j.Duplicates[0], '(')+1:]
		add(Finding{ID: "scheduler.job_duplicate", Severity: Warning, What: fmt.Sprintf("the job %q looks like a duplicate of %s", j.Name, someOf(j.Duplicates, 3)),
			Means: "Its work is done, and reported, twice.", Fix: c.hermes("cron remove " + strings.TrimSuffix(twin, ")"))})
	}
	c.judgeTargets(j, add)
	if j.LastRunState == string(domain.RunFailed) || j.LastRunState == string(domain.RunTimedOut) || j.LastRunState == string(domain.RunInterrupted) {
		if len(out) == 0 { // what was found above is why
			add(Finding{ID: "scheduler.job_failing", What: fmt.Sprintf("the last run of the job %q %s", j.Name, strings.ReplaceAll(j.LastRunState, "_", " ")),
				Evidence: some(cutTo(deref(j.LastError), 300)), Means: "What it was to watch or to do is not watched or done.", Fix: c.hermes("cron run "+id) + mended(j)})
		}
	}
	return out
}

// mended is the reminder that a run mends nothing by itself.
func mended(j cron.View) string {
	if script := deref(j.Script); script != "" {
		return "   # after mending " + script
	}
	return "   # after mending what the error names"
}

// ran tells whether a job that fires once has fired.
func (c *Case) ran(j cron.View) bool { return j.LastRunAt != nil }

// judgeFiles looks at what a job needs on the disk.
func (c *Case) judgeFiles(j cron.View, add func(Finding)) {
	id := string(j.ID)
	if script := deref(j.Script); script != "" {
		path := script
		if !filepath.IsAbs(path) {
			path = filepath.Join(c.Profile.ScriptsDir(), script)
		}
		st, err := os.Stat(path)
		root := filepath.Join(c.Profile.Root, "scripts", filepath.Base(script))
		_, inRoot := os.Stat(root)
		f := Finding{ID: "scheduler.script_missing", What: fmt.Sprintf("the script of the job %q is missing: %s", j.Name, path), Means: "Every run of it fails.", Fix: c.hermes("cron edit " + id + " --script <script>")}
		switch {
		case err == nil && st.Mode().IsRegular():
		case c.Profile.Root != c.Profile.Home && inRoot == nil:
			f.Evidence = []string{"it lies in the root's scripts folder, which jobs of a profile do not use: " + root}
			f.Fix = fmt.Sprintf("mkdir -p %s && cp -p %s %s", c.Profile.ScriptsDir(), root, path)
			add(f)
		default:
			add(f)
		}
	}
	if dir := deref(j.Workdir); dir != "" {
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			add(Finding{ID: "scheduler.workdir_missing", What: fmt.Sprintf("the folder that the job %q works in is missing: %s", j.Name, dir), Means: "Every run of it fails.", Fix: "mkdir -p " + dir})
		}
	}
	for _, name := range j.Skills {
		if _, err := os.Stat(c.Profile.Path("skills")); err != nil {
			add(Finding{ID: "scheduler.skill_missing", Severity: Warning, What: fmt.Sprintf("the job %q loads the skill %q, and there are no skills", j.Name, name), Means: "It runs without it.", Fix: c.hermes("cron edit " + id + " --clear-skills")})
			break
		}
	}
}

// judgeTargets looks at where a job's results go.
func (c *Case) judgeTargets(j cron.View, add func(Finding)) {
	targets := cron.Targets{Homes: cron.ConfigHomes{Config: c.config}}
	for _, target := range cron.SplitTargets(j.Deliver, j.FailureDeliver) {
		_, problems := targets.Resolve([]string{target}, j.Origin)
		if len(problems) == 0 || strings.Contains(target, ":#") || strings.HasPrefix(target, "#") {
			continue // names of channels are known to the running gateway only
		}
		name, _, _ := strings.Cut(target, ":")
		cfg, known := c.Config.Platforms[domain.Platform(name)]
		f := Finding{ID: "delivery.no_target", What: fmt.Sprintf("the results of the job %q cannot be delivered to %s", j.Name, target), Evidence: problems,
			Means: "It runs, and nobody hears of it.", Fix: c.hermes(fmt.Sprintf("cron edit %s --deliver <target>", j.ID))}
		if known && cfg.Enabled && name == target {
			f.ID, f.What = "delivery.no_home", fmt.Sprintf("%s has no home channel, and the job %q reports there", name, j.Name)
			f.Fix = c.then(c.hermes("config set " + strings.ToUpper(name) + "_HOME_CHANNEL <chat id>"))
		}
		add(f)
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// some is a list of a text, none of "".
func some(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
