package mattermost

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"hermes/internal/platform"
	"hermes/internal/platform/settings"
)

// deaf answers every request with a refusal of its status.
type deaf int

func (d deaf) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: int(d), Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"id":"x","message":"no"}`))}, nil
}

// FuzzEvents feeds frames of the websocket: whatever a server may send is read
// without a panic into events that the store can hold.
func FuzzEvents(f *testing.F) {
	const id = "abcdefghijklmnopqrstuvwxyz"
	inner := `{"id":"` + id + `","user_id":"00000000000000000000000001","channel_id":"` + id + `","message":"@me, !stop \u0000\ud800","file_ids":["` + id + `"],"metadata":{"files":[{"id":"` + id + `","name":"../\u0007a","size":-1}]}}`
	quoted, err := json.Marshal(inner)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{
		`{"event":"posted","data":{"channel_type":"D","channel_display_name":"x","sender_name":"@bob","post":` + string(quoted) + `},"seq":1}`,
		`{"event":"posted","data":{"channel_type":"D","sender_name":" ","post":` + string(quoted) + `}}`,
		`{"event":"posted","data":{"channel_type":"O","post":"{}"}}`, `{"event":"reaction_added","data":{"reaction":"{\"user_id\":\"00000000000000000000000001\",\"post_id\":\"` + id + `\",\"emoji_name\":\"one\"}"},"seq":1}`, `{"event":"posted","data":7}`, `{"seq":null}`, `[]`, `{"status":"OK","seq_reply":2}`,
	} {
		f.Add(s)
	}
	a, err := New(Config{Token: "abc", URL: "http://127.0.0.1:1", Rooms: settings.Rooms{RequireMention: true}}, platform.Deps{HTTP: &http.Client{Transport: deaf(http.StatusNotFound)}})
	if err != nil {
		f.Fatal(err)
	}
	if _, e := a.become(user{ID: "zzzzzzzzzzzzzzzzzzzzzzzzzz", Username: "me"}); e != nil {
		f.Fatal(e)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var fr frame
		if json.Unmarshal([]byte(s), &fr) != nil {
			return
		}
		r := &receiver{a: a}
		in, _, ok, err := r.event(t.Context(), fr)
		if err != nil {
			t.Fatalf("%q fails: %v", s, err)
		}
		if !ok {
			return
		}
		if !isID(in.EventID) || in.UserName == "" || in.Text == "" && len(in.Attachments) == 0 || len(in.Text) > maxInText || len(in.Attachments) > maxInFiles {
			t.Errorf("%q is stored as %+v", s, in)
		}
		all := in.Text + in.UserName + in.ChatName
		for _, at := range in.Attachments {
			all += at.Name + at.MIME
			if strings.ContainsAny(at.Name, "/\\") || at.Name == ".." || at.Size < 0 || !isID(at.Ref) {
				t.Errorf("%q has the file %+v", s, at)
			}
		}
		if !utf8.ValidString(all) || strings.ContainsRune(all, 0) {
			t.Errorf("%q is stored with bytes that the store cannot hold: %q", s, all)
		}
	})
}

// What was taken from the socket together with an event that fails is not
// committed, so the position must stay before it.
func TestThePositionWaitsForTheCommit(t *testing.T) {
	a, err := New(Config{Token: "abc", URL: "http://127.0.0.1:1", Rooms: settings.Rooms{RequireMention: true}}, platform.Deps{HTTP: &http.Client{Transport: deaf(http.StatusBadGateway)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, e := a.become(user{ID: "zzzzzzzzzzzzzzzzzzzzzzzzzz", Username: "me"}); e != nil {
		t.Fatal(e)
	}
	posted := func(kind string, p post) item {
		p.ChannelID, p.UserID, p.Message = "abcdefghijklmnopqrstuvwxyz", "00000000000000000000000001", "hello"
		inner, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(map[string]string{"post": string(inner), "channel_type": kind, "sender_name": "@bob"})
		if err != nil {
			t.Fatal(err)
		}
		return item{frame: frame{Event: "posted", Data: data}}
	}
	more := make(chan item, 1)
	more <- posted("O", post{ID: "00000000000000000000000003", RootID: "00000000000000000000000004", CreateAt: 900})
	r := &receiver{a: a, at: position{From: 1, Seen: 2}}
	if err := r.take(t.Context(), posted("D", post{ID: "00000000000000000000000002", CreateAt: 800}), more); err == nil {
		t.Fatal("the thread could not be read, and nothing is said")
	}
	if r.at.Seen != 2 {
		t.Errorf("the position moved to %d over what is not committed", r.at.Seen)
	}
}

// FuzzPosition holds that whatever stands in the ledger is read as a position
// that can be gone on from, and that a position survives being written.
func FuzzPosition(f *testing.F) {
	for _, s := range []string{"", "7", `{"from":1,"seen":2}`, `{"from":-1,"seen":2}`, `{"from":5,"seen":2}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := parsePosition(s)
		if p.From < 0 || p.Seen < p.From || p != parsePosition(p.String()) {
			t.Errorf("%q is read as %+v", s, p)
		}
	})
}
