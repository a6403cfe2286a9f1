package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"hermes/internal/home"
	"hermes/testkit/fault"
)

// verified is `gateway verify --json`: state and evidence by the check's name.
func (w *world) verified(args ...string) (checks map[string][2]string, code int) {
	w.t.Helper()
	text, code := w.run(append([]string{"gateway", "verify", "--json"}, args...)...)
	var got struct {
		OK     bool `json:"ok"`
		Checks []struct{ Check, State, Evidence string }
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		w.t.Fatalf("%v\n%s", err, text)
	}
	if got.OK != (code == 0) {
		w.t.Errorf("ok is %v, the exit code %d", got.OK, code)
	}
	checks = map[string][2]string{}
	for _, c := range got.Checks {
		checks[c.Check] = [2]string{c.State, c.Evidence}
	}
	return checks, code
}

// says holds a check's state and part of its evidence.
func (w *world) says(checks map[string][2]string, name, state, evidence string) {
	w.t.Helper()
	if got := checks[name]; got[0] != state || !strings.Contains(got[1], evidence) {
		w.t.Errorf("%s: %q, want %s with %q", name, got, state, evidence)
	}
}

// Each line of verify has its proof, and each can fail, with the reason.
func TestVerify(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := setUp(t, options{api: true, dir: dir, env: "TELEGRAM_HOME_CHANNEL=1001\n"})
	ann := w.tg.AddUserID(1001, "Ann")
	w.tg.Say(ann, "hello")
	p := w.start()
	w.sees(ann.ID, "hello")

	// What holds. There is no unit here, so that logout and reboot do not.
	checks, code := w.verified()
	w.says(checks, "model", "ok", "fake-1 by custom answered")
	w.says(checks, "message", "ok", "delivered to telegram:1001 (receipt ")
	w.says(checks, "API", "ok", fmt.Sprintf("http://127.0.0.1:%d/v1/models answered with its key", w.apiPort))
	w.says(checks, "next tick", "not wanted", "no job is scheduled; the scheduler runs")
	w.says(checks, "logout", "failed", "no: no unit runs it")
	w.says(checks, "reboot", "failed", "no: nothing starts it at boot")
	if code != 1 || len(checks) != 6 {
		t.Errorf("exit %d, %d checks", code, len(checks))
	}
	if n := w.count(ann.ID, "hermes gateway verify"); n != 1 {
		t.Errorf("the message arrived %d times", n)
	}
	w.script("beat.sh", "true\n", 0o600)
	if out, code := w.run("cron", "create", "every 1h", "--no-agent", "--script", "beat.sh", "--name", "beat", "--deliver", "telegram"); code != 0 {
		t.Fatal(out)
	}
	out, _ := w.run("gateway", "verify", "--no-send")
	for _, want := range []string{"✓ next tick", "beat at ", "– message", "nothing was sent", "✗ logout"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
	for line := range strings.Lines(out) {
		if utf8.RuneCountInString(strings.TrimRight(line, "\n")) > 80 && len(strings.Fields(line)) > 3 {
			t.Errorf("over 80 columns: %s", line)
		}
	}

	// What does not.
	cancel := w.tg.Fail("sendMessage", fault.Fault{Status: 403, Message: "Forbidden: bot was blocked by the user"})
	w.brain.RequireKey("another")
	env := filepath.Join(w.home.Dir, ".env")
	text, err := os.ReadFile(env)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(env, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.ReplaceAll(string(text), w.apiKey, w.newSecret("another key of the API", "api-")))
	checks, _ = w.verified()
	w.says(checks, "model", "failed", "did not answer")
	w.says(checks, "message", "failed", "blocked")
	w.says(checks, "API", "failed", "answered 401")
	cancel()

	write(strings.ReplaceAll(string(text), "TELEGRAM_HOME_CHANNEL=1001", ""))
	checks, _ = w.verified()
	w.says(checks, "message", "failed", "/sethome")

	w.stop(p)
	checks, _ = w.verified()
	w.says(checks, "gateway", "failed", "hermes gateway start")
	if _, asked := checks["API"]; asked {
		t.Error("the API of a gateway that does not run was asked")
	}
}

// A broken configuration on disk is a line of its own, and the others prove what is
// served in its place.
func TestVerifyOnTheLastHealthyConfiguration(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{api: true, env: "TELEGRAM_HOME_CHANNEL=1001\n"})
	ann := w.tg.AddUserID(1001, "Ann")
	w.tg.Say(ann, "hello")
	p := w.start()
	w.sees(ann.ID, "hello")
	profile := home.Profile{Name: home.DefaultProfile, Root: w.home.Dir, Home: w.home.Dir}
	files, err := home.ReadFiles(profile)
	if err == nil { // as the gateway notes once it has served for a while
		_, err = home.OpenHistory(profile).Healthy(files, "test", time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	w.write("config.yaml", "model: {default: x\nb: [1, 2\n")

	held := func(state string) {
		t.Helper()
		checks, code := w.verified()
		w.says(checks, "config", "failed", state)
		w.says(checks, "config", "failed", "is not valid YAML")
		w.says(checks, "config", "failed", "config rollback")
		w.says(checks, "model", "ok", "fake-1 by custom answered")
		if code != 1 {
			t.Errorf("exit %d", code)
		}
		if _, runs := checks["gateway"]; !runs {
			w.says(checks, "message", "ok", "delivered to telegram:1001 (receipt ")
			w.says(checks, "API", "ok", "answered with its key")
			w.says(checks, "next tick", "not wanted", "the scheduler runs")
		}
	}
	held("serves on the last healthy configuration since")
	w.stop(p)
	held("does not run, and would start with the last healthy configuration")
	w.start() // in safe mode
	held("serves on the last healthy configuration since")
}

// Without a healthy one nothing could serve, and there is nothing to prove.
func TestVerifyWithoutAConfiguration(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	w.write("config.yaml", "model: {default: x\nb: [1, 2\n")
	if out, code := w.run("gateway", "verify"); code != 78 || !strings.Contains(out, "is not valid YAML") {
		t.Errorf("exit %d: %s", code, out)
	}
}

// What was never wanted is no failure.
func TestVerifyWhatIsNotWanted(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	if err := os.WriteFile(filepath.Join(w.home.Dir, ".env"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.start()
	checks, _ := w.verified()
	w.says(checks, "model", "ok", "answered")
	w.says(checks, "message", "not wanted", "no chat platform is set up")
	w.says(checks, "API", "not wanted", "the API is off")
	out, code := w.run("config", "set", "model.provider", "offline")
	if code != 0 {
		t.Fatal(out)
	}
	checks, _ = w.verified()
	w.says(checks, "model", "failed", "offline stand-in")
}

// A drill is refused where nothing would bring the gateway back.
func TestDrillIsRefused(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	if out, code := w.run("gateway", "drill", "--yes"); code != 1 || !strings.Contains(out, "hermes: ") {
		t.Errorf("nothing runs: exit %d\n%s", code, out)
	}
	p := w.start()
	out, code := w.run("gateway", "drill", "--yes")
	if code != 1 || !strings.Contains(out, "so nothing would bring it back after a kill") {
		t.Errorf("no unit: exit %d\n%s", code, out)
	}
	w.stop(p)
}
