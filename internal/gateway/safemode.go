package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"hermes/internal/control"
	"hermes/internal/delivery"
	"hermes/internal/home"
	"hermes/internal/rescue"
	"hermes/internal/service"
	"hermes/internal/starts"
	"hermes/internal/succession"
	"hermes/internal/versions"
)

// The pace at which a life is proved.
const (
	proofFirst = 5 * time.Second  // from the start to the first look at whether all is well
	proofAgain = 5 * time.Second  // to the second, which must say the same
	proofPause = 30 * time.Second // between looks after that
)

// vouch puts on record that this life serves, that nothing was wrong twice in a
// row, and that it lasted; from the second on its configuration and its program
// are what a later start may go back to.
func (g *Gateway) vouch(ctx context.Context) {
	s := g.Safe
	if s == nil || s.Life == nil {
		return
	}
	settled := g.Now().Add(starts.SettleTime)
	pause, well, vouched := proofFirst, 0, false
	for {
		sleep(ctx, pause)
		if ctx.Err() != nil {
			return
		}
		pause = proofAgain
		if well++; !g.owns() || !g.Status(ctx).Healthy {
			well, pause = 0, proofPause
		}
		if well >= 2 && !vouched {
			vouched = true
			g.vouchFor(s)
		}
		if !g.Now().Before(settled) {
			g.settle(s)
			if vouched {
				return
			}
			settled = g.Now().Add(starts.SettleTime)
		}
		if vouched {
			pause = max(settled.Sub(g.Now()), time.Second)
		}
	}
}

// vouchFor keeps what this life is served by as good.
func (g *Gateway) vouchFor(s *Safe) {
	now := g.Now()
	s.Life.Proved(now)
	if len(starts.Read(g.Profile).Quarantine) > 0 {
		s.Life.Update(func(r *starts.Record) { r.Mended(s.Life.ID()) })
	}
	if s.Instead == "" {
		if _, err := home.OpenHistory(g.Profile).Healthy(s.Served, g.Version, now); err != nil {
			g.Log.Warn("the configuration serves well and could not be kept for a later start to go back to", "component", "gateway", "err", err)
		}
	}
	g.keepProgram()
	good := s.binary
	good.At = now.UTC()
	if !good.Present() {
		return // the file was replaced; what runs is gone with this process
	}
	if err := versions.NoteGood(g.Profile, good); err != nil {
		g.Log.Warn("that this program serves well could not be noted", "component", "gateway", "err", err)
	}
}

// keepProgram keeps a copy of this process's program for a rescue. Without a
// service manager there is no rescue and no copy.
func (g *Gateway) keepProgram() {
	if !succession.UnitMain(g.processEnv) {
		return
	}
	// The file that runs, also where another lies in its place by now.
	if err := rescue.Keep("/proc/self/exe", service.Rescuer(g.processEnv("HOME"))); err != nil {
		g.Log.Warn("should this program be spoiled later, a rescue has none to start", "component", "gateway", "err", err)
	}
}

// settle forgets the deaths before a life that has lasted, and what was held
// back and has lived since it was tried again.
func (g *Gateway) settle(s *Safe) {
	now := g.Now()
	s.Life.Reach(starts.Settled, now)
	s.Life.Update(func(r *starts.Record) {
		r.Quarantine = slices.DeleteFunc(r.Quarantine, func(q starts.Quarantined) bool {
			mine, held := g.caution.held(q.Part)
			return !held || now.Sub(mine.Until) >= starts.SettleTime
		})
	})
}

// safeMode is what status says of the care that is taken; nil for an ordinary
// life.
func (g *Gateway) safeMode() *control.SafeMode {
	s := g.Safe
	if s == nil || len(s.Plan.Careful) == 0 && s.Instead == "" {
		return nil
	}
	m := &control.SafeMode{Why: s.Plan.Careful, NotTold: s.NotTold, Deaths: s.Plan.Deaths, Config: s.Instead, Broken: s.Broken}
	for _, q := range s.Plan.Quarantine {
		m.Held = append(m.Held, control.Held{Part: q.Part, Until: q.Until, Why: q.Why, Times: q.Times})
	}
	lasts := s.Instead != "" || len(m.Held) > 0
	if !lasts && g.Now().Sub(g.started) > starts.SettleTime {
		return nil // nothing came of it
	}
	return m
}

// safeProblems are the sentences of safe mode among what is wrong.
func (g *Gateway) safeProblems(m *control.SafeMode) []string {
	if m == nil {
		return nil
	}
	var out []string
	for _, why := range m.Why {
		out = append(out, "safe mode: "+why)
	}
	if m.Config != "" {
		out = append(out, fmt.Sprintf("safe mode: served is the configuration in %s. What stands on disk was left as it is: mend it (`hermes%[2]s config diff` shows the difference, `hermes%[2]s config check` what is wrong), then `hermes%[2]s gateway restart`; or go back for good with `hermes%[2]s config rollback`",
			m.Config, g.flag()))
	}
	for _, one := range m.NotTold {
		out = append(out, "safe mode: "+one)
	}
	return out
}

// tellSafeMode says in the log, and once an incident to the home channel, that
// the gateway is careful and why.
func (g *Gateway) tellSafeMode(ctx context.Context) {
	if err := g.caution.life().Err(); err != nil {
		g.Log.Warn("a start after a crash could not be careful", "component", "gateway", "err", err)
	}
	m := g.safeMode()
	if m == nil {
		return
	}
	text := g.safeProblems(m)
	for _, one := range text {
		g.Log.Error(one, "component", "gateway")
	}
	incident := g.Safe.Plan.Incident
	if incident == "" || starts.Read(g.Profile).Told == incident {
		return
	}
	for _, p := range g.homes.Platforms() {
		to, ok := g.homes.Home(p)
		if _, held := g.caution.held("platform." + string(p)); !ok || held {
			continue
		}
		message := "⚠️ I serve in safe mode.\n- " + strings.Join(text, "\n- ") + "\n`hermes" + g.flag() + " gateway status` tells the rest."
		if _, err := g.store.Enqueue(ctx, g.outbox.Plan(to, "alert", g.Redactor.Redact(message), delivery.PlanOptions{}), g.Now()); err != nil {
			g.Log.Error("that the gateway is in safe mode could not be told", "component", "gateway", "err", err)
			return
		}
		g.outbox.Wake(to)
		g.Safe.Life.Update(func(r *starts.Record) { r.Told = incident })
		return
	}
}
