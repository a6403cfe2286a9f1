package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"hermes/testkit/telegram"
)

// 2,000 messages over 200 chats leave nothing behind in memory that grows with
// them, and each is answered once.
func TestManyChats(t *testing.T) {
	const chats, each = 200, 10
	w := setUp(t, options{config: "delivery:\n  unlimited: true\ndisplay:\n  busy_input_mode: queue\n"})
	w.brain.KeepRequests(50)
	p := w.start()
	warm := w.tg.AddUser("Warm")
	w.tg.Say(warm, "warm up")
	w.sees(warm.ID, "warm up")
	before := p.RSS()
	people := make([]telegram.User, chats)
	for i := range people {
		people[i] = w.tg.AddUser(fmt.Sprintf("P%d", i))
	}
	ctx := w.deadline()
	var wg sync.WaitGroup
	for _, who := range people {
		wg.Go(func() {
			for n := range each {
				text := fmt.Sprintf("message %d.", n)
				w.tg.Say(who, text)
				if _, err := w.tg.WaitFor(ctx, who.ID, func(m telegram.Message) bool { return m.FromBot && strings.Contains(m.Text, text) }); err != nil {
					t.Errorf("%s: %q was not answered: %v", who.FirstName, text, err)
					return
				}
			}
		})
	}
	wg.Wait()
	w.settled()
	for _, who := range people {
		if n := len(w.tg.Replies(who.ID)); n != each {
			t.Errorf("%s was shown %d messages\n%s", who.FirstName, n, w.tg.Transcript(who.ID))
			break
		}
	}
	grown := p.RSS() - before
	t.Logf("%d MiB before, %+d MiB after %d messages", before>>20, grown>>20, chats*each)
	if grown > 64<<20 {
		t.Errorf("it grew by %d MiB", grown>>20)
	}
	w.stop(p)
}
