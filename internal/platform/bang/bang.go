// Package bang lets people type commands with "!" on platforms whose clients keep
// "/" to themselves.
package bang

import (
	"strings"
	"sync/atomic"

	"hermes/internal/platform"
)

// Commands are the names that there are. The zero value has none. Its methods are
// safe for concurrent use.
type Commands struct {
	known atomic.Pointer[map[string]bool]
}

// Set sets the names.
func (c *Commands) Set(cmds []platform.Command) {
	known := make(map[string]bool, len(cmds))
	for _, one := range cmds {
		known[strings.ToLower(one.Name)] = true
	}
	c.known.Store(&known)
}

// Has tells whether there is a command of a name, whose case does not count.
func (c *Commands) Has(name string) bool {
	known := c.known.Load()
	return known != nil && (*known)[strings.ToLower(name)]
}

// Read turns "!stop" into "/stop" where there is such a command; every other text
// stays as it is.
func (c *Commands) Read(text string) string {
	rest, ok := strings.CutPrefix(text, "!")
	if !ok {
		return text
	}
	word := rest
	if i := strings.IndexAny(word, " \n"); i >= 0 {
		word = word[:i]
	}
	if !c.Has(word) {
		return text
	}
	return "/" + rest
}
