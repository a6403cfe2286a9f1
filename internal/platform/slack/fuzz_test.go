package slack

import (
	"strings"
	"testing"
	"unicode/utf8"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/settings"
	"hermes/internal/secret"
)

// quiet is an adapter that can be asked nothing: all it needs is known.
func quiet(t testing.TB) *Adapter {
	t.Helper()
	a, err := New(Config{Token: secret.Value("xoxb-1-2-abc"), AppToken: secret.Value("xapp-1-A1-2-abc"), BaseURL: "http://127.0.0.1:1", Rooms: settings.Rooms{RequireMention: true}}, platform.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	a.self.Store(&identity{user: "U1", bot: "B1", team: "T1", name: "hermes"})
	a.commands.Set([]platform.Command{{Name: "stop"}})
	return a
}

// check holds an event to what the inbox needs.
func check(t *testing.T, in domain.Inbound) {
	t.Helper()
	for what, s := range map[string]string{"event id": in.EventID, "chat": in.ChatID, "user": in.UserID, "text or file": in.Text + strings.Repeat("f", len(in.Attachments)), "name": in.UserName} {
		if s == "" || !utf8.ValidString(s) || strings.Contains(s, "\x00") {
			t.Fatalf("the %s is %q in %+v", what, s, in)
		}
	}
	if len(in.Text) > maxInText || len(in.Attachments) > maxInFiles || len(in.EventID) > 300 || len(in.UserName) > 200 || len(in.ChatName) > 200 {
		t.Fatalf("it is not bounded: %d bytes, %d files", len(in.Text), len(in.Attachments))
	}
	if !isID(in.ChatID) || in.ThreadID != "" && !isTS(in.ThreadID) {
		t.Fatalf("it comes from %s", in.Address)
	}
	for _, at := range in.Attachments {
		if !isID(at.Ref) || at.Name == "" || strings.ContainsAny(at.Name, "/\\") || at.Size < 0 {
			t.Fatalf("a file is %+v", at)
		}
	}
}

// FuzzEvent reads whatever comes over the socket.
func FuzzEvent(f *testing.F) {
	for _, s := range []string{
		`{"event_id":"Ev1","event":{"type":"message","channel":"D1","channel_type":"im","user":"U1","text":"a &lt; <@U1> <https://e.x|e>","ts":"1712345678.000100"}}`,
		`{"event":{"type":"message","channel":"C1","user":"U1","bot_id":"B2","text":"<@U1> x","ts":"1.000001","thread_ts":"1.000001","files":[{"id":"F1","name":"../../x","size":-1,"mimetype":"image/png"}]}}`,
		`{"event":{"type":"channel_rename","channel":{"id":"C1","name":"n"}}}`, `{"event":{"type":"channel_left","channel":"C1"}}`,
		`{"type":"block_actions","user":{"id":"U2","name":"\u0000"},"channel":{"id":"C1"},"message":{"ts":"1.000001","thread_ts":"1.000002"},"actions":[{"type":"button","action_id":"hermes_0","value":"/approve","action_ts":"1.1"}]}`,
		`{"command":"/hermes","text":"stop","user_id":"U2","channel_id":"D1","trigger_id":"1.2.3"}`,
		`{"event":{"type":"message","channel":"C1","user":"U2","text":7,"ts":"9.999999"}}`, `[]`, `null`, ``,
	} {
		f.Add([]byte(s))
	}
	a := quiet(f)
	f.Fuzz(func(t *testing.T, payload []byte) {
		// Users whose names are not known are asked for, and nobody answers.
		a.names.setUser("U2", "ann")
		env := &envelope{Payload: payload}
		if in, ok := a.press(env); ok {
			check(t, in)
		}
		if in, ok := a.command(env); ok {
			check(t, in)
		}
		m, kind := messageOf(payload)
		if m == nil || kind != "message" && kind != "app_mention" || m.User != "U2" || strings.Contains(m.Text, "<@") {
			return
		}
		a.names.setThread(m.Channel, m.root(), true)
		in, ok, e := a.message(t.Context(), m, channel{ID: m.Channel, IsIM: m.Channel[0] == 'D'})
		if e != nil {
			t.Fatal(e)
		}
		if ok {
			check(t, in)
		}
	})
}

// FuzzText holds the reading of Slack's own escapes to never losing a letter.
func FuzzText(f *testing.F) {
	for _, s := range []string{"a <b> c", "<@U1|x>", "<!date^1^{d}|noon>", "<https://e.x|<>", "&lt;&amp;lt;", "<", "<>", "<|>", "<@>", "<!>", "<#|>", "\x01<@U1>\x01"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name := func(kind byte, id, label string) string { return string(kind) + orElse(label, id) }
		out := plainText(s, name)
		if !strings.ContainsAny(s, "<&\x01") && out != s {
			t.Fatalf("%q became %q", s, out)
		}
		if len(out) > 2*len(s)+2 {
			t.Fatalf("%d bytes became %d", len(s), len(out))
		}
		if text, _ := withoutSelf(s, "hermes"); strings.Contains(text, selfMark) {
			t.Fatalf("a mark is left in %q", text)
		}
	})
}

// FuzzPosition holds a stored position to being read as it was written.
func FuzzPosition(f *testing.F) {
	f.Add(`{"from":1,"seen":2,"threads":[{"c":"C1","t":"1.000001"}]}`)
	f.Add(`{"from":5,"seen":2}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, s string) {
		p := parsePosition(s)
		if q := parsePosition(p.String()); p.From != 0 && q.String() != p.String() {
			t.Fatalf("%q became %q", p.String(), q.String())
		}
		if len(p.Threads) > maxThreads || p.Seen < p.From {
			t.Fatalf("the position is %+v", p)
		}
		if ts := tsOf(p.Seen); p.Seen > 0 && p.Seen < 1<<55 && micros(ts) != p.Seen {
			t.Fatalf("%d is written %s", p.Seen, ts)
		}
	})
}
