// Package tool is the contract of a tool that the agent can call: a name, a
// JSON schema, whether it only reads, and a function. A tool never touches a
// global and keeps nothing between calls but what its constructor was given.
package tool

import (
	"context"
	"encoding/json"

	"hermes/internal/domain"
)

// Tool is one callable tool. It is immutable and safe for concurrent use.
type Tool struct {
	Name        string
	Toolset     string // terminal, file, web, memory, todo, session_search, clarify, messaging, cronjob
	Description string
	Schema      json.RawMessage
	// ReadOnly says that running it twice does no harm: after a crash it is
	// simply run again. Any other tool is never repeated by recovery.
	ReadOnly bool
	// Guard, where not nil, is asked before the tool starts (and journaled
	// before nothing): run, ask a person first, or refuse.
	Guard func(ctx context.Context, env Env, args json.RawMessage) (Decision, error)
	// Label says in a few words what a call does, for progress lines.
	Label func(args json.RawMessage) string
	// Run runs it. An error is told to the model and does not end the turn;
	// a panic is caught by the agent. It ends soon after ctx does.
	Run func(ctx context.Context, env Env, args json.RawMessage) (Result, error)
}

// Result is what the model is told, bounded by the agent.
type Result struct {
	Content string
	Files   []domain.Attachment // to be sent with the answer
}

// Action is what a guard decides.
type Action int

// The actions.
const (
	Run Action = iota
	Ask
	Refuse
)

// Decision is a guard's answer. Question is for Ask (its TurnID, SessionKey,
// CallID and times are filled in by the caller); Reason is for Refuse and is
// told to the model.
type Decision struct {
	Action   Action
	Question domain.Question
	Reason   string
}

// Env is what a call may know of its surroundings.
type Env struct {
	Home       string // the profile's home folder
	Workdir    string // where commands run and relative paths start
	CacheDir   string // where oversized results are put
	SessionKey domain.SessionKey
	SessionID  domain.SessionID
	Source     domain.Source
	Kind       domain.TurnKind
	TurnID     int64
	CallID     string
	Vars       map[string]string // set in the environment of commands, e.g. HERMES_CRON_SESSION
	Answer     string            // a person's answer to the guard's question; "" when none was asked
	// Granted tells whether an approval key was allowed before (session, always).
	Granted func(key string) bool
}
