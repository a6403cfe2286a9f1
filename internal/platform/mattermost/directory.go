package mattermost

import (
	"sync"

	"hermes/internal/platform/recall"
)

// directory remembers names and threads, so that not every post costs a
// request. The zero value is usable; its methods are safe for concurrent use.
type directory struct {
	mu      sync.Mutex
	users   recall.Table[string]
	threads recall.Table[bool] // by first post: the bot has written there
}

func (d *directory) user(id string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, _ := d.users.Get(id)
	return s
}

func (d *directory) setUser(id, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users.Set(id, name)
}

func (d *directory) thread(root string) (joined, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.threads.Get(root)
}

func (d *directory) setThread(root string, joined bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if was, _ := d.threads.Get(root); !was { // joined meanwhile stays joined
		d.threads.Set(root, joined)
	}
}

func (d *directory) joinThread(root string) { d.setThread(root, true) }
