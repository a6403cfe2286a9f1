package matrix

import (
	"encoding/json"
	"errors"
	"strings"
)

// What is asked for of a room. Members are loaded lazily: of those who wrote.
const (
	typeMessage   = "m.room.message"
	typeEncrypted = "m.room.encrypted"
	typeReaction  = "m.reaction"
	typeMember    = "m.room.member"
	typeName      = "m.room.name"
	typeAlias     = "m.room.canonical_alias"
	typeCrypto    = "m.room.encryption"
	typeTombstone = "m.room.tombstone"
	typeDirect    = "m.direct"
)

// event is https://spec.matrix.org/v1.15/client-server-api/#room-event-format.
type event struct {
	Type     string          `json:"type"`
	ID       string          `json:"event_id"`
	Sender   string          `json:"sender"`
	StateKey *string         `json:"state_key"`
	TS       int64           `json:"origin_server_ts"` // milliseconds, by the sender's server
	Content  json.RawMessage `json:"content"`
	Unsigned struct {
		Prev struct {
			Membership string `json:"membership"`
		} `json:"prev_content"`
		Relations struct {
			Thread struct {
				Joined bool `json:"current_user_participated"`
			} `json:"m.thread"`
		} `json:"m.relations"`
	} `json:"unsigned"`
}

// events are read each by itself, so that one that cannot be read stops no other.
type events []*event

// UnmarshalJSON implements json.Unmarshaler.
func (e *events) UnmarshalJSON(b []byte) error {
	var raw []json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	*e = nil
	for _, r := range raw {
		if ev := new(event); lenient(r, ev) {
			*e = append(*e, ev)
		}
	}
	return nil
}

// lenient reads JSON of which some field may be of another kind than it should
// be: that field stays empty. What strangers write is checked by nobody.
func lenient(b []byte, out any) bool {
	err := json.Unmarshal(b, out)
	var kind *json.UnmarshalTypeError
	return err == nil || errors.As(err, &kind) && kind.Field != ""
}

// content is what the contents of the events that are read have.
type content struct {
	// https://spec.matrix.org/v1.15/client-server-api/#mroommessage
	MsgType   string `json:"msgtype"`
	Body      string `json:"body"`
	Formatted string `json:"formatted_body"`
	URL       string `json:"url"`
	Filename  string `json:"filename"`
	Info      struct {
		MIMEType string `json:"mimetype"`
		Size     int64  `json:"size"` // bytes
	} `json:"info"`
	Voice    json.RawMessage `json:"org.matrix.msc3245.voice"`
	Mentions *struct {
		Users []string `json:"user_ids"`
	} `json:"m.mentions"`
	Relates struct {
		Type    string `json:"rel_type"`
		EventID string `json:"event_id"`
		Key     string `json:"key"` // of a reaction
		Falling bool   `json:"is_falling_back"`
		Reply   struct {
			EventID string `json:"event_id"`
		} `json:"m.in_reply_to"`
	} `json:"m.relates_to"`

	// Our own.
	Nonce   string   `json:"dev.hermes.nonce"`
	Choices []string `json:"dev.hermes.choices"`

	// State.
	Membership  string `json:"membership"`
	DisplayName string `json:"displayname"`
	Direct      bool   `json:"is_direct"`
	Name        string `json:"name"`
	Alias       string `json:"alias"`
	Algorithm   string `json:"algorithm"`
	Replacement string `json:"replacement_room"`
}

// contentOf reads an event's content; what cannot be read is empty.
func contentOf(ev *event) content {
	var c content
	lenient(ev.Content, &c)
	return c
}

// thread is the first event of the thread that a content belongs to, or "".
func (c *content) thread() string {
	if c.Relates.Type == "m.thread" && isEvent(c.Relates.EventID) {
		return c.Relates.EventID
	}
	return ""
}

// syncReply is https://spec.matrix.org/v1.15/client-server-api/#get_matrixclientv3sync.
type syncReply struct {
	Next        string `json:"next_batch"`
	AccountData struct {
		Events events `json:"events"`
	} `json:"account_data"`
	Rooms struct {
		Join   map[string]*joined `json:"join"`
		Invite map[string]struct {
			State struct {
				Events events `json:"events"`
			} `json:"invite_state"`
		} `json:"invite"`
		Leave map[string]json.RawMessage `json:"leave"`
	} `json:"rooms"`
}

// joined is what is new in a room.
type joined struct {
	State struct {
		Events events `json:"events"`
	} `json:"state"`
	Timeline struct {
		Events  events `json:"events"`
		Limited bool   `json:"limited"`
		Prev    string `json:"prev_batch"`
	} `json:"timeline"`
}

// maxID bounds ids, https://spec.matrix.org/v1.15/appendices/#common-identifier-format.
const maxID = 255

// The kinds of ids, https://spec.matrix.org/v1.15/appendices/#identifier-grammar.
// Rooms and events have a server in them or not, by the version of the room.
func isRoom(s string) bool  { return isID(s, '!') }
func isEvent(s string) bool { return isID(s, '$') }
func isUser(s string) bool  { return isID(s, '@') && strings.Contains(s[1:], ":") }
func isAlias(s string) bool { return isID(s, '#') && strings.Contains(s[1:], ":") }

func isID(s string, sigil byte) bool {
	if len(s) < 2 || len(s) > maxID || s[0] != sigil {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\uFFFD' })
}

// serverOf is the server in an id, or "".
func serverOf(id string) string {
	_, server, _ := strings.Cut(id, ":")
	return server
}
