package home

import (
	"os"
	"strings"
	"time"
)

// hostZone is the host's zone under its own name, where it has one: Go calls
// the one of /etc/localtime Local, which tells a reader nothing.
func hostZone() *time.Location {
	if time.Local.String() != "Local" {
		return time.Local // named by TZ
	}
	target, err := os.Readlink("/etc/localtime") // localtime(5)
	if err != nil {
		return time.Local
	}
	_, name, found := strings.Cut(target, "zoneinfo/")
	if !found {
		return time.Local
	}
	name = strings.TrimPrefix(strings.TrimPrefix(name, "posix/"), "Etc/")
	zone, err := time.LoadLocation(name)
	if err != nil {
		return time.Local
	}
	return zone
}
