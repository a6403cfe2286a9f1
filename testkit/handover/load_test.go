package handover

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hermes/testkit/telegram"
)

const handOvers = 10

// load is what people and programs do meanwhile.
type load struct {
	w       *world
	stop    chan struct{}
	work    sync.WaitGroup
	served  atomic.Int64
	chatted atomic.Int64
	longest atomic.Int64 // nanoseconds that a request took
	mu      sync.Mutex
	failed  []string
	said    map[telegram.User][]string
}

func startLoad(w *world) *load {
	l := &load{w: w, stop: make(chan struct{}), said: map[telegram.User][]string{}}
	for i := range 3 {
		l.client(i, &http.Client{Timeout: stepLimit, Transport: &http.Transport{DisableKeepAlives: true}})
		l.client(i+10, &http.Client{Timeout: stepLimit, Transport: &http.Transport{MaxIdleConnsPerHost: 1}})
	}
	for i := range 3 {
		u := w.tg.AddUser(fmt.Sprintf("Person%d", i))
		l.work.Go(func() {
			for n := 0; !l.ended(); n++ {
				id := fmt.Sprintf("c%dn%d", i, n)
				l.mu.Lock()
				l.said[u] = append(l.said[u], id)
				l.mu.Unlock()
				if err := w.converse(u, id); err != nil {
					l.fail("chat %s: %v", id, err)
					return
				}
				l.chatted.Add(1)
			}
		})
	}
	return l
}

// client sends one request after another.
func (l *load) client(i int, c *http.Client) {
	l.work.Go(func() {
		defer c.CloseIdleConnections()
		for n := 0; !l.ended(); n++ {
			id := fmt.Sprintf("r%dn%d", i, n)
			began := time.Now()
			text, err := l.w.post(c, "say "+id)
			if took := int64(time.Since(began)); took > l.longest.Load() {
				l.longest.Store(took)
			}
			if err != nil || text != "answer "+id {
				l.fail("request %s after %s: %q %v", id, time.Since(began), text, err)
				continue
			}
			l.served.Add(1)
		}
	})
}

func (l *load) ended() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

func (l *load) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, fmt.Sprintf(format, args...))
}

// goOn waits until everybody has been served anew.
func (l *load) goOn() {
	l.w.t.Helper()
	r, c := l.served.Load(), l.chatted.Load()
	l.w.until("the load goes on", func() bool { return l.served.Load() > r+40 && l.chatted.Load() > c+3 })
}

// finish ends the load and holds that nothing failed, was lost or doubled.
func (l *load) finish() {
	t := l.w.t
	t.Helper()
	close(l.stop)
	l.work.Wait()
	for _, f := range l.failed {
		t.Error(f)
	}
	for u, ids := range l.said {
		transcript := l.w.tg.Transcript(u.ID)
		for _, id := range ids {
			if n := strings.Count(transcript+"\n", ": answer "+id+"\n"); n != 1 {
				t.Errorf("%s was answered %d times", id, n)
			}
		}
	}
	t.Logf("%d requests, %d messages over %d hand-overs; longest request %s", l.served.Load(), l.chatted.Load(), handOvers, time.Duration(l.longest.Load()))
}

// A successor beside its predecessor: nothing fails, streams live on.
func TestOverlapUnderLoad(t *testing.T) {
	w := newWorld(t, "overlap", "")
	l := startLoad(w)
	l.goOn()
	var memory, files int
	for i := range handOvers {
		var streams []*stream
		id := fmt.Sprintf("s%d", i)
		for range 3 {
			s, err := w.openStream(id)
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, s)
		}
		before := w.serving().PID
		w.restart()
		after := w.serving()
		if after.PID == before {
			t.Fatalf("hand-over %d: the same process serves", i)
		}
		l.goOn()
		close(w.gate(id))
		for _, s := range streams {
			if err := s.rest(id); err != nil {
				t.Errorf("hand-over %d: %v", i, err)
			}
		}
		rss, fds := footprint(after.PID)
		if i == 1 {
			memory, files = rss, fds
		}
		if i == handOvers-1 && (fds > files+20 || rss > memory*3/2) {
			t.Errorf("it grows: %d files and %d pages after the second hand-over, %d and %d after the last", files, memory, fds, rss)
		}
	}
	l.finish()
	w.until("the predecessors have left", func() bool { return len(w.alive()) == 1 })
}

// footprint is the resident memory in pages and the number of open files.
func footprint(pid int) (rss, fds int) {
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)); err == nil {
		var size int
		fmt.Sscan(string(text), &size, &rss)
	}
	open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return rss, len(open)
}

// In place: the same PID, nothing fails.
func TestInPlaceUnderLoad(t *testing.T) {
	w := newWorld(t, "exec", "")
	l := startLoad(w)
	l.goOn()
	before := w.serving()
	for i := range handOvers {
		w.restart()
		after := w.serving()
		if after.PID != before.PID || !after.StartedAt.After(before.StartedAt) {
			t.Fatalf("restart %d: PID %d began %s, now %d began %s", i, before.PID, before.StartedAt, after.PID, after.StartedAt)
		}
		before = after
		l.goOn()
	}
	l.finish()
}
