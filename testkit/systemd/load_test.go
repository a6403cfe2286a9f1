package systemd

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"hermes/testkit/telegram"
)

// pace is how much programs and people do all the while.
type pace struct {
	requestEvery, messageEvery time.Duration
	workers                    int // half of them on kept-alive connections
	people                     int // each waits for an answer before the next word
}

// The load of the budgets, and a light one that many cases can bear beside each
// other.
var (
	fullPace  = pace{5 * time.Millisecond, 50 * time.Millisecond, 32, 60}
	lightPace = pace{25 * time.Millisecond, 150 * time.Millisecond, 8, 20}
)

// load counts what becomes of requests and messages.
type load struct {
	p       *profile
	pace    pace
	name    string // within every word of it
	stop    chan struct{}
	work    sync.WaitGroup
	served  atomic.Int64
	chatted atomic.Int64
	refused atomic.Int64
	longest atomic.Int64 // nanoseconds that a request took
	slowest atomic.Int64 // nanoseconds that a message waited for its answer
	mu      sync.Mutex
	failed  []string
	said    []word
}

type word struct {
	who telegram.User
	id  string
}

// startLoad begins. With fresh, every request is a connection of its own.
func (p *profile) startLoad(pace pace, fresh bool) *load {
	p.loads++
	l := &load{p: p, pace: pace, name: fmt.Sprintf("%d.%d", p.port, p.loads), stop: make(chan struct{})}
	due := make(chan int)
	l.work.Go(func() {
		defer close(due)
		tick := time.NewTicker(pace.requestEvery)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-l.stop:
				return
			case <-tick.C:
			}
			select {
			case due <- n:
			case <-l.stop:
				return
			}
		}
	})
	for i := range pace.workers {
		c := p.client(!fresh && i%2 == 0)
		l.work.Go(func() {
			defer c.CloseIdleConnections()
			for n := range due {
				l.request(c, fmt.Sprintf("%sr%d", l.name, n))
			}
		})
	}
	l.work.Go(l.talk)
	return l
}

func (l *load) request(c *http.Client, id string) {
	began := time.Now()
	text, err := l.p.post(c, "say "+id)
	raise(&l.longest, began)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		l.refused.Add(1)
		l.fail("request %s was refused", id)
	case err != nil || text != "answer "+id:
		l.fail("request %s after %s: %q %v", id, time.Since(began), text, err)
	default:
		l.served.Add(1)
	}
}

// talk lets whoever has been answered say the next word.
func (l *load) talk() {
	idle := make(chan telegram.User, l.pace.people)
	for i := range l.pace.people {
		idle <- l.p.tg.AddUser(fmt.Sprintf("Person%d", i))
	}
	tick := time.NewTicker(l.pace.messageEvery)
	defer tick.Stop()
	var answers sync.WaitGroup
	defer answers.Wait()
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		select {
		case <-l.stop:
			return
		case u := <-idle:
			id := fmt.Sprintf("%sm%d", l.name, n)
			l.mu.Lock()
			l.said = append(l.said, word{u, id})
			l.mu.Unlock()
			answers.Go(func() {
				began := time.Now()
				if err := l.p.converse(u, id); err != nil {
					l.fail("message %s: %v", id, err)
					return
				}
				raise(&l.slowest, began)
				l.chatted.Add(1)
				idle <- u
			})
		}
	}
}

// raise makes a maximum the time since an instant, where that is more.
func raise(most *atomic.Int64, since time.Time) {
	took := int64(time.Since(since))
	for now := most.Load(); took > now && !most.CompareAndSwap(now, took); now = most.Load() {
	}
}

func (l *load) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, fmt.Sprintf(format, args...))
}

// goOn waits until programs and people have been served anew.
func (l *load) goOn() {
	l.p.t.Helper()
	r, c := l.served.Load(), l.chatted.Load()
	l.p.until("the load to go on", func() bool { return l.served.Load() > r+20 && l.chatted.Load() > c+3 })
}

// end ends the load and holds that no message was lost or doubled. It gives
// the requests that failed.
func (l *load) end() []string {
	t := l.p.t
	t.Helper()
	close(l.stop)
	l.work.Wait()
	counts, marked := map[word]int{}, map[word]bool{}
	read := map[int64]bool{}
	for _, s := range l.said {
		if read[s.who.ID] {
			continue
		}
		read[s.who.ID] = true
		for _, m := range l.p.tg.Replies(s.who.ID) {
			if id, ok := strings.CutPrefix(m.Text, "answer "); ok {
				counts[word{s.who, id}]++
			} else if id, ok := strings.CutPrefix(m.Text, repeated+"answer "); ok {
				marked[word{s.who, id}] = true
			}
		}
	}
	lost, doubled := 0, 0
	for _, s := range l.said {
		if n := counts[s]; n == 0 && !marked[s] {
			lost++
		} else if n > 1 {
			doubled++
		}
	}
	t.Logf("%d requests, %d failed, %d refused, longest %s; %d messages, %d lost, %d doubled", l.served.Load(), len(l.failed), l.refused.Load(), time.Duration(l.longest.Load()).Round(time.Millisecond), len(l.said), lost, doubled)
	if lost+doubled > 0 {
		t.Errorf("%d messages lost, %d doubled", lost, doubled)
	}
	return l.failed
}

// finish ends the load and holds that nothing at all went wrong.
func (l *load) finish() {
	l.p.t.Helper()
	for i, f := range l.end() {
		if i < 10 {
			l.p.t.Error(f)
		}
	}
	if n := len(l.failed); n > 0 {
		l.p.t.Errorf("%d failed", n)
	}
}

// finishTorn ends the load and holds that nothing was lost: requests that a
// process had accepted and took with it are cut, and where no socket is kept
// others are refused in between; nothing else may fail.
func (l *load) finishTorn(deaths int) {
	t := l.p.t
	t.Helper()
	failed := l.end()
	refused, cut := 0, 0
	for _, f := range failed {
		switch {
		case strings.Contains(f, "was refused"):
			refused++
		case strings.Contains(f, "EOF"), strings.Contains(f, "reset by peer"), strings.Contains(f, "broken pipe"), strings.Contains(f, "server closed idle connection"):
			cut++
		default:
			t.Error(f)
		}
	}
	if refused > 0 && l.p.mode.kept {
		t.Errorf("%d connections refused", refused)
	}
	if cut > deaths*l.pace.workers {
		t.Errorf("%d requests cut by %d deaths", cut, deaths)
	}
}

// post sends a chat request and gives the answer's text.
func (p *profile) post(c *http.Client, text string) (string, error) {
	req, err := p.chatRequest(text, false)
	if err != nil {
		return "", err
	}
	res, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	var got struct {
		Choices []struct{ Message struct{ Content string } }
	}
	if err := json.Unmarshal(raw, &got); err != nil || res.StatusCode != 200 || len(got.Choices) == 0 {
		return "", fmt.Errorf("status %d: %s", res.StatusCode, raw)
	}
	return got.Choices[0].Message.Content, nil
}

func (p *profile) chatRequest(text string, stream bool) (*http.Request, error) {
	body := fmt.Sprintf(`{"model":"x","stream":%v,"messages":[{"role":"user","content":%q}]}`, stream, text)
	req, err := http.NewRequest(http.MethodPost, p.url("/v1/chat/completions"), bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	req.GetBody = nil // no silent second try by the client
	return req, nil
}

// stream is an answer that is read as it is written.
type stream struct {
	res *http.Response
	in  *bufio.Reader
}

// openStreams asks for answers whose end waits for the gate of id, and reads
// the first piece of each.
func (p *profile) openStreams(n int, id string) []*stream {
	p.t.Helper()
	var out []*stream
	for range n {
		req, err := p.chatRequest("stream "+id, true)
		if err != nil {
			p.t.Fatal(err)
		}
		res, err := p.client(false).Do(req)
		if err != nil {
			p.t.Fatal(err)
		}
		s := &stream{res, bufio.NewReader(res.Body)}
		for line := ""; !strings.Contains(line, "one "); {
			if line, err = s.in.ReadString('\n'); err != nil {
				res.Body.Close()
				p.t.Fatal(err)
			}
		}
		out = append(out, s)
	}
	return out
}

// rest reads the stream to its end.
func (s *stream) rest(id string) error {
	defer s.res.Body.Close()
	text, err := io.ReadAll(s.in)
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), id) || !strings.Contains(string(text), "[DONE]") {
		return fmt.Errorf("the stream was cut: %s", text)
	}
	return nil
}
