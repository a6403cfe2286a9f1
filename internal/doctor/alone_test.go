package doctor

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"hermes/internal/control"
	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/secret"
)

// The findings that no installation of the fault corpus brings about, each by
// the facts that lead to it.
func TestFindingsOutsideTheCorpus(t *testing.T) {
	p := home.Profile{Name: "default", Root: "/nowhere", Home: "/nowhere"}
	cfg := &home.Config{}
	cfg.API.Enabled, cfg.API.Host, cfg.API.Port = true, "127.0.0.1", 8642
	served := func(parts ...health.Part) gatewayFacts {
		s := &control.Status{State: "running", PID: 1 << 30, Parts: parts}
		s.API.Enabled, s.API.Address = true, "http://127.0.0.1:8642"
		return gatewayFacts{Status: s}
	}
	for _, c := range []struct {
		id, fix string
		facts   Case
		look    check
	}{
		{"service.ledger_network", "mv /nowhere <a folder on a local disk>", Case{Ledger: ledgerFacts{Inspection: sqlite.Inspection{Exists: true, Network: "nfs"}}}, checkLedger},
		{"service.ledger_large", "hermes sessions prune --older-than 90", Case{Ledger: ledgerFacts{Inspection: sqlite.Inspection{Exists: true, Bytes: largeLedger + 1}}}, checkLedger},
		{"service.api_silent", "hermes gateway restart", Case{Gateway: served(), API: apiFacts{Asked: true, Address: "127.0.0.1:8642", Err: errors.New("i/o timeout")}}, checkPort},
		{"scheduler.degraded", "hermes cron status", Case{Gateway: served(health.Part{Name: "cron", State: health.Degraded, Code: "behind", Message: "as many runs are going as may at once"}), Ledger: ledgerFacts{Cron: &cron.Status{Running: true}}}, checkScheduler},
		{"service.start_waits", "hermes logs errors -n 50", Case{Gateway: gatewayFacts{Status: &control.Status{State: "starting", Parked: true, Problems: []string{"no room"}}}}, checkParked},
		{"provider.speech_failed", "hermes config set stt.model <model> && hermes gateway restart", Case{Gateway: served(health.Part{Name: "speech", State: health.Degraded, Message: "no such model"})}, (*Case).lastSpeech},
		{"provider.auth_file", "mv /nowhere/auth.json /nowhere/auth.json.broken && hermes gateway run", Case{Problems: home.Problems{{Severity: home.Warning, File: "/nowhere/auth.json", Message: "is not the JSON that was expected"}}}, checkProblems},
	} {
		one := c.facts
		one.Profile, one.Config, one.redactor = p, cfg, secret.NewRedactor()
		one.Options = Options{Now: time.Now, Binary: "/usr/bin/hermes", Request: home.Request{Env: func(string) (string, bool) { return "", false }, UserHome: "/nowhere"}}
		if found := c.look(&one); len(found) != 1 || found[0].ID != c.id || found[0].Fix != c.fix || found[0].What == "" || found[0].Means == "" {
			t.Errorf("%s: %+v", c.id, found)
		}
	}
}

// A name that no profile can have is told from one that does not exist yet.
func TestBadName(t *testing.T) {
	r := Examine(t.Context(), Options{Local: true, Request: home.Request{Flag: "Bad Name!", FlagSet: true, Env: func(string) (string, bool) { return "", false }, UserHome: t.TempDir()}})
	if len(r.Findings) != 1 || r.Findings[0].ID != "profile.bad_name" || r.Findings[0].Fix != "hermes profile list" {
		t.Errorf("%+v", r.Findings)
	}
}

// A scheduler alone that is suspended is told to go on; one that is stuck is
// ended and started, since nothing would answer a request to restart.
func TestSchedulerAnew(t *testing.T) {
	cmd := exec.Command("sleep", "300")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	c := &Case{Profile: home.Profile{Name: "default"}}
	if got, want := c.schedulerAnew(cmd.Process.Pid), fmt.Sprintf("kill %d && hermes cron run", cmd.Process.Pid); got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); processState(cmd.Process.Pid) != "T"; {
		if time.Now().After(end) {
			t.Fatal("it is not stopped")
		}
	}
	if got, want := c.schedulerAnew(cmd.Process.Pid), fmt.Sprintf("kill -CONT %d", cmd.Process.Pid); got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if got := c.schedulerAnew(0); got != "hermes gateway restart" {
		t.Error(got)
	}
}

// Only a gateway of the older system is taken for one.
func TestOlderCommand(t *testing.T) {
	for _, c := range []struct {
		want bool
		args []string
	}{
		{true, []string{"python3", "-m", "hermes_cli.main", "gateway", "run"}},
		{true, []string{"/opt/venv/bin/python3.12", "/home/ada/.local/bin/hermes", "-p", "liam", "gateway", "run"}},
		{false, []string{"/usr/local/bin/hermes", "gateway", "run"}},
		{false, []string{"python3", "/home/ada/hermes-report.py", "gateway"}},
		{false, []string{"python3", "-m", "hermes_cli.main", "chat"}},
		{false, []string{"vim", "hermes_cli/main.py"}},
		{false, []string{"/bin/sh", "/usr/local/bin/hermes", "gateway", "run"}}, // a wrapper of ours
		{false, nil},
	} {
		if got := olderCommand(c.args); got != c.want {
			t.Errorf("%q: %v", c.args, got)
		}
	}
	own := olderGateway{Tokens: map[domain.Platform]secret.Value{"telegram": "a"}}
	cfg := &home.Config{Platforms: map[domain.Platform]home.PlatformConfig{"telegram": {Enabled: true, Token: "a"}, "discord": {Enabled: true}}}
	if got := (&Case{Config: cfg}).sharedBot(own); got != "telegram" {
		t.Errorf("the shared bot is %q", got)
	}
	own.Tokens["telegram"] = "b"
	if got := (&Case{Config: cfg}).sharedBot(own); got != "" {
		t.Errorf("a bot of its own is shared on %q", got)
	}
}
