package mattermost

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"hermes/internal/platform"
)

const (
	maxFrame  = 4 << 20 // bytes; a post with all its props is below
	heldItems = 256     // frames that wait to be handled; then the server waits
)

// socket is one websocket connection, https://api.mattermost.com/#tag/WebSocket.
// One goroutine reads it and one proves that it lives; both end with close.
type socket struct {
	a     *Adapter
	conn  *websocket.Conn
	items chan item     // closed when the connection has ended
	pongs chan struct{} // answers to our pings
	stop  context.CancelFunc
	wg    sync.WaitGroup

	mu  sync.Mutex
	err *platform.Error // why it ended
}

// frame is whatever the server sends: an event, or the answer to an action.
type frame struct {
	Event    string          `json:"event"`
	Data     json.RawMessage `json:"data"`
	Seq      *int64          `json:"seq"`
	Status   string          `json:"status"`
	SeqReply int64           `json:"seq_reply"`
}

// item is an event as the receiver takes it. gap says that events before it
// are missing.
type item struct {
	frame
	gap bool
}

// action is what the client sends; Seq counts from one.
type action struct {
	Seq    int64          `json:"seq"`
	Action string         `json:"action"`
	Data   map[string]any `json:"data,omitempty"`
}

// dial connects and authenticates.
func (a *Adapter) dial(ctx context.Context) (*socket, *platform.Error) {
	dctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout)
	defer cancel()
	// http becomes ws, and https wss.
	conn, resp, err := websocket.Dial(dctx, "ws"+strings.TrimPrefix(a.wire.base, "http")+"/websocket", &websocket.DialOptions{HTTPClient: a.wire.http})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, &platform.Error{Kind: platform.Retry, Code: "mattermost_socket_" + strconv.Itoa(resp.StatusCode),
				Reason: "the server did not open a websocket (HTTP " + strconv.Itoa(resp.StatusCode) + "): a proxy before it must pass the upgrade of /api/v4/websocket on"}
		}
		return nil, a.socketFailure("the websocket to Mattermost could not be opened", err)
	}
	conn.SetReadLimit(maxFrame)
	s := &socket{a: a, conn: conn, items: make(chan item, heldItems), pongs: make(chan struct{}, 1)}
	if err := s.authenticate(dctx); err != nil {
		conn.CloseNow()
		return nil, a.socketFailure("Mattermost did not let the websocket in", err)
	}
	ctx, s.stop = context.WithCancel(ctx)
	s.wg.Go(func() { s.read(ctx) })
	s.wg.Go(func() { s.prove(ctx) })
	return s, nil
}

// authenticate sends the token and waits for the hello. The answer to the
// challenge itself may come before or after it.
func (s *socket) authenticate(ctx context.Context) error {
	if err := s.send(ctx, action{Seq: 1, Action: "authentication_challenge", Data: map[string]any{"token": s.a.cfg.Token.Reveal()}}); err != nil {
		return err
	}
	for {
		f, err := s.next(ctx)
		switch {
		case err != nil:
			return err
		case f.Status == "FAIL":
			return errors.New("the token was not taken")
		case f.Event == "hello":
			return nil
		}
	}
}

func (s *socket) send(ctx context.Context, act action) error {
	b, err := json.Marshal(act)
	if err != nil {
		return err
	}
	return s.conn.Write(ctx, websocket.MessageText, b)
}

// next reads a frame; one that is not understood is left out.
func (s *socket) next(ctx context.Context) (frame, error) {
	for {
		_, b, err := s.conn.Read(ctx)
		if err != nil {
			return frame{}, err
		}
		var f frame
		if err := json.Unmarshal(b, &f); err == nil {
			return f, nil
		}
		s.a.log.Warn("a frame of Mattermost's websocket could not be read and was left out", "bytes", len(b))
	}
}

// read hands events on in order until the connection ends. The hello was the
// event of number zero; a number that is not the next one is a gap.
func (s *socket) read(ctx context.Context) {
	defer close(s.items)
	expected := int64(1)
	for {
		f, err := s.next(ctx)
		if err != nil {
			s.failed(s.a.socketFailure("the websocket to Mattermost was lost", err))
			return
		}
		if f.SeqReply > 0 {
			select {
			case s.pongs <- struct{}{}:
			default:
			}
			continue
		}
		i := item{frame: f}
		if f.Seq != nil {
			i.gap = *f.Seq != expected
			expected = *f.Seq + 1
		}
		if f.Event != "posted" && f.Event != "reaction_added" && !changesChannels(f.Event) && !i.gap {
			continue
		}
		select {
		case s.items <- i:
		case <-ctx.Done():
			return
		}
	}
}

// prove asks the server for an answer again and again, through the same queue
// that events take. A connection that does not answer is ended: some die
// without anybody being told.
func (s *socket) prove(ctx context.Context) {
	tick := time.NewTicker(s.a.cfg.PingEvery)
	defer tick.Stop()
	for seq := int64(2); ; seq++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		pctx, cancel := context.WithTimeout(ctx, s.a.cfg.PingTimeout)
		select { // one that came late proves nothing now
		case <-s.pongs:
		default:
		}
		err := s.send(pctx, action{Seq: seq, Action: "ping"})
		if err == nil {
			select {
			case <-s.pongs:
				s.a.health.Alive()
			case <-pctx.Done():
				err = pctx.Err()
			}
		}
		cancel()
		if err != nil && ctx.Err() == nil {
			s.failed(&platform.Error{Kind: platform.Retry, Code: "mattermost_silent",
				Reason: "the websocket to Mattermost did not answer a ping within " + s.a.cfg.PingTimeout.String() + ": it is opened again"})
			s.conn.CloseNow()
			return
		}
	}
}

// failed records why the connection ended; the first reason stays.
func (s *socket) failed(e *platform.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = e
	}
}

// cause is why the connection ended.
func (s *socket) cause() *platform.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		return s.a.socketFailure("the websocket to Mattermost was closed", nil)
	}
	return s.err
}

// close ends the connection and waits for its goroutines.
func (s *socket) close() {
	s.stop()
	s.conn.CloseNow()
	s.wg.Wait()
}

// socketFailure is a failure of the connection; it repeats no harm.
func (a *Adapter) socketFailure(what string, err error) *platform.Error {
	if code := websocket.CloseStatus(err); code >= 0 {
		what += " (closed by the server, code " + strconv.Itoa(int(code)) + ")"
	}
	return &platform.Error{Kind: platform.Retry, Code: "mattermost_socket", Reason: what + ": it is tried again", Cause: a.scrubError(err)}
}
