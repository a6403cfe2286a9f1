package migrate

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/plain"
)

// Bounds of one read from the old store.
const (
	batchRows  = 500
	batchBytes = 4 << 20
	// maxContent is how much of one message is taken, in bytes.
	maxContent = 16 << 20
)

// oldStore reads a state.db. Nothing of it is written: without a log the file is
// opened as immutable, and with one a second name of the file in a folder of our
// own has a copy of the log beside it.
// https://www.sqlite.org/wal.html#read_only_databases
type oldStore struct {
	db                 *sql.DB
	path, scratch      string
	made               []string // folders that were not there, the deepest first
	before             fs.FileInfo
	sessions, messages map[string]bool // columns, in lower case
}

// openOld opens the store at path; scratch is a folder for a while. Errors:
// NotFound; Invalid for what is no such store; Unavailable.
func openOld(ctx context.Context, path, scratch string) (s *oldStore, err error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, domain.E(domain.NotFound, nil, "there is no %s", path)
	}
	if err != nil {
		return nil, domain.E(domain.Unavailable, nil, "%s", unreadable(path, err))
	}
	s = &oldStore{path: path, before: st}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	head, err := plain.Open(path)
	if err != nil {
		return s, domain.E(domain.Unavailable, nil, "%s", unreadable(path, err))
	}
	magic := make([]byte, 16)
	_, err = io.ReadFull(head, magic)
	head.Close()
	if err != nil || string(magic) != "SQLite format 3\x00" {
		return s, domain.E(domain.Invalid, nil, "it is no SQLite database; it was cut off or overwritten. A backup of it (state-snapshots, backups) put in its place can be moved in")
	}
	// A schema that is partly wrong is read as far as it is right, which needs
	// this setting to be made before any other.
	query := url.Values{"mode": {"ro"}, "_pragma": {"writable_schema(1)"}}
	file := path
	if wal, err := os.Stat(path + "-wal"); err == nil && wal.Size() > 0 {
		if file, err = s.withLog(path, scratch); err != nil {
			return s, err
		}
	} else {
		query.Set("immutable", "1")
	}
	u := url.URL{Scheme: "file", Path: file, RawQuery: query.Encode()}
	if s.db, err = sql.Open("sqlite", u.String()); err != nil {
		return s, domain.E(domain.Unavailable, err, "%s cannot be opened", path)
	}
	s.db.SetMaxOpenConns(1)
	if s.sessions, err = s.columns(ctx, "sessions"); err == nil {
		s.messages, err = s.columns(ctx, "messages")
	}
	switch {
	case err != nil:
		return s, domain.E(domain.Invalid, err, "it is damaged so far that nothing can be read from it")
	case !s.sessions["id"] || !s.messages["session_id"] || !s.messages["role"]:
		return s, domain.E(domain.Invalid, nil, "it has no tables of sessions and messages, so it is of an era or a program that is not known")
	}
	return s, nil
}

// withLog gives a name of the file that a copy of its log lies beside.
func (s *oldStore) withLog(path, scratch string) (string, error) {
	fail := func(err error) (string, error) {
		return "", domain.E(domain.Unavailable, err, "%s has a log that is not merged yet, and neither a second name nor a copy of it can be made in %s", path, scratch)
	}
	for dir := scratch; !exists(dir); dir = filepath.Dir(dir) {
		s.made = append(s.made, dir)
	}
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return fail(err)
	}
	dir, err := os.MkdirTemp(scratch, "old-")
	if err != nil {
		return fail(err)
	}
	s.scratch = dir
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fail(err)
	}
	file := filepath.Join(dir, "state.db")
	if err := os.Link(real, file); err != nil {
		if err := copyPlain(real, file); err != nil { // another file system
			return fail(err)
		}
	}
	if err := copyPlain(path+"-wal", file+"-wal"); err != nil {
		return fail(err)
	}
	return file, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func copyPlain(from, to string) error {
	in, err := plain.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func (s *oldStore) close() error {
	var errs []error
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.scratch != "" {
		errs = append(errs, os.RemoveAll(s.scratch))
	}
	for _, dir := range s.made {
		_ = os.Remove(dir) // one that holds something by now stays
	}
	return errors.Join(errs...)
}

// changed tells whether somebody wrote to the store since it was opened.
func (s *oldStore) changed() bool {
	st, err := os.Stat(s.path)
	return err != nil || st.Size() != s.before.Size() || !st.ModTime().Equal(s.before.ModTime())
}

func (s *oldStore) columns(ctx context.Context, table string) (map[string]bool, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT lower(name) FROM pragma_table_info(?)`, table)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err tells what matters
	out := map[string]bool{}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		out[name] = true
	}
	return out, rows.Err()
}

// selectOf lists the wanted columns; one that is not there is NULL.
func selectOf(have map[string]bool, want ...string) string {
	out := make([]string, len(want))
	for i, name := range want {
		if out[i] = name; !have[name] {
			out[i] = "NULL"
		}
	}
	return strings.Join(out, ", ")
}

// value is a column of any type, as hands of many versions wrote it.
type value struct{ v any }

// Scan takes what the driver gives.
func (c *value) Scan(v any) error {
	if b, ok := v.([]byte); ok {
		v = string(b)
	}
	c.v = v
	return nil
}

func (c value) text() string {
	switch v := c.v.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return ""
}

func (c value) number() int64 {
	switch v := c.v.(type) {
	case int64:
		return v
	case float64:
		return int64(v)
	}
	return 0
}

func (c value) time() time.Time {
	switch v := c.v.(type) {
	case float64:
		return epoch(v)
	case int64:
		return epoch(float64(v))
	case time.Time:
		return v.UTC()
	case string:
		if f, err := strconv.ParseFloat(v, 64); err == nil {
			return epoch(f)
		}
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999", "2006-01-02 15:04:05.999999"} {
			if t, err := time.Parse(layout, v); err == nil {
				return t.UTC()
			}
		}
	}
	return time.Time{}
}

// eachSession calls f for every session, with the key that the store itself
// names for it, "" in most eras.
func (s *oldStore) eachSession(ctx context.Context, f func(domain.Session) error) error {
	rows, err := s.db.QueryContext(ctx, `SELECT `+selectOf(s.sessions, "id", "source", "user_id", "parent_session_id", "started_at", "ended_at", "end_reason",
		"input_tokens", "output_tokens", "cache_read_tokens", "api_call_count", "title", "session_key", "chat_id", "thread_id", "chat_type")+` FROM sessions`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells what matters
	for rows.Next() {
		var c [16]value
		to := make([]any, len(c))
		for i := range c {
			to[i] = &c[i]
		}
		if err := rows.Scan(to...); err != nil {
			return err
		}
		o := domain.Session{ID: domain.SessionID(c[0].text()), Parent: domain.SessionID(c[3].text()), CreatedAt: c[4].time(), EndedAt: c[5].time(), EndReason: c[6].text(),
			Usage: domain.Usage{InputTokens: c[7].number(), OutputTokens: c[8].number(), CachedTokens: c[9].number(), Calls: c[10].number()},
			Title: c[11].text(), Key: domain.SessionKey(c[12].text())}
		o.Source.Platform, o.Source.UserID = domain.Platform(c[1].text()), c[2].text()
		o.Source.ChatID, o.Source.ThreadID, o.Source.ChatType = c[13].text(), c[14].text(), domain.ChatType(c[15].text())
		if o.ID == "" {
			continue
		}
		if err := f(o); err != nil {
			return err
		}
	}
	return rows.Err()
}

// count counts rows; -1 where that cannot be told.
func (s *oldStore) count(ctx context.Context, what string, args ...any) (n int64) {
	if err := s.db.QueryRowContext(ctx, `SELECT count(*) FROM `+what, args...).Scan(&n); err != nil {
		return -1
	}
	return n
}

// read is a batch of messages: those after an id, oldest first.
type read struct {
	list    []ledger.MovedMessage
	last    int64 // the id of the last that was read, kept or not
	cut     int   // that were longer than maxContent
	strange int   // with a role that no transcript has
}

// messagesAfter reads the next messages; last is after when there are no more.
func (s *oldStore) messagesAfter(ctx context.Context, after int64) (r read, err error) {
	r.last = after
	cols := selectOf(s.messages, "session_id", "role", "tool_call_id", "tool_calls", "tool_name", "timestamp", "reasoning", "reasoning_content", "active", "compacted")
	content, length := "NULL", "0"
	if s.messages["content"] {
		// As bytes: structured content begins with NUL, at which a text ends.
		content, length = "substr(cast(content AS BLOB), 1, "+strconv.Itoa(maxContent)+")", "length(cast(content AS BLOB))"
	}
	rows, err := s.db.QueryContext(ctx, `SELECT rowid, `+cols+`, `+content+`, `+length+` FROM messages WHERE rowid > ? ORDER BY rowid LIMIT ?`, after, batchRows)
	if err != nil {
		return r, err
	}
	defer func() { _ = rows.Close() }() // Err tells what matters
	for size := 0; size < batchBytes && rows.Next(); {
		var id int64
		var c [12]value
		to := []any{&id}
		for i := range c {
			to = append(to, &c[i])
		}
		if err := rows.Scan(to...); err != nil {
			return r, err
		}
		r.last = id
		size += len(c[10].text()) + len(c[3].text()) + 256
		if c[11].number() > maxContent {
			r.cut++
		}
		role := domain.Role(c[1].text())
		if role != domain.RoleUser && role != domain.RoleAssistant && role != domain.RoleTool {
			r.strange++
			continue
		}
		m := ledger.MovedMessage{Session: domain.SessionID(c[0].text()), Message: domain.Message{Role: role, Content: plainContent(c[10].text()),
			ToolCallID: c[2].text(), ToolCalls: toolCalls(c[3].text()), ToolName: c[4].text(), At: c[5].time(), Reasoning: c[6].text()}}
		if m.Message.Reasoning == "" {
			m.Message.Reasoning = c[7].text()
		}
		switch {
		case c[9].number() != 0:
			m.Hidden = ledger.Summed
		case c[8].v != nil && c[8].number() == 0:
			m.Hidden = ledger.Undone
		}
		r.list = append(r.list, m)
	}
	return r, rows.Err()
}

// structured begins content that is not plain text; JSON follows.
const structured = "\x00json:"

// plainContent gives the text of a message. Of structured content the texts are
// taken, and what is not text is named.
func plainContent(s string) string {
	rest, ok := strings.CutPrefix(s, structured)
	if !ok {
		return s
	}
	var v any
	if json.Unmarshal([]byte(rest), &v) != nil {
		return rest
	}
	if text := textOf(v); text != "" {
		return text
	}
	return rest
}

// textOf joins the texts of the parts of a message.
func textOf(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		var out []string
		for _, part := range v {
			if t := textOf(part); t != "" {
				out = append(out, t)
			}
		}
		return strings.Join(out, "\n")
	case map[string]any:
		for _, key := range []string{"text", "content"} {
			if t := textOf(v[key]); t != "" {
				return t
			}
		}
		if kind, _ := v["type"].(string); kind != "" && kind != "text" {
			return "[" + strings.TrimPrefix(strings.TrimSuffix(kind, "_url"), "input_") + "]"
		}
	}
	return ""
}

// toolCalls reads the calls of an answer, which are kept as the model's API
// writes them.
func toolCalls(text string) (out []domain.ToolCall) {
	var list []struct {
		ID       string `json:"id"`
		CallID   string `json:"call_id"`
		Name     string `json:"name"`
		Args     any    `json:"arguments"`
		Function struct {
			Name string `json:"name"`
			Args any    `json:"arguments"`
		} `json:"function"`
	}
	if text == "" || json.Unmarshal([]byte(text), &list) != nil {
		return nil
	}
	for _, c := range list {
		call := domain.ToolCall{ID: c.ID, Name: c.Function.Name}
		args := c.Function.Args
		if call.ID == "" {
			call.ID = c.CallID
		}
		if call.Name == "" {
			call.Name, args = c.Name, c.Args
		}
		switch a := args.(type) {
		case string:
			call.Arguments = a
		case nil:
			call.Arguments = "{}"
		default:
			b, err := json.Marshal(a)
			if err != nil {
				b = []byte(fmt.Sprint(a))
			}
			call.Arguments = string(b)
		}
		out = append(out, call)
	}
	return out
}
