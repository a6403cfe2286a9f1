package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hermes/internal/doctor"
)

// TestHealthy holds that sound installations of every shape give no finding,
// not even advice.
func TestHealthy(t *testing.T) {
	for _, c := range []struct {
		what  string
		shape shape
		more  func(w *world)
	}{
		{"default profile: Telegram, API, model", shape{}, nil},
		{"named profile", shape{profile: "liam"}, nil},
		{"API only", shape{noBot: true}, nil},
		{"Telegram only", shape{noAPI: true}, nil},
		{"Telegram and Discord", shape{discord: true}, nil},
		{"a scheduler alone", shape{noBot: true, noAPI: true, cronOnly: true}, func(w *world) { w.job("watch", "every 1h") }},
		{"with jobs that report to Telegram", shape{}, func(w *world) {
			w.job("watch", "every 1h", "--deliver", "telegram")
			w.job("report", "0 9 * * *", "--timezone", "Asia/Seoul", "--deliver", "telegram")
			w.hermes("cron", "run", "watch")
		}},
		{"two profiles with bots and ports of their own", shape{profile: "liam"}, func(w *world) {
			w.must(writeFile(w.home.Dir+"/.env", "TELEGRAM_BOT_TOKEN=7000000001:AAF-another_bot_of_the_default_one\n"))
		}},
		{"a unit written by hand", shape{}, func(w *world) { w.unit("hermes-gateway.service", w.unitText()) }},
		{"an instance of a template", shape{profile: "liam"}, func(w *world) {
			w.unit("hermes-gateway@.service", strings.Replace(w.unitText(), "--profile liam", "--profile %i", 1))
		}},
		{"a template with a scheduler beside it", shape{profile: "liam"}, func(w *world) {
			w.unit("hermes-gateway@.service", strings.Replace(w.unitText(), "--profile liam", "--profile %i", 1))
			w.unit("hermes-cron@.service", strings.NewReplacer("--profile liam", "--profile %i", "gateway run", "cron run").Replace(w.unitText()))
		}},
		{"after a conversation and a restart", shape{}, func(w *world) {
			ada := w.tg.AddUser("Ada")
			w.tg.Say(ada, "hello")
			w.until("an answer", func() bool { return len(w.tg.Replies(ada.ID)) > 0 })
			w.hermes("gateway", "restart")
		}},
		{"voice messages are transcribed", shape{}, func(w *world) {
			w.add("config.yaml", "stt:\n  base_url: "+w.brain.URL()+"\n")
			w.add(".env", "VOICE_TOOLS_OPENAI_KEY="+modelKey+"\n")
			w.hermes("gateway", "restart")
		}},
		{"after a crash and a start", shape{}, func(w *world) { w.procs[0].Kill(); w.start() }},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			w := setUp(t, c.shape)
			if c.more != nil {
				c.more(w)
			}
			w.well(nil)
			if out := w.shown(nil); !strings.Contains(out, "nothing is wrong") {
				t.Errorf("a person reads:\n%s", out)
			}
		})
	}
}

// TestHealthyContainer holds that a gateway which is the first process of a
// container, and is asked about from within, gives no finding.
func TestHealthyContainer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make a container here")
	}
	w := setUp(t, shape{unstarted: true})
	program, inside := w.home.Binary, *w.home
	inside.Binary = "unshare"
	p, err := inside.StartArgs(nil, "--pid", "--fork", "--kill-child", "--mount-proc", program, "gateway", "run")
	w.must(err)
	w.keep(p)
	w.must(p.Ready(w.deadline()))
	pid := p.Cmd.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	w.must(err)
	wrapper := filepath.Join(w.dir, "bin", "within")
	w.must(os.WriteFile(wrapper, fmt.Appendf(nil, "#!/bin/sh\nexec nsenter -t %s -p -m %s \"$@\"\n", strings.TrimSpace(string(children)), program), 0o755))
	w.home.Binary = wrapper
	if s := w.status(); s.PID != 1 {
		t.Errorf("the gateway is PID %d of its container", s.PID)
	}
	w.well(nil)
}

// TestFix holds that --fix mends what is safe, says each, and is safe twice.
func TestFix(t *testing.T) {
	w := setUp(t, shape{})
	w.must(os.Chmod(w.path(".env"), 0o644))
	w.must(os.Chmod(w.path(), 0o777))
	w.add("config.yaml", "agent:\n  max_turns: many\n") // which is not safe to mend
	out, _ := w.home.Run(w.deadline(), "doctor", "--fix")
	w.search("doctor --fix", out)
	if !strings.Contains(out, "✓ mended: chmod 700") || !strings.Contains(out, "max_turns") || strings.Contains(out, "can change the files") {
		t.Errorf("--fix says:\n%s", out)
	}
	if info, err := os.Stat(w.path(".env")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if out, _ := w.home.Run(w.deadline(), "doctor", "--fix"); strings.Contains(out, "mended") {
		t.Errorf("the second time it says:\n%s", out)
	}
}

// TestRunbookUnit holds that the unit of the operators' guides gets advice, and
// no worse: it must work as it stands.
func TestRunbookUnit(t *testing.T) {
	w := setUp(t, shape{profile: "liam"})
	w.unit("hermes-gateway@.service", fmt.Sprintf(runbookUnit, w.dir, w.dir, w.dir))
	r := w.doctor()
	for _, f := range r.Findings {
		if f.Severity != doctor.Advice {
			t.Errorf("%s: %s", f.ID, f.What)
		}
	}
	if !r.Healthy || len(r.Findings) != 2 {
		t.Errorf("healthy %v:\n%s", r.Healthy, w.shown(nil))
	}
}

// runbookUnit is what operators write, in this home.
const runbookUnit = `[Unit]
Description=Hermes Agent Gateway (profile: %%i)
After=network-online.target
Wants=network-online.target
[Service]
Type=simple
ExecStart=%s/bin/hermes --profile %%i gateway run
Restart=always
RestartSec=10
StartLimitInterval=60
StartLimitBurst=3
Environment="HERMES_HOME=%s/.hermes"
EnvironmentFile=-%s/.hermes/profiles/%%i/.env
StandardOutput=journal
StandardError=journal
SyslogIdentifier=hermes-gateway-%%i
TimeoutStopSec=20
[Install]
WantedBy=default.target
`
