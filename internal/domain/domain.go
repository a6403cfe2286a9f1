// Package domain holds the words of the system: messages, sessions, turns,
// deliveries, jobs, runs, questions and errors. It imports nothing of ours, so
// that every other package can speak these words. Values are plain data and
// safe to copy; none of them holds a lock.
package domain

import (
	"strings"
	"time"
)

// Platform names a chat platform or another source of turns: "telegram",
// "webchat", "api_server", "cron".
type Platform string

// The platforms that the centre itself knows by name.
const (
	PlatformAPI     Platform = "api_server"
	PlatformCron    Platform = "cron"
	PlatformWebchat Platform = "webchat"
	PlatformCLI     Platform = "cli"
	PlatformWebhook Platform = "webhook"
)

// ChatType tells what kind of room a message came from.
type ChatType string

// The chat types of a session key.
const (
	ChatDM      ChatType = "dm"
	ChatGroup   ChatType = "group"
	ChatChannel ChatType = "channel"
)

// Address is a place that a message can be sent to. It is comparable, and the
// order of deliveries is kept per Address.
type Address struct {
	Platform Platform `json:"platform"`
	ChatID   string   `json:"chat_id"`
	ThreadID string   `json:"thread_id,omitempty"`
}

// String gives platform:chat[:thread], the form of a delivery target.
func (a Address) String() string {
	s := string(a.Platform) + ":" + a.ChatID
	if a.ThreadID != "" {
		s += ":" + a.ThreadID
	}
	return s
}

// IsZero tells whether the address names no place.
func (a Address) IsZero() bool { return a == Address{} }

// Source says where a message came from and who wrote it.
type Source struct {
	Address
	Account   string   `json:"account,omitempty"` // our own bot id on that platform
	ChatType  ChatType `json:"chat_type,omitempty"`
	ChatName  string   `json:"chat_name,omitempty"`
	UserID    string   `json:"user_id,omitempty"`
	UserName  string   `json:"user_name,omitempty"`
	MessageID string   `json:"message_id,omitempty"` // the platform's id of the message
}

// AttachmentKind tells how a file was sent or is to be sent.
type AttachmentKind string

// The kinds of attachment.
const (
	Image    AttachmentKind = "image"
	Audio    AttachmentKind = "audio"
	Voice    AttachmentKind = "voice"
	Video    AttachmentKind = "video"
	Document AttachmentKind = "document"
)

// Attachment is a file in or out. An inbound one is accepted with the
// platform's own Ref only, so that the acknowledgement never waits for a
// download; it is fetched to Path when its turn starts.
type Attachment struct {
	Kind AttachmentKind `json:"kind"`
	Ref  string         `json:"ref,omitempty"`  // the platform's file id or URL
	Path string         `json:"path,omitempty"` // absolute path on this host, once fetched or to be sent
	Name string         `json:"name,omitempty"` // file name as shown; never used as a path unchecked
	MIME string         `json:"mime,omitempty"`
	Size int64          `json:"size,omitempty"` // bytes; 0 when the platform does not say
}

// InboundState is the state of an accepted event.
type InboundState string

// inbound: received → claimed(turn) → done | refused; an event that is only sent on
// is done at once.
const (
	InboundReceived InboundState = "received"
	InboundClaimed  InboundState = "claimed"
	InboundDone     InboundState = "done"
	InboundRefused  InboundState = "refused"
)

// Inbound is one event from a platform, unique on (Platform, Account, EventID).
type Inbound struct {
	ID int64 `json:"id"` // given by the ledger, ascending in order of acceptance
	Source
	EventID     string       `json:"event_id"`
	SessionKey  SessionKey   `json:"session_key"`
	Text        string       `json:"text"`
	ReplyText   string       `json:"reply_text,omitempty"` // text of the message that this one answers
	Attachments []Attachment `json:"attachments,omitempty"`
	Button      bool         `json:"button,omitempty"` // a pressed button; Text is the button's command
	Mentioned   bool         `json:"mentioned,omitempty"`
	Forward     bool         `json:"-"` // no turn: Text is sent on to where answers go, and the event is done
	ChatListed  bool         `json:"-"` // its adapter has found the chat on the list of allowed ones, perhaps by its name
	UserListed  bool         `json:"-"` // its adapter has found the writer among those who are allowed, by a role that they hold
	SentAt      time.Time    `json:"sent_at"`
	ReceivedAt  time.Time    `json:"received_at"`
	State       InboundState `json:"state"`
}

// IsCommand tells whether the text is a slash command.
func (in Inbound) IsCommand() bool {
	return len(in.Text) > 1 && in.Text[0] == '/' && in.Text[1] != '/' && in.Text[1] != ' '
}

// SessionKey names a conversation by where it happens:
// agent:main:<platform>:<chat_type>[:<chat_id>][:<thread_id>][:<user_id>].
// A key outlives its sessions: /new gives the key another session.
type SessionKey string

// SessionID names one transcript: YYYYMMDD_HHMMSS_<8 hex>.
type SessionID string

// KeyFor builds the session key of a source. perUser appends the user in
// groups; perUserInThreads does so in their threads as well.
func KeyFor(s Source, perUser, perUserInThreads bool) SessionKey {
	parts := []string{"agent", "main", string(s.Platform), string(s.ChatType)}
	if s.ChatID != "" {
		parts = append(parts, s.ChatID)
	}
	if s.ThreadID != "" {
		parts = append(parts, s.ThreadID)
	}
	if s.ChatType != ChatDM && s.UserID != "" {
		if (s.ThreadID == "" && perUser) || (s.ThreadID != "" && perUserInThreads) {
			parts = append(parts, s.UserID)
		}
	}
	return SessionKey(strings.Join(parts, ":"))
}

// Session is one transcript of a conversation and its counters.
type Session struct {
	ID           SessionID  `json:"id"`
	Key          SessionKey `json:"key"`
	Source       Source     `json:"source"` // of its first message
	Title        string     `json:"title,omitempty"`
	Model        string     `json:"model,omitempty"` // override by /model; empty means the configured one
	CreatedAt    time.Time  `json:"created_at"`
	UpdatedAt    time.Time  `json:"updated_at"`
	EndedAt      time.Time  `json:"ended_at,omitzero"`
	EndReason    string     `json:"end_reason,omitempty"` // reset, idle, daily, compressed
	Parent       SessionID  `json:"parent,omitempty"`     // the session that a compression continued
	MessageCount int        `json:"message_count"`
	Usage        Usage      `json:"usage"`
}

// Role says who speaks in a transcript.
type Role string

// The roles of chat completions.
const (
	RoleSystem    Role = "system"
	RoleUser      Role = "user"
	RoleAssistant Role = "assistant"
	RoleTool      Role = "tool"
)

// ToolCall is a model's request to run a tool. Arguments is the JSON text as
// the model wrote it, which may be malformed.
type ToolCall struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
	Extra     string `json:"extra,omitempty"` // what the provider wants back with the call; JSON of its own, opaque to all others
}

// Message is one entry of a transcript.
type Message struct {
	ID         int64        `json:"id,omitempty"` // given by the ledger
	Role       Role         `json:"role"`
	Content    string       `json:"content"`
	Reasoning  string       `json:"reasoning,omitempty"`
	Images     []Attachment `json:"images,omitempty"`
	ToolCalls  []ToolCall   `json:"tool_calls,omitempty"`
	ToolCallID string       `json:"tool_call_id,omitempty"`
	ToolName   string       `json:"tool_name,omitempty"`
	At         time.Time    `json:"at"`
}

// Usage counts what model calls cost.
type Usage struct {
	Calls        int64 `json:"calls"`
	InputTokens  int64 `json:"input_tokens"`
	OutputTokens int64 `json:"output_tokens"`
	CachedTokens int64 `json:"cached_tokens,omitempty"`
}

// Add sums two usages.
func (u Usage) Add(v Usage) Usage {
	return Usage{u.Calls + v.Calls, u.InputTokens + v.InputTokens, u.OutputTokens + v.OutputTokens, u.CachedTokens + v.CachedTokens}
}

// TurnState is the state of a turn.
type TurnState string

// turn: queued → running(lease) → done | failed | interrupted, with
// waiting for a person's answer in between, which holds no goroutine.
const (
	TurnQueued      TurnState = "queued"
	TurnRunning     TurnState = "running"
	TurnWaiting     TurnState = "waiting"
	TurnDone        TurnState = "done"
	TurnFailed      TurnState = "failed"
	TurnInterrupted TurnState = "interrupted"
)

// TurnKind says what a turn is for; it decides what recovery does with it.
type TurnKind string

// The kinds of turn. After a crash a chat and a background turn are resumed
// from the journal; an API turn is interrupted, since its client is gone; a
// cron turn is settled with its run.
const (
	TurnChat       TurnKind = "chat"
	TurnBackground TurnKind = "background"
	TurnAPI        TurnKind = "api"
	TurnCron       TurnKind = "cron"
)

// Turn is one run of the agent over new input of a session.
type Turn struct {
	ID         int64      `json:"id"`
	Kind       TurnKind   `json:"kind"`
	SessionKey SessionKey `json:"session_key"`
	SessionID  SessionID  `json:"session_id"`
	Source     Source     `json:"source"` // where the answer goes
	State      TurnState  `json:"state"`
	Fence      int64      `json:"fence"`   // rises with every claim; writes with an older one are refused
	Attempt    int        `json:"attempt"` // 1 at first; more after crashes and answers to questions
	Resumed    bool       `json:"resumed"` // claimed again after its holder died
	Input      []Message  `json:"input"`
	Preview    string     `json:"preview,omitempty"` // platform message id of the streamed preview
	Error      string     `json:"error,omitempty"`
	CreatedAt  time.Time  `json:"created_at"`
	StartedAt  time.Time  `json:"started_at,omitzero"`
	EndedAt    time.Time  `json:"ended_at,omitzero"`
	Usage      Usage      `json:"usage"`
}

// StepKind is the kind of a journal entry of a turn.
type StepKind string

// The journal's entries. A tool with StepToolStarted and no StepToolFinished
// was cut off by a crash.
const (
	StepAnswer       StepKind = "answer"        // the model answered with tool calls; Message holds it
	StepToolStarted  StepKind = "tool_started"  // CallID is about to run
	StepToolFinished StepKind = "tool_finished" // Message holds the result
	StepInput        StepKind = "input"         // steered or answered text that joined the turn; Message holds it, CallID names the event
	StepSummary      StepKind = "summary"       // the history before it was compressed into Message
	StepHeard        StepKind = "heard"         // what came of transcribing the recording CallID; part of the turn's input, no message of its own
)

// Step is one journal entry of a turn.
type Step struct {
	Seq     int       `json:"seq"` // given by the ledger, from 1
	Kind    StepKind  `json:"kind"`
	CallID  string    `json:"call_id,omitempty"`
	Tool    string    `json:"tool,omitempty"`
	Message Message   `json:"message"`
	Usage   Usage     `json:"usage"`
	At      time.Time `json:"at"`
}

// QuestionKind tells what a waiting turn waits for.
type QuestionKind string

// The kinds of question.
const (
	AskApproval QuestionKind = "approval"
	AskClarify  QuestionKind = "clarify"
)

// Question is asked of the user by a turn that then waits, durably.
type Question struct {
	ID         int64        `json:"id"`
	TurnID     int64        `json:"turn_id"`
	SessionKey SessionKey   `json:"session_key"`
	Kind       QuestionKind `json:"kind"`
	CallID     string       `json:"call_id"`          // the tool call that waits
	Text       string       `json:"text"`             // what is asked, for people
	Detail     string       `json:"detail,omitempty"` // the command, or the reason
	Key        string       `json:"key,omitempty"`    // what "session" and "always" would allow from now on
	Choices    []string     `json:"choices,omitempty"`
	Answer     string       `json:"answer,omitempty"` // approval: once, session, always, deny, expired; clarify: the text
	AskedAt    time.Time    `json:"asked_at"`
	ExpiresAt  time.Time    `json:"expires_at,omitzero"`
	AnsweredAt time.Time    `json:"answered_at,omitzero"`
}

// Answers to an approval.
const (
	ApproveOnce    = "once"
	ApproveSession = "session"
	ApproveAlways  = "always"
	ApproveDeny    = "deny"
	AnswerExpired  = "expired" // nobody answered in time; counts as a denial
)

// TurnEvent tells an observer what a running turn does. It is never the
// record: an observer that misses one loses nothing that is durable.
type TurnEvent struct {
	Kind   TurnEventKind `json:"kind"`
	TurnID int64         `json:"turn_id"`
	Text   string        `json:"text,omitempty"` // delta of the answer, or a notice
	Tool   string        `json:"tool,omitempty"`
	CallID string        `json:"call_id,omitempty"`
	Label  string        `json:"label,omitempty"` // what the tool does, in a few words, without secrets
	Failed bool          `json:"failed,omitempty"`
}

// TurnEventKind is the kind of a TurnEvent.
type TurnEventKind string

// The events of a turn, in the order in which they can come.
const (
	EventStarted      TurnEventKind = "started"
	EventDelta        TurnEventKind = "delta"
	EventAnswerReset  TurnEventKind = "answer_reset" // text streamed so far belonged to an abandoned attempt, or to a step before tools
	EventToolStarted  TurnEventKind = "tool_started"
	EventToolFinished TurnEventKind = "tool_finished"
	EventWaiting      TurnEventKind = "waiting"
	EventEnded        TurnEventKind = "ended"
)
