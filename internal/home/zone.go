package home

import (
	"os"
	"strings"
	"sync/atomic"
	"time"

	"hermes/internal/plain"
)

// localtime names the host's zone by a link, see localtime(5), or holds it.
const localtime = "/etc/localtime"

// HostZone is the host's time zone as it is now: the Go runtime reads it once, and
// a gateway outlives a change of it. Its methods are safe for concurrent use.
type HostZone struct {
	file string
	now  atomic.Pointer[zoneRead]
}

// zoneRead is a zone and what it was read from, by which a change is seen.
type zoneRead struct {
	source string
	zone   *time.Location
}

// newHostZone reads the host's zone from a file such as /etc/localtime.
func newHostZone(file string) *HostZone {
	h := &HostZone{file: file}
	h.now.Store(readZone(file))
	return h
}

// Zone is the zone that the last look gave.
func (h *HostZone) Zone() *time.Location { return h.now.Load().zone }

// Refresh looks again and tells whether the zone is another now.
func (h *HostZone) Refresh() (changed bool) {
	before, now := h.now.Load(), readZone(h.file)
	return now.source != before.source && h.now.CompareAndSwap(before, now)
}

// Zone is the zone of the profile: the one that is set, else the host's as it is
// now.
func (c *Config) Zone() *time.Location {
	if c.Host != nil {
		return c.Host.Zone()
	}
	return c.Timezone
}

// readZone gives the host's zone under its own name, where it has one: Go calls
// the one of /etc/localtime Local, which tells a reader nothing.
func readZone(file string) *zoneRead {
	if time.Local.String() != "Local" {
		return &zoneRead{"TZ", time.Local} // named by TZ, which nothing changes
	}
	target, err := os.Readlink(file)
	if err != nil {
		return zoneOf(file)
	}
	_, name, found := strings.Cut(target, "zoneinfo/")
	if !found {
		return zoneOf(file)
	}
	zone, err := time.LoadLocation(strings.TrimPrefix(strings.TrimPrefix(name, "posix/"), "Etc/"))
	if err != nil {
		return zoneOf(file)
	}
	return &zoneRead{name, zone}
}

// mostZone bounds a file of zone data; the largest have a few KiB.
const mostZone = 1 << 20

// zoneOf reads zone data, see tzfile(5), that have no name.
func zoneOf(file string) *zoneRead {
	data, err := plain.ReadMost(file, mostZone)
	if err != nil {
		return &zoneRead{"", time.Local}
	}
	zone, err := time.LoadLocationFromTZData("Local", data)
	if err != nil {
		return &zoneRead{"", time.Local}
	}
	return &zoneRead{string(data), zone}
}
