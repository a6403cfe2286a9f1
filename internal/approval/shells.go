package approval

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/expand"

	"hermes/internal/lazyregexp"
)

// maxScript bounds a script file that is looked at, in bytes.
const maxScript = 256 << 10

// shell is sh and its kin: a command in -c, a script, or what it reads.
func shell(w *walker, c call) {
	for i, a := range c.args {
		if len(a) > 1 && (a[0] == '-' || a[0] == '+') && a != "--" {
			if !strings.HasPrefix(a, "--") && strings.Contains(a, "c") && a[0] == '-' {
				w.shellCommand(c, i+1)
				return
			}
			continue
		}
		if a == "-" || a == "--" || i > 0 && (c.args[i-1] == "-o" || c.args[i-1] == "--rcfile" || c.args[i-1] == "--init-file") {
			continue
		}
		switch {
		case c.proc && c.procText != "":
			w.script(c.procText, c.in)
		case c.proc:
			w.pipedIn(c)
		default:
			w.runFile(a, call{args: c.args[i+1:], in: c.in, name: "sh"})
		}
		return
	}
	w.fromInput(c, func(text string) { w.script(text, input{}) })
}

// shellCommand walks the command behind -c, in a folder of its own.
func (w *walker) shellCommand(c call, i int) {
	for i < len(c.args) && strings.HasPrefix(c.args[i], "-") && c.args[i] != "--" {
		i++
	}
	if i < len(c.args) && c.args[i] == "--" {
		i++
	}
	if i >= len(c.args) {
		return
	}
	text, cwd, params, zero := c.args[i], w.cwd, w.params, w.zero
	if rest := c.args[i+1:]; len(rest) > 0 {
		w.zero, w.params = rest[0], rest[1:]
	}
	if strings.Trim(text, unknown+" ") == "" {
		w.ask(finding{key: "computed command", reason: "gives a shell a text that only the run will tell", severe: true})
	} else {
		w.script(text, c.in)
	}
	w.cwd, w.params, w.zero = cwd, params, zero
}

// fromInput deals with an interpreter that reads its program from its input.
func (w *walker) fromInput(c call, run func(string)) {
	switch {
	case c.in.known && strings.Trim(c.in.text, unknown+"\n ") != "":
		run(c.in.text)
	case c.in.known && !strings.Contains(c.in.text, unknown):
	case c.in.piped || c.in.known:
		w.pipedIn(c)
	}
}

func (w *walker) pipedIn(c call) {
	what := "gives a text that only the run will tell to " + c.name
	if c.in.remote || readsNetwork.MatchString(c.src) {
		what = "downloads a program and runs it with " + c.name
	}
	w.ask(finding{key: "pipe to " + c.name, reason: what, severe: true})
}

// evaluate is eval: its arguments are a script.
func evaluate(w *walker, c call) {
	text := strings.Join(c.args, " ")
	if strings.Trim(text, unknown+" ") == "" && text != "" {
		w.ask(finding{key: "computed command", reason: "evaluates a text that only the run will tell"})
		return
	}
	w.script(text, c.in)
}

// trap runs its first argument later; alias gives commands names.
func trap(w *walker, c call) {
	if ops := operands(c.args); len(ops) > 0 {
		w.script(ops[0], input{})
	}
}

func alias(w *walker, c call) {
	for _, a := range c.args {
		if _, v, ok := strings.Cut(a, "="); ok {
			w.script(v, input{})
		}
	}
}

// source is "." and source.
func source(w *walker, c call) {
	switch ops := operands(c.args); {
	case len(ops) == 0:
	case c.proc && c.procText != "":
		w.script(c.procText, c.in)
	case c.proc:
		w.pipedIn(c)
	case strings.HasPrefix(w.resolve(ops[0]), "/dev/stdin") || strings.HasPrefix(w.resolve(ops[0]), "/dev/fd/"):
		w.fromInput(c, func(text string) { w.script(text, input{}) })
	default:
		w.runFile(ops[0], c)
	}
}

// reader deals with programs that read shell commands from their input: at, batch.
func reader(w *walker, c call) {
	w.ask(finding{key: c.name, reason: "runs commands later (" + c.name + ")", severe: true})
	w.fromInput(c, func(text string) { w.script(text, input{}) })
}

// runFile looks into a script that is run. Only what is severe counts there: an
// installer's deletions of its own files are its business.
func (w *walker) runFile(name string, c call) {
	p := w.resolve(name)
	if strings.HasPrefix(p, "/dev/stdin") || strings.HasPrefix(p, "/dev/fd/") || p == "/proc/self/fd/0" {
		w.fromInput(c, func(text string) { w.script(text, input{}) })
		return
	}
	if text, ok := w.made[p]; ok {
		w.runMade(p, text, c)
		return
	}
	if w.o.ReadFile == nil || strings.Contains(p, unknown) || !strings.HasPrefix(p, "/") {
		return
	}
	b, err := w.o.ReadFile(p)
	if err != nil || len(b) == 0 || len(b) > maxScript || slices.Contains(b[:min(len(b), 512)], 0) {
		return
	}
	text := clean(string(b))
	line, _, _ := strings.Cut(text, "\n")
	params := w.params
	w.params = append([]string{}, c.args...)
	w.keep(onlySevere, func() {
		switch {
		case c.name == "sh" || c.name == "source" || c.name == "." || strings.HasSuffix(p, ".sh") ||
			strings.HasPrefix(line, "#!") && shebangShell.MatchString(line):
			cwd := w.cwd
			w.script(text, c.in)
			w.cwd = cwd
		case strings.HasPrefix(line, "#!") || c.name == "code":
			w.keep(onlyRefused, func() { w.code("script", text) })
		}
	})
	w.params = params
}

// runMade looks into a script that the command has just written itself.
func (w *walker) runMade(p, text string, c call) {
	switch {
	case strings.Trim(text, unknown+"\n ") == "":
		w.ask(finding{key: "run download", reason: "runs a file that it has just made, whose content only the run will tell (" + shown(p) + ")", severe: true})
	case c.name == "code":
		w.code("script", text)
	default:
		params, cwd := w.params, w.cwd
		w.params = append([]string{}, c.args...)
		w.script(text, c.in)
		w.params, w.cwd = params, cwd
	}
}

var (
	shebangShell = lazyregexp.New(`\b(sh|bash|dash|zsh|ksh)\b`)
	// Programs that bring text from the network.
	readsNetwork = lazyregexp.New(`\b(curl|wget|fetch|aria2c|lynx|nc|ncat|http|https|ftp)\b`)
	// Commands whose output is the environment, or stored secrets.
	dumpsSecrets = lazyregexp.New(`(^|[|;&(\s])(env|printenv|set|export\s+-p|declare\s+-[px]+)\s*($|[|;&)>])|\.env\b|auth\.json|/environ\b|id_(rsa|ed25519|ecdsa|dsa)\b|\.aws/credentials|/etc/shadow|\.netrc`)
)

// interpreter describes how a language's program takes code on its command line.
type interpreter struct{ flags []string }

var interpreters = map[string]interpreter{
	"python": {[]string{"-c"}}, "python2": {[]string{"-c"}}, "python3": {[]string{"-c"}}, "pypy": {[]string{"-c"}}, "pypy3": {[]string{"-c"}},
	"ipython": {[]string{"-c"}}, "perl": {[]string{"-e", "-E"}}, "ruby": {[]string{"-e"}}, "node": {[]string{"-e", "-p", "--eval", "--print"}},
	"nodejs": {[]string{"-e", "-p", "--eval", "--print"}}, "bun": {[]string{"-e", "--eval"}}, "deno": {[]string{"eval"}}, "php": {[]string{"-r"}},
	"lua": {[]string{"-e"}}, "luajit": {[]string{"-e"}}, "Rscript": {[]string{"-e"}}, "osascript": {[]string{"-e"}}, "tclsh": {nil},
	"expect": {[]string{"-c"}}, "guile": {[]string{"-c"}}, "julia": {[]string{"-e"}}, "elixir": {[]string{"-e"}}, "groovy": {[]string{"-e"}},
	"emacs": {[]string{"--eval"}}, "gdb": {[]string{"-ex"}}, "vim": {[]string{"-c"}}, "vi": {[]string{"-c"}}, "nvim": {[]string{"-c"}},
}

// interpret looks at code that is given to an interpreter.
func interpret(w *walker, c call) {
	name := c.name
	if i := strings.IndexByte(name, '.'); i > 0 {
		name = name[:i]
	}
	if m, ok := optionValue(c.args, "-m"); ok && strings.HasPrefix(name, "python") && strings.HasPrefix(m, "hermes") {
		i := slices.Index(c.args, m)
		gateway(w, call{name: "hermes", args: c.args[i+1:], src: c.src})
		return
	}
	for i, a := range c.args {
		for _, f := range interpreters[name].flags {
			cluster := len(f) == 2 && len(a) > 2 && a[0] == '-' && a[1] != '-' && strings.IndexByte(a, f[1]) > 0
			switch {
			case (a == f || cluster && strings.HasSuffix(a, f[1:])) && i+1 < len(c.args):
				w.code(name+" "+f, c.args[i+1])
				return
			case cluster && strings.HasPrefix(a, f):
				w.code(name+" "+f, a[2:])
				return
			case strings.HasPrefix(a, f+"="):
				w.code(name+" "+f, a[len(f)+1:])
				return
			}
		}
	}
	ops := operands(c.args)
	switch {
	case len(ops) == 0 && len(c.args) > 0 && hasFlag(c.args, "vVh", "--version", "--help"):
	case len(ops) == 0 || ops[0] == "-" || ops[0] == "/dev/stdin":
		w.fromInput(c, func(text string) { w.code(name+" script", text) })
	case c.proc:
		w.pipedIn(c)
	case name != "gdb" && name != "emacs" && !strings.HasSuffix(name, "vi") && !strings.HasSuffix(name, "vim"):
		w.runFile(ops[0], call{name: "code"})
	}
}

var (
	// What a one-liner in a scripting language needs to run programs or delete.
	codeDanger = lazyregexp.New(`os\.system|subprocess|popen|pty\.spawn|os\.(exec|spawn|posix_spawn|remove|unlink|rmdir|removedirs|kill|rename|truncate)` +
		`|shutil\.(rmtree|move)|\.unlink\(|\.rmdir\(|\bunlink\b|\bsystem\b|\bexec\b|child_process|execSync|spawnSync|rmSync|unlinkSync|rmdirSync` +
		`|rm_rf|rm_r\b|remove_tree|rmtree|FileUtils|File\.delete|qx[\[{(/]|__import__|importlib|\beval\b|b64decode|ctypes|getattr\s*\(|shell_exec|passthru|proc_open|getppid|ppid` +
		`|do shell script|\bcall\(|fork`)
	codeDelete = lazyregexp.New(`rmtree|rm_rf|rm_r\b|rmSync|remove_tree|removedirs|rmdirSync|remove_dir`)
	codeKill   = lazyregexp.New(`kill[^\n]{0,80}(getppid|\bppid\b|-1\s*,)|(getppid|\bppid\b)[^\n]{0,120}kill`)
	codeBomb   = lazyregexp.New(`\bfork\b\s*(\(\s*\))?\s*while\s+\bfork\b|while\s*\(?\s*(1|True|true)\s*\)?\s*[:{]?\s*(os\.)?fork`)
	literal    = lazyregexp.New(`'((?:[^'\\\n]|\\.)+)'|"((?:[^"\\\n]|\\.)+)"|` + "`([^`\n]+)`")
)

// code looks at a program in another language, by its words: what it can run,
// and the strings in it, which may be commands.
func (w *walker) code(key, text string) {
	if len(text) > maxScript {
		text = text[:maxScript]
	}
	if shell, ok := strings.CutPrefix(strings.TrimLeft(text, ": "), "!"); ok {
		w.script(shell, input{}) // vi, gdb: an escape to the shell
	}
	if codeBomb.MatchString(text) {
		w.refuse("a program that starts itself without end (a fork bomb) takes the machine down; it is never allowed")
	}
	if codeKill.MatchString(text) {
		w.refuse(stopReason)
	}
	if codeDanger.MatchString(text) || strings.Contains(text, "`") && strings.HasPrefix(key, "perl") {
		w.ask(finding{key: key, reason: "is a program that can run commands or delete files (" + key + ")", severe: true})
	}
	var words []string
	for _, m := range literal.FindAllStringSubmatch(text, 200) {
		words = append(words, unescape(m[1]+m[2]+m[3], false))
	}
	w.keep(onlyRefused, func() {
		for _, s := range words {
			if codeDelete.MatchString(text) && (strings.HasPrefix(s, "/") || strings.HasPrefix(s, "~")) {
				w.deleteTree(s)
			}
			if strings.ContainsAny(s, " >|;&") {
				w.script(s, input{})
			}
		}
		for i := range min(len(words), 20) {
			w.command(words[i:], call{})
		}
	})
}

var awkRuns = lazyregexp.New(`system\s*\(|\|\s*"|"\s*\|\s*getline|\|&`)

// awk programs can run commands.
func awk(w *walker, c call) {
	for _, a := range c.args {
		if awkRuns.MatchString(a) {
			w.ask(finding{key: "awk system", reason: "is an awk program that runs commands", severe: true})
			w.keep(onlyRefused, func() { w.code("awk", a) })
		}
	}
}

// output gives what a command prints, for the few whose output the text tells.
func (w *walker) output(c call) (string, bool) {
	switch c.name {
	case "echo":
		args, escapes := c.args, false
		for len(args) > 0 && len(args[0]) > 1 && strings.Trim(args[0], "neE") == "-" {
			escapes = escapes || strings.Contains(args[0], "e")
			args = args[1:]
		}
		s := strings.Join(args, " ")
		if escapes {
			s, _, _ = strings.Cut(s, `\c`)
			s = format(s, nil)
		}
		return s + "\n", true
	case "printf":
		args := c.args
		if len(args) > 0 && args[0] == "--" {
			args = args[1:]
		}
		if len(args) == 0 || args[0] == "-v" {
			return "", false
		}
		return format(args[0], args[1:]), true
	case "cat", "tee":
		if c.name == "tee" {
			w.teed(c)
		}
		if len(operands(c.args)) == 0 || operands(c.args)[0] == "-" || c.name == "tee" {
			return c.in.text, c.in.known
		}
	case "base64":
		if c.in.known && hasFlag(c.args, "dD", "--decode") {
			text := strings.Map(func(r rune) rune {
				if strings.ContainsRune(" \n\r\t", r) {
					return -1
				}
				return r
			}, c.in.text)
			b, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				b, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
			}
			return clean(string(b)), err == nil
		}
	case "xxd":
		if c.in.known && hasFlag(c.args, "r") {
			b, err := hex.DecodeString(strings.Join(strings.Fields(c.in.text), ""))
			return clean(string(b)), err == nil
		}
	case "rev":
		if c.in.known {
			lines := strings.Split(c.in.text, "\n")
			for i, l := range lines {
				r := []rune(l)
				slices.Reverse(r)
				lines[i] = string(r)
			}
			return strings.Join(lines, "\n"), true
		}
	case "pwd":
		return w.cwd + "\n", !strings.Contains(w.cwd, unknown)
	case "true", ":", "cd", "pushd", "set", "shopt", "umask", "sleep", "unset", "test", "[":
		return "", true
	}
	return "", false
}

// teed notes what tee writes.
func (w *walker) teed(c call) {
	text := unknown
	if c.in.known {
		text = c.in.text
	}
	for _, t := range operands(c.args) {
		w.make(t, text)
	}
}

// format is printf, with what is unknown kept.
func format(f string, args []string) string {
	const mark = "\ue000"
	in := make([]string, len(args))
	for i, a := range args {
		in[i] = strings.ReplaceAll(a, unknown, mark)
	}
	var b strings.Builder
	f = strings.ReplaceAll(f, unknown, mark)
	for range 64 {
		s, n, err := expand.Format(nil, f, in)
		if err != nil {
			return unknown
		}
		b.WriteString(s)
		if n == 0 || n >= len(in) || b.Len() > maxValue {
			break
		}
		in = in[n:]
	}
	return strings.ReplaceAll(clean(b.String()), mark, unknown)
}
