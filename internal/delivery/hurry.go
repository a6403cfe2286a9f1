package delivery

import (
	"context"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// maxHurried bounds how many messages are looked at after an outage. The others
// wait for their own next attempts.
const maxHurried = 1000

// Hurry says that there is a proof that a platform can be reached. If it could
// not be, what waits for its next attempt is tried now: a back-off of minutes
// was meant for a platform that is away. It does not block; without an outage it
// does nothing. A pause that the platform asked for is kept.
func (d *Dispatcher) Hurry(name domain.Platform) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.lines[name]; l != nil {
		d.recovered(l)
	}
}

// recovered ends an outage; the caller holds mu.
func (d *Dispatcher) recovered(l *line) {
	if !l.away || d.stopping || !d.started {
		return
	}
	l.away = false
	d.work.Go(func() { d.hurry(l.name) })
}

// hurry makes what waits for a platform due. What is being sent meanwhile, or
// was taken by another process, is not ours to change.
func (d *Dispatcher) hurry(name domain.Platform) {
	waiting, err := d.o.Store.Deliveries(d.base, ledger.DeliveryFilter{Platform: name, States: []domain.DeliveryState{domain.DeliveryRetrying}, Limit: maxHurried})
	if err != nil {
		d.o.Log.Warn("what waited for a platform that is back keeps to its next attempts", "platform", string(name), "err", err)
		return
	}
	n := 0
	for _, del := range waiting {
		if !del.NextAt.After(d.o.Now()) {
			continue
		}
		_, err := d.o.Store.RetryDelivery(context.WithoutCancel(d.base), del.ID, d.o.Now())
		switch domain.CodeOf(err) {
		case "":
			n++
			d.Wake(del.To)
		case domain.NotFound, domain.Conflict:
		default:
			d.o.Log.Warn("what waited for a platform that is back keeps to its next attempts", "platform", string(name), "err", err)
			return
		}
	}
	if n > 0 {
		d.o.Log.Info("the platform is back: what waited for it is sent now", "platform", string(name), "messages", n)
	}
}
