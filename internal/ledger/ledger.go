// Package ledger is the contract of the durable store: what was accepted, what
// runs, what must still be sent. A Store is a set of verbs; each is one
// transaction, durable when it returns, and no transaction leaks out. Every
// method is safe for concurrent use, by several processes too.
//
// The states and their order are part of the contract (package domain). A
// conformance suite (package ledgertest) holds every implementation to it.
//
// Every method may answer, beside the codes that it names: domain.Unavailable
// (store busy or unreachable: retry), domain.StorageFull (no space: nothing was
// written), domain.Cancelled or domain.Timeout (the context ended: the write may
// or may not have happened), domain.Internal.
package ledger

import (
	"context"
	"fmt"
	"time"

	"hermes/internal/domain"
)

// Store is the whole contract. Consumers should declare the part that they use.
type Store interface {
	Processes
	Inbox
	Turns
	Questions
	Outbox
	Sessions
	Jobs
	Pairings
	Notes

	// Info describes the store for status and doctor.
	Info(ctx context.Context) (Info, error)
	// Check proves that the store answers: it commits a row and reads it back.
	Check(ctx context.Context) error
	// Tidy applies the retention limits and gives space back. It works in
	// small transactions, so that nothing waits for it.
	Tidy(ctx context.Context, now time.Time, r Retention) error
	// Close ends the process's registration and closes the store. Nothing may
	// be called afterwards.
	Close() error
}

// Info describes a store.
type Info struct {
	Kind      string           `json:"kind"`     // sqlite, postgres
	Location  string           `json:"location"` // path, or URL without its password
	Schema    int              `json:"schema"`
	Bytes     int64            `json:"bytes"` // size on disk with its log
	Inbound   map[string]int64 `json:"inbound"`
	Turns     map[string]int64 `json:"turns"`      // not ended, and ended in the last day
	Delivery  map[string]int64 `json:"deliveries"` // by state
	Sessions  int64            `json:"sessions"`
	Messages  int64            `json:"messages"`
	SetAside  string           `json:"set_aside,omitempty"` // where a file that was no database was moved
	Salvaged  *Salvage         `json:"salvaged,omitempty"`  // what the file was made from after damage; nil for none
	Ballast   bool             `json:"ballast"`             // the reserve for a full disk is in place
	FullSince time.Time        `json:"full_since,omitzero"`
}

// Salvage tells of a ledger that was made of what could be read of a damaged one.
type Salvage struct {
	At   time.Time `json:"at"`
	Kept string    `json:"kept"`           // where the damaged file is
	Rows int       `json:"rows"`           // that were read
	Lost []string  `json:"lost,omitempty"` // tables of which some rows could not be read
	Told bool      `json:"told"`           // the home channels know
}

// Retention says how long ended things are kept. A zero field keeps them all.
type Retention struct {
	Inbound    time.Duration // done and refused events and their keys; 30 days
	Steps      time.Duration // journals of ended turns; 7 days
	Deliveries time.Duration // sent and dead ones; 90 days
	RunsPerJob int           // ended runs; 200
}

// DefaultRetention is what an installation uses unless it is configured.
var DefaultRetention = Retention{
	Inbound: 30 * 24 * time.Hour, Steps: 7 * 24 * time.Hour, Deliveries: 90 * 24 * time.Hour, RunsPerJob: 200,
}

// Process identifies a holder of leases by evidence that survives the reuse of
// its PID.
type Process struct {
	ID        int64     `json:"id"` // given by the ledger
	BootID    string    `json:"boot_id"`
	PID       int       `json:"pid"`
	StartTime uint64    `json:"start_time"` // field 22 of /proc/PID/stat, clock ticks
	Kind      string    `json:"kind"`       // gateway, cron, cli
	Since     time.Time `json:"since"`
}

// Held is the cause of the Conflict of a lease that a living process holds.
type Held struct{ By Process }

// Error names the holder.
func (h *Held) Error() string {
	return fmt.Sprintf("held by the %s process with PID %d", h.By.Kind, h.By.PID)
}

// Recovered counts what Recover took over from dead processes.
type Recovered struct {
	Processes int          // dead holders found
	Requeued  int          // turns put back to be resumed from their journal
	Ended     int          // API turns whose client is gone: interrupted
	Uncertain int          // deliveries that were cut off while being sent
	Runs      []domain.Run // script runs that were cut off: now interrupted, for the cron package to report
	Leases    int
}

// Lease is the right to be the only one that does a thing. Fence rises with
// every change of hands.
type Lease struct {
	Name  string
	Fence int64
}

// Processes is about who is alive and who owns what.
type Processes interface {
	// Self is this process as registered when the store was opened.
	Self() Process
	// Recover takes over everything that dead processes held: running turns
	// are queued again (or interrupted, by kind), deliveries that were being
	// sent become retrying and Uncertain, leases become free. It is safe to
	// call at any time, and the only start-up path.
	Recover(ctx context.Context, now time.Time) (Recovered, error)
	// AcquireLease takes the lease, also from a dead holder. domain.Conflict
	// when a live process holds it; the message names its PID.
	AcquireLease(ctx context.Context, name string) (Lease, error)
	// ReleaseLease gives it back; releasing a lost lease is no error.
	ReleaseLease(ctx context.Context, l Lease) error
	// CheckLease answers domain.Fenced when the lease has changed hands.
	CheckLease(ctx context.Context, l Lease) error
}

// Event is one event to be accepted.
type Event struct {
	Inbound domain.Inbound // State is received, refused, or done where the Replies are all there is to do; ID is ignored
	// Replies are committed with it, e.g. the pairing code for a refused stranger.
	Replies []domain.NewDelivery
	// Pairing, where not nil, is stored with it.
	Pairing *Pairing
}

// Batch is what one read from a platform yielded.
type Batch struct {
	Platform domain.Platform
	Account  string
	Events   []Event
	Cursor   string // the platform's position after the batch; "" leaves the stored one
}

// Accepted is the outcome of one event of a batch.
type Accepted struct {
	ID        int64
	Duplicate bool // the event was known; nothing was stored for it
	Replies   []int64
}

// Inbox is about events on their way in.
type Inbox interface {
	// AcceptInbound commits a batch and the cursor in one transaction. When it
	// returns nil the platform may be told "got it".
	AcceptInbound(ctx context.Context, b Batch) ([]Accepted, error)
	// Cursor is the stored position of a platform; "" at first.
	Cursor(ctx context.Context, platform domain.Platform, account string) (string, error)
	// Inbound reads one event. domain.NotFound.
	Inbound(ctx context.Context, id int64) (domain.Inbound, error)
	// ReceivedCommands lists the received slash commands and pressed buttons
	// (Inbound.IsCommand or Button) of a session, oldest first.
	ReceivedCommands(ctx context.Context, key domain.SessionKey) ([]domain.Inbound, error)
	// Received lists the received events that are no commands, oldest first.
	Received(ctx context.Context, key domain.SessionKey) ([]domain.Inbound, error)
	// ActiveKeys lists the sessions that have something to do: received
	// events, queued turns, or waiting turns whose question was answered.
	ActiveKeys(ctx context.Context) ([]domain.SessionKey, error)
	// FinishCommand ends a received command and applies its effects in one
	// transaction, so that a command never works twice. domain.Conflict when it
	// was finished before; domain.NotFound from an effect (nothing is applied).
	FinishCommand(ctx context.Context, inbound int64, now time.Time, e Effects) (Applied, error)
}

// Effects are what a command changes. Zero fields change nothing. They are
// applied in the order in which they stand here.
type Effects struct {
	Key        domain.SessionKey
	EndSession string           // end the key's session with this reason; the next turn starts another
	Resume     domain.SessionID // make this the key's session (domain.NotFound)
	Undo       int              // make the last n user messages and all that follows them inactive
	Title      *string          // of the key's session
	Model      *string          // override of the key's session; "" removes it
	Answer     *Answer          // to a question
	Queue      *NewTurn         // queue a turn
	DropQueued bool             // end the key's other received events and queued turns
	Deliveries []domain.NewDelivery
}

// Applied is what FinishCommand made.
type Applied struct {
	TurnID     int64
	Deliveries []int64
	Undone     []domain.Message // what Undo took back, oldest first
	Dropped    int
}

// Answer is a person's answer to a question.
type Answer struct {
	Question int64
	Text     string // see domain.Question.Answer
	By       string
}

// NewTurn asks for a turn that no event brought.
type NewTurn struct {
	Kind       domain.TurnKind
	SessionKey domain.SessionKey
	SessionID  domain.SessionID // fixed session (API, cron); "" means the key's
	Source     domain.Source
	Input      []domain.Message
	RunID      int64
}

// TurnRef names a claimed turn. Every write names the fence of the claim, and a
// write with an old fence is refused with domain.Fenced.
type TurnRef struct {
	ID    int64
	Fence int64
}

// ClaimOptions says how a claim treats the session.
type ClaimOptions struct {
	Now time.Time
	// ResetBefore ends a session whose last activity lies before it and starts
	// another (reset policy). Zero never does. ResetReason is idle or daily.
	ResetBefore time.Time
	ResetReason string
	// Collect claims all received messages of the session for one turn, not
	// only the oldest.
	Collect bool
}

// Claim is a running turn with all that is needed to run it.
type Claim struct {
	Turn       domain.Turn
	Session    domain.Session
	NewSession bool              // the claim began the session
	Inbound    []domain.Inbound  // the events that it answers, oldest first
	Steps      []domain.Step     // its journal, when it is continued
	Answers    []domain.Question // its answered questions
	RunID      int64
}

// Ref names the claimed turn.
func (c Claim) Ref() TurnRef { return TurnRef{c.Turn.ID, c.Turn.Fence} }

// Finish is how a turn ends.
type Finish struct {
	State      domain.TurnState // done, failed or interrupted
	Error      string
	Messages   []domain.Message // appended to the session's transcript
	Usage      domain.Usage
	Deliveries []domain.NewDelivery
	Run        *RunEnd // ends the run that the turn belonged to
	Now        time.Time
}

// Finished is what FinishTurn made.
type Finished struct {
	Deliveries []int64
}

// UsageSlotLength is how long a slot of Usage is. Every time zone is off UTC by
// a multiple of it, so that slots add up to anybody's days.
const UsageSlotLength = 15 * time.Minute

// UsageSlot sums the turns of one kind, platform and outcome that ended within
// UsageSlotLength from At, an instant that is a multiple of it in UTC.
type UsageSlot struct {
	At       time.Time
	Kind     domain.TurnKind
	Platform domain.Platform
	State    domain.TurnState
	Turns    int64
	Usage    domain.Usage
}

// Turns is about the agent's runs and their journals.
type Turns interface {
	// ClaimTurn claims the session's next work: the oldest queued turn, else
	// its oldest received event that is no command (with Collect: all of
	// them). The turn is running under this process's lease when it returns.
	// ok is false when there is nothing, or when a turn of the session is
	// already running or waiting.
	ClaimTurn(ctx context.Context, key domain.SessionKey, o ClaimOptions) (c Claim, ok bool, err error)
	// StartTurn creates and claims a turn at once (API, cron, background).
	StartTurn(ctx context.Context, n NewTurn, now time.Time) (Claim, error)
	// AppendStep adds to the journal. domain.Fenced.
	AppendStep(ctx context.Context, t TurnRef, s domain.Step) (seq int, err error)
	// JoinTurn gives a received event to a running turn (steer), with the step
	// that says so. domain.Fenced; domain.Conflict when the event is taken.
	JoinTurn(ctx context.Context, t TurnRef, inbound int64, s domain.Step) error
	// SetPreview records the platform's id of the streamed preview. domain.Fenced.
	SetPreview(ctx context.Context, t TurnRef, messageID string) error
	// SuspendTurn makes a running turn wait for an answer, with the messages
	// that ask for it. domain.Fenced.
	SuspendTurn(ctx context.Context, t TurnRef, q domain.Question, ask []domain.NewDelivery) (domain.Question, []int64, error)
	// RequeueTurn puts a running turn back, to be resumed from its journal by
	// whoever claims it next (drain limit). domain.Fenced.
	RequeueTurn(ctx context.Context, t TurnRef) error
	// FinishTurn ends a running turn: transcript, deliveries, its events and
	// its run, in one transaction. domain.Fenced.
	FinishTurn(ctx context.Context, t TurnRef, f Finish) (Finished, error)
	// Turn reads one turn. domain.NotFound.
	Turn(ctx context.Context, id int64) (domain.Turn, error)
	// OpenTurns lists turns that are queued, running or waiting; of one
	// session, or of all when key is "".
	OpenTurns(ctx context.Context, key domain.SessionKey) ([]domain.Turn, error)
	// Usage sums the turns that ended at or after from, oldest slot first. Turns
	// are kept as long as deliveries (Retention).
	Usage(ctx context.Context, from time.Time) ([]UsageSlot, error)
	// CancelTurn ends a queued or waiting turn as interrupted, with its events
	// and questions. domain.Conflict when it is running.
	CancelTurn(ctx context.Context, id int64, reason string, now time.Time) error
}

// Questions is about what turns ask of people.
type Questions interface {
	// Question reads one. domain.NotFound.
	Question(ctx context.Context, id int64) (domain.Question, error)
	// OpenQuestions lists the unanswered ones of a session, or of all sessions
	// when key is "", oldest first.
	OpenQuestions(ctx context.Context, key domain.SessionKey) ([]domain.Question, error)
	// AnswerQuestion answers one and queues its turn again. domain.Conflict when
	// it is answered; domain.NotFound.
	AnswerQuestion(ctx context.Context, a Answer, now time.Time) (domain.Question, error)
	// ExpireQuestions answers those that are over their time with
	// domain.AnswerExpired, and tells when the next one will be (zero: none).
	ExpireQuestions(ctx context.Context, now time.Time) (expired []domain.Question, next time.Time, err error)
	// Granted tells whether an approval key was allowed for the session or for
	// ever. An answer of session or always grants its question's Key.
	Granted(ctx context.Context, session domain.SessionID, key string) (bool, error)
}

// DueAddress is an address with unsent messages.
type DueAddress struct {
	To   domain.Address
	Next time.Time // when its first message may be tried
}

// DeliveryRef names a claimed delivery by its attempt.
type DeliveryRef struct {
	ID      int64
	Attempt int
}

// DeliveryFilter selects deliveries, newest first.
type DeliveryFilter struct {
	States []domain.DeliveryState
	RunID  int64
	TurnID int64
	Before int64 // only ids below it
	// Platform, where not "", is whose deliveries are listed.
	Platform domain.Platform
	Limit    int // 0 means 100
}

// Outbox is about messages on their way out.
type Outbox interface {
	// Enqueue commits messages that no turn made (notices, send_message).
	Enqueue(ctx context.Context, d []domain.NewDelivery, now time.Time) ([]int64, error)
	// DueAddresses lists every address with unsent messages that no live
	// process is sending.
	DueAddresses(ctx context.Context) ([]DueAddress, error)
	// ClaimDelivery moves the address's first unsent message to sending, in
	// the transaction that checks the fence. ok is false when there is none,
	// or when it is not due or another process sends it; next then tells when
	// to look again (zero: when woken).
	ClaimDelivery(ctx context.Context, to domain.Address, now time.Time) (d domain.Delivery, ok bool, next time.Time, err error)
	// MarkSent records the receipt. domain.Fenced when the attempt is not the
	// one that is being sent.
	MarkSent(ctx context.Context, d DeliveryRef, receipt string, now time.Time) error
	// MarkRetry puts it back for another attempt at next. uncertain says that
	// the attempt may have arrived. part, where not nil, replaces the content
	// (e.g. plain in place of refused markup), and edit, where not nil, the id
	// to edit. domain.Fenced.
	MarkRetry(ctx context.Context, d DeliveryRef, next time.Time, reason string, uncertain bool, part *domain.Part, edit *string) error
	// MarkDead gives it up. domain.Fenced.
	MarkDead(ctx context.Context, d DeliveryRef, reason string, now time.Time) error
	// MarkReturned makes a sent delivery dead: the platform took it, and says
	// now that it did not arrive. ok is false when none that is sent has the
	// receipt.
	MarkReturned(ctx context.Context, p domain.Platform, chatID, receipt, reason string, now time.Time) (ok bool, err error)
	// MoveAddress gives all unsent messages of one address to another (a
	// migrated chat).
	MoveAddress(ctx context.Context, from, to domain.Address) error
	// Deliveries lists.
	Deliveries(ctx context.Context, f DeliveryFilter) ([]domain.Delivery, error)
	// RetryDelivery makes a dead or retrying delivery pending, due now.
	// domain.NotFound, domain.Conflict.
	RetryDelivery(ctx context.Context, id int64, now time.Time) (domain.Delivery, error)
	// DropDelivery makes an unsent delivery dead. domain.NotFound, domain.Conflict.
	DropDelivery(ctx context.Context, id int64, reason string, now time.Time) error
}

// SessionFilter selects sessions, most recently used first.
type SessionFilter struct {
	Key    domain.SessionKey // "" means any
	Source domain.Platform   // "" means any
	Limit  int               // 0 means 50
	Offset int
}

// Hit is one message that a search found.
type Hit struct {
	Session domain.SessionID `json:"session"`
	Title   string           `json:"title,omitempty"`
	Message domain.Message   `json:"message"`
	Snippet string           `json:"snippet"`
}

// ChatEntry is one line of a chat as its reader saw it.
type ChatEntry struct {
	ID   string      `json:"id"`            // "i<inbound id>" or "d<delivery id>"
	Ref  string      `json:"ref,omitempty"` // the inbound's event id or the delivery's receipt
	Role string      `json:"role"`          // user or assistant
	Kind string      `json:"kind,omitempty"`
	Part domain.Part `json:"part"`
	At   time.Time   `json:"at"`
}

// Sessions is about transcripts.
type Sessions interface {
	// Session reads one. domain.NotFound.
	Session(ctx context.Context, id domain.SessionID) (domain.Session, error)
	// CurrentSession is the key's session. domain.NotFound when it has none.
	CurrentSession(ctx context.Context, key domain.SessionKey) (domain.Session, error)
	// ListSessions lists.
	ListSessions(ctx context.Context, f SessionFilter) ([]domain.Session, error)
	// History is the active transcript of a session, oldest first.
	History(ctx context.Context, id domain.SessionID) ([]domain.Message, error)
	// Compress replaces the active messages up to and including upTo by one
	// summary; the replaced ones stay searchable. domain.NotFound.
	Compress(ctx context.Context, id domain.SessionID, upTo int64, summary domain.Message) error
	// EditSession changes title and model (nil leaves one as it is).
	EditSession(ctx context.Context, id domain.SessionID, title, model *string) error
	// DeleteSession removes it with its messages. domain.NotFound;
	// domain.Conflict when a turn of it is open.
	DeleteSession(ctx context.Context, id domain.SessionID) error
	// Search finds messages of all sessions by words, best first. Scripts
	// without spaces are found by parts of three characters. A malformed query
	// is searched as plain words, never an error. limit 0 means 20.
	Search(ctx context.Context, query string, limit int) ([]Hit, error)
	// ChatLog is the tail of what was said at an address, oldest first:
	// received texts and sent deliveries. limit 0 means 100.
	ChatLog(ctx context.Context, at domain.Address, limit int) ([]ChatEntry, error)
}

// RunRef names a claimed run.
type RunRef struct {
	ID    int64
	Fence int64
}

// RunEnd is how a run ends.
type RunEnd struct {
	Ref    RunRef
	State  domain.RunState
	Error  string
	Output string
	Usage  domain.Usage
}

// RunFilter selects runs, newest instant first.
type RunFilter struct {
	Job    domain.JobID // "" means all
	States []domain.RunState
	Since  time.Time
	Limit  int // 0 means 20
}

// JobFilter selects jobs, ordered by name, then id.
type JobFilter struct {
	EnabledOnly bool
	// Scheduled leaves out jobs whose instant is over or that are disabled.
	Scheduled bool
	Name      string // in any case of ASCII letters; "" means all
	Limit     int    // 0 means all
	Offset    int
}

// Jobs is about schedules and their firings.
type Jobs interface {
	// PutJob inserts a job (Version 0) or updates one (Version as read).
	// domain.Conflict when it was changed meanwhile, or when a new one's id exists.
	PutJob(ctx context.Context, j domain.Job) (domain.Job, error)
	// Job reads one. domain.NotFound.
	Job(ctx context.Context, id domain.JobID) (domain.Job, error)
	// ListJobs lists.
	ListJobs(ctx context.Context, f JobFilter) ([]domain.Job, error)
	// CountJobs counts what ListJobs would list without Limit and Offset.
	CountJobs(ctx context.Context, f JobFilter) (int, error)
	// DeleteJob removes it; its runs stay. domain.NotFound.
	DeleteJob(ctx context.Context, id domain.JobID) error
	// NextDue is the earliest NextAt of the enabled jobs; zero when none.
	NextDue(ctx context.Context) (time.Time, error)
	// DueJobs lists enabled jobs whose NextAt is not after now, earliest first.
	DueJobs(ctx context.Context, now time.Time, limit int) ([]domain.Job, error)
	// Fire records the given firings of a job and moves its NextAt (zero: no
	// more), if its NextAt is still from; domain.Conflict otherwise, so that two
	// schedulers fire once. Each run is inserted as given (due, or ended as
	// missed or skipped); an instant that has a run is left alone.
	Fire(ctx context.Context, id domain.JobID, from, next time.Time, runs []domain.Run) ([]domain.Run, error)
	// ForgetMissed removes the records of missed and skipped firings later than
	// an instant, which only a clock that was wrong can have made, and tells how
	// many there were.
	ForgetMissed(ctx context.Context, after time.Time) (int, error)
	// ClaimRun makes a due run running under this process's lease. ok is false
	// when it is not due any more.
	ClaimRun(ctx context.Context, id int64, now time.Time) (r domain.Run, ok bool, err error)
	// FinishRun ends a claimed run with its deliveries in one transaction.
	// domain.Fenced.
	FinishRun(ctx context.Context, e RunEnd, d []domain.NewDelivery, now time.Time) ([]int64, error)
	// DueRuns lists runs that are due and unclaimed, oldest first.
	DueRuns(ctx context.Context, limit int) ([]domain.Run, error)
	// Runs lists.
	Runs(ctx context.Context, f RunFilter) ([]domain.Run, error)
}

// Pairing is a stranger's request to talk, or a person who may.
type Pairing struct {
	Platform    domain.Platform `json:"platform"`
	UserID      string          `json:"user_id"`
	UserName    string          `json:"user_name,omitempty"`
	CodeHash    string          `json:"-"` // hex SHA-256 of Salt bytes + code; "" once approved
	Salt        string          `json:"-"` // hex
	RequestedAt time.Time       `json:"requested_at"`
	ApprovedAt  time.Time       `json:"approved_at,omitzero"`
}

// Pairings is about who may talk. The rules (lifetimes, limits, lock-out) are
// the access package's.
type Pairings interface {
	// PutPairing stores a request or an approval, replacing the user's entry.
	PutPairing(ctx context.Context, p Pairing) error
	// ListPairings lists those of a platform, or of all when it is "".
	ListPairings(ctx context.Context, platform domain.Platform) ([]Pairing, error)
	// DeletePairing removes a user's entry. domain.NotFound.
	DeletePairing(ctx context.Context, platform domain.Platform, userID string) error
}

// Notes are small durable values of single features, by key
// ("access.telegram.failures"). They are for state that needs no query.
type Notes interface {
	// Note reads one; "" when there is none.
	Note(ctx context.Context, key string) (string, error)
	// SetNote writes one; "" removes it.
	SetNote(ctx context.Context, key, value string) error
}
