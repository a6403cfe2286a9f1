package home

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hermes/internal/domain"
)

// lookupIn makes an environment of a map.
func lookupIn(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

func mkdir(t *testing.T, elem ...string) string {
	t.Helper()
	dir := filepath.Join(elem...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestResolve(t *testing.T) {
	user := t.TempDir()
	std := filepath.Join(user, ".hermes")
	other := t.TempDir()
	mkdir(t, std, "profiles", "liam")
	mkdir(t, std, "profiles", "drj")
	mkdir(t, other, "profiles", "liam")
	empty, liam := ptr(""), ptr("liam")
	tests := []struct {
		name   string
		flag   *string
		env    map[string]string
		sticky string // content of <std>/active_profile
		want   Profile
		code   domain.Code
	}{
		{name: "nothing", want: Profile{"default", std, std}},
		{name: "flag", flag: liam, want: Profile{"liam", std, filepath.Join(std, "profiles/liam")}},
		{name: "empty flag, as a unit without @ gives it", flag: empty, sticky: "liam", want: Profile{"default", std, std}},
		{name: "hand-written unit: HERMES_HOME is the root", flag: liam, env: map[string]string{"HERMES_HOME": other}, want: Profile{"liam", other, filepath.Join(other, "profiles/liam")}},
		{name: "generated unit: HERMES_HOME is the profile", flag: liam, env: map[string]string{"HERMES_HOME": filepath.Join(other, "profiles/liam")}, want: Profile{"liam", other, filepath.Join(other, "profiles/liam")}},
		{name: "flag beside another profile's HERMES_HOME", flag: liam, env: map[string]string{"HERMES_HOME": filepath.Join(std, "profiles/drj")}, want: Profile{"liam", std, filepath.Join(std, "profiles/liam")}},
		{name: "HERMES_HOME is a profile", env: map[string]string{"HERMES_HOME": filepath.Join(other, "profiles/liam")}, sticky: "drj", want: Profile{"liam", other, filepath.Join(other, "profiles/liam")}},
		{name: "HERMES_HOME is a root", env: map[string]string{"HERMES_HOME": other}, sticky: "drj", want: Profile{"default", other, other}},
		{name: "HERMES_HOME with a tilde and a slash", env: map[string]string{"HERMES_HOME": "~/.hermes/"}, want: Profile{"default", std, std}},
		{name: "HERMES_HOME under the standard root", env: map[string]string{"HERMES_HOME": filepath.Join(std, "x")}, want: Profile{"default", std, filepath.Join(std, "x")}},
		{name: "sticky", sticky: "drj\n", want: Profile{"drj", std, filepath.Join(std, "profiles/drj")}},
		{name: "sticky default", sticky: "default", want: Profile{"default", std, std}},
		{name: "suffix", env: map[string]string{"HERMES_DATA_DIR_SUFFIX": "-dev"}, want: Profile{"default", std + "-dev", std + "-dev"}},
		{name: "no such profile", flag: ptr("jeff"), code: domain.Config},
		{name: "sticky names none", sticky: "jeff", code: domain.Config},
		{name: "impossible name", flag: ptr("../liam"), code: domain.Invalid},
		{name: "upper case", flag: ptr("Liam"), code: domain.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sticky := filepath.Join(std, "active_profile")
			os.Remove(sticky)
			if tt.sticky != "" {
				write(t, sticky, tt.sticky)
			}
			r := Request{Env: lookupIn(tt.env), UserHome: user}
			if tt.flag != nil {
				r.Flag, r.FlagSet = *tt.flag, true
			}
			got, err := Resolve(r)
			if domain.CodeOf(err) != tt.code {
				t.Fatalf("error %v, want code %q", err, tt.code)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if tt.code == domain.Config && !strings.Contains(err.Error(), "hermes profile create jeff") {
				t.Errorf("%q does not say how to make it", err)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

func TestSplitProfileFlag(t *testing.T) {
	tests := []struct {
		in, rest, name string
		set            bool
	}{
		{"gateway run", "gateway run", "", false},
		{"-p liam gateway run", "gateway run", "liam", true},
		{"gateway run --profile liam", "gateway run", "liam", true},
		{"gateway --profile=liam run", "gateway run", "liam", true},
		{"--profile= gateway", "gateway", "", true},
		{"-p a gateway -p b", "gateway", "b", true},
		{"send -- -p liam", "send -- -p liam", "", false},
	}
	for _, tt := range tests {
		rest, name, set, err := SplitProfileFlag(strings.Fields(tt.in))
		if got := strings.Join(rest, " "); got != tt.rest || name != tt.name || set != tt.set || err != nil {
			t.Errorf("%q: %q %q %v %v", tt.in, got, name, set, err)
		}
	}
	if _, _, _, err := SplitProfileFlag([]string{"gateway", "-p"}); !domain.IsCode(err, domain.Invalid) {
		t.Errorf("a flag without its name: %v", err)
	}
	// A unit with an empty %i passes an empty word.
	if rest, name, set, err := SplitProfileFlag([]string{"--profile", "", "gateway", "run"}); len(rest) != 2 || name != "" || !set || err != nil {
		t.Errorf("empty word: %v %q %v %v", rest, name, set, err)
	}
}
