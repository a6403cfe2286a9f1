package approval

import (
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"
)

// Two bytes that no command may hold stand for what evaluation finds.
const (
	unknown = "\x00" // text that only the run will tell
	split   = "\x01" // a place where the shell splits fields
)

// maxValue bounds an evaluated word, in bytes, and maxFields a command's words.
const (
	maxValue  = 16 << 10
	maxFields = 4096
)

// fields evaluates words into the fields that the command would get.
func (w *walker) fields(words []*syntax.Word) []string {
	var out []string
	for _, word := range words {
		for _, x := range w.braces(word) {
			v := w.word(x)
			if v == "" {
				if quotedEmpty(x) {
					out = append(out, "")
				}
				continue
			}
			for f := range strings.SplitSeq(v, split) {
				if f != "" {
					out = append(out, f)
				}
			}
			if len(out) > maxFields {
				w.ask(finding{key: "complex command", reason: "has more words than can be looked at"})
				return out[:maxFields]
			}
		}
	}
	return out
}

func quotedEmpty(x *syntax.Word) bool {
	for _, p := range x.Parts {
		switch p.(type) {
		case *syntax.SglQuoted, *syntax.DblQuoted:
			return true
		}
	}
	return false
}

// braces expands {a,b}. A sequence, or an expansion that would explode, stays
// as it is.
func (w *walker) braces(word *syntax.Word) []*syntax.Word {
	// SplitBraces and Braces rewrite the word in place: work on a copy.
	word = &syntax.Word{Parts: append([]syntax.WordPart(nil), word.Parts...)}
	syntax.SplitBraces(word)
	n := braceCount(word.Parts)
	if n <= 1 {
		return []*syntax.Word{word}
	}
	var out []*syntax.Word
	for x, err := range expand.BracesSeq(nil, word) {
		if err != nil || len(out) > maxFields {
			w.ask(finding{key: "complex command", reason: "has a brace expansion that cannot be followed"})
			break
		}
		out = append(out, x)
	}
	return out
}

// braceCount counts the words that parts expand to; 0 when there is a sequence.
func braceCount(parts []syntax.WordPart) int {
	n := 1
	for _, p := range parts {
		b, ok := p.(*syntax.BraceExp)
		if !ok {
			continue
		}
		if b.Sequence {
			return 0
		}
		sum := 0
		for _, e := range b.Elems {
			c := braceCount(e.Parts)
			if c == 0 {
				return 0
			}
			sum += c
		}
		if n *= sum; n > 1<<16 {
			return 1 << 16
		}
	}
	return n
}

// word evaluates one word, with unknown and split in it.
func (w *walker) word(x *syntax.Word) string {
	if x == nil {
		return ""
	}
	v := w.parts(x.Parts, false)
	if lit, ok := first(x.Parts).(*syntax.Lit); ok && strings.HasPrefix(lit.Value, "~") {
		v = w.tilde(v)
	}
	if len(v) > maxValue {
		v = v[:maxValue] + unknown
	}
	return v
}

func first(parts []syntax.WordPart) syntax.WordPart {
	if len(parts) == 0 {
		return nil
	}
	return parts[0]
}

func (w *walker) tilde(v string) string {
	user, rest, _ := strings.Cut(v[1:], "/")
	if rest != "" || strings.HasSuffix(v, "/") {
		rest = "/" + rest
	}
	switch {
	case user == "" && w.o.UserHome != "":
		return w.o.UserHome + rest
	case user == "":
		return "~" + rest
	case user == "root":
		return "/root" + rest
	case user == "+":
		return w.cwd + rest
	case w.o.UserHome != "" && strings.HasSuffix(w.o.UserHome, "/"+user):
		return w.o.UserHome + rest
	}
	return "/home/" + user + rest
}

func (w *walker) parts(parts []syntax.WordPart, quoted bool) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(w.part(p, quoted))
		if b.Len() > maxValue {
			b.WriteString(unknown)
			break
		}
	}
	return b.String()
}

func (w *walker) part(p syntax.WordPart, quoted bool) string {
	switch p := p.(type) {
	case *syntax.Lit:
		return unescape(p.Value, quoted)
	case *syntax.SglQuoted:
		if p.Dollar {
			if s, _, err := expand.Format(nil, p.Value, nil); err == nil {
				return clean(s)
			}
			return unknown
		}
		return p.Value
	case *syntax.DblQuoted:
		return w.parts(p.Parts, true)
	case *syntax.ParamExp:
		v := w.param(p)
		if !quoted {
			v = splitFields(v)
		}
		return v
	case *syntax.CmdSubst:
		v := w.subst(p.Stmts)
		if !quoted {
			v = splitFields(v)
		}
		return v
	case *syntax.ProcSubst:
		w.procs++
		w.procText = w.subst(p.Stmts)
		return unknown
	case *syntax.ExtGlob:
		return "*"
	case *syntax.BraceExp:
		return unknown
	}
	w.inside(p)
	return unknown
}

// clean keeps the marks of this package out of text that a command made.
func clean(s string) string {
	return strings.NewReplacer(unknown, "", split, "").Replace(s)
}

// unescape takes backslashes out as the shell would.
func unescape(s string, quoted bool) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && (!quoted || strings.IndexByte("$`\"\\\n", s[i+1]) >= 0) {
			i++
			if s[i] == '\n' {
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func splitFields(v string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '\t' || r == '\n' {
			return '\x01'
		}
		return r
	}, v)
}

// param evaluates a parameter expansion.
func (w *walker) param(p *syntax.ParamExp) string {
	if p.Param == nil || p.Length || p.Width {
		return unknown
	}
	name := p.Param.Value
	if p.Excl {
		if name = w.value(name); name == "" || strings.Contains(name, unknown) {
			return unknown
		}
	}
	v := w.value(name)
	if p.Index != nil {
		v = w.element(v, p.Index)
	}
	switch {
	case p.Slice != nil:
		return slice(v, p.Slice)
	case p.Repl != nil:
		return w.replace(v, p.Repl)
	case p.Exp == nil:
		return v
	}
	switch p.Exp.Op {
	case syntax.AlternateUnset, syntax.AlternateUnsetOrNull, syntax.DefaultUnset, syntax.DefaultUnsetOrNull,
		syntax.AssignUnset, syntax.AssignUnsetOrNull:
		return w.choose([]string{v, w.word(p.Exp.Word)})
	case syntax.ErrorUnset, syntax.ErrorUnsetOrNull:
		return v
	}
	if v == "" {
		return ""
	}
	return unknown
}

// slice evaluates ${x:0:1} where the numbers are plain.
func slice(v string, s *syntax.Slice) string {
	number := func(x syntax.ArithmExpr, or int) (int, bool) {
		if x == nil {
			return or, true
		}
		word, ok := x.(*syntax.Word)
		if !ok {
			return 0, false
		}
		n, err := strconv.Atoi(word.Lit())
		return n, err == nil
	}
	from, ok1 := number(s.Offset, 0)
	n, ok2 := number(s.Length, len(v))
	if !ok1 || !ok2 || strings.Contains(v, unknown) || from < 0 || n < 0 {
		return unknown
	}
	from = min(from, len(v))
	return v[from:min(from+n, len(v))]
}

// replace evaluates ${x/a/b} where a is plain text.
func (w *walker) replace(v string, r *syntax.Replace) string {
	from, to := w.word(r.Orig), w.word(r.With)
	if strings.ContainsAny(from, "*?["+unknown) || strings.Contains(v, unknown) {
		return unknown
	}
	n := 1
	if r.All {
		n = -1
	}
	if v = strings.Replace(v, from, to, n); len(v) > maxValue {
		return unknown
	}
	return v
}

// element picks one element of an array, or all of them.
func (w *walker) element(v string, index syntax.ArithmExpr) string {
	word, ok := index.(*syntax.Word)
	if !ok {
		return unknown
	}
	switch lit := word.Lit(); lit {
	case "@", "*":
		return v
	default:
		elems := strings.Split(v, split)
		if n, err := strconv.Atoi(lit); err == nil && n >= 0 && n < len(elems) {
			return elems[n]
		}
	}
	return unknown
}

// value is what a variable holds, as far as the text tells.
func (w *walker) value(name string) string {
	if vs := w.vars[name]; len(vs) > 0 {
		return w.choose(vs)
	}
	switch name {
	case "HOME":
		if w.o.UserHome != "" {
			return w.o.UserHome
		}
	case "PWD":
		return w.cwd
	case "IFS":
		return " \t\n"
	case "HERMES_HOME":
		if w.o.Home != "" {
			return w.o.Home
		}
	case "@", "*":
		if w.params != nil {
			return strings.Join(w.params, split)
		}
	case "0":
		if w.zero != "" {
			return w.zero
		}
	case "PPID":
		return "$PPID"
	case "!":
		return "$!"
	default:
		if n, err := strconv.Atoi(name); err == nil && n > 0 && w.params != nil {
			if n <= len(w.params) {
				return w.params[n-1]
			}
			return ""
		}
	}
	return unknown
}

// choose picks one of several possible values: another one on each pass.
func (w *walker) choose(vs []string) string {
	w.passes = max(w.passes, len(vs))
	return vs[min(w.pass, len(vs)-1)]
}

// assign records a variable's value. Where it is not certain that the
// assignment runs, the values before it stay possible.
func (w *walker) assign(name, value, source string) {
	const perName, names = 4, 256
	if len(w.vars) >= names && w.vars[name] == nil {
		return
	}
	if w.cond > 0 && len(w.vars[name]) < perName {
		w.vars[name] = append(w.vars[name], value)
	} else {
		w.vars[name] = []string{value}
	}
	w.remember(name, source)
}

// remember notes what a variable's value was computed from, in bounds.
func (w *walker) remember(name, source string) {
	const most = 2 << 10
	if len(w.srcs[name])+len(source) < most && len(w.srcs) < 256 {
		w.srcs[name] += " " + source
	}
}
