package delivery

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"hermes/internal/delivery/markup"
	"hermes/internal/domain"
	"hermes/internal/platform"
)

const (
	cursor         = " ▉"
	firstRunes     = 40               // text that is enough for a first message
	firstAfter     = time.Second      // what to wait for more of it
	previewTimeout = 15 * time.Second // of one edit
	maxFailures    = 3                // in a row, then editing ends
	maxProgress    = 5                // tool calls that are shown
	maxPreview     = 1 << 20          // bytes of text; what is beyond is not shown
)

// Preview shows an answer while it is written, by editing one message. It
// takes events without blocking, and the newest state wins: what a slow
// platform had no time to show is left out. It is never the record; the final
// answer is a delivery that edits the same message. A nil Preview does nothing.
type Preview struct {
	d       *Dispatcher
	l       *line
	editor  platform.Editor
	to      domain.Address
	replyTo string
	onFirst func(messageID string) error

	changed chan struct{} // there is something new to show
	stop    chan struct{}
	done    chan struct{}
	once    sync.Once

	mu     sync.Mutex
	answer strings.Builder
	tools  []toolLine
	since  time.Time // when there first was something to show

	// These belong to the goroutine until done is closed.
	id       string
	shown    string
	failures int
	plain    bool // the platform refused our markup once
}

// toolLine is one tool call as it is shown.
type toolLine struct {
	callID, tool, label string
	ended, failed       bool
}

// NewPreview begins a preview where the platform is attached and can edit; it
// is nil otherwise. onFirst is told the id of the message once it exists; its
// error ends the preview. The preview ends with ctx or by Close.
func (d *Dispatcher) NewPreview(ctx context.Context, to domain.Address, replyTo string, onFirst func(messageID string) error) *Preview {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lines[to.Platform]
	if l == nil || l.paused != "" || d.stopping || l.caps.EditEvery <= 0 {
		return nil
	}
	editor, ok := l.adapter.(platform.Editor)
	if !ok {
		return nil
	}
	p := &Preview{
		d: d, l: l, editor: editor, to: to, replyTo: replyTo, onFirst: onFirst,
		changed: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	d.work.Go(func() { p.run(ctx) })
	return p
}

// Event takes what the turn does. It does not block.
func (p *Preview) Event(e domain.TurnEvent) {
	if p == nil || !p.take(e) {
		return
	}
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// take works an event into the state; it tells whether there is news.
func (p *Preview) take(e domain.TurnEvent) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Kind {
	case domain.EventDelta:
		if p.answer.Len()+len(e.Text) > maxPreview {
			return false
		}
		p.answer.WriteString(e.Text)
	case domain.EventAnswerReset:
		p.answer.Reset()
	case domain.EventToolStarted:
		p.toolStarted(e)
	case domain.EventToolFinished:
		for i := range p.tools {
			if p.tools[i].callID == e.CallID {
				p.tools[i].ended, p.tools[i].failed = true, e.Failed
			}
		}
	default:
		return false
	}
	if p.since.IsZero() {
		p.since = p.d.o.Now()
	}
	return true
}

func (p *Preview) toolStarted(e domain.TurnEvent) {
	t := toolLine{callID: e.CallID, tool: e.Tool, label: e.Label}
	switch p.d.o.ToolProgress {
	case "off":
		return
	case "all", "verbose":
	default: // new
		if n := len(p.tools); n > 0 && p.tools[n-1].tool == t.tool {
			p.tools[n-1] = t
			return
		}
	}
	p.tools = append(p.tools, t)
	if len(p.tools) > maxProgress {
		p.tools = append([]toolLine(nil), p.tools[1:]...)
	}
}

// Close ends the preview, waits for an edit in flight, and gives the id of the
// message that the final answer should edit; "" when there is none.
func (p *Preview) Close() (messageID string) {
	if p == nil {
		return ""
	}
	p.once.Do(func() { close(p.stop) })
	<-p.done
	return p.id
}

// run shows the newest state, no more often than the platform wants.
func (p *Preview) run(ctx context.Context) {
	defer close(p.done)
	defer func() {
		if r := recover(); r != nil { // the answer itself comes all the same
			p.d.o.Log.Error("the preview of an answer panicked", "to", p.to.String(), "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		}
	}()
	for {
		select {
		case <-p.changed:
		case <-p.stop:
			return
		case <-p.d.stop:
			return
		case <-ctx.Done():
			return
		}
		if p.id == "" && !p.waitEnough(ctx) {
			return
		}
		if !p.show(ctx) {
			// The rest is shown by the final answer.
			return
		}
		if !p.pause(ctx, p.l.caps.EditEvery) {
			return
		}
	}
}

// waitEnough waits until there is text for a first message, or until there has
// been some for a while; it tells whether the preview goes on.
func (p *Preview) waitEnough(ctx context.Context) bool {
	p.mu.Lock()
	timer := time.NewTimer(firstAfter - p.d.o.Now().Sub(p.since))
	p.mu.Unlock()
	defer timer.Stop()
	for {
		p.mu.Lock()
		enough := utf8.RuneCountInString(p.answer.String()) >= firstRunes
		p.mu.Unlock()
		if enough {
			return true
		}
		select {
		case <-timer.C:
			return true
		case <-p.changed:
		case <-p.stop:
			return false
		case <-p.d.stop:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// pause waits; it tells whether the preview goes on.
func (p *Preview) pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.stop:
	case <-p.d.stop:
	case <-ctx.Done():
	}
	return false
}

// show sends or edits the message; it tells whether the preview goes on.
func (p *Preview) show(ctx context.Context) bool {
	part := p.render()
	if part.Text == "" || part.Text == p.shown {
		return true
	}
	now := p.d.o.Now()
	if p.id == "" {
		if p.d.owes(p.to) { // what was accepted before stands above
			p.later()
			return true
		}
		if giveBack, _, _ := p.l.limits.reserve(p.to.ChatID, now); giveBack == nil {
			p.later()
			return true
		}
	} else if !p.l.limits.allowEdit(p.to.ChatID, now) {
		p.later()
		return true
	}
	id, err := p.d.call(previewTimeout, func(base context.Context) (string, error) {
		base, cancel := context.WithCancel(base)
		defer context.AfterFunc(ctx, cancel)()
		defer cancel()
		if p.id == "" {
			return p.l.adapter.Send(base, p.to, part, "")
		}
		return p.id, p.editor.Edit(base, p.to, p.id, part)
	})
	if err != nil {
		return p.failed(platform.AsError(err))
	}
	p.failures, p.shown = 0, part.Text
	if p.id == "" {
		p.id = id
		if p.onFirst != nil && id != "" {
			if err := p.onFirst(id); err != nil {
				p.d.o.Log.Warn("the preview's message could not be recorded; it is not edited further", "to", p.to.String(), "err", err)
				return false
			}
		}
	}
	return p.id != ""
}

// later makes the goroutine look again without another event.
func (p *Preview) later() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// failed decides whether the preview goes on after a failure.
func (p *Preview) failed(e *platform.Error) bool {
	p.d.o.Log.Debug("the preview of an answer was not shown", "to", p.to.String(), "code", e.Code, "reason", e.Reason)
	if e.RetryAfter > 0 {
		p.l.limits.hold(p.to.ChatID, p.d.o.Now().Add(e.RetryAfter), e.Global)
	}
	switch {
	case e.RetryAfter > 0, e.Kind == platform.Retry && e.Uncertain && p.id == "":
		return false // flood control, or a first message that may be there without an id
	case e.Kind == platform.MarkupRefused && !p.plain:
		p.plain = true
		p.later()
		return true
	case e.Kind != platform.Retry && e.Kind != platform.MarkupRefused:
		return false
	}
	if p.failures++; p.failures >= maxFailures {
		return false
	}
	p.later()
	return true
}

// render makes the message of the newest state.
func (p *Preview) render() domain.Part {
	p.mu.Lock()
	md := p.progress()
	if text := p.answer.String(); text != "" {
		if md != "" {
			md += "\n\n"
		}
		md += text
	}
	p.mu.Unlock()
	part := markup.Tail(md, cursor, p.l.caps)
	part.ReplyTo = p.replyTo
	if p.plain {
		part = *withoutMarkup(part)
	}
	return part
}

// progress lists the latest tool calls as Markdown; the caller holds mu.
func (p *Preview) progress() string {
	lines := make([]string, 0, len(p.tools))
	for _, t := range p.tools {
		s := "⚙️ " + markup.Escape(t.tool)
		if t.label != "" {
			s += ": " + markup.Escape(t.label)
		}
		switch {
		case p.d.o.ToolProgress != "verbose":
		case t.failed:
			s += " ✗"
		case t.ended:
			s += " ✓"
		}
		lines = append(lines, s)
	}
	return strings.Join(lines, "\n")
}
