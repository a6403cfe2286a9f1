package slack

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// message is a message, of an event
// (https://docs.slack.dev/reference/events/message) as of the history. What is
// not needed is not read, so that nothing in it can make a message unreadable.
type message struct {
	Type        string   `json:"type"`
	Subtype     string   `json:"subtype"`
	Channel     string   `json:"channel"` // of events only
	ChannelType string   `json:"channel_type"`
	User        string   `json:"user"`
	BotID       string   `json:"bot_id"`
	Username    string   `json:"username"` // of bots
	Text        string   `json:"text"`
	TS          string   `json:"ts"`
	ThreadTS    string   `json:"thread_ts"`
	ParentUser  string   `json:"parent_user_id"`
	LatestReply string   `json:"latest_reply"` // of the first message of a thread, in the history
	Files       []file   `json:"files"`
	Metadata    metadata `json:"metadata"`
}

// root is the ts of the first message of the thread that it stands in, which
// may be its own.
func (m *message) root() string {
	if m.ThreadTS != "" {
		return m.ThreadTS
	}
	return m.TS
}

// metadata is what an app attaches to its own messages,
// https://docs.slack.dev/messaging/message-metadata.
type metadata struct {
	EventType string         `json:"event_type"`
	Payload   map[string]any `json:"event_payload"`
}

// file is a file, https://docs.slack.dev/reference/objects/file-object.
type file struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Title    string `json:"title"`
	MIMEType string `json:"mimetype"`
	Mode     string `json:"mode"` // tombstone, hidden_by_limit: it is gone
	Subtype  string `json:"subtype"`
	Size     int64  `json:"size"` // bytes
	Private  string `json:"url_private"`
	Download string `json:"url_private_download"`
	External bool   `json:"is_external"`
}

// channel is a conversation,
// https://docs.slack.dev/reference/objects/conversation-object.
type channel struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	User      string `json:"user"` // the other side of a direct message
	IsIM      bool   `json:"is_im"`
	IsMPIM    bool   `json:"is_mpim"`
	IsPrivate bool   `json:"is_private"`
	Archived  bool   `json:"is_archived"`
}

// envelope is one frame of Socket Mode,
// https://docs.slack.dev/apis/events-api/using-socket-mode.
type envelope struct {
	Type        string          `json:"type"`
	ID          string          `json:"envelope_id"`
	Payload     json.RawMessage `json:"payload"`
	Reason      string          `json:"reason"`          // of disconnect
	Connections int             `json:"num_connections"` // of hello
	Retry       int             `json:"retry_attempt"`
	Info        struct {
		AppID string `json:"app_id"`
	} `json:"connection_info"` // of hello
}

// eventPayload is the payload of an envelope of the type events_api.
type eventPayload struct {
	EventID string          `json:"event_id"`
	Event   json.RawMessage `json:"event"`
}

// slashCommand is the payload of an envelope of the type slash_commands,
// https://docs.slack.dev/interactivity/implementing-slash-commands.
type slashCommand struct {
	Command     string `json:"command"`
	Text        string `json:"text"`
	UserID      string `json:"user_id"`
	UserName    string `json:"user_name"`
	ChannelID   string `json:"channel_id"`
	ChannelName string `json:"channel_name"`
	TriggerID   string `json:"trigger_id"`
}

// interaction is the payload of an envelope of the type interactive,
// https://docs.slack.dev/reference/interaction-payloads/block_actions-payload.
type interaction struct {
	Type string `json:"type"`
	User struct {
		ID       string `json:"id"`
		Username string `json:"username"`
		Name     string `json:"name"`
	} `json:"user"`
	Channel struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"channel"`
	Container struct {
		MessageTS string `json:"message_ts"`
		ThreadTS  string `json:"thread_ts"`
		ChannelID string `json:"channel_id"`
	} `json:"container"`
	Message struct {
		TS       string `json:"ts"`
		ThreadTS string `json:"thread_ts"`
	} `json:"message"`
	Actions []struct {
		ActionID string `json:"action_id"`
		Type     string `json:"type"`
		Value    string `json:"value"`
		ActionTS string `json:"action_ts"`
	} `json:"actions"`
}

// isID tells whether s looks like one of Slack's ids: a capital letter, then
// capital letters and digits.
func isID(s string) bool {
	if len(s) < 2 || len(s) > 32 || s[0] < 'A' || s[0] > 'Z' {
		return false
	}
	for _, r := range s {
		if !(r >= 'A' && r <= 'Z' || r >= '0' && r <= '9') {
			return false
		}
	}
	return true
}

// isTS tells whether s is the ts of a message: seconds, a dot and six digits.
func isTS(s string) bool { return micros(s) > 0 }

// micros is the instant of a ts in microseconds since 1970; 0 for what is none.
// A ts is unique in its channel and orders it.
func micros(ts string) int64 {
	whole, part, ok := strings.Cut(ts, ".")
	if !ok || len(part) != 6 || len(whole) == 0 || len(whole) > 11 {
		return 0
	}
	n, err := strconv.ParseInt(whole+part, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// tsOf is the ts of an instant in microseconds.
func tsOf(us int64) string {
	us = max(us, 0)
	s := strconv.FormatInt(us%1_000_000, 10)
	return strconv.FormatInt(us/1_000_000, 10) + "." + strings.Repeat("0", 6-len(s)) + s
}

// timeOf is the instant of a ts.
func timeOf(ts string) time.Time { return time.UnixMicro(micros(ts)) }
