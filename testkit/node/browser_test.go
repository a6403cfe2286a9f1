package node

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hermes/internal/api"
	"hermes/internal/dashboard"
	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/platform"
	"hermes/internal/platform/webchat"
	"hermes/internal/secret"
)

// chatWorld is a gateway behind the chat page: a log in memory that outlives
// its servers, and a script that the browser steps through.
type chatWorld struct {
	t       *testing.T
	port    int
	key     string
	started time.Time

	mu      sync.Mutex
	log     []ledger.ChatEntry
	events  map[string]bool
	offline bool // the sink fails, as with a busy ledger

	chat   *webchat.Adapter
	server *api.Server
	cancel context.CancelFunc
	ran    chan struct{}
}

func (w *chatWorld) ChatLog(context.Context, domain.Address, int) ([]ledger.ChatEntry, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]ledger.ChatEntry{}, w.log...), nil
}

func (w *chatWorld) Accept(_ context.Context, _ string, events []domain.Inbound, _ string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.offline {
		return domain.E(domain.Unavailable, nil, "The ledger is busy.")
	}
	for _, e := range events {
		if w.events[e.EventID] {
			continue
		}
		w.events[e.EventID] = true
		w.log = append(w.log, ledger.ChatEntry{ID: fmt.Sprintf("i%d", len(w.log)+1), Ref: e.EventID, Role: "user", Part: domain.Part{Text: e.Text}, At: e.SentAt})
	}
	return nil
}

func (w *chatWorld) Cursor(context.Context, string) (string, error) { return "", nil }

func (w *chatWorld) Chat(context.Context, *api.ChatRequest, func(domain.TurnEvent)) (*api.ChatResult, error) {
	return &api.ChatResult{Text: "pong"}, nil
}

func (w *chatWorld) ModelName() string { return "sonnet-4.5" }

func (w *chatWorld) Status(context.Context) (api.Status, error) {
	now := time.Now()
	return api.Status{
		Profile: "liam", Version: "0.1.0", State: "running", Healthy: false,
		Summary: "Discord refuses the token in .env line 7.\nThe job backup-check failed three times in a row: rsync exited with 12.", PID: 4711, Mode: "overlap",
		StartedAt: w.started, UpdatedAt: now, Model: "sonnet-4.5", Active: 1,
		Parts: []health.Part{
			{Name: "api", State: health.OK, Since: w.started, LastOK: now, Evidence: map[string]string{"address": "http://127.0.0.1:8642"}},
			{Name: "cron", State: health.OK, Since: w.started, LastOK: now, Evidence: map[string]string{"next": "disk-watchdog 14:30"}},
			{Name: "ledger", State: health.OK, Since: w.started, LastOK: now},
			{Name: "model", State: health.Degraded, Code: "rate_limited", Message: "The provider asks to wait 20 s. The fallback model answers meanwhile.", Since: now.Add(-40 * time.Second)},
			{Name: "platform.telegram", State: health.OK, Since: w.started, LastOK: now, Evidence: map[string]string{"bot": "@liam_bot"}},
			{Name: "platform.discord", State: health.Down, Code: "bad_token", Message: "Discord refuses the token in .env line 7. Put a new one there; it is picked up by itself.", Since: w.started},
			{Name: "platform.webchat", State: health.OK, Since: w.started, LastOK: now},
		},
		Cron:     &api.CronStatus{Jobs: 12, Enabled: 11, NextAt: now.Add(7 * time.Minute), NextJob: "disk-watchdog", Failing: []string{"backup-check"}},
		Queues:   api.QueueStatus{Deliveries: 2, Retrying: 1, Dead: 1, Waiting: 1},
		Ledger:   api.LedgerStatus{Kind: "sqlite", Bytes: 48 << 20, Sessions: 312, Messages: 18234},
		LastExit: &api.ExitStatus{At: w.started, Reason: "update to 0.1.0", Clean: true},
	}, nil
}

// up starts a server on the world's port, down stops it: together a restart.
func (w *chatWorld) up() {
	w.t.Helper()
	log := slog.New(slog.DiscardHandler)
	w.chat = webchat.New(webchat.Options{Log: w, Logger: log, Commands: []platform.Command{
		{Name: "new", Description: "Start a new conversation"}, {Name: "stop", Description: "Stop what is running"},
		{Name: "status", Description: "Show what the agent is doing"}, {Name: "model", Description: "Show or change the model"},
		{Name: "cron", Description: "List and manage schedules"}, {Name: "help", Description: "List all commands"},
	}})
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.ran = cancel, make(chan struct{})
	chat, ran := w.chat, w.ran
	go func() {
		defer close(ran)
		if err := chat.Run(ctx, w); err != nil {
			w.t.Error(err)
		}
	}()
	var mounts []api.Mount
	for _, r := range w.chat.Routes() {
		mounts = append(mounts, api.Mount{Pattern: r.Pattern, Handler: r.Handler, UntilDrain: r.Endless})
	}
	pages := dashboard.Handler()
	for _, p := range dashboard.Patterns() {
		mounts = append(mounts, api.Mount{Pattern: p, Handler: pages, Open: true})
	}
	w.server = api.New(api.Options{
		Config: home.APIConfig{Host: "127.0.0.1", Port: w.port, Key: secret.Value(w.key)}, Profile: "liam", Gateway: w, Log: log, Mounts: mounts,
	})
	if err := w.server.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.port = w.server.Addr().(*net.TCPAddr).Port
}

func (w *chatWorld) down() {
	stop(w.t, w.server)
	w.cancel()
	<-w.ran
}

var here = domain.Address{Platform: domain.PlatformWebchat, ChatID: "main"}

func (w *chatWorld) live(turn int64, kind domain.TurnEventKind, text string) {
	w.chat.Live(here, domain.TurnEvent{Kind: kind, TurnID: turn, Text: text})
}

func (w *chatWorld) tool(turn int64, kind domain.TurnEventKind, id, tool, label string, failed bool) {
	w.chat.Live(here, domain.TurnEvent{Kind: kind, TurnID: turn, CallID: id, Tool: tool, Label: label, Failed: failed})
}

// deliver is what the outbox does: send, then record.
func (w *chatWorld) deliver(kind string, part domain.Part) {
	w.mu.Lock()
	nonce := fmt.Sprintf("n%d", len(w.log)+1)
	w.mu.Unlock()
	receipt, err := w.chat.Send(context.Background(), here, part, nonce)
	if err != nil {
		w.t.Error(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, ledger.ChatEntry{ID: "d" + nonce, Ref: receipt, Role: "assistant", Kind: kind, Part: part, At: time.Now().UTC()})
}

const answer = "The disk is **61 % full**, so there is room.\n\n| mount | size | used |\n|---|---|---|\n| `/` | 120 GB | 61 % |\n| `/data` | 2 TB | 18 % |\n\n1. Nothing to do today.\n2. I look again at *14:30*:\n   - with `disk-watchdog`\n   - and tell you above 85 %\n\n```sh\ndf -h / /data | awk '{print $5, $6}'\n```\n\nMore in [the manual](https://example.org/df). <img src=x onerror=\"document.title='owned'\">[bad](javascript:alert(1))"

// steps are what the browser can ask to happen.
func (w *chatWorld) step(name string) {
	switch name {
	case "begin":
		w.live(1, domain.EventStarted, "")
	case "tools":
		w.tool(1, domain.EventToolStarted, "c1", "terminal", "df -h / /data", false)
		w.tool(1, domain.EventToolFinished, "c1", "terminal", "df -h / /data", false)
		w.tool(1, domain.EventToolStarted, "c2", "web_fetch", "https://status.example.org/api/v2/summary.json?page=overview&format=full", false)
		w.tool(1, domain.EventToolFinished, "c2", "web_fetch", "", true)
		w.tool(1, domain.EventToolStarted, "c3", "read_file", "/etc/fstab", false)
	case "write":
		w.tool(1, domain.EventToolFinished, "c3", "read_file", "/etc/fstab", false)
		w.live(1, domain.EventDelta, answer[:40])
		w.live(1, domain.EventDelta, answer[40:120])
	case "end":
		w.live(1, domain.EventDelta, answer[120:])
		w.deliver("reply", domain.Part{Text: answer, Markup: true})
		w.live(1, domain.EventEnded, "")
	case "ask":
		w.live(2, domain.EventStarted, "")
		w.tool(2, domain.EventToolStarted, "d1", "terminal", "systemctl --user restart nginx", false)
		w.live(2, domain.EventWaiting, "")
		w.deliver("question", domain.Part{Markup: true, Text: "May I run this?\n\n```sh\nsystemctl --user restart nginx\n```\nIt restarts a service.", Buttons: []domain.Button{
			{Label: "Once", Command: "/approve once"}, {Label: "This session", Command: "/approve session"}, {Label: "Always", Command: "/approve always"}, {Label: "Deny", Command: "/deny"}}})
	case "approved":
		w.tool(2, domain.EventToolFinished, "d1", "terminal", "systemctl --user restart nginx", false)
		w.live(2, domain.EventEnded, "")
		w.deliver("reply", domain.Part{Text: "Done: nginx runs again.\n  *plain*"})
	case "cron":
		w.deliver("cron", domain.Part{Markup: true, Text: "**disk-watchdog**: `/data` is at 87 %."})
		w.deliver("alert", domain.Part{Markup: true, Text: "The job **backup-check** failed three times in a row: `rsync: connection refused`."})
	case "offline", "online":
		w.mu.Lock()
		w.offline = name == "offline"
		w.mu.Unlock()
	case "down":
		w.down()
	case "up":
		w.up()
	default:
		w.t.Errorf("the browser asks for an unknown step %q", name)
	}
}

// said tells which texts of the user are in the log, in order.
func (w *chatWorld) said() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var texts []string
	for _, e := range w.log {
		if e.Role == "user" {
			texts = append(texts, e.Part.Text)
		}
	}
	return texts
}

func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
	}
	t.Skip("no Chromium is installed")
	return ""
}

func TestChatPage(t *testing.T) {
	node := needNode(t, "playwright-core")
	chromium := findChromium(t)
	shots := os.Getenv("HERMES_TEST_SHOTS") // a folder to keep the screenshots in
	if shots == "" {
		shots = t.TempDir()
	}
	w := &chatWorld{t: t, key: key, events: map[string]bool{}, started: time.Now().Add(-3 * time.Hour)}
	w.up()
	defer func() { w.down() }()

	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "chat.mjs", chromium, fmt.Sprintf("http://127.0.0.1:%d", w.port), key, shots, filepath.Join(t.TempDir(), "profile"))
	cmd.Stderr = os.Stderr
	drive(t, cmd, w.step)
	want := "How full is the disk?|restart nginx|/approve once|/deny|sent while the ledger was busy|sent while the gateway was down"
	if got := strings.Join(w.said(), "|"); got != want {
		t.Errorf("the log has %q, want %q", got, want)
	}
}

// drive runs a browser's script and does the steps that it asks for.
func drive(t *testing.T, cmd *exec.Cmd, step func(name string)) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		name, ok := strings.CutPrefix(lines.Text(), "step ")
		if !ok {
			t.Log(lines.Text())
			continue
		}
		step(name)
		if _, err := io.WriteString(in, "done\n"); err != nil {
			t.Error(err)
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the browser's test failed: %v; HERMES_TEST_SHOTS=DIR keeps its screenshots", err)
	}
}
