package service

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
)

var update = flag.Bool("update", false, "write the golden units anew")

var ada = Account{Name: "ada", Group: "ada", Home: "/home/ada", UID: 1000}

// spec is a unit of ada's, in her standard home.
func spec(profile string, change func(*Spec)) Spec {
	p, err := home.Named("/home/ada/.hermes", profile)
	if err != nil {
		panic(err)
	}
	s := Spec{Kind: Gateway, Profile: p, Account: ada, Binary: "/usr/local/bin/hermes", Path: "/usr/local/bin:/usr/bin:/bin", Ready: Notify}
	if change != nil {
		change(&s)
	}
	return s
}

func TestRender(t *testing.T) {
	for name, s := range map[string]Spec{
		"hermes-gateway.service":      spec("default", nil),
		"hermes-gateway-liam.service": spec("liam", nil),
		"hermes-gateway@.service":     spec("liam", func(s *Spec) { s.Template = true }),
		"hermes-cron@.service":        spec("liam", func(s *Spec) { s.Template, s.Kind = true, Cron }),
		"hermes-cron-liam.service":    spec("liam", func(s *Spec) { s.Kind = Cron }),
		"system.service":              spec("default", func(s *Spec) { s.System = true }),
		"simple.service":              spec("default", func(s *Spec) { s.Ready = Simple }),
		"odd-paths.service": spec("default", func(s *Spec) {
			s.Binary, s.Path = "/opt/my tools/100%/$x/hermes", `/opt/a "b"\c/%h:/bin`
		}),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := s.Render()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, got)
			if strings.HasPrefix(name, "hermes-") && s.Name() != name {
				t.Errorf("Name() = %s", s.Name())
			}
			if OriginOf(got) != Generated {
				t.Error("its own seal is not known again")
			}
			if s.Kind == Gateway {
				if found := Lint(name, got, s.System); len(found) > 0 {
					t.Errorf("our own unit has findings: %q", found)
				}
			}
		})
	}
}

// golden holds a text to the file of its name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("not as the golden file:\n%s", Diff(string(want), got))
	}
}

// The rescue unit is of one piece with what names it.
func TestRenderRescue(t *testing.T) {
	for name, s := range map[string]Spec{
		"hermes-rescue@.service":     spec("liam", nil),
		"hermes-rescue-ada@.service": spec("liam", func(s *Spec) { s.System = true }),
	} {
		text, err := s.RenderRescue()
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, text)
		unit, err := s.Render()
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Replace(name, "@.", "@%n.", 1)
		for _, text := range []string{unit, AdoptText(s)} {
			if got := Value(Parse(text), "Unit", "OnFailure"); got != want {
				t.Errorf("OnFailure=%s, and the file is %s", got, name)
			}
		}
	}
}

// The rescue unit stays while anything names it.
func TestRescueGoesWithTheLast(t *testing.T) {
	h := Host{UserUnits: t.TempDir()}
	put := func(name, text string) string {
		path := filepath.Join(h.UserUnits, name)
		if err := replaceFile(path, text); err != nil {
			t.Fatal(err)
		}
		return path
	}
	text, err := spec("liam", nil).RenderRescue()
	if err != nil {
		t.Fatal(err)
	}
	rescue := put("hermes-rescue@.service", text)
	adopted := put("mine@.service.d/05-hermes.conf", AdoptText(spec("liam", nil)))
	put("other.service", "[Unit]\nOnFailure=mail@%n.service\n")
	op := Operation{Say: func(string, ...any) {}}
	for _, there := range []bool{true, false} {
		if err := h.removeRescue(op, time.Now()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(rescue); (err == nil) != there {
			t.Errorf("the rescue unit: %v, want it there: %v", err, there)
		}
		if err := os.Remove(adopted); there && err != nil {
			t.Fatal(err)
		}
	}
}

func TestRenderRefusesWhatBreaksALine(t *testing.T) {
	for _, path := range []string{"hermes", "", "/a\nExecStart=/bin/sh"} {
		if _, err := spec("default", func(s *Spec) { s.Binary = path }).Render(); !domain.IsCode(err, domain.Invalid) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestNames(t *testing.T) {
	other, _ := home.Named("/srv/agents", "liam")
	s := spec("liam", func(s *Spec) { s.Profile = other })
	if n := s.Name(); n == "hermes-gateway-liam.service" || !strings.HasPrefix(n, "hermes-gateway-") {
		t.Errorf("a home of another place shares the name %s", n)
	}
	if got := spec("liam", func(s *Spec) { s.Template = true }).Instance(); got != "hermes-gateway@liam.service" {
		t.Errorf("Instance() = %s", got)
	}
}

func TestAdoptText(t *testing.T) {
	for _, c := range []struct {
		ready Readiness
		key   string
		want  string
	}{{Notify, "Type", "notify"}, {Notify, "WatchdogSec", watchdog}, {Simple, "Type", ""}, {Simple, "RestartForceExitStatus", "75"}, {Notify, "RestartPreventExitStatus", "78"}} {
		text := AdoptText(spec("default", func(s *Spec) { s.Ready = c.ready }))
		if got := Value(Parse(text), "Service", c.key); got != c.want {
			t.Errorf("%s: %s=%s, want %s", c.ready, c.key, got, c.want)
		}
		if OriginOf(text) != Generated {
			t.Error("the drop-in has no seal")
		}
	}
}

func TestOrigin(t *testing.T) {
	text, err := spec("default", nil).Render()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		want Origin
	}{
		"as written": {text, Generated},
		"a value":    {strings.Replace(text, "RestartSec=1s", "RestartSec=9s", 1), Edited},
		"a line":     {text + "Nice=5\n", Edited},
		"a comment":  {"# mine\n" + text, Edited},
		"by hand":    {"[Service]\nExecStart=/bin/true\n", Foreign},
		"empty":      {"", Foreign},
	} {
		if got := OriginOf(c.text); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestParse(t *testing.T) {
	got := Parse("; comment\n[Service]\nExecStart=/bin/a \\\n# between\n  b c\n Restart = always \nRestart=no\nbroken\n[Install]\nWantedBy=x=y\n")
	want := []Entry{{"Service", "ExecStart", "/bin/a  b c", 3}, {"Service", "Restart", "always", 6}, {"Service", "Restart", "no", 7}, {"Install", "WantedBy", "x=y", 10}}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
	if v := Value(got, "Service", "Restart"); v != "no" {
		t.Errorf("the last assignment counts, not %s", v)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[Service]\nExecStart=/bin/a \\\n b\n")
	f.Add("\\\n=\n[\n]")
	f.Fuzz(func(t *testing.T, text string) {
		for _, e := range Parse(text) {
			if strings.ContainsAny(e.Key+e.Value, "\n") || e.Line < 1 {
				t.Errorf("%+v", e)
			}
		}
		if !Same(text, text) {
			t.Error("not the same as itself")
		}
		_ = Lint("x.service", text, false)
	})
}

func TestDiff(t *testing.T) {
	if got := Diff("a\nb\nc\n", "a\nx\nc\nd\n"); got != " a\n-b\n+x\n c\n+d\n" {
		t.Errorf("%q", got)
	}
	if got := Diff("a\n", "a\n"); got != " a\n" {
		t.Errorf("%q", got)
	}
}

func TestUnitIn(t *testing.T) {
	for text, want := range map[string]struct {
		unit       string
		system, ok bool
	}{
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/hermes-gateway.service\n":                             {"hermes-gateway.service", false, true},
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-hermes.slice/hermes-gateway@liam.service/child\n": {"hermes-gateway@liam.service", false, true},
		"0::/system.slice/hermes-gateway.service\n":                                                                       {"hermes-gateway.service", true, true},
		"12:pids:/x.service\n1:name=systemd:/system.slice/a.service\n":                                                    {"a.service", true, true},
		"0::/user.slice/user-1000.slice/session-3.scope\n":                                                                {},
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-u7.scope\n":                                       {},
		"0::/\n": {},
		"":       {},
	} {
		unit, system, ok := unitIn(text)
		if unit != want.unit || ok != want.ok || ok && system != want.system {
			t.Errorf("%s: %q %v %v", text, unit, system, ok)
		}
	}
}

func TestStopExitCode(t *testing.T) {
	for _, c := range []struct {
		active string
		main   int
		want   int
	}{{"deactivating", 7, ExitOK}, {"active", 7, ExitRestart}, {"reloading", 7, ExitRestart}, {"active", 8, ExitOK}, {"inactive", 0, ExitOK}, {"failed", 7, ExitOK}} {
		if got := strayKillCode(Unit{Active: c.active, MainPID: c.main}, 7); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	if got := StopExitCode(t.Context(), func(string) string { return "" }); got != ExitOK {
		t.Errorf("without a manager: %d", got)
	}
}

func TestSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{"1min 30s": 90 * time.Second, "10min": 10 * time.Minute, "100ms": 100 * time.Millisecond, "1.5s": 1500 * time.Millisecond, "infinity": 0, "": 0, "5": 0, "x": 0} {
		if got := span(text); got != want {
			t.Errorf("span(%q) = %s", text, got)
		}
	}
	if got := delayOf("60"); got != time.Minute {
		t.Errorf("delayOf(60) = %s", got)
	}
}

func TestParseShow(t *testing.T) {
	u := parseShow("Id=hermes-gateway@liam.service\nLoadState=loaded\nActiveState=activating\nSubState=auto-restart\nMainPID=0\nNRestarts=3\nTimeoutStopUSec=1min\nStartLimitBurst=5\nStartLimitIntervalUSec=10min\nStateChangeTimestamp=@1700000000\nDropInPaths=/a/x.conf /a/y.conf\nEnvironment=HERMES_HOME=/home/ada/.hermes \"PATH=/a b:/c\" X=\n")
	if u.Name != "hermes-gateway@liam.service" || u.Sub != "auto-restart" || u.Restarts != 3 || u.StopTimeout != time.Minute || len(u.DropIns) != 2 || u.Since.Unix() != 1700000000 {
		t.Errorf("%+v", u)
	}
	if len(u.Environment) != 3 || u.Environment[1] != "PATH=/a b:/c" {
		t.Errorf("%q", u.Environment)
	}
	if got := HomeOf(u); got != "/home/ada/.hermes" {
		t.Errorf("home %s", got)
	}
}

func TestStartsLeft(t *testing.T) {
	now := time.Unix(10000, 0)
	base := Unit{LimitSpan: 10 * time.Minute, LimitBurst: 5, Since: now.Add(-time.Minute), Active: "active", Restart: "always"}
	for _, c := range []struct {
		change func(*Unit)
		want   int
	}{
		{func(*Unit) {}, 4},
		{func(u *Unit) { u.Restarts = 2 }, 2},
		{func(u *Unit) { u.Restarts = 200 }, 0},
		{func(u *Unit) { u.Restarts, u.Since = 200, now.Add(-time.Hour) }, 5},
		{func(u *Unit) { u.Result = "start-limit-hit" }, 0},
		{func(u *Unit) { u.Active, u.Restarts = "failed", 5 }, 0},
		{func(u *Unit) { u.LimitSpan = 0 }, -1},
	} {
		u := base
		c.change(&u)
		if got := StartsLeft(u, now); got != c.want {
			t.Errorf("%+v: %d, want %d", u, got, c.want)
		}
	}
}

func TestExplain(t *testing.T) {
	for want, u := range map[string]Unit{
		"reset-failed x":            {Name: "x", Result: "start-limit-hit", LimitBurst: 3, System: true},
		"configuration is unusable": {Name: "x", Active: "failed", ExitStatus: ExitConfig, Restart: "always"},
		"cannot be run":             {Name: "x", Active: "failed", ExitStatus: 203},
		"systemd-analyze verify":    {Name: "x", Load: "bad-setting"},
	} {
		if got := Explain(u); !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
}

func TestLint(t *testing.T) {
	for want, text := range map[string]string{
		"belongs in [Unit]":     "[Service]\nStartLimitInterval=60\n",
		"network-online.target": "[Unit]\nAfter=network-online.target\n",
		"lacks its @":           "[Service]\nExecStart=/bin/hermes -p %i gateway run\n",
		"RestartSteps=":         "[Service]\nRestartSteps=20\n",
		"leaves the gateway":    "[Service]\nRestart=always\nRestartSec=60\n",
		"100 ms":                "[Service]\nRestart=always\n",
		"nothing starts":        "[Service]\nExecStart=/bin/x\n",
		"StartLimitIntervalSec": "[Service]\nRestart=always\nRestartSec=5\n",
		"allows one start":      "[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=3\nStartLimitBurst=1\n[Service]\nRestart=always\nRestartSec=5\n",
		"line 2: Restart= is ignored in [Unit]; it belongs in [Service]": "[Unit]\nRestart=always\n",
	} {
		got := ""
		for _, f := range Lint("hermes-gateway.service", text, false) {
			got += f.String() + "\n"
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
}

// The file of an operator is looked at before anything is written, and a copy
// is kept of what is replaced.
func TestMayWrite(t *testing.T) {
	dir := t.TempDir()
	text, err := spec("default", nil).Render()
	if err != nil {
		t.Fatal(err)
	}
	f := Rendered{Name: "u.service", Path: filepath.Join(dir, "u.service"), Text: text}
	var said []string
	o := InstallOptions{Spec: spec("default", nil), Now: func() time.Time { return time.Unix(0, 0) }, Say: func(s string, args ...any) { said = append(said, s) }}
	mine := strings.Replace(text, "RestartSec=1s", "RestartSec=9s", 1)
	if err := os.WriteFile(f.Path, []byte(mine), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := mayWrite(f, o); !domain.IsCode(err, domain.Conflict) || len(said) == 0 {
		t.Fatalf("%v, said %q", err, said)
	}
	o.Force = true
	if err := mayWrite(f, o); err != nil {
		t.Fatal(err)
	}
	if err := write(f, o); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(f.Path + ".bak-19700101T000000Z")
	if err != nil || string(kept) != mine {
		t.Errorf("the copy: %v", err)
	}
	if now, err := os.ReadFile(f.Path); err != nil || string(now) != text {
		t.Errorf("the unit: %v", err)
	}
}
