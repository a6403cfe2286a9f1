package approval

import (
	"path"
	"strings"
)

// resolve makes a path absolute and clean, as far as it is known.
func (w *walker) resolve(p string) string {
	if p == "~" || strings.HasPrefix(p, "~/") {
		p = w.tilde(p)
	}
	if !strings.HasPrefix(p, "/") && !strings.HasPrefix(p, unknown) {
		p = w.cwd + "/" + p
	}
	if strings.HasPrefix(p, "/") {
		p = path.Clean(p)
	}
	// The root folder and the working folder have other names under /proc.
	if parts := strings.SplitN(p, "/", 5); len(parts) >= 4 && parts[1] == "proc" && (parts[3] == "root" || parts[3] == "cwd") {
		rest := ""
		if len(parts) == 5 {
			rest = parts[4]
		}
		if parts[3] == "root" {
			return path.Clean("/" + rest)
		}
		return path.Clean(w.cwd + "/" + rest)
	}
	return p
}

// within tells whether p is dir or lies in it.
func within(p, dir string) bool {
	return dir != "" && (p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/"))
}

// systemDirs are folders that a machine does not outlive.
var systemDirs = map[string]bool{
	"/": true, "/bin": true, "/boot": true, "/dev": true, "/etc": true, "/home": true, "/lib": true, "/lib32": true, "/lib64": true,
	"/libx32": true, "/opt": true, "/proc": true, "/root": true, "/run": true, "/sbin": true, "/srv": true, "/sys": true, "/usr": true,
	"/usr/bin": true, "/usr/lib": true, "/usr/lib64": true, "/usr/local": true, "/usr/sbin": true, "/usr/share": true, "/var": true,
	"/var/lib": true, "/var/log": true, "/nix": true, "/System": true, "/Users": true, "/Library": true, "/Applications": true,
}

// contents takes "/*", "/.*" and the like off the end: all that a folder holds
// is as good as the folder.
func contents(p string) string {
	for {
		dir, base := path.Split(p)
		if base == "" || strings.Trim(base, "*?.!{},[]^@()|") != "" || !strings.ContainsAny(base, "*?[") {
			return p
		}
		if p = strings.TrimSuffix(dir, "/"); p == "" {
			return "/"
		}
	}
}

// vital says whether an absolute path is a folder that the machine, or with
// home the user, cannot do without.
func (w *walker) vital(p string, home bool) bool {
	p = contents(w.resolve(p))
	if systemDirs[p] {
		return p != "/root" || home || w.o.UserHome != "/root"
	}
	if dir, base := path.Split(p); dir == "/" && strings.ContainsAny(base, "*?[") {
		return true
	}
	return home && w.o.UserHome != "" && (p == w.o.UserHome || within(w.o.UserHome, p))
}

// isDevice tells whether a path is a disk.
func isDevice(p string) bool {
	name, ok := strings.CutPrefix(p, "/dev/")
	if !ok {
		return false
	}
	for _, prefix := range []string{"sd", "hd", "vd", "xvd", "nvme", "mmcblk", "disk", "mapper/", "md", "dm-", "loop", "root", "mem", "kmem", "port", "*", "zd", "ram", "block", "rdisk"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// isLife tells whether a path belongs to what keeps the gateway alive: its
// units, the lingering flag, the ledger, its locks and sockets, its binaries.
func (w *walker) isLife(p string) bool {
	o := w.o
	base := path.Base(p)
	switch {
	case within(p, "/var/lib/systemd/linger"):
		return true
	case strings.HasPrefix(base, "hermes") && (strings.Contains(p, "/systemd/user/") || strings.Contains(p, "/systemd/system/")),
		strings.Contains(p, "/systemd/") && strings.Contains(p, "/hermes-"):
		return true
	case o.UserHome != "" && within(p, o.UserHome+"/.local/share/hermes/versions"),
		o.UserHome != "" && p == o.UserHome+"/.local/bin/hermes":
		return true
	}
	if o.Home == "" {
		return false
	}
	dir := path.Dir(p)
	if dir != o.Home && (o.Root == "" || dir != o.Root && path.Dir(dir) != o.Root+"/profiles") {
		return false
	}
	switch base {
	case "ledger.db", "ledger.db-wal", "ledger.db-shm", "gateway.lock", "gateway.sock", "gateway.pid", "gateway_state.json", "binary.pin":
		return true
	}
	return strings.ContainsAny(base, "*?[") && matches(base, "ledger.db", "gateway.lock", "gateway.sock")
}

func matches(glob string, names ...string) bool {
	for _, n := range names {
		if ok, _ := path.Match(glob, n); ok {
			return true
		}
	}
	return false
}

// isSettings tells whether a path is the profile's configuration.
func (w *walker) isSettings(p string) bool {
	return w.profileFile(p, "config.yaml", ".env", "auth.json")
}

// isSecret tells whether a path holds keys.
func (w *walker) isSecret(p string) bool {
	if w.profileFile(p, ".env", "auth.json") {
		return true
	}
	switch base := path.Base(p); {
	case p == "/etc/shadow" || p == "/etc/gshadow":
		return true
	case strings.HasPrefix(p, "/proc/") && base == "environ":
		return true
	case strings.Contains(p, "/.ssh/") && !strings.HasSuffix(base, ".pub") && (strings.HasPrefix(base, "id_") || strings.HasSuffix(base, ".pem") || base == "*"):
		return true
	}
	h := w.o.UserHome
	return h != "" && (p == h+"/.aws/credentials" || p == h+"/.netrc" || p == h+"/.git-credentials" || p == h+"/.pgpass" ||
		p == h+"/.docker/config.json" || p == h+"/.kube/config" || within(p, h+"/.gnupg"))
}

// profileFile tells whether p is one of the named files of any profile.
func (w *walker) profileFile(p string, names ...string) bool {
	root := w.o.root()
	if root == "" {
		return false
	}
	dir, base := path.Split(p)
	dir = strings.TrimSuffix(dir, "/")
	if dir != root && dir != w.o.Home && path.Dir(dir) != root+"/profiles" {
		return false
	}
	for _, n := range names {
		if base == n {
			return true
		}
		if ok, _ := path.Match(base, n); ok && strings.HasPrefix(base, n[:1]) {
			return true
		}
	}
	return false
}

// startupFiles run when a user logs in or a shell starts.
var startupFiles = map[string]bool{
	".bashrc": true, ".bash_profile": true, ".bash_login": true, ".bash_logout": true, ".bash_aliases": true, ".profile": true,
	".zshrc": true, ".zshenv": true, ".zprofile": true, ".zlogin": true, ".kshrc": true, ".cshrc": true, ".tcshrc": true,
	".xprofile": true, ".xinitrc": true, ".xsession": true, ".inputrc": true, ".pam_environment": true,
}

// reason sentences of the hard line, each with the right way.
const (
	rightWay     = " Send /restart in the chat: the gateway then restarts by itself once this answer has been delivered."
	lifeReason   = "this would damage what the gateway that you run in needs to stay alive (its units, its lingering flag, its ledger or its home); it is refused from inside, and an operator can do it from a terminal of his own."
	deviceReason = "writing to a disk device destroys its file systems; it is never allowed"
)

// write looks at a file that is written, replaced or cut.
func (w *walker) write(target string) {
	p := w.resolve(target)
	switch {
	case target == "" || !strings.HasPrefix(p, "/"):
		return
	case isDevice(p):
		w.refuse(deviceReason)
	case p == "/proc/sysrq-trigger":
		w.refuse("writing to /proc/sysrq-trigger resets the machine; it is never allowed")
	case strings.HasPrefix(p, "/dev/tcp/") || strings.HasPrefix(p, "/dev/udp/"):
		w.ask(finding{key: "raw network", reason: "opens a raw network connection", severe: true})
	case p == "/dev" || strings.HasPrefix(p, "/dev/"):
		return
	case w.isLife(p):
		w.refuse(lifeReason)
	case w.isSettings(p):
		w.ask(finding{key: "gateway settings", reason: "changes the gateway's own settings (" + path.Base(p) + ")", severe: true})
	case within(p, "/etc") || within(p, "/usr") || within(p, "/bin") || within(p, "/sbin") || within(p, "/lib") || within(p, "/boot") ||
		within(p, "/sys") || within(p, "/proc") || within(p, "/lib64") || within(p, "/var/spool/cron") || within(p, "/var/lib"):
		w.ask(finding{key: "write system files", reason: "writes to the system's files (" + shown(p) + ")", severe: true})
	case strings.Contains(p+"/", "/.ssh/"):
		w.ask(finding{key: "write ~/.ssh", reason: "changes who may log in (" + shown(p) + ")", severe: true})
	case startupFiles[path.Base(p)] || strings.Contains(p, "/.config/systemd/") || strings.Contains(p, "/.config/autostart/") ||
		strings.HasSuffix(p, "/fish/config.fish") || strings.Contains(p, "/.git/hooks/"):
		w.ask(finding{key: "write startup files", reason: "changes what starts by itself (" + shown(p) + ")", severe: true})
	case w.isSecret(p):
		w.ask(finding{key: "write credentials", reason: "changes stored credentials (" + shown(p) + ")", severe: true})
	}
}

// read looks at a file that is read.
func (w *walker) read(target string) {
	p := w.resolve(target)
	if path.Base(p) == "gateway.sock" && w.isLife(p) {
		w.refuse("the gateway's control socket is not for the tools that it runs; it is refused from inside." + rightWay)
		return
	}
	if !w.isSecret(p) {
		return
	}
	if strings.HasPrefix(p, "/proc/") && (strings.Contains(target, "PPID") || w.isGatewayPID(strings.Split(p, "/")[2])) {
		w.refuse("the environment of the gateway holds its secrets; it is not shown to tools")
		return
	}
	w.ask(finding{key: "read secrets", reason: "reads stored secrets (" + shown(p) + ")", severe: true})
}

// shown is a path for people.
func shown(p string) string {
	p = strings.ReplaceAll(p, unknown, "…")
	if len(p) > 80 {
		p = p[:77] + "…"
	}
	return p
}

// deleteTree refuses the deletion of a tree that must stay.
func (w *walker) deleteTree(target string) {
	p := contents(w.resolve(target))
	switch {
	case w.vital(target, true):
		w.refuse("deleting " + shown(p) + " destroys the system or the user's home; it is never allowed. Name the folder inside it that is meant.")
	case isDevice(p):
		w.refuse(deviceReason)
	case w.holdsLife(p):
		w.refuse(lifeReason)
	}
}

// holdsLife tells whether p, or something in it, keeps the gateway alive.
func (w *walker) holdsLife(p string) bool {
	if w.isLife(p) {
		return true
	}
	needed := []string{w.o.Home, w.o.Root, "/var/lib/systemd/linger", "/etc/systemd/system"}
	if h := w.o.UserHome; h != "" {
		needed = append(needed, h+"/.config/systemd/user", h+"/.local/share/hermes")
	}
	for _, n := range needed {
		if n != "" && within(n, p) {
			return true
		}
	}
	return false
}

// generated are names of folders that a build makes again.
var generated = map[string]bool{
	"build": true, "dist": true, "out": true, "target": true, "node_modules": true, "__pycache__": true, ".pytest_cache": true,
	".mypy_cache": true, ".ruff_cache": true, ".cache": true, ".next": true, ".nuxt": true, ".turbo": true, ".parcel-cache": true,
	"coverage": true, ".coverage": true, "tmp": true, "temp": true, ".tox": true, ".gradle": true, "bin": true, "obj": true, ".eggs": true,
}

// isGenerated tells whether a recursive delete of target loses nothing: it lies
// under /tmp, or inside the working folder in a generated folder.
func (w *walker) isGenerated(target string) bool {
	p := w.resolve(target)
	if strings.Contains(p, unknown) || strings.ContainsAny(target, "*?[") {
		return false
	}
	for _, tmp := range []string{"/tmp/", "/var/tmp/"} {
		if rest, ok := strings.CutPrefix(p, tmp); ok && rest != "" {
			return true
		}
	}
	if w.o.Workdir == "" || w.o.Workdir == w.o.UserHome || w.o.Workdir == "/" {
		return false
	}
	rest, ok := strings.CutPrefix(p, path.Clean(w.o.Workdir)+"/")
	if !ok {
		return false
	}
	for part := range strings.SplitSeq(rest, "/") {
		if generated[part] {
			return true
		}
	}
	return false
}

// carriesFolders are programs that take whole folders with all that they hold.
var carriesFolders = map[string]bool{"tar": true, "zip": true, "7z": true, "scp": true, "rsync": true, "cp": true, "restic": true, "borg": true, "rclone": true}

// attaches are programs that take hold of a running process.
var attaches = map[string]bool{"gdb": true, "lldb": true, "strace": true, "ltrace": true, "nsenter": true, "prlimit": true, "renice": true, "reptyr": true, "taskset": true, "gcore": true}

// carried looks at the folders that a program takes; where they go to is no
// matter here.
func (w *walker) carried(c call) {
	if !carriesFolders[c.name] || len(c.args) == 0 {
		return
	}
	from := operands(c.args)
	switch c.name {
	case "tar":
		if !strings.Contains(c.args[0], "c") && !hasFlag(c.args, "c", "--create") {
			return
		}
	case "cp", "scp", "rsync", "rclone":
		from = from[:max(0, len(from)-1)]
	}
	for _, a := range from {
		w.readFolder(a)
	}
}

// readFolder looks at a folder that is carried elsewhere.
func (w *walker) readFolder(target string) {
	p, h := contents(w.resolve(target)), w.o.UserHome
	for _, secret := range []string{w.o.Home, w.o.Root} {
		if secret != "" && p == secret {
			w.ask(finding{key: "read secrets", reason: "carries away a folder with stored secrets (" + shown(p) + ")", severe: true})
		}
	}
	if h != "" && (p == h || p == h+"/.ssh" || p == h+"/.aws" || p == h+"/.gnupg" || p == h+"/.kube" || p == h+"/.docker") {
		w.ask(finding{key: "read secrets", reason: "carries away a folder with stored secrets (" + shown(p) + ")", severe: true})
	}
}

// files looks at the files that any command names: those of secrets that it
// reads. Programs that only look at names and rights are left alone.
func (w *walker) files(c call) {
	switch c.name {
	case "ls", "stat", "test", "[", "file", "du", "chmod", "chown", "ssh", "ssh-keygen", "ssh-add", "echo", "printf", "touch", "cd",
		"rm", "mkdir", "git", "basename", "dirname", "realpath", "readlink", "which", "find", "true", ":":
		return
	}
	w.carried(c)
	for _, a := range c.args {
		if attaches[c.name] && w.isGatewayPID(a) {
			w.refuse(stopReason)
			return
		}
		if strings.IndexByte(a, '/') < 0 && !strings.Contains(a, ".env") && !strings.Contains(a, "auth.json") && !strings.Contains(a, "id_") {
			continue
		}
		w.read(a)
		for _, cut := range []string{"=", "@", ":", "<"} {
			if _, after, ok := strings.Cut(a, cut); ok && after != "" {
				w.read(after)
				if _, after, ok = strings.Cut(after, "@"); ok {
					w.read(after)
				}
			}
		}
	}
}
