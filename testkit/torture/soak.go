package torture

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"hermes/internal/control"
	"hermes/testkit/llm"
	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

// The load of one simulated hour. The hour passes as fast as the gateway works.
const (
	soakChats    = 40
	soakMessages = 400 // over all chats
	soakCalls    = 100 // of the API, half of them streamed
	soakFirings  = 60  // of a script job
	soakFiles    = 3
	soakFile     = 100 << 10 // bytes of each
)

// Soak keeps a gateway under load for some simulated hours and gives its
// resident memory after each, in bytes, taken when nothing was left to do.
// Every message, call and firing of an hour must be answered.
func Soak(ctx context.Context, dir, binary string, hours int, logf func(string, ...any)) ([]int64, error) {
	s, err := newSoak(dir, binary)
	if err != nil {
		return nil, err
	}
	defer s.close()
	p, err := s.home.Start()
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	if err := p.Ready(ctx); err != nil {
		return nil, err
	}
	var samples []int64
	for hour := range hours {
		if err := s.hour(ctx, hour); err != nil {
			return samples, fmt.Errorf("hour %d: %w\n%s", hour, err, p.Output())
		}
		rss, err := s.quiet(ctx, p)
		if err != nil {
			return samples, fmt.Errorf("after hour %d: %w", hour, err)
		}
		samples = append(samples, rss)
		logf("hour %2d: %.1f MiB", hour+1, float64(rss)/(1<<20))
	}
	if code, err := p.Stop(ctx); err != nil || code != 0 {
		return samples, fmt.Errorf("after the load: exit %d, %w", code, err)
	}
	return samples, nil
}

// soak is one run's surroundings.
type soak struct {
	tg     *telegram.Server
	brain  *llm.Server
	home   *rig.Home
	people []telegram.User
	ops    telegram.User // who runs the job
	api    string
	http   *http.Client
	file   []byte
}

// script prints what nothing else prints, so that each firing can be told.
const script = "#!/bin/sh\nn=$(cat \"$HERMES_HOME/firings\" 2>/dev/null || echo 0)\nn=$((n+1))\necho $n > \"$HERMES_HOME/firings\"\necho \"firing $n.\"\n"

func newSoak(dir, binary string) (*soak, error) {
	s := &soak{http: &http.Client{Timeout: time.Minute}, file: make([]byte, soakFile)}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range s.file {
		s.file[i] = byte('a' + rng.IntN(26))
	}
	var err error
	if s.tg, err = telegram.New(telegram.Options{Keep: 50}); err != nil {
		return nil, err
	}
	if s.brain, err = llm.Start(soakBrain); err != nil {
		return nil, err
	}
	s.brain.KeepRequests(0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return nil, err
	}
	s.api = fmt.Sprintf("http://127.0.0.1:%d", port)
	for i := range soakChats {
		s.people = append(s.people, s.tg.AddUser(fmt.Sprintf("P%d", i)))
	}
	s.ops = s.tg.AddUser("Ops")
	config := fmt.Sprintf("model:\n  default: fake\n  provider: custom\n  base_url: %s\n  context_length: 32000\nsession_reset:\n  mode: none\napprovals:\n  mode: \"off\"\ndelivery:\n  unlimited: true\n", s.brain.URL())
	env := fmt.Sprintf("TELEGRAM_BOT_TOKEN=%s\nTELEGRAM_BASE_URL=%s\nTELEGRAM_ALLOW_ALL_USERS=true\nTELEGRAM_HOME_CHANNEL=%d\nAPI_SERVER_ENABLED=true\nAPI_SERVER_PORT=%d\n", s.tg.Token(), s.tg.URL(), s.ops.ID, port)
	if s.home, err = rig.NewHome(filepath.Join(dir, "home"), binary, config, env); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(s.home.Dir, "scripts"), 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(s.home.Dir, "scripts", "count.sh"), []byte(script), 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := rig.Deadline(time.Minute)
	defer cancel()
	if out, err := s.home.Run(ctx, "cron", "create", "0 4 * * *", "--no-agent", "--script", "count.sh", "--name", "count", "--deliver", "telegram"); err != nil {
		return nil, fmt.Errorf("cron create: %w: %s", err, out)
	}
	return s, nil
}

func (s *soak) close() {
	s.http.CloseIdleConnections()
	s.tg.Close()
	s.brain.Close()
}

// soakBrain answers, now and then by way of a tool.
func soakBrain(r llm.Request) llm.Reply {
	said := r.LastUser()
	if strings.Contains(said, "tool") && r.Messages[len(r.Messages)-1].Role != "tool" {
		return llm.Reply{ToolCalls: []llm.ToolCall{{ID: fmt.Sprintf("c%d", r.N), Name: "terminal", Arguments: `{"command":"echo done"}`}}}
	}
	first, _, _ := strings.Cut(said, "\n")
	return llm.Reply{Text: "answer to " + first + ". " + strings.Repeat("It is a longer one. ", 20)}
}

// hour is the load of one hour: people, programs and the job side by side.
func (s *soak) hour(ctx context.Context, hour int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	work := []func() error{
		func() error { return s.callAPI(ctx, hour) },
		func() error { return s.fireJob(ctx) },
	}
	for i := range s.people {
		work = append(work, func() error { return s.converse(ctx, hour, i) })
	}
	errs := make(chan error, len(work))
	var wg sync.WaitGroup
	for _, f := range work {
		wg.Go(func() {
			if err := f(); err != nil {
				errs <- err
				cancel()
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// converse is what one person writes in an hour.
func (s *soak) converse(ctx context.Context, hour, i int) error {
	who := s.people[i]
	for n := range soakMessages / soakChats {
		text := fmt.Sprintf("h%d-%d", hour, n)
		if n%5 == 0 {
			text += " tool"
		}
		p := telegram.Post{From: who, Text: text}
		if n == 0 && i < soakFiles {
			p.File = &telegram.Upload{Kind: "document", Name: "notes.txt", MIME: "text/plain", Data: s.file}
		}
		s.tg.Post(p)
		if err := s.answered(ctx, who.ID, "answer to "+text); err != nil {
			return err
		}
	}
	if (hour+i)%6 == 0 {
		s.tg.Say(who, "/new")
		return s.answered(ctx, who.ID, "new session")
	}
	return nil
}

// answered waits until the bot said something beyond what was read before.
func (s *soak) answered(ctx context.Context, chat int64, text string) error {
	for {
		m, err := s.tg.Next(ctx, chat)
		if err != nil {
			return fmt.Errorf("waiting for %q: %w\n%s", text, err, s.tg.Transcript(chat))
		}
		if strings.Contains(m.Text, text) {
			return nil
		}
	}
}

// callAPI is what programs ask in an hour.
func (s *soak) callAPI(ctx context.Context, hour int) error {
	for n := range soakCalls {
		body, err := json.Marshal(map[string]any{"stream": n%2 == 0, "messages": []any{map[string]any{"role": "user", "content": fmt.Sprintf("call %d of hour %d", n, hour)}}})
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.api+"/v1/chat/completions", strings.NewReader(string(body)))
		if err != nil {
			return err
		}
		res, err := s.http.Do(req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(text), "answer") {
			return fmt.Errorf("call %d: status %d, %w: %s", n, res.StatusCode, err, text)
		}
	}
	return nil
}

// fireJob lets the job fire, one firing after the other.
func (s *soak) fireJob(ctx context.Context) error {
	for range soakFirings {
		s.tg.Say(s.ops, "/cron run count")
		if err := s.answered(ctx, s.ops.ID, "firing "); err != nil {
			return err
		}
	}
	return nil
}

// quiet waits until nothing is under way, and gives the least resident memory
// of the next moments: the runtime returns memory a little later.
func (s *soak) quiet(ctx context.Context, p *rig.Process) (int64, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	least, calm := int64(0), 0
	for calm < 20 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if calm == 0 {
			out, err := s.home.Run(ctx, "gateway", "status", "--json")
			var st control.Status
			if jerr := json.Unmarshal([]byte(out), &st); jerr != nil {
				return 0, fmt.Errorf("status: %w %w: %s", err, jerr, out)
			}
			d := st.Ledger.Delivery
			if st.Work.Running > 0 || d["pending"]+d["sending"]+d["retrying"] > 0 {
				continue
			}
		}
		calm++
		if rss := p.RSS(); least == 0 || rss < least {
			least = rss
		}
	}
	return least, nil
}

// Growth compares the last quarter of the samples with the second: 0.05 is
// five per cent more. It needs eight samples.
func Growth(samples []int64) float64 {
	q := len(samples) / 4
	return float64(median(samples[len(samples)-q:]))/float64(median(samples[q:2*q])) - 1
}

func median(list []int64) int64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}
