package sqlite

import (
	"context"
	"testing"
	"time"

	"hermes/internal/domain"
)

// TestReadersAreOpenedWhenNeeded reads one after the other by one connection,
// several at once by as many as there may be, and waits for one beyond that.
func TestReadersAreOpenedWhenNeeded(t *testing.T) {
	s := testStore(t)
	for range 10 {
		if _, err := s.Note(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.readers.idle); n != 1 {
		t.Errorf("%d connections read one after the other", n)
	}
	inside, leave, left := make(chan struct{}), make(chan struct{}), make(chan error)
	for range maxReaders {
		go func() {
			left <- s.read(context.Background(), func(*conn) error {
				inside <- struct{}{}
				<-leave
				return nil
			})
		}()
	}
	for range maxReaders {
		<-inside
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Note(ctx, "k"); !domain.IsCode(err, domain.Timeout) {
		t.Errorf("one more read: %v", err)
	}
	close(leave)
	for range maxReaders {
		if err := <-left; err != nil {
			t.Error(err)
		}
	}
	if n := len(s.readers.idle); n != maxReaders {
		t.Errorf("%d connections are kept", n)
	}
}
