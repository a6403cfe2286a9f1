package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"hermes/internal/domain"
)

// stream is an answer as server-sent events. Its header is sent with the first
// piece of the answer or the first keepalive, so that a turn that fails at once
// still gets a proper status. See
// https://html.spec.whatwg.org/multipage/server-sent-events.html.
type stream struct {
	a      *answer
	cancel context.CancelFunc

	mu       sync.Mutex
	started  bool // the header is out
	closed   bool
	err      error
	last     time.Time // of the last write
	deadline time.Time
	head     []byte // of every chunk, up to the delta
	buf      []byte
	text     merger
}

// stream runs the turn and writes its events as they come.
func (a *answer) stream(parent context.Context) (turnEnd, bool) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	st := a.newStream(cancel, a.modelNow())
	a.s.pings.add(st)
	defer a.s.pings.remove(st)
	defer st.close()
	result, err := a.s.o.Gateway.Chat(ctx, a.req, st.event)
	end := a.settle(result, err)
	if parent.Err() != nil || st.broken() {
		a.s.counts.gone.Add(1)
		return end, false
	}
	st.finish(end)
	return end, true
}

// newStream begins an answer of a model. cancel ends the turn when the client
// cannot be reached.
func (a *answer) newStream(cancel context.CancelFunc, model string) *stream {
	return &stream{a: a, cancel: cancel, last: time.Now(), head: chunkHead(a.id, a.created, model)}
}

// modelNow is the model's name before the turn has said which it used.
func (a *answer) modelNow() string {
	if m := a.s.o.Gateway.ModelName(); m != "" {
		return m
	}
	return a.s.modelName()
}

// chunkHead is what every chat.completion.chunk begins with.
func chunkHead(id string, created int64, model string) []byte {
	b := append([]byte(`{"id":"`), id...)
	b = append(b, `","object":"chat.completion.chunk","created":`...)
	b = strconv.AppendInt(b, created, 10)
	b = append(b, `,"model":`...)
	b = appendJSON(b, model)
	return append(b, `,"choices":[{"index":0,"delta":`...)
}

// event writes one event of the turn.
func (st *stream) event(e domain.TurnEvent) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closed || st.err != nil {
		return
	}
	switch e.Kind {
	case domain.EventDelta:
		st.content(st.text.delta(e.Text))
	case domain.EventAnswerReset:
		st.text.reset()
	case domain.EventToolStarted:
		st.tool(e, "running")
	case domain.EventToolFinished:
		st.tool(e, "completed")
	}
}

// content writes a piece of the answer.
func (st *stream) content(text string) {
	if text == "" {
		return
	}
	st.begin()
	b := append(st.buf[:0], "data: "...)
	b = append(b, st.head...)
	b = append(b, `{"content":`...)
	b = appendJSON(b, text)
	b = append(b, "},\"finish_reason\":null}]}\n\n"...)
	st.send(b)
}

// tool writes hermes.tool.progress. The data is a whole chunk with an empty
// delta beside our own fields: OpenAI's libraries hand on the data of events
// that they do not know as if they were chunks.
func (st *stream) tool(e domain.TurnEvent, status string) {
	st.begin()
	b := append(st.buf[:0], "event: hermes.tool.progress\ndata: "...)
	b = append(b, st.head...)
	b = append(b, `{},"finish_reason":null}],"tool":`...)
	b = appendJSON(b, e.Tool)
	b = append(b, `,"emoji":`...)
	b = appendJSON(b, emoji(e.Tool))
	b = append(b, `,"label":`...)
	b = appendJSON(b, e.Label)
	b = append(b, `,"toolCallId":`...)
	b = appendJSON(b, e.CallID)
	b = append(b, `,"status":"`...)
	b = append(b, status...)
	b = append(b, '"')
	if e.Failed {
		b = append(b, `,"error":null,"failed":true`...)
	}
	st.send(append(b, "}\n\n"...))
}

// emoji is the sign of a tool in progress lines.
func emoji(tool string) string {
	switch {
	case strings.HasPrefix(tool, "terminal"), strings.HasPrefix(tool, "process"):
		return "💻"
	case strings.HasPrefix(tool, "web"):
		return "🌐"
	case strings.Contains(tool, "file"), tool == "patch":
		return "📄"
	case strings.Contains(tool, "search"):
		return "🔍"
	case tool == "memory":
		return "🧠"
	case strings.HasPrefix(tool, "cron"):
		return "⏰"
	case tool == "todo":
		return "📋"
	}
	return "🔧"
}

// begin sends the header and the chunk that names the role, once.
func (st *stream) begin() {
	if st.started {
		return
	}
	st.started = true
	h := st.a.w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no")
	h.Set("X-Hermes-Session-Id", st.a.req.SessionID)
	st.a.w.WriteHeader(http.StatusOK)
	b := append(st.buf[:0], "data: "...)
	b = append(b, st.head...)
	st.buf = append(b, "{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n"...)
	// Flushed with what follows it.
	if _, err := st.a.w.Write(st.buf); err != nil {
		st.fail(err)
	}
}

// send writes and flushes. A client that does not read for writeTimeout loses
// its turn: it would hold it for ever.
func (st *stream) send(b []byte) {
	st.buf = b[:0]
	if cap(b) > 4<<10 {
		st.buf = nil
	}
	if st.err != nil {
		return
	}
	control := http.NewResponseController(st.a.w)
	now := time.Now()
	if st.deadline.Sub(now) < writeTimeout/2 {
		st.deadline = now.Add(writeTimeout)
		_ = control.SetWriteDeadline(st.deadline)
	}
	if _, err := st.a.w.Write(b); err != nil {
		st.fail(err)
		return
	}
	if err := control.Flush(); err != nil {
		st.fail(err)
		return
	}
	st.last = now
}

func (st *stream) fail(err error) {
	st.err = err
	st.cancel()
}

// finish ends the stream with the turn's result.
func (st *stream) finish(end turnEnd) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.started && end.failure != nil {
		st.a.write(end)
		return
	}
	if !st.started {
		st.a.req.SessionID = end.result.SessionID
		end.outcome().setHeaders(st.a.w.Header())
	}
	st.content(st.text.rest(end.result.Text))
	st.begin()
	b := append(st.buf[:0], "data: "...)
	b = append(b, st.head...)
	b = append(b, `{},"finish_reason":`...)
	b = appendJSON(b, string(end.result.Finish))
	b = append(b, `}],"usage":`...)
	b = appendValue(b, usageOf(end.result.Usage))
	b = append(b, `,"hermes":`...)
	b = appendValue(b, end.outcome())
	b = append(b, "}\n\n"...)
	if end.failure != nil {
		b = append(b, "data: "...)
		b = appendValue(b, end.failure.body())
		b = append(b, "\n\n"...)
	}
	st.send(append(b, "data: [DONE]\n\n"...))
}

// close makes later events and keepalives do nothing.
func (st *stream) close() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.closed = true
}

func (st *stream) broken() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.err != nil
}

var keepaliveComment = []byte(": keepalive\n\n")

// ping writes a comment if the stream has been silent for the time. A stream
// that is being written needs none.
func (st *stream) ping(now time.Time, silence time.Duration) {
	if !st.mu.TryLock() {
		return
	}
	defer st.mu.Unlock()
	if st.closed || st.err != nil || now.Sub(st.last) < silence {
		return
	}
	// The pinger serves every stream and may wait for none: a client whose
	// buffer is still full after all this silence has stopped reading.
	st.begin()
	st.deadline = now.Add(2 * time.Second)
	control := http.NewResponseController(st.a.w)
	_ = control.SetWriteDeadline(st.deadline)
	_, err := st.a.w.Write(keepaliveComment)
	if err = errors.Join(err, control.Flush()); err != nil {
		st.fail(err)
		return
	}
	st.last = now
}

// keepalives pings every open stream from one timer, which runs only while
// there are streams.
type keepalives struct {
	every time.Duration

	mu      sync.Mutex
	streams map[*stream]struct{}
	timer   *time.Timer
}

func (k *keepalives) add(st *stream) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.streams == nil {
		k.streams = map[*stream]struct{}{}
	}
	k.streams[st] = struct{}{}
	if k.timer == nil {
		k.timer = time.AfterFunc(k.every, k.tick)
	}
}

func (k *keepalives) remove(st *stream) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.streams, st)
}

func (k *keepalives) tick() {
	k.mu.Lock()
	open := make([]*stream, 0, len(k.streams))
	for st := range k.streams {
		open = append(open, st)
	}
	k.mu.Unlock()
	now := time.Now()
	for _, st := range open {
		st.ping(now, k.every)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.streams) == 0 || k.timer == nil {
		k.timer = nil
		return
	}
	k.timer.Reset(k.every)
}

// stop ends the timer.
func (k *keepalives) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.timer != nil {
		k.timer.Stop()
		k.timer = nil
	}
}

// merger turns the deltas of several attempts and steps into one text that
// only grows, since what was streamed cannot be taken back: an attempt that
// says the same again adds nothing until it goes further; one that says
// something else begins a new paragraph.
type merger struct {
	said     strings.Builder // of the present attempt, as the client has it
	before   string          // what the attempt before had said, while it may be repeated
	repeated int             // bytes of before that the present attempt has said again
}

const paragraph = "\n\n"

// reset begins another attempt.
func (m *merger) reset() {
	switch {
	case m.said.Len() > 0:
		m.before, m.repeated = m.said.String(), 0
	case m.before != "":
		m.repeated = 0
	}
	m.said.Reset()
}

// delta takes a piece of the attempt and gives what the client must be sent.
func (m *merger) delta(text string) string {
	if text == "" {
		return ""
	}
	if m.before != "" {
		left := m.before[m.repeated:]
		n := commonPrefix(left, text)
		switch {
		case n == len(text) && n < len(left):
			m.repeated += n
			return ""
		case n == len(left): // all of it again, and perhaps more
			m.said.WriteString(m.before)
			m.before, text = "", text[n:]
		default: // something else
			text = m.before[:m.repeated] + text
			m.before = ""
			m.said.WriteString(text)
			return paragraph + text
		}
	}
	m.said.WriteString(text)
	return text
}

// rest is what the client still lacks of the final answer.
func (m *merger) rest(final string) string {
	if m.before != "" && m.said.Len() == 0 {
		// The last attempt was not streamed, or only repeated.
		if strings.HasPrefix(final, m.before) {
			return final[len(m.before):]
		}
		if final == "" {
			return ""
		}
		return paragraph + final
	}
	said := m.said.String()
	if strings.HasPrefix(final, said) {
		return final[len(said):]
	}
	return ""
}

// commonPrefix is the length of what both begin with, in whole characters.
func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	for n > 0 && n < len(b) && !utf8.RuneStart(b[n]) {
		n--
	}
	return n
}

// appendValue appends one of our own types as JSON.
func appendValue(b []byte, v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types always encode
	}
	return append(b, raw...)
}

const hexDigits = "0123456789abcdef"

// appendJSON appends a JSON string without allocating.
func appendJSON(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r < 0x20 || r == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&15])
		case r == '\u2028' || r == '\u2029': // line ends to some parsers of event streams
			b = append(b, `\u202`...)
			b = append(b, hexDigits[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
