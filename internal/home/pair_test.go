package home

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"hermes/internal/domain"
)

// What a change of both files leaves when its process dies, or somebody works on
// the files since, is settled by whoever reads them next.
func TestCompletesAChangeOfBothFiles(t *testing.T) {
	before, after := Files{Env: []byte("A_KEY=old\n"), Config: []byte("model: old\n")}, Files{Env: []byte("A_KEY=new\n"), Config: []byte("model: new\n")}
	none := Files{}
	mine := Files{Env: []byte("A_KEY=mine\n"), Config: before.Config}
	for name, c := range map[string]struct{ plan, found, want Files }{
		"nothing was written":                 {after, before, before},
		".env was written":                    {after, Files{after.Env, before.Config}, after},
		"both were written":                   {after, after, after},
		"somebody put .env back":              {after, Files{before.Env, after.Config}, Files{before.Env, after.Config}},
		"somebody wrote another .env":         {after, mine, mine},
		"both files go, .env is gone":         {none, Files{nil, before.Config}, none},
		"an empty .env is not one that is no": {Files{[]byte{}, after.Config}, Files{nil, before.Config}, Files{nil, before.Config}},
	} {
		for reader, read := range map[string]func(Profile) error{
			"ReadFiles": func(p Profile) error { _, err := ReadFiles(p); return err },
			"LoadEnv":   func(p Profile) error { _, _, err := LoadEnv(p, nil); return err },
			"an edit":   func(p Profile) error { return EditEnv(p, map[string]*string{"NOT_THERE": nil}, By{Command: "test"}) },
			"history":   func(p Profile) error { return OpenHistory(p).Note(By{Command: "test"}) },
		} {
			p := profileIn(t)
			for path, data := range map[string][]byte{p.EnvFile(): c.found.Env, p.ConfigFile(): c.found.Config} {
				if data != nil {
					write(t, path, string(data))
				}
			}
			text, err := json.Marshal(pending{before, c.plan})
			if err != nil {
				t.Fatal(err)
			}
			write(t, pendingFile(p), string(text))
			write(t, p.Path("..env.123.tmp"), "A_KEY=half")
			if err := read(p); err != nil {
				t.Errorf("%s, %s: %v", name, reader, err)
			}
			now, err := readFiles(p)
			if err != nil || !same(now.Env, c.want.Env) || !same(now.Config, c.want.Config) {
				t.Errorf("%s, %s: .env %q, config.yaml %q, want %q and %q: %v", name, reader, now.Env, now.Config, c.want.Env, c.want.Config, err)
			}
			if left, _ := filepath.Glob(p.Path(".*")); len(left) > 2 { // .env and the lock
				t.Errorf("%s, %s: left behind: %v", name, reader, left)
			}
		}
	}
}

// A plan that cannot be written down changes nothing; one that is damaged is
// dropped, and what cannot be told keeps nobody from reading.
func TestOddPlansOfAChange(t *testing.T) {
	p := profileIn(t)
	write(t, p.EnvFile(), "A=1\n")
	write(t, p.ConfigFile(), "model: old\n")
	write(t, pendingFile(p), `{"before": {"Env"`)
	if f, err := ReadFiles(p); err != nil || string(f.Env) != "A=1\n" {
		t.Errorf("%q %v", f.Env, err)
	}
	if _, err := os.Lstat(pendingFile(p)); err == nil {
		t.Error("a damaged plan was kept")
	}
	if err := os.MkdirAll(filepath.Join(pendingFile(p), "inner"), 0o700); err != nil {
		t.Fatal(err)
	}
	if f, err := ReadFiles(p); err != nil || string(f.Env) != "A=1\n" {
		t.Errorf("%q %v", f.Env, err)
	}
	text := "2"
	if err := EditEnv(p, map[string]*string{"A": &text}, By{Command: "test"}); !domain.IsCode(err, domain.Config) {
		t.Errorf("an edit over a folder: %v", err)
	}
}
