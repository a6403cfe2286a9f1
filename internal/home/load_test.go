package home

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
)

// loaded reads a profile made of these two files.
func loaded(t *testing.T, config, env string) (*Config, Problems) {
	t.Helper()
	p := profileIn(t)
	write(t, p.ConfigFile(), config)
	write(t, p.EnvFile(), env)
	cfg, problems, err := Load(p, mustEnv(t, p, "HOME=/home/x"))
	if err != nil {
		t.Fatal(err)
	}
	return cfg, problems
}

func find1(t *testing.T, ps Problems, key string) Problem {
	t.Helper()
	for _, p := range ps {
		if p.Key == key {
			return p
		}
	}
	t.Fatalf("no problem of %q among %v", key, ps)
	return Problem{}
}

func TestDefaults(t *testing.T) {
	cfg, problems := loaded(t, "", "")
	if len(problems) != 0 {
		t.Errorf("an empty profile has problems: %v", problems)
	}
	if cfg.Agent.MaxSteps != 90 || cfg.API.Enabled || cfg.API.Host != "127.0.0.1" || cfg.API.Port != 8642 || cfg.Approvals.Mode != "manual" ||
		cfg.CompressionThreshold != 0.5 || cfg.Timezone == nil || cfg.Terminal.Cwd != "/home/x" || len(cfg.Platforms) != 0 || cfg.Model.IsSet() || !cfg.Session.PerUser {
		t.Errorf("%+v", cfg)
	}
}

func TestRunbookEnv(t *testing.T) {
	cfg, problems := loaded(t, "", `API_SERVER_ENABLED=true
API_SERVER_PORT=8643
API_SERVER_HOST=127.0.0.1
HERMES_LOG_LEVEL=INFO
TELEGRAM_BOT_TOKEN=123456:abc
TELEGRAM_ALLOWED_USERS=111, 222
TELEGRAM_HOME_CHANNEL=-100123
TELEGRAM_HOME_CHANNEL_THREAD_ID=7
TELEGRAM_BASE_URL=http://127.0.0.1:9
`)
	if len(problems) != 0 {
		t.Errorf("problems: %v", problems)
	}
	tg := cfg.Platforms["telegram"]
	if !cfg.API.Enabled || cfg.API.Port != 8643 || cfg.Logging.Level != "info" {
		t.Errorf("%+v", cfg.API)
	}
	if !tg.Enabled || tg.Token.Reveal() != "123456:abc" || tg.TokenOrigin != ".env line 5 (TELEGRAM_BOT_TOKEN)" ||
		strings.Join(tg.AllowedUsers, "|") != "111|222" || tg.Home != (domain.Address{Platform: "telegram", ChatID: "-100123", ThreadID: "7"}) || tg.Extra["base_url"] != "http://127.0.0.1:9" {
		t.Errorf("%+v", tg)
	}
}

func TestPlatformPlaces(t *testing.T) {
	for _, place := range []string{"platforms:\n  discord:\n", "gateway:\n  platforms:\n    discord:\n"} {
		indent := strings.Repeat(" ", len(place)-len(strings.TrimLeft(place[strings.LastIndex(place[:len(place)-1], "\n")+1:], " "))-strings.LastIndex(place[:len(place)-1], "\n")-1+2)
		cfg, problems := loaded(t, place+indent+"token: abc\n"+indent+"extra: {base_url: 'http://x', ids: [1, 2], deep: {a: [1]}}\n"+indent+"home_channel: {platform: discord, chat_id: 123456789012345678, name: ops}\n", "")
		d := cfg.Platforms["discord"]
		if len(problems) != 0 || !d.Enabled || !d.RequireMention || d.Extra["base_url"] != "http://x" || d.Extra["ids"] != "1,2" || d.Extra["deep"] != `{"a":[1]}` ||
			d.Home.ChatID != "123456789012345678" || d.HomeName != "ops" {
			t.Errorf("%q: %+v %v", place, d, problems)
		}
	}
}

func TestWhatIsSwitchedOffStaysOff(t *testing.T) {
	const env = "DISCORD_BOT_TOKEN=stale\nAPI_SERVER_ENABLED=true\n"
	for _, off := range []string{"false", "no", "off", "flase"} {
		t.Run(off, func(t *testing.T) {
			cfg, problems := loaded(t, fmt.Sprintf("platforms:\n  discord:\n    enabled: %s\n  api_server:\n    enabled: %s\n", off, off), env)
			if d := cfg.Platforms["discord"]; d.Enabled || !d.Disabled || cfg.API.Enabled {
				t.Errorf("discord %v, api %v, problems %v", d.Enabled, cfg.API.Enabled, problems)
			}
			if faults := len(problems.Faults()); (off == "flase") != (faults == 2) {
				t.Errorf("faults: %v", problems.Faults())
			}
		})
	}
}

// A value that cannot be read must never open what a right one would close.
func TestMistakesNeverWiden(t *testing.T) {
	cfg, problems := loaded(t, `platforms:
  telegram:
    allowed_chats: {a: b}
    require_mention: [x]
    allow_all_users: perhaps
    unauthorized_dm_behavior: maybe
  api_server:
    enabled: true
    extra: {port: 99999, key: [a]}
approvals: {mode: of, cron_mode: yes}
terminal: {backend: doker}
security: {allow_private_urls: 2}
`, "TELEGRAM_BOT_TOKEN=1:a\nGATEWAY_ALLOW_ALL_USERS=maybe\n")
	tg := cfg.Platforms["telegram"]
	if len(tg.AllowedChats) == 0 || !tg.RequireMention || tg.AllowAll || tg.PairDMs {
		t.Errorf("telegram: %+v", tg)
	}
	if cfg.Approvals.Mode != "manual" || cfg.Approvals.CronMode != "deny" || cfg.Terminal.Backend == "local" || cfg.AllowPrivateURLs || cfg.Access.AllowAll {
		t.Errorf("%+v %+v %+v", cfg.Approvals, cfg.Terminal, cfg.Access)
	}
	if cfg.API.Port != 8642 {
		t.Errorf("port %d", cfg.API.Port)
	}
	if n := len(problems.Faults()); n != 11 {
		t.Errorf("%d faults:", n)
		for _, p := range problems {
			t.Log(p)
		}
	}
	if p := find1(t, problems, "platforms.api_server.extra.port"); p.Line != 9 || p.Column == 0 || !strings.Contains(p.String(), "config.yaml:9:") {
		t.Errorf("place of the port: %s", p)
	}
}

func TestAPIThatCannotBeReadStaysOff(t *testing.T) {
	for _, bad := range []string{"API_SERVER_PORT=abc", "API_SERVER_HOST=a b", "API_SERVER_ENABLED=treu"} {
		if cfg, problems := loaded(t, "", "API_SERVER_ENABLED=true\n"+bad+"\n"); cfg.API.Enabled || len(problems.Faults()) != 1 {
			t.Errorf("%s: enabled %v, %v", bad, cfg.API.Enabled, problems)
		}
	}
}

func TestBindNeedsKey(t *testing.T) {
	tests := []struct{ env, want string }{
		{"API_SERVER_HOST=0.0.0.0", "Refusing to start: binding to 0.0.0.0 requires API_SERVER_KEY. Set"},
		{"API_SERVER_HOST=::", "Refusing to start: binding to :: requires API_SERVER_KEY"},
		{"API_SERVER_HOST=0.0.0.0\nAPI_SERVER_KEY=short", "16 characters"},
		{"API_SERVER_HOST=0.0.0.0\nAPI_SERVER_KEY=change-me-change-me", "no placeholder"},
		{"API_SERVER_HOST=0.0.0.0\nAPI_SERVER_KEY=0123456789abcdef0123", ""},
		{"API_SERVER_HOST=127.0.0.1", ""},
		{"API_SERVER_HOST=::1", ""},
		{"API_SERVER_HOST=localhost", ""},
	}
	for _, tt := range tests {
		_, problems := loaded(t, "", "API_SERVER_ENABLED=true\n"+tt.env+"\n")
		if got := fmt.Sprint(problems.Faults()); tt.want == "" && len(problems.Faults()) > 0 || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s", tt.env, got)
		}
	}
}

func TestUnknownKeysNameTheNearest(t *testing.T) {
	_, problems := loaded(t, "agent:\n  max_turn: 5\n  future_thing: 1\nloging: {level: info}\n", "API_SEVER_PORT=8650\nMY_OWN=1\nTELEGRAM_BOT_TOKN=x\n")
	for key, want := range map[string]string{
		"agent.max_turn": "agent.max_turns", "loging": "logging", "API_SEVER_PORT": "API_SERVER_PORT", "TELEGRAM_BOT_TOKN": "TELEGRAM_BOT_TOKEN",
	} {
		if p := find1(t, problems, key); p.Severity != Warning || p.Fix != "did you mean "+want+"?" {
			t.Errorf("%s: %+v", key, p)
		}
	}
	if p := find1(t, problems, "agent.future_thing"); p.Severity != Notice || p.Line != 3 {
		t.Errorf("%+v", p)
	}
	if len(problems) != 5 {
		t.Errorf("problems: %v", problems)
	}
}

func TestBrokenYAMLIsNotUsed(t *testing.T) {
	p := profileIn(t)
	for _, bad := range []string{"a: [1\n", "a:\n\t- b\n", "a: 1\na: 2\n", "- a\n- b\n", "a: *nope\n", "x: \"open\n"} {
		write(t, p.ConfigFile(), bad)
		cfg, _, err := Load(p, mustEnv(t, p))
		if cfg != nil || !domain.IsCode(err, domain.Config) || !strings.Contains(err.Error(), p.ConfigFile()) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	write(t, p.ConfigFile(), "ok: 1\na: [1\n")
	if _, _, err := Load(p, mustEnv(t, p)); err == nil || !strings.Contains(err.Error(), "config.yaml:2:") {
		t.Errorf("the place is missing: %v", err)
	}
}

func TestAliasesAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	if _, err := parseYAML("x", []byte(b.String())); !domain.IsCode(err, domain.Config) {
		t.Errorf("nine to the twelfth values: %v", err)
	}
}

func TestAnchorsAndMerges(t *testing.T) {
	cfg, problems := loaded(t, "base: &b {require_mention: false}\nplatforms:\n  discord:\n    <<: *b\n    token: abc\n", "")
	if cfg.Platforms["discord"].RequireMention {
		t.Errorf("the merge was lost: %v", problems)
	}
}

func TestModels(t *testing.T) {
	tests := []struct {
		name, config, env        string
		provider, base, key, org string
		faults                   int
	}{
		{name: "a text, by the key", config: "model: x/y", env: "OPENROUTER_API_KEY=kkk", provider: "openrouter", base: "https://openrouter.ai/api/v1", key: "kkk", org: ".env line 1 (OPENROUTER_API_KEY)"},
		{name: "mapping", config: "model: {default: x, provider: openai-api, max_tokens: 5}", env: "OPENAI_API_KEY=kkk", provider: "openai-api", base: "https://api.openai.com/v1", key: "kkk", org: ".env line 1 (OPENAI_API_KEY)"},
		{name: "address by variable", config: "model: {default: x, provider: openai-api}", env: "OPENAI_API_KEY=kkk\nOPENAI_BASE_URL=http://127.0.0.1:9/v1", provider: "openai-api", base: "http://127.0.0.1:9/v1", key: "kkk", org: ".env line 1 (OPENAI_API_KEY)"},
		{name: "auto prefers the first key", config: "model: {default: x, provider: auto}", env: "XAI_API_KEY=xxx\nDEEPSEEK_API_KEY=ddd", provider: "deepseek", base: "https://api.deepseek.com/v1", key: "ddd", org: ".env line 2 (DEEPSEEK_API_KEY)"},
		{name: "bare address", config: "model: {default: x, base_url: 'http://127.0.0.1:1/v1', api_key: '${K}'}", env: "K=kkk", provider: "custom", base: "http://127.0.0.1:1/v1", key: "kkk", org: "config.yaml line 1"},
		{name: "custom by name", config: "model: {default: x, provider: 'custom:lab'}\ncustom_providers:\n- {name: lab, base_url: 'http://lab/v1', key_env: LAB}", env: "LAB=kkk", provider: "custom:lab", base: "http://lab/v1", key: "kkk", org: "custom_providers (lab)"},
		{name: "custom that is missing", config: "model: {default: x, provider: 'custom:lab'}", provider: "custom:lab", faults: 1},
		{name: "offline", config: "model: {provider: offline}", provider: "offline"},
		{name: "no key", config: "model: {default: x, provider: xai}", provider: "xai", base: "https://api.x.ai/v1", faults: 1},
		{name: "unknown provider", config: "model: {default: x, provider: opnrouter}", provider: "opnrouter", faults: 1},
		{name: "local without a key", config: "model: {default: x, provider: lmstudio}", provider: "lmstudio", base: "http://127.0.0.1:1234/v1"},
		{name: "variables win", config: "model: {default: a, provider: xai}", env: "HERMES_MODEL=x\nHERMES_INFERENCE_PROVIDER=deepseek\nDEEPSEEK_API_KEY=ddd", provider: "deepseek", base: "https://api.deepseek.com/v1", key: "ddd", org: ".env line 3 (DEEPSEEK_API_KEY)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, problems := loaded(t, tt.config+"\n", tt.env+"\n")
			m := cfg.Model
			if m.Provider != tt.provider || m.BaseURL != tt.base || m.Key.Reveal() != tt.key || m.KeyOrigin != tt.org || len(problems.Faults()) != tt.faults || !m.IsSet() {
				t.Errorf("%+v key %q\n%v", m, m.Key.Reveal(), problems)
			}
		})
	}
}

func TestFallbacks(t *testing.T) {
	cfg, problems := loaded(t, "fallback_providers:\n- {provider: xai, model: g}\n- {provider: xai}\nfallback_model: {provider: deepseek, model: old}\n", "XAI_API_KEY=k\n")
	if len(cfg.Fallbacks) != 1 || cfg.Fallbacks[0].Model != "g" || len(problems) != 1 || problems[0].Line != 3 {
		t.Errorf("%+v %v", cfg.Fallbacks, problems)
	}
	cfg, _ = loaded(t, "fallback_model: {provider: deepseek, model: old}\n", "DEEPSEEK_API_KEY=k\n")
	if len(cfg.Fallbacks) != 1 || cfg.Fallbacks[0].Model != "old" {
		t.Errorf("legacy: %+v", cfg.Fallbacks)
	}
}

func TestKeyFromTheRootsPool(t *testing.T) {
	root := t.TempDir()
	p := Profile{"liam", root, mkdir(t, root, "profiles", "liam")}
	write(t, p.ConfigFile(), "model: {default: x, provider: xai}\n")
	write(t, root+"/auth.json", `{"version":1,"credential_pool":{"xai":[{"auth_type":"oauth","access_token":"no"},{"auth_type":"api_key","access_token":"second","priority":2},{"auth_type":"api_key","access_token":"first","priority":1}]}}`)
	cfg, problems, err := Load(p, mustEnv(t, p))
	if err != nil || cfg.Model.Key.Reveal() != "first" || len(problems) != 0 {
		t.Errorf("%q %v %v", cfg.Model.Key.Reveal(), problems, err)
	}
	if cfg.API.ModelName != "liam" {
		t.Errorf("model name %q", cfg.API.ModelName)
	}
}

func TestDurationsAndZones(t *testing.T) {
	cfg, problems := loaded(t, "timezone: Asia/Seoul\nagent: {gateway_timeout: 90, clarify_timeout: 2h}\nstreaming: {enabled: true, edit_interval: 0.5}\nsession_reset: {idle_minutes: 10}\ndisplay: {tool_progress: off}\n", "HERMES_CRON_SCRIPT_TIMEOUT=7\nHERMES_CRON_TIMEOUT=0\n")
	if len(problems) != 0 || cfg.Timezone.String() != "Asia/Seoul" || cfg.Agent.TurnTimeout != 90*time.Second || cfg.Agent.QuestionTTL != 2*time.Hour ||
		cfg.Display.StreamEvery != 500*time.Millisecond || cfg.Session.ResetIdle != 10*time.Minute || cfg.Cron.ScriptTimeout != 7*time.Second || cfg.Cron.IdleTimeout != 0 || cfg.Cron.Grace != 0 || cfg.Display.ToolProgress != "off" {
		t.Errorf("%+v %v", cfg, problems)
	}
	if _, problems := loaded(t, "timezone: Mars/Olympus\n", ""); len(problems.Faults()) != 1 {
		t.Errorf("%v", problems)
	}
}

func TestMissingHalfOfACredential(t *testing.T) {
	cfg, problems := loaded(t, "", "SLACK_BOT_TOKEN=xoxb-1\n")
	if p := find1(t, problems, "platforms.slack"); cfg.Platforms["slack"].Enabled || !strings.Contains(p.Message, "SLACK_APP_TOKEN") {
		t.Errorf("%v", problems)
	}
}

func TestNoProblemHoldsASecret(t *testing.T) {
	const hidden = "sesame-open-1234"
	_, problems := loaded(t, "platforms: {telegram: {token: "+hidden+", allowed_users: ['@bob']}, api_server: {enabled: true, api_key: ["+hidden+"]}}\nmodel: {default: x, provider: nope, api_key: {a: "+hidden+"}}\n",
		"TELEGRAM_BOT_TOKEN="+hidden+"2\nAPI_SERVER_KEY="+hidden+"\nAPI_SERVER_HOST=0.0.0.0\n")
	if len(problems) < 3 {
		t.Errorf("only %v", problems)
	}
	if s := fmt.Sprint(problems); strings.Contains(s, hidden) {
		t.Errorf("a secret in %s", s)
	}
}

func TestExplainGivesOrigins(t *testing.T) {
	p := profileIn(t)
	write(t, p.ConfigFile(), "agent:\n  max_turns: 5\n")
	write(t, p.EnvFile(), "TELEGRAM_BOT_TOKEN=123:abc\n")
	items, _, err := Explain(p, mustEnv(t, p, "HERMES_LOG_LEVEL=debug"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, i := range items {
		got[i.Key] = i.Value + " | " + i.Origin
	}
	for key, want := range map[string]string{
		"agent.max_turns":          "5 | config.yaml line 2",
		"logging.level":            "debug | environment (HERMES_LOG_LEVEL)",
		"platforms.telegram.token": "<secret> | .env line 1 (TELEGRAM_BOT_TOKEN)",
		"approvals.mode":           "manual | default",
	} {
		if got[key] != want {
			t.Errorf("%s: %q, want %q", key, got[key], want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("model: x\nplatforms: {telegram: {token: a}}\n", "API_SERVER_PORT=1\n")
	f.Add("a: &a [*a]\n", "")
	f.Add("? x\n: y\n", "export A='")
	f.Fuzz(func(t *testing.T, config, env string) {
		p := Profile{DefaultProfile, "/nonexistent", "/nonexistent"}
		file, _ := ParseEnv(p.EnvFile(), []byte(env))
		e := &Env{vars: map[string]envVar{}, profile: p}
		for name, v := range file.values() {
			e.vars[name] = envVar{v, Origin{File: p.EnvFile(), Line: 1, Env: name}}
		}
		l, err := loadBytes(p, e, []byte(config))
		if err == nil && (l.draft.API.Port < 1 || l.draft.Timezone == nil || l.draft.Agent.MaxSteps < 1) {
			t.Errorf("an unusable value was let in: %+v", l.draft.Config)
		}
	})
}

func TestNumbersKeepTheirDigits(t *testing.T) {
	cfg, problems := loaded(t, "platforms:\n  telegram:\n    token: 1:a\n    allowed_users: [123456789, 8]\n    home_channel: -1001234567890\n    extra: {n: 12345678901234567890, deep: [{id: -1001234567890}]}\n", "")
	tg := cfg.Platforms["telegram"]
	if len(problems) != 0 || strings.Join(tg.AllowedUsers, ",") != "123456789,8" || tg.Home.ChatID != "-1001234567890" || tg.Extra["n"] != "12345678901234567890" || tg.Extra["deep"] != `[{"id":-1001234567890}]` {
		t.Errorf("%+v %v", tg, problems)
	}
}

func TestSecretsAreAllKnown(t *testing.T) {
	cfg, _ := loaded(t, "model: {default: x, provider: xai}\nfallback_providers: [{provider: deepseek, model: y}]\ncustom_providers: [{name: lab, base_url: 'http://l', api_key: s1}]\nplatforms: {telegram: {token: s2}}\n",
		"XAI_API_KEY=s3\nDEEPSEEK_API_KEY=s4\nAPI_SERVER_KEY=s5\nSLACK_BOT_TOKEN=s6\nSLACK_APP_TOKEN=s7\n")
	got := cfg.Secrets()
	for i := range 7 {
		if s := fmt.Sprintf("s%d", i+1); !strings.Contains(" "+strings.Join(got, " ")+" ", " "+s+" ") {
			t.Errorf("%s is missing from %v", s, got)
		}
	}
}

func TestTerminalFolder(t *testing.T) {
	for _, tt := range []struct{ config, env, want string }{
		{"", "", "/home/x"},
		{"terminal: {cwd: .}", "", "/home/x"},
		{"terminal: {cwd: ~/work}", "", "/home/x/work"},
		{"terminal: {cwd: /srv}", "", "/srv"},
		{"terminal: {cwd: /srv}", "TERMINAL_CWD=~/other", "/home/x/other"},
		{"terminal: {cwd: relative}", "", "/home/x"},
	} {
		if cfg, _ := loaded(t, tt.config+"\n", tt.env+"\n"); cfg.Terminal.Cwd != tt.want {
			t.Errorf("%s %s: %q", tt.config, tt.env, cfg.Terminal.Cwd)
		}
	}
}

// Load is on the way to "ready", whose whole budget is 25 ms.
func BenchmarkLoad(b *testing.B) {
	p := Profile{DefaultProfile, "testdata", "testdata"}
	env, _, err := LoadEnv(p, []string{"TELEGRAM_BOT_TOKEN=1:a", "API_SERVER_ENABLED=true", "OPENROUTER_API_KEY=k"})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := Load(p, env); err != nil {
			b.Fatal(err)
		}
	}
}
