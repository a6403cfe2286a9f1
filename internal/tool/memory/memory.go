// Package memory keeps what the agent wants to remember from one session to the
// next: MEMORY.md (its own notes) and USER.md (what it knows of the user), in
// the profile's memories/ folder. Entries are separated by a line "§". Both are
// small on purpose: they are part of every prompt.
package memory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gofrs/flock"

	"hermes/internal/approval"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
	"hermes/internal/tool"
)

const (
	separator = "\n§\n"
	maxFile   = 1 << 20 // bytes that are read of a file that somebody else wrote
	lockTime  = 5 * time.Second
	lockRetry = 20 * time.Millisecond
)

// Options is what a Memory needs.
type Options struct {
	Home string // the profile's home
	// Config is asked at every use, since it may be reloaded. Zero limits mean
	// 2200 and 1375 characters.
	Config func() home.MemoryConfig
}

// Memory is the two files. It is safe for concurrent use, by several processes
// too.
type Memory struct{ o Options }

// New makes a Memory and its tool.
func New(o Options) (*Memory, tool.Tool) {
	m := &Memory{o}
	return m, m.tool()
}

// store is one of the two files.
type store struct {
	file  string
	title string
	limit int // characters of the whole file
}

func (m *Memory) store(target string) (store, error) {
	cfg := home.MemoryConfig{Enabled: true, UserProfile: true}
	if m.o.Config != nil {
		cfg = m.o.Config()
	}
	limit := func(n, or int) int {
		if n > 0 {
			return n
		}
		return or
	}
	switch {
	case target == "user" && cfg.UserProfile:
		return store{"USER.md", "What is known of the user", limit(cfg.UserLimit, 1375)}, nil
	case (target == "memory" || target == "") && cfg.Enabled:
		return store{"MEMORY.md", "Own notes", limit(cfg.MemoryLimit, 2200)}, nil
	case target != "user" && target != "memory" && target != "":
		return store{}, domain.E(domain.Invalid, nil, "the target %q is unknown; it must be memory or user", target)
	}
	return store{}, domain.E(domain.Forbidden, nil, "this memory is switched off in config.yaml (memory.memory_enabled, memory.user_profile_enabled)")
}

func (m *Memory) path(s store) string { return filepath.Join(m.o.Home, "memories", s.file) }

// read gives the entries of a file; one that does not exist has none.
func (m *Memory) read(s store) ([]string, error) {
	path := m.path(s)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && (info.Size() > maxFile || !info.Mode().IsRegular()) {
		return nil, domain.E(domain.TooLarge, nil, "%s is larger than %d KiB or no file, so it was not read; make it smaller", path, maxFile>>10)
	}
	var b []byte
	if err == nil {
		b, err = plain.Read(path)
	}
	if err != nil {
		return nil, domain.E(domain.Unavailable, err, "%s cannot be read; check its owner and mode", path)
	}
	return split(string(b)), nil
}

// split takes a file apart at lines that hold nothing but the sign.
func split(text string) []string {
	var out []string
	var entry []string
	flush := func() {
		if e := strings.TrimSpace(strings.Join(entry, "\n")); e != "" {
			out = append(out, e)
		}
		entry = nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(line, "\r")
		if strings.TrimSpace(line) == "§" {
			flush()
			continue
		}
		entry = append(entry, line)
	}
	flush()
	return out
}

func size(entries []string) int { return utf8.RuneCountInString(strings.Join(entries, separator)) }

// change reads, changes and writes a file while no other process does.
func (m *Memory) change(ctx context.Context, s store, f func([]string) ([]string, error)) ([]string, error) {
	dir := filepath.Dir(m.path(s))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, domain.E(domain.Unavailable, err, "the folder %s cannot be made", dir)
	}
	lock := flock.New(filepath.Join(dir, ".lock"), flock.SetFlag(plain.LockFlag))
	waiting, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	if ok, err := lock.TryLockContext(waiting, lockRetry); err != nil || !ok {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, domain.E(domain.Unavailable, err, "another process is writing the memory; nothing was changed, try again")
	}
	defer lock.Close()
	entries, err := m.read(s)
	if err != nil {
		return nil, err
	}
	if entries, err = f(entries); err != nil {
		return nil, err
	}
	text := strings.Join(entries, separator)
	if text != "" {
		text += "\n"
	}
	return entries, home.WriteAtomic(m.path(s), []byte(text), 0o600)
}

// Snapshot is both files for the system prompt, "" when there is nothing to
// tell. It is taken once a session. Entries that would take over the model, and
// what is over the limit, are left out and named.
func (m *Memory) Snapshot() string {
	var b strings.Builder
	for _, target := range []string{"memory", "user"} {
		s, err := m.store(target)
		if err != nil {
			continue
		}
		entries, err := m.read(s)
		if err != nil || len(entries) == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("\n\n")
		}
		fmt.Fprintf(&b, "%s (%s, %d of %d characters):\n", s.title, s.file, size(entries), s.limit)
		left := s.limit
		for i, e := range entries {
			n := utf8.RuneCountInString(e)
			switch found := approval.ScanPrompt(e); {
			case len(found) > 0:
				e = fmt.Sprintf("[an entry was left out: %s]", found[0].Reason)
			case n > left:
				e = fmt.Sprintf("[%d entries were left out: the file is over its limit]", len(entries)-i)
			}
			fmt.Fprintf(&b, "- %s\n", strings.ReplaceAll(e, "\n", "\n  "))
			if left -= n; left < 0 {
				break
			}
		}
	}
	return strings.TrimRight(b.String(), "\n")
}

type args struct {
	Action  string `json:"action"`
	Target  string `json:"target"`
	Content string `json:"content"`
	OldText string `json:"old_text"`
}

func (m *Memory) tool() tool.Tool {
	return tool.Tool{
		Name: "memory", Toolset: "memory",
		Description: "Remember something for later sessions: facts, preferences, conventions and lessons that will still hold then; no logs, no passing tasks, no secrets. Target memory is for your own notes, user for what you know of the user. You see both at the start of a session. They are small: replace or remove what is out of date.",
		Schema: json.RawMessage(`{"type":"object","properties":{
			"action":{"type":"string","enum":["add","replace","remove","read"]},
			"target":{"type":"string","enum":["memory","user"],"description":"memory when left out."},
			"content":{"type":"string","description":"add, replace: the entry."},
			"old_text":{"type":"string","description":"replace, remove: a part of the one entry that is meant."}},
			"required":["action"]}`),
		Label: func(raw json.RawMessage) string {
			var a args
			if tool.Decode(raw, &a) != nil {
				return "memory"
			}
			return "memory " + a.Action
		},
		Run: m.run,
	}
}

func (m *Memory) run(ctx context.Context, _ tool.Env, raw json.RawMessage) (tool.Result, error) {
	var a args
	if err := tool.Decode(raw, &a, "action"); err != nil {
		return tool.Result{}, err
	}
	s, err := m.store(a.Target)
	if err != nil {
		return tool.Result{}, err
	}
	a.Content, a.OldText = strings.TrimSpace(a.Content), strings.TrimSpace(a.OldText)
	var entries []string
	switch a.Action {
	case "read":
		entries, err = m.read(s)
	case "add", "replace":
		if err = acceptable(a.Content); err == nil {
			entries, err = m.change(ctx, s, func(have []string) ([]string, error) { return put(s, have, a) })
		}
	case "remove":
		entries, err = m.change(ctx, s, func(have []string) ([]string, error) {
			i, err := which(s, have, a.OldText)
			if err != nil {
				return nil, err
			}
			return slices.Delete(have, i, i+1), nil
		})
	default:
		err = domain.E(domain.Invalid, nil, "the action %q is unknown; it must be add, replace, remove or read", a.Action)
	}
	if err != nil {
		return tool.Result{}, err
	}
	return tool.Result{Content: fmt.Sprintf("%s has %d entries, %d of %d characters:\n%s", s.file, len(entries), size(entries), s.limit, numbered(entries))}, nil
}

// acceptable refuses what has no place in a prompt.
func acceptable(content string) error {
	if content == "" {
		return domain.E(domain.Invalid, nil, "the parameter \"content\" is missing; say what to remember")
	}
	if found := approval.ScanPrompt(content); len(found) > 0 {
		return domain.E(domain.Forbidden, nil, "this was not remembered: %s. An entry is part of every later prompt, so such text is kept out", found[0].Reason)
	}
	if slices.ContainsFunc(strings.Split(content, "\n"), func(l string) bool { return strings.TrimSpace(l) == "§" }) {
		return domain.E(domain.Invalid, nil, "an entry may not hold a line §, which separates entries; add them one by one")
	}
	return nil
}

// put adds an entry, or puts it in the place of another.
func put(s store, have []string, a args) ([]string, error) {
	out := slices.Clone(have)
	if a.Action == "replace" {
		i, err := which(s, have, a.OldText)
		if err != nil {
			return nil, err
		}
		out[i] = a.Content
	} else {
		if slices.Contains(have, a.Content) {
			return have, nil
		}
		out = append(out, a.Content)
	}
	if n := size(out); n > s.limit && n > size(have) {
		return nil, domain.E(domain.TooLarge, nil, "%s has %d of %d characters, so %d are left and this needs %d; nothing was changed. Replace or remove entries first:\n%s",
			s.file, size(have), s.limit, max(0, s.limit-size(have)), n-size(have), numbered(have))
	}
	return out, nil
}

// which finds the one entry that holds the text. domain.Invalid, domain.NotFound,
// domain.Conflict when several do.
func which(s store, have []string, text string) (int, error) {
	if text == "" {
		return 0, domain.E(domain.Invalid, nil, "the parameter \"old_text\" is missing; give a part of the entry that is meant")
	}
	if i := slices.Index(have, text); i >= 0 {
		return i, nil
	}
	at := -1
	for i, e := range have {
		if !strings.Contains(e, text) {
			continue
		}
		if at >= 0 {
			return 0, domain.E(domain.Conflict, nil, "several entries of %s hold that text; give more of the one that is meant:\n%s", s.file, numbered(have))
		}
		at = i
	}
	if at < 0 {
		return 0, domain.E(domain.NotFound, nil, "no entry of %s holds that text; the entries are:\n%s", s.file, numbered(have))
	}
	return at, nil
}

func numbered(entries []string) string {
	var b strings.Builder
	for i, e := range entries {
		fmt.Fprintf(&b, "%d. %s\n", i+1, e)
	}
	return strings.TrimRight(b.String(), "\n")
}
