// Package failpoint marks the instants at which a crash is told apart by the
// promise "nothing is lost, nothing is silently repeated". In a normal build a
// mark is nothing. In one made with the build tag failpoint, the process kills
// itself (SIGKILL) at the mark that HERMES_FAILPOINT names: "name" the first
// time, "name:n" the n-th time. The torture test runs such a build.
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

// All lists the marks of a message.
func All() []string {
	return []string{InboundBeforeCommit, InboundCommitted, TurnClaimed, AnswerJournaled, ToolStarted, ToolRan, ToolFinished,
		TurnBeforeFinish, TurnFinished, DeliveryClaimed, DeliverySent, DeliveryMarked}
}
