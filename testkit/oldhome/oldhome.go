// Package oldhome builds homes as the Python system left them, of several eras,
// whole and broken, for tests of the move.
package oldhome

import (
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite" // the driver
)

// Era is a time of the old system.
type Era int

// The eras.
const (
	Files  Era = iota // no state.db: a transcript is a file of JSON lines
	Early             // a state.db with few columns, journal by rollback
	Middle            // 2026: write-ahead log, full-text indexes
	Late              // more columns, the index of conversations in the database
)

// Options say what a home holds.
type Options struct {
	Era Era
	// Sessions beside the two that are described by Chat and Older, each with
	// PerSession messages.
	Sessions, PerSession int
	// OpenLog leaves what was written last in the log only, as a kill does.
	OpenLog bool
}

// What every home holds.
const (
	Token = "1234567890:AAH-old-token-of-the-tests-000000000"
	Chat  = "20260601_090000_aaaaaaaa" // the current session of ChatKey
	Older = "20260501_090000_bbbbbbbb" // which Chat continues
	// ChatKey is the conversation with Ann on Telegram.
	ChatKey = "agent:main:telegram:dm:4711"
	JobID   = "0123456789ab"
)

// Build makes a home in dir.
func Build(dir string, o Options) error {
	texts := map[string]string{
		".env":                                 "TELEGRAM_BOT_TOKEN=" + Token + "\nTELEGRAM_HOME_CHANNEL=4711\n",
		"config.yaml":                          "# by hand\nmodel:\n  default: some-model\n  provider: custom\n  base_url: http://127.0.0.1:1/v1\ntimezone: Europe/Berlin\n",
		"auth.json":                            `{"version":1,"providers":{},"credential_pool":{}}`,
		"SOUL.md":                              "You are kind.\n",
		"memories/MEMORY.md":                   "likes tea\n§\nlives in Bern\n",
		"memories/USER.md":                     "Ann\n",
		"skills/brew/SKILL.md":                 "---\nname: brew\ndescription: makes tea\n---\nBoil water.\n",
		"scripts/watch.sh":                     "#!/bin/sh\necho fine\n",
		"plugins/x/plugin.yaml":                "name: x\n",
		"pairing/telegram-approved.json":       `{"4711":{"user_name":"ann","approved_at":1780000000.5}}`,
		"pairing/telegram-pending.json":        `{"x":{"hash":"00","salt":"00","user_id":"1","user_name":"eve","created_at":1780000000}}`,
		"platforms/pairing/slack-pending.json": `{}`,
		"cron/jobs.json": `{"jobs":[{"id":"` + JobID + `","name":"tea","prompt":"Say tea.","schedule":{"kind":"cron","expr":"0 9 * * *","display":"0 9 * * *"},` +
			`"enabled":true,"state":"scheduled","deliver":"telegram:4711","created_at":"2026-05-01T09:00:00+02:00"},` +
			`{"id":"not an id","name":"odd","prompt":"Odd.","schedule":{"kind":"interval","minutes":30},"enabled":true}],"updated_at":"2026-06-01T09:00:00"}`,
		"sessions/sessions.json": `{"` + ChatKey + `":{"session_key":"` + ChatKey + `","session_id":"` + Chat + `","created_at":"2026-06-01T09:00:00","updated_at":"2026-06-01T09:05:00",` +
			`"origin":{"platform":"telegram","chat_id":"4711","chat_name":"Ann","chat_type":"dm","user_id":"4711","user_name":"ann","thread_id":null},"display_name":"Ann"}}`,
		"channel_directory.json": `{"updated_at":"2026-06-01T09:00:00","platforms":{"telegram":[{"id":"4711","name":"Ann","type":"dm"}]}}`,
	}
	if o.Era == Files {
		texts["sessions/"+Chat+".jsonl"] = `{"role":"session_meta","tools":[]}` + "\n" +
			`{"role":"user","content":"hello tea","timestamp":"2026-06-01T09:00:00"}` + "\n" +
			`{"role":"assistant","content":"hello Ann","timestamp":"2026-06-01T09:00:05"}` + "\n" + `{"role":"user","cont`
	}
	for rel, text := range texts {
		path := filepath.Join(dir, filepath.FromSlash(rel))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	if o.Era == Files {
		return nil
	}
	return buildState(filepath.Join(dir, "state.db"), o)
}

const (
	earlySchema = `CREATE TABLE schema_version (version INTEGER);
CREATE TABLE sessions (id TEXT PRIMARY KEY, source TEXT, user_id TEXT, model TEXT, parent_session_id TEXT, started_at REAL, ended_at REAL, end_reason TEXT, title TEXT);
CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT, role TEXT, content TEXT, tool_call_id TEXT, tool_calls TEXT, tool_name TEXT, timestamp REAL);`
	middleColumns = `ALTER TABLE sessions ADD COLUMN input_tokens INTEGER; ALTER TABLE sessions ADD COLUMN output_tokens INTEGER;
ALTER TABLE messages ADD COLUMN reasoning TEXT; ALTER TABLE messages ADD COLUMN active INTEGER NOT NULL DEFAULT 1;
CREATE INDEX idx_messages_session ON messages (session_id, timestamp);
CREATE VIRTUAL TABLE messages_fts USING fts5(content);`
	lateColumns = `ALTER TABLE sessions ADD COLUMN something_new TEXT; ALTER TABLE messages ADD COLUMN compacted INTEGER NOT NULL DEFAULT 0;
CREATE TABLE gateway_routing (scope TEXT, session_key TEXT, entry_json TEXT, updated_at REAL, PRIMARY KEY (scope, session_key));`
)

func buildState(path string, o Options) (err error) {
	mode := "delete"
	if o.Era >= Middle {
		mode = "wal"
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": {"journal_mode(" + mode + ")", "synchronous(OFF)", "wal_autocheckpoint(0)"}}.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	schema := earlySchema
	if o.Era >= Middle {
		schema += middleColumns
	}
	if o.Era >= Late {
		schema += lateColumns
	}
	if _, err := db.Exec(schema); err != nil {
		return err
	}
	if err := fill(db, o); err != nil {
		return err
	}
	if !o.OpenLog {
		return nil
	}
	// What a kill leaves: the files as they are now, not as closing makes them.
	for _, suffix := range []string{"", "-wal"} {
		text, err := os.ReadFile(path + suffix)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path+suffix+".kept", text, 0o600); err != nil {
			return err
		}
	}
	if err := db.Close(); err != nil {
		return err
	}
	for _, suffix := range []string{"", "-wal"} {
		if err := os.Rename(path+suffix+".kept", path+suffix); err != nil {
			return err
		}
	}
	return nil
}

func fill(db *sql.DB, o Options) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing left to undo
	session := func(id, source, parent string, at float64) error {
		_, err := tx.Exec(`INSERT INTO sessions (id, source, user_id, model, parent_session_id, started_at, title) VALUES (?, ?, '4711', 'm', nullif(?, ''), ?, ?)`, id, source, parent, at, "about "+id)
		return err
	}
	message := func(id, role, content, calls string, at float64) error {
		_, err := tx.Exec(`INSERT INTO messages (session_id, role, content, tool_calls, timestamp) VALUES (?, ?, ?, nullif(?, ''), ?)`, id, role, content, calls, at)
		return err
	}
	errs := []error{
		session(Older, "telegram", "", 1777620000), session(Chat, "telegram", Older, 1780290000.25),
		message(Older, "user", "what is tea", "", 1777620001), message(Older, "assistant", "a drink", "", 1777620002),
		message(Chat, "session_meta", "{}", "", 1780290000),
		message(Chat, "user", "\x00json:[{\"type\":\"text\",\"text\":\"see this\"},{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:\"}}]", "", 1780290001),
		message(Chat, "assistant", "", `[{"id":"c1","type":"function","function":{"name":"terminal","arguments":"{\"command\":\"ls\"}"}}]`, 1780290002),
		message(Chat, "tool", "a.txt", "", 1780290003), message(Chat, "assistant", "one file, and tea", "", 1780290004),
		message("deleted-session", "user", "an orphan", "", 1780290005),
	}
	if o.Era >= Middle {
		_, err := tx.Exec(`INSERT INTO messages (session_id, role, content, timestamp, active) VALUES (?, 'user', 'taken back', 1780290006, 0)`, Chat)
		errs = append(errs, err)
	}
	if o.Era >= Late {
		_, err := tx.Exec(`INSERT INTO gateway_routing VALUES ('s', ?, ?, 1780290000)`, ChatKey, `{"session_key":"`+ChatKey+`","session_id":"`+Chat+`","origin":{"platform":"telegram","chat_id":4711,"chat_name":"Ann","chat_type":"dm","user_id":4711,"user_name":"ann"}}`)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	text := strings.Repeat("many words about tea and other things ", 8)
	for i := range o.Sessions {
		id := fmt.Sprintf("20260401_000000_%08x", i)
		if err := session(id, "cli", "", float64(1775000000+i)); err != nil {
			return err
		}
		for k := range o.PerSession {
			if err := message(id, [...]string{"user", "assistant"}[k%2], fmt.Sprintf("%d of %s: %s", k, id, text), "", float64(1775000000+k)); err != nil {
				return err
			}
		}
	}
	return tx.Commit()
}

// DoubleIndex gives the store of a home the corruption that is known best: a
// definition that is there twice, so that no statement runs, while the data is whole.
func DoubleIndex(dir string) error {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "state.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, q := range []string{`PRAGMA writable_schema = ON`,
		`INSERT INTO sqlite_master (type, name, tbl_name, rootpage, sql) SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master WHERE name = 'messages_fts'`} {
		if _, err := db.Exec(q); err != nil {
			return err
		}
	}
	return nil
}

// Fingerprint gives the content, mode and time of every file under dir, but for
// those whose path begins with one of except.
func Fingerprint(dir string, except ...string) (map[string]string, error) {
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		for _, e := range except {
			if strings.HasPrefix(rel, e) {
				return nil
			}
		}
		st, err := d.Info()
		if err != nil || !st.Mode().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		out[rel] = fmt.Sprintf("%x %v %v", sha256.Sum256(text), st.Mode(), st.ModTime())
		return nil
	})
	return out, err
}
