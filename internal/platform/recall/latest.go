package recall

import (
	"sync"

	"hermes/internal/domain"
)

// maxLatest bounds the addresses that are remembered.
const maxLatest = 1024

// Latest remembers the last message of each address, to be taken once: the one
// that a reaction is for. The zero value is usable; its methods are safe for
// concurrent use.
type Latest struct {
	mu    sync.Mutex
	order []domain.Address
	m     map[domain.Address]string
}

// Set remembers the platform's id of the last message of an address.
func (l *Latest) Set(to domain.Address, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.m == nil {
		l.m = map[domain.Address]string{}
	}
	if _, known := l.m[to]; !known {
		if len(l.order) >= maxLatest {
			delete(l.m, l.order[0])
			l.order = l.order[1:]
		}
		l.order = append(l.order, to)
	}
	l.m[to] = message
}

// Take gives the message once; "" afterwards, and when there is none.
func (l *Latest) Take(to domain.Address) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := l.m[to]
	if id != "" {
		l.m[to] = ""
	}
	return id
}
