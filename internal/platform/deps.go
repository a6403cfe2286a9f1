package platform

import (
	"log/slog"
	"net/http"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform/httpcall"
)

// Deps is what every adapter is given. Every field may be zero.
type Deps struct {
	HTTP   *http.Client // its redirects are not followed; nil means one of its own
	Log    *slog.Logger
	Health *health.Reporter
	Now    func() time.Time
	// Changed is called when a channel was made, renamed or deleted. It must not block.
	Changed func()
}

// Filled gives them with what is missing, for an adapter that calls its service
// by HTTP, through a proxy unless that is "".
func (d Deps) Filled(name domain.Platform, proxy string) Deps {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	d.Log = d.Log.With("platform", string(name))
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Changed == nil {
		d.Changed = func() {}
	}
	if d.HTTP == nil {
		d.HTTP = httpcall.NewClient(proxy)
	}
	d.HTTP = httpcall.Fixed(d.HTTP)
	return d
}
