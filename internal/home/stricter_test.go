package home

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"hermes/internal/domain"
	"hermes/internal/secret"
)

// may tells whether a configuration lets a user talk who is not paired, by the
// rules of the gate.
func may(c *Config, p domain.Platform, user, chat string, private bool) bool {
	cfg := c.Platforms[p]
	has := func(list []string, v string) bool { return slices.Contains(list, v) || slices.Contains(list, "*") }
	switch {
	case !cfg.Enabled:
		return false
	case !private && len(cfg.AllowedChats) > 0 && !has(cfg.AllowedChats, chat):
		return false
	case cfg.AllowAll, has(cfg.AllowedUsers, user), c.Access.AllowAll, has(c.Access.AllowedUsers, user):
		return true
	}
	return !private && (has(cfg.GroupUsers, user) || has(cfg.GroupChats, chat))
}

func anyConfig(t *rapid.T, name string) *Config {
	people := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"1", "2", "3", "*"}), rapid.ID[string])
	chats := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"-1", "-2", "*"}), rapid.ID[string])
	words := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"web", "terminal", "files", "all"}), rapid.ID[string])
	text := rapid.SampledFrom([]string{"", "a", "b"})
	yes := rapid.Bool()
	c := &Config{
		Access: AccessConfig{AllowedUsers: people.Draw(t, name+" everywhere"), AllowAll: yes.Draw(t, name+" all")},
		API: APIConfig{Enabled: yes.Draw(t, name+" api"), Host: rapid.SampledFrom([]string{"127.0.0.1", "0.0.0.0", "::", "localhost", "10.0.0.1"}).Draw(t, name+" host"),
			Key: secret.Value(text.Draw(t, name+" key")), CORSOrigins: words.Draw(t, name+" origins")},
		Approvals: ApprovalsConfig{Mode: rapid.SampledFrom([]string{"manual", "smart", "off"}).Draw(t, name+" mode"),
			CronMode: rapid.SampledFrom([]string{"deny", "approve"}).Draw(t, name+" cron"), Allowlist: words.Draw(t, name+" list")},
		AllowPrivateURLs: yes.Draw(t, name+" private"),
		Terminal:         TerminalConfig{Backend: rapid.SampledFrom([]string{"local", "docker", "ssh"}).Draw(t, name+" backend")},
		Toolsets:         words.Draw(t, name+" tools"),
		PlatformToolsets: map[string][]string{"telegram": words.Draw(t, name+" telegram's tools")},
		QuickCommands:    map[string]QuickCommand{"q": {"exec", text.Draw(t, name+" quick")}},
		Platforms: map[domain.Platform]PlatformConfig{"telegram": {
			Enabled: yes.Draw(t, name+" on"), AllowedUsers: people.Draw(t, name+" users"), AllowAll: yes.Draw(t, name+" all of it"),
			GroupUsers: people.Draw(t, name+" group users"), GroupChats: chats.Draw(t, name+" group chats"), AllowedChats: chats.Draw(t, name+" chats"),
			RequireMention: yes.Draw(t, name+" mention"), PairDMs: yes.Draw(t, name+" pair"),
			Extra: map[string]string{"allow_bots": text.Draw(t, name+" bots"), "free_response_chats": text.Draw(t, name+" free")},
		}},
	}
	return c
}

// Whatever the two configurations hold, what is served opens nothing that
// either of them keeps closed.
func TestNarrowNeverWidens(t *testing.T) {
	parts := []string{"platform.telegram", "api", "approvals", "tools", "terminal", "security", "commands"}
	rapid.Check(t, func(t *rapid.T) {
		good, other := anyConfig(t, "good"), anyConfig(t, "other")
		gone := rapid.SliceOfDistinct(rapid.SampledFrom(parts), rapid.ID[string]).Draw(t, "lost")
		lost := func(part string) bool { return slices.Contains(gone, part) }
		got, _ := Narrow(good, other, lost)
		for _, user := range []string{"1", "2", "3", "4"} {
			for _, chat := range []string{"-1", "-2", "-3"} {
				for _, private := range []bool{true, false} {
					allowed := may(good, "telegram", user, chat, private) && may(other, "telegram", user, chat, private) && !lost("platform.telegram")
					if may(got, "telegram", user, chat, private) && !allowed {
						t.Fatalf("user %s in %s (private %v) is heard", user, chat, private)
					}
				}
			}
		}
		tg, a, b := got.Platforms["telegram"], good.Platforms["telegram"], other.Platforms["telegram"]
		if tg.Enabled && tg.PairDMs && !(a.PairDMs && b.PairDMs) || tg.Enabled && !tg.RequireMention && (a.RequireMention || b.RequireMention) {
			t.Fatalf("strangers or mentions: %+v", tg)
		}
		if got.API.Enabled {
			if !good.API.Enabled || !other.API.Enabled || lost("api") {
				t.Fatal("the API is on")
			}
			for _, c := range []*Config{good, other} {
				if c.API.Key.IsSet() && c.API.Key.Reveal() != got.API.Key.Reveal() {
					t.Fatal("another key opens the API")
				}
				if isLoopback(c.API.Host) && !isLoopback(got.API.Host) {
					t.Fatalf("bound to %s", got.API.Host)
				}
				for _, o := range got.API.CORSOrigins {
					if !slices.Contains(c.API.CORSOrigins, o) {
						t.Fatalf("origin %s", o)
					}
				}
			}
		}
		for _, c := range []*Config{good, other} {
			strict := slices.Index([]string{"manual", "smart", "off"}, got.Approvals.Mode) <= slices.Index([]string{"manual", "smart", "off"}, c.Approvals.Mode)
			if !strict || got.Approvals.CronMode == "approve" && c.Approvals.CronMode == "deny" || got.AllowPrivateURLs && !c.AllowPrivateURLs {
				t.Fatalf("approvals %+v of %+v", got.Approvals, c.Approvals)
			}
			for _, k := range got.Approvals.Allowlist {
				if !slices.Contains(c.Approvals.Allowlist, k) {
					t.Fatalf("%s is approved for ever", k)
				}
			}
			if got.Terminal.Backend == "local" && c.Terminal.Backend != "local" {
				t.Fatal("commands run here")
			}
			for name, q := range got.QuickCommands {
				if c.QuickCommands[name] != q {
					t.Fatalf("quick command %s", name)
				}
			}
			for _, set := range []string{"web", "terminal", "files"} {
				for _, p := range []string{"telegram", "discord"} {
					if uses(got, p, set) && !uses(c, p, set) {
						t.Fatalf("the tools %s on %s: %v %v", set, p, got.Toolsets, got.PlatformToolsets)
					}
				}
			}
		}
	})
}

// uses tells whether a configuration gives a toolset to a platform.
func uses(c *Config, p, set string) bool {
	list := c.PlatformToolsets[p]
	if len(list) == 0 {
		list = c.Toolsets
	}
	return len(list) == 0 || slices.Contains(list, set) || slices.Contains(list, "all")
}

// A configuration is as strict as itself.
func TestNarrowedByItselfNothingChanges(t *testing.T) {
	p := written(t, "TELEGRAM_BOT_TOKEN=1:a\nTELEGRAM_ALLOWED_USERS=1,2\nAPI_SERVER_ENABLED=true\nAPI_SERVER_HOST=0.0.0.0\nAPI_SERVER_KEY=0123456789abcdef\n",
		"approvals:\n  mode: \"off\"\n  cron_mode: approve\ncommand_allowlist: [a, b]\ntoolsets: [web]\n")
	f, err := ReadFiles(p)
	if err != nil {
		t.Fatal(err)
	}
	_, cfg, _, err := LoadFiles(p, f, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, untold := Stricter(p, cfg, f, f, false, nil)
	tg := got.Platforms["telegram"]
	if len(untold) > 0 || !tg.Enabled || strings.Join(tg.AllowedUsers, " ") != "1 2" || got.API.Host != "0.0.0.0" || !got.API.Enabled ||
		got.Approvals.Mode != "off" || got.Approvals.CronMode != "approve" || len(got.Approvals.Allowlist) != 2 || strings.Join(got.Toolsets, "") != "web" {
		t.Errorf("%+v %v %+v %v", tg, untold, got.Approvals, got.Toolsets)
	}
}

// What can still be read of a broken file counts; what cannot keeps shut what
// it may have shut.
func TestStricterOfABrokenFile(t *testing.T) {
	const env = "TELEGRAM_BOT_TOKEN=1:a\nTELEGRAM_ALLOW_ALL_USERS=true\nAPI_SERVER_ENABLED=true\n"
	const config = "model:\n  provider: offline\napprovals:\n  mode: smart\n"
	p := written(t, env, config)
	good := Files{Env: []byte(env), Config: []byte(config)}
	_, cfg, _, err := LoadFiles(p, good, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, env, config string
		unreadable        bool
		heard, api        bool
		mode              string
		untold            int
	}{
		{name: "the break is where it governs nothing", env: env, config: "model: [\n" + "approvals:\n  mode: smart\n", heard: true, api: true, mode: "smart"},
		{name: "tightened, and broken elsewhere", env: env, config: "approvals:\n  mode: manual\nmodel: {\n", heard: true, api: true, mode: "manual"},
		{name: "broken where it governs approvals", env: env, config: "approvals:\n  mode: [\nmodel:\n  provider: offline\n", heard: true, api: true, mode: "manual", untold: 1},
		{name: "broken where it governs platforms", env: env, config: "platforms:\n  telegram: {\nmodel:\n  provider: offline\n", mode: "manual", untold: 2},
		{name: "broken from the first line", env: env, config: "{{{\nmodel:\n  provider: offline\n", mode: "manual", untold: 5},
		{name: "a list that cannot be read in .env", env: "TELEGRAM_BOT_TOKEN=1:a\nTELEGRAM_ALLOWED_CHATS='1\nTELEGRAM_ALLOW_ALL_USERS=true\nAPI_SERVER_ENABLED=true\n", config: config, api: true, mode: "smart", untold: 1},
		{name: "nothing can be read", unreadable: true, mode: "manual", untold: 5},
		{name: "the platform was switched off", env: env, config: "platforms:\n  telegram:\n    enabled: false\nmodel: [\n", api: true, mode: "manual"},
		{name: "the same key twice", env: env, config: "approvals:\n  mode: \"off\"\napprovals:\n  mode: manual\n", heard: true, api: true, mode: "manual", untold: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, untold := Stricter(p, cfg, good, Files{Env: []byte(c.env), Config: []byte(c.config)}, c.unreadable, nil)
			if heard := may(got, "telegram", "7", "7", true); heard != c.heard {
				t.Errorf("heard: %v", heard)
			}
			if got.API.Enabled != c.api || got.Approvals.Mode != c.mode || len(untold) != c.untold {
				t.Errorf("API %v, approvals %s, untold %q", got.API.Enabled, got.Approvals.Mode, untold)
			}
		})
	}
	if !slices.Equal(slices.Sorted(maps.Keys(cfg.Platforms)), []domain.Platform{"telegram", "webchat"}) {
		t.Errorf("the configuration itself was changed: %v", cfg.Platforms)
	}
}
