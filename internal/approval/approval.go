// Package approval decides what a command that the agent wants to run may do.
// Commands are parsed as shell, not matched as text: every command in them is
// looked at, also inside sh -c, eval, xargs, sudo, find -exec, here-documents,
// command substitutions and pipelines that feed a shell.
//
// The answer is one of three. Allow: it runs. Ask: a person must say yes, once,
// for the session or always; the answer is kept under a key that names the
// class ("rm -r"), not the whole text. Refuse: it is on the hard line (it
// destroys the machine), or it would stop the gateway that the agent lives in;
// nobody can approve it, and no mode switches it off.
//
// This is a seat belt, not a wall: a program that the command starts may do
// what it likes. Only a sandbox is a wall.
package approval

import (
	"slices"
	"strings"
)

// Action is what is to be done with a command.
type Action int

// The actions, in rising order of severity.
const (
	Allow Action = iota
	Ask
	Refuse
)

// String names the action.
func (a Action) String() string {
	switch a {
	case Allow:
		return "allow"
	case Ask:
		return "ask"
	}
	return "refuse"
}

// Mode says how much is asked.
type Mode string

// The modes. Manual asks for every dangerous class. Smart is manual, but lets
// pass without a question what loses nothing that cannot be made again: a
// recursive delete whose targets are all known, lie inside the working folder
// or under /tmp, and are generated folders (build, dist, node_modules, …); and
// signals to the command's own background jobs. Off asks nothing. The hard line
// and the gateway's own life stay refused in each.
const (
	ModeManual Mode = "manual"
	ModeSmart  Mode = "smart"
	ModeOff    Mode = "off"
)

// Values of approvals.cron_mode: what becomes of an Ask when nobody is there.
const (
	CronDeny    = "deny"
	CronApprove = "approve"
)

// Options is what the analysis needs to know. The zero value is usable: manual
// mode, nothing allowed before, no paths known.
type Options struct {
	Mode Mode // "" means manual
	// Unattended says that nobody can be asked (a scheduled job); CronMode
	// then decides: approve lets pass, anything else refuses.
	Unattended bool
	CronMode   string
	Allowlist  []string              // keys allowed for ever
	Granted    func(key string) bool // keys allowed before (session, always); may be nil

	Home       string   // the profile's home folder, whose files are protected
	Root       string   // the root that owns the profiles; "" means Home
	UserHome   string   // ~
	Workdir    string   // where the command will run
	GatewayPID int      // never to be signalled; 0 when unknown
	Programs   []string // further names of the gateway's binary (profile aliases)
	// ReadFile reads a script that the command runs, so that its content is
	// looked at too. nil looks at no file. It must bound what it reads.
	ReadFile func(path string) ([]byte, error)
}

// Verdict is the outcome. Reason is a sentence for people and for the model;
// Key names what "session" and "always" would allow.
type Verdict struct {
	Action Action
	Reason string
	Key    string
}

// keySep joins the keys of a command that belongs to several classes.
const keySep = " + "

// maxCommand is the length, in bytes, up to which commands are understood.
const maxCommand = 64 << 10

// Analyze says whether a command may run. It never runs anything and never
// panics; what it cannot understand is asked about. It is safe for concurrent
// use if the functions in o are.
func Analyze(command string, o Options) Verdict {
	return decide(analyze(command, o), o)
}

// AnalyzeWrite says whether a file at path may be written or replaced by a tool
// that is no shell. A relative path starts at o.Workdir.
func AnalyzeWrite(path string, o Options) Verdict {
	w := newWalker(&o, programs)
	w.write(path)
	return decide(w.found, o)
}

// decide turns what was found into a verdict by mode and grants.
func decide(found []finding, o Options) Verdict {
	var keys, reasons []string
	for _, f := range found {
		if f.action == Refuse {
			return Verdict{Action: Refuse, Reason: f.reason}
		}
		if o.Mode == ModeSmart && f.low || o.allowed(f.key) || slices.Contains(keys, f.key) {
			continue
		}
		keys = append(keys, f.key)
		reasons = append(reasons, f.reason)
	}
	if len(keys) == 0 || o.Mode == ModeOff {
		return Verdict{Action: Allow}
	}
	const shown = 4
	if len(reasons) > shown {
		reasons = append(reasons[:shown], "and more")
	}
	slices.Sort(keys)
	v := Verdict{Action: Ask, Reason: strings.Join(reasons, "; "), Key: strings.Join(keys, keySep)}
	switch {
	case len(keys) > 1 && o.allowed(v.Key):
		return Verdict{Action: Allow}
	case o.Unattended && o.CronMode == CronApprove:
		return Verdict{Action: Allow}
	case o.Unattended:
		return Verdict{Action: Refuse, Reason: "this " + v.Reason + ", and nobody is there to approve it in a scheduled job; " +
			"do it another way, or let the operator add \"" + v.Key + "\" to command_allowlist"}
	}
	return v
}

// allowed tells whether a key was allowed before. An allowlist entry may join
// several keys, as Verdict.Key does.
func (o Options) allowed(key string) bool {
	for _, entry := range o.Allowlist {
		if entry == key || slices.Contains(strings.Split(entry, keySep), key) {
			return true
		}
	}
	return o.Granted != nil && o.Granted(key)
}

// root is the folder that owns the profiles.
func (o *Options) root() string {
	if o.Root != "" {
		return o.Root
	}
	return o.Home
}

// finding is one reason to hesitate.
type finding struct {
	action Action
	key    string
	reason string
	low    bool // smart mode lets it pass
	severe bool // asked about also when it stands in a script that the command runs
}
