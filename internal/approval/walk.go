package approval

import (
	"fmt"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// Bounds of one analysis: what exceeds them is asked about.
const (
	maxDepth   = 10      // scripts within scripts, calls within calls
	maxWork    = 1 << 17 // units, see spend
	maxPasses  = 4       // over the values that a variable may have
	maxNesting = 120     // brackets within brackets
)

// walker goes through a script in the order of execution, as far as that can
// be told, and notes what it finds.
type walker struct {
	o      *Options
	table  map[string]check
	found  []finding
	text   string // of the script being walked
	vars   map[string][]string
	srcs   map[string]string // what the value of a variable was computed from
	made   map[string]string // files that the command itself writes, by path, as far as their content is known
	funcs  map[string]function
	params []string
	zero   string // $0
	cwd    string
	cond   int // inside a branch that may not run
	depth  int

	work         int
	pass, passes int
	procs        int
	procText     string
}

func newWalker(o *Options, table map[string]check) *walker {
	w := &walker{o: o, table: table, vars: map[string][]string{}, srcs: map[string]string{}, made: map[string]string{}, funcs: map[string]function{}, cwd: o.Workdir}
	if w.cwd == "" {
		w.cwd = unknown
	}
	return w
}

// analyze gives all that is to be said against a command.
func analyze(command string, o Options) []finding {
	var found []finding
	if strings.ContainsAny(command, unknown+split) {
		found = append(found, finding{action: Ask, key: "control characters", reason: "holds control characters"})
		command = clean(command)
	}
	if len(command) > maxCommand {
		return append(found, finding{action: Ask, key: "complex command", reason: "is too long to be looked at"})
	}
	for pass := 0; ; pass++ {
		w := newWalker(&o, programs)
		w.pass, w.passes = pass, 1
		w.script(command, input{})
		found = append(found, w.found...)
		if pass+1 >= min(w.passes, maxPasses) {
			return found
		}
	}
}

func (w *walker) ask(f finding) {
	f.action = Ask
	w.found = append(w.found, f)
}

func (w *walker) refuse(reason string) {
	w.found = append(w.found, finding{action: Refuse, reason: reason})
}

// spend takes units of work from the budget of the pass, about one for what
// takes a microsecond. It is false when nothing is left.
func (w *walker) spend(units int) bool {
	if w.work > maxWork {
		return false
	}
	if w.work += units; w.work > maxWork {
		w.tooComplex()
		return false
	}
	return true
}

func (w *walker) tooComplex() {
	w.ask(finding{key: "complex command", reason: "is too complex to be looked at as a whole", severe: true})
}

// keep runs f and keeps only the findings that pass the filter.
func (w *walker) keep(pass func(finding) bool, f func()) {
	before := w.found
	w.found = nil
	f()
	for _, x := range w.found {
		if pass(x) {
			before = append(before, x)
		}
	}
	w.found = before
}

func onlyRefused(f finding) bool { return f.action == Refuse }
func onlySevere(f finding) bool  { return f.action == Refuse || f.severe }

// script walks a text as a script. Statements before a syntax error count: the shell would run them.
func (w *walker) script(text string, in input) {
	if w.depth >= maxDepth || len(text) > 4*maxCommand || nesting(text) > maxNesting {
		w.tooComplex()
		return
	}
	if !w.spend(16 + len(text)/4) {
		return
	}
	text = strings.ReplaceAll(text, unknown, "${__unknown__}")
	text = strings.ReplaceAll(text, split, " ")
	outer := w.text
	w.text = text
	w.depth++
	defer func() { w.text, w.depth = outer, w.depth-1 }()

	stmts, err := parse(text)
	w.stmts(stmts, in)
	if err != nil {
		w.unparsed(text, stmts)
	}
}

// parse gives the statements of a text up to its first syntax error. The parser
// is not ours and the text is a stranger's: its panics (there are some, on
// malformed input) are syntax errors.
func parse(text string) (stmts []*syntax.Stmt, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the shell parser gave up: %v", p)
		}
	}()
	for s, err := range syntax.NewParser(syntax.Variant(syntax.LangBash)).StmtsSeq(strings.NewReader(text)) {
		if err != nil {
			return stmts, err
		}
		stmts = append(stmts, s)
	}
	return stmts, nil
}

// unparsed deals with what the parser did not understand: each line of it is
// tried alone for the hard line, and the whole is asked about.
func (w *walker) unparsed(text string, parsed []*syntax.Stmt) {
	w.ask(finding{key: "unreadable command", reason: "cannot be read as a shell command"})
	if n := len(parsed); n > 0 {
		text = text[min(int(parsed[n-1].End().Offset()), len(text)):]
	}
	w.keep(onlyRefused, func() {
		n := 0
		for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune("\n;|&()`", r) }) {
			if n++; n > 200 {
				return
			}
			args := strings.Fields(strings.NewReplacer(`"`, "", `'`, "", `\`, "").Replace(line))
			for i := range min(len(args), 8) {
				w.command(args[i:], call{src: line})
			}
		}
	})
}

// nesting is the greatest depth of brackets in a text, counted coarsely.
func nesting(text string) int {
	depth, deepest := 0, 0
	for _, r := range text {
		switch r {
		case '(', '{', '[':
			depth++
			deepest = max(deepest, depth)
		case ')', '}', ']':
			depth = max(0, depth-1)
		}
	}
	return deepest
}

func (w *walker) stmts(list []*syntax.Stmt, in input) (out string, known bool) {
	known = true
	for _, s := range list {
		o, k := w.stmt(s, in)
		if out, known = out+o, known && k; len(out) > 4*maxCommand {
			known = false
		}
		if !known {
			out = ""
		}
	}
	return out, known
}

func (w *walker) stmt(s *syntax.Stmt, in input) (out string, known bool) {
	if !w.spend(1) {
		return "", false
	}
	diverted := false
	for _, r := range s.Redirs {
		switch r.Op {
		case syntax.Hdoc, syntax.DashHdoc:
			in = input{known: true, text: w.word(r.Hdoc)}
		case syntax.WordHdoc:
			in = input{known: true, text: w.word(r.Word) + "\n"}
		case syntax.RdrIn, syntax.DplIn:
			target := w.word(r.Word)
			in = input{piped: true, src: w.source(r)}
			if w.procText != "" {
				in.known, in.text, w.procText = true, w.procText, ""
			}
			w.read(target)
		default:
			diverted = diverted || r.N == nil || r.N.Value == "1"
			w.redirect(r)
		}
	}
	if out, known = w.cmd(s.Cmd, in); !diverted {
		return out, known
	}
	if !known {
		out = unknown
	}
	for _, r := range s.Redirs {
		if r.Hdoc == nil && r.Op != syntax.RdrIn && r.Op != syntax.DplIn && r.Op != syntax.DplOut && r.Op != syntax.WordHdoc {
			w.make(w.word(r.Word), out)
		}
	}
	return "", false
}

// make notes what a file holds once the command has written it, so that running
// it afterwards is no surprise. A file that is written twice holds both.
func (w *walker) make(target, text string) {
	p := w.resolve(target)
	if strings.Contains(p, unknown) || len(w.made) >= 64 || len(w.made[p])+len(text) > maxCommand {
		return
	}
	w.made[p] += text + "\n"
}

// redirect looks at where output goes. Writing to another descriptor is no file.
func (w *walker) redirect(r *syntax.Redirect) {
	target := w.word(r.Word)
	if r.Op == syntax.DplOut && (target == "-" || strings.Trim(target, "0123456789-") == "") {
		return
	}
	w.write(target)
}

func (w *walker) cmd(c syntax.Command, in input) (out string, known bool) {
	switch c := c.(type) {
	case nil:
		return "", true
	case *syntax.CallExpr:
		return w.callExpr(c, in)
	case *syntax.BinaryCmd:
		return w.binary(c, in)
	case *syntax.Block:
		return w.stmts(c.Stmts, in)
	case *syntax.Subshell:
		cwd := w.cwd
		defer func() { w.cwd = cwd }()
		return w.stmts(c.Stmts, in)
	case *syntax.IfClause:
		w.branches(in, c.Cond, c.Then)
		if c.Else != nil {
			w.maybe(func() { w.cmd(c.Else, in) })
		}
	case *syntax.WhileClause:
		w.branches(in, c.Cond, c.Do)
	case *syntax.ForClause:
		w.loop(c, in)
	case *syntax.CaseClause:
		w.word(c.Word)
		for _, item := range c.Items {
			w.maybe(func() { w.stmts(item.Stmts, in) })
		}
	case *syntax.FuncDecl:
		w.declare(c)
		return "", true
	case *syntax.DeclClause:
		for _, a := range c.Args {
			w.assignment(a)
		}
		return "", true
	case *syntax.TimeClause:
		if c.Stmt != nil {
			return w.stmt(c.Stmt, in)
		}
	case *syntax.CoprocClause:
		w.stmt(c.Stmt, in)
	default:
		w.inside(c)
		return "", true
	}
	return "", false
}

// maybe walks something that may or may not run.
func (w *walker) maybe(f func()) {
	w.cond++
	f()
	w.cond--
}

func (w *walker) branches(in input, cond, then []*syntax.Stmt) {
	w.stmts(cond, in)
	w.maybe(func() { w.stmts(then, in) })
}

// loop walks a loop's body once for each known item.
func (w *walker) loop(c *syntax.ForClause, in input) {
	const most = 16
	iter, ok := c.Loop.(*syntax.WordIter)
	if !ok {
		w.inside(c.Loop)
		w.stmts(c.Do, in)
		return
	}
	items := w.fields(iter.Items)
	if !iter.InPos.IsValid() {
		items = []string{unknown}
	}
	if len(items) > most {
		items = append(items[:most], unknown)
	}
	var src strings.Builder
	for _, x := range iter.Items {
		src.WriteString(w.source(x) + " ")
	}
	for _, item := range items {
		w.vars[iter.Name.Value] = []string{item}
		w.srcs[iter.Name.Value] = src.String()
		w.stmts(c.Do, in)
	}
}

// binary walks a && b, a || b and pipelines.
func (w *walker) binary(c *syntax.BinaryCmd, in input) (out string, known bool) {
	if c.Op != syntax.Pipe && c.Op != syntax.PipeAll {
		out, known = w.stmt(c.X, in)
		var o string
		var k bool
		if c.Op == syntax.AndStmt {
			o, k = w.stmt(c.Y, in)
		} else {
			w.maybe(func() { o, k = w.stmt(c.Y, in) })
		}
		return out + o, known && k && c.Op == syntax.AndStmt
	}
	out, known = w.stmt(c.X, in)
	next := input{piped: true, known: known, text: out, src: w.source(c.X)}
	w.spend(len(next.src) / 16)
	next.remote = in.remote || readsNetwork.MatchString(next.src)
	next.secret = in.secret || dumpsSecrets.MatchString(next.src)
	return w.stmt(c.Y, next)
}

// inside walks the commands that stand somewhere within a node.
func (w *walker) inside(node syntax.Node) {
	syntax.Walk(node, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.CmdSubst:
			w.subst(n.Stmts)
			return false
		case *syntax.ProcSubst:
			w.subst(n.Stmts)
			return false
		}
		return true
	})
}

// subst walks a substitution and gives its text, which is unknown more often
// than not.
func (w *walker) subst(list []*syntax.Stmt) string {
	if w.depth >= maxDepth {
		w.tooComplex()
		return unknown
	}
	cwd := w.cwd
	w.depth++
	out, known := w.stmts(list, input{})
	w.depth--
	w.cwd = cwd
	if !known {
		return unknown
	}
	return strings.TrimRight(out, "\n")
}
