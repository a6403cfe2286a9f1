package telegram

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"hermes/testkit/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

type envelope struct {
	status int
	apiReplyForTest
}

type apiReplyForTest struct {
	OK          bool            `json:"ok"`
	Result      json.RawMessage `json:"result"`
	ErrorCode   int             `json:"error_code"`
	Description string          `json:"description"`
	Parameters  struct {
		RetryAfter int   `json:"retry_after"`
		MigrateTo  int64 `json:"migrate_to_chat_id"`
	} `json:"parameters"`
}

func post(ctx context.Context, s *Server, method string, v url.Values) (envelope, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+"/bot"+s.Token()+"/"+method, strings.NewReader(v.Encode()))
	if err != nil {
		return envelope{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return envelope{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return envelope{}, err
	}
	e := envelope{status: resp.StatusCode}
	return e, json.Unmarshal(b, &e.apiReplyForTest)
}

func call(t testing.TB, s *Server, method string, pairs ...string) envelope {
	t.Helper()
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	e, err := post(t.Context(), s, method, v)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestRefusals(t *testing.T) {
	s := start(t, Options{})
	u := s.AddUser("Alice")
	blocked := s.AddUser("Bob")
	s.Forbid(blocked.ID, "bot was blocked by the user")
	group := s.AddGroup("Old")
	super := s.Migrate(group.ID)
	forum := s.AddSupergroup("Forum", true)
	hers := s.Say(u, "hi")
	sent := call(t, s, "sendMessage", "chat_id", itoa(u.ID), "text", "same")
	if !sent.OK {
		t.Fatalf("a plain message was refused: %+v", sent)
	}
	chat := itoa(u.ID)
	for _, c := range []struct {
		name   string
		method string
		params []string
		code   int
		says   string
	}{
		{"no chat", "sendMessage", []string{"text", "x"}, 400, "chat_id is empty"},
		{"unknown chat", "sendMessage", []string{"chat_id", "5", "text", "x"}, 400, "chat not found"},
		{"empty", "sendMessage", []string{"chat_id", chat, "text", " \n"}, 400, "message text is empty"},
		{"too long", "sendMessage", []string{"chat_id", chat, "text", strings.Repeat("x", 4097)}, 400, "message is too long"},
		{"too long in UTF-16", "sendMessage", []string{"chat_id", chat, "text", strings.Repeat("😀", 2049)}, 400, "message is too long"},
		{"no UTF-8", "sendMessage", []string{"chat_id", chat, "text", "a\xff"}, 400, "UTF-8"},
		{"unknown tag", "sendMessage", []string{"chat_id", chat, "text", "<h1>x</h1>", "parse_mode", "HTML"}, 400, `can't parse entities: Unsupported start tag "h1" at byte offset 0`},
		{"unclosed", "sendMessage", []string{"chat_id", chat, "text", "<b>x", "parse_mode", "HTML"}, 400, `can't parse entities: Can't find end tag corresponding to start tag "b"`},
		{"crossed", "sendMessage", []string{"chat_id", chat, "text", "<b><i>x</b></i>", "parse_mode", "HTML"}, 400, `expected "</i>", found "</b>"`},
		{"stray end", "sendMessage", []string{"chat_id", chat, "text", "x</b>", "parse_mode", "HTML"}, 400, "Unexpected end tag at byte offset 1"},
		{"reply to nothing", "sendMessage", []string{"chat_id", chat, "text", "x", "reply_parameters", `{"message_id":99}`}, 400, "message to be replied not found"},
		{"no topic", "sendMessage", []string{"chat_id", itoa(forum.ID), "text", "x", "message_thread_id", "77"}, 400, "message thread not found"},
		{"long button", "sendMessage", []string{"chat_id", chat, "text", "x", "reply_markup", `{"inline_keyboard":[[{"text":"a","callback_data":"` + strings.Repeat("d", 65) + `"}]]}`}, 400, "BUTTON_DATA_INVALID"},
		{"blocked", "sendMessage", []string{"chat_id", itoa(blocked.ID), "text", "x"}, 403, "Forbidden: bot was blocked by the user"},
		{"migrated", "sendMessage", []string{"chat_id", itoa(group.ID), "text", "x"}, 400, "upgraded to a supergroup"},
		{"long caption", "sendDocument", []string{"chat_id", chat, "document", "x", "caption", strings.Repeat("x", 1025)}, 400, "message caption is too long"},
		{"no such file", "sendDocument", []string{"chat_id", chat, "document", "x"}, 400, "wrong file identifier"},
		{"edit nothing", "editMessageText", []string{"chat_id", chat, "message_id", "99", "text", "x"}, 400, "message to edit not found"},
		{"edit hers", "editMessageText", []string{"chat_id", chat, "message_id", fmt.Sprint(hers.ID), "text", "x"}, 400, "message can't be edited"},
		{"edit to the same", "editMessageText", []string{"chat_id", chat, "message_id", "2", "text", "same"}, 400, "message is not modified"},
		{"action", "sendChatAction", []string{"chat_id", chat, "action", "dance"}, 400, "wrong parameter action"},
		{"query", "answerCallbackQuery", []string{"callback_query_id", "1"}, 400, "query is too old"},
		{"command", "setMyCommands", []string{"commands", `[{"command":"a-b","description":"x"}]`}, 400, "BOT_COMMAND_INVALID"},
		{"file", "getFile", []string{"file_id", "1"}, 400, "invalid file_id"},
		{"method", "sendTelepathy", nil, 404, "method not found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := call(t, s, c.method, c.params...)
			if got.OK || got.status != c.code || got.ErrorCode != c.code || !strings.Contains(got.Description, c.says) {
				t.Errorf("got %d %q, want %d %q", got.status, got.Description, c.code, c.says)
			}
			if c.name == "migrated" && got.Parameters.MigrateTo != super.ID {
				t.Errorf("migrate_to_chat_id is %d, want %d", got.Parameters.MigrateTo, super.ID)
			}
		})
	}
	if n := len(s.Replies(u.ID)); n != 1 {
		t.Errorf("refused messages are shown: %d", n)
	}
}

func TestLengthCountsAfterEntities(t *testing.T) {
	s := start(t, Options{})
	u := s.AddUser("Alice")
	text := "<b>" + strings.Repeat("&amp;", 4096) + "</b>"
	if got := call(t, s, "sendMessage", "chat_id", itoa(u.ID), "text", text, "parse_mode", "HTML"); !got.OK {
		t.Fatalf("4,096 visible characters were refused: %s", got.Description)
	}
	m := s.Replies(u.ID)[0]
	if m.Text != strings.Repeat("&", 4096) || len(m.Entities) != 1 || m.Entities[0] != (Entity{Type: "bold", Length: 4096}) {
		t.Errorf("shown as %.20q… with %+v", m.Text, m.Entities)
	}
}

func TestTokens(t *testing.T) {
	s := start(t, Options{})
	for token, want := range map[string]int{"7000000001:wrong": 401, "nonsense": 404} {
		resp, err := http.Get(s.URL() + "/bot" + token + "/getMe")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("token %q got %d, want %d", token, resp.StatusCode, want)
		}
	}
}

func TestUpdatesStayUntilConfirmed(t *testing.T) {
	s := start(t, Options{})
	u := s.AddUser("Alice")
	for i := range 5 {
		s.Say(u, fmt.Sprint(i))
	}
	ids := func(e envelope) (out []int64) {
		var ups []struct {
			ID int64 `json:"update_id"`
		}
		if err := json.Unmarshal(e.Result, &ups); err != nil {
			t.Fatal(err)
		}
		for _, u := range ups {
			out = append(out, u.ID)
		}
		return out
	}
	first := ids(call(t, s, "getUpdates", "limit", "3"))
	again := ids(call(t, s, "getUpdates"))
	if len(first) != 3 || len(again) != 5 || again[0] != first[0] {
		t.Fatalf("got %v, then %v", first, again)
	}
	rest := ids(call(t, s, "getUpdates", "offset", itoa(first[2]+1)))
	if len(rest) != 2 || rest[0] != first[2]+1 || s.Confirmed() != first[2] {
		t.Errorf("after confirming %d got %v", first[2], rest)
	}
	if s.Pending() != 2 {
		t.Errorf("%d pending, want 2", s.Pending())
	}
}

func TestSecondPollerEndsTheFirst(t *testing.T) {
	s := start(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got := make(chan envelope, 1)
	go func() {
		e, _ := post(ctx, s, "getUpdates", url.Values{"timeout": {"50"}})
		got <- e
	}()
	if err := s.WaitPolling(ctx); err != nil {
		t.Fatal(err)
	}
	second := call(t, s, "getUpdates", "timeout", "0")
	if first := <-got; first.status != 409 || !strings.Contains(first.Description, "terminated by other getUpdates") || !second.OK {
		t.Errorf("first %+v, second %+v", first, second)
	}
	s.SetWebhook("https://example.org/hook")
	if e := call(t, s, "getUpdates"); e.status != 409 || !strings.Contains(e.Description, "webhook is active") {
		t.Errorf("with a webhook: %+v", e)
	}
}

func TestFloodControl(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := start(t, Options{Limits: RealLimits(), Now: func() time.Time { return now }})
	u, g := s.AddUser("Alice"), s.AddGroup("G")
	send := func(chat int64) envelope {
		return call(t, s, "sendMessage", "chat_id", itoa(chat), "text", "x")
	}
	for i := range 5 {
		if e := send(u.ID); !e.OK {
			t.Fatalf("message %d of a burst was refused: %+v", i, e)
		}
	}
	if e := send(u.ID); e.status != 429 || e.Parameters.RetryAfter != 4 {
		t.Fatalf("the sixth at once: %+v", e)
	}
	now = now.Add(4 * time.Second)
	if e := send(u.ID); !e.OK {
		t.Errorf("after the pause: %+v", e)
	}
	for range 20 {
		now = now.Add(time.Second)
		if e := send(g.ID); !e.OK {
			t.Fatalf("a group's first twenty: %+v", e)
		}
	}
	now = now.Add(time.Second)
	if e := send(g.ID); e.status != 429 || e.Parameters.RetryAfter != 40 {
		t.Errorf("a group's 21st in a minute: %+v", e)
	}
}

func TestFaults(t *testing.T) {
	s := start(t, Options{})
	u := s.AddUser("Alice")
	v := url.Values{"chat_id": {itoa(u.ID)}, "text": {"x"}}
	s.Fail("sendMessage", fault.CutAfter())
	if _, err := post(t.Context(), s, "sendMessage", v); err == nil {
		t.Error("a cut connection answered")
	}
	if n := len(s.Replies(u.ID)); n != 1 {
		t.Errorf("%d messages after a cut that carries out, want 1", n)
	}
	s.Fail("sendMessage", fault.CutBefore())
	if _, err := post(t.Context(), s, "sendMessage", v); err == nil {
		t.Error("a cut connection answered")
	}
	s.Fail("sendMessage", fault.TooMany(7))
	if e := call(t, s, "sendMessage", "chat_id", itoa(u.ID), "text", "x"); e.status != 429 || e.Parameters.RetryAfter != 7 || e.Description != "Too Many Requests: retry after 7" {
		t.Errorf("got %+v", e)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.Fail("getMe", fault.Fault{BlackHole: true})
	done := make(chan error, 1)
	go func() {
		_, err := post(ctx, s, "getMe", nil)
		done <- err
	}()
	if err := s.WaitCalls(t.Context(), "getMe", 1); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("a black hole answered")
	}
	s.GoDark()
	if _, err := post(t.Context(), s, "getMe", nil); err == nil {
		t.Error("a dark server answered")
	}
	if err := s.ComeBack(); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Replies(u.ID)); n != 1 {
		t.Errorf("%d messages in the end, want 1", n)
	}
	if e := call(t, s, "getMe"); !e.OK {
		t.Errorf("a server that came back: %+v", e)
	}
}

func FuzzParseHTML(f *testing.F) {
	for _, s := range []string{"<b>x</b>", `<a href="u">&lt;</a>`, "<pre><code class=\"language-go\">x</code></pre>", "&#x1F600;", "a<", "</", "<span class='tg-spoiler'>s</span>", "<b", "&#;", "<a href=x>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			t.Skip()
		}
		text, entities, err := parseHTML(s)
		if err != nil {
			return
		}
		n := utf16Len(text)
		for _, e := range entities {
			if e.Offset < 0 || e.Length <= 0 || e.Offset+e.Length > n {
				t.Fatalf("%q has the entity %+v in %d units", s, e, n)
			}
		}
		if !utf8.ValidString(text) {
			t.Fatalf("%q is shown as the invalid %q", s, text)
		}
	})
}

func BenchmarkSendMessage(b *testing.B) {
	s := start(b, Options{Keep: 100})
	u := s.AddUser("Alice")
	body := []byte(`{"chat_id":` + itoa(u.ID) + `,"text":"<b>hello</b>","parse_mode":"HTML"}`)
	for b.Loop() {
		resp, err := http.Post(s.URL()+"/bot"+s.Token()+"/sendMessage", "application/json", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}
