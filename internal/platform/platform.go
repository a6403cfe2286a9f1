// Package platform is the contract between the centre and a chat platform. An
// adapter connects, receives into a sink that commits before it returns, and
// sends one message that is already rendered. It never retries and keeps no
// queue: it classifies (Error), and the centre decides. What a platform can do
// beyond that is an optional interface, found by type assertion, or data
// (Capabilities).
package platform

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"hermes/internal/domain"
)

// Adapter is one connected account of a platform.
type Adapter interface {
	// Name is the platform's name.
	Name() domain.Platform
	// Capabilities are constant over the adapter's life.
	Capabilities() Capabilities
	// Run connects and receives until ctx ends (it then returns nil within a
	// second) or the connection is lost (it returns an *Error, and the
	// supervisor calls Run again after a pause that it chooses). It reports its
	// evidence to the health reporter that it was made with. It must not
	// acknowledge an event before sink.Accept returned nil for it.
	Run(ctx context.Context, sink Sink) error
	// Send sends one message and returns the platform's id of it. It returns an
	// *Error when it fails. nonce is the same for every attempt of one message.
	Send(ctx context.Context, to domain.Address, p domain.Part, nonce string) (receipt string, err error)
}

// Sink takes what an adapter receives.
type Sink interface {
	// Accept commits the events and the cursor ("" keeps the stored one) in
	// one transaction. On error nothing was stored: the adapter must not
	// acknowledge, and tries again after a pause or returns the error from Run.
	Accept(ctx context.Context, account string, events []domain.Inbound, cursor string) error
	// Cursor is the position that was stored last; "" at first.
	Cursor(ctx context.Context, account string) (string, error)
}

// Returner is a Sink that is told when a message came back: the platform had
// taken it, with that receipt, and says later that it did not arrive. It may be
// told so again. A receipt that is not known is nothing.
type Returner interface {
	Returned(ctx context.Context, chatID, receipt, reason string) error
}

// Editor edits a message that the account sent (streamed answers).
type Editor interface {
	Edit(ctx context.Context, to domain.Address, messageID string, p domain.Part) error
}

// Typer shows that an answer is being written. It is called every
// Capabilities.TypingEvery while a turn runs; errors are ignored by the caller.
type Typer interface {
	Typing(ctx context.Context, to domain.Address) error
}

// Fetcher downloads an inbound attachment by its Ref. It fails with Kind
// GiveUp when the file is larger than max bytes or gone.
type Fetcher interface {
	Fetch(ctx context.Context, a domain.Attachment, max int64, w io.Writer) (domain.Attachment, error)
}

// Live shows the progress of turns itself, finer than by edits (web chat).
// Live must not block.
type Live interface {
	Live(to domain.Address, e domain.TurnEvent)
}

// Tracer looks a message up in the platform's own records. It is asked about one
// whose attempt was cut off, before that is sent again or given up, where the
// platform does not drop a repetition by itself (Capabilities.Idempotency). It
// returns the receipt when the platform took the message, ErrNotTaken when the
// records show that it did not, ErrNoTrace when they show neither, and an *Error
// when they cannot be read now. last is the receipt of the newest message of the
// account that is known to have been taken lately, "" where there is none:
// records in which that one is missing too prove nothing. It must not send.
type Tracer interface {
	Trace(ctx context.Context, to domain.Address, nonce, last string) (receipt string, err error)
}

// The answers of a Tracer that has no receipt.
var (
	ErrNotTaken = errors.New("the platform did not take the message")
	ErrNoTrace  = errors.New("the platform's records do not tell whether it took the message")
)

// Checker proves that the platform takes the credentials, without receiving
// anything and without disturbing a process that receives. It is asked by a
// successor while its predecessor still serves.
type Checker interface {
	Check(ctx context.Context) error
}

// Router sends on what is addressed to a place that is no chat of its own: the
// answers to a webhook's events go to a chat of another platform. Route gives
// that place, or the address itself. It must not block, and a place that it
// gives is not routed again.
type Router interface {
	Route(to domain.Address) domain.Address
}

// Directory lists the chats that the account can write to and that have a name,
// so that people can say "#engineering" for an id. It needs no connection: a
// command asks it while no gateway runs. It is asked before each connect, when a
// name is not known, and after the adapter said that a channel was made, renamed
// or deleted; never on a timer of its own. At most MaxChannels are returned, of
// which each has an ID and a Name; direct messages are left out, since the
// centre knows those that were had. It returns an *Error when it fails.
type Directory interface {
	Channels(ctx context.Context) ([]Channel, error)
}

// MaxChannels bounds what Directory returns.
const MaxChannels = 10_000

// Channel is one chat of a Directory.
type Channel struct {
	ID    string // what Address.ChatID takes
	Name  string // what people type, without "#"
	Title string // another name that people see; may be ""
	Space string // server, team or workspace that the name is unique in; "" where the platform has none
	Type  string // the platform's word: "channel", "private", "forum", "group"
}

// Caller is called over HTTP by the platform's own server, at CallbackPath and
// the platform's name under the gateway's API, which asks for no key there: the
// adapter finds out by itself who calls. Its requests are bounded by the API.
type Caller interface {
	// CallbackURL is the address that the platform's server was told to call; ""
	// when it calls none.
	CallbackURL() string
	Callback(w http.ResponseWriter, r *http.Request)
}

// CallbackPath is where callers are served.
const CallbackPath = "/callback/"

// Menu registers the slash commands natively, or where a platform has no menu
// learns what can be typed. It is called after each connect.
type Menu interface {
	SetCommands(ctx context.Context, cmds []Command) error
}

// Command is a slash command. One that is Unlisted can be typed and stands in no
// menu: other names of commands, and those that the operator made.
type Command struct {
	Name        string // without the slash
	Description string
	Unlisted    bool
}

// LengthUnit says how a platform counts the length of a message.
type LengthUnit int

// The units.
const (
	Runes LengthUnit = iota
	UTF16            // UTF-16 code units
	Bytes            // bytes of UTF-8
)

// Dialect names the markup that a platform understands; the renderer knows each.
type Dialect string

// The dialects.
const (
	DialectPlain        Dialect = "plain"
	DialectMarkdown     Dialect = "markdown"      // CommonMark as it is (web chat, Mattermost, Discord)
	DialectTelegramHTML Dialect = "telegram_html" // https://core.telegram.org/bots/api#html-style
	DialectMrkdwn       Dialect = "mrkdwn"        // https://docs.slack.dev/messaging/formatting-message-text
	DialectMatrixHTML   Dialect = "matrix_html"   // https://spec.matrix.org/v1.15/client-server-api/#mroommessage-msgtypes
)

// Idempotency says what a platform offers against sending twice.
type Idempotency int

// The kinds of idempotency.
const (
	IdempotencyNone   Idempotency = iota // nothing: an uncertain send may be repeated
	IdempotencyWindow                    // the nonce is honoured for IdempotencyFor
	IdempotencyAlways                    // sending the same nonce again is harmless
)

// Capabilities is what the renderer, the splitter and the dispatcher need to
// know of a platform.
type Capabilities struct {
	MaxText        int // length limit of a message after its markup is parsed, in Unit
	MaxCaption     int // the same for a message with a file; 0 means no caption
	Unit           LengthUnit
	Dialect        Dialect
	Buttons        bool
	Threads        bool
	MaxUpload      int64         // bytes of one file; 0 means no files
	EditEvery      time.Duration // least time between edits of one message; 0 means no streaming by edits
	TypingEvery    time.Duration // how long a typing signal lasts
	PerChatEvery   time.Duration // least time between messages to one chat, averaged
	PerGroupEvery  time.Duration // the same for groups; 0 means as PerChatEvery
	PerSecond      int           // messages a second over all chats; 0 means no limit
	Burst          int           // messages that may go at once to one chat
	Idempotency    Idempotency
	IdempotencyFor time.Duration
	CommandSign    string // what people type before a command's name where clients keep "/" to themselves; "" means "/"
	MentionName    string // how the account is addressed in groups; known after Run connected
	DigitIDs       bool   // each chat's id holds a digit or "@", so that a word without one is a name
	MaxDownload    int64  // bytes of one file that comes in, unless it is configured otherwise; 0 means as much as the centre takes
	Reacts         bool   // what is being worked on can be marked with a reaction
	Away           Away
}

// Away says, in a few words for people, what becomes of what happens on the
// platform while nobody receives. It is shown in the documentation.
type Away struct {
	Kept string // what is answered, once, when a process is back
	Lost string // what cannot be had back
	// Twice is when an answer whose fate is unknown can be seen twice; "" means
	// never.
	Twice string
}

// Kind classifies a failure for whoever decides about it.
type Kind int

// The kinds.
const (
	Retry          Kind = iota // passing; again after RetryAfter or a back-off
	GiveUp                     // this message will never go (chat gone, blocked by the user)
	BadCredentials             // the account is refused; no retry before the configuration changes
	MarkupRefused              // send Part.Plain instead
	EditRefused                // the message to edit is gone; send a new one
	Moved                      // the chat has another id: NewChatID
	TakenOver                  // another client uses the account's connection (Telegram 409)
)

// Error is how an adapter fails.
type Error struct {
	Kind       Kind
	Reason     string        // for people: what the platform said, what to do; no secrets
	Code       string        // for machines, e.g. "telegram_409"
	RetryAfter time.Duration // what the platform asked for; 0 when it did not say
	Global     bool          // RetryAfter binds every chat of the account
	Uncertain  bool          // the request may have been carried out
	NewChatID  string        // Kind Moved
	Cause      error
}

// Error gives the reason and the cause.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Reason + ": " + e.Cause.Error()
	}
	return e.Reason
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Harmless says of the failure of a request that only reads, or that is carried out
// once however often it is made, that its outcome is never uncertain; where its
// code is unknown, which says that the request may have been carried out, the
// reason is that what is tried again. There may be none.
func (e *Error) Harmless(unknown, what string) *Error {
	if e == nil {
		return nil
	}
	if e.Code == unknown {
		e.Reason = what + ": it is tried again"
	}
	e.Uncertain = false
	return e
}

// Unreachable tells whether a failure says nothing of what was asked, only that
// it could not be asked from here.
func Unreachable(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind == Retry && (strings.HasSuffix(e.Code, "_unreachable") || e.Code == "")
	}
	var n net.Error
	return errors.As(err, &n) || errors.Is(err, context.DeadlineExceeded)
}

// AsError finds the *Error in err's chain; anything else is a passing failure
// with an uncertain outcome.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: Retry, Reason: "the platform could not be reached", Uncertain: true, Cause: err}
}

// Sleep waits; it answers false when ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
