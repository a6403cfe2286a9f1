package doctor

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/service"
)

// The least that must be left on the disk: under it the ledger's reserve for a
// full disk (16 MiB) is near, and soon nothing can be committed.
const (
	leastBytes  = 64 << 20
	leastInodes = 200
	// aheadBy is how far in the future a file may lie before a clock is suspected.
	aheadBy = 10 * time.Minute
	// largeLedger is a size at which backups and starts begin to take long.
	largeLedger = 8 << 30
)

// hostChecks are about the machine, the home folder and the ledger's file.
func hostChecks() []check {
	return []check{checkHome, checkSpace, checkClock, checkLedger}
}

// checkHome looks at the folder itself.
func checkHome(c *Case) []Finding {
	if c.ProfileErr != nil {
		return nil
	}
	h := c.Home
	f := Finding{Class: Scope, Severity: Error, depth: ofHost, explains: []string{"service.*", "profile.not_loaded", "provider.*", "scheduler.*", "profile.owner*"}}
	switch {
	case h.Missing && c.behindSudo() != "":
		f.ID, f.What = "profile.wrong_user", "this is root by sudo, and root has no installation; "+c.env("SUDO_USER")+" has one"
		f.Evidence = []string{c.Profile.Home + " does not exist", c.behindSudo() + " does"}
		f.Means = "Commands run by sudo look at another home, and what they write there belongs to root."
		f.Fix = "sudo -iu " + c.env("SUDO_USER") + " " + c.hermes("doctor")
	case h.Missing:
		f.ID, f.What = "profile.home_missing", "nothing is set up: "+c.Profile.Home+" does not exist"
		f.Evidence = []string{"the home folder comes from " + c.homeFrom()}
		f.Means = "There is no configuration, and nothing to serve."
		f.Fix = c.then(c.hermes("model set <provider> <model>"))
	case h.NotDir:
		f.ID, f.What = "profile.home_is_file", c.Profile.Home+" is not a folder"
		f.Evidence = []string{"stat says that it is a file"}
		f.Means = "A profile's files cannot lie there, so nothing starts."
		f.Fix = fmt.Sprintf("mv %[1]s %[1]s.old && mkdir -m 700 %[1]s && ", c.Profile.Home) + c.hermes("model set <provider> <model>") + " && " + c.serve()
	case h.Trouble != nil:
		f.ID, f.What = "profile.home_unreadable", c.Profile.Home+" cannot be looked into"
		f.Evidence = []string{h.Trouble.Error()}
		f.Means = "Nothing of the profile can be read, so nothing starts."
		f.Fix = c.thenIfDown(c.own(c.Profile.Home))
	case h.Free.ReadOnly:
		f.ID, f.Class, f.What = "service.disk_read_only", Service, "the file system of "+c.Profile.Home+" is read-only"
		f.Evidence = []string{"statfs says ST_RDONLY"}
		f.Means = "Nothing can be accepted or delivered, since nothing can be committed."
		f.Fix = "sudo mount -o remount,rw " + mountOf(c.Profile.Home)
	case h.ReadOnly:
		f.ID, f.What = "profile.home_not_writable", c.Profile.Home+" may not be written by this user"
		f.Evidence = []string{fmt.Sprintf("mode %04o", h.Mode)}
		f.Means = "The gateway cannot commit anything there, so it does not start."
		f.Fix = c.thenIfDown(c.own(c.Profile.Home))
	default:
		return nil
	}
	return []Finding{f}
}

// own gives a file or folder back to this user.
func (c *Case) own(path string) string {
	owner := c.host().Account.Name + ":" // and the group of that user
	if _, err := strconv.Atoi(c.host().Account.Name); err == nil {
		owner = fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid()) // a user without a name
	}
	return fmt.Sprintf("sudo chown -R %s %s && chmod -R u+rwX %s", owner, path, path)
}

// behindSudo is the home of the user behind sudo, "" where there is none.
func (c *Case) behindSudo() string {
	account, err := service.FindAccount(c.env("SUDO_USER"))
	if os.Getuid() != 0 || c.env("HERMES_HOME") != "" || err != nil {
		return ""
	}
	dir := filepath.Join(account.Home, ".hermes")
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return ""
	}
	return dir
}

// homeFrom says what chose the home folder.
func (c *Case) homeFrom() string {
	switch {
	case c.env("HERMES_HOME") != "":
		return "HERMES_HOME"
	case c.Request.FlagSet:
		return "the profile that was named"
	}
	return "the default"
}

// mountOf is the mount point of a path.
func mountOf(path string) string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	best := "/"
	if err != nil {
		return best
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(path+"/", strings.TrimSuffix(f[4], "/")+"/") && len(f[4]) > len(best) {
			best = f[4]
		}
	}
	return best
}

// checkSpace looks at what is left on the disk.
func checkSpace(c *Case) []Finding {
	s := c.Home.Free
	f := Finding{Class: Service, Severity: Error, depth: ofHost, explains: []string{"service.not_running", "service.crashed", "service.start_waits", "service.ledger*", "service.part_*", "delivery.*", "scheduler.*"},
		Means: "What is accepted is committed first; without space nothing can be accepted."}
	switch {
	case !s.Known || s.ReadOnly:
		return nil
	case s.Bytes < leastBytes:
		f.ID, f.What = "service.disk_full", fmt.Sprintf("only %d MiB are left on the disk of %s", s.Bytes>>20, c.Profile.Home)
		f.Evidence = append([]string{fmt.Sprintf("statfs of %s: %d KiB free for this user", mountOf(c.Profile.Home), s.Bytes>>10)}, c.Gateway.lineWith("space")...)
		f.Evidence = append(f.Evidence, largest(c.Profile.Home)...)
		f.Fix = fmt.Sprintf("du -xh %s | sort -h | tail", mountOf(c.Profile.Home))
	case s.AllInodes > 0 && s.Inodes < leastInodes:
		f.ID, f.What = "service.inodes", fmt.Sprintf("only %d files can still be made on the disk of %s", s.Inodes, c.Profile.Home)
		f.Evidence = []string{fmt.Sprintf("statfs of %s: %d of %d inodes free", mountOf(c.Profile.Home), s.Inodes, s.AllInodes)}
		f.Fix = fmt.Sprintf("du -x --inodes %s | sort -n | tail", mountOf(c.Profile.Home))
	default:
		return nil
	}
	return []Finding{f}
}

// largest names the largest files of the home.
func largest(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var name string
	var size int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && info.Size() > size {
			name, size = e.Name(), info.Size()
		}
	}
	if size < 1<<20 {
		return nil
	}
	return []string{fmt.Sprintf("the largest file of the home is %s, %d MiB", name, size>>20)}
}

// checkClock looks for a clock that was set back.
func checkClock(c *Case) []Finding {
	var evidence []string
	if c.Home.Ahead > aheadBy {
		evidence = append(evidence, fmt.Sprintf("%s was written %s in the future", c.Home.AheadOf, c.Home.Ahead.Round(time.Second)))
	}
	for _, m := range c.Models {
		if d := m.Skew; d > aheadBy || d < -aheadBy {
			evidence = append(evidence, fmt.Sprintf("%s says that this clock is %s off", m.Model.Provider, d.Abs().Round(time.Second)))
		}
	}
	if len(evidence) == 0 {
		return nil
	}
	return []Finding{{ID: "service.clock", Class: Service, Severity: Warning, depth: ofHost, What: "this machine's clock is wrong, or was", Evidence: evidence,
		Means: "Jobs fire at other times than meant, and logins and certificates seem expired.", Fix: c.clockFix()}}
}

// clockFix sets a clock right, or lets the trace of a wrong one go.
func (c *Case) clockFix() string {
	if c.Home.Ahead > aheadBy {
		return "sudo timedatectl set-ntp true; touch " + filepath.Join(c.Profile.Home, c.Home.AheadOf)
	}
	return "sudo timedatectl set-ntp true"
}

// salvaged lets the next start of the gateway look at the whole ledger, and save
// what can be read of it.
func (c *Case) salvaged(ledger string) string {
	fix := "touch " + sqlite.DamageMark(ledger) + " && "
	if c.Gateway.Status != nil {
		fix += c.hermes("gateway stop") + " && "
	}
	if c.supervisedInstall() {
		return fix + c.hermes("gateway start")
	}
	return fix + c.hermes("gateway run")
}

// checkLedger looks at the file of the durable store.
func checkLedger(c *Case) []Finding {
	l, path := c.Ledger, c.Profile.LedgerFile()
	f := Finding{Class: Service, Severity: Error, depth: ofFiles, explains: []string{"service.not_running", "service.crashed", "service.start_waits", "service.part_ledger", "scheduler.*"}}
	aside := fmt.Sprintf("mv %[1]s %[1]s.damaged && rm -f %[1]s-wal %[1]s-shm", path)
	if c.Gateway.Status != nil {
		aside = c.hermes("gateway stop") + " && " + aside
	}
	restored := func() string {
		if c.supervisedInstall() {
			return aside + " && " + c.hermes("gateway start")
		}
		return aside + " && " + c.hermes("gateway run")
	}
	switch {
	case l.Network != "":
		f.ID, f.What = "service.ledger_network", fmt.Sprintf("the ledger lies on a network file system (%s)", l.Network)
		f.Means = "Its locks and its log are not safe there, so it is refused."
		f.Fix = "mv " + c.Profile.Home + " <a folder on a local disk>"
	case l.NotDatabase:
		f.ID, f.What = "service.ledger_not_database", path+" is no database"
		f.Evidence = []string{fmt.Sprintf("%d bytes that do not begin as SQLite's files do", l.Bytes)}
		f.Means = "The next start moves it aside and begins anew: sessions, jobs and what waits to be sent are in that file."
		f.Fix = restored()
	case len(l.Damage) > 0:
		f.ID, f.What = "service.ledger_damaged", "the ledger is damaged"
		f.Evidence = []string{"PRAGMA quick_check: " + cutTo(strings.Join(strings.Fields(strings.Join(l.Damage, "; ")), " "), 300)}
		f.Means = "Reads and writes fail where it is torn, and it grows worse with use. A start that is told of the damage keeps the file and moves what can be read of it into a new one."
		f.Fix = c.salvaged(path)
	case l.Err != nil && l.Schema > l.Known:
		f.ID, f.What = "service.ledger_newer", "the ledger was written by a newer version of this program"
		f.Evidence = []string{domain.MessageOf(l.Err)}
		f.Means = "This version cannot open it, so it does not start."
		f.Fix = c.thenIfDown("hermes update")
	case domain.IsCode(l.Err, domain.Timeout), domain.IsCode(l.Err, domain.Unavailable):
		f.ID, f.Severity, f.depth, f.explains = "service.ledger_busy", Warning, ofPart, []string{"service.part_ledger"}
		f.What, f.Evidence = "the ledger does not answer", []string{domain.MessageOf(l.Err)}
		f.Means, f.Fix = "Messages and jobs wait until it does; what they are is not known here.", c.hermes("logs errors -n 50")
	case l.Err != nil && c.Home.Trouble == nil && !c.Home.ReadOnly:
		f.ID, f.What = "service.ledger_unreadable", "the ledger cannot be opened"
		f.Evidence = []string{domain.MessageOf(l.Err)}
		f.Means = "Without it nothing can be accepted, so the gateway does not start."
		f.Fix = c.own(path)
		if st, err := os.Lstat(path); err == nil && !st.Mode().IsRegular() && st.Mode()&fs.ModeSymlink == 0 {
			f.Fix = restored()
		}
	case l.Bytes > largeLedger:
		f.ID, f.Severity, f.What = "service.ledger_large", Warning, fmt.Sprintf("the ledger has grown to %d MiB", l.Bytes>>20)
		f.Means = "Copies of it take long, and so does reading it through."
		f.Fix = c.hermes("sessions prune --older-than 90")
	default:
		return nil
	}
	return []Finding{f}
}

// supervisedInstall tells whether a unit is there that starts the profile.
func (c *Case) supervisedInstall() bool {
	return c.Units.managed() && c.Units.gatewayLive() != nil
}
