// Package api is the HTTP face of a profile: the OpenAI-compatible API, health,
// status and metrics, and whatever pages are mounted beside them. It sees the
// running gateway through the small interfaces Gateway and Jobs and nothing else.
//
// Who may come in is decided before any handler runs. With a key every request
// must bear it. Without one only a loopback address is bound, only processes of
// our own user are served, and no web page but our own may drive the agent.
//
// The wire formats follow https://platform.openai.com/docs/api-reference/chat.
package api

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
)

// Gateway is what the API needs of the running gateway. Its methods are called
// concurrently.
type Gateway interface {
	// Chat runs one turn and returns its answer, which is the caller's own and is
	// never nil: a turn that fails gives what it had. It only reads req. onEvent
	// tells what happens meanwhile; it is called one event at a time, never after
	// Chat returned, and may block for as long as a slow client does. When ctx ends
	// the client is gone and the turn must be interrupted. The codes of an error decide
	// the HTTP status: Invalid 400, Forbidden 403, NotFound 404, Conflict 409,
	// TooLarge 413, RateLimited 429, Unavailable and StorageFull 503, Timeout
	// 504, anything else 502; its message is shown to the client.
	Chat(ctx context.Context, req *ChatRequest, onEvent func(domain.TurnEvent)) (*ChatResult, error)
	// Status is the truth about the whole gateway, as `gateway status` shows it.
	Status(ctx context.Context) (Status, error)
	// ModelName is the configured model's id, "" when none is set.
	ModelName() string
}

// ChatRequest is one turn that a client asks for.
type ChatRequest struct {
	// SessionID names the transcript. It is chosen by the client when Stored is
	// set, else derived from how the conversation began.
	SessionID string
	// Stored says that the session's own history is to be used; History is then
	// empty. Otherwise History is the whole conversation before Input.
	Stored     bool
	SessionKey string // scope of memory, "" for the profile's own
	System     string // added to the system prompt for this turn only
	History    []domain.Message
	Input      domain.Message
	Model      string // as the client wrote it
	Stream     bool   // the client reads the answer as it is written
}

// Finish says why an answer ended.
type Finish string

// The reasons, as finish_reason shows them.
const (
	FinishStop   Finish = "stop"
	FinishLength Finish = "length"
	FinishError  Finish = "error"
)

// ChatResult is a turn's answer.
type ChatResult struct {
	Text      string
	Finish    Finish // "" counts as FinishStop
	Usage     domain.Usage
	SessionID string // the transcript that was written; "" counts as the requested one
	TurnID    int64
	Model     string // "" counts as Gateway.ModelName
	Partial   bool   // Text is not the whole answer: limits or an interruption cut it
}

// Mount is a handler of another package that is served under the same guard.
type Mount struct {
	Pattern string // of http.ServeMux, e.g. "GET /status"
	Handler http.Handler
	Open    bool // needs no key: static pages that hold no data
	// UntilDrain ends the request's context when the server begins to drain, for
	// streams that would else never end. Such a request is refused with 503
	// while draining, so that the client turns to the successor.
	UntilDrain bool
}

// Options configure a Server. Config, Gateway and Log are required.
type Options struct {
	Config  home.APIConfig
	Profile string // name, for hints
	Gateway Gateway
	Jobs    Jobs // nil: the routes about jobs answer 501
	Log     *slog.Logger
	Health  *health.Reporter
	Now     func() time.Time // time.Now when nil
	Mounts  []Mount
	// Listener is used in place of binding Config.Host and Config.Port: a socket
	// that systemd or a predecessor passed on. It is checked like a fresh one.
	Listener net.Listener
	// MaxConcurrent bounds the turns that run at once when Config.MaxRuns does
	// not; 0 means 64. More are answered 429.
	MaxConcurrent int
	Keepalive     time.Duration // longest silence of a stream; 30 s when 0
	BodyTimeout   time.Duration // to receive a request's body; 60 s when 0
	HeaderTimeout time.Duration // to receive a request's header; 10 s when 0
}

// Limits of what a client may send.
const (
	maxBody      = 10 << 20 // bytes of a request's body
	maxHeader    = 64 << 10 // bytes of a request's header
	maxText      = 65536    // characters of the last user message
	maxParts     = 1000     // parts of one message's content
	maxKeyHeader = 256      // bytes of X-Hermes-Session-Key
	maxConns     = 10000    // open connections; more are closed at once
)

// Server serves one profile's API. Its life is New, Listen (optional), Start,
// then Drain or Stop. All methods are safe for concurrent use.
type Server struct {
	o       Options
	now     func() time.Time
	keyed   bool
	keyHash [sha256.Size]byte
	origins map[string]bool
	routes  []route
	mux     *http.ServeMux
	http    *http.Server
	conns   connTable
	counts  counters
	pings   keepalives
	replays *replayCache
	slots   chan struct{}
	peerUID func(remote, local net.Addr) (int, error)
	listen  func(address string) (net.Listener, error)
	holder  func(port int) string
	uid     int
	since   time.Time
	lastOK  atomic.Int64 // unix seconds of the last health report

	lastRefused atomic.Int64 // unix seconds of the last log line about a refused page

	closing   atomic.Bool   // every answer ends its connection
	drain     chan struct{} // closed when draining begins
	drainOnce sync.Once
	stopWatch context.CancelFunc // ends the watcher for a taken port
	watching  sync.WaitGroup

	mu       sync.Mutex
	listener *parkingListener
	failure  error // why nothing is bound
	started  bool
	serving  bool
}

// New makes a server. It does no I/O.
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Keepalive = orDefault(o.Keepalive, 30*time.Second)
	o.BodyTimeout = orDefault(o.BodyTimeout, time.Minute)
	o.HeaderTimeout = orDefault(o.HeaderTimeout, 10*time.Second)
	s := &Server{
		o: o, now: o.Now, since: o.Now(),
		keyed:   o.Config.Key.IsSet(),
		keyHash: sha256.Sum256([]byte(o.Config.Key.Reveal())),
		origins: map[string]bool{},
		replays: newReplayCache(o.Now),
		slots:   make(chan struct{}, slotCount(o)),
		drain:   make(chan struct{}),
		peerUID: peerUID, listen: listenTCP, holder: PortHolder, uid: ownUID(),
	}
	for _, origin := range o.Config.CORSOrigins {
		s.origins[origin] = true
	}
	s.pings.every = o.Keepalive / 2
	s.conns.init()
	s.routes = s.table()
	s.mux = s.buildMux()
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: o.HeaderTimeout,
		IdleTimeout:       75 * time.Second,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       s.withPeer,
		ConnState:         s.conns.track,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return s
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// slotCount is how many turns may run at once.
func slotCount(o Options) int {
	switch {
	case o.Config.MaxRuns > 0:
		return o.Config.MaxRuns
	case o.MaxConcurrent > 0:
		return o.MaxConcurrent
	}
	return 64
}

// modelName is what clients see as the model.
func (s *Server) modelName() string {
	if s.o.Config.ModelName != "" {
		return s.o.Config.ModelName
	}
	if s.o.Profile != "" && s.o.Profile != "default" {
		return s.o.Profile
	}
	return "hermes-agent"
}
