// Package failpoint marks the instants at which a crash is told apart by the
// promise "nothing is lost, nothing is silently repeated". In a normal build a
// mark is nothing. In one made with the build tag failpoint, the process kills
// itself (SIGKILL) at the mark that HERMES_FAILPOINT names: "name" the first
// time, "name:n" the n-th time, "name:n:panic", "name:n:exit" and "name:n:hang"
// to fail in another way, "name:n:fatal" as the runtime does, which nothing
// recovers from, "name:n:term" and "name:n:hup" to go on with that signal to
// itself. Several are parted by commas. The torture test runs such a build.
package failpoint

// The marks, in the order in which a message meets them.
const (
	InboundBeforeCommit = "inbound.before_commit"
	InboundCommitted    = "inbound.committed"
	TurnClaimed         = "turn.claimed"
	AnswerJournaled     = "answer.journaled"
	ToolStarted         = "tool.started"
	ToolRan             = "tool.ran"
	ToolFinished        = "tool.finished"
	TurnBeforeFinish    = "turn.before_finish"
	TurnFinished        = "turn.finished"
	DeliveryClaimed     = "delivery.claimed"
	DeliverySent        = "delivery.sent"
	DeliveryMarked      = "delivery.marked"
)

// The marks, in the order in which a job's firing meets them.
const (
	FiringBeforeCommit = "firing.before_commit"
	FiringCommitted    = "firing.committed"
	RunClaimed         = "run.claimed"
	ScriptStarted      = "script.started"
	ScriptEnded        = "script.ended"
	RunBeforeFinish    = "run.before_finish"
	RunFinished        = "run.finished"
)

// Firing lists the marks of a job's firing.
func Firing() []string {
	return []string{FiringBeforeCommit, FiringCommitted, RunClaimed, ScriptStarted, ScriptEnded, RunBeforeFinish, RunFinished}
}

// The marks of a change of .env and config.yaml together.
const (
	EditPlanned = "edit.planned" // it is written down, and neither file has changed
	EditHalf    = "edit.half"    // .env has changed
	EditWritten = "edit.written" // both have, and it is still written down
)

// Edit lists the marks of a change of both files.
func Edit() []string { return []string{EditPlanned, EditHalf, EditWritten} }

// The marks of a hand-over. The first three are the successor's, the others the
// predecessor's. See Handover.
const (
	SuccessorReady    = "handover.ready"   // it has said that it could serve
	SuccessorOwns     = "handover.owns"    // it was told to serve
	SuccessorServes   = "handover.serves"  // it serves, and has not said so
	PredecessorOffers = "handover.offers"  // the successor runs and knows nothing yet
	PredecessorGives  = "handover.gives"   // the successor was found fit
	PredecessorGave   = "handover.gave"    // the successor serves
	PredecessorLeaves = "handover.leaves"  // all was given up
	InPlaceDrained    = "handover.drained" // before the execve
	InPlaceBecame     = "handover.became"  // after it
)

// PartStarts begins the mark of a part's start; the part's name follows, as in
// "part.platform.telegram".
const PartStarts = "part."

// Handover lists the marks of a hand-over.
func Handover() []string {
	return []string{SuccessorReady, SuccessorOwns, SuccessorServes, PredecessorOffers, PredecessorGives, PredecessorGave, PredecessorLeaves,
		InPlaceDrained, InPlaceBecame}
}

// The marks of a gateway's life from its first step to its last.
const (
	StartBegun    = "start.begun"    // nothing is read yet
	StartClaimed  = "start.claimed"  // the profile is taken
	StartOpened   = "start.opened"   // the ledger is open
	StartBuilt    = "start.built"    // every part is built, none runs
	StartStarted  = "start.started"  // every part runs
	StartServing  = "start.serving"  // and everybody was told
	StopBegun     = "stop.begun"     // nothing new comes in
	StopDrained   = "stop.drained"   // turns and jobs have ended
	StopDelivered = "stop.delivered" // what was said is sent
	StopClosed    = "stop.closed"    // the ledger is closed
)

// Life lists the marks of a gateway's life.
func Life() []string {
	return []string{StartBegun, StartClaimed, StartOpened, StartBuilt, StartStarted, StartServing, StopBegun, StopDrained, StopDelivered, StopClosed}
}

// The marks of an update, in the process that runs it.
const (
	UpdateBegun   = "update.begun"   // the lock is held, nothing was done
	UpdateFetched = "update.fetched" // the archive is here and verified
	UpdateStaged  = "update.staged"  // the new version lies among the others
	UpdateKept    = "update.kept"    // the old one too
	UpdateHanded  = "update.handed"  // a profile is served by the new version, and not pinned
	UpdatePinned  = "update.pinned"  // it is pinned
	UpdatePointed = "update.pointed" // the link is moved
	UpdateSettled = "update.settled" // all is done but the log's last line
)

// Update lists the marks of an update.
func Update() []string {
	return []string{UpdateBegun, UpdateFetched, UpdateStaged, UpdateKept, UpdateHanded, UpdatePinned, UpdatePointed, UpdateSettled}
}

// All lists the marks that every message meets.
func All() []string {
	return []string{InboundBeforeCommit, InboundCommitted, TurnClaimed, AnswerJournaled, ToolStarted, ToolRan, ToolFinished,
		TurnBeforeFinish, TurnFinished, DeliveryClaimed, DeliverySent, DeliveryMarked}
}
