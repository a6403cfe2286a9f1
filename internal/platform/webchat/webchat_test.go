package webchat

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/platform"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a sink and a log without a disk.
type memory struct {
	mu     sync.Mutex
	events []domain.Inbound
	fail   error
}

func (m *memory) Accept(_ context.Context, _ string, events []domain.Inbound, _ string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.events = append(m.events, events...)
	return nil
}

func (m *memory) Cursor(context.Context, string) (string, error) { return "", nil }

func (m *memory) ChatLog(_ context.Context, at domain.Address, limit int) ([]ledger.ChatEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return nil, m.fail
	}
	var out []ledger.ChatEntry
	for _, e := range m.events {
		if e.Address == at && len(out) < limit {
			out = append(out, ledger.ChatEntry{ID: e.EventID, Role: "user", Part: domain.Part{Text: e.Text}, At: e.SentAt})
		}
	}
	return out, nil
}

func (m *memory) accepted() []domain.Inbound {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]domain.Inbound(nil), m.events...)
}

// rig is an adapter behind a real socket.
type rig struct {
	*Adapter
	store *memory
	url   string
}

func newRig(t *testing.T, running bool) *rig {
	t.Helper()
	m := &memory{}
	a := New(Options{Log: m, Logger: slog.New(slog.DiscardHandler), Keepalive: 20 * time.Millisecond,
		Commands: []platform.Command{{Name: "help", Description: "Help"}}})
	mux := http.NewServeMux()
	for _, r := range a.Routes() {
		mux.Handle(r.Pattern, r.Handler)
	}
	server := httptest.NewServer(mux)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	if running {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- a.Run(ctx, m) }()
		for a.currentSink() == nil {
			runtime.Gosched() // Run is about to set it
		}
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	return &rig{a, m, server.URL}
}

func (r *rig) post(t *testing.T, body string) (int, string) {
	t.Helper()
	res, err := http.Post(r.url+"/chat/api/messages", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(raw)
}

// watch opens an event stream; next gives its events by name, without keepalives.
func (r *rig) watch(t *testing.T, room string) (next func() (string, string)) {
	t.Helper()
	res, err := http.Get(r.url + "/chat/api/events?room=" + room)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	return func() (string, string) {
		t.Helper()
		var name string
		for lines.Scan() {
			if n, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				name = n
			} else if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				return name, data
			}
		}
		t.Fatalf("the stream ended: %v", lines.Err())
		return "", ""
	}
}

func TestMessageIsAcceptedAsInbound(t *testing.T) {
	r := newRig(t, true)
	next := r.watch(t, "main")
	next()
	status, body := r.post(t, `{"text":"hi\u0000 there","client_id":"web-1"}`)
	if status != http.StatusAccepted || !strings.Contains(body, `"web-1"`) {
		t.Fatalf("%d %s", status, body)
	}
	in := r.store.accepted()[0]
	want := domain.Address{Platform: "webchat", ChatID: "main"}
	if in.Address != want || in.EventID != "web-1" || in.Text != "hi\uFFFD there" || in.ChatType != domain.ChatDM || in.Account != Account || in.UserID == "" {
		t.Errorf("%+v", in)
	}
	if name, data := next(); name != "said" || !strings.Contains(data, `"client_id":"web-1"`) {
		t.Errorf("%s %s", name, data)
	}
	if status, _ := r.post(t, `{"text":"/approve 7","client_id":"web-2","room":"kitchen","button":true}`); status != 202 {
		t.Errorf("%d", status)
	}
	if in := r.store.accepted()[1]; !in.Button || in.ChatID != "kitchen" {
		t.Errorf("%+v", in)
	}
}

func TestBadMessages(t *testing.T) {
	r := newRig(t, true)
	for _, c := range []struct {
		name, body string
		status     int
	}{
		{"no JSON", `{`, 400},
		{"no text", `{"client_id":"a"}`, 400},
		{"blank", `{"text":" \n ","client_id":"a"}`, 400},
		{"no id", `{"text":"x"}`, 400},
		{"id with odd characters", `{"text":"x","client_id":"a b"}`, 400},
		{"room with a colon", `{"text":"x","client_id":"a","room":"a:b"}`, 400},
		{"long text", `{"text":"` + strings.Repeat("ä", maxText+1) + `","client_id":"a"}`, 413},
		{"long body", `{"text":"` + strings.Repeat("x", maxBody) + `","client_id":"a"}`, 413},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := r.post(t, c.body)
			if status != c.status || !strings.Contains(body, `"error":{`) {
				t.Errorf("%d %s", status, body)
			}
		})
	}
	if n := len(r.store.accepted()); n != 0 {
		t.Errorf("%d were accepted", n)
	}
}

func TestNotAcceptedIsNotAcknowledged(t *testing.T) {
	r := newRig(t, false)
	if status, body := r.post(t, `{"text":"x","client_id":"a"}`); status != 503 || !strings.Contains(body, "not stored") {
		t.Errorf("%d %s", status, body)
	}
	r = newRig(t, true)
	r.store.mu.Lock()
	r.store.fail = domain.E(domain.StorageFull, nil, "The disk is full.")
	r.store.mu.Unlock()
	next := r.watch(t, "main")
	next()
	if status, body := r.post(t, `{"text":"x","client_id":"a"}`); status != 503 || !strings.Contains(body, "The disk is full.") {
		t.Errorf("%d %s", status, body)
	}
	// Nobody was told of it: the next event is another one.
	r.Live(domain.Address{ChatID: "main"}, domain.TurnEvent{Kind: domain.EventStarted, TurnID: 5})
	if name, data := next(); name != "turn" {
		t.Errorf("%s %s", name, data)
	}
}

func TestEvents(t *testing.T) {
	r := newRig(t, true)
	to := domain.Address{Platform: "webchat", ChatID: "main"}
	live := func(e domain.TurnEvent) { e.TurnID = 7; r.Live(to, e) }
	live(domain.TurnEvent{Kind: domain.EventStarted})
	live(domain.TurnEvent{Kind: domain.EventDelta, Text: "dropped"})
	live(domain.TurnEvent{Kind: domain.EventAnswerReset})
	live(domain.TurnEvent{Kind: domain.EventToolStarted, CallID: "c1", Tool: "terminal", Label: "df"})
	live(domain.TurnEvent{Kind: domain.EventToolFinished, CallID: "c1", Failed: true})
	live(domain.TurnEvent{Kind: domain.EventDelta, Text: "so "})
	live(domain.TurnEvent{Kind: domain.EventDelta, Text: "far"})
	next := r.watch(t, "main")
	other := r.watch(t, "kitchen")
	other()
	name, data := next()
	var h hello
	if err := json.Unmarshal([]byte(data), &h); err != nil || name != "hello" {
		t.Fatal(name, err)
	}
	if h.Turn == nil || h.Turn.ID != 7 || h.Turn.Text != "so far" || len(h.Turn.Tools) != 1 || h.Turn.Tools[0].State != "failed" || h.Commands[0].Name != "help" {
		t.Fatalf("%s", data)
	}
	receipt, err := r.Send(context.Background(), to, domain.Part{Text: "so far so good", Buttons: []domain.Button{{Label: "Yes", Command: "/approve 1"}}}, "n1")
	if err != nil || receipt != "web-n1" {
		t.Fatal(receipt, err)
	}
	if name, data := next(); name != "message" || !strings.Contains(data, `"id":"web-n1"`) || !strings.Contains(data, `"command":"/approve 1"`) {
		t.Errorf("%s %s", name, data)
	}
	// The same attempt again tells nobody twice.
	if _, err := r.Send(context.Background(), to, domain.Part{Text: "so far so good"}, "n1"); err != nil {
		t.Fatal(err)
	}
	live(domain.TurnEvent{Kind: domain.EventEnded})
	if name, data := next(); name != "turn" || !strings.Contains(data, `"ended"`) {
		t.Errorf("%s %s", name, data)
	}
	// Who comes later is told what the log may not show yet, and that nothing runs.
	_, data = r.watch(t, "main")()
	h = hello{}
	if err := json.Unmarshal([]byte(data), &h); err != nil || h.Turn != nil || len(h.Recent) != 1 || h.Recent[0].ID != "web-n1" {
		t.Errorf("%s", data)
	}
	// The other room heard nothing of this.
	r.Live(domain.Address{ChatID: "kitchen"}, domain.TurnEvent{Kind: domain.EventStarted, TurnID: 9})
	if name, data := other(); name != "turn" || !strings.Contains(data, `"turn_id":9`) {
		t.Errorf("%s %s", name, data)
	}
}

func TestLog(t *testing.T) {
	r := newRig(t, true)
	get := func(query string) (int, string) {
		res, err := http.Get(r.url + "/chat/api/log" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		raw, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(raw)
	}
	if status, body := get(""); status != 200 || body != `{"entries":[]}` {
		t.Errorf("%d %s", status, body)
	}
	r.post(t, `{"text":"one","client_id":"a"}`)
	r.post(t, `{"text":"two","client_id":"b"}`)
	if status, body := get("?limit=1"); status != 200 || !strings.Contains(body, "one") || strings.Contains(body, "two") {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := get("?room=a:b"); status != 400 {
		t.Errorf("%d", status)
	}
}

func TestHubIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hub{now: time.Now, rooms: map[string]*room{}}
		slow, _, _ := h.join("main")
		for i := range pageBuffer + 1 {
			h.turn("main", domain.TurnEvent{Kind: domain.EventDelta, TurnID: 1, Text: strings.Repeat("x", 4096), CallID: string(rune('a' + i%26))})
		}
		if n := len(h.rooms["main"].turn.text); n > maxLive {
			t.Errorf("%d bytes kept", n)
		}
		told := 0
		for range slow.events { // ends: the hub has closed it
			told++
		}
		if told != pageBuffer || h.pages != 0 {
			t.Errorf("%d events, %d pages", told, h.pages)
		}
		h.leave(slow) // once more does no harm
		for i := range 2 * maxRecent {
			h.deliver("main", delivered{ID: strings.Repeat("n", i+1), At: time.Now()})
		}
		if n := len(h.rooms["main"].recent); n != maxRecent {
			t.Errorf("%d kept", n)
		}
		time.Sleep(recentFor + time.Second) // in the bubble's clock
		if _, first, _ := h.join("main"); len(first.Recent) != 0 {
			t.Errorf("%d old messages are told", len(first.Recent))
		}
		for i := range 3 * maxRooms {
			h.turn("room-"+strings.Repeat("r", i), domain.TurnEvent{Kind: domain.EventStarted, TurnID: 1})
		}
		if len(h.rooms) > maxRooms || h.rooms["main"] == nil {
			t.Errorf("%d rooms; the one that is looked at was kept: %v", len(h.rooms), h.rooms["main"] != nil)
		}
		opened := 1
		for {
			if _, _, ok := h.join("main"); !ok {
				break
			}
			opened++
		}
		if opened != maxPages {
			t.Errorf("%d pages", opened)
		}
	})
}

func FuzzReadMessage(f *testing.F) {
	f.Add(`{"text":"hi","client_id":"a","room":"b"}`)
	f.Add(`{"text":"\u0000","client_id":"a"}`)
	f.Fuzz(func(t *testing.T, body string) {
		m, err := readMessage(strings.NewReader(body))
		if err != nil {
			return
		}
		if strings.TrimSpace(m.Text) == "" || strings.ContainsRune(m.Text, 0) || strings.ContainsAny(m.Room, ": /") || m.ClientID == "" {
			t.Fatalf("%+v", m)
		}
	})
}
