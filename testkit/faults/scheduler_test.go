package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"hermes/internal/cron"
	"hermes/internal/doctor"
	"hermes/internal/domain"
	"hermes/internal/ledger/sqlite"
)

// schedulerFaults keep jobs from firing, or from doing what they were made for.
func schedulerFaults() []fault {
	return []fault{
		{what: "the script of a job was deleted", id: "scheduler.script_missing", class: doctor.Scheduler,
			inject: func(w *world) {
				w.job("watch", "every 1h")
				w.script("other.sh", "true")
				w.must(os.Remove(w.path("scripts", "watch.sh")))
			}, fill: map[string]string{"script": "other.sh"}},
		{what: "the script of a profile's job lies in the root's folder only", id: "scheduler.script_missing", class: doctor.Scheduler, shape: shape{profile: "liam"},
			inject: func(w *world) {
				w.job("watch", "every 1h")
				w.must(os.MkdirAll(filepath.Join(w.home.Dir, "scripts"), 0o700))
				w.must(os.Rename(w.path("scripts", "watch.sh"), filepath.Join(w.home.Dir, "scripts", "watch.sh")))
			}},
		{what: "the folder that a job works in was deleted", id: "scheduler.workdir_missing", class: doctor.Scheduler,
			inject: func(w *world) {
				dir := filepath.Join(w.dir, "work")
				w.must(os.Mkdir(dir, 0o755))
				w.job("watch", "every 1h", "--workdir", dir)
				w.must(os.Remove(dir))
			}},
		{what: "a job was created twice", id: "scheduler.job_duplicate", class: doctor.Scheduler,
			inject: func(w *world) { w.job("watch", "every 1h"); w.job("watch", "every 1h") }},
		{what: "a job is paused", id: "scheduler.job_paused", class: doctor.Scheduler,
			inject: func(w *world) { w.job("watch", "every 1h"); w.hermes("cron", "pause", "watch") }},
		{what: "the schedule of a job has no instant to come", id: "scheduler.job_never", class: doctor.Scheduler,
			inject: func(w *world) { w.put("never", "0 0 31 2 *", "") }, fill: map[string]string{"schedule": "every 1h"}},
		{what: "the timezone of a job does not exist", id: "scheduler.job_timezone", class: doctor.Scheduler,
			inject: func(w *world) { w.put("elsewhere", "0 9 * * *", "Mars/Olympus") }, fill: map[string]string{"Area/City": "Asia/Seoul"}},
		{what: "a job's last run failed", id: "scheduler.job_failing", class: doctor.Scheduler,
			inject: func(w *world) {
				w.job("watch", "every 1h")
				w.script("watch.sh", "echo broken >&2; exit 3")
				_, _ = w.home.Run(w.deadline(), w.args("cron", "run", "watch")...) // it is meant to fail
			}, hand: func(w *world) { w.script("watch.sh", "true") }},
		{what: "the profile's timezone does not exist", id: "scheduler.timezone", class: doctor.Scheduler,
			inject: func(w *world) { w.add("config.yaml", "timezone: Mars/Olympus\n"); w.restart() }, fill: map[string]string{"Area/City": "Europe/Berlin"}},
		{what: "HERMES_TIMEZONE does not exist", id: "scheduler.timezone", class: doctor.Scheduler,
			inject: func(w *world) { w.add(".env", "HERMES_TIMEZONE=UTC+25\n"); w.restart() }, fill: map[string]string{"Area/City": "Europe/Berlin"}},
		{what: "the scheduler of a profile that has nothing else was stopped", id: "scheduler.not_running", class: doctor.Scheduler, shape: shape{noBot: true, noAPI: true, cronOnly: true},
			inject: func(w *world) {
				w.job("watch", "every 1h")
				w.cronUnit()
				code, err := w.procs[0].Stop(w.deadline())
				w.must(err)
				if code != 0 {
					w.t.Errorf("the scheduler ended with %d", code)
				}
			}},
		{what: "a scheduler alone has not looked for ten minutes", id: "scheduler.stalled", class: doctor.Scheduler, shape: shape{noBot: true, noAPI: true, cronOnly: true},
			inject: func(w *world) {
				w.job("watch", "every 1h")
				w.until("its first sign of life", func() bool { _, err := os.Stat(w.path("cron", "ticker_heartbeat")); return err == nil })
				w.write("cron/ticker_heartbeat", fmt.Sprintf("%d.0", time.Now().Add(-10*time.Minute).Unix()))
			}},
		{what: "a job that was due was passed over", id: "scheduler.behind", class: doctor.Scheduler,
			inject: func(w *world) {
				w.put("late", "every 1h", "")
				w.store(func(ctx context.Context, s *sqlite.Store) error {
					j, err := s.Job(ctx, "abcdef012345")
					if err != nil {
						return err
					}
					j.NextAt = time.Now().Add(-5 * time.Minute)
					_, err = s.PutJob(ctx, j)
					return err
				})
			}},
		{what: "the definition of a job cannot be read", id: "scheduler.job_unreadable", class: doctor.Scheduler,
			inject: func(w *world) {
				w.store(func(ctx context.Context, s *sqlite.Store) error {
					_, err := s.PutJob(ctx, domain.Job{ID: "abcdef012345", Name: "torn", Enabled: true, Definition: []byte(`{"schedule":7}`), NextAt: time.Now().Add(time.Hour), CreatedAt: time.Now()})
					return err
				})
			}},
		{what: "a job loads a skill, and there are none", id: "scheduler.skill_missing", class: doctor.Scheduler,
			inject: func(w *world) {
				definition, err := json.Marshal(cron.Definition{Schedule: "every 1h", Prompt: "Report what is new.", Skills: []string{"briefing"}, Deliver: []string{cron.DeliverLocal}, Anchor: time.Now()})
				w.must(err)
				w.store(func(ctx context.Context, s *sqlite.Store) error {
					_, err := s.PutJob(ctx, domain.Job{ID: "abcdef012345", Name: "brief", Enabled: true, Definition: definition, NextAt: time.Now().Add(time.Hour), CreatedAt: time.Now()})
					return err
				})
				w.must(os.RemoveAll(w.path("skills")))
			}},
		{what: "jobs.json of the older system is broken", id: "scheduler.import", class: doctor.Scheduler, shape: shape{unstarted: true},
			inject: func(w *world) { w.write("cron/jobs.json", `{"jobs": [ {`); w.start() }},
	}
}

// script writes a script of the profile.
func (w *world) script(name, body string) {
	w.t.Helper()
	w.write("scripts/"+name, "#!/bin/sh\n"+body+"\n")
}

// job makes a watchdog with a script of its name.
func (w *world) job(name, schedule string, flags ...string) {
	w.t.Helper()
	w.script(name+".sh", "true")
	w.hermes(append([]string{"cron", "create", schedule, "--no-agent", "--script", name + ".sh", "--name", name}, flags...)...)
}

// put writes a job into the ledger that no command would make: one that was
// taken over from elsewhere, or whose schedule has run out.
func (w *world) put(name, schedule, zone string) {
	w.t.Helper()
	w.script(name+".sh", "true")
	definition, err := json.Marshal(cron.Definition{Schedule: schedule, Timezone: zone, Script: name + ".sh", NoAgent: true, Deliver: []string{cron.DeliverLocal}, Anchor: time.Now()})
	w.must(err)
	j := domain.Job{ID: "abcdef012345", Name: name, Enabled: true, Definition: definition, CreatedAt: time.Now()}
	if zone != "" {
		j.NextAt = time.Now().Add(time.Hour)
	}
	w.store(func(ctx context.Context, s *sqlite.Store) error {
		_, err := s.PutJob(ctx, j)
		return err
	})
}

// store opens the profile's ledger beside whatever has it open.
func (w *world) store(use func(context.Context, *sqlite.Store) error) {
	w.t.Helper()
	ctx := w.deadline()
	s, err := sqlite.Open(ctx, sqlite.Options{Path: w.path("ledger.db"), Kind: "cli", Now: time.Now, NoBallast: true})
	w.must(err)
	err = use(ctx, s)
	w.must(s.Close())
	w.must(err)
}

// cronUnit writes the unit of a scheduler alone.
func (w *world) cronUnit() {
	w.t.Helper()
	text := w.unitText()
	w.unit("hermes-cron.service", replaceAll(text, "gateway run", "cron run"))
}
