package cli

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"hermes/internal/cron"
	"hermes/internal/delivery/directory"
	"hermes/internal/domain"
	"hermes/internal/gateway"
	"hermes/internal/home"
	"hermes/internal/ledger/sqlite"
)

const (
	freshEnough = 5 * time.Minute  // a list of channels younger than this is not asked for again
	askChannels = 10 * time.Second // longest wait for one platform's list
)

// places knows where a profile can send to, by ids and by names.
type places struct {
	cron.ConfigHomes
	dir   *directory.Directory
	asked map[domain.Platform]error
}

// newPlaces makes the places of a command. A name is looked up in what the
// gateway keeps; what that does not know, or has not looked at lately, the
// platform is asked for, once a command.
func (a *App) newPlaces(ctx context.Context, p home.Profile, cfg *home.Config, s *sqlite.Store) *places {
	pl := &places{
		ConfigHomes: cron.ConfigHomes{Config: func() *home.Config { return cfg }},
		dir:         gateway.OpenDirectory(gateway.DirectoryOptions{Profile: p, Config: cfg, Store: s, Log: slog.New(slog.DiscardHandler), Now: a.Now}),
		asked:       map[domain.Platform]error{},
	}
	pl.Find = func(p domain.Platform, name string) (domain.Address, bool, error) { return pl.find(ctx, p, name) }
	return pl
}

func (pl *places) find(ctx context.Context, p domain.Platform, name string) (domain.Address, bool, error) {
	addr, found, err := pl.dir.Find(ctx, p, name)
	if err == nil && !found || found && pl.fresh(addr.Platform) {
		return addr, found, err
	}
	var silent []string
	for _, one := range pl.Platforms() {
		if p != "" && p != one || pl.fresh(one) {
			continue
		}
		if asked := pl.ask(ctx, one); asked != nil {
			silent = append(silent, string(one)+" could not be asked for its channels: "+domain.MessageOf(asked))
		}
	}
	if addr, found, err = pl.dir.Find(ctx, p, name); err != nil && len(silent) > 0 {
		err = domain.E(domain.CodeOf(err), err, "%s; %s", domain.MessageOf(err), strings.Join(silent, "; "))
	}
	return addr, found, err
}

func (pl *places) fresh(p domain.Platform) bool {
	age, ok := pl.dir.Age(p)
	return ok && age < freshEnough
}

// ask refreshes a platform's list, once.
func (pl *places) ask(ctx context.Context, p domain.Platform) error {
	if err, done := pl.asked[p]; done {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askChannels)
	defer cancel()
	pl.asked[p] = pl.dir.Refresh(ctx, p)
	return pl.asked[p]
}
