package matrix

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"hermes/internal/domain"
	"hermes/internal/platform"
)

// deaf answers every request with a refusal.
type deaf struct{}

func (deaf) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusNotFound, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"errcode":"M_NOT_FOUND"}`))}, nil
}

// FuzzSync feeds answers of /sync: whatever a server may send is read without a
// panic into events that the store can hold.
func FuzzSync(f *testing.F) {
	room := func(events string) string {
		return `{"next_batch":"s2","rooms":{"join":{"!r:e.x":{"timeline":{"events":[` + events + `],"limited":true,"prev_batch":"t1"}}}}}`
	}
	for _, s := range []string{
		room(`{"type":"m.room.message","event_id":"$a","sender":"@ann:e.x","origin_server_ts":1800000000000,"content":{"msgtype":"m.text","body":"@me, !stop \u0000\ud800"}}`),
		room(`{"type":"m.room.message","event_id":"$a","sender":"@ann:e.x","content":{"msgtype":"m.image","body":"../\u0007a","url":"mxc://e.x/abc","info":{"size":-1,"mimetype":7}}}`),
		room(`{"type":"m.reaction","event_id":"$a","sender":"@ann:e.x","content":{"m.relates_to":{"rel_type":"m.annotation","event_id":"$b","key":"1️⃣"}}}`),
		room(`{"type":"m.room.member","event_id":"$a","sender":"@ann:e.x","state_key":"@me:e.x","content":{"membership":"join"}},7,null,{"content":[]}`),
		room(`{"type":"m.room.encrypted","event_id":"$a","sender":"@ann:e.x","content":{}}`),
		`{"next_batch":"s","rooms":{"invite":{"!r:e.x":{"invite_state":{"events":[{"type":"m.room.member","state_key":"@me:e.x","sender":"@ann:e.x","content":{"membership":"invite","is_direct":true}}]}}},"leave":{"!x":null},"join":{"!n":null}}}`,
		`{"account_data":{"events":[{"type":"m.direct","content":{"@a:b":["!r:e.x"],"x":7}}]},"next_batch":"s"}`, `[]`, `{}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var reply syncReply
		if !lenient([]byte(s), &reply) {
			return
		}
		a, err := New(Config{Token: "abc", Homeserver: "http://127.0.0.1:1"}, Deps{Deps: platform.Deps{HTTP: &http.Client{Transport: deaf{}}}})
		if err != nil {
			t.Fatal(err)
		}
		a.self.Store(&identity{user: "@me:e.x", local: "me", name: "me"})
		r := &receiver{a: a, at: position{Since: "s1", From: 1}}
		for id, j := range reply.Rooms.Join {
			if j == nil || !isRoom(id) {
				continue
			}
			events, err := r.room(t.Context(), id, j, false)
			if err != nil {
				t.Fatalf("%q fails: %v", s, err)
			}
			for _, in := range events {
				check(t, in)
			}
		}
		if p := parsePosition(r.at.String()); len(p.Told) != len(r.at.Told) {
			t.Errorf("%q: the position does not survive: %v", s, r.at)
		}
	})
}

func check(t *testing.T, in domain.Inbound) {
	t.Helper()
	if !isEvent(in.EventID) || !isRoom(in.ChatID) || !isUser(in.UserID) || in.UserName == "" || in.Text == "" && len(in.Attachments) == 0 || len(in.Text) > maxInText {
		t.Errorf("stored as %+v", in)
	}
	all := in.Text + in.ReplyText + in.UserName + in.ChatName + in.EventID + in.ChatID + in.UserID + in.ThreadID
	for _, at := range in.Attachments {
		all += at.Name + at.MIME + at.Ref
		if strings.ContainsAny(at.Name, "/\\") || at.Name == ".." || at.Size < 0 {
			t.Errorf("the file %+v", at)
		}
	}
	if !utf8.ValidString(all) || strings.ContainsRune(all, 0) {
		t.Errorf("stored with bytes that the store cannot hold: %q", all)
	}
}

// FuzzPosition holds that whatever stands in the ledger is read as a position
// that can be gone on from, and that a position survives being written.
func FuzzPosition(f *testing.F) {
	for _, s := range []string{"", "7", `{"since":"s1","from":1}`, `{"since":"s1"}`, `{"from":-1}`, `{"since":"s","from":5,"invites":[{"room":"!r:e.x","by":"@a:b"},{}],"told":["!r","x"]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := parsePosition(s)
		if p.From < 0 || p.From == 0 && p.Since != "" {
			t.Errorf("%q is read as %+v", s, p)
		}
		if utf8.ValidString(p.Since) && json.Valid([]byte(s)) && parsePosition(p.String()).String() != p.String() {
			t.Errorf("%q does not survive: %+v", s, p)
		}
	})
}

// FuzzMention holds that taking the account's names out of a text ends, and adds
// nothing.
func FuzzMention(f *testing.F) {
	for _, s := range []string{"@me: hello", "me, hello @me", "@me:e.x", "hello @me.", "İ@me", "me:", ":me:"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	self := &identity{user: "@me:e.x", local: "me", name: "Mé"}
	f.Fuzz(func(t *testing.T, s string, pill bool) {
		if !utf8.ValidString(s) {
			return
		}
		s = strings.TrimSpace(s)
		text, named := withoutSelf(s, self, pill)
		if !strings.Contains(s, text) || named != pill && pill || text == "" && s != "" {
			t.Errorf("%q became %q, %v", s, text, named)
		}
		withoutFallback(s, true)
		hasPill(s, self.user)
	})
}
