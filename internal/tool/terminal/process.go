package terminal

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"hermes/internal/approval"
	"hermes/internal/domain"
	"hermes/internal/lazyregexp"
	"hermes/internal/tool"
)

// What the process tool shows at once, in bytes, and how long it waits.
const (
	showPoll = 4 << 10
	showLog  = 24 << 10
	scanLog  = 1 << 20
	maxWait  = 10 * time.Minute
)

type processArgs struct {
	Action    string  `json:"action"`
	ID        string  `json:"id"`
	SessionID string  `json:"session_id"` // another name of id that models know
	Offset    int     `json:"offset"`
	Limit     int     `json:"limit"`
	Timeout   float64 `json:"timeout"`
	Data      string  `json:"data"`
}

func (t *Terminal) processTool() tool.Tool {
	return tool.Tool{
		Name: "process", Toolset: "terminal",
		Description: "Look after background commands that terminal started: list them; poll one (is it running, its last output); log (lines of its output); wait for its end; kill it with all that it started; write to its input (submit adds a newline).",
		Schema: json.RawMessage(`{"type":"object","properties":{
			"action":{"type":"string","enum":["list","poll","log","wait","kill","write","submit"]},
			"id":{"type":"string","description":"The id that terminal gave; not for list."},
			"offset":{"type":"integer","description":"log: first line to show, from 0; the last lines when left out."},
			"limit":{"type":"integer","description":"log: number of lines, 200 when left out."},
			"timeout":{"type":"number","description":"wait: seconds, 60 when left out, at most 600."},
			"data":{"type":"string","description":"write, submit: the text."}},
			"required":["action"]}`),
		Guard: t.guardInput,
		Label: func(raw json.RawMessage) string {
			var a processArgs
			if tool.Decode(raw, &a) != nil {
				return "process"
			}
			return strings.TrimSpace("process " + a.Action + " " + a.ID)
		},
		Run: t.process,
	}
}

// takesCommands matches background commands that may run what they read.
var takesCommands = lazyregexp.New(`\b(sh|bash|zsh|dash|ksh|fish|ssh|su|sudo|doas|docker|podman|kubectl|tmux|screen|nc|socat|python[0-9.]*|node|perl|ruby|psql|mysql|sqlite3|at|batch|xargs|parallel|env|exec|cat)\b|\$`)

// guardInput looks at what is written to a command's input as at a command of
// its own, since a shell in the background would run it: together with the line
// that earlier writes began. What a program that is no shell reads is only held
// to the hard line.
func (t *Terminal) guardInput(_ context.Context, env tool.Env, raw json.RawMessage) (tool.Decision, error) {
	var a processArgs
	if err := tool.Decode(raw, &a, "action"); err != nil {
		return tool.Decision{}, err
	}
	if a.Action != "write" && a.Action != "submit" {
		return tool.Decision{Action: tool.Run}, nil
	}
	p, err := t.find(env.SessionKey, a)
	if err != nil {
		return tool.Decision{}, err
	}
	t.mu.Lock()
	text := t.unended[p.ID] + a.Data
	t.mu.Unlock()
	o := t.approval(env)
	o.Workdir = p.Workdir
	v := approval.Analyze(text, o)
	if v.Action == approval.Ask && !takesCommands.MatchString(p.Command) {
		return tool.Decision{Action: tool.Run}, nil
	}
	return tool.Decide(v, "Input for "+p.ID+" ("+t.redact(short(p.Command, 40))+")", t.redact(text)), nil
}

// typed remembers the line that a write left without an end.
func (t *Terminal) typed(id, data string) {
	const most = 4 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	line := t.unended[id] + data
	line = line[strings.LastIndexByte(line, '\n')+1:]
	if line == "" {
		delete(t.unended, id)
		return
	}
	t.unended[id] = line[max(0, len(line)-most):]
}

// process runs one action.
func (t *Terminal) process(ctx context.Context, env tool.Env, raw json.RawMessage) (tool.Result, error) {
	var a processArgs
	if err := tool.Decode(raw, &a, "action"); err != nil {
		return tool.Result{}, err
	}
	if a.Action == "list" {
		return tool.Result{Content: t.list(env.SessionKey)}, nil
	}
	p, err := t.find(env.SessionKey, a)
	if err != nil {
		return tool.Result{}, err
	}
	switch a.Action {
	case "poll":
	case "log":
		return tool.Result{Content: t.log(p, a.Offset, a.Limit)}, nil
	case "wait":
		limit := time.Minute
		if a.Timeout > 0 {
			limit = min(time.Duration(a.Timeout*float64(time.Second)), maxWait)
		}
		if err := t.wait(ctx, p, limit); err != nil {
			return tool.Result{}, err
		}
	case "kill":
		if p.Running {
			t.kill(p)
		}
	case "write", "submit":
		if a.Action == "submit" {
			a.Data += "\n"
		}
		if err := t.writeTo(p, a.Data); err != nil {
			return tool.Result{}, err
		}
		t.typed(p.ID, a.Data)
		return tool.Result{Content: fmt.Sprintf("Wrote %d bytes to %s.", len(a.Data), p.ID)}, nil
	default:
		return tool.Result{}, domain.E(domain.Invalid, nil, "the action %q is unknown; it must be list, poll, log, wait, kill, write or submit", a.Action)
	}
	if p, err = t.find(env.SessionKey, a); err != nil {
		return tool.Result{}, err
	}
	text, size := t.readOutput(p.ID, showPoll)
	if size > showPoll {
		text = fmt.Sprintf("[… the last %d of %d bytes …]\n", showPoll, size) + text
	}
	return tool.Result{Content: describe(p) + "\n" + strings.TrimRight(text, "\n")}, nil
}

// find gives a background command of the session. domain.NotFound.
func (t *Terminal) find(key domain.SessionKey, a processArgs) (Process, error) {
	id := a.ID
	if id == "" {
		id = a.SessionID
	}
	for _, p := range t.processes(key) {
		if p.ID == id {
			return p, nil
		}
	}
	return Process{}, domain.E(domain.NotFound, nil, "there is no background command with the id %q in this conversation; use the action list", id)
}

func (t *Terminal) list(key domain.SessionKey) string {
	var b strings.Builder
	for _, p := range t.processes(key) {
		fmt.Fprintf(&b, "%s: %s\n", describe(p), t.redact(short(p.Command, 100)))
	}
	if b.Len() == 0 {
		return "There are no background commands in this conversation."
	}
	return b.String()
}

// describe says in one line how a background command does.
func describe(p Process) string {
	switch {
	case p.Running:
		return fmt.Sprintf("%s: running for %s (PID %d)", p.ID, round(time.Since(p.StartedAt)), p.PID)
	case p.ExitCode < 0:
		return p.ID + ": ended without an exit code (killed, or the machine went down)"
	}
	return fmt.Sprintf("%s: ended with exit code %d after %s", p.ID, p.ExitCode, round(p.EndedAt.Sub(p.StartedAt)))
}

// log shows some lines of an output's last mebibyte.
func (t *Terminal) log(p Process, offset, limit int) string {
	if limit <= 0 {
		limit = 200
	}
	text, size := t.readOutput(p.ID, scanLog)
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	from := max(0, len(lines)-limit)
	if offset > 0 {
		from = min(offset, len(lines))
	}
	to := min(from+limit, len(lines))
	shown := strings.Join(lines[from:to], "\n")
	if len(shown) > showLog {
		shown = strings.ToValidUTF8(shown[len(shown)-showLog:], "")
	}
	note := ""
	if size > scanLog {
		note = fmt.Sprintf(" of the last %d KiB", scanLog>>10)
	}
	return fmt.Sprintf("%s\n[lines %d to %d of %d%s]\n%s", describe(p), from, to, len(lines), note, shown)
}

// wait waits for the end of a background command, or for the limit.
func (t *Terminal) wait(ctx context.Context, p Process, limit time.Duration) error {
	if !p.Running {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stop := context.AfterFunc(t.ctx, cancel)
	defer stop()
	if err := watch(waiting, p.proc); err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// writeTo writes to a command's input without waiting for it to read.
func (t *Terminal) writeTo(p Process, data string) error {
	const most = 32 << 10 // within what an idle pipe holds
	if !p.Running {
		return domain.E(domain.Conflict, nil, "%s has ended, so it reads nothing any more", p.ID)
	}
	if len(data) > most {
		return domain.E(domain.TooLarge, nil, "at most %d bytes can be written at once", most)
	}
	fd, err := syscall.Open(t.file(p.ID, ".in"), syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return domain.E(domain.Conflict, err, "%s was started without an input; start it with stdin=true", p.ID)
	}
	f := os.NewFile(uintptr(fd), "input")
	defer f.Close()
	f.SetWriteDeadline(time.Now().Add(time.Second))
	if n, err := f.WriteString(data); err != nil {
		return domain.E(domain.Conflict, err, "%s does not read its input; %d of %d bytes were taken", p.ID, n, len(data))
	}
	return nil
}
