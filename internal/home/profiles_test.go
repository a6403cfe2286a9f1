package home

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hermes/internal/domain"
)

// tree lists the files under a folder with their content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		out[rel] = readFile(t, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// oldLogins has a key, which profiles may share, and logins of every form, which
// they may not.
const oldLogins = `{"version": 1, "active_provider": "nous", "kept": {"n": 12345678901234567890},
"providers": {"nous": {"access_token": "a-once", "refresh_token": "r-once"}, "codex": {"tokens": {"refresh_token": "deep-once"}}},
"credential_pool": {"openrouter": [{"id": "k", "auth_type": "api_key", "access_token": "sk-shared"}],
 "qwen": [{"id": "l", "auth_type": "oauth", "access_token": "o-once"}, {"id": "m", "auth_type": "api_key", "access_token": "x", "refresh_token": "q-once"}]}}`

// oldHome is a default profile with something of everything.
func oldHome(t *testing.T) Profile {
	p := profileIn(t)
	for name, content := range map[string]string{
		"config.yaml":        "model: x # mine\nplatforms:\n  discord:\n    token: dtoken\n    require_mention: false\n",
		".env":               "# keys\nOPENROUTER_API_KEY=k\nTELEGRAM_BOT_TOKEN=t\nTELEGRAM_ALLOWED_USERS=1\nSLACK_APP_TOKEN=s\n",
		".env.bak":           "TELEGRAM_BOT_TOKEN=older\n",
		"auth.json":          oldLogins,
		"SOUL.md":            "kind",
		"skills/a/SKILL.md":  "skill",
		"memories/MEMORY.md": "fact",
		"cron/jobs.json":     "[]",
		"scripts/x.sh":       "echo",
		"ledger.db":          "binary",
		"ledger.db-wal":      "binary",
		"gateway.pid":        "999999999",
		"logs/gateway.log":   "line",
		"active_profile":     "default",
	} {
		write(t, p.Path(name), content)
	}
	return p
}

func TestCreate(t *testing.T) {
	tests := []struct {
		name  string
		o     CreateOptions
		files []string
		env   string
		left  []string
	}{
		{name: "empty", o: CreateOptions{Description: "a: b"}, files: []string{"profile.yaml"}},
		{name: "clone", o: CreateOptions{}, files: []string{".env", "SOUL.md", "config.yaml", "memories/MEMORY.md", "skills/a/SKILL.md"},
			env: "# keys\nOPENROUTER_API_KEY=k\nTELEGRAM_ALLOWED_USERS=1\n", left: []string{"TELEGRAM_BOT_TOKEN", "platforms.discord.token", "SLACK_APP_TOKEN"}},
		{name: "clone all", o: CreateOptions{All: true}, files: []string{".env", "SOUL.md", "auth.json", "config.yaml", "cron/jobs.json", "memories/MEMORY.md", "scripts/x.sh", "skills/a/SKILL.md"},
			env: "# keys\nOPENROUTER_API_KEY=k\nTELEGRAM_ALLOWED_USERS=1\n", left: []string{"TELEGRAM_BOT_TOKEN", "platforms.discord.token", "SLACK_APP_TOKEN"}},
		{name: "with channels", o: CreateOptions{Channels: true}, files: []string{".env", "SOUL.md", "config.yaml", "memories/MEMORY.md", "skills/a/SKILL.md"},
			env: "# keys\nOPENROUTER_API_KEY=k\nTELEGRAM_BOT_TOKEN=t\nTELEGRAM_ALLOWED_USERS=1\nSLACK_APP_TOKEN=s\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			from := oldHome(t)
			tt.o.Name = "liam"
			if tt.name != "empty" {
				tt.o.From = &from
			}
			made, err := Create(from.Root, tt.o)
			if err != nil {
				t.Fatal(err)
			}
			got := tree(t, made.Profile.Home)
			var names []string
			for name := range got {
				names = append(names, name)
			}
			slices.Sort(names)
			if diff := cmp.Diff(tt.files, names); diff != "" {
				t.Error(diff)
			}
			if got[".env"] != tt.env {
				t.Errorf(".env is %q", got[".env"])
			}
			if all := got["auth.json"]; tt.o.All != strings.Contains(all, "sk-shared") || strings.Contains(all, "once") || tt.o.All != slices.Equal(made.Logins, []string{"codex", "nous", "qwen"}) {
				t.Errorf("logins %v left out, auth.json is %s", made.Logins, all)
			}
			if diff := cmp.Diff(tt.left, made.Left); diff != "" {
				t.Error(diff)
			}
			if tt.name == "clone" && got["config.yaml"] != "model: x # mine\nplatforms:\n  discord:\n    require_mention: false\n" {
				t.Errorf("config.yaml is %q", got["config.yaml"])
			}
			if info, err := os.Stat(made.Profile.Home); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("mode %v %v", info.Mode(), err)
			}
			if _, err := Create(from.Root, tt.o); !domain.IsCode(err, domain.Conflict) {
				t.Errorf("a second one: %v", err)
			}
			if left, _ := filepath.Glob(from.Root + "/profiles/.*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	for _, bad := range []string{"default", "", "tmp", "../x", "A", strings.Repeat("a", 65)} {
		if _, err := Create(t.TempDir(), CreateOptions{Name: bad}); !domain.IsCode(err, domain.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestACloneHasNoBots clones a home with a credential in every place that one can
// stand in: none of them is in the copy, and everything else is.
func TestACloneHasNoBots(t *testing.T) {
	const config = `model: {api_key: "${MODEL_KEY}"}
platforms:
  telegram: {token: SECRET1, require_mention: true}
  discord:
    extra: {api_key: SECRET2, auto_thread: false}
  webhook:
    extra:
      routes:
        ci: {prompt: look, secret: SECRET3}
        two: {prompt: look, secret: [SECRET4, "${OLD_CI}"]}
      targets:
        ops: {url: "https://ops.example.com/in", secret: "${OPS_SECRET}"}
  whatsapp: {token: SECRET5}
  api_server: {extra: {key: kept}}
gateway:
  platforms:
    slack: {token: SECRET6, extra: {app_token: SECRET7}}
matrix: {access_token: SECRET8, extra: {password: SECRET9, user_id: "@a:b"}}
`
	const env = "MODEL_KEY=kept\nexport TELEGRAM_BOT_TOKEN=SECRET10\n# TELEGRAM_BOT_TOKEN=SECRET11\n#export SLACK_APP_TOKEN='SECRET12'\nSLACK_APP_TOKEN=SECRET13\n" +
		"OPS_SECRET=SECRET14\nOLD_CI=SECRET15\nEMAIL_PASSWORD=\"SECRET16\"\nMATRIX_PASSWORD=SECRET17\nWEBHOOK_PREVIOUS_SECRET=SECRET18\nTELEGRAM_WEBHOOK_SECRET=SECRET19\n" +
		"TWILIO_AUTH_TOKEN=SECRET20\nHASS_TOKEN=SECRET21\nTELEGRAM_ALLOWED_USERS=1\n# a remark\nTELEGRAM_BOT_TOKEN=SECRET22\n"
	for _, all := range []bool{false, true} {
		from := profileIn(t)
		for name, content := range map[string]string{
			"config.yaml": config, ".env": env, ".env.old": "TELEGRAM_BOT_TOKEN=SECRET23\n", ".env~": "TELEGRAM_BOT_TOKEN=SECRET24\n", "config.yaml.2025": "platforms: {telegram: {token: SECRET25}}\n",
			"matrix_session.json": "SECRET26", "webhook_subscriptions.json": "SECRET27", "auth.json": "{}",
		} {
			write(t, from.Path(name), content)
		}
		made, err := Create(from.Root, CreateOptions{Name: "liam", From: &from, All: all})
		if err != nil {
			t.Fatal(err)
		}
		got := tree(t, made.Profile.Home)
		for name, text := range got {
			if regexp.MustCompile(`SECRET\d`).MatchString(text) {
				t.Errorf("all %v: %s holds a credential:\n%s", all, name, text)
			}
		}
		if want := "MODEL_KEY=kept\nTELEGRAM_ALLOWED_USERS=1\n# a remark\n"; got[".env"] != want {
			t.Errorf(".env is %q, want %q", got[".env"], want)
		}
		for _, kept := range []string{"${MODEL_KEY}", "require_mention: true", "auto_thread: false", "prompt: look", "https://ops.example.com/in", "key: kept", "user_id:"} {
			if !strings.Contains(got["config.yaml"], kept) {
				t.Errorf("config.yaml lost %q:\n%s", kept, got["config.yaml"])
			}
		}
		for _, told := range []string{"TELEGRAM_BOT_TOKEN", "platforms.webhook.extra.routes.two.secret", "OPS_SECRET", "matrix.extra.password", "platforms.whatsapp.token"} {
			if !slices.Contains(made.Left, told) {
				t.Errorf("it is not told that %s was left out: %q", told, made.Left)
			}
		}
		if _, ok := got["auth.json"]; ok != all {
			t.Errorf("all %v: auth.json is there: %v", all, ok)
		}
		if slices.Contains(made.Left, "matrix_session.json") != all {
			t.Errorf("all %v: told is %q", all, made.Left)
		}
	}
}

func TestUseRenameDelete(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"liam", "drj"} {
		if _, err := Create(root, CreateOptions{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	liam, err := Use(root, "liam")
	if err != nil || Active(root) != "liam" {
		t.Fatalf("active %q, %v", Active(root), err)
	}
	if _, err := Use(root, "none"); !domain.IsCode(err, domain.Config) {
		t.Errorf("a profile that is none: %v", err)
	}
	write(t, liam.PIDFile(), fmt.Sprintf(`{"pid":%d,"start_time":%d}`, os.Getpid(), procStart(os.Getpid())))
	if err := Delete(liam); !domain.IsCode(err, domain.Conflict) {
		t.Errorf("deleted while its gateway runs: %v", err)
	}
	if procStart(os.Getpid()) != 0 {
		write(t, liam.PIDFile(), fmt.Sprintf(`{"pid":%d,"start_time":1}`, os.Getpid()))
		if pid, runs := Running(liam); runs {
			t.Errorf("another process with the PID %d passes for the gateway", pid)
		}
	}
	if err := os.Remove(liam.PIDFile()); err != nil {
		t.Fatal(err)
	}
	if _, err := Rename(liam, "drj"); !domain.IsCode(err, domain.Conflict) {
		t.Errorf("renamed over another: %v", err)
	}
	will, err := Rename(liam, "will")
	if err != nil || Active(root) != "will" {
		t.Fatalf("active %q, %v", Active(root), err)
	}
	if err := Delete(will); err != nil || Active(root) != DefaultProfile {
		t.Errorf("active %q, %v", Active(root), err)
	}
	list, err := List(root)
	if err != nil || len(list) != 2 || list[1].Name != "drj" {
		t.Errorf("%v, %v", list, err)
	}
	if err := Delete(list[0]); !domain.IsCode(err, domain.Invalid) {
		t.Errorf("the default profile was deleted: %v", err)
	}
}

func TestExportImport(t *testing.T) {
	from := oldHome(t)
	write(t, from.ConfigFile(), "model: {default: x, api_key: SECRET1} # mine\nplatforms:\n  discord:\n    token: SECRET2\n    require_mention: false\n  slack: {token: \"${SLACK}\"}\n")
	for _, name := range []string{"matrix_session.json", "webhook_subscriptions.json", ".env.old", "config.yaml~", ".env"} {
		write(t, from.Path(name), "SECRET3")
	}
	var archive bytes.Buffer
	if err := Export(from, &archive); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	p, err := Import(root, "copy", bytes.NewReader(archive.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	got := tree(t, p.Home)
	if want := "model: {default: x} # mine\nplatforms:\n  discord:\n    require_mention: false\n  slack: {token: \"${SLACK}\"}\n"; got["config.yaml"] != want {
		t.Errorf("config.yaml is %q, want %q", got["config.yaml"], want)
	}
	for name, text := range got {
		if strings.Contains(text, "SECRET") {
			t.Errorf("%s holds a secret", name)
		}
	}
	for _, name := range []string{"SOUL.md", "skills/a/SKILL.md", "cron/jobs.json"} {
		if got[name] != readFile(t, from.Path(name)) {
			t.Errorf("%s is %q", name, got[name])
		}
	}
	for _, name := range []string{".env", ".env.bak", "auth.json", "ledger.db", "gateway.pid", "logs/gateway.log", "active_profile"} {
		if _, there := got[name]; there {
			t.Errorf("%s was exported", name)
		}
	}
	if _, err := Import(root, "copy", bytes.NewReader(archive.Bytes())); !domain.IsCode(err, domain.Conflict) {
		t.Errorf("imported over another: %v", err)
	}
	if _, err := Import(root, "cut", bytes.NewReader(archive.Bytes()[:archive.Len()/2])); !domain.IsCode(err, domain.Invalid) && !domain.IsCode(err, domain.Unavailable) {
		t.Errorf("half an archive: %v", err)
	}
	if list, _ := os.ReadDir(filepath.Join(root, "profiles")); len(list) != 1 {
		t.Errorf("left behind: %v", list)
	}
}

func TestImportStaysInside(t *testing.T) {
	outside := t.TempDir()
	tests := []struct {
		name    string
		headers []tar.Header
	}{
		{"dots", []tar.Header{{Name: "evil/../../x", Typeflag: tar.TypeReg}}},
		{"absolute", []tar.Header{{Name: "/x", Typeflag: tar.TypeReg}}},
		{"through a link", []tar.Header{{Name: "evil/link", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "evil/link/x", Typeflag: tar.TypeReg}}},
		{"hard link", []tar.Header{{Name: "evil/x", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}}},
		{"device", []tar.Header{{Name: "evil/x", Typeflag: tar.TypeChar}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var archive bytes.Buffer
			zip := gzip.NewWriter(&archive)
			w := tar.NewWriter(zip)
			for _, h := range tt.headers {
				h.Mode = 0o777
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			w.Close()
			zip.Close()
			root := t.TempDir()
			p, err := Import(root, "evil", &archive)
			if left := tree(t, outside); len(left) > 0 {
				t.Errorf("wrote outside: %v", left)
			}
			if err != nil {
				if list, _ := os.ReadDir(filepath.Join(root, "profiles")); len(list) > 0 || !domain.IsCode(err, domain.Invalid) {
					t.Errorf("%v, left %v", err, list)
				}
				return
			}
			err = filepath.WalkDir(p.Home, func(path string, d fs.DirEntry, _ error) error {
				if !d.IsDir() && !d.Type().IsRegular() {
					t.Errorf("%s is no ordinary file", path)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAlias(t *testing.T) {
	p, bin := profileIn(t), t.TempDir()
	p.Name = "liam"
	file, err := Alias(p, bin, "liam", "hermes")
	if err != nil || readFile(t, file) != "#!/bin/sh\nexec hermes -p liam \"$@\"\n" || AliasOf(p, bin) != file {
		t.Errorf("%q, %v", file, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	write(t, filepath.Join(bin, "other"), "#!/bin/sh\necho mine\n")
	if _, err := Alias(p, bin, "other", "hermes"); !domain.IsCode(err, domain.Conflict) {
		t.Errorf("somebody else's script was taken: %v", err)
	}
	if err := RemoveAlias(bin, "other"); !domain.IsCode(err, domain.Conflict) {
		t.Errorf("somebody else's script was removed: %v", err)
	}
	if err := RemoveAlias(bin, "liam"); err != nil || AliasOf(p, bin) != "" {
		t.Error(err)
	}
}

// What cannot be read may be a login, so none of it is copied.
func TestCloneOfBrokenLogins(t *testing.T) {
	for name, text := range map[string]string{"cut": oldLogins[:200], "a list": "[]", "nothing": "null", "empty": ""} {
		from := oldHome(t)
		write(t, from.Path("auth.json"), text)
		made, err := Create(from.Root, CreateOptions{Name: "liam", From: &from, All: true})
		if err != nil || len(made.Logins) != 1 || tree(t, made.Profile.Home)["auth.json"] != "" {
			t.Errorf("%s: %v %v %q", name, err, made.Logins, tree(t, made.Profile.Home)["auth.json"])
		}
		if readFile(t, from.Path("auth.json")) != text {
			t.Errorf("%s: the original was changed", name)
		}
	}
}
