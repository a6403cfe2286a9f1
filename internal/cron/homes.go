package cron

import (
	"maps"
	"slices"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/home"
)

// ConfigHomes reads home channels from the configuration, anew at every
// question, so that /sethome counts at once. Find, where not nil, is the
// directory of channels by name.
type ConfigHomes struct {
	Config func() *home.Config
	Find   func(p domain.Platform, name string) (a domain.Address, found bool, err error)
}

// Platforms lists the platforms that are enabled: the well-known ones first.
func (h ConfigHomes) Platforms() []domain.Platform {
	known := knownPlatforms()
	rank := func(p domain.Platform) int {
		if i := slices.Index(known, string(p)); i >= 0 {
			return i
		}
		return len(known)
	}
	var out []domain.Platform
	for p, c := range maps.All(h.Config().Platforms) {
		if c.Enabled && p != domain.PlatformAPI {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b domain.Platform) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		if a < b {
			return -1
		}
		return 1
	})
	return out
}

// Home is the home channel, in the topic that is set for cron.
func (h ConfigHomes) Home(p domain.Platform) (domain.Address, bool) {
	c := h.Config().Platforms[p]
	a := c.Home
	if a.ChatID == "" {
		return domain.Address{}, false
	}
	a.Platform = p
	if found, ok, err := h.Channel(p, a.ChatID); err != nil {
		return domain.Address{}, false
	} else if ok {
		a.ChatID = found.ChatID
		a.ThreadID = orDefault(a.ThreadID, found.ThreadID)
	}
	if c.CronThread != "" {
		a.ThreadID = c.CronThread
	}
	return a, true
}

// Channel asks the directory. Without one, ids alone are understood.
func (h ConfigHomes) Channel(p domain.Platform, name string) (domain.Address, bool, error) {
	if h.Find != nil {
		return h.Find(p, name)
	}
	if strings.ContainsAny(name, "# ") {
		return domain.Address{}, false, domain.E(domain.NotFound, nil, "no chat is known by the name %q here; write its id", name)
	}
	return domain.Address{}, false, nil
}
