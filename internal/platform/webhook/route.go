package webhook

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"hermes/internal/platform/clean"
	"hermes/internal/secret"
)

// What a route does with an answer, beside naming another platform.
const (
	deliverLog  = "log"     // it stands in the session and in the log
	deliverPost = "webhook" // it is posted to deliver_extra.url or .target
)

// Route is one address that others call, as it stands under
// platforms.webhook.extra.routes and in the list of subscriptions.
type Route struct {
	Description string `json:"description,omitempty"`
	Events      words  `json:"events,omitempty"` // the only kinds of event that are heard; empty: all
	Secret      keys   `json:"secret,omitempty"` // one, or several while callers change theirs
	// Timestamp refuses calls whose signature does not cover a time and an id,
	// since they could be recorded and repeated.
	Timestamp   bool           `json:"require_timestamp,omitempty"`
	Prompt      string         `json:"prompt,omitempty"`        // what the agent is asked; {a.b} is a value of the event, {__raw__} the whole
	Filters     map[string]any `json:"filters,omitempty"`       // values that the event must have, by path: one, or any of a list
	Skills      words          `json:"skills,omitempty"`        // that the agent is to follow
	Deliver     string         `json:"deliver,omitempty"`       // log, webhook or a platform; "" means log
	Extra       extras         `json:"deliver_extra,omitempty"` // chat_id and thread_id, or url or target
	DeliverOnly bool           `json:"deliver_only,omitempty"`  // the prompt is the message; no agent is asked
	Script      string         `json:"script,omitempty"`
	CreatedAt   time.Time      `json:"created_at,omitzero"`
}

// nameRule says what ValidName takes.
const nameRule = "use up to 64 small letters, digits, - and _, beginning with a letter or digit"

// ValidName tells whether a route or a target may be called so.
func ValidName(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '-' || s[0] == '_' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// problems says what of a route cannot be done.
func (r *Route) problems() []string {
	var out []string
	if len(r.Prompt) > maxPrompt {
		out = append(out, fmt.Sprintf("its prompt has more than %d bytes", maxPrompt))
	}
	if r.Script != "" {
		out = append(out, "script is not supported; put the work into the prompt or a skill")
	}
	switch r.Deliver {
	case "", deliverLog:
		if r.DeliverOnly {
			out = append(out, "deliver_only needs deliver to name a platform")
		}
	case deliverPost:
		if r.Extra["target"] == "" {
			if p := urlProblem(r.Extra["url"]); p != "" {
				out = append(out, "deliver_extra.url "+p)
			}
		}
	case "github_comment":
		out = append(out, "deliver: github_comment is not supported; let the prompt ask for the comment, by the gh program")
	default:
		if !ValidName(r.Deliver) {
			out = append(out, fmt.Sprintf("deliver is %q: write log, webhook or the name of a platform", clean.Short(r.Deliver, 40)))
		}
	}
	return out
}

// wants tells whether the route hears a kind of event.
func (r *Route) wants(event string) bool {
	return len(r.Events) == 0 || slices.ContainsFunc(r.Events, func(e string) bool { return strings.EqualFold(e, event) || e == "*" })
}

// passes tells whether an event has the values that the filters name.
func (r *Route) passes(payload any) bool {
	for path, want := range r.Filters {
		have, ok := lookUp(payload, path)
		if !ok {
			return false
		}
		allowed := []any{want}
		if list, isList := want.([]any); isList {
			allowed = list
		}
		if !slices.ContainsFunc(allowed, func(w any) bool { return textOf(w) == textOf(have) }) {
			return false
		}
	}
	return true
}

// words is a list that may also be written as one text with commas between.
type words []string

// UnmarshalJSON takes a list, a text or null.
func (w *words) UnmarshalJSON(b []byte) error {
	list, err := textOrList(b)
	*w = nil
	for _, item := range list {
		for s := range strings.SplitSeq(item, ",") {
			if s = strings.TrimSpace(s); s != "" {
				*w = append(*w, s)
			}
		}
	}
	return err
}

// keys is one secret, or a list of them; the first is the present one.
type keys []string

// UnmarshalJSON takes a text, a list or null.
func (k *keys) UnmarshalJSON(b []byte) error {
	list, err := textOrList(b)
	*k = slices.DeleteFunc(keys(list), func(s string) bool { return s == "" })
	return err
}

// MarshalJSON writes one secret as a text, as other readers expect it.
func (k keys) MarshalJSON() ([]byte, error) {
	if len(k) == 1 {
		return json.Marshal(k[0])
	}
	return json.Marshal([]string(k))
}

func (k keys) values() []secret.Value {
	var out []secret.Value
	for _, s := range k {
		out = append(out, secret.Value(s))
	}
	return out
}

func textOrList(b []byte) (list []string, err error) {
	if len(b) > 0 && b[0] == '[' {
		err = json.Unmarshal(b, &list)
		return list, err
	}
	var text string
	err = json.Unmarshal(b, &text)
	return []string{text}, err
}

// extras is a map of texts; numbers are taken as they are written.
type extras map[string]string

// UnmarshalJSON takes texts, numbers and truth values.
func (e *extras) UnmarshalJSON(b []byte) error {
	var raw map[string]any
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	if err := d.Decode(&raw); err != nil {
		return err
	}
	*e = extras{}
	for k, v := range raw {
		(*e)[k] = textOf(v)
	}
	return nil
}

// templated tells whether a value of the event decides where the answer goes.
func (e extras) templated() bool {
	for _, v := range maps.All(e) {
		if strings.Contains(v, "{") {
			return true
		}
	}
	return false
}
