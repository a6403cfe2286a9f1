package systemd

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/recordings/setup.txt anew")

// recording is where the set-up of a machine is kept as text.
const recording = "../../docs/recordings/setup.txt"

// passing is what differs from one run to the next, and what stands for it.
var passing = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`http://127\.0\.0\.1:(\d{5})`), "http://127.0.0.1:NNNNN"},
	{regexp.MustCompile(`PID \d+`), "PID NNN"},
	{regexp.MustCompile(`(answered "[^"]*" in|after|took) [0-9.]+ ?(ms|s)`), "$1 N s"},
	{regexp.MustCompile(`receipt \d+`), "receipt N"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?`), "DATE"},
	{regexp.MustCompile(` +\n`), "\n"},
}

// From nothing to a service that is proved: what an operator types and sees, by
// answers alone, is what docs/recordings/setup.txt shows. -update writes it.
func testFromNothing(t *testing.T, w *world) {
	p := w.newProfile(t, "default", 8642)
	p.unit = "hermes-gateway.service"
	p.onFailure()
	person := p.tg.AddUser("Ann")
	var text strings.Builder
	text.WriteString("# A machine without anything of hermes but the program: what is typed, and what is\n# seen. What differs from run to run is replaced.\n")
	kept := map[string]string{w.program: "/usr/local/bin/hermes", spare: "/usr/local/bin/hermes", w.user.Home: "/home/ann", w.user.Name: "ann", fmt.Sprint(person.ID): "1001"}
	run := func(typed, command string) string {
		out := w.user.Run(t, "export PATH=/opt/"+w.user.Name+":$PATH; "+command)
		fmt.Fprintf(&text, "\n$ %s\n%s", typed, out)
		return out
	}
	answers := []string{"messaging", "custom", "fake", w.brain.URL(), "a-key-of-the-model", "telegram", p.tg.Token(), fmt.Sprint(person.ID), "done", "local", "8642", "", "y", "y"}
	out := run("hermes setup", fmt.Sprintf("printf '%%s\\n' '%s' | hermes setup --set TELEGRAM_BASE_URL=%s 2>&1", strings.Join(answers, "' '"), p.tg.URL()))
	want(t, out, "✓ telegram is @hermes_test_bot.", "✓ Written: ", "hermes-gateway.service", "Lingering is on", "✓ Started hermes-gateway", "✓ model", "✓ message", "✓ API", "✓ logout", "✓ reboot")
	out = run("hermes setup --non-interactive", "hermes setup --non-interactive 2>&1")
	want(t, out, "It was set up like this already; no file was changed.", "✓ reboot")
	run("hermes gateway status | head -n 1", "hermes gateway status | head -n 1")
	w.user.Run(t, "systemctl --user disable --now hermes-gateway.service")
	got := text.String()
	for _, s := range []string{"a-key-of-the-model", p.tg.Token()} {
		if strings.Contains(got, s) {
			t.Errorf("the recording shows the secret %s", s)
		}
	}
	for from, to := range kept {
		got = strings.ReplaceAll(got, from, to)
	}
	for _, one := range passing {
		got = one.re.ReplaceAllString(got, one.with)
	}
	if *update {
		if err := os.MkdirAll("../../docs/recordings", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(recording, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	shown, err := os.ReadFile(recording)
	if err != nil || string(shown) != got {
		t.Errorf("docs/recordings/setup.txt is not what was seen (-update writes it): %v\n%s", err, got)
	}
}
