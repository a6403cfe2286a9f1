package home

import (
	"slices"
	"strings"
	"testing"
)

// The address of the heartbeat is a secret, and must be one that can be asked.
func TestHeartbeatAddress(t *testing.T) {
	p := Profile{Name: DefaultProfile, Root: t.TempDir()}
	p.Home = p.Root
	load := func(env string) (*Config, Problems) {
		t.Helper()
		_, cfg, problems, err := LoadFiles(p, Files{Env: []byte(env)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return cfg, problems
	}
	const address = "https://watch.example/ping/a-secret-id"
	cfg, problems := load("HERMES_HEARTBEAT_URL=" + address + "\n")
	if cfg.Heartbeat.Reveal() != address || !slices.Contains(cfg.Secrets(), address) || !IsSecretName("HERMES_HEARTBEAT_URL") {
		t.Errorf("%q, %v", cfg.Heartbeat.Reveal(), problems)
	}
	for _, bad := range []string{"watch.example/ping", "ftp://watch.example/", "https://"} {
		cfg, problems := load("HERMES_HEARTBEAT_URL=" + bad + "\n")
		if cfg.Heartbeat.IsSet() || !slices.ContainsFunc(problems, func(p Problem) bool { return strings.Contains(p.String(), "HERMES_HEARTBEAT_URL") }) {
			t.Errorf("%s: %q, %v", bad, cfg.Heartbeat.Reveal(), problems)
		}
	}
	if cfg, _ := load(""); cfg.Heartbeat.IsSet() {
		t.Error("set by nobody")
	}
}
