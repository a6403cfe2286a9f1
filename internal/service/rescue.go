package service

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
	"hermes/internal/starts"
)

// Rescuer is the program that a rescue runs, where one is kept: a copy of a
// binary that served healthily, which an update or a slip of the hand does not
// spoil together with the installed one.
func Rescuer(userHome string) string {
	return filepath.Join(userHome, ".local/share/hermes/rescue/hermes")
}

// The numbers of the rescue unit.
const (
	// rescueLimit is for the start on what was last good, and for telling people
	// while their platform cannot be reached.
	rescueLimit    = "20min"
	rescueInterval = "10min"
	rescueBurst    = "10" // failures of one unit that are looked at within rescueInterval
)

// rescueName is the file name of the unit that other units' OnFailure= starts,
// with their own name as the instance. The system's manager runs gateways of
// several accounts, so that there each account has its own.
func (s Spec) rescueName() string {
	if s.System {
		return rescuePrefix + "-" + s.Account.Name + "@.service"
	}
	return rescuePrefix + "@.service"
}

// rescuePrefix begins the names of all rescue units.
const rescuePrefix = "hermes-rescue"

// onFailure is what a unit starts when it has ended for good; systemd.unit(5),
// "OnFailure=". %n is its own full name.
func (s Spec) onFailure() string {
	return strings.Replace(s.rescueName(), "@.", "@%n.", 1)
}

// RenderRescue gives the text of the rescue unit. It tries the kept program
// first, which need not be there, then the installed one; what was handled
// once is not handled again. Errors: as Render.
func (s Spec) RenderRescue() (string, error) {
	if err := s.checkPaths(); err != nil {
		return "", err
	}
	u := &builder{}
	u.section("Unit")
	u.set("Description", "Hermes rescue of %i")
	u.set("StartLimitIntervalSec", rescueInterval)
	u.set("StartLimitBurst", rescueBurst)
	u.section("Service")
	u.set("Type", "oneshot")
	if s.System {
		u.set("User", s.Account.Name)
		if s.Account.Group != "" {
			u.set("Group", s.Account.Group)
		}
	}
	const args = " gateway rescue %i"
	u.set("ExecStart", "-"+execWord(Rescuer(s.Account.Home))+args)
	if !s.System { // there a failure must not start the unit
		u.set("ExecStart", "-"+execWord(s.Binary)+args)
	} else {
		u.set("ExecStart", execWord(s.Binary)+args)
		u.set("ExecStartPost", "+/bin/systemctl reset-failed %i")
		u.set("ExecStartPost", "+/bin/systemctl --no-block start %i")
	}
	u.set("WorkingDirectory", "-"+escape(s.Account.Home))
	if s.Path != "" {
		u.env("PATH", s.Path)
	}
	if s.System {
		u.env("HOME", s.Account.Home)
		u.env("USER", s.Account.Name)
		u.env("LOGNAME", s.Account.Name)
	}
	u.set("TimeoutStartSec", rescueLimit)
	u.set("StandardOutput", "journal")
	u.set("StandardError", "journal")
	u.set("SyslogIdentifier", "hermes-rescue")
	return seal(u.String()), nil
}

// rescueFile is the rescue unit as install would write it.
func (h Host) rescueFile(s Spec) (Rendered, error) {
	text, err := s.RenderRescue()
	return Rendered{Name: s.rescueName(), Path: filepath.Join(h.Dir(s.System), s.rescueName()), Text: text}, err
}

// removeRescue removes the rescue units that no unit or drop-in names any more.
func (h Host) removeRescue(op Operation, now time.Time) error {
	dir := h.Dir(op.System)
	units, _ := filepath.Glob(filepath.Join(dir, "*.service"))
	dropIns, _ := filepath.Glob(filepath.Join(dir, "*.service.d", "*.conf"))
	named := map[string]bool{}
	for _, path := range append(units, dropIns...) {
		text, err := plain.Read(path)
		if err != nil {
			continue
		}
		for _, e := range Parse(string(text)) {
			if e.Section == "Unit" && e.Key == "OnFailure" {
				named[strings.Replace(e.Value, "@%n.", "@.", 1)] = true
			}
		}
	}
	kept, _ := filepath.Glob(filepath.Join(dir, rescuePrefix+"*@.service"))
	for _, path := range kept {
		if named[filepath.Base(path)] {
			continue
		}
		if err := drop(path, now, op.Say); err != nil {
			return err
		}
	}
	return nil
}

// checkPaths holds that what was chosen can stand in a unit. Errors: Invalid.
func (s Spec) checkPaths() error {
	for what, path := range map[string]string{"the program's path": s.Binary, "the home folder": s.Profile.Root, "the user's home": s.Account.Home} {
		if !filepath.IsAbs(path) || strings.ContainsAny(path, "\n\r\x00") {
			return domain.E(domain.Invalid, nil, "%s %q cannot stand in a unit: it must be absolute and on one line", what, path)
		}
	}
	return nil
}

// override is the drop-in by which a rescue runs another program. It lies where
// nothing survives a reboot, so that what was mended meanwhile is tried again.
const override = "90-hermes-rescue.conf"

// overrideFile is the path of a unit's override; "" where this process may not
// write one.
func (m *Manager) overrideFile(unit string) string {
	if m.System {
		if os.Getuid() != 0 {
			return ""
		}
		return filepath.Join("/run/systemd/system", unit+".d", override)
	}
	return filepath.Join(m.runtime, "systemd/user", unit+".d", override)
}

// StartOn starts the unit with another program, and returns when it serves. The unit keeps that program until
// Reinstate, or the next boot. Errors: as Start; Forbidden where the manager is
// not this user's.
func (o Operation) StartOn(ctx context.Context, program string, p home.Profile) (Unit, error) {
	path := o.Manager.overrideFile(o.Name)
	if path == "" {
		return o.Unit, domain.E(domain.Forbidden, nil, "only root may let %s run another program", o.Name)
	}
	verb := "gateway run"
	if strings.HasPrefix(o.Name, "hermes-cron") {
		verb = "cron run"
	}
	u := &builder{}
	u.section("Service")
	u.set("ExecStart", "")
	u.set("ExecStart", execWord(program)+" --profile "+p.Name+" "+verb)
	head := "# Written by a rescue: the unit's own program (" + o.Program + ") ended again and again.\n# The next `hermes gateway restart` or `start` goes back to it, and so does a reboot.\n"
	if err := replaceFile(path, head+u.String()); err != nil {
		return o.Unit, err
	}
	if err := o.Manager.Reload(ctx); err != nil {
		return o.Unit, err
	}
	return o.start(ctx)
}

// Overridden tells whether a rescue lets the unit run another program.
func Overridden(u Unit) bool {
	return slices.ContainsFunc(u.DropIns, func(path string) bool { return filepath.Base(path) == override })
}

// Reinstate lets the unit run its own program from its next start on, and gives
// the unit as it then is. undo brings the override back. A unit without one
// stays as it is.
func (o Operation) Reinstate(ctx context.Context) (u Unit, undo func(), err error) {
	path := o.Manager.overrideFile(o.Name)
	if path == "" || !exists(path) {
		return o.Unit, func() {}, nil
	}
	text, err := plain.Read(path)
	if err != nil {
		return o.Unit, func() {}, domain.E(domain.Unavailable, err, "%s cannot be read", path)
	}
	if err := os.Remove(path); err != nil {
		return o.Unit, func() {}, domain.E(domain.Forbidden, err, "%s cannot be removed", path)
	}
	undo = func() {
		if replaceFile(path, string(text)) == nil {
			_ = o.Manager.Reload(context.WithoutCancel(ctx)) // the next reload brings it in force
		}
	}
	if err := o.Manager.Reload(ctx); err != nil {
		return o.Unit, undo, err
	}
	u, err = o.Manager.Show(ctx, o.Name)
	return u, undo, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// tailSpan is how far back Tail looks at most: a crash loop up to its start
// limit, and a little.
const tailSpan = 20 * time.Minute

// tailSpanOf is how far back the words of a unit's present trouble may lie. What
// was said before it last became active belongs to another.
func tailSpanOf(u Unit, up time.Duration) time.Duration {
	if since := up - u.ActiveEnter; u.ActiveEnter > 0 && since > 0 {
		return min(since+time.Second, tailSpan)
	}
	return tailSpan
}

// Tail gives the last lines that a unit's processes wrote to the journal since it
// was last active, oldest first; none where this user may not read it. What the
// manager says of the unit is left out.
func (m *Manager) Tail(ctx context.Context, u Unit, lines int) []string {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	unit, since := u.Name, fmt.Sprintf("-%ds", int(tailSpanOf(u, starts.Uptime())/time.Second)+1)
	args := []string{"--no-pager", "--quiet", "--output=json", "--since", since, "--lines", strconv.Itoa(20 * lines)}
	if !m.System {
		args = append(args, "--user")
	}
	cmd := exec.CommandContext(ctx, "journalctl", args...)
	cmd.Env = m.env
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return nil
	}
	var said []string
	for line := range strings.Lines(string(out)) {
		var e struct { // systemd.journal-fields(7)
			Message any    `json:"MESSAGE"` // bytes where it is no text
			By      string `json:"SYSLOG_IDENTIFIER"`
			User    string `json:"_SYSTEMD_USER_UNIT"`
			System  string `json:"_SYSTEMD_UNIT"`
		}
		// What dies at once has no unit any more when journald looks it up.
		if json.Unmarshal([]byte(line), &e) != nil || !strings.HasPrefix(e.By, "hermes-") || e.By == "hermes-rescue" {
			continue
		}
		orphan := e.User == "" && !strings.HasPrefix(e.System, "hermes-")
		if e.User != unit && e.System != unit && !orphan {
			continue
		}
		if text, ok := e.Message.(string); ok {
			said = append(said, text)
		}
	}
	return said[max(0, len(said)-lines):]
}

// ProfileNamed is the profile that a unit's command line names, "" for the
// default one.
func ProfileNamed(u Unit) string {
	for i, a := range u.Args {
		if name, ok := strings.CutPrefix(a, "--profile="); ok {
			return name
		}
		if (a == "--profile" || a == "-p") && i+1 < len(u.Args) {
			return u.Args[i+1]
		}
	}
	return ""
}
