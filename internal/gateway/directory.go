package gateway

import (
	"context"
	"log/slog"
	"time"

	"hermes/internal/delivery/directory"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/platform"
)

// maxSeen bounds the conversations whose chats are known by name.
const maxSeen = 1000

// DirectoryOptions is what the directory of channels of a profile is made of.
// Every field is needed.
type DirectoryOptions struct {
	Profile home.Profile
	Config  *home.Config
	Store   interface {
		ListSessions(ctx context.Context, f ledger.SessionFilter) ([]domain.Session, error)
	}
	Log *slog.Logger
	Now func() time.Time
}

// OpenDirectory reads the directory of channels of a profile, for a command. It
// can ask the platforms itself, whether a gateway runs or not.
func OpenDirectory(o DirectoryOptions) *directory.Directory {
	return openDirectory(o, func(ctx context.Context, p domain.Platform) (platform.Adapter, error) {
		k, known := kinds[p]
		cfg, set := o.Config.Platforms[p]
		if !known || !set || !cfg.Enabled {
			return nil, domain.E(domain.NotFound, nil, "%s is not set up", p)
		}
		return k.build(cfg, adapterDeps{log: o.Log, now: o.Now, profile: o.Profile})
	})
}

// openDirectory makes a directory that asks the adapters that it is given.
func openDirectory(o DirectoryOptions, adapter func(context.Context, domain.Platform) (platform.Adapter, error)) *directory.Directory {
	return directory.Open(directory.Options{
		Path: o.Profile.Path("channel_directory.json"), Now: o.Now, Log: o.Log, Capabilities: capabilities,
		Seen: func(ctx context.Context) ([]domain.Source, error) {
			sessions, err := o.Store.ListSessions(ctx, ledger.SessionFilter{Limit: maxSeen})
			var out []domain.Source
			for _, s := range sessions {
				if _, ok := o.Config.Platforms[s.Source.Platform]; ok && s.Source.ChatID != "" {
					out = append(out, s.Source)
				}
			}
			return out, err
		},
		List: func(ctx context.Context, p domain.Platform) ([]platform.Channel, error) {
			a, err := adapter(ctx, p)
			if err != nil {
				return nil, err
			}
			d, ok := a.(platform.Directory)
			if !ok {
				return nil, domain.E(domain.NotFound, nil, "%s has no list of channels", p)
			}
			return d.Channels(ctx)
		},
	})
}

// buildDirectory makes the gateway's directory, which asks the adapters that
// are connected.
func (g *Gateway) buildDirectory() {
	o := DirectoryOptions{Profile: g.Profile, Config: g.Config, Store: g.store, Log: g.Log, Now: g.Now}
	g.directory = openDirectory(o, func(_ context.Context, p domain.Platform) (platform.Adapter, error) {
		if a, ok := g.outbox.Adapter(p); ok {
			return a, nil
		}
		return nil, domain.E(domain.NotFound, nil, "%s is not connected", p)
	})
	g.homes.Find = func(p domain.Platform, name string) (domain.Address, bool, error) {
		return g.directory.Find(context.Background(), p, name)
	}
}
