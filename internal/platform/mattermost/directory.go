package mattermost

import "sync"

// maxKnown bounds each of the directory's tables.
const maxKnown = 4096

// directory remembers names and threads, so that not every post costs a
// request. The zero value is usable; its methods are safe for concurrent use.
type directory struct {
	mu      sync.Mutex
	users   table[string]
	threads table[bool] // by first post: the bot has written there
}

func (d *directory) user(id string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, _ := d.users.get(id)
	return s
}

func (d *directory) setUser(id, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users.set(id, name)
}

func (d *directory) thread(root string) (joined, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.threads.get(root)
}

func (d *directory) setThread(root string, joined bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if was, _ := d.threads.get(root); !was { // joined meanwhile stays joined
		d.threads.set(root, joined)
	}
}

func (d *directory) joinThread(root string) { d.setThread(root, true) }

// table is a map that forgets its older half when it is full.
type table[V any] struct {
	young, old map[string]V
}

func (t *table[V]) get(key string) (V, bool) {
	if v, ok := t.young[key]; ok {
		return v, true
	}
	v, ok := t.old[key]
	return v, ok
}

func (t *table[V]) set(key string, v V) {
	if t.young == nil || len(t.young) >= maxKnown/2 {
		t.young, t.old = map[string]V{}, t.young
	}
	t.young[key] = v
}

func (t *table[V]) drop(key string) {
	delete(t.young, key)
	delete(t.old, key)
}
