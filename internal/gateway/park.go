package gateway

import (
	"context"
	"log/slog"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/succession"
)

// The pace of a parked start.
const (
	parkLook = 2 * time.Second  // between looks whether the configuration was mended
	parkTry  = 30 * time.Second // until the start is tried again all the same
)

// Park is a start that came to nothing and waits, where ending would only use up
// the starts that a service manager allows, or be repeated for ever: commands
// get an answer, and the manager is asked for time. It returns nil when the
// start is to be tried again, which is soon, and at once when the configuration
// on disk has changed; domain.Cancelled when the process was asked to stop.
func Park(ctx context.Context, o Options, why error) error {
	if o.Config == nil {
		o.Config = &home.Config{}
	}
	if o.Env == nil {
		o.Env = &home.Env{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{Options: o, started: o.Now(), phase: phaseStarting, shutdown: make(chan struct{}), intake: make(chan struct{})}
	g.health = health.New(o.Now)
	g.notifier = succession.NewNotifier(g.processEnv)
	w := &waiting{g: g, parked: true}
	w.because(domain.MessageOf(why))
	defer w.end()
	before, _ := home.ReadFiles(o.Profile) // what cannot be read is as good as empty
	look, beat, again := time.NewTicker(parkLook), time.NewTimer(0), time.NewTimer(parkTry)
	defer look.Stop()
	defer beat.Stop()
	defer again.Stop()
	for {
		select {
		case <-beat.C:
			w.beat()
			beat.Reset(extendEvery)
		case <-look.C:
			if now, _ := home.ReadFiles(o.Profile); now.Fingerprint() != before.Fingerprint() {
				return nil
			}
		case <-again.C:
			return nil
		case <-g.shutdown:
			return domain.E(domain.Cancelled, nil, "stopped while the start was parked")
		case <-ctx.Done():
			return domain.E(domain.Cancelled, nil, "stopped while the start was parked")
		}
	}
}
