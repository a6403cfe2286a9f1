package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hermes/testkit/llm"
)

// acts are the commands that change something and tell no more than that they
// did; some take --json too. Every other command reads.
var acts = []string{
	"auth add", "auth logout", "auth priority", "auth remove", "auth reset", "backup", "config edit", "config rollback", "config set", "config unset",
	"cron create", "cron edit", "cron examples", "cron export", "cron import", "cron pause", "cron remove", "cron resume", "cron run", "cron tick", "deliveries ack", "deliveries drop",
	"deliveries retry", "gateway drill", "gateway install", "gateway restart", "gateway run", "gateway setup", "gateway start", "gateway stop", "gateway uninstall", "import", "migrate",
	"model", "model set", "pairing approve", "pairing clear-pending", "pairing revoke", "profile alias", "profile create", "profile delete", "profile export", "profile import",
	"profile rename", "profile use", "send", "sessions delete", "sessions export", "sessions prune", "sessions rename", "setup", "webhook remove", "webhook subscribe", "webhook test",
}

// A command that is neither among those that read nor among those that act has
// not been thought about.
func TestEveryCommandReadsOrActs(t *testing.T) {
	for words, c := range leaves() {
		if c.HasSubCommands() && words != "deliveries" && words != "model" {
			continue
		}
		if slices.Contains(reads, words) == slices.Contains(acts, words) {
			t.Errorf("%s must stand in either reads or acts", words)
		}
	}
}

// What stands in a furnished home and nobody may see.
const (
	secretToken = "1234567:AAHsecretsecretsecretsecretsecret00"
	secretKey   = "sk-very-secret-0123456789abcdef"
	pooledKey   = "sk-pooled-secret-0123456789abcdef"
	hookSecret  = "whsec-secret-0123456789abcdef"
)

// furnished is a user's home with something of everything in it.
func furnished(t *testing.T) string {
	t.Helper()
	service, err := llm.Start(llm.Say("ok"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(service.Close)
	userHome := t.TempDir()
	for name, text := range map[string]string{
		"config.yaml": "model: {default: m, provider: custom, base_url: '" + service.URL() + "', api_key: " + secretKey + "}\n",
		".env": "TELEGRAM_BOT_TOKEN=" + secretToken + "\nTELEGRAM_BASE_URL=http://127.0.0.1:1\nTELEGRAM_HOME_CHANNEL=1001\nWEBHOOK_SECRET=" + hookSecret +
			"\nAPI_SERVER_KEY=" + secretKey + "\n",
		"logs/gateway.log": "2026-01-02 03:04:05,678 INFO gateway: started\n",
		"scripts/x.sh":     "true\n",
	} {
		path := filepath.Join(userHome, ".hermes", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range []string{
		"auth add openrouter --key-stdin", "config set model.max_tokens 5", "config set model.max_tokens 6", "cron create 1h --no-agent --script x.sh --deliver local --name x",
		"webhook subscribe x --prompt y --secret " + hookSecret, "profile create other --no-alias", "backup -o $HOME/b.zip",
	} {
		if code, out := typedWith(t.Context(), userHome, pooledKey+"\n", line); code != exitOK {
			t.Fatalf("hermes %s: exit %d: %s", line, code, out)
		}
	}
	return userHome
}

// keepsSecrets holds that nothing secret is said.
func keepsSecrets(t *testing.T, said string) {
	t.Helper()
	for _, s := range []string{secretToken, secretKey, pooledKey, hookSecret, "AAHsecret", "very-secret", "pooled-secret", "whsec-secret"} {
		if strings.Contains(said, s) {
			t.Errorf("it says %q:\n%s", s, said)
		}
	}
}

// What every reading command says with --json is JSON, all of it, whatever the
// exit code, holds no secret, and changes no file.
func TestWhatIsReadIsJSON(t *testing.T) {
	userHome := furnished(t)
	hermes := func(args ...string) (int, string, string) {
		var out, complaint bytes.Buffer
		code := Execute(context.WithoutCancel(t.Context()), args, Streams{strings.NewReader(""), &out, &complaint}, []string{"HOME=" + userHome, "PATH=/usr/bin:/bin"})
		return code, out.String(), complaint.String()
	}
	with := map[string]string{"config get": "model.default", "config diff": "1 2", "cron next": "x", "cron show": "x", "cron runs": "x", "backup verify": userHome + "/b.zip", "doctor": "--local",
		"dump": "--local", "gateway verify": "--no-send"}
	nothing := map[string]string{ // what they say is that there is nothing to tell
		"sessions show": "x", "update": "--check",
	}
	for _, words := range reads {
		t.Run(words, func(t *testing.T) {
			before := files(t, userHome)
			args := append(strings.Fields(words), strings.Fields(with[words]+nothing[words])...)
			code, out, complaint := hermes(append(args, "--json")...)
			if code != exitOK && code != exitFailed {
				t.Errorf("exit %d: %s", code, complaint)
			}
			if out == "" && nothing[words] == "" {
				t.Errorf("exit %d and no JSON: %s", code, complaint)
			}
			dec := json.NewDecoder(strings.NewReader(out))
			for {
				var v any
				err := dec.Decode(&v)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("it is no JSON: %v\n%.1000s", err, out)
				}
			}
			keepsSecrets(t, out+complaint)
			if diff := cmp.Diff(before, files(t, userHome)); diff != "" {
				t.Errorf("it changed files: %s", diff)
			}
		})
	}
}

// growing are the commands that make something more each time that they are typed.
var growing = []string{"backup", "cron create", "gateway install", "gateway run", "gateway drill", "cron run", "cron tick", "send", "webhook test"}

// Every command that acts can be typed twice: the second time it does nothing, or
// says why there is nothing to do, and leaves every file as the first time did.
func TestEveryCommandTwice(t *testing.T) {
	from := furnished(t)
	with := map[string]string{
		"cron edit": "x --name y", "cron pause": "x", "cron remove": "x", "cron resume": "x", "cron import": "$HOME/none.json", "cron examples": "disk", "import": "$HOME/b.zip --force",
		"profile alias": "other", "profile delete": "other -y", "profile export": "other -o $HOME/o.tar.gz", "profile rename": "other third", "profile use": "other", "profile create": "x1 --no-alias",
		"auth remove": "openrouter 1", "auth logout": "openrouter", "auth priority": "openrouter 1 7", "model set": "offline", "config rollback": "1 --files-only", "config set": "model.max_tokens 9",
		"setup": "--non-interactive --no-install --no-check --use tasks --api off", "webhook subscribe": "z --prompt y --secret 0123456789abcdef", "webhook remove": "x", "migrate": "--dry-run", "send": "-t telegram:1 --timeout 1s hello",
	}
	for _, words := range acts {
		if inTheBox[words] {
			continue
		}
		t.Run(words, func(t *testing.T) {
			t.Parallel()
			userHome := t.TempDir()
			if err := os.CopyFS(userHome, os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
			args, own := with[words]
			if !own {
				args = arguments[words]
			}
			line, in := words+" "+args, ""
			if words == "auth add" {
				in = pooledKey + "\n"
			}
			first, said := typedWith(t.Context(), userHome, in, line)
			after := files(t, userHome)
			second, again := typedWith(t.Context(), userHome, in, line)
			keepsSecrets(t, said+again)
			for code, said := range map[int]string{first: said, second: again} {
				if code != exitOK && (!strings.Contains(said, "hermes: ") && code != exitFailed || strings.TrimSpace(said) == "" || strings.Contains(said, "internal error") || strings.Contains(said, "panic")) {
					t.Errorf("exit %d: %s", code, said)
				}
			}
			if own && first != exitOK && words != "send" && !strings.Contains(said, "none.json") {
				t.Errorf("the first time: exit %d: %s", first, said)
			}
			if slices.Contains(growing, words) {
				return
			}
			if diff := cmp.Diff(after, files(t, userHome)); diff != "" {
				t.Errorf("the second time it changed files (exit %d, then %d: %s): %s", first, second, again, diff)
			}
		})
	}
}
