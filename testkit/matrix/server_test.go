package matrix

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

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, o Options) (s *Server, ann User, room string) {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	ann = s.AddUser("Ann")
	room = s.Invite(ann, true)
	return s, ann, room
}

// call makes a request as the account and reads the answer.
func call(t *testing.T, s *Server, method, path string, in string) (status int, out map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, bytes.NewReader([]byte(in)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.Token())
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("%s %s: %s", method, path, b)
	}
	return resp.StatusCode, out
}

// at follows a path of keys and positions.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

// bodies are the texts of a list of events.
func bodies(list any) string {
	var out []string
	all, _ := list.([]any)
	for _, e := range all {
		if s, ok := at(e, "content", "body").(string); ok {
			out = append(out, s)
		}
	}
	return strings.Join(out, " ")
}

const api = "/_matrix/client/v3"

func TestSyncs(t *testing.T) {
	s, ann, room := start(t, Options{})
	_, first := call(t, s, "GET", api+"/sync", "")
	if at(first, "rooms", "invite", room, "invite_state", "events") == nil {
		t.Fatalf("no invitation: %v", first)
	}
	next := at(first, "next_batch").(string)
	if _, again := call(t, s, "GET", api+"/sync?since="+next, ""); at(again, "rooms", "invite", room) != nil {
		t.Error("an invitation is told twice")
	}
	s.Say(ann, room, "early")
	if status, _ := call(t, s, "POST", api+"/join/"+url.PathEscape(room), "{}"); status != 200 {
		t.Fatal("the account cannot join")
	}
	filter := url.QueryEscape(`{"room":{"timeline":{"types":["m.room.message"],"limit":2}}}`)
	_, joined := call(t, s, "GET", api+"/sync?since="+next+"&filter="+filter, "")
	if at(joined, "rooms", "join", room, "state", "events", 0, "type") != "m.room.create" || bodies(at(joined, "rooms", "join", room, "timeline", "events")) != "early" {
		t.Errorf("a room that was joined shows %v", at(joined, "rooms", "join", room))
	}
	next = at(joined, "next_batch").(string)
	for i := range 5 {
		s.Say(ann, room, fmt.Sprint(i))
	}
	_, news := call(t, s, "GET", api+"/sync?since="+next+"&filter="+filter, "")
	timeline := at(news, "rooms", "join", room, "timeline")
	if bodies(at(timeline, "events")) != "3 4" || at(timeline, "limited") != true {
		t.Errorf("the timeline is %v", timeline)
	}
	q := url.Values{"dir": {"b"}, "from": {at(timeline, "prev_batch").(string)}, "to": {next}, "limit": {"2"}}
	_, page := call(t, s, "GET", api+"/rooms/"+url.PathEscape(room)+"/messages?"+q.Encode(), "")
	if got := bodies(at(page, "chunk")); got != "2 1" {
		t.Errorf("the first page has %q", got)
	}
	q.Set("from", at(page, "end").(string))
	_, page = call(t, s, "GET", api+"/rooms/"+url.PathEscape(room)+"/messages?"+q.Encode(), "")
	if got := bodies(at(page, "chunk")); got != "0" || at(page, "end") != nil {
		t.Errorf("the second page has %q, %v", got, at(page, "end"))
	}
	if status, out := call(t, s, "GET", api+"/sync?since=nonsense", ""); status != 400 || at(out, "errcode") != "M_INVALID_PARAM" {
		t.Errorf("a token that nobody gave: %d %v", status, out)
	}
	s.ForgetTokens()
	if status, _ := call(t, s, "GET", api+"/sync?since="+next, ""); status != 400 {
		t.Error("a token of before is taken")
	}
}

func TestALongPoll(t *testing.T) {
	s, ann, room := start(t, Options{})
	s.Enter(room)
	_, first := call(t, s, "GET", api+"/sync", "")
	next := at(first, "next_batch").(string)
	if _, none := call(t, s, "GET", api+"/sync?timeout=10&since="+next, ""); at(none, "rooms", "join", room) != nil || at(none, "next_batch") != next {
		t.Errorf("nothing happened: %v", none)
	}
	got := make(chan map[string]any)
	go func() {
		_, out := call(t, s, "GET", api+"/sync?timeout=60000&since="+next, "")
		got <- out
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.WaitCalls(ctx, "GET /v3/sync", 3); err != nil {
		t.Fatal(err)
	}
	s.Say(ann, room, "hello")
	if out := <-got; bodies(at(out, "rooms", "join", room, "timeline", "events")) != "hello" {
		t.Errorf("the poll brought %v", out)
	}
}

func TestTransactions(t *testing.T) {
	s, _, room := start(t, Options{})
	path := api + "/rooms/" + url.PathEscape(room) + "/send/m.room.message/t1"
	if status, out := call(t, s, "PUT", path, `{"msgtype":"m.text","body":"x"}`); status != 403 || at(out, "errcode") != "M_FORBIDDEN" {
		t.Errorf("in a room that it is not in: %d %v", status, out)
	}
	s.Enter(room)
	var ids [3]any
	for i := range ids {
		if i == 2 {
			s.ForgetTransactions()
		}
		_, out := call(t, s, "PUT", path, `{"msgtype":"m.text","body":"x"}`)
		ids[i] = at(out, "event_id")
	}
	if ids[0] == nil || ids[0] != ids[1] || ids[1] == ids[2] || len(s.Replies(room)) != 2 {
		t.Errorf("the events are %v", ids)
	}
	react := `{"m.relates_to":{"rel_type":"m.annotation","event_id":"` + ids[0].(string) + `","key":"x"}}`
	reaction := api + "/rooms/" + url.PathEscape(room) + "/send/m.reaction/"
	if status, _ := call(t, s, "PUT", reaction+"a", react); status != 200 {
		t.Error("a reaction is refused")
	}
	if status, out := call(t, s, "PUT", reaction+"b", react); status != 400 || at(out, "errcode") != "M_DUPLICATE_ANNOTATION" {
		t.Errorf("the same reaction again: %d %v", status, out)
	}
	if status, out := call(t, s, "PUT", path+"2", `{"body":"`+strings.Repeat("x", maxEvent)+`"}`); status != 413 || at(out, "errcode") != "M_TOO_LARGE" {
		t.Errorf("too large an event: %d %v", status, out)
	}
}

func TestTokensAndFaults(t *testing.T) {
	s, _, _ := start(t, Options{})
	s.Fail("GET /v3/account/whoami", TooMany(1500))
	if status, out := call(t, s, "GET", api+"/account/whoami", ""); status != 429 || at(out, "errcode") != "M_LIMIT_EXCEEDED" || at(out, "retry_after_ms") != 1500.0 {
		t.Errorf("%d %v", status, out)
	}
	if status, out := call(t, s, "GET", api+"/account/whoami", ""); status != 200 || at(out, "user_id") != s.User().ID {
		t.Errorf("%d %v", status, out)
	}
	s.Revoke(true)
	if status, out := call(t, s, "GET", api+"/account/whoami", ""); status != 401 || at(out, "errcode") != "M_UNKNOWN_TOKEN" || at(out, "soft_logout") != true {
		t.Errorf("%d %v", status, out)
	}
	if status, out := call(t, s, "GET", "/_matrix/client/v3/nothing", ""); status != 404 || at(out, "errcode") != "M_UNRECOGNIZED" {
		t.Errorf("%d %v", status, out)
	}
}
