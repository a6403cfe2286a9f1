package cron

import (
	"maps"
	"slices"

	"hermes/internal/domain"
	"hermes/internal/home"
)

// ConfigHomes reads home channels from the configuration, anew at every
// question, so that /sethome counts at once. Find, where not nil, is the
// directory of channels by name.
type ConfigHomes struct {
	Config func() *home.Config
	Find   func(p domain.Platform, name string) (domain.Address, bool)
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
	if c.CronThread != "" {
		a.ThreadID = c.CronThread
	}
	return a, true
}

// Channel asks the directory.
func (h ConfigHomes) Channel(p domain.Platform, name string) (domain.Address, bool) {
	if h.Find == nil {
		return domain.Address{}, false
	}
	return h.Find(p, name)
}
