package approval

import (
	"path"
	"slices"
	"strings"

	"hermes/internal/lazyregexp"
)

// userScript is script(1): a command after -c.
func userScript(w *walker, c call) {
	if s, ok := optionValue(c.args, "-c", "--command"); ok {
		w.script(s, c.in)
	}
	for _, t := range operands(c.args) {
		w.write(t)
	}
}

// flocked is flock FILE COMMAND…, or flock FILE -c TEXT.
func flocked(w *walker, c call) {
	if s, ok := optionValue(c.args, "-c", "--command"); ok {
		w.script(s, c.in)
		return
	}
	if ops := dropValues(c.args, "-w", "--timeout", "-E"); len(ops) > 1 {
		i := slices.Index(c.args, ops[1])
		w.command(c.args[i:], call{in: c.in, src: c.src})
	}
}

// multiplexer is tmux and screen, which take commands as arguments and as keys.
func multiplexer(w *walker, c call) {
	for i, a := range c.args {
		if strings.ContainsAny(a, " ;") {
			w.script(a, input{})
		}
		if (a == "-dm" || a == "-dmS" || a == "-m") && i+1 < len(c.args) {
			w.scan(c.args[i+1:], c)
		}
	}
	w.scan(c.args, c)
}

// fdExec is fd -x and -X.
func fdExec(w *walker, c call) {
	for i, a := range c.args {
		if (a == "-x" || a == "-X" || a == "--exec" || a == "--exec-batch") && i+1 < len(c.args) {
			w.command(append(slices.Clone(c.args[i+1:]), unknown), call{src: c.src})
		}
	}
}

// sshCommand looks at what is run on the other side, and at secrets sent there.
func sshCommand(w *walker, c call) {
	network(w, c)
	wrapped(w, c)
}

// network asks when secrets leave the machine, and looks at files that are written.
func network(w *walker, c call) {
	if c.in.secret || leaksInArgs.MatchString(c.src) {
		w.ask(finding{key: "send secrets", reason: "sends the environment or stored secrets to the network (" + c.name + ")", severe: true})
	}
	switch c.name {
	case "curl":
		if out, ok := optionValue(c.args, "-o", "--output"); ok {
			w.write(out)
			w.make(out, unknown)
		} else if hasFlag(c.args, "O", "--remote-name") {
			w.makeByURL(c.args)
		}
	case "wget":
		if out, ok := optionValue(c.args, "-O", "--output-document"); ok {
			w.write(out)
			w.make(out, unknown)
		} else {
			w.makeByURL(c.args)
		}
	case "nc", "ncat", "netcat", "socat":
		if hasFlag(c.args, "ec", "--exec", "--sh-exec") || slices.ContainsFunc(c.args, func(a string) bool {
			return strings.HasPrefix(strings.ToUpper(a), "EXEC:") || strings.HasPrefix(strings.ToUpper(a), "SYSTEM:")
		}) {
			w.ask(finding{key: c.name + " -e", reason: "gives a shell to the network (" + c.name + ")", severe: true})
		}
	}
}

// makeByURL notes the file that a download leaves under its own name.
func (w *walker) makeByURL(args []string) {
	for _, a := range operands(args) {
		if name := path.Base(a); strings.Contains(a, "/") && name != "." && name != "/" {
			w.make(name, unknown)
		}
	}
}

var leaksInArgs = lazyregexp.New("(\\$\\(|`)\\s*(env|printenv|set|export -p|declare -px)\\s*[|)`]" +
	"|(\\$\\(|`)[^)`]*(\\.env\\b|auth\\.json|/environ\\b|id_(rsa|ed25519|ecdsa)\\b|/etc/shadow)")

// container asks about what containers, images and volumes do not come back from.
func container(w *walker, c call) {
	ops := dropValues(c.args, "-f", "--file", "--context", "-H", "--host", "-p", "--project-name")
	if len(ops) == 0 {
		return
	}
	name := c.name
	if ops[0] == "compose" || ops[0] == "container" || ops[0] == "image" || ops[0] == "volume" || ops[0] == "network" || ops[0] == "system" || ops[0] == "builder" {
		name += " " + ops[0]
		ops = ops[1:]
	}
	if len(ops) == 0 {
		return
	}
	verb := ops[0]
	lose := func(key string) {
		w.ask(finding{key: key, reason: "deletes containers, images or volumes (" + key + ")"})
	}
	switch {
	case verb == "prune":
		lose(c.name + " prune")
	case verb == "rm" || verb == "rmi":
		lose(name + " " + verb)
	case verb == "down" && hasFlag(c.args, "v", "--volumes", "--rmi"):
		lose(name + " down -v")
	case verb == "run" && slices.ContainsFunc(c.args, func(a string) bool {
		return a == "--privileged" || strings.HasPrefix(a, "/:") || strings.Contains(a, "docker.sock") || a == "--pid=host"
	}):
		w.ask(finding{key: c.name + " run --privileged", reason: "gives a container the rights of the host", severe: true})
	}
}

var cloudDelete = lazyregexp.New(`^(delete|destroy|uninstall|rb|terminate-instances|drain|remove|purge|delete-[a-z-]+)$`)

// cloud asks about deletions in clusters, clouds and forges.
func cloud(w *walker, c call) {
	for _, a := range operands(c.args) {
		if cloudDelete.MatchString(a) || c.name == "aws" && a == "rm" || c.name == "gh" && a == "archive" {
			w.ask(finding{key: c.name + " " + a, reason: "deletes things that others may use (" + c.name + " " + a + ")", severe: true})
			return
		}
	}
	if c.in.secret || leaksInArgs.MatchString(c.src) {
		network(w, c)
	}
}

var (
	sqlDrop   = lazyregexp.New(`(?i)\b(drop\s+(table|database|schema|index|view|user|role|column)|truncate\b|flushall|flushdb|dropdatabase|drop_database|\.drop\s*\()`)
	sqlDelete = lazyregexp.New(`(?i)\b(delete\s+from\s+\S+|update\s+\S+\s+set\s+[^;]*)`)
	sqlWhere  = lazyregexp.New(`(?i)\bwhere\b`)
	sqlChange = lazyregexp.New(`(?i)\b(insert|update|delete|drop|alter|replace|vacuum|truncate)\b`)
)

// sql asks about statements that lose whole tables, and keeps the ledger whole.
func sql(w *walker, c call) {
	text := strings.Join(c.args, " ; ")
	if c.in.known {
		text += " ; " + c.in.text
	}
	for _, a := range operands(c.args) {
		if p := w.resolve(a); w.isLife(p) {
			if sqlChange.MatchString(text) {
				w.refuse(lifeReason)
				return
			}
			w.ask(finding{key: "open ledger", reason: "opens the gateway's ledger beside the gateway", severe: true})
		}
	}
	key := c.name + " delete"
	if sqlDrop.MatchString(text) || c.name == "dropdb" || c.name == "mysqladmin" && slices.Contains(c.args, "drop") {
		w.ask(finding{key: key, reason: "deletes whole tables or databases (" + c.name + ")", severe: true})
		return
	}
	for stmt := range strings.SplitSeq(text, ";") {
		if sqlDelete.MatchString(stmt) && !sqlWhere.MatchString(stmt) {
			w.ask(finding{key: key, reason: "changes or deletes every row of a table (no WHERE; " + c.name + ")", severe: true})
			return
		}
	}
}

// packages asks about removals.
func packages(w *walker, c call) {
	ops := operands(c.args)
	if len(ops) == 0 && c.name != "pacman" && c.name != "dpkg" && c.name != "rpm" {
		return
	}
	remove := len(ops) > 0 && slices.Contains([]string{"remove", "purge", "autoremove", "erase", "uninstall", "del", "rm", "autopurge", "unmerge"}, ops[0])
	switch c.name {
	case "pacman":
		remove = len(c.args) > 0 && strings.HasPrefix(c.args[0], "-R")
	case "dpkg":
		remove = hasFlag(c.args, "rP", "--remove", "--purge")
	case "rpm":
		remove = hasFlag(c.args, "e", "--erase")
	case "emerge":
		remove = hasFlag(c.args, "CW", "--unmerge", "--depclean")
	}
	if remove {
		w.ask(finding{key: c.name + " remove", reason: "removes installed packages (" + c.name + ")", severe: true})
	}
}
