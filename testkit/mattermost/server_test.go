package mattermost

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, o Options) (*Server, User) {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, s.AddUser("Alice")
}

// call makes a request as the bot and gives the answer's status and body.
func call(t *testing.T, s *Server, method, path, kind string, body []byte) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL()+"/api/v4"+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", kind)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b
}

// listed gives the texts of a listing, in its order.
func listed(t *testing.T, s *Server, channel, query string) string {
	t.Helper()
	status, b := call(t, s, "GET", "/channels/"+channel+"/posts?"+query, "", nil)
	var l postList
	if err := json.Unmarshal(b, &l); err != nil || status != http.StatusOK {
		t.Fatalf("HTTP %d: %s", status, b)
	}
	var out []string
	for _, id := range l.Order {
		out = append(out, l.Posts[id].Message)
	}
	return strings.Join(out, " ")
}

func TestListings(t *testing.T) {
	s, alice := start(t, Options{})
	dm := s.Direct(alice)
	var m []Message
	for _, text := range strings.Fields("a b c d e") {
		m = append(m, s.Say(alice, text))
	}
	s.Delete(m[3].ID)
	s.Edit(m[0].ID, "A")
	for query, want := range map[string]string{
		"":                                 "e c b A",
		"per_page=2":                       "e c",
		"per_page=2&page=1":                "b A",
		"before=" + m[4].ID:                "c b A",
		"after=" + m[0].ID:                 "e c b",
		"after=" + m[0].ID + "&per_page=2": "c b",
		// What was edited or deleted since is listed, whenever it was made.
		fmt.Sprint("since=", m[2].At.UnixMilli()): "e d A",
	} {
		if got := listed(t, s, dm, query); got != want {
			t.Errorf("%q lists %q, want %q", query, got, want)
		}
	}
}

func TestAListingSinceHasAnEnd(t *testing.T) {
	s, alice := start(t, Options{})
	for i := range sinceLimit + 5 {
		s.Say(alice, fmt.Sprint(i))
	}
	got := strings.Fields(listed(t, s, s.Direct(alice), "since=0"))
	if len(got) != sinceLimit || got[0] != "1004" || got[len(got)-1] != "5" {
		t.Errorf("%d are listed, from %s to %s", len(got), got[0], got[len(got)-1])
	}
}

func TestPendingPostIDs(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s, alice := start(t, Options{Now: func() time.Time { return now }})
	body := []byte(fmt.Sprintf(`{"channel_id":%q,"message":"x","pending_post_id":"p"}`, s.Direct(alice)))
	for range 2 {
		if status, b := call(t, s, "POST", "/posts", "application/json", body); status != http.StatusCreated {
			t.Fatalf("HTTP %d: %s", status, b)
		}
	}
	if n := len(s.Replies(s.Direct(alice))); n != 1 {
		t.Errorf("%d posts were made within the window", n)
	}
	now = now.Add(pendingFor)
	call(t, s, "POST", "/posts", "application/json", body)
	if n := len(s.Replies(s.Direct(alice))); n != 2 {
		t.Errorf("%d posts were made after it", n)
	}
}

func TestRefusals(t *testing.T) {
	s, alice := start(t, Options{MaxPostSize: 5, MaxFileSize: 4})
	dm := s.Direct(alice)
	old := s.AddChannel("Old", "O")
	s.Archive(old.ID)
	post := func(channel, rest string) []byte { return []byte(fmt.Sprintf(`{"channel_id":%q%s}`, channel, rest)) }
	for _, tt := range []struct {
		method, path string
		body         []byte
		status       int
		id           string
	}{
		{"POST", "/posts", post(dm, `,"message":"123456"`), 400, "model.post.is_valid.message_length.app_error"},
		{"POST", "/posts", post(dm, `,"message":" "`), 400, "api.context.invalid_body_param.app_error"},
		{"POST", "/posts", post(dm, `,"message":"x","root_id":"y"`), 400, "api.post.create_post.root_id.app_error"},
		{"POST", "/posts", post(old.ID, `,"message":"x"`), 400, "api.post.create_post.can_not_post_to_deleted.error"},
		{"POST", "/posts", post("nowhere", `,"message":"x"`), 403, "api.context.permissions.app_error"},
		{"PUT", "/posts/nothing/patch", []byte(`{"message":"x"}`), 404, "app.post.get.app_error"},
		{"GET", "/posts/nothing/thread", nil, 404, "app.post.get.app_error"},
		{"GET", "/files/nothing", nil, 404, "app.file_info.get.app_error"},
		{"GET", "/config/client", nil, 400, "api.config.client.old_format.app_error"},
		{"GET", "/nothing", nil, 404, "api.context.404.app_error"},
		{"POST", "/files?filename=x&channel_id=" + dm, []byte("12345"), 413, "api.file.upload_file.too_large_detailed.app_error"},
	} {
		status, b := call(t, s, tt.method, tt.path, "application/json", tt.body)
		var e apiError
		if err := json.Unmarshal(b, &e); err != nil || status != tt.status || e.ID != tt.id || e.Status != tt.status {
			t.Errorf("%s %s: HTTP %d %s, want %d %s", tt.method, tt.path, status, b, tt.status, tt.id)
		}
	}
}

func TestAFormWithAFile(t *testing.T) {
	s, alice := start(t, Options{})
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	if err := form.WriteField("channel_id", s.Direct(alice)); err != nil {
		t.Fatal(err)
	}
	f, err := form.CreateFormFile("files", "a.txt")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	form.Close()
	status, body := call(t, s, "POST", "/files", form.FormDataContentType(), b.Bytes())
	var out struct {
		Infos []fileInfo `json:"file_infos"`
	}
	if err := json.Unmarshal(body, &out); err != nil || status != http.StatusCreated || len(out.Infos) != 1 || out.Infos[0].Name != "a.txt" || out.Infos[0].Size != 5 {
		t.Fatalf("HTTP %d: %s", status, body)
	}
	if _, got := call(t, s, "GET", "/files/"+out.Infos[0].ID, "", nil); string(got) != "hello" {
		t.Errorf("the file holds %q", got)
	}
}

func TestTheWebsocket(t *testing.T) {
	s, alice := start(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	dial := func(token string) *websocket.Conn {
		t.Helper()
		c, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(s.URL(), "http")+"/api/v4/websocket", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.CloseNow() })
		send(t, ctx, c, fmt.Sprintf(`{"seq":1,"action":"authentication_challenge","data":{"token":%q}}`, token))
		return c
	}
	if _, _, err := dial("wrong").Read(ctx); err == nil {
		t.Error("a wrong token was let in")
	}
	c := dial(s.Token())
	want := func(parts ...string) {
		t.Helper()
		_, b, err := c.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if !strings.Contains(string(b), p) {
				t.Errorf("got %s, want %s in it", b, p)
			}
		}
	}
	want(`"event":"hello"`, `"seq":0`)
	want(`"status":"OK"`, `"seq_reply":1`)
	s.Say(alice, "one")
	want(`"event":"posted"`, `"seq":1`, `\"message\":\"one\"`, `"sender_name":"@alice"`, `"channel_type":"D"`)
	s.LoseEvents(1)
	s.Say(alice, "two")
	s.Say(alice, "three")
	want(`"seq":3`, `\"message\":\"three\"`)
	send(t, ctx, c, `{"seq":2,"action":"ping"}`)
	want(`"text":"pong"`, `"seq_reply":2`)
	send(t, ctx, c, `{"seq":3,"action":"dance"}`)
	want(`"status":"FAIL"`, `bad_action`)
	send(t, ctx, c, `{"action":"ping"}`)
	want(`"status":"FAIL"`, `bad_seq`)
	if s.Sockets() != 1 {
		t.Errorf("%d sockets are open", s.Sockets())
	}
	s.CutSockets()
	if _, _, err := c.Read(ctx); err == nil {
		t.Error("the socket is still open")
	}
}

func send(t *testing.T, ctx context.Context, c *websocket.Conn, text string) {
	t.Helper()
	if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
}
