package gateway

import (
	"context"
	"time"

	"hermes/internal/rescue"
	"hermes/internal/service"
	"hermes/internal/succession"
)

// provedAfter is how long a process must have served, with nothing wrong, until
// its program counts as good.
const provedAfter = time.Minute

// keepProgram keeps a copy of this process's program for a rescue, once it has
// proved itself. Without a service manager there is no rescue and no copy.
func (g *Gateway) keepProgram(ctx context.Context) {
	if g.CronOnly || !succession.UnitMain(g.processEnv) {
		return
	}
	t := time.NewTimer(provedAfter)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if g.owns() && g.Status(ctx).Healthy {
			break
		}
		t.Reset(provedAfter)
	}
	// The file that runs, also where another lies in its place by now.
	if err := rescue.Keep("/proc/self/exe", service.Rescuer(g.processEnv("HOME"))); err != nil {
		g.Log.Warn("should this program be spoiled later, a rescue has none to start", "component", "gateway", "err", err)
	}
}
