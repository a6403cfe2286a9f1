package settings_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/platform/settings"
)

func reader(extra map[string]string) *settings.Reader {
	return settings.Of("demo", home.PlatformConfig{Extra: extra})
}

func mode(r *settings.Reader) int {
	return settings.Word(r, "key", "one or two", map[string]int{"": 1, "one": 1, "two": 2})
}

// Every value is read in each way that people write it; one that is not set, or
// wrong, is read as its default, and what is wrong is told with both of its names.
func TestValues(t *testing.T) {
	flag := func(otherwise bool) func(*settings.Reader) any {
		return func(r *settings.Reader) any { return r.Flag("key", otherwise) }
	}
	number := func(r *settings.Reader) any { return r.Number("key", -1, 1000) }
	span := func(r *settings.Reader) any { return r.Time("key") }
	word := func(r *settings.Reader) any { return mode(r) }
	for _, c := range []struct {
		kind  string
		read  func(*settings.Reader) any
		text  []string
		want  any
		wants string // what the problem says to write; "" means that there is none
	}{
		{"flag", flag(false), []string{"true", " Yes ", "ON", "1"}, true, ""},
		{"flag", flag(true), []string{"false", "no", "Off\n", "0", "none"}, false, ""},
		{"flag", flag(true), []string{"", "  "}, true, ""},
		{"flag", flag(true), []string{"perhaps", "2"}, true, "write true or false"},
		{"number", number, []string{"1000", " 1_000 "}, int64(1000), ""},
		{"number", number, []string{"", " "}, int64(0), ""},
		{"number", number, []string{"-2", "1001", "1e3", "99999999999999999999", "x"}, int64(0), "write a number from -1 to 1000"},
		{"time", span, []string{"24h", " 1440m "}, 24 * time.Hour, ""},
		{"time", span, []string{""}, time.Duration(0), ""},
		{"time", span, []string{"soon", "0s", "-1h", "24"}, time.Duration(0), "write a time such as 24h"},
		{"word", word, []string{"Two "}, 2, ""},
		{"word", word, []string{"", "one"}, 1, ""},
		{"word", word, []string{"three"}, 1, "write one or two"},
	} {
		for _, text := range c.text {
			r := reader(map[string]string{"key": text})
			got, err := c.read(r), r.Err("Demo is")
			if got != c.want || (err == nil) != (c.wants == "") {
				t.Errorf("%s %q is read as %v, want %v; %v", c.kind, text, got, c.want, err)
			}
			if err == nil {
				continue
			}
			for _, part := range []string{"Demo is not set up right: ", "DEMO_KEY (platforms.demo.extra.key) is \"", c.wants} {
				if !domain.IsCode(err, domain.Config) || !strings.Contains(err.Error(), part) {
					t.Errorf("%s %q: %v does not say %q", c.kind, text, err, part)
				}
			}
		}
	}
}

func TestWhoseBots(t *testing.T) {
	for text, want := range map[string]settings.Bots{"": "none", "None": "none", "false": "none", "off": "none", "mentions": "mentions", "all": "all", "TRUE": "all", "yes": "all"} {
		r := reader(map[string]string{"allow_bots": text})
		if got, err := r.Bots(), r.Err("Demo is"); got != want || err != nil {
			t.Errorf("%q: %s, %v; want %s", text, got, err, want)
		}
		r = reader(map[string]string{"allow_bots": text})
		if got, err := r.AnyBots(), r.Err("Demo is"); got != (want == "all") || (err != nil) != (want == "mentions") {
			t.Errorf("%q: %t, %v", text, got, err)
		}
	}
}

// Every problem is told in one message, and none repeats a value at length.
func TestProblems(t *testing.T) {
	long := strings.Repeat("é", 500)
	r := settings.Of("demo", home.PlatformConfig{MentionPatterns: []string{"fine", "("}, Extra: map[string]string{"a": long, "b": "x"}})
	r.Flag("a", true)
	r.Number("b", 1, 2)
	rooms := r.Rooms("free")
	r.Problem(settings.NoURLs("demo", map[string]string{"base_url": "localhost", "proxy": "::", "other": "x"})...)
	r.Problem(settings.NoURLs("demo", map[string]string{"base_url": "http://127.0.0.1:1", "proxy": ""})...)
	text := r.Err("Demo is").Error()
	for _, want := range []string{"DEMO_A", "DEMO_B", `"("`, "demo.extra.base_url is no URL", "demo.extra.proxy is no URL", "…"} {
		if strings.Count(text, want) != 1 {
			t.Errorf("%q is not said once: %s", want, text)
		}
	}
	if len(text) > 1000 || strings.Contains(text, "other") {
		t.Error(text)
	}
	if len(rooms.MentionPatterns) != 1 {
		t.Errorf("a pattern that is right is left out: %v", rooms.MentionPatterns)
	}
	if err := settings.Wrong("Demo is", nil); err != nil {
		t.Error(err)
	}
}

func TestRooms(t *testing.T) {
	r := settings.Of("demo", home.PlatformConfig{
		AllowedChats: []string{"a"}, IgnoredThreads: []string{"7", "room:8"}, MentionPatterns: []string{"^hey bot", "robot$"},
		RequireMention: true, Reactions: true, Typing: true, Extra: map[string]string{"free": "1, 2\t3\r\n4,,"},
	}).Rooms("free")
	if !slices.Equal(r.Allowed, []string{"a"}) || !slices.Equal(r.Free, []string{"1", "2", "3", "4"}) || !r.RequireMention || !r.Reactions || r.NoTyping {
		t.Errorf("read as %+v", r)
	}
	for text, want := range map[string]bool{"HEY BOT, you": true, "you ROBOT": true, "hey you bot": false, "": false} {
		if r.Addressed(text) != want {
			t.Errorf("%q is a mention: %t", text, !want)
		}
	}
	for at, want := range map[[2]string]bool{{"room", "7"}: true, {"other", "7"}: true, {"room", "8"}: true, {"other", "8"}: false, {"room", ""}: false} {
		if r.Ignores(at[0], at[1]) != want {
			t.Errorf("%v is ignored: %t", at, !want)
		}
	}
	if (settings.Rooms{}).Ignores("room", "7") || (settings.Rooms{}).Addressed("hey bot") {
		t.Error("nothing is configured, and something is ignored or a mention")
	}
}

func TestSmallThings(t *testing.T) {
	for token, bad := range map[string]bool{"abc-1:~!": false, "": false, "a b": true, "a\r\nX: y": true, "ä": true, "\x7f": true} {
		if settings.BadToken(token) != bad {
			t.Errorf("%q: %t", token, !bad)
		}
	}
	if settings.Origin("") != "" || settings.Origin(".env line 2") != " (.env line 2)" {
		t.Error("an origin reads wrongly behind a name")
	}
	if settings.Or(0, 7) != 7 || settings.Or(-1, 7) != 7 || settings.Or(3, 7) != 3 {
		t.Error("a default is taken wrongly")
	}
}
