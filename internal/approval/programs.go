package approval

import (
	"path"
	"slices"
	"strings"

	"hermes/internal/lazyregexp"
)

// programs says how each program that can do harm is looked at. A program that
// is not named here does no harm by its name alone.
var programs = table()

func table() map[string]check {
	t := map[string]check{
		"eval": evaluate, "trap": trap, "alias": alias, "source": source, ".": source, "at": reader, "batch": reader,
		"su": userSwitch, "runuser": userSwitch, "script": userScript, "flock": flocked, "tmux": multiplexer, "screen": multiplexer,
		"xargs": xargs, "find": find, "fd": fdExec, "awk": awk, "gawk": awk, "mawk": awk, "nawk": awk, "read": readVars, "set": setParams,
		"rm": remove, "rmdir": moved, "unlink": moved, "srm": remove, "mv": moved, "cp": copied, "install": copied, "ln": copied, "rsync": rsync,
		"tee": written, "truncate": written, "touch": written, "sponge": written, "sed": sed, "dd": dd, "shred": shred, "wipe": shred,
		"mkfs": mkfs, "mke2fs": mkfs, "mkswap": mkfs, "wipefs": mkfs, "blkdiscard": mkfs, "cryptsetup": cryptsetup, "badblocks": mkfs,
		"fdisk": disk, "sfdisk": disk, "gdisk": disk, "sgdisk": disk, "cfdisk": disk, "parted": disk,
		"lvremove": disk, "vgremove": disk, "pvremove": disk, "zpool": disk, "zfs": disk,
		"chmod": chmod, "chown": chown, "chgrp": chown, "chattr": chmod, "setfacl": chmod,
		"cd": chdir, "pushd": chdir,
		"systemctl": systemctl, "service": service, "rc-service": service, "loginctl": loginctl, "busctl": bus, "dbus-send": bus, "gdbus": bus, "qdbus": bus,
		"kill": kill, "pkill": killByName, "killall": killByName, "killall5": killByName, "skill": killByName, "xkill": killByName, "fuser": fuser,
		"shutdown": power, "reboot": power, "poweroff": power, "halt": power, "init": power, "telinit": power, "pm-suspend": power, "kexec": power,
		"crontab": crontab, "git": git, "docker": container, "podman": container, "nerdctl": container, "docker-compose": container, "kubectl": cloud,
		"helm": cloud, "terraform": cloud, "tofu": cloud, "aws": cloud, "gcloud": cloud, "az": cloud, "gh": cloud, "doctl": cloud,
		"psql": sql, "mysql": sql, "mariadb": sql, "sqlite3": sql, "sqlite": sql, "duckdb": sql, "clickhouse-client": sql, "sqlcmd": sql,
		"redis-cli": sql, "mongosh": sql, "mongo": sql, "cockroach": sql, "dropdb": sql, "mysqladmin": sql,
		"apt": packages, "apt-get": packages, "aptitude": packages, "dpkg": packages, "yum": packages, "dnf": packages, "rpm": packages,
		"pacman": packages, "zypper": packages, "apk": packages, "brew": packages, "snap": packages, "flatpak": packages, "pip": packages,
		"pip3": packages, "pipx": packages, "emerge": packages,
		"curl": network, "wget": network, "nc": network, "ncat": network, "netcat": network, "socat": network, "telnet": network, "scp": network,
		"sftp": network, "ftp": network, "http": network, "https": network, "openssl": network, "mail": network, "mailx": network, "sendmail": network,
		"sysctl": kernel, "swapoff": kernel, "rmmod": kernel, "modprobe": kernel, "mount": mount, "umount": mount, "exit": nothing, "go": goRun,
		"tar": tar, "unzip": tar,
	}
	for name := range wrappers {
		t[name] = wrapped
	}
	for name := range interpreters {
		t[name] = interpret
	}
	for _, name := range []string{"python3.9", "python3.10", "python3.11", "python3.12", "python3.13", "python3.14"} {
		t[name] = interpret
	}
	for _, name := range []string{"sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish", "rbash", "csh", "tcsh"} {
		t[name] = shell
	}
	t["ssh"] = sshCommand
	for name, what := range map[string]string{
		"iptables": "firewall", "ip6tables": "firewall", "nft": "firewall", "ufw": "firewall", "firewall-cmd": "firewall", "iptables-restore": "firewall",
		"useradd": "users", "userdel": "users", "usermod": "users", "groupadd": "users", "groupdel": "users", "groupmod": "users", "passwd": "users",
		"chpasswd": "users", "adduser": "users", "deluser": "users", "visudo": "users", "chsh": "users", "gpasswd": "users",
	} {
		t[name] = asks(what, "changes the system's "+what)
	}
	return t
}

func nothing(*walker, call) {}

// asks is a check that asks whenever the program changes anything.
func asks(key, reason string) check {
	return func(w *walker, c call) {
		if len(c.args) > 0 && slices.Contains([]string{"-L", "-S", "--list", "list", "status", "--help", "--version", "-nL", "-nvL", "-Ln", "--list-all"}, c.args[0]) {
			return
		}
		w.ask(finding{key: key, reason: reason + " (" + c.name + ")", severe: true})
	}
}

// remove is rm.
func remove(w *walker, c call) {
	recursive := hasFlag(c.args, "rR", "--recursive")
	if hasFlag(c.args, "", "--no-preserve-root") {
		w.refuse("deleting / destroys the system; it is never allowed")
		return
	}
	targets := operands(c.args)
	low := len(targets) > 0
	for _, t := range targets {
		w.write(t)
		if recursive || contents(t) != t {
			w.deleteTree(t)
		}
		low = low && w.isGenerated(t)
	}
	if !recursive {
		return
	}
	reason := "deletes folders with all that they hold (rm -r)"
	for _, t := range targets {
		if rest := strings.TrimLeft(t, unknown); rest != t && (rest == "/" || rest == "/*") {
			reason = "deletes " + shown(t) + ", which is the whole system should the variable be empty (rm -r)"
		}
	}
	w.ask(finding{key: "rm -r", reason: reason, low: low})
}

// moved is mv, rmdir, unlink: what is named leaves its place.
func moved(w *walker, c call) {
	ops := operands(c.args)
	for i, t := range ops {
		w.write(t)
		if c.name == "mv" && i == len(ops)-1 {
			return
		}
		w.deleteTree(t)
	}
}

// copied is cp, install and ln: the last operand is written.
func copied(w *walker, c call) {
	ops := operands(c.args)
	if dir, ok := optionValue(c.args, "-t", "--target-directory"); ok {
		for _, o := range ops {
			w.write(dir + "/" + path.Base(o))
		}
		return
	}
	if len(ops) < 2 {
		return
	}
	dest := ops[len(ops)-1]
	w.write(dest)
	for _, o := range ops[:len(ops)-1] {
		w.write(dest + "/" + path.Base(o))
	}
}

func rsync(w *walker, c call) {
	network(w, c)
	if hasFlag(c.args, "", "--delete", "--delete-after", "--delete-before", "--delete-excluded", "--remove-source-files") {
		w.ask(finding{key: "rsync --delete", reason: "deletes what the source does not have (rsync --delete)"})
		if ops := operands(c.args); len(ops) > 1 {
			w.deleteTree(ops[len(ops)-1])
		}
	}
	copied(w, c)
}

func written(w *walker, c call) {
	for _, t := range dropValues(c.args, "-s", "--size", "-r", "-d", "-t", "--reference", "--date") {
		w.write(t)
	}
}

func sed(w *walker, c call) {
	if !hasFlag(c.args, "i", "--in-place") {
		return
	}
	for _, t := range operands(c.args) {
		if strings.Contains(t, "/") && !strings.HasPrefix(t, "s/") {
			w.write(t)
		}
	}
}

func tar(w *walker, c call) {
	if dir, ok := optionValue(c.args, "-C", "--directory", "-d"); ok && (c.name == "unzip" || hasFlag(c.args, "x", "--extract")) {
		w.write(dir)
	}
	if v, ok := optionValue(c.args, "--checkpoint-action", "--to-command", "-I", "--use-compress-program"); ok {
		w.script(strings.TrimPrefix(v, "exec="), input{})
	}
}

func dd(w *walker, c call) {
	for _, a := range c.args {
		if of, ok := strings.CutPrefix(a, "of="); ok {
			w.write(of)
		}
	}
}

func shred(w *walker, c call) {
	for _, t := range operands(c.args) {
		w.write(t)
		w.deleteTree(t)
	}
	w.ask(finding{key: c.name, reason: "overwrites files for good (" + c.name + ")"})
}

// mkfs and its kin overwrite a device.
func mkfs(w *walker, c call) {
	if c.name == "wipefs" && !hasFlag(c.args, "ao", "--all", "--offset") || hasFlag(c.args, "V", "--help", "--version") {
		return
	}
	for _, t := range operands(c.args) {
		if p := w.resolve(t); isDevice(p) || strings.HasPrefix(p, "/dev/") {
			w.refuse(deviceReason)
			return
		}
	}
	w.ask(finding{key: "mkfs", reason: "makes a new file system, which loses the old one (" + clip(c.name) + ")", severe: true})
}

func cryptsetup(w *walker, c call) {
	if slices.ContainsFunc(c.args, func(a string) bool {
		return a == "luksFormat" || a == "erase" || a == "luksErase" || a == "reencrypt"
	}) {
		mkfs(w, c)
	}
}

func disk(w *walker, c call) {
	if hasFlag(c.args, "lps", "--list", "--print", "--version", "--help") || slices.Contains(c.args, "print") || slices.Contains(c.args, "list") || slices.Contains(c.args, "status") || len(c.args) == 0 {
		return
	}
	w.ask(finding{key: c.name, reason: "changes disks (" + c.name + ")", severe: true})
}

var looseMode = lazyregexp.New(`^0?[0-7]?[0-7][0-7][2367]$|^[ugo]*[oa][ugoa]*[+=][rwxXst]*w|^[ugoa]*[+=][rwxX]*s|^[2467][0-7]{3}$`)

func chmod(w *walker, c call) {
	ops := operands(c.args)
	if len(ops) == 0 {
		return
	}
	recursive := hasFlag(c.args, "R", "--recursive")
	for _, t := range ops[1:] {
		w.rights(t, recursive)
	}
	if mode := ops[0]; c.name == "chmod" && looseMode.MatchString(mode) && !strings.HasPrefix(mode, "u") && mode != "+w" {
		w.ask(finding{key: "chmod 777", reason: "lets everybody write, or run with other rights (chmod " + clip(mode) + ")", severe: true})
	}
}

func chown(w *walker, c call) {
	ops := operands(c.args)
	recursive := hasFlag(c.args, "R", "--recursive")
	for _, t := range ops[min(1, len(ops)):] {
		w.rights(t, recursive)
	}
	if recursive {
		w.ask(finding{key: c.name + " -R", reason: "changes the owner of whole folders (" + c.name + " -R)", severe: true})
	}
}

// rights looks at a path whose rights or owner change.
func (w *walker) rights(t string, recursive bool) {
	if recursive && w.vital(t, false) {
		w.refuse("changing the rights or owner of a whole system folder (" + shown(w.resolve(t)) + ") breaks the machine; it is never allowed")
	}
	p := w.resolve(t)
	if w.isLife(p) || p == w.o.Home && w.o.Home != "" {
		w.refuse(lifeReason)
		return
	}
	w.write(t)
}

func fuser(w *walker, c call) {
	if hasFlag(c.args, "k", "--kill") {
		w.ask(finding{key: "fuser -k", reason: "ends whatever uses a file or port, which may be the gateway (fuser -k)", severe: true})
	}
}

// git asks about what loses commits or changes that were not committed.
func git(w *walker, c call) {
	args := c.args
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		if (args[0] == "-c" || args[0] == "-C" || args[0] == "--git-dir" || args[0] == "--work-tree") && len(args) > 1 {
			args = args[1:]
		}
		args = args[1:]
	}
	for _, a := range c.args {
		if i := strings.IndexByte(a, '!'); i == 0 || i > 0 && strings.Contains(a, "alias.") {
			w.script(a[i+1:], input{})
		}
	}
	if len(args) == 0 {
		return
	}
	sub, rest := args[0], args[1:]
	lose := func(key, reason string) { w.ask(finding{key: key, reason: reason + " (" + key + ")"}) }
	switch sub {
	case "push":
		forced := hasFlag(rest, "f", "--force", "--force-with-lease", "--mirror") || slices.ContainsFunc(operands(rest), func(a string) bool { return a[:min(1, len(a))] == "+" })
		if forced {
			lose("git push --force", "overwrites what others may have pushed")
		}
		if hasFlag(rest, "d", "--delete") {
			lose("git push --delete", "deletes a remote branch")
		}
	case "reset":
		if hasFlag(rest, "", "--hard") {
			lose("git reset --hard", "throws away changes that were not committed")
		}
	case "clean":
		if hasFlag(rest, "f", "--force") && !hasFlag(rest, "n", "--dry-run") {
			lose("git clean", "deletes files that git does not know")
		}
	case "branch":
		if hasFlag(rest, "D") {
			lose("git branch -D", "deletes a branch that may not be merged")
		}
	case "stash":
		if len(rest) > 0 && (rest[0] == "drop" || rest[0] == "clear") {
			lose("git stash drop", "deletes stashed changes")
		}
	case "filter-branch", "filter-repo":
		lose("git "+sub, "rewrites the history")
	}
}

// goRun sees through `go run ./cmd/hermes …`.
func goRun(w *walker, c call) {
	if len(c.args) < 2 || c.args[0] != "run" {
		return
	}
	for i, a := range c.args[1:] {
		if w.isGateway(path.Base(a)) {
			gateway(w, call{name: "hermes", args: c.args[i+2:], src: c.src})
			return
		}
	}
}

func kernel(w *walker, c call) {
	if c.name == "sysctl" && !hasFlag(c.args, "wp", "--write", "--load", "--system") && !slices.ContainsFunc(c.args, func(a string) bool { return strings.Contains(a, "=") }) {
		return
	}
	w.ask(finding{key: c.name, reason: "changes the running kernel (" + c.name + ")", severe: true})
}

func mount(w *walker, c call) {
	if len(operands(c.args)) > 0 && !hasFlag(c.args, "l") {
		w.ask(finding{key: c.name, reason: "changes what is mounted (" + c.name + ")", severe: true})
	}
}

// readVars is the builtin read: the last name gets what is known of the input.
func readVars(w *walker, c call) {
	for _, name := range dropValues(c.args, "-d", "-n", "-N", "-p", "-t", "-u", "-i", "-a") {
		v := unknown
		if c.in.known {
			v, _, _ = strings.Cut(c.in.text, "\n")
		}
		w.assign(name, v, c.in.src)
	}
}

// setParams is the builtin set, which may replace the positional parameters.
func setParams(w *walker, c call) {
	if i := slices.Index(c.args, "--"); i >= 0 {
		w.params = append([]string{}, c.args[i+1:]...)
	}
}
