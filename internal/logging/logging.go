// Package logging writes the log: one line an event, to gateway.log,
// gateway.error.log (warnings and errors) and agent.log in a profile's logs
// folder, and to stderr. Every line passes the Redactor. It also reads those
// files back, for `hermes logs`.
package logging

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/secret"
)

// The attributes that have a place of their own in a line.
const (
	ComponentKey = "component" // who speaks: "gateway", "cron", "telegram"
	SessionKey   = "session"   // id of the session that it is about
)

// maxLine bounds a line, in bytes.
const maxLine = 64 << 10

// stampLen is the length of a line's time: 2026-11-22 06:00:00,123.
const stampLen = len("2026-11-22 06:00:00,123")

// Options say where and how much to log.
type Options struct {
	Dir      string // logs folder; "" writes no files
	Level    slog.Leveler
	MaxMB    int              // size at which a file is rotated; 0 never
	Backups  int              // rotated files kept
	Redactor *secret.Redactor // nil knows the patterns only
	Stderr   io.Writer        // nil writes none
	Journal  bool             // stderr is the journal's: put <priority> in front; see UnderJournal
}

// Logs is an open log. It is safe for concurrent use.
type Logs struct {
	opts    Options
	gateway *file
	errors  *file
	agent   *file
	stderr  *console
}

// New opens a log. Files are opened when first written to; one that cannot be
// written loses its lines and never an event of the program.
func New(o Options) *Logs {
	if o.Level == nil {
		o.Level = slog.LevelInfo
	}
	l := &Logs{opts: o}
	if o.Dir != "" {
		open := func(name string) *file {
			return &file{path: filepath.Join(o.Dir, name), max: int64(o.MaxMB) << 20, backups: o.Backups}
		}
		l.gateway, l.errors, l.agent = open("gateway.log"), open("gateway.error.log"), open("agent.log")
	}
	if o.Stderr != nil {
		l.stderr = newConsole(o.Stderr)
	}
	return l
}

// Logger gives the logger; parts of the program speak through
// Logger().With(ComponentKey, name).
func (l *Logs) Logger() *slog.Logger { return slog.New(&handler{logs: l}) }

// Close writes out what waits and closes the files. A logger used afterwards
// opens them again.
func (l *Logs) Close() {
	for _, f := range []*file{l.gateway, l.errors, l.agent} {
		if f != nil {
			f.close()
		}
	}
	if l.stderr != nil {
		l.stderr.close()
	}
}

// ParseLevel reads debug, info, warning (warn) or error (critical), in upper
// or lower case. Errors: Invalid.
func ParseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "debug":
		return slog.LevelDebug, nil
	case "", "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error", "critical", "fatal":
		return slog.LevelError, nil
	}
	return 0, domain.E(domain.Invalid, nil, "%q is no log level; use debug, info, warning or error", s)
}

// levelName gives the names that the log's readers know.
func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "DEBUG"
	case l < slog.LevelWarn:
		return "INFO"
	case l < slog.LevelError:
		return "WARNING"
	}
	return "ERROR"
}

// UnderJournal tells whether stderr goes to systemd's journal, which then
// takes <N> in front of a line as its priority; see sd-daemon(3). A program
// that is merely a descendant of a unit, in a terminal say, has the variables
// too, so they are compared with what stderr is, as systemd.exec(5) advises.
func UnderJournal(lookup func(string) (string, bool)) bool {
	return isJournal(os.Stderr, lookup)
}

func isJournal(f *os.File, lookup func(string) (string, bool)) bool {
	stream, _ := lookup("JOURNAL_STREAM")
	return stream != "" && stream == fileID(f)
}

// priority gives syslog's number of a level.
func priority(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "<7>"
	case l < slog.LevelWarn:
		return "<6>"
	case l < slog.LevelError:
		return "<4>"
	}
	return "<3>"
}

// handler formats records. component and session are taken out of the
// attributes wherever they were added.
type handler struct {
	logs      *Logs
	component string
	session   string
	prefix    string // open groups, with dots
	attrs     string // formatted, each with a space in front
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= h.logs.opts.Level.Level()
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	var b strings.Builder
	for _, a := range attrs {
		c.attr(&b, h.prefix, a)
	}
	c.attrs += b.String()
	return &c
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	c := *h
	if name != "" {
		c.prefix += name + "."
	}
	return &c
}

// Handle implements slog.Handler. It never fails: a log that cannot be written
// must not become an error of what is logged.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	c := *h
	var tail strings.Builder
	tail.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		c.attr(&tail, h.prefix, a)
		return tail.Len() < maxLine
	})
	if c.component == "" {
		c.component = "gateway"
	}
	at := r.Time
	if at.IsZero() {
		at = time.Now()
	}
	var b strings.Builder
	b.Grow(stampLen + len(r.Message) + tail.Len() + 64)
	b.WriteString(strings.Replace(at.Format("2006-01-02 15:04:05.000"), ".", ",", 1))
	b.WriteString(" " + levelName(r.Level))
	if c.session != "" {
		b.WriteString(" [" + oneLine(c.session) + "]")
	}
	b.WriteString(" " + oneLine(c.component) + ": " + oneLine(r.Message) + tail.String())
	text := h.logs.opts.Redactor.Redact(b.String())
	if len(text) > maxLine {
		text = strings.ToValidUTF8(text[:maxLine], "") + "…"
	}
	h.logs.write(r.Level, c.component, text+"\n")
	return nil
}

func (l *Logs) write(level slog.Level, component, line string) {
	if l.gateway != nil {
		l.gateway.write([]byte(line))
		if level >= slog.LevelWarn {
			l.errors.write([]byte(line))
		}
		if slices.Contains(componentGroups()["agent"], head(component)) {
			l.agent.write([]byte(line))
		}
	}
	if l.stderr != nil {
		if l.opts.Journal {
			// The journal stamps time and level itself.
			line = priority(level) + line[min(len(line), stampLen+len(levelName(level))+2):]
		}
		l.stderr.write(line)
	}
}

// attr appends one attribute, or keeps it when it has a place of its own.
func (h *handler) attr(b *strings.Builder, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, sub := range v.Group() {
			h.attr(b, prefix, sub)
		}
		return
	}
	switch {
	case a.Key == "":
	case prefix == "" && a.Key == ComponentKey:
		h.component = v.String()
	case prefix == "" && a.Key == SessionKey:
		h.session = v.String()
	default:
		b.WriteString(" " + oneLine(prefix+a.Key) + "=" + valueText(v))
	}
}

// valueText gives a value, quoted where it would not be one word.
func valueText(v slog.Value) string {
	switch v.Kind() {
	case slog.KindTime:
		return v.Time().Format(time.RFC3339Nano)
	case slog.KindDuration:
		return v.Duration().String()
	}
	s := v.String()
	if len(s) > maxLine {
		s = s[:maxLine]
	}
	if s == "" || strings.ContainsAny(s, " =\"\\") || oneLine(s) != s {
		return strconv.Quote(s)
	}
	return s
}

// oneLine escapes what would break a line or drive a terminal.
func oneLine(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 }) {
		return s
	}
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
