package home

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"hermes/internal/domain"
)

// EnvFile is a parsed .env. Every byte of the file belongs to one of its
// segments, so that an edit gives back untouched lines exactly, the
// unreadable ones too.
//
// The grammar is that of systemd's EnvironmentFile=, see
// https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#EnvironmentFile=,
// so that both readers give the same values: "$" is literal; single quotes
// take everything as it is; in double quotes a backslash escapes only
// " \ $ ` and the end of the line; without quotes it escapes any character and
// joins lines; "#" and ";" begin a comment line. It differs in four things,
// each harmless because the file on disk wins over what systemd read from it:
// "export " in front of a name, a byte order mark and " # comment" behind a
// value are understood (systemd drops the first line and keeps the comment in
// the value), and a quote that is never closed spoils one line, not the rest
// of the file.
type EnvFile struct {
	segments []envSegment
	newline  string
}

// envSegment is one logical line. Key is "" for comments, blank and bad lines.
type envSegment struct {
	raw        []byte
	key, value string
	line       int
}

// ParseEnv parses a .env. Lines that cannot be read are skipped, kept, and
// reported by number; file only names the file in the problems.
func ParseEnv(file string, data []byte) (*EnvFile, Problems) {
	f := &EnvFile{newline: "\n"}
	if i := bytes.IndexByte(data, '\n'); i > 0 && data[i-1] == '\r' {
		f.newline = "\r\n"
	}
	var problems Problems
	seen := map[string]int{}
	line, pos := 1, 0
	for pos < len(data) {
		seg, end, problem := parseEnvLine(data, pos)
		seg.raw, seg.line = data[pos:end], line
		if problem != nil {
			problem.File, problem.Line = file, line
			problems = append(problems, *problem)
		}
		if first, again := seen[seg.key]; again && seg.key != "" {
			problems = append(problems, Problem{Severity: Notice, File: file, Line: line, Key: seg.key,
				Message: fmt.Sprintf("stands here again after line %d; the last one counts", first), Fix: "delete one of the two"})
		} else if seg.key != "" {
			seen[seg.key] = line
		}
		f.segments = append(f.segments, seg)
		line += bytes.Count(seg.raw, []byte("\n"))
		pos = end
	}
	return f, problems
}

var utf8BOM = []byte("\xef\xbb\xbf")

// parseEnvLine parses the logical line at pos and gives the offset behind it.
func parseEnvLine(data []byte, pos int) (seg envSegment, end int, problem *Problem) {
	eol := lineEnd(data, pos)
	start := pos
	if pos == 0 && bytes.HasPrefix(data, utf8BOM) {
		start = len(utf8BOM)
	}
	text := bytes.TrimSpace(data[start:eol])
	if len(text) == 0 || text[0] == '#' || text[0] == ';' {
		return seg, eol, nil
	}
	eq := bytes.IndexByte(data[start:eol], '=')
	if eq < 0 {
		return seg, eol, &Problem{Severity: Warning, Message: "the line is not NAME=value, so it is skipped", Fix: "write NAME=value, or put # in front"}
	}
	key := strings.TrimSpace(string(data[start : start+eq]))
	if rest, ok := strings.CutPrefix(key, "export"); ok && rest != "" && (rest[0] == ' ' || rest[0] == '\t') {
		key = strings.TrimSpace(rest)
	}
	if !validEnvName(key) {
		return seg, eol, &Problem{Severity: Warning, Message: "the name before = is not one of letters, digits and _, so the line is skipped", Fix: "correct the name, or put # in front"}
	}
	v := envValue{data: data, pos: start + eq + 1}
	if !v.read() {
		return seg, eol, &Problem{Severity: Warning, Key: key, Message: "the quote that opens here is never closed, so the line is skipped", Fix: "close the quote"}
	}
	if bytes.IndexByte(v.out, 0) >= 0 {
		return seg, v.pos, &Problem{Severity: Warning, Key: key, Message: "the value holds a NUL byte, so the line is skipped", Fix: "remove it"}
	}
	seg.key, seg.value = key, string(v.out)
	switch {
	case v.comment:
		problem = &Problem{Severity: Notice, Key: key, Message: "a comment stands behind the value; systemd's EnvironmentFile= would take it as part of the value", Fix: "move the comment to a line of its own"}
	case swallowsLine(seg.value):
		problem = &Problem{Severity: Warning, Key: key, Message: "the quoted value runs over lines that look like settings of their own", Fix: "check that no quote is missing"}
	}
	return seg, v.pos, problem
}

// lineEnd gives the offset behind the line break that ends the line at pos.
func lineEnd(data []byte, pos int) int {
	i := bytes.IndexAny(data[pos:], "\r\n")
	if i < 0 {
		return len(data)
	}
	return behindBreak(data, pos+i)
}

// behindBreak gives the offset behind the line break at i, which may be CR LF.
func behindBreak(data []byte, i int) int {
	if data[i] == '\r' && i+1 < len(data) && data[i+1] == '\n' {
		return i + 2
	}
	return i + 1
}

func swallowsLine(value string) bool {
	for _, l := range strings.Split(value, "\n")[1:] {
		if key, _, ok := strings.Cut(l, "="); ok && validEnvName(strings.TrimSpace(key)) && strings.ToUpper(key) == key {
			return true
		}
	}
	return false
}

func validEnvName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// envValue reads the value that begins at pos.
type envValue struct {
	data    []byte
	pos     int
	out     []byte
	keep    int  // bytes of out that are not trailing blanks
	comment bool // a comment stood behind the value
}

// read consumes the value and its line break. It gives false for a quote that
// is never closed.
func (v *envValue) read() bool {
	plain := false // an unquoted character has been seen; quotes are literal from here on
	for v.pos < len(v.data) {
		c := v.data[v.pos]
		switch {
		case c == '\n' || c == '\r':
			v.pos = behindBreak(v.data, v.pos)
			v.out = v.out[:v.keep]
			return true
		case c == '#' && v.afterBlank():
			v.comment = true
			v.pos = lineEnd(v.data, v.pos)
			v.out = v.out[:v.keep]
			return true
		case (c == '\'' || c == '"') && !plain:
			if !v.quoted(c) {
				return false
			}
		case c == '\\':
			plain = true
			v.pos++
			if v.pos < len(v.data) {
				if e := v.data[v.pos]; e == '\n' || e == '\r' {
					v.pos = behindBreak(v.data, v.pos)
				} else {
					v.add(e)
					v.pos++
				}
			}
		case c == ' ' || c == '\t':
			if plain {
				v.out = append(v.out, c)
			}
			v.pos++
		default:
			plain = true
			v.add(c)
			v.pos++
		}
	}
	v.out = v.out[:v.keep]
	return true
}

func (v *envValue) add(c byte) {
	v.out = append(v.out, c)
	v.keep = len(v.out)
}

func (v *envValue) afterBlank() bool {
	before := v.data[v.pos-1]
	return before == ' ' || before == '\t'
}

// quoted reads from an opening quote past the closing one.
func (v *envValue) quoted(quote byte) bool {
	for v.pos++; v.pos < len(v.data); v.pos++ {
		c := v.data[v.pos]
		switch {
		case c == quote:
			v.pos++
			v.keep = len(v.out)
			return true
		case c == '\\' && quote == '"' && v.pos+1 < len(v.data):
			switch e := v.data[v.pos+1]; e {
			case '"', '\\', '$', '`':
				v.out = append(v.out, e)
				v.pos++
			case '\n':
				v.pos++
			default:
				v.out = append(v.out, c)
			}
		default:
			v.out = append(v.out, c)
		}
	}
	return false
}

// Lookup gives the value of a name and its line. Of several the last counts.
func (f *EnvFile) Lookup(name string) (value string, line int, ok bool) {
	for i := len(f.segments) - 1; i >= 0; i-- {
		if s := f.segments[i]; s.key == name {
			return s.value, s.line, true
		}
	}
	return "", 0, false
}

// Set changes the last line of that name in place, or adds one at the end.
// Errors: Invalid, for a name or a value that no .env can hold; Conflict, when
// an open quote or a line that is to be joined stands in the way.
func (f *EnvFile) Set(name, value string) error {
	before := slices.Clone(f.segments)
	if err := f.put(name, value); err != nil {
		return err
	}
	// A quote that was never closed could be closed by the new value.
	again, _ := ParseEnv("", f.Bytes())
	want, got := f.values(), again.values()
	if maps.Equal(want, got) {
		return nil
	}
	f.segments = before
	return domain.E(domain.Conflict, nil, "%s was not set, because a line of .env has an open quote or a backslash at its end that would change the meaning of others; correct that line first", name)
}

// values gives what the file says.
func (f *EnvFile) values() map[string]string {
	out := map[string]string{}
	for _, s := range f.segments {
		if s.key != "" {
			out[s.key] = s.value
		}
	}
	return out
}

func (f *EnvFile) put(name, value string) error {
	if !validEnvName(name) {
		return domain.E(domain.Invalid, nil, "%q cannot be the name of a variable; use letters, digits and _", name)
	}
	if strings.ContainsAny(value, "\x00\r") {
		return domain.E(domain.Invalid, nil, "the value of %s holds a control character that .env cannot keep; remove it", name)
	}
	seg := envSegment{raw: []byte(name + "=" + quoteEnv(value) + f.newline), key: name, value: value}
	for i := len(f.segments) - 1; i >= 0; i-- {
		if f.segments[i].key == name {
			f.segments[i] = seg
			return nil
		}
	}
	if n := len(f.segments); n > 0 && !bytes.HasSuffix(f.segments[n-1].raw, []byte("\n")) {
		f.segments[n-1].raw = append(bytes.Clone(f.segments[n-1].raw), f.newline...)
	}
	f.segments = append(f.segments, seg)
	return nil
}

// Unset removes every line of that name and tells whether there was one.
func (f *EnvFile) Unset(name string) bool {
	var kept []envSegment
	for _, s := range f.segments {
		if s.key != name {
			kept = append(kept, s)
		}
	}
	found := len(kept) != len(f.segments)
	f.segments = kept
	return found
}

// Bytes gives the file's content.
func (f *EnvFile) Bytes() []byte {
	var b bytes.Buffer
	for _, s := range f.segments {
		b.Write(s.raw)
	}
	return b.Bytes()
}

// quoteEnv writes a value so that this parser, systemd and a shell read it alike.
func quoteEnv(value string) string {
	plain := true
	for _, c := range []byte(value) {
		if c >= 0x80 || !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:@%+,=^-", rune(c)) {
			plain = false
			break
		}
	}
	switch {
	case plain:
		return value
	case !strings.Contains(value, "'"):
		return "'" + value + "'"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(value) + `"`
}
