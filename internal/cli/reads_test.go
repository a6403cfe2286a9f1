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

// What every reading command says with --json is JSON, all of it, whatever the
// exit code, and holds no secret.
func TestWhatIsReadIsJSON(t *testing.T) {
	const secretToken, secretKey, poolKey, hook = "1234567:AAHsecretsecretsecretsecretsecret00", "sk-very-secret-0123456789abcdef", "sk-pooled-secret-0123456789abcdef", "whsec-secret-0123456789abcdef"
	service, err := llm.Start(llm.Say("ok"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(service.Close)
	userHome := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(userHome, ".hermes", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	hermes := func(args ...string) (int, string, string) {
		var out, complaint bytes.Buffer
		code := Execute(context.WithoutCancel(t.Context()), args, Streams{strings.NewReader(poolKey + "\n"), &out, &complaint}, []string{"HOME=" + userHome, "PATH=/usr/bin:/bin"})
		return code, out.String(), complaint.String()
	}
	write("config.yaml", "model: {default: m, provider: custom, base_url: '"+service.URL()+"', api_key: "+secretKey+"}\n")
	write(".env", "TELEGRAM_BOT_TOKEN="+secretToken+"\nTELEGRAM_BASE_URL=http://127.0.0.1:1\nTELEGRAM_HOME_CHANNEL=1001\nWEBHOOK_SECRET="+hook+"\nAPI_SERVER_KEY="+secretKey+"\n")
	write("logs/gateway.log", "2026-01-02 03:04:05,678 INFO gateway: started\n")
	write("scripts/x.sh", "true\n")
	for _, line := range []string{
		"auth add openrouter --key-stdin", "config set model.max_tokens 5", "config set model.max_tokens 6", "cron create 1h --no-agent --script x.sh --deliver local --name x",
		"webhook subscribe x --prompt y --secret " + hook, "profile create other --no-alias", "backup -o " + userHome + "/b.zip",
	} {
		if code, out, complaint := hermes(strings.Fields(line)...); code != exitOK {
			t.Fatalf("hermes %s: exit %d: %s%s", line, code, out, complaint)
		}
	}
	with := map[string]string{"config get": "model.default", "config diff": "1 2", "cron next": "x", "cron show": "x", "cron runs": "x", "backup verify": userHome + "/b.zip", "doctor": "--local",
		"dump": "--local", "gateway verify": "--no-send"}
	nothing := map[string]string{ // what they say is that there is nothing to tell
		"sessions show": "x", "update": "--check",
	}
	for _, words := range reads {
		t.Run(words, func(t *testing.T) {
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
			for _, s := range []string{secretToken, secretKey, poolKey, hook, "AAHsecret", "very-secret", "pooled-secret", "whsec-secret"} {
				if strings.Contains(out+complaint, s) {
					t.Errorf("it says %q:\n%s%s", s, out, complaint)
				}
			}
		})
	}
}
