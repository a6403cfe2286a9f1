package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"hermes/testkit/llm"
	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

// bench is what the figures share.
type bench struct {
	binary string
	dir    string
	rounds int
	homes  int
}

// world is a gateway's surroundings: the fakes and a home that points at them.
type world struct {
	tg    *telegram.Server
	brain *llm.Server
	home  *rig.Home
	api   string // base URL of its API
}

// newWorld makes fakes and a home with Telegram, cron and the API on.
func (b *bench) newWorld(brain llm.Brain, more string) (*world, error) {
	w := &world{}
	var err error
	if w.tg, err = telegram.New(telegram.Options{}); err != nil {
		return nil, err
	}
	if w.brain, err = llm.Start(brain); err != nil {
		return nil, err
	}
	w.brain.KeepRequests(0)
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	w.api = fmt.Sprintf("http://127.0.0.1:%d", port)
	config := fmt.Sprintf(`model:
  default: bench
  provider: custom
  base_url: %s
  api_key: bench-key-of-the-model
approvals:
  mode: "off"
streaming:
  enabled: false
delivery:
  unlimited: true
session_reset:
  mode: none
gateway:
  api_server:
    max_concurrent_runs: 10000
%s`, w.brain.URL(), more)
	env := fmt.Sprintf("TELEGRAM_BOT_TOKEN=%s\nTELEGRAM_BASE_URL=%s\nTELEGRAM_ALLOW_ALL_USERS=true\nAPI_SERVER_ENABLED=true\nAPI_SERVER_PORT=%d\nHERMES_LOG_LEVEL=info\n",
		w.tg.Token(), w.tg.URL(), port)
	b.homes++
	w.home, err = rig.NewHome(filepath.Join(b.dir, fmt.Sprintf("home%d", b.homes)), b.binary, config, env)
	return w, err
}

func (w *world) close() {
	w.tg.Close()
	w.brain.Close()
}

// start starts the gateway and waits until it runs; took is from exec to the
// log line that says so.
func (w *world) start(ctx context.Context) (p *rig.Process, took time.Duration, err error) {
	began := time.Now()
	if p, err = w.home.Start(); err != nil {
		return nil, 0, err
	}
	if err = p.Ready(ctx); err != nil {
		return nil, 0, err
	}
	return p, time.Since(began), nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// measureBinary is the size of the stripped binary.
func measureBinary(_ context.Context, b *bench) ([]row, error) {
	st, err := os.Stat(b.binary)
	if err != nil {
		return nil, err
	}
	mb := float64(st.Size()) / 1e6
	return []row{{"binary, stripped", "≤ 32 MB", fmt.Sprintf("%.1f MB", mb), within(mb <= 32)}}, nil
}

// measureVersion is the whole process of `hermes --version`.
func measureVersion(ctx context.Context, b *bench) ([]row, error) {
	w, err := b.newWorld(llm.Instant, "")
	if err != nil {
		return nil, err
	}
	defer w.close()
	var took []time.Duration
	for range 4 * b.rounds {
		began := time.Now()
		if out, err := w.home.Run(ctx, "--version"); err != nil {
			return nil, fmt.Errorf("%w: %s", err, out)
		}
		took = append(took, time.Since(began))
	}
	m, text := spread(took, ms)
	return []row{{"`hermes --version`, whole process", "≤ 15 ms", text, within(m <= 15*time.Millisecond)}}, nil
}

// measureStart is from exec to ready, with an ordinary and with a full ledger.
func measureStart(ctx context.Context, b *bench) ([]row, error) {
	var rows []row
	for _, c := range []struct {
		name, budget string
		limit        time.Duration
		full         bool
	}{
		{"start to ready, ordinary home", "≤ 25 ms", 25 * time.Millisecond, false},
		{"start to ready, 10,000 sessions, 100,000 messages, 1,000 jobs", "≤ 100 ms", 100 * time.Millisecond, true},
	} {
		w, err := b.newWorld(llm.Instant, "")
		if err != nil {
			return nil, err
		}
		if c.full {
			if err := fill(ctx, filepath.Join(w.home.Dir, "ledger.db")); err != nil {
				return nil, err
			}
		}
		var took []time.Duration
		for i := range 2*b.rounds + 1 {
			p, d, err := w.start(ctx)
			if err != nil {
				return nil, err
			}
			if _, err := p.Stop(ctx); err != nil {
				return nil, err
			}
			if i > 0 { // the first start makes the ledger and its reserve
				took = append(took, d)
			}
		}
		w.close()
		m, text := spread(took, ms)
		rows = append(rows, row{c.name, c.budget, text, within(m <= c.limit)})
	}
	return rows, nil
}
