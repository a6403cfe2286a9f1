package approval

import (
	"path"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// input is what is known of a command's standard input.
type input struct {
	piped  bool
	known  bool   // text is what it will read
	text   string // may hold unknown
	src    string // source of the commands that write it
	remote bool   // it comes from the network
	secret bool   // it holds the environment, or a file of secrets
}

// call is one command with its evaluated arguments.
type call struct {
	name     string // base name of the program
	path     string // the name as written
	args     []string
	in       input
	src      string // its source, with that of the variables in it
	plain    bool   // functions are not looked up (command, builtin, exec)
	proc     bool   // an argument is a process substitution
	procText string // and this is what that one yields, "" when unknown
}

// function is a declared shell function and the text that it stands in.
type function struct {
	decl *syntax.FuncDecl
	text string
}

// check looks at one call.
type check func(*walker, call)

// source is the text of a node, with what the variables in it were computed from.
func (w *walker) source(n syntax.Node) string {
	from, to := int(n.Pos().Offset()), int(n.End().Offset())
	if from < 0 || to > len(w.text) || from > to {
		return ""
	}
	const most = 4 << 10
	src := w.text[max(from, to-most):to]
	syntax.Walk(n, func(x syntax.Node) bool {
		if p, ok := x.(*syntax.ParamExp); ok && p.Param != nil && len(src) < maxCommand {
			src += " " + w.srcs[p.Param.Value]
		}
		return true
	})
	return src
}

func (w *walker) assignment(a *syntax.Assign) {
	if a.Name == nil {
		if a.Value != nil {
			w.word(a.Value)
		}
		return
	}
	name := a.Name.Value
	var v string
	switch {
	case a.Array != nil:
		var elems []string
		for _, e := range a.Array.Elems {
			elems = append(elems, w.fields([]*syntax.Word{e.Value})...)
		}
		v = strings.Join(elems, split)
	case a.Value != nil:
		v = w.word(a.Value)
	case a.Naked:
		return
	}
	if a.Append {
		v = strings.TrimPrefix(w.value(name), unknown) + v
	}
	switch {
	case a.Index != nil:
		v = unknown
	case name == "BASH_ENV" || name == "ENV" || name == "PROMPT_COMMAND":
		w.script(v, input{})
	case name == "HERMES_YOLO_MODE":
		w.ask(finding{key: "approval settings", reason: "switches approvals off", severe: true})
	}
	w.assign(name, v, w.source(a))
}

func (w *walker) callExpr(c *syntax.CallExpr, in input) (out string, known bool) {
	for _, a := range c.Assigns {
		w.assignment(a)
	}
	if len(c.Args) == 0 {
		return "", true
	}
	procs := w.procs
	w.procText = ""
	args := w.fields(c.Args)
	k := call{in: in, src: w.source(c)}
	if w.procs > procs {
		k.proc = true
		if !strings.Contains(w.procText, unknown) {
			k.procText = w.procText
		}
	}
	w.procText = ""
	return w.command(args, k)
}

// command looks at one command: its program, what that runs in turn, and the
// files that it names.
func (w *walker) command(args []string, c call) (out string, known bool) {
	if len(args) == 0 {
		return "", true
	}
	if w.depth >= maxDepth {
		w.tooComplex()
		return "", false
	}
	if !w.spend(16 + len(args) + len(c.src)/16) {
		return "", false
	}
	w.depth++
	defer func() { w.depth-- }()
	c.path, c.name, c.args = args[0], path.Base(args[0]), args[1:]
	if strings.ContainsAny(c.name, unknown+"*?[") && c.name != "[" {
		w.ask(finding{key: "computed command", reason: "runs a program whose name only the run will tell"})
		w.keep(onlyRefused, func() { remove(w, c) })
		return "", false
	}
	if f, ok := w.funcs[c.name]; ok && c.path == c.name && !c.plain {
		return w.callFunction(f, c)
	}
	w.files(c)
	if w.isGateway(c.name) {
		gateway(w, c)
		return "", false
	}
	if look := w.table[c.name]; look != nil {
		look(w, c)
	} else if strings.HasPrefix(c.name, "mkfs.") {
		mkfs(w, c)
	} else if strings.Contains(c.path, "/") {
		w.runFile(c.path, c)
	}
	return w.output(c)
}

func (w *walker) declare(d *syntax.FuncDecl) {
	if d.Name == nil || d.Body == nil {
		return
	}
	name := d.Name.Value
	if isBomb(name, d.Body) {
		w.refuse("a function that starts itself without end (a fork bomb) takes the machine down; it is never allowed")
		return
	}
	w.funcs[name] = function{d, w.text}
}

// isBomb tells whether a function starts itself twice in a pipe, or in the
// background.
func isBomb(name string, body *syntax.Stmt) bool {
	calls := func(n syntax.Node) (yes bool) {
		syntax.Walk(n, func(x syntax.Node) bool {
			if c, ok := x.(*syntax.CallExpr); ok && len(c.Args) > 0 && c.Args[0].Lit() == name {
				yes = true
			}
			return !yes
		})
		return yes
	}
	bomb := false
	syntax.Walk(body, func(x syntax.Node) bool {
		switch x := x.(type) {
		case *syntax.BinaryCmd:
			if (x.Op == syntax.Pipe || x.Op == syntax.PipeAll) && calls(x.X) && calls(x.Y) {
				bomb = true
			}
		case *syntax.Stmt:
			if x.Background && calls(x) {
				bomb = true
			}
		}
		return !bomb
	})
	return bomb
}

func (w *walker) callFunction(f function, c call) (out string, known bool) {
	text, params := w.text, w.params
	w.text, w.params = f.text, append([]string{}, c.args...)
	defer func() { w.text, w.params = text, params }()
	return w.stmt(f.decl.Body, c.in)
}
