package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/service"
)

// gatewayRow is one profile in a list.
type gatewayRow struct {
	Profile string `json:"profile"`
	State   string `json:"gateway_state"`
	Healthy bool   `json:"healthy"`
	PID     int    `json:"pid,omitempty"`
	API     string `json:"api,omitempty"`
	Unit    string `json:"unit,omitempty"` // that serves, or would serve, the profile
	// Scheduler is the unit of a scheduler alone, SchedulerState its state in
	// systemd's words; both are empty where there is none.
	Scheduler      string `json:"scheduler_unit,omitempty"`
	SchedulerState string `json:"scheduler_state,omitempty"`
	Problem        string `json:"problem,omitempty"`
}

// listGateways prints a row for each profile, with schedulers only for those that
// have the unit of a scheduler alone. The state of one is never inferred from
// another's.
func (a *App) listGateways(ctx context.Context, asJSON, schedulers bool) error {
	profiles, err := home.List(a.Root())
	if err != nil {
		return err
	}
	rows := []gatewayRow{}
	host := service.NewHost(service.Me(a.UserHome()), a.getenv)
	var silent error // of a manager that does not answer, which is asked once only
	for _, p := range profiles {
		if r := a.gatewayRow(ctx, host, p, &silent); !schedulers || r.Scheduler != "" {
			rows = append(rows, r)
		}
	}
	if asJSON {
		return a.JSON(rows)
	}
	w := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "PROFILE\tSTATE\tPID\tAPI\tUNIT\tSCHEDULER\tPROBLEM")
	for _, r := range rows {
		state := r.State
		if state == "running" && !r.Healthy {
			state = "unhealthy"
		}
		pid := "–"
		if r.PID > 0 {
			pid = fmt.Sprint(r.PID)
		}
		alone := dash(r.Scheduler)
		if r.Scheduler != "" && r.SchedulerState != "active" {
			alone += " (" + r.SchedulerState + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Profile, state, pid, dash(r.API), dash(r.Unit), alone, cut(r.Problem, 30))
	}
	if silent != nil {
		defer fmt.Fprintf(a.Out, "! %s, so the units are not known\n", domain.MessageOf(silent))
	}
	return w.Flush()
}

// gatewayRow looks at one profile. A time-out of systemd is kept in silent.
func (a *App) gatewayRow(ctx context.Context, host service.Host, p home.Profile, silent *error) gatewayRow {
	r := gatewayRow{Profile: p.Name, State: "stopped"}
	find := func(kind service.Kind) (u service.Found, ok bool) {
		if *silent != nil {
			return u, false
		}
		u, err := host.FindKind(ctx, kind, p, false)
		if domain.IsCode(err, domain.Timeout) {
			*silent = err
		}
		if err == nil && (u.Active == "failed" || u.Load == "masked") {
			r.Problem = service.Explain(u.Unit)
		}
		return u, err == nil
	}
	if u, ok := find(service.Cron); ok && u.Installed() {
		r.Scheduler, r.SchedulerState = strings.TrimSuffix(u.Name, ".service"), u.Active
	}
	if u, ok := find(service.Gateway); ok && u.Installed() {
		r.Unit = strings.TrimSuffix(u.Name, ".service")
	}
	s, err := a.dial(p).Status(ctx)
	if err != nil {
		return r
	}
	r.State, r.Healthy, r.PID, r.API = s.State, s.Healthy, s.PID, s.API.Address
	if len(s.Problems) > 0 {
		r.Problem = s.Problems[0]
	}
	return r
}
