package approval

import (
	"strings"
)

// wrapper describes a program that runs the program named in its arguments.
type wrapper struct {
	valued  string // its options that take a value in the next argument, space separated
	skip    int    // arguments of its own before the program
	assigns bool   // takes NAME=value before the program
	key     string // where set, using it is asked about
	reason  string
	joined  bool // its arguments are joined and given to a shell
}

// wrappers are the programs that run others.
var wrappers = map[string]wrapper{
	"sudo": {valued: "-u -g -h -p -C -r -t -T -U -D -R --user --group --host --prompt --chdir --chroot --role --type", assigns: true,
		key: "sudo", reason: "runs as another user (sudo)"},
	"doas":                {valued: "-u -C -a", key: "doas", reason: "runs as another user (doas)"},
	"pkexec":              {valued: "--user", key: "pkexec", reason: "runs as another user (pkexec)"},
	"env":                 {valued: "-u -C --unset --chdir", assigns: true},
	"nohup":               {},
	"setsid":              {},
	"nice":                {valued: "-n --adjustment"},
	"ionice":              {valued: "-c -n -p --class --classdata"},
	"timeout":             {valued: "-s -k --signal --kill-after", skip: 1},
	"stdbuf":              {valued: "-i -o -e --input --output --error"},
	"time":                {valued: "-f -o --format --output"},
	"command":             {},
	"builtin":             {},
	"exec":                {valued: "-a"},
	"chrt":                {valued: "-T -P -D", skip: 1},
	"taskset":             {skip: 1},
	"strace":              {valued: "-o -e -p -s -u -E -a -b -I -O -S -P"},
	"ltrace":              {valued: "-o -e -p -s -u -a -l -n -F"},
	"unshare":             {valued: "-S -G -R -w --root --wd"},
	"nsenter":             {valued: "-t -S -G --target"},
	"chroot":              {skip: 1},
	"systemd-run":         {valued: "-p -u -E -t -H -M --property --unit --setenv --slice --description --on-active --on-calendar --uid --gid --working-directory", assigns: false},
	"systemd-inhibit":     {},
	"caffeinate":          {valued: "-t -w"},
	"xvfb-run":            {valued: "-n -s -f -e -w --server-args"},
	"dbus-run-session":    {},
	"dbus-launch":         {},
	"fakeroot":            {},
	"eatmydata":           {},
	"unbuffer":            {},
	"setpriv":             {},
	"prlimit":             {},
	"cpulimit":            {valued: "-l -p"},
	"choom":               {valued: "-n -p"},
	"bwrap":               {},
	"firejail":            {},
	"proot":               {},
	"gosu":                {skip: 1, key: "gosu", reason: "runs as another user (gosu)"},
	"busybox":             {},
	"toybox":              {},
	"catchsegv":           {},
	"rlwrap":              {},
	"chronic":             {},
	"entr":                {},
	"start-stop-daemon":   {},
	"daemonize":           {},
	"watch":               {valued: "-n --interval", joined: true},
	"parallel":            {valued: "-j --jobs", joined: true},
	"uv":                  {},
	"poetry":              {},
	"torify":              {},
	"torsocks":            {},
	"proxychains":         {},
	"proxychains4":        {},
	"ssh":                 {valued: "-b -c -D -E -e -F -I -i -J -L -l -m -O -o -p -Q -R -S -W -w", skip: 1, joined: true},
	"linux64":             {},
	"linux32":             {},
	"setarch":             {},
	"numactl":             {valued: "-m -N -C"},
	"aa-exec":             {valued: "-p"},
	"pipenv":              {},
	"npx":                 {valued: "-p --package"},
	"valgrind":            {},
	"perf":                {},
	"dumb-init":           {},
	"tini":                {},
	"with-contenv":        {},
	"flatpak-spawn":       {},
	"distrobox-host-exec": {},
}

// launchers are the programs that may stand behind a wrapper whose options are
// not understood; from each of them on the rest is tried for the hard line.
var launchers = map[string]bool{
	"rm": true, "dd": true, "shred": true, "find": true, "chmod": true, "chown": true, "mv": true, "wipefs": true, "blkdiscard": true,
	"shutdown": true, "reboot": true, "poweroff": true, "halt": true, "init": true, "telinit": true, "systemctl": true, "loginctl": true,
	"kill": true, "pkill": true, "killall": true, "sh": true, "bash": true, "dash": true, "zsh": true, "ksh": true, "eval": true,
	"xargs": true, "sudo": true, "env": true, "python": true, "python3": true, "perl": true, "tee": true, "mkfs": true,
}

// wrapped looks at the program behind a wrapper.
func wrapped(w *walker, c call) {
	wr := wrappers[c.name]
	if wr.key != "" {
		w.ask(finding{key: wr.key, reason: wr.reason, severe: true})
	}
	valued := map[string]bool{}
	for f := range strings.FieldsSeq(wr.valued) {
		valued[f] = true
	}
	i, options := 0, false
	for i < len(c.args) {
		a := c.args[i]
		if wr.assigns && isAssignment(a) {
			name, v, _ := strings.Cut(a, "=")
			w.assign(name, v, a)
			i++
			continue
		}
		if a == "--" {
			i++
			break
		}
		if !strings.HasPrefix(a, "-") {
			break
		}
		options = true
		name, _, equals := strings.Cut(a, "=")
		if c.name == "env" && (strings.HasPrefix(a, "-S") || name == "--split-string") {
			w.script(strings.TrimPrefix(strings.TrimPrefix(a, "-S"), "--split-string=")+" "+strings.Join(c.args[i+1:], " "), c.in)
			return
		}
		if !equals && (valued[name] || !strings.HasPrefix(a, "--") && len(a) > 2 && valued["-"+a[len(a)-1:]]) {
			i++
		}
		i++
	}
	// Assignments may follow "--" as well, and env takes them anywhere before the program.
	for wr.assigns && i < len(c.args) && isAssignment(c.args[i]) {
		i++
	}
	rest := c.args[min(i, len(c.args)):]
	if wr.joined {
		if wr.skip > 0 {
			rest = rest[min(wr.skip, len(rest)):]
		}
		if len(rest) > 0 {
			w.script(strings.Join(rest, " "), c.in)
		}
		return
	}
	inner := rest[min(wr.skip, len(rest)):]
	if len(inner) == 0 && wr.key != "" {
		shell(w, call{name: "sh", in: c.in, src: c.src}) // sudo -s, sudo -i
		return
	}
	w.command(inner, call{in: c.in, src: c.src, proc: c.proc, procText: c.procText, plain: true})
	if options || wr.valued == "" {
		w.scan(c.args, c)
	}
}

// scan tries every later argument that names a dangerous program as the start
// of a command, and keeps what is on the hard line.
func (w *walker) scan(args []string, c call) {
	w.keep(onlyRefused, func() {
		for i, a := range args {
			base := a[strings.LastIndexByte(a, '/')+1:]
			if launchers[base] || strings.HasPrefix(base, "mkfs.") || w.isGateway(base) {
				w.command(args[i:], call{in: c.in, src: c.src})
			}
		}
	})
}

func isAssignment(a string) bool {
	name, _, ok := strings.Cut(a, "=")
	if !ok || name == "" {
		return false
	}
	for i, r := range name {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return true
}

// userSwitch is su and runuser: a command after -c, or behind the options.
func userSwitch(w *walker, c call) {
	w.ask(finding{key: c.name, reason: "runs as another user (" + c.name + ")", severe: true})
	if s, ok := optionValue(c.args, "-c", "--command"); ok {
		w.script(s, c.in)
	} else if c.in.known {
		w.script(c.in.text, input{})
	}
	w.scan(c.args, c)
}

// optionValue finds the value of an option in the forms -c v, --long v and
// --long=v, and -xc v for a cluster that ends in c.
func optionValue(args []string, names ...string) (string, bool) {
	for i, a := range args {
		for _, n := range names {
			if v, ok := strings.CutPrefix(a, n+"="); ok {
				return v, true
			}
			cluster := len(n) == 2 && len(a) > 2 && a[0] == '-' && a[1] != '-' && strings.HasSuffix(a, n[1:])
			if (a == n || cluster) && i+1 < len(args) {
				return args[i+1], true
			}
		}
	}
	return "", false
}

// hasFlag tells whether args hold one of the long options, or one of the
// letters in a cluster of short ones.
func hasFlag(args []string, letters string, long ...string) bool {
	for _, a := range args {
		if a == "--" {
			return false
		}
		if strings.HasPrefix(a, "--") {
			name, _, _ := strings.Cut(a, "=")
			for _, l := range long {
				// GNU programs take unambiguous beginnings of long options.
				if name == l || len(name) >= 5 && strings.HasPrefix(l, name) {
					return true
				}
			}
		} else if len(a) > 1 && a[0] == '-' && strings.ContainsAny(a[1:], letters) {
			return true
		}
	}
	return false
}

// operands are the arguments that are no options.
func operands(args []string) []string {
	var out []string
	for i, a := range args {
		if a == "--" {
			return append(out, args[i+1:]...)
		}
		if !strings.HasPrefix(a, "-") || a == "-" {
			out = append(out, a)
		}
	}
	return out
}

// xargs runs its arguments with words from its input behind them, or in the
// place of {}.
func xargs(w *walker, c call) {
	valued := map[string]bool{"-I": true, "-n": true, "-P": true, "-L": true, "-s": true, "-d": true, "-a": true, "-E": true,
		"--max-args": true, "--max-procs": true, "--delimiter": true, "--replace": true, "--arg-file": true}
	i, place := 0, ""
	for i < len(c.args) && strings.HasPrefix(c.args[i], "-") {
		a := c.args[i]
		if strings.HasPrefix(a, "-I") {
			if place = strings.TrimPrefix(a, "-I"); place == "" && i+1 < len(c.args) {
				place = c.args[i+1]
			}
		}
		if valued[a] {
			i++
		}
		i++
	}
	more := []string{unknown}
	if c.in.known {
		more = strings.Fields(c.in.text)
		if len(more) > 256 {
			more = append(more[:256], unknown)
		}
	}
	inner := append([]string{}, c.args[min(i, len(c.args)):]...)
	if len(inner) == 0 {
		return
	}
	if place != "" {
		for j := range inner {
			inner[j] = strings.ReplaceAll(inner[j], place, strings.Join(more, " "))
		}
	} else {
		inner = append(inner, more...)
	}
	w.command(inner, call{src: c.src + " " + c.in.src})
	w.scan(c.args, c)
}

// find looks at what find does with what it finds.
func find(w *walker, c call) {
	var starts []string
	i := 0
	for i < len(c.args) && (!strings.HasPrefix(c.args[i], "-") || c.args[i] == "-L" || c.args[i] == "-H" || c.args[i] == "-P") &&
		c.args[i] != "(" && c.args[i] != "!" {
		if c.args[i][0] != '-' {
			starts = append(starts, c.args[i])
		}
		i++
	}
	if len(starts) == 0 {
		starts = []string{"."}
	}
	rest, narrow := c.args[i:], false
	for _, a := range rest {
		switch a {
		case "-name", "-iname", "-path", "-ipath", "-mtime", "-mmin", "-atime", "-ctime", "-size", "-newer", "-user", "-empty",
			"-regex", "-iregex", "-perm", "-samefile", "-inum", "-links", "-group", "-wholename":
			narrow = true
		}
	}
	for j, a := range rest {
		switch a {
		case "-delete":
			for _, s := range starts {
				if !narrow {
					w.deleteTree(s)
				}
			}
			w.ask(finding{key: "find -delete", reason: "deletes what find finds"})
		case "-exec", "-execdir", "-ok", "-okdir":
			inner := rest[j+1:]
			for k, x := range inner {
				if x == ";" || x == "+" {
					inner = inner[:k]
					break
				}
			}
			w.findExec(inner, starts, narrow, c)
		case "-fprint", "-fprintf", "-fls", "-fprint0":
			if j+1 < len(rest) {
				w.write(rest[j+1])
			}
		}
	}
}

func (w *walker) findExec(inner, starts []string, narrow bool, c call) {
	for _, s := range starts {
		target := s
		if narrow {
			target = strings.TrimSuffix(s, "/") + "/" + unknown
		}
		args := make([]string, len(inner))
		for i, a := range inner {
			args[i] = strings.ReplaceAll(a, "{}", target)
		}
		w.command(args, call{src: c.src})
	}
}
