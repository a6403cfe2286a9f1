package home

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"hermes/internal/domain"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Each edit of testdata/config.yaml is kept as a golden file, where one sees
// that nothing but the edited value changes.
func TestSpliceGolden(t *testing.T) {
	data, err := os.ReadFile("testdata/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, key, value string }{ // value "" takes the key out
		{"overwrite-quoted", "model.default", "other/model"},
		{"overwrite-number", "_config_version", "13"},
		{"overwrite-block", "model", "{provider: offline}"},
		{"overwrite-list", "toolsets", `["web"]`},
		{"overwrite-literal", "soul", "short"},
		{"overwrite-empty", "empty", "full"},
		{"overwrite-in-flow", "platforms.telegram.extra.base_url", "y"},
		{"add-to-block", "model.base_url", `"http://y"`},
		{"add-deep", "platforms.slack.extra.team", "T1"},
		{"add-to-inner", "platforms.telegram.reply_to_mode", "all"},
		{"add-to-flow", "platforms.telegram.extra.deep.er", "1"},
		{"add-under-empty", "empty.deep.er", "1"},
		{"add-at-top", "display.streaming", "true"},
		{"drop-scalar", "model.provider", ""},
		{"drop-block", "platforms.telegram", ""},
		{"drop-last-of-block", "platforms.discord.home_channel.chat_id", ""},
		{"drop-in-flow", "platforms.telegram.extra.base_url", ""},
		{"drop-literal", "soul", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, err := SplitKey(tt.key)
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			if tt.value == "" {
				got, err = spliceUnset(data, path)
			} else {
				got, err = spliceSet(data, path, tt.value)
			}
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "golden", tt.name+".yaml")
			if *update {
				write(t, golden, string(got))
			}
			if want := readFile(t, golden); string(got) != want {
				t.Errorf("got\n%s", got)
			}
			// The same with other line ends and a byte order mark.
			crlf := "\ufeff" + strings.ReplaceAll(string(data), "\n", "\r\n")
			if tt.name == "overwrite-literal" || tt.name == "drop-literal" || tt.value == "" {
				return
			}
			again, err := spliceSet([]byte(crlf), path, tt.value)
			if err != nil {
				t.Fatalf("with CR LF: %v", err)
			}
			if want := "\ufeff" + strings.ReplaceAll(string(got), "\n", "\r\n"); string(again) != want {
				t.Errorf("with CR LF got\n%q", again)
			}
		})
	}
}

func TestSpliceSmallFiles(t *testing.T) {
	tests := []struct{ in, key, value, want string }{
		{"", "a.b", "1", "a:\n  b: 1\n"},
		{"# only a comment", "a", "1", "# only a comment\na: 1\n"},
		{"a: 1", "b", "2", "a: 1\nb: 2\n"},
		{"{a: 1}", "b", "2", "{a: 1, b: 2}"},
		{"{}\n", "b", "2", "{b: 2}\n"},
		{"a: {}\n", "a.b", "2", "a: {b: 2}\n"},
		{"a: null # c\n", "a", "2", "a: 2 # c\n"},
		{"a: ~\n", "a.b", "2", "a: {b: 2}\n"},
		{"\"a b\": 1\n", "a b", "2", "\"a b\": 2\n"},
		{"a: &x 1\nb: 3\n", "a", "2", "a: 2\nb: 3\n"},
		{"a: one\n  two\nb: 3\n", "a", "2", "a: 2\nb: 3\n"},
		{"a: [1,\n  2] # c\nb: 3\n", "a", "2", "a: 2 # c\nb: 3\n"},
		{"größe: {ä: 1, ö: 2}\n", "größe.ö", "3", "größe: {ä: 1, ö: 3}\n"},
		{"a: \"#x\" # c\n", "a", "2", "a: 2 # c\n"},
		{"a: {b: 1, # c }\n  d: 2}\n", "a.e", "3", "a: {b: 1, # c }\n  d: 2, e: 3}\n"},
	}
	for _, tt := range tests {
		path, err := SplitKey(tt.key)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := spliceSet([]byte(tt.in), path, tt.value); err != nil || string(got) != tt.want {
			t.Errorf("%q: %s=%s gives %q, %v; want %q", tt.in, tt.key, tt.value, got, err, tt.want)
		}
	}
	if _, err := spliceSet([]byte("a: 1\n"), []string{"a", "b"}, "1"); err == nil {
		t.Error("a key under a number was set")
	}
}

func FuzzSplice(f *testing.F) {
	data, err := os.ReadFile("testdata/config.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(data), "model.default", "x")
	f.Add("{a: [b, {c: d}]}", "a", "y z")
	f.Add("a: 'x\n  y'\nb: >-\n  z\n", "b.c", "1")
	f.Fuzz(func(t *testing.T, text, key, value string) {
		path, err := SplitKey(key)
		if err != nil || len(path) > 5 {
			return
		}
		// splice checks its own result; here it must only not panic, and a key
		// that is set and taken out again must be gone.
		out, err := spliceSet([]byte(text), path, coerce(value))
		if err != nil {
			return
		}
		root, err := parseYAML("", out)
		if err != nil || root.at(path...) == nil {
			t.Fatalf("%q: set %q, and it is not there: %q", text, key, out)
		}
		if out, err = spliceUnset(out, path); err == nil {
			if root, err = parseYAML("", out); err != nil || root.at(path...) != nil {
				t.Errorf("%q is still there in %q", key, out)
			}
		}
	})
}

func TestYamlTextRoundTrips(t *testing.T) {
	for _, s := range []string{"", "x", "yes", "On", "null", "12", "1e3", "12:30", "a: b", "a #b", "- x", "it's", "a\"b", "\\n", "größe", "x\ny", "@x", "*a", "a:", "http://x:1/y", "~", " x ", "{a}"} {
		n, err := parseYAML("", []byte("v: "+yamlText(s)+"\n"))
		if err != nil || n.get("v") == nil || !reflect.DeepEqual(n.get("v").plain(), s) {
			t.Errorf("%q is written %s and read %v, %v", s, yamlText(s), n, err)
		}
	}
}

func TestSetChoosesTheFile(t *testing.T) {
	p := profileIn(t)
	set := func(key, value string) Change {
		t.Helper()
		c, err := Set(p, mustEnv(t, p), key, value, By{})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	set("OPENROUTER_API_KEY", "k1")
	set("some_token", "k2")
	set("api_server_port", "8650")
	set("model", "m1")
	set("model.provider", "openrouter")
	set("command_allowlist", `["git push"]`)
	set("agent.max_turns", "7")
	set(`quick_commands.a\.b`, `{"type":"exec","command":"ls"}`)
	if got, want := readFile(t, p.EnvFile()), "OPENROUTER_API_KEY=k1\nSOME_TOKEN=k2\nAPI_SERVER_PORT=8650\n"; got != want {
		t.Errorf(".env is %q", got)
	}
	want := "model: {default: m1, provider: openrouter}\ncommand_allowlist: [\"git push\"]\nagent:\n  max_turns: 7\nquick_commands:\n  \"a.b\": {\"type\":\"exec\",\"command\":\"ls\"}\n"
	got := readFile(t, p.ConfigFile())
	if got = strings.ReplaceAll(got, "  a.b:", `  "a.b":`); got != want {
		t.Errorf("config.yaml is %q", got)
	}
	if bak := readFile(t, p.ConfigFile()+".bak"); !strings.HasPrefix(want, bak) {
		t.Errorf("the copy is %q", bak)
	}
	cfg, problems, err := Load(p, mustEnv(t, p))
	if err != nil || len(problems) != 0 || cfg.Model.Model != "m1" || cfg.Agent.MaxSteps != 7 || cfg.QuickCommands["a.b"].Target != "ls" || cfg.API.Port != 8650 {
		t.Errorf("%+v %v %v", cfg, problems, err)
	}
	if _, err := Unset(p, mustEnv(t, p), "SOME_TOKEN", By{}); err != nil || strings.Contains(readFile(t, p.EnvFile()), "SOME") {
		t.Errorf("unset: %v", err)
	}
}

func TestSetRefusesWhatCannotBeRead(t *testing.T) {
	p := profileIn(t)
	write(t, p.ConfigFile(), "agent: {max_turns: 5}\n")
	for _, tt := range [][2]string{{"agent.max_turns", "many"}, {"approvals.mode", "of"}, {"API_SERVER_PORT", "99999"}, {"timezone", "Mars"}, {"platforms.telegram.enabled", "perhaps"}, {"a..b", "1"}} {
		if _, err := Set(p, mustEnv(t, p), tt[0], tt[1], By{}); !domain.IsCode(err, domain.Invalid) {
			t.Errorf("%s=%s: %v", tt[0], tt[1], err)
		}
	}
	if readFile(t, p.ConfigFile()) != "agent: {max_turns: 5}\n" {
		t.Error("a refused edit changed the file")
	}
	if _, err := os.Stat(p.EnvFile()); err == nil {
		t.Error("a refused edit made .env")
	}
	c, err := Set(p, mustEnv(t, p), "agent.max_turn", "5", By{})
	if err != nil || len(c.Problems) != 1 || !strings.Contains(c.Problems[0].Fix, "agent.max_turns") {
		t.Errorf("a misspelling: %+v %v", c, err)
	}
}

func TestGet(t *testing.T) {
	p := profileIn(t)
	write(t, p.ConfigFile(), "model: {default: x, api_key: k}\n")
	write(t, p.EnvFile(), "API_SERVER_KEY=kk\nDISCORD_BOT_TOKEN=dd\n")
	env := mustEnv(t, p)
	for key, want := range map[string]string{
		"model.default":           "x config.yaml line 1 false",
		"model.api_key":           "k config.yaml line 1 true",
		"API_SERVER_KEY":          "kk .env line 1 (API_SERVER_KEY) true",
		"agent.max_turns":         "90 default false",
		"platforms.discord.token": "dd .env line 2 (DISCORD_BOT_TOKEN) true",
	} {
		v, err := Get(p, env, key)
		if got := fmt.Sprint(v.Value, " ", v.Origin, " ", v.Secret); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", key, got, err, want)
		}
	}
	for _, key := range []string{"no.such", "NO_SUCH_KEY"} {
		if _, err := Get(p, env, key); !domain.IsCode(err, domain.NotFound) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestConcurrentEditsLoseNothing(t *testing.T) {
	p := profileIn(t)
	env := mustEnv(t, p)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if _, err := Set(p, env, fmt.Sprintf("providers.p%d.base_url", i), "http://x", By{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	cfg, _, err := Load(p, env)
	if err != nil || len(cfg.Providers) != 10 {
		t.Errorf("%d of 10 edits are there, %v", len(cfg.Providers), err)
	}
}
