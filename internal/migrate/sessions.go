package migrate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/plain"
)

// route says which session a conversation is in.
type route struct {
	Key     string      `json:"session_key"`
	Session string      `json:"session_id"`
	Name    string      `json:"display_name"`
	Created stamp       `json:"created_at"`
	Updated stamp       `json:"updated_at"`
	Origin  routeOrigin `json:"origin"`
}

type routeOrigin struct {
	Platform string `json:"platform"`
	ChatID   text   `json:"chat_id"`
	ChatName string `json:"chat_name"`
	ChatType string `json:"chat_type"`
	UserID   text   `json:"user_id"`
	UserName string `json:"user_name"`
	ThreadID text   `json:"thread_id"`
}

// text is a JSON string, or a number that should have been one.
type text string

// UnmarshalJSON takes strings and numbers; anything else is "".
func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
		return nil
	}
	var n json.Number
	if json.Unmarshal(b, &n) == nil {
		*t = text(n.String())
	}
	return nil
}

// stamp is an instant as ISO text or as seconds since 1970.
type stamp struct{ time.Time }

// UnmarshalJSON takes both; anything else is no instant.
func (s *stamp) UnmarshalJSON(b []byte) error {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	s.Time = value{v}.time()
	return nil
}

// routes are the current sessions of all conversations, by session id.
type routes map[domain.SessionID]route

func (r routes) add(key string, body []byte) {
	var one route
	if json.Unmarshal(body, &one) != nil || one.Session == "" {
		return
	}
	if one.Key == "" {
		one.Key = key
	}
	r[domain.SessionID(one.Session)] = one
}

// readRoutes reads the index of conversations: the table of later eras, and the
// file of all.
func (m *move) readRoutes(ctx context.Context, s *oldStore) routes {
	out := routes{}
	path := filepath.Join(m.From.Home, "sessions", "sessions.json")
	body, err := readStore(path)
	if err == nil {
		var index map[string]json.RawMessage
		if err = json.Unmarshal(body, &index); err == nil {
			for _, key := range slices.Sorted(maps.Keys(index)) {
				out.add(key, index[key])
			}
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.report.add("sessions/sessions.json", Failed, 0, "%s; which session each chat is in is not known, so chats begin new ones", unreadable(path, err))
	}
	if s == nil {
		return out
	}
	rows, err := s.db.QueryContext(ctx, `SELECT session_key, entry_json FROM gateway_routing ORDER BY updated_at`)
	if err != nil {
		return out // an era without it
	}
	defer func() { _ = rows.Close() }() // Err tells what matters
	for rows.Next() {
		var key, entry value
		if rows.Scan(&key, &entry) != nil {
			break
		}
		out.add(key.text(), []byte(entry.text()))
	}
	if rows.Err() != nil {
		m.report.add("state.db: gateway_routing", Failed, 0, "it cannot be read to its end: %v", rows.Err())
	}
	return out
}

// sessions brings over transcripts: those of state.db, and those that older eras
// kept as files.
func (m *move) sessions(ctx context.Context) error {
	path := filepath.Join(m.From.Home, "state.db")
	s, err := openOld(ctx, path, m.To.Path(scratchDir...))
	if domain.IsCode(err, domain.NotFound) {
		return m.transcripts(ctx, m.readRoutes(ctx, nil), nil)
	}
	if err != nil {
		m.report.add("state.db", Failed, 0, "%s", domain.MessageOf(err))
		return m.transcripts(ctx, m.readRoutes(ctx, nil), nil)
	}
	defer func() { _ = s.close() }() // it was only read
	index := m.readRoutes(ctx, s)
	known, err := m.stateSessions(ctx, s, index)
	if err != nil {
		return err
	}
	if err := m.stateMessages(ctx, s); err != nil {
		return err
	}
	if s.changed() {
		m.report.add("state.db", Failed, 0, "somebody wrote to it meanwhile; stop the old system and run this again, which adds what is missing")
	}
	return m.transcripts(ctx, index, known)
}

// origin names a store, and notes that something comes from it. A transcript
// that is a file is noted by its folder.
func (m *move) origin(path string) (string, error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	noted := path
	if strings.HasSuffix(path, fileSuffix) {
		noted = filepath.Dir(path)
	}
	if m.DryRun || slices.Contains(m.record.Origins, noted) {
		return path, nil
	}
	m.record.Origins = append(m.record.Origins, noted)
	return path, m.save()
}

// fileSuffix ends the name of a transcript of an older era.
const fileSuffix = ".jsonl"

// stateSessions adds the sessions of state.db and gives their ids.
func (m *move) stateSessions(ctx context.Context, s *oldStore, index routes) (known map[domain.SessionID]domain.SessionID, err error) {
	known = map[domain.SessionID]domain.SessionID{} // id → parent
	err = s.eachSession(ctx, func(o domain.Session) error {
		known[o.ID] = o.Parent
		return nil
	})
	if err != nil && ctx.Err() == nil {
		m.report.add("state.db: sessions", Failed, 0, "the table is damaged after %d sessions; what follows is lost: %v", len(known), err)
	}
	keys := keysOf(index, known)
	if m.DryRun {
		m.report.add("sessions", Taken, int64(len(known)), "")
		return known, ctx.Err()
	}
	origin, err := m.origin(s.path)
	if err != nil {
		return known, err
	}
	var batch []ledger.MovedSession
	var taken, all int
	flush := func() error {
		n, err := m.Ledger.MoveSessions(ctx, origin, batch)
		taken, all, batch = taken+n, all+len(batch), batch[:0]
		return err
	}
	var stop error
	_ = s.eachSession(ctx, func(o domain.Session) error { // its own failure was told
		batch = append(batch, moved(o, index, keys, m.Now()))
		if len(batch) == batchRows {
			stop = flush()
		}
		return stop
	})
	if stop == nil {
		stop = flush()
	}
	if taken > 0 {
		m.report.add("sessions", Taken, int64(taken), "")
	}
	if all > taken {
		m.report.add("sessions", Left, int64(all-taken), "the new home has sessions with these ids")
	}
	return known, stop
}

// keysOf gives each session that a conversation is in, and all that it continued,
// the conversation's key.
func keysOf(index routes, parents map[domain.SessionID]domain.SessionID) map[domain.SessionID]domain.SessionKey {
	keys := map[domain.SessionID]domain.SessionKey{}
	for id, r := range index {
		for at := id; at != "" && keys[at] == ""; at = parents[at] {
			keys[at] = domain.SessionKey(r.Key)
		}
	}
	return keys
}

// moved gives a session of the old system the form of ours. Its model is left:
// there it tells what was used, here it would be an order.
func moved(o domain.Session, index routes, keys map[domain.SessionID]domain.SessionKey, now time.Time) ledger.MovedSession {
	r, current := index[o.ID]
	if current {
		o.Source = domain.Source{Address: domain.Address{Platform: domain.Platform(r.Origin.Platform), ChatID: string(r.Origin.ChatID), ThreadID: string(r.Origin.ThreadID)},
			ChatType: domain.ChatType(r.Origin.ChatType), ChatName: r.Origin.ChatName, UserID: string(r.Origin.UserID), UserName: r.Origin.UserName}
		if o.Source.ChatName == "" {
			o.Source.ChatName = r.Name
		}
		o.EndedAt, o.EndReason = time.Time{}, ""
		o.UpdatedAt = r.Updated.Time
		if o.CreatedAt.IsZero() {
			o.CreatedAt = r.Created.Time
		}
	}
	if o.Source.Platform == "" {
		o.Source.Platform = domain.PlatformCLI
	}
	if key := keys[o.ID]; key != "" {
		o.Key = key
	}
	if o.Key == "" {
		own := o.Source
		if own.ChatType == "" {
			own.ChatType = domain.ChatDM
		}
		if own.ChatID == "" {
			own.ChatID = string(o.ID)
		}
		o.Key = domain.KeyFor(own, true, false)
	}
	if o.CreatedAt.IsZero() {
		o.CreatedAt = now
	}
	o.UpdatedAt = latest(o.UpdatedAt, o.CreatedAt, o.EndedAt)
	return ledger.MovedSession{Session: o, Current: current}
}

func latest(all ...time.Time) (t time.Time) {
	for _, one := range all {
		if one.After(t) {
			t = one
		}
	}
	return t
}

// stateMessages adds the messages of state.db, a batch at a time, from where the
// last run ended.
func (m *move) stateMessages(ctx context.Context, s *oldStore) error {
	var after int64
	origin, err := m.origin(s.path)
	if err == nil && m.Ledger != nil {
		after, err = m.Ledger.MovedUpTo(ctx, origin)
	}
	if err != nil {
		return err
	}
	if m.DryRun {
		n := s.count(ctx, `messages WHERE rowid > ? AND role IN ('user', 'assistant', 'tool') AND session_id IN (SELECT id FROM sessions)`, after)
		if n < 0 {
			m.report.add("messages", Failed, 0, "the table is damaged; those that can be read will be taken")
		} else {
			m.report.add("messages", Taken, n, "")
		}
		return nil
	}
	t := tally{moved: s.count(ctx, `messages WHERE rowid <= ?`, after)}
	for gap := int64(0); ; {
		r, err := s.messagesAfter(ctx, after+gap)
		if ctx.Err() != nil {
			return domain.E(domain.Cancelled, ctx.Err(), "stopped after %d messages; run it again to complete it, nothing comes twice", t.taken)
		}
		if err != nil && r.last == after+gap { // a damaged page: look behind it
			if t.damaged = err; gap > maxGap {
				break
			}
			gap = max(2*gap, 64)
			continue
		}
		if r.last == after+gap {
			break
		}
		if t.cut, t.strange = t.cut+r.cut, t.strange+r.strange; err != nil {
			t.damaged = err
		}
		count, err := m.Ledger.MoveMessages(ctx, origin, r.last, r.list)
		if err != nil {
			return err
		}
		t.add(count)
		after, gap = r.last, 0
		m.Progress(t.taken)
	}
	t.tell(&m.report, "messages")
	return nil
}

// maxGap bounds how far behind damage readable messages are looked for.
const maxGap = 1 << 32

// tally counts what became of messages.
type tally struct {
	moved                    int64 // by earlier runs
	taken                    int64
	wentOn, unknown          int
	cut, strange, unreadable int
	damaged                  error
}

func (t *tally) add(c ledger.MovedCount) {
	t.taken += int64(c.Taken)
	t.wentOn += c.WentOn
	t.unknown += c.Unknown
}

func (t *tally) tell(r *Report, what string) {
	if n := t.taken + max(0, t.moved); n > 0 {
		r.add(what, Taken, n, "")
	}
	left := func(n int, why string) {
		if n > 0 {
			r.add(what, Left, int64(n), "%s", why)
		}
	}
	left(t.wentOn, "their sessions were continued here since they were moved in")
	left(t.unknown, "their sessions are not there: they were not moved in, or deleted here")
	left(t.strange, "notes of the old system that are no part of what was said")
	left(t.cut, "taken up to 16 MiB each, the rest was cut off")
	left(t.unreadable, "lines that are no JSON")
	if t.damaged != nil {
		r.add(what, Failed, 0, "the store is damaged, and some could not be read: %v", t.damaged)
	}
}

// transcripts adds the sessions of older eras, each a file of JSON lines, but for
// those that state.db has.
func (m *move) transcripts(ctx context.Context, index routes, known map[domain.SessionID]domain.SessionID) error {
	names, _ := filepath.Glob(filepath.Join(m.From.Home, "sessions", "*"+fileSuffix))
	var all tally
	var taken, there int64
	for _, path := range names {
		id := domain.SessionID(strings.TrimSuffix(filepath.Base(path), fileSuffix))
		if _, ok := known[id]; ok {
			continue
		}
		if m.DryRun {
			taken++
			continue
		}
		ok, err := m.fileSession(ctx, path, id, index, &all)
		switch {
		case err != nil && ctx.Err() == nil && domain.CodeOf(err) == domain.Invalid:
			m.report.add("sessions/"+filepath.Base(path), Failed, 0, "%s", domain.MessageOf(err))
		case err != nil:
			return err
		case ok:
			taken++
		default:
			there++
		}
	}
	if taken > 0 {
		m.report.add("sessions kept as files", Taken, taken, "")
	}
	if there > 0 {
		m.report.add("sessions kept as files", Left, there, "the new home has sessions with these ids")
	}
	all.tell(&m.report, "messages kept in files")
	return nil
}

// maxLine bounds a line of a transcript, in bytes.
const maxLine = 16 << 20

func (m *move) fileSession(ctx context.Context, path string, id domain.SessionID, index routes, t *tally) (taken bool, err error) {
	f, err := plain.Open(path)
	if err != nil {
		return false, domain.E(domain.Invalid, nil, "%s", unreadable(path, err))
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false, domain.E(domain.Invalid, nil, "%s", unreadable(path, err))
	}
	origin, err := m.origin(path)
	if err != nil {
		return false, err
	}
	one := moved(domain.Session{ID: id, CreatedAt: st.ModTime().UTC()}, index, keysOf(index, nil), m.Now())
	n, err := m.Ledger.MoveSessions(ctx, origin, []ledger.MovedSession{one})
	if err != nil || n == 0 {
		return false, err
	}
	after, err := m.Ledger.MovedUpTo(ctx, origin)
	if err != nil {
		return false, err
	}
	t.moved += after
	in := bufio.NewReaderSize(f, 64<<10)
	var batch []ledger.MovedMessage
	line, size := int64(0), 0
	flush := func() error {
		if line <= after {
			return nil
		}
		count, err := m.Ledger.MoveMessages(ctx, origin, line, batch)
		t.add(count)
		batch, size, after = batch[:0], 0, line
		return err
	}
	for {
		body, long, err := readLine(in)
		if errors.Is(err, io.EOF) {
			return true, flush()
		}
		if err != nil {
			return false, domain.E(domain.Invalid, nil, "%s", unreadable(path, err))
		}
		if line++; line <= after {
			continue
		}
		msg, ok := fileMessage(id, body)
		switch {
		case long:
			t.cut++
		case !ok && !json.Valid(body):
			t.unreadable++
		case !ok:
			t.strange++
		default:
			batch, size = append(batch, msg), size+len(body)
		}
		if len(batch) >= batchRows || size >= batchBytes {
			if err := flush(); err != nil {
				return false, err
			}
		}
	}
}

// readLine reads a line; long says that it had more than maxLine bytes and was
// passed over.
func readLine(in *bufio.Reader) (line []byte, long bool, err error) {
	for {
		part, err := in.ReadSlice('\n')
		if len(line) <= maxLine {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, len(line) > maxLine, nil
		}
		return line, len(line) > maxLine, err
	}
}

func fileMessage(id domain.SessionID, line []byte) (ledger.MovedMessage, bool) {
	var l struct {
		Role       string          `json:"role"`
		Content    any             `json:"content"`
		At         stamp           `json:"timestamp"`
		Reasoning  string          `json:"reasoning"`
		ToolCalls  json.RawMessage `json:"tool_calls"`
		ToolCallID string          `json:"tool_call_id"`
		ToolName   string          `json:"tool_name"`
		Name       string          `json:"name"`
	}
	if json.Unmarshal(line, &l) != nil {
		return ledger.MovedMessage{}, false
	}
	role := domain.Role(l.Role)
	if role != domain.RoleUser && role != domain.RoleAssistant && role != domain.RoleTool {
		return ledger.MovedMessage{}, false
	}
	if l.ToolName == "" {
		l.ToolName = l.Name
	}
	return ledger.MovedMessage{Session: id, Message: domain.Message{Role: role, Content: textOf(l.Content), At: l.At.Time, Reasoning: l.Reasoning,
		ToolCalls: toolCalls(string(l.ToolCalls)), ToolCallID: l.ToolCallID, ToolName: l.ToolName}}, true
}
