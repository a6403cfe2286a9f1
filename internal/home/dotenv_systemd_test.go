package home

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// systemd's generator for environment.d parses with the code of
// EnvironmentFile=, and prints what it read; only "$" is treated otherwise
// there, so no value here has one.
const systemdReader = "/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator"

func TestSystemdReadsTheSameValues(t *testing.T) {
	if _, err := exec.LookPath(systemdReader); err != nil {
		t.Skip("no systemd here to compare with: " + err.Error())
	}
	values := []string{
		`b`, `b c  `, `  b`, `"b c"`, `"q \"x\" \n y"`, `'s "x" \n'`, `a\ b\"c`, "ab\\\ncd", "\"a\nb\"", "'a\nb'", `a"b"c`, `"a"'b'`, `a#b`, `"a # b"`,
		`a=b==`, `größe`, `"a\\b"`, `a\\b`, `'it''s'`, `"a"b`, `a;b`, "\"a\\\nb\"", `http://x:1/y?z=1&b`, `-1001`, `"  x  "`,
	}
	var file strings.Builder
	for i, v := range values {
		fmt.Fprintf(&file, "HT_%d=%s\n", i, v)
	}
	dir := t.TempDir()
	write(t, dir+"/environment.d/test.conf", file.String())
	cmd := exec.Command(systemdReader)
	cmd.Env = []string{"XDG_CONFIG_HOME=" + dir, "HOME=" + dir, "LANG=C.UTF-8"}
	out, err := cmd.Output()
	if err != nil {
		t.Skip("systemd's generator does not run here: " + err.Error())
	}
	theirs := map[string]string{}
	for _, line := range strings.Split(string(out), "\n") {
		if name, v, ok := strings.Cut(line, "="); ok {
			theirs[name] = unshell(v)
		}
	}
	ours, _ := ParseEnv(".env", []byte(file.String()))
	for i, written := range values {
		name := fmt.Sprintf("HT_%d", i)
		v, _, _ := ours.Lookup(name)
		if theirs[name] != v {
			t.Errorf("%q: systemd reads %q, we read %q", written, theirs[name], v)
		}
	}
}

// unshell undoes the quoting of the generator's output.
func unshell(s string) string {
	body, ok := strings.CutPrefix(s, `"`)
	if !ok {
		return s
	}
	body = strings.TrimSuffix(body, `"`)
	var out strings.Builder
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' || i+1 == len(body) {
			out.WriteByte(body[i])
			continue
		}
		i++
		if body[i] == 'n' {
			out.WriteByte('\n')
		} else {
			out.WriteByte(body[i])
		}
	}
	return out.String()
}
