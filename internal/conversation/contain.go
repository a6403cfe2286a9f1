package conversation

import (
	"fmt"
	"runtime/debug"

	"hermes/internal/agent"
	"hermes/internal/domain"
)

// contained runs f and survives a panic in it: what stands around the agent (an
// adapter, the renderer) must not take the process down. It tells whether f came
// to its end.
func (l *Lanes) contained(what string, f func()) (ended bool) {
	defer func() {
		if ended {
			return
		}
		l.Log.Error(what+" panicked", "component", "conversation", "panic", fmt.Sprint(recover()), "stack", string(debug.Stack()))
	}()
	f()
	return true
}

// crashed is the outcome of a turn whose code panicked.
func crashed(input []domain.Message) *agent.Outcome {
	return &agent.Outcome{State: domain.TurnFailed, Messages: input,
		Err: domain.E(domain.Internal, nil, "this turn crashed; that is a defect of mine, and it is in the log. Nothing else was harmed")}
}
