package delivery

import (
	"context"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/platform"
)

// proofFor is how long a receipt counts as a proof of what the platform's
// records hold.
const proofFor = 7 * 24 * time.Hour

// trace asks the platform what became of a message; see platform.Tracer, whose
// answers it gives.
func (d *Dispatcher) trace(l *line, del domain.Delivery) (receipt string, err error) {
	tracer, ok := l.adapter.(platform.Tracer)
	if !ok {
		return "", platform.ErrNoTrace
	}
	last := ""
	list, err := d.o.Store.Deliveries(d.base, ledger.DeliveryFilter{States: []domain.DeliveryState{domain.DeliverySent}, Platform: del.To.Platform, Limit: 1})
	if err != nil {
		d.o.Log.Warn("the last receipt cannot be read", "platform", string(del.To.Platform), "err", err)
	} else if len(list) > 0 && d.o.Now().Sub(list[0].SentAt) < proofFor {
		last = list[0].Receipt
	}
	return d.call(sendTimeout, func(ctx context.Context) (string, error) {
		return tracer.Trace(ctx, del.To, del.Nonce, last)
	})
}
