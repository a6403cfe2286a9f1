package cron

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

//go:embed watchdogs/*.sh
var watchdogFiles embed.FS

// Watchdog is a ready script with the job that runs it.
type Watchdog struct {
	Name   string   `json:"name"`   // of the example: disk
	Script string   `json:"script"` // file in the scripts folder: disk-watchdog.sh
	About  string   `json:"about"`
	Every  string   `json:"schedule"`
	Set    []string `json:"settings"` // lines of the script that are to be looked at
}

// Watchdogs lists the ready scripts.
func Watchdogs() []Watchdog {
	return []Watchdog{
		{"disk", "disk-watchdog.sh", "warns when a file system fills up", "every 10m", []string{"LIMIT"}},
		{"memory", "memory-watchdog.sh", "warns when memory runs short", "every 5m", []string{"LIMIT"}},
		{"http", "http-watchdog.sh", "warns when a web address does not answer", "every 5m", []string{"URLS"}},
		{"port", "port-watchdog.sh", "warns when nothing listens on a port", "every 5m", []string{"PORTS"}},
		{"heartbeat", "heartbeat.sh", "tells a watcher outside that this machine is alive", "every 5m", []string{"URL"}},
	}
}

// FindWatchdog finds one by its name or the name of its script. domain.NotFound
// names those that there are.
func FindWatchdog(name string) (Watchdog, error) {
	var names []string
	for _, w := range Watchdogs() {
		if strings.EqualFold(name, w.Name) || name == w.Script || name == strings.TrimSuffix(w.Script, ".sh") {
			return w, nil
		}
		names = append(names, w.Name)
	}
	return Watchdog{}, domain.E(domain.Invalid, nil, "there is no example %q; there are %s", name, strings.Join(names, ", "))
}

// Text is the script.
func (w Watchdog) Text() ([]byte, error) { return watchdogFiles.ReadFile("watchdogs/" + w.Script) }

// Job is the command that makes the job.
func (w Watchdog) Job(flag string) string {
	return fmt.Sprintf("hermes%s cron create %q --no-agent --script %s --name %s --deliver telegram", flag, w.Every, w.Script, strings.TrimSuffix(w.Script, ".sh"))
}

// Write puts the script into a scripts folder and gives its path. One that is
// there already stays: domain.Conflict when it says something else.
func (w Watchdog) Write(dir string) (path string, err error) {
	text, err := w.Text()
	if err != nil {
		return "", domain.E(domain.Internal, err, "the example %s cannot be read", w.Name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", domain.E(domain.Unavailable, err, "the scripts folder %s cannot be made", dir)
	}
	path = filepath.Join(dir, w.Script)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if errors.Is(err, fs.ErrExist) {
		if have, rerr := plain.Read(path); rerr == nil && bytes.Equal(have, text) {
			return path, nil
		}
		return path, domain.E(domain.Conflict, nil, "%s is there already and was changed; it is left as it is. Move it away to have the example anew", path)
	}
	if err != nil {
		return "", domain.E(domain.Unavailable, err, "%s cannot be written", path)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", domain.E(domain.Unavailable, errors.Join(err, os.Remove(path)), "%s cannot be written", path)
	}
	return path, nil
}
