package cron

import (
	"context"
	"fmt"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// Agent runs the turns of jobs.
type Agent interface {
	// RunJob runs one turn in a fresh session and returns its answer. It is
	// called on a goroutine of its own and ends soon after ctx does; text that
	// it had by then is returned with the error. It calls t.Touch at every sign
	// of life (a model's delta, a tool's start and end). It may end the run in
	// the turn's own transaction with what t.End gives, and then says so in
	// JobResult.Ended; otherwise the scheduler ends it.
	RunJob(ctx context.Context, t JobTurn) (JobResult, error)
}

// JobTurn is one agent run of a job.
type JobTurn struct {
	Run       domain.Run
	Job       domain.JobID
	Name      string
	SessionID domain.SessionID // cron_<job>_<YYYYMMDD_HHMMSS>
	Hint      string           // for the system prompt: what a scheduled run is
	Prompt    string
	Model     string // "" means the configured one
	Provider  string
	BaseURL   string
	Toolsets  []string // nil means the selection for platform cron
	Workdir   string
	Targets   []domain.Address  // where the answer is delivered; send_message to these is refused
	Env       map[string]string // for tools: HERMES_CRON_…
	// Touch reports life and what is being done; the run is ended when it was
	// silent for longer than the inactivity limit. Safe for concurrent use.
	Touch func(doing string)
	// End gives what the turn's transaction has to contain.
	End func(r JobResult, err error) (ledger.RunEnd, []domain.NewDelivery)
}

// JobResult is what a turn said.
type JobResult struct {
	Text  string
	Usage domain.Usage
	Model string
	Ended bool // the run was ended with what JobTurn.End gave
}

const maxContext = 8 << 10 // bytes of each earlier output put before a prompt

// DisabledToolsets lists the toolsets that a job's turn never gets: nobody is
// there to answer, the answer is delivered anyway, and jobs must not make jobs.
func DisabledToolsets() []string { return []string{"cronjob", "messaging", "clarify"} }

const jobHint = `This is a scheduled job; nobody is there to answer questions. Your final answer is delivered automatically: do not send it yourself with send_message. If there is nothing worth reporting, answer exactly [SILENT] and nothing else; the answer is then stored and not delivered. Never hide a failure behind [SILENT].`

// isSilent tells whether an answer asks not to be delivered: it begins with
// the mark, or ends with it on a line of its own.
func isSilent(text string) bool {
	const mark = "[SILENT]"
	text = strings.ToUpper(strings.TrimSpace(text))
	if strings.HasPrefix(text, mark) {
		return true
	}
	last := text[strings.LastIndexByte(text, '\n')+1:]
	return strings.TrimSpace(last) == mark
}

// scriptSection tells the agent what the job's script said.
func scriptSection(r scriptResult) string {
	fence := "```"
	for strings.Contains(r.stdout+r.stderr, fence) {
		fence += "`"
	}
	if r.err != nil {
		return fmt.Sprintf("## Script Error\n\nThe data collection script failed; report this to the user.\n\n%s\n%s\n%s\n%s\n\n",
			fence, r.err.Error(), tailOf(r.stderr+"\n"+r.stdout, 4<<10), fence)
	}
	if strings.TrimSpace(r.stdout) == "" {
		return "## Script Output\n\n(The script ran and printed nothing.)\n\n"
	}
	return fmt.Sprintf("## Script Output\n\n%s\n%s\n%s\n\n", fence, strings.TrimRight(r.stdout, "\n"), fence)
}

// headOf cuts a text to limit bytes, at a rune.
func headOf(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "\n… (cut)"
}

// sessionID names the session of one run.
func sessionID(id domain.JobID, at time.Time) domain.SessionID {
	return domain.SessionID("cron_" + string(id) + "_" + at.Format("20060102_150405"))
}

// cronEnv is what tools of a job's turn find in their environment.
func cronEnv(id domain.SessionID, to []domain.Address) map[string]string {
	env := map[string]string{"HERMES_CRON_SESSION": string(id)}
	if len(to) > 0 {
		env["HERMES_CRON_AUTO_DELIVER_PLATFORM"] = string(to[0].Platform)
		env["HERMES_CRON_AUTO_DELIVER_CHAT_ID"] = to[0].ChatID
		env["HERMES_CRON_AUTO_DELIVER_THREAD_ID"] = to[0].ThreadID
	}
	return env
}
