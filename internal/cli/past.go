package cli

import (
	"context"
	"fmt"
	"time"

	"hermes/internal/home"
	"hermes/internal/rescue"
	"hermes/internal/service"
)

// pastView is what status tells of the lives before now.
type pastView struct {
	service.Past
	Rescue *rescue.Incident `json:"last_rescue,omitempty"`
}

// rescueTold is how long status tells of a rescue.
const rescueTold = 7 * 24 * time.Hour

// past gathers what is known of a profile's lives before now.
func (a *App) past(ctx context.Context, p home.Profile, unit service.Report) pastView {
	v := pastView{Past: service.NewHost(service.Me(a.UserHome()), a.getenv).Past(ctx, p, unit)}
	if i, ok := rescue.Last(rescueFile(p)); ok && a.Now().Sub(i.At) < rescueTold {
		v.Rescue = &i
	}
	return v
}

// printPast prints the evidence of the past.
func (a *App) printPast(v pastView) {
	for _, one := range []struct {
		name string
		fact service.Fact
	}{{"last boot", v.Boot}, {"last logout", v.Logout}, {"last gap", v.Restart}, {"config", v.Config}} {
		text := one.fact.Text
		if one.fact.Known && !one.fact.Good {
			text = "! " + text
		}
		wrap(a.Out, fmt.Sprintf("  %-11s ", one.name), text)
	}
	a.printRescue(v)
}

// printRescue prints the last rescue, where there was one lately.
func (a *App) printRescue(v pastView) {
	if v.Rescue == nil {
		return
	}
	text := v.Rescue.At.Local().Format("2006-01-02 15:04:05") + ": " + v.Rescue.Why
	if v.Rescue.Up() {
		text += "; brought back on " + v.Rescue.Tried.Words()
	} else if v.Rescue.Tried != nil && v.Rescue.Tried.Asked && v.Rescue.Again.IsZero() {
		text += "; the system's manager was asked to start it again"
	} else {
		text += "; not brought back"
	}
	for _, t := range v.Rescue.Told {
		if t.Error == "" {
			text += "; told " + t.To
		} else {
			text += "; not told: " + t.Error
		}
	}
	wrap(a.Out, fmt.Sprintf("  %-11s ", "rescue"), text)
}
