package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/testkit/llm"
)

// ada is the home channel of these scenarios.
const ada = 4242

// withJobs is a profile whose home channel is ada's chat.
func withJobs(t *testing.T, o options) *world {
	t.Helper()
	o.env += fmt.Sprintf("TELEGRAM_HOME_CHANNEL=%d\n", ada)
	w := setUp(t, o)
	w.tg.AddUserID(ada, "Ada")
	return w
}

// script writes a file of the scripts folder.
func (w *world) script(name, text string, mode os.FileMode) string {
	w.t.Helper()
	path := filepath.Join(w.home.Dir, "scripts", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// must runs a command that has to work.
func (w *world) must(args ...string) string {
	w.t.Helper()
	out, code := w.run(args...)
	if code != 0 {
		w.t.Fatalf("%v: exit %d\n%s", args, code, out)
	}
	return out
}

// lastRun is the newest run of a job.
func (w *world) lastRun(job string) cron.RunView {
	w.t.Helper()
	var got struct{ Runs []cron.RunView }
	text := w.must("cron", "runs", job, "--limit", "1", "--json")
	if err := json.Unmarshal([]byte(text), &got); err != nil || len(got.Runs) != 1 {
		w.t.Fatalf("%v\n%s", err, text)
	}
	return got.Runs[0]
}

// runJob runs a job and waits until it and its messages are through.
func (w *world) runJob(job string) cron.RunView {
	w.t.Helper()
	said, code := w.run("cron", "run", job)
	var r cron.RunView
	w.eventually("the run of "+job+" ends", func() bool {
		r = w.lastRun(job)
		return r.State.Ended() && (r.Delivery == "" || r.Delivery == "sent" || r.Delivery == "dead")
	})
	if well := r.State == domain.RunOK || r.State == domain.RunSilent; well != (code == 0) {
		w.t.Errorf("the run of %s ended %s, and the command that asked for it exited %d:\n%s", job, r.State, code, said)
	}
	return r
}

// The three commands of the runbook.
func TestTheRunbooksWatchdog(t *testing.T) {
	w := withJobs(t, options{api: true})
	w.script("disk-watchdog.sh", "echo disk at 91 percent\n", 0o644)
	w.start()
	out := w.must("cron", "create", "every 10m", "--no-agent", "--script", "disk-watchdog.sh", "--deliver", "telegram", "--name", "disk-watchdog")
	if !strings.Contains(out, "every 10 minutes") || strings.Count(out, " UTC\n") != 3 {
		t.Errorf("create said:\n%s", out)
	}
	if out = w.must("cron", "list"); !strings.Contains(out, "[active]") || !strings.Contains(out, "disk-watchdog") {
		t.Errorf("list said:\n%s", out)
	}
	w.must("cron", "run", "disk-watchdog")
	w.sees(ada, "disk at 91 percent")
	if r := w.runJob("disk-watchdog"); r.State != domain.RunOK || r.Delivery != "sent" || len(r.Receipts) != 1 {
		t.Errorf("%+v", r)
	}
	if out = w.must("cron", "list"); !strings.Contains(out, "Delivery:  sent") {
		t.Errorf("list said:\n%s", out)
	}
	// The same over HTTP, for programs and for the schedule page.
	if code, text := w.api("GET", "/api/jobs", ""); code != 200 || !strings.Contains(text, `"name":"disk-watchdog"`) || !strings.Contains(text, `"last_delivery":"sent"`) {
		t.Errorf("%d %s", code, text)
	}
	if code, text := w.api("GET", "/api/schedule", ""); code != 200 || !strings.Contains(text, `"state":"ok"`) || !strings.Contains(text, `"running":true`) {
		t.Errorf("%d %s", code, text)
	}
	code, text := w.api("POST", "/api/jobs", `{"name":"hello","schedule":"every 1h","prompt":"Say hello","deliver":"telegram"}`)
	var made struct{ Job cron.View }
	if err := json.Unmarshal([]byte(text), &made); err != nil || code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	if code, text = w.api("POST", "/api/jobs/"+string(made.Job.ID)+"/run", ""); code != 200 {
		t.Errorf("%d %s", code, text)
	}
	w.sees(ada, "Cronjob Response: hello")
}

// Whatever is wrong with a script is told where its result would have gone.
func TestABrokenScriptIsHeardOf(t *testing.T) {
	w := withJobs(t, options{})
	w.start()
	const good = "#!/bin/sh\necho fine\n"
	for _, c := range []struct {
		name, file, text string
		spoil            func(path string) error
		state            domain.RunState
		want             []string
	}{
		{"gone", "gone.sh", good, os.Remove, domain.RunFailed, []string{"Script not found", "gone.sh"}},
		{"unmarked", "unmarked", good, func(p string) error { return os.WriteFile(p, []byte("echo fine\n"), 0o644) }, domain.RunFailed, []string{"cannot be run", "#!/usr/bin/env"}},
		{"interpreter", "interpreter", "#!/no/such/interpreter\n", nil, domain.RunFailed, []string{"/no/such/interpreter", "does not exist"}},
		{"python", "wrong.py", "import no_such_module\n", nil, domain.RunFailed, []string{"exited with code 1", "no_such_module"}},
		{"slow", "slow.sh", "echo began; sleep 60\n", nil, domain.RunTimedOut, []string{"timed out after 1s", "began"}},
		{"exit", "exit.sh", "echo half; echo oops >&2; exit 3\n", nil, domain.RunFailed, []string{"exited with code 3", "oops", "half"}},
		{"command", "command.sh", "no-such-command\n", nil, domain.RunFailed, []string{"exited with code 127", "PATH was /"}},
		{"bytes", "bytes.sh", "printf 'caf\\351 \\000\\377 end'\n", nil, domain.RunOK, []string{"caf\uFFFD", "end"}},
	} {
		path := w.script(c.file, c.text, 0o644)
		args := []string{"cron", "create", "every 1h", "--no-agent", "--script", c.file, "--deliver", "telegram", "--name", c.name}
		if c.name == "slow" {
			args = append(args, "--timeout", "1s")
		}
		w.must(args...)
		if c.spoil != nil {
			if err := c.spoil(path); err != nil {
				t.Fatal(err)
			}
		}
		if r := w.runJob(c.name); r.State != c.state || r.Delivery != "sent" {
			t.Errorf("%s: %s, delivery %q: %s", c.name, r.State, r.Delivery, r.Error)
		}
		replies := w.tg.Replies(ada)
		said := replies[len(replies)-1].Text
		for _, want := range c.want {
			if !strings.Contains(said, want) {
				t.Errorf("%s: the chat was told\n%s\nwhich lacks %q", c.name, said, want)
			}
		}
		if c.state != domain.RunOK && !strings.Contains(said, "'"+c.name+"' script failed") {
			t.Errorf("%s: the chat was told\n%s", c.name, said)
		}
	}
}

// Bad input is refused with what would be right, and exit code 2.
func TestBadJobsAreRefused(t *testing.T) {
	w := withJobs(t, options{})
	w.script("ok.sh", "true\n", 0o644)
	for _, c := range []struct{ args, want string }{
		{"every 10s|say hello", "a minute"},
		{"every banana|say hello", "every 10m"},
		{"every 1h|say hello|--timezone|Mars/Base", "Asia/Seoul"},
		{"every 1h|say hello|--deliver|nosuch", "unknown platform"},
		{"every 1h|say hello|--deliver|discord", "not configured/enabled"},
		{"every 1h|--no-agent", "--script"},
		{"every 1h|--no-agent|--script|../.env", "scripts"},
		{"every 1h|say hello|--workdir|relative", "absolute"},
		{"every 1h|say hello|--repeat|x", "repeat"},
		{"every 1h", "EMPTY_PAYLOAD"},
	} {
		out, code := w.run(append([]string{"cron", "create"}, strings.Split(c.args, "|")...)...)
		if code != 2 || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit %d, want %q in\n%s", c.args, code, c.want, out)
		}
	}
	if out := w.must("cron", "list", "--all"); !strings.Contains(out, "No jobs") {
		t.Errorf("something was made:\n%s", out)
	}
}

// A job that fails again and again is reported three times, then summed up; and
// it is said when it works again.
func TestAFailureIsNotAFlood(t *testing.T) {
	w := withJobs(t, options{})
	ok := filepath.Join(t.TempDir(), "ok")
	w.script("flaky.sh", "[ -e "+ok+" ] || exit 7\n", 0o644)
	w.start()
	w.must("cron", "create", "every 1h", "--no-agent", "--script", "flaky.sh", "--deliver", "telegram", "--name", "flaky")
	for range 6 {
		if r := w.runJob("flaky"); r.State != domain.RunFailed {
			t.Fatalf("%+v", r)
		}
	}
	if n := w.count(ada, "script failed"); n != 3 {
		t.Errorf("six failures were told %d times:\n%s", n, w.tg.Transcript(ada))
	}
	w.sees(ada, "failure 3 in a row")
	if err := os.WriteFile(ok, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.runJob("flaky")
	w.sees(ada, "works again after 6 failed runs")
	w.runJob("flaky")
	if n := len(w.tg.Replies(ada)); n != 4 {
		t.Errorf("%d messages:\n%s", n, w.tg.Transcript(ada))
	}
}

// A platform that is away delays a result and loses nothing; a chat that is
// closed to the bot ends its delivery, with the reason in every view.
func TestWhereAResultCannotGo(t *testing.T) {
	w := withJobs(t, options{})
	w.script("say.sh", "echo the result\n", 0o644)
	w.start()
	w.must("cron", "create", "every 1h", "--no-agent", "--script", "say.sh", "--deliver", "telegram", "--name", "say")
	w.tg.GoDark()
	w.must("cron", "run", "say")
	w.eventually("the delivery waits with a reason", func() bool {
		r := w.lastRun("say")
		return r.State == domain.RunOK && r.Delivery == "retrying" && strings.Contains(r.Reason, "is tried again")
	})
	if out := w.must("cron", "list"); !strings.Contains(out, "Delivery:  retrying") || !strings.Contains(out, "Last run:") {
		t.Errorf("list said:\n%s", out)
	}
	if err := w.tg.ComeBack(); err != nil {
		t.Fatal(err)
	}
	w.sees(ada, "the result")
	w.eventually("the delivery has its receipt", func() bool { r := w.lastRun("say"); return r.Delivery == "sent" && len(r.Receipts) == 1 })

	w.tg.Forbid(ada, "bot was blocked by the user")
	if r := w.runJob("say"); r.State != domain.RunOK || r.Delivery != "dead" || !strings.Contains(r.Reason, "blocked") {
		t.Errorf("%+v", r)
	}
	for _, args := range []string{"cron list", "cron runs say", "cron status"} {
		if out := w.must(strings.Fields(args)...); !strings.Contains(out, "blocked") {
			t.Errorf("%s does not say why:\n%s", args, out)
		}
	}
}

// A job that fails is the job's fault: status goes on to say that the gateway is
// healthy, and names the job until it succeeds.
func TestStatusNamesAFailingJob(t *testing.T) {
	w := withJobs(t, options{})
	w.script("check.sh", "exit 3\n", 0o644)
	w.start()
	w.must("cron", "create", "every 1h", "--no-agent", "--script", "check.sh", "--name", "check")
	if r := w.runJob("check"); r.State != domain.RunFailed {
		t.Fatalf("%+v", r)
	}
	if out := w.must("gateway", "status"); !strings.Contains(out, "running and healthy") || !strings.Contains(out, "the last run failed of: check") {
		t.Errorf("status said:\n%s", out)
	}
	w.script("check.sh", "echo well\n", 0o644)
	w.runJob("check")
	if out := w.must("gateway", "status"); strings.Contains(out, "check") {
		t.Errorf("status still said:\n%s", out)
	}
}

// With no gateway, `cron run` performs a job of the agent itself, with a model
// and provider of the job's own, and sends what it says.
func TestAnAgentJobWithoutAGateway(t *testing.T) {
	own, err := llm.Start(func(r llm.Request) llm.Reply {
		last := r.Messages[len(r.Messages)-1]
		if last.Role == "tool" {
			return llm.Reply{Text: "own model, tool said: " + last.Text()}
		}
		return llm.Reply{ToolCalls: []llm.ToolCall{{Name: "terminal", Arguments: `{"command":"echo session=$HERMES_CRON_SESSION to=$HERMES_CRON_AUTO_DELIVER_CHAT_ID"}`}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	w := withJobs(t, options{config: fmt.Sprintf("custom_providers:\n  - name: lab\n    base_url: %s\n    models: [lab-1]\n", own.URL())})
	w.script("other.sh", "echo the other one\n", 0o644)
	w.must("cron", "create", time.Now().UTC().Add(-30*time.Second).Format(time.RFC3339), "--no-agent", "--script", "other.sh", "--deliver", "telegram", "--name", "other")
	w.must("cron", "create", "every 1h", "Say something", "--deliver", "telegram", "--name", "agent", "--provider", "lab")
	out := w.must("cron", "run", "agent")
	if !strings.Contains(out, "ran here") || !strings.Contains(out, "Delivered.") {
		t.Errorf("run said:\n%s", out)
	}
	w.sees(ada, "own model, tool said")
	if m := w.sees(ada, "session=cron_"); !strings.Contains(m.Text, fmt.Sprintf("to=%d", ada)) {
		t.Errorf("the tool saw %s", m.Text)
	}
	if n := len(w.brain.Requests()); n != 0 {
		t.Errorf("the profile's own model was asked %d times", n)
	}
	w.must("cron", "create", "every 1h", "Say something", "--deliver", "telegram", "--name", "plain")
	w.must("cron", "run", "plain")
	if w.sees(ada, "Cronjob Response: plain"); len(w.brain.Requests()) != 1 {
		t.Errorf("the profile's model was asked %d times", len(w.brain.Requests()))
	}
	w.must("cron", "create", "every 1h", "Say something", "--deliver", "telegram", "--name", "broken", "--provider", "xai", "--model", "grok")
	if out, code := w.run("cron", "run", "broken"); code == 0 || !strings.Contains(out, "XAI_API_KEY") {
		t.Errorf("exit %d\n%s", code, out)
	}
	w.sees(ada, "XAI_API_KEY")
	if out = w.must("cron", "status"); !strings.Contains(out, "The last run failed of: broken") {
		t.Errorf("status said:\n%s", out)
	}
	// What else was due is no business of theirs, but of tick.
	if out = w.must("cron", "runs", "other"); !strings.Contains(out, "No runs yet") {
		t.Errorf("another job was fired:\n%s", out)
	}
	if out = w.must("cron", "tick"); !strings.Contains(out, "1 run(s) performed") {
		t.Errorf("tick said:\n%s", out)
	}
	w.sees(ada, "the other one")
}

// The jobs of the older system are taken over at the first start, once.
func TestJobsOfTheOlderSystem(t *testing.T) {
	w := withJobs(t, options{})
	old := `{"jobs":[{"id":"0123456789ab","name":"old","prompt":"hello","schedule":{"kind":"cron","expr":"0 9 * * *"},"enabled":true,"deliver":"telegram"},{"id":"ffffffffffff","name":"bad","prompt":"x","schedule":{"kind":"cron","expr":"61 9 * * *"}}]}`
	path := filepath.Join(w.home.Dir, "cron", "jobs.json")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	p := w.start()
	w.waitOutput(p, "imported=1 existed=0 refused=1")
	if out := w.must("cron", "list"); !strings.Contains(out, "0123456789ab [active]") {
		t.Errorf("list said:\n%s", out)
	}
	w.must("cron", "remove", "old")
	w.stop(p)
	p = w.start()
	if out := w.must("cron", "list", "--all"); strings.Contains(out, "0123456789ab") {
		t.Errorf("a removed job came back:\n%s", out)
	}
	if kept, err := os.ReadFile(path); err != nil || string(kept) != old {
		t.Errorf("the file was changed: %v\n%s", err, kept)
	}
	w.stop(p)
}
