package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/rescue"
	"hermes/internal/secret"
	"hermes/internal/service"
	"hermes/internal/starts"
)

// tellParked begins to tell the home channels that starts come to nothing and
// wait, by the configuration that served last where the one on disk cannot be
// used. They are told once, however often the start is tried. The end of it is
// to be called before the process goes on; what has not been said by then is
// left to the next start that waits.
func (a *App) tellParked(ctx context.Context, p home.Profile, failed error) (end func()) {
	if !parkUntold(starts.Read(p), a.Now()) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		cfg, _ := a.configForRescue(p)
		text := secret.NewRedactor(a.secrets(cfg)...).Redact(parkText(p, failed))
		_, err := rescue.Tell(ctx, text, func(ctx context.Context, text string) ([]rescue.Told, error) {
			return a.tellHomes(ctx, cfg, text)
		}, a.Now, nil)
		if err != nil && !domain.IsCode(err, domain.Conflict) { // in the outbox it is as good as said
			fmt.Fprintf(a.Err, "hermes: that the start waits could not be told to the home channel: %s\n", domain.MessageOf(err))
			return
		}
		// Not noted, it is told again: the worse of two evils would be silence.
		_ = starts.Update(p, func(r *starts.Record) { r.ParkTold = a.Now().UTC() })
	}()
	return func() { cancel(); <-done }
}

// parkUntold tells whether people have not heard yet of the starts that now
// come to nothing: they were never told, or it has served since.
func parkUntold(r starts.Record, now time.Time) bool {
	if r.ParkTold.IsZero() {
		return true
	}
	for _, s := range r.Starts {
		if s.At.After(r.ParkTold) && s.Reached(starts.Serving) {
			return now.Sub(r.ParkTold) > rescue.Quiet
		}
	}
	return false
}

// parkText is what the home channels are told.
func parkText(p home.Profile, failed error) string {
	name := "the gateway of " + p.Name
	if unit, _, ok := service.OwnUnit(); ok {
		name = unit
	}
	if host, err := os.Hostname(); err == nil {
		name += " on " + host
	}
	return fmt.Sprintf("🛑 %s does not start: %s\n\nIt waits, and tries again every half minute, at once when its configuration is changed. Nothing that was accepted is lost. `hermes%s gateway status` tells more.",
		name, domain.MessageOf(failed), profileFlag(p))
}
