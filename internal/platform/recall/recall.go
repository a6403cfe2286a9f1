// Package recall holds what an adapter remembers, bounded: names that it looked
// up, and what became of the messages that it sent.
package recall

import "sync"

// maxKnown bounds each table.
const maxKnown = 4096

// Table is a map that forgets its older half when it is full. The zero value
// is usable; it is not safe for concurrent use.
type Table[V any] struct {
	young, old map[string]V
}

// Get gives the value of a key, if it is remembered.
func (t *Table[V]) Get(key string) (V, bool) {
	if v, ok := t.young[key]; ok {
		return v, true
	}
	v, ok := t.old[key]
	return v, ok
}

// Set remembers a value.
func (t *Table[V]) Set(key string, v V) {
	if t.young == nil || len(t.young) >= maxKnown/2 {
		t.young, t.old = map[string]V{}, t.young
	}
	t.young[key] = v
}

// Drop forgets a key.
func (t *Table[V]) Drop(key string) {
	delete(t.young, key)
	delete(t.old, key)
}

// Sends remembers what became of sends: receipts by nonce, nonces of unknown
// outcome, and the addresses to which this process has sent. The zero value is
// usable; its methods are safe for concurrent use.
type Sends struct {
	mu        sync.Mutex
	receipts  Table[string]
	unclear   Table[bool]
	addresses Table[bool]
}

// Begin tells what is known of a send: its receipt if it is done, or else
// whether it has to be looked for in the platform's history, because its
// outcome is unknown or because it is the first of this process to that
// address, which its predecessor may have sent. "" is no nonce, and is never
// looked for.
func (s *Sends) Begin(to, nonce string) (receipt string, look bool) {
	if nonce == "" {
		return "", false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, ok := s.receipts.Get(nonce); ok {
		return id, false
	}
	unclear, _ := s.unclear.Get(nonce)
	known, _ := s.addresses.Get(to)
	return "", unclear || !known
}

// Unknown says that a send may have been carried out.
func (s *Sends) Unknown(nonce string) {
	if nonce == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unclear.Set(nonce, true)
}

// Done remembers the receipt of a send.
func (s *Sends) Done(to, nonce, receipt string) {
	if nonce == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unclear.Drop(nonce)
	s.receipts.Set(nonce, receipt)
	s.addresses.Set(to, true)
}
