package drill

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "the-key-of-the-api"

// gateway is an API that can be told to misbehave.
type gateway struct {
	*httptest.Server
	replies atomic.Int64 // to each message
	sick    atomic.Bool  // answers 500
	cuts    atomic.Bool  // closes connections without an answer

	mu    sync.Mutex
	rooms map[string]int
}

func newGateway(t *testing.T) *gateway {
	g := &gateway{rooms: map[string]int{}}
	g.replies.Store(1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+key {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	mux.HandleFunc("POST /chat/api/messages", func(w http.ResponseWriter, r *http.Request) {
		var m struct{ Room, Text string }
		if json.NewDecoder(r.Body).Decode(&m) != nil || m.Text != command {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		g.mu.Lock()
		g.rooms[m.Room] = int(g.replies.Load())
		g.mu.Unlock()
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("GET /chat/api/log", func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		n := g.rooms[r.URL.Query().Get("room")]
		g.mu.Unlock()
		text := `{"role":"user"}` + strings.Repeat(`,{"role":"assistant"}`, n)
		_, _ = w.Write([]byte(`{"entries":[` + text + `]}`))
	})
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		chat := strings.HasPrefix(r.URL.Path, "/chat/")
		switch {
		case g.cuts.Load() && !chat:
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				conn.Close()
			}
		case g.sick.Load() && !chat:
			w.WriteHeader(http.StatusInternalServerError)
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(g.Close)
	return g
}

// run drills with one step, and gives what it cost.
func run(t *testing.T, address string, p Promise, do func(ctx context.Context) error) (Result, bool, error) {
	t.Helper()
	var got Result
	kept, err := Run(context.Background(), Options{
		Address: address, Key: secret.Value(key), Now: time.Now,
		Steps: []Step{{Name: "a step", Promise: p, Do: func(ctx context.Context) (string, error) { return "done", do(ctx) }}},
	}, func(r Result) { got = r })
	return got, kept, err
}

func TestEverythingIsCounted(t *testing.T) {
	fine := func(context.Context) error { return nil }
	// while lets a fault last until it has been met.
	while := func(g *gateway, fault *atomic.Bool) func(context.Context) error {
		return func(ctx context.Context) error {
			fault.Store(true)
			defer fault.Store(false)
			for range 3 {
				res, err := http.Get(g.URL + "/health")
				if err == nil {
					res.Body.Close()
				}
			}
			tick := time.NewTimer(8 * probeEvery)
			defer tick.Stop()
			<-tick.C
			return nil
		}
	}
	for name, c := range map[string]struct {
		promise Promise
		begin   func(*gateway) func(context.Context) error
		kept    bool
		holds   func(Result) bool
		broken  string
	}{
		"all well": {begin: func(*gateway) func(context.Context) error { return fine }, kept: true,
			holds: func(r Result) bool {
				return r.Requests >= 2*warmAnswers && r.Messages > 0 && r.Lost+r.Doubled == 0 && r.Remark == "done"
			}},
		"doubled": {begin: func(g *gateway) func(context.Context) error { g.replies.Store(2); return fine },
			holds: func(r Result) bool { return r.Doubled == r.Messages && r.Messages > 0 }, broken: "were answered twice"},
		"failed": {begin: func(g *gateway) func(context.Context) error { return while(g, &g.sick) },
			holds: func(r Result) bool { return r.Failed > 0 && r.Cut+r.Refused == 0 }, broken: "requests failed"},
		"cut": {begin: func(g *gateway) func(context.Context) error { return while(g, &g.cuts) },
			holds: func(r Result) bool { return r.Cut > 0 && r.Failed+r.Refused == 0 }, broken: "requests were cut"},
		"cut, as promised": {promise: Promise{Cut: true}, kept: true, begin: func(g *gateway) func(context.Context) error { return while(g, &g.cuts) },
			holds: func(r Result) bool { return r.Cut > 0 }},
		"the step fails": {begin: func(*gateway) func(context.Context) error {
			return func(context.Context) error { return domain.E(domain.Timeout, nil, "it did not come back") }
		}, holds: func(r Result) bool { return r.Failed == 0 }, broken: "it did not come back"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t)
			c.promise.Gap = time.Minute
			r, kept, err := run(t, g.URL, c.promise, c.begin(g))
			if err != nil || kept != c.kept || !c.holds(r) || !strings.Contains(strings.Join(r.Broken, "\n"), c.broken) {
				t.Errorf("kept %v, %+v, %v", kept, r, err)
			}
		})
	}
}

// A port that nobody listens on for a while refuses.
func TestRefused(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	serve := func(l net.Listener) *http.Server {
		s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		go func() { _ = s.Serve(l) }()
		return s
	}
	s := serve(l)
	r, kept, err := run(t, "http://"+address, Promise{Cut: true, Gap: time.Minute}, func(ctx context.Context) error {
		s.Close()
		tick := time.NewTimer(8 * probeEvery)
		defer tick.Stop()
		<-tick.C
		l, err := net.Listen("tcp", address)
		if err == nil {
			s = serve(l)
		}
		return err
	})
	s.Close()
	if err != nil || kept || r.Refused == 0 || r.Gap < (4*probeEvery).Seconds() {
		t.Errorf("kept %v, %+v, %v", kept, r, err)
	}
}

func TestJudge(t *testing.T) {
	r := Result{Refused: 1, Cut: 1, Failed: 1, Lost: 1, Doubled: 1, Gap: 3}
	r.judge(Promise{Gap: 2 * time.Second})
	if r.Kept || len(r.Broken) != 6 {
		t.Errorf("%q", r.Broken)
	}
	r = Result{Refused: 1, Cut: 1, Gap: 2}
	r.judge(Promise{Refused: true, Cut: true, Gap: 2 * time.Second})
	if !r.Kept {
		t.Errorf("%q", r.Broken)
	}
}

// What does not answer at all is not drilled, and an end of ctx ends the drill.
func TestNotBegun(t *testing.T) {
	t.Parallel()
	done := false
	o := Options{Now: time.Now, Ask: func(context.Context) error { return nil }, Steps: []Step{{Name: "first", Do: func(ctx context.Context) (string, error) {
		done = true
		<-ctx.Done()
		return "", ctx.Err()
	}}}}
	ctx, cancel := context.WithCancel(context.Background())
	asked := 0
	o.Ask = func(context.Context) error {
		if asked++; asked > 2*warmAnswers {
			cancel()
		}
		return nil
	}
	if _, err := Run(ctx, o, func(Result) { t.Error("a step that was interrupted has a result") }); !domain.IsCode(err, domain.Cancelled) || !done {
		t.Errorf("interrupted: %v, begun %v", err, done)
	}
	o.Ask, o.Patience = func(context.Context) error { return errors.New("silence") }, time.Second
	o.Steps[0].Do = func(context.Context) (string, error) { t.Error("drilled all the same"); return "", nil }
	if _, err := Run(context.Background(), o, nil); !domain.IsCode(err, domain.Unavailable) {
		t.Errorf("%v", err)
	}
}

// Where the API is off the gateway is asked over its control socket: that nobody
// listens there between two lives is a refusal, as it is at a port.
func TestNobodyAtTheControlSocketIsARefusal(t *testing.T) {
	l := &load{o: Options{Now: time.Now}, turned: make(chan struct{}, 1)}
	l.judge(t.Context(), domain.E(domain.NotFound, nil, "the gateway is not running"))
	l.judge(t.Context(), errors.New("nonsense"))
	if l.refused != 1 || l.failed != 1 {
		t.Errorf("%d refused and %d failed", l.refused, l.failed)
	}
}
