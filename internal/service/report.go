package service

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
)

// Report is what status says of a profile's unit. A Report without a unit says
// in Advice why.
type Report struct {
	*Unit
	Origin   Origin   `json:"origin,omitempty"`
	Outdated bool     `json:"outdated,omitempty"` // a generated file that install would write otherwise
	Settings []string `json:"drop_in_settings,omitempty"`
	Lingers  bool     `json:"lingers"`
	Left     int      `json:"starts_left_at_least"` // -1: no limit
	Others   []string `json:"other_units,omitempty"`
	// Scheduler is the unit of a scheduler alone, nil where there is none.
	Scheduler *Unit    `json:"scheduler_unit,omitempty"`
	Advice    []string `json:"advice"`
	account   string
}

// Report looks at a profile's unit. spec is what install would write for it.
func (h Host) Report(ctx context.Context, p home.Profile, spec Spec, system bool, now time.Time) Report {
	r := Report{Lingers: Lingers(h.Account.Name), Left: -1, Advice: []string{}, account: h.Account.Name}
	all, err := h.All(ctx, p, system)
	if u, err := h.FindKind(ctx, Cron, p, system); err == nil && u.Installed() {
		r.Scheduler = &u.Unit
		if u.Active == "failed" {
			r.Advice = append(r.Advice, Explain(u.Unit))
		}
	}
	if len(all) == 0 {
		if err != nil {
			r.Advice = append(r.Advice, domain.MessageOf(err))
		} else {
			r.Advice = append(r.Advice, fmt.Sprintf("no unit is installed, so nothing starts it after a reboot: `hermes%s gateway install`", profileFlag(p)))
		}
		return r
	}
	u := all[0].Unit
	r.Unit, r.Left = &u, StartsLeft(u, now)
	for _, other := range all[1:] {
		r.Others = append(r.Others, other.Name)
		if rank(other.Unit, "") >= 2 {
			r.Advice = append(r.Advice, fmt.Sprintf("%s serves this profile too (%s, %s): take one of the two away", other.Name, other.Active, other.Enabled))
		}
	}
	judgeFile(&r, p, spec)
	r.Advice = append(r.Advice, h.adviceOn(u, r)...)
	return r
}

// judgeFile says who wrote the unit's file and reads its drop-ins.
func judgeFile(r *Report, p home.Profile, spec Spec) {
	if text, err := plain.Read(r.File); err == nil {
		r.Origin = OriginOf(string(text))
		want, err := choicesOf(spec, *r.Unit, string(text)).Render()
		r.Outdated = err == nil && r.Origin == Generated && !Same(string(text), want)
		for _, f := range Lint(filepath.Base(r.File), string(text), r.System) {
			r.Advice = append(r.Advice, f.String())
		}
	}
	for _, path := range r.DropIns {
		if text, err := plain.Read(path); err == nil {
			for _, e := range Parse(string(text)) {
				r.Settings = append(r.Settings, filepath.Base(path)+": "+e.Key+"="+e.Value)
			}
		}
	}
	if r.Outdated {
		r.Advice = append(r.Advice, fmt.Sprintf("the unit file is of another version: `hermes%s gateway install` renews it", profileFlag(p)))
	}
}

// choicesOf is spec with what was chosen at the installation of a unit: whom it
// runs as, its program, its PATH. None of that makes a file outdated.
func choicesOf(spec Spec, u Unit, text string) Spec {
	entries := Parse(text)
	spec.System, spec.Template = u.System, strings.HasSuffix(filepath.Base(u.File), "@.service")
	spec.Ready = Readiness(Value(entries, "Service", "Type"))
	if a, err := FindAccount(Value(entries, "Service", "User")); err == nil && u.System {
		spec.Account = a
		spec.Profile = ProfileOf(u, spec.Profile)
	}
	if w := words(Value(entries, "Service", "ExecStart")); len(w) > 0 {
		spec.Binary = strings.ReplaceAll(w[0], "%%", "%")
	}
	spec.Path = ""
	for _, e := range entries {
		for _, w := range words(e.Value) {
			if v, ok := strings.CutPrefix(w, "PATH="); ok && e.Key == "Environment" {
				spec.Path = strings.ReplaceAll(v, "%%", "%")
			}
		}
	}
	return spec
}

// adviceOn says what of the unit's state an operator should know.
func (h Host) adviceOn(u Unit, r Report) []string {
	var out []string
	if !u.System && !r.Lingers {
		out = append(out, "lingering is off: the gateway ends with the last logout and does not start at boot. `sudo loginctl enable-linger "+h.Account.Name+"`")
	}
	if !strings.HasPrefix(u.Enabled, "enabled") && u.Load == "loaded" {
		out = append(out, u.Name+" is not enabled, so it does not start at boot: `hermes gateway install`, or `systemctl enable`")
	}
	if Overridden(u) {
		out = append(out, "a rescue lets "+u.Name+" run "+u.Program+" in place of the installed program, which ended again and again; once that is mended, `hermes gateway restart` goes back to it")
	}
	if u.LimitBurst == 1 && LimitOf(u).Managed && LimitOf(u).Effective() {
		out = append(out, u.Name+" allows one start (StartLimitBurst=1), so the first crash ends it for good: set StartLimitBurst=5")
	}
	if u.Load == "masked" {
		out = append(out, Explain(u))
	}
	if u.NeedsReload {
		out = append(out, "unit files changed since systemd read them: `systemctl daemon-reload`")
	}
	if u.Active == "failed" {
		out = append(out, Explain(u))
	}
	return out
}
