package webhook

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"hermes/internal/domain"
	"hermes/internal/secret"
)

// FuzzCall feeds bodies, headers and templates: nobody without the secret comes
// in, what is signed does, and whatever comes in can be stored.
func FuzzCall(f *testing.F) {
	f.Add(`{"a":{"b":[1,"x"]}}`, "v1,AAAA", "1700000000", "id", "{a.b.1} {__raw__}", "application/json")
	f.Add("payload=%7B%7D", "sha256=00", "-1", "", "/{a}", "application/x-www-form-urlencoded")
	f.Add("id.1700000000.{}", strings.Repeat("v1,x ", 50), "99999999999999999999", "\x00", "{__raw__}{{a}}{a..b}{.}", "")
	f.Fuzz(func(t *testing.T, body, sig, stamp, id, template, contentType string) {
		now := time.Unix(1700000000, 0)
		v := verifier{keys: []secret.Value{"a secret that nobody guesses"}, tolerance: time.Minute}
		for _, names := range [][]string{{"Webhook-Signature", "Webhook-Timestamp", "Webhook-Id"}, {"X-Hub-Signature-256"}, {"X-Webhook-Signature"}, {"X-Gitlab-Token"}} {
			h := http.Header{}
			for i, value := range []string{sig, stamp, id}[:len(names)] {
				h.Set(names[i], value)
			}
			if v.check(h, []byte(body), now) == nil {
				t.Fatalf("%v let %q in", h, body)
			}
		}
		if id != "" && len(id) <= maxHeaderID {
			h := http.Header{}
			Sign(h, id, now, []byte(body), v.keys)
			if err := v.check(h, []byte(body), now); err != nil {
				t.Fatalf("what is signed is refused: %v", err)
			}
		}
		a, err := New(Config{}, Deps{Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		event, raw := decode(contentType, []byte(body))
		r := &Route{Prompt: template, Extra: extras{"chat_id": template}}
		h := http.Header{"Idempotency-Key": {id}}
		in := a.inbound("r", r, a.idOf("r", h, []byte(body), now), eventOf(h, event), event, raw, now)
		if !utf8.ValidString(in.Text) || strings.ContainsRune(in.Text, 0) || len(in.Text) > 8*maxAsked || in.IsCommand() {
			t.Fatalf("not to be stored: %q", in.Text)
		}
		if len(in.EventID) > 200 || !utf8.ValidString(in.EventID) || !utf8.ValidString(in.ThreadID) {
			t.Fatalf("no id: %q, %q", in.EventID, in.ThreadID)
		}
		if got, over := splitThread(in.ThreadID); got == "" || (over == nil) != !r.Extra.templated() {
			t.Fatalf("%q splits into %q, %v", in.ThreadID, got, over)
		}
		_ = a.Route(domain.Address{Platform: Name, ChatID: "r", ThreadID: in.ThreadID})
	})
}

// FuzzRoutes feeds lists of routes: what is read can be written and read again.
func FuzzRoutes(f *testing.F) {
	f.Add(`{"a":{"events":"x, y","secret":["k1","k2"],"deliver_extra":{"chat_id":12,"x":null},"skills":null,"filters":{"a":[1]}}}`)
	f.Add(`{"a":{"secret":"k,1","created_at":"2026-06-01T10:00:00Z"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var one, two map[string]Route
		if json.Unmarshal([]byte(text), &one) != nil {
			return
		}
		written, err := json.Marshal(one)
		if err != nil {
			t.Skip(err) // a year beyond 9999
		}
		if err := json.Unmarshal(written, &two); err != nil {
			t.Fatalf("%s cannot be read: %v", written, err)
		}
		for name, r := range one {
			if strings.Join(r.Secret, "|") != strings.Join(two[name].Secret, "|") || strings.Join(r.Events, "|") != strings.Join(two[name].Events, "|") {
				t.Fatalf("%+v became %+v", r, two[name])
			}
			r.problems()
		}
	})
}
