package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// leaves gives every command that does something, by its words.
func leaves() map[string]*cobra.Command {
	out := map[string]*cobra.Command{}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Runnable() && c.Name() != "help" && c.HasParent() && !c.Hidden {
			out[strings.TrimPrefix(c.CommandPath(), "hermes ")] = c
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(Tree())
	return out
}

// arguments are what the walk types behind a command; "" for nothing.
var arguments = map[string]string{
	"auth add": "openrouter --key-stdin", "auth logout": "openrouter", "auth priority": "openrouter 1 0", "auth remove": "openrouter 1", "auth reset": "openrouter", "config get": "model.default", "config set": "model.max_tokens 5",
	"config unset": "model.default", "cron create": "1h hello", "cron edit": "x --name y", "cron next": "1h", "cron pause": "x", "cron remove": "x", "cron resume": "x",
	"cron show": "x", "cron run": "x", "cron import": "none.json", "deliveries retry": "1", "deliveries drop": "1", "model set": "offline", "pairing approve": "telegram ABCD",
	"pairing revoke": "telegram 1", "profile alias": "x", "profile create": "x1", "profile delete": "x", "profile export": "default -o -", "profile import": "none.tar.gz",
	"profile rename": "x y", "profile use": "x", "send": "-t telegram:1 hello", "sessions delete": "x -y", "sessions export": "x", "sessions prune": "--older-than 9999",
	"sessions rename": "x y", "sessions show": "x", "webhook subscribe": "x --prompt y", "webhook remove": "x", "webhook test": "x", "dump": "--local", "doctor": "--local",
	"setup": "--non-interactive --no-install --no-check", "gateway setup": "--non-interactive --no-check",
}

// inTheBox are the commands that act on the services of the machine, or on the
// program itself: they are held on a machine of their own, not on this one.
var inTheBox = map[string]bool{
	"gateway install": true, "gateway uninstall": true, "gateway start": true, "gateway stop": true, "gateway restart": true, "gateway rescue": true,
	"gateway drill": true, "gateway run": true, "gateway": true, "update": true,
}

// reads are the commands that tell something.
var reads = []string{
	"auth list", "auth refresh", "auth status", "backup verify", "config check", "config diff", "config get", "config history", "config show", "config path", "config env-path", "cron lint", "cron list", "cron next", "cron runs",
	"cron show", "cron status", "deliveries", "doctor", "dump", "gateway list", "gateway status", "gateway verify", "insights", "logs", "model check", "model list", "model show",
	"pairing list", "platforms", "profile list", "profile show", "sessions list", "sessions show", "status", "update", "version", "webhook list",
}

// Every command says what it is for and how it is typed, and what reads has --json.
func TestEveryCommandIsDescribed(t *testing.T) {
	all := leaves()
	for words, c := range all {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || len(c.Short) > 100 {
			t.Errorf("%s: what it is for is %q", words, c.Short)
		}
		if c.HasSubCommands() && words != "deliveries" {
			continue
		}
		if !strings.Contains(c.Example, "hermes") {
			t.Errorf("%s has no example", words)
		}
	}
	for _, words := range reads {
		if c := all[words]; c == nil {
			t.Errorf("there is no command %q", words)
		} else if c.Flags().Lookup("json") == nil {
			t.Errorf("%s has no --json", words)
		}
	}
	root := Tree()
	topic, _, err := root.Find([]string{"exit-codes"})
	doc, rerr := os.ReadFile("../../docs/exit-codes.md")
	if err != nil || rerr != nil || !strings.Contains(string(doc), topic.Long) {
		t.Errorf("docs/exit-codes.md does not say what `hermes help exit-codes` says: %v %v", err, rerr)
	}
}

// Every command stands in an archive of testdata/script, where it is shown at
// work.
func TestEveryCommandIsShownAtWork(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	for words := range leaves() {
		if !regexp.MustCompile(`hermes (-p \S+ |--profile \S+ )?` + regexp.QuoteMeta(words) + `\b`).MatchString(all.String()) {
			t.Errorf("no archive shows `hermes %s`", words)
		}
	}
}

// On a broken installation every command returns in time, without a terminal,
// without a panic and without a secret, and fails with a sentence.
func TestEveryCommandOnABrokenInstallation(t *testing.T) {
	const secretToken, secretKey = "1234567:AAHsecretsecretsecretsecretsecret00", "sk-very-secret-0123456789abcdef"
	broken := map[string]map[string]string{
		"config.yaml is no YAML": {"config.yaml": "model: {default: x\nb: [1, 2\n"},
		"the ledger is garbage":  {"ledger.db": strings.Repeat("no database ", 1000), "config.yaml": "model: {default: m, provider: custom, base_url: 'http://127.0.0.1:1/v1', api_key: " + secretKey + "}\n"},
		"folders for files":      {"ledger.db/x": "", "config.yaml/x": "", "auth.json/x": "", "cron/jobs.json/x": "", "logs/gateway.log/x": ""},
	}
	for name, files := range broken {
		for words := range leaves() {
			if inTheBox[words] {
				continue
			}
			t.Run(name+"/"+words, func(t *testing.T) {
				t.Parallel()
				userHome := t.TempDir()
				dir := filepath.Join(userHome, ".hermes")
				all := map[string]string{".env": "TELEGRAM_BOT_TOKEN=" + secretToken + "\nTELEGRAM_BASE_URL=http://127.0.0.1:1\nOPENROUTER_API_KEY=" + secretKey + "\nNOT A LINE\n",
					"auth.json": `{"credential_pool":{"openrouter":[{"id":"a","auth_type":"api_key","access_token":"` + secretKey + `x"}`}
				for path, text := range files {
					all[path] = text
				}
				for path, text := range all {
					if _, isDir := files[path+"/x"]; isDir {
						continue
					}
					if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o700); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				const deadline = 60 * time.Second
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				defer cancel()
				var out, complaint bytes.Buffer
				args := append(strings.Fields(words), strings.Fields(arguments[words])...)
				code := Execute(ctx, args, Streams{strings.NewReader(""), &out, &complaint}, []string{"HOME=" + userHome, "PATH=/usr/bin:/bin", "EDITOR=true"})
				if ctx.Err() != nil {
					t.Errorf("it did not return within %s", deadline)
				}
				if code != exitOK && code != exitFailed && code != exitUsage && code != exitConfig {
					t.Errorf("exit %d", code)
				}
				if code != exitOK && out.Len()+complaint.Len() == 0 {
					t.Errorf("exit %d without a word", code)
				}
				said := out.String() + complaint.String()
				for _, s := range []string{secretToken, secretKey, "AAHsecret", "very-secret", "panic:", "goroutine "} {
					if strings.Contains(said, s) {
						t.Errorf("it says %q:\n%s", s, said)
					}
				}
			})
		}
	}
}
