package home

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// errSplice says that a file is written in a way that cannot be edited without
// rewriting it.
var errSplice = errors.New("the file is written in a way that cannot be changed here without touching the rest")

// spliceSet puts a value, already written as YAML in one line, at a path of a
// YAML text. Only the bytes of that value change, or lines are added. The
// result is parsed again and must hold exactly the old values and the new one.
func spliceSet(data []byte, path []string, value string) ([]byte, error) {
	return splice(data, func(s *splicer, root *node) ([]byte, error) { return s.set(root, path, value) },
		func(want map[string]any) error {
			v, err := parseYAML("", []byte("v: "+value+"\n"))
			if err != nil {
				return err
			}
			return setPlain(want, path, v.get("v").plain())
		})
}

// spliceUnset takes a key out of a YAML text, and mappings that it leaves
// empty. It gives the text unchanged when the key is not there.
func spliceUnset(data []byte, path []string) ([]byte, error) {
	return splice(data, func(s *splicer, root *node) ([]byte, error) { return s.unset(root, path) },
		func(want map[string]any) error { unsetPlain(want, path); return nil })
}

func splice(data []byte, edit func(*splicer, *node) ([]byte, error), expect func(map[string]any) error) ([]byte, error) {
	bom := bytes.HasPrefix(data, utf8BOM)
	text := bytes.TrimPrefix(data, utf8BOM)
	root, err := parseYAML("", text)
	if err != nil {
		return nil, err
	}
	out, err := edit(newSplicer(text), root)
	if err != nil {
		return nil, err
	}
	want, _ := root.plain().(map[string]any)
	if want == nil {
		want = map[string]any{}
	}
	if err := expect(want); err != nil {
		return nil, err
	}
	again, err := parseYAML("", out)
	if err != nil {
		return nil, errSplice
	}
	got, _ := again.plain().(map[string]any)
	if got == nil {
		got = map[string]any{}
	}
	if !reflect.DeepEqual(got, want) {
		return nil, errSplice
	}
	if bom {
		out = append(bytes.Clone(utf8BOM), out...)
	}
	return out, nil
}

func setPlain(m map[string]any, path []string, v any) error {
	for i, key := range path[:len(path)-1] {
		next, ok := m[key].(map[string]any)
		if !ok && m[key] != nil {
			return fmt.Errorf("%s is not a mapping", strings.Join(path[:i+1], "."))
		}
		if next == nil {
			next = map[string]any{}
			m[key] = next
		}
		m = next
	}
	m[path[len(path)-1]] = v
	return nil
}

func unsetPlain(m map[string]any, path []string) {
	if len(path) > 1 {
		next, ok := m[path[0]].(map[string]any)
		if !ok || len(next) == 0 {
			return
		}
		if unsetPlain(next, path[1:]); len(next) > 0 {
			return
		}
	}
	delete(m, path[0])
}

// splicer knows where the lines of a text begin.
type splicer struct {
	text   []byte
	starts []int // offset of each line
	eol    string
}

func newSplicer(text []byte) *splicer {
	s := &splicer{text: text, eol: "\n"}
	for pos := 0; pos < len(text); {
		s.starts = append(s.starts, pos)
		i := bytes.IndexByte(text[pos:], '\n')
		if i < 0 {
			break
		}
		if i > 0 && text[pos+i-1] == '\r' {
			s.eol = "\r\n"
		}
		pos += i + 1
	}
	return s
}

// lineOf gives the bytes of a line (from 0) without its break.
func (s *splicer) lineOf(i int) []byte {
	return bytes.TrimRight(s.text[s.starts[i]:s.lineEnd(i)], "\r\n")
}

// lineEnd gives the offset behind a line's break.
func (s *splicer) lineEnd(i int) int {
	if i+1 < len(s.starts) {
		return s.starts[i+1]
	}
	return len(s.text)
}

// lineAt gives the number of the line that holds an offset.
func (s *splicer) lineAt(off int) int {
	i, found := slices.BinarySearch(s.starts, off)
	if !found {
		i--
	}
	return max(i, 0)
}

// offset gives the offset of a line and column as the parser counts them.
func (s *splicer) offset(line, column int) (int, error) {
	if line < 1 || line > len(s.starts) {
		return 0, errSplice
	}
	off := s.starts[line-1]
	for range column - 1 {
		if off >= len(s.text) {
			return 0, errSplice
		}
		_, size := utf8.DecodeRune(s.text[off:])
		off += size
	}
	return off, nil
}

func (s *splicer) replace(from, to int, with string) []byte {
	return slices.Concat(s.text[:from], []byte(with), s.text[to:])
}

// slot is where an entry of a mapping stands.
type slot struct {
	start, colon int // of the key; of the byte behind its colon
	value, end   int // of the value on the key's line; both equal where none stands there
	last         int // offset behind the entry's last line, or behind its value in a flow mapping
	inline       bool
}

func (s *splicer) slot(parent *node, e entry) (slot, error) {
	var at slot
	var err error
	if at.start, err = s.offset(e.line, e.column); err != nil {
		return at, err
	}
	keyEnd := at.start + len(e.key)
	if at.start < len(s.text) && (s.text[at.start] == '"' || s.text[at.start] == '\'') {
		if keyEnd, err = s.scan(at.start); err != nil {
			return at, err
		}
	}
	for keyEnd < len(s.text) && s.text[keyEnd] == ' ' {
		keyEnd++
	}
	if keyEnd >= len(s.text) || s.text[keyEnd] != ':' {
		return at, errSplice
	}
	at.colon, at.inline = keyEnd+1, parent.flow
	at.value = at.colon
	for at.value < len(s.text) && s.text[at.value] == ' ' {
		at.value++
	}
	if parent.flow {
		at.end, err = s.flowValueEnd(at.value)
		at.last = at.end
		return at, err
	}
	line := s.lineAt(at.start)
	lineStop := s.starts[line] + len(s.lineOf(line))
	switch c := byteAt(s.text, at.value); {
	case at.value >= lineStop || c == '#':
		at.value, at.end = at.colon, at.colon
	case c == '"' || c == '\'' || c == '[' || c == '{':
		if at.end, err = s.scan(at.value); err != nil {
			return at, err
		}
		at.last = s.lineEnd(s.lineAt(at.end - 1))
		return at, nil
	default:
		at.end = lineStop
		if i := bytes.Index(s.text[at.value:lineStop], []byte(" #")); i >= 0 {
			at.end = at.value + i
		}
		for at.end > at.value && (s.text[at.end-1] == ' ' || s.text[at.end-1] == '\t') {
			at.end--
		}
	}
	text := byteAt(s.text, at.value) == '|' || byteAt(s.text, at.value) == '>'
	at.last = s.lineEnd(s.blockEnd(line, e.column-1, e.value.kind == listNode, text))
	return at, nil
}

func byteAt(b []byte, i int) byte {
	if i < len(b) {
		return b[i]
	}
	return 0
}

// blockEnd gives the last line of the entry whose key stands on line at the
// given indent. Blank lines and comments behind it belong to what follows; in
// a block of text there are no comments.
func (s *splicer) blockEnd(line, indent int, list, text bool) int {
	last := line
	for i := line + 1; i < len(s.starts); i++ {
		whole := s.lineOf(i)
		body := bytes.TrimLeft(whole, " ")
		in := len(whole) - len(body)
		switch {
		case len(bytes.TrimSpace(body)) == 0, body[0] == '#' && !(text && in > indent):
		case in > indent, list && in == indent && (bytes.HasPrefix(body, []byte("- ")) || string(body) == "-"):
			last = i
		default:
			return last
		}
	}
	return last
}

// scan gives the offset behind the quoted text or bracket that opens at pos.
func (s *splicer) scan(pos int) (int, error) {
	var open []byte
	for i := pos; i < len(s.text); i++ {
		switch c := s.text[i]; c {
		case '"', '\'':
			for i++; i < len(s.text) && s.text[i] != c; i++ {
				if c == '"' && s.text[i] == '\\' {
					i++
				}
			}
			for c == '\'' && byteAt(s.text, i+1) == '\'' { // '' is an escaped quote
				for i += 2; i < len(s.text) && s.text[i] != c; i++ {
				}
			}
		case '[', '{':
			open = append(open, c)
		case ']', '}':
			if len(open) == 0 {
				return 0, errSplice
			}
			open = open[:len(open)-1]
		case '#':
			if i > 0 && (s.text[i-1] == ' ' || s.text[i-1] == '\n') {
				i = s.lineEnd(s.lineAt(i)) - 1
			}
		}
		if len(open) == 0 && i < len(s.text) {
			return i + 1, nil
		}
	}
	return 0, errSplice
}

// flowValueEnd gives the offset behind a value in a flow mapping.
func (s *splicer) flowValueEnd(pos int) (int, error) {
	if c := byteAt(s.text, pos); c == '"' || c == '\'' || c == '[' || c == '{' {
		return s.scan(pos)
	}
	i := bytes.IndexAny(s.text[pos:], ",}\n")
	if i < 0 {
		return 0, errSplice
	}
	end := pos + i
	for end > pos && s.text[end-1] == ' ' {
		end--
	}
	return end, nil
}

// find walks a path as far as it exists.
func find(root *node, path []string) (parents []*node, entries []entry) {
	n := root
	for _, key := range path {
		i := slices.IndexFunc(n.entries, func(e entry) bool { return e.key == key && !e.merged })
		if i < 0 {
			break
		}
		parents, entries = append(parents, n), append(entries, n.entries[i])
		n = n.entries[i].value
	}
	return parents, entries
}

func (s *splicer) set(root *node, path []string, value string) ([]byte, error) {
	parents, entries := find(root, path)
	depth := len(entries)
	if depth == len(path) {
		return s.overwrite(parents[depth-1], entries[depth-1], value)
	}
	n := root
	if depth > 0 {
		n = entries[depth-1].value
	}
	rest := path[depth:]
	switch {
	case n.kind == mapNode && n.flow:
		return s.insertFlow(n, rest, value)
	case n.kind == mapNode:
		return s.insertBlock(n, rest, value)
	case n.kind == nullNode && depth == 0:
		return s.insertAt(len(s.text), 0, rest, value), nil
	case n.kind == nullNode && !parents[depth-1].flow:
		e := entries[depth-1]
		at, err := s.slot(parents[depth-1], e)
		if err != nil {
			return nil, err
		}
		if at.value != at.end { // a written null or ~
			return s.overwrite(parents[depth-1], e, flowOf(rest, value))
		}
		return s.insertAt(s.lineEnd(s.lineAt(at.start)), e.column+1, rest, value), nil
	case n.kind == nullNode:
		return s.overwrite(parents[depth-1], entries[depth-1], flowOf(rest, value))
	}
	return nil, fmt.Errorf("%s is not a mapping", strings.Join(path[:depth], "."))
}

func (s *splicer) overwrite(parent *node, e entry, value string) ([]byte, error) {
	at, err := s.slot(parent, e)
	if err != nil {
		return nil, err
	}
	if at.value == at.colon {
		value = " " + value
	}
	if at.inline {
		return s.replace(at.value, at.end, value), nil
	}
	// Whatever stands on further lines belongs to the old value and goes; a
	// comment on the key's line stays.
	lineEnd := s.lineEnd(s.lineAt(max(at.end-1, at.start)))
	return slices.Concat(s.text[:at.value], []byte(value), s.text[at.end:lineEnd], s.text[max(at.last, lineEnd):]), nil
}

// insertBlock adds an entry behind the last one of a block mapping.
func (s *splicer) insertBlock(n *node, path []string, value string) ([]byte, error) {
	for i := len(n.entries) - 1; i >= 0; i-- {
		if e := n.entries[i]; !e.merged {
			at, err := s.slot(n, e)
			if err != nil {
				return nil, err
			}
			return s.insertAt(at.last, e.column-1, path, value), nil
		}
	}
	return nil, errSplice
}

// insertAt writes the path as lines of their own, the first at that indent.
func (s *splicer) insertAt(pos, indent int, path []string, value string) []byte {
	var b strings.Builder
	if pos > 0 && s.text[pos-1] != '\n' {
		b.WriteString(s.eol)
	}
	for i, key := range path {
		b.WriteString(strings.Repeat(" ", indent+2*i) + yamlText(key) + ":")
		if i == len(path)-1 {
			b.WriteString(" " + value)
		}
		b.WriteString(s.eol)
	}
	return s.replace(pos, pos, b.String())
}

func (s *splicer) insertFlow(n *node, path []string, value string) ([]byte, error) {
	pos, err := s.flowStart(n)
	if err != nil {
		return nil, err
	}
	end, err := s.scan(pos)
	if err != nil {
		return nil, err
	}
	end-- // the closing brace
	for end > pos+1 && (s.text[end-1] == ' ' || s.text[end-1] == ',') {
		end--
	}
	text := flowOf(path, value)
	text = text[1 : len(text)-1]
	if len(n.entries) > 0 {
		text = ", " + text
	}
	return s.replace(end, end, text), nil
}

// flowStart gives the offset of a flow mapping's brace.
func (s *splicer) flowStart(n *node) (int, error) {
	pos, err := s.offset(n.line, n.column)
	if err != nil {
		return 0, err
	}
	if len(n.entries) > 0 { // the place is that of the first key
		pos = bytes.LastIndexByte(s.text[:pos], '{')
	}
	if pos < 0 || byteAt(s.text, pos) != '{' {
		return 0, errSplice
	}
	return pos, nil
}

func flowOf(path []string, value string) string {
	for i := len(path) - 1; i >= 0; i-- {
		value = "{" + yamlText(path[i]) + ": " + value + "}"
	}
	return value
}

func (s *splicer) unset(root *node, path []string) ([]byte, error) {
	parents, entries := find(root, path)
	depth := len(entries)
	if depth < len(path) {
		return s.text, nil
	}
	for depth > 1 && len(parents[depth-1].entries) == 1 {
		depth-- // the mapping would be left empty
	}
	parent, e := parents[depth-1], entries[depth-1]
	at, err := s.slot(parent, e)
	if err != nil {
		return nil, err
	}
	if !parent.flow {
		line := s.lineAt(at.start)
		if len(bytes.TrimSpace(s.text[s.starts[line]:at.start])) > 0 { // "- key: value" of a list
			return nil, errSplice
		}
		return s.replace(s.starts[line], at.last, ""), nil
	}
	from, to := at.start, at.end
	if rest := bytes.TrimLeft(s.text[to:], " "); byteAt(rest, 0) == ',' {
		to = len(s.text) - len(bytes.TrimLeft(rest[1:], " "))
	} else if before := bytes.TrimRight(s.text[:from], " "); len(before) > 0 && before[len(before)-1] == ',' {
		from = len(before) - 1
	}
	return s.replace(from, to, ""), nil
}

// yamlText writes a text so that every reader of YAML takes it for that text,
// those of version 1.1 too, for which yes, on and 12:30 are something else.
func yamlText(s string) string {
	plain := s != ""
	for i, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c == '/'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789.@+-", rune(c)) && (c != ':' || i == len(s)-1)) {
			plain = false
			break
		}
	}
	switch strings.ToLower(s) {
	case "true", "false", "yes", "no", "on", "off", "null", "y", "n":
		plain = false
	}
	if plain {
		return s
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if enc.Encode(s) != nil {
		return `""`
	}
	return strings.TrimSpace(b.String())
}
