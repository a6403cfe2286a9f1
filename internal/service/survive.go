package service

import (
	"fmt"
	"strings"
)

// Logout tells whether the gateway lives on when its user's last session ends,
// and why.
func (r Report) Logout() (survives bool, why string) {
	switch {
	case r.Unit == nil:
		return false, "no: no unit runs it, so it belongs to the session that started it; " + r.advice()
	case r.System:
		return true, r.Name + " is a unit of the system"
	case r.Active != "active" && r.Active != "reloading":
		return false, fmt.Sprintf("no: %s is %s, so it keeps nothing alive", r.Name, r.Active)
	case !r.Lingers:
		return false, "no: lingering is off; `sudo loginctl enable-linger " + r.account + "`"
	}
	return true, "lingering is on, and " + r.Name + " runs it"
}

// Reboot tells whether the gateway comes up by itself with the machine, and why.
func (r Report) Reboot() (survives bool, why string) {
	switch {
	case r.Unit == nil:
		return false, "no: nothing starts it at boot; " + r.advice()
	case !strings.HasPrefix(r.Enabled, "enabled"):
		return false, fmt.Sprintf("no: %s is %s; `hermes gateway install` enables it", r.Name, r.Enabled)
	case strings.HasSuffix(r.Enabled, "-runtime"):
		return false, "no: " + r.Name + " is enabled until the next boot only; `hermes gateway install` enables it"
	case r.System:
		return true, r.Name + " is enabled, and a unit of the system"
	case !r.Lingers:
		return false, "no: lingering is off, so it starts with the first login only; `sudo loginctl enable-linger " + r.account + "`"
	}
	return true, r.Name + " is enabled, and lingering is on"
}

// advice is why there is no unit, and what to do.
func (r Report) advice() string {
	if len(r.Advice) > 0 {
		return r.Advice[0]
	}
	return "`hermes gateway install` makes a service of it"
}
