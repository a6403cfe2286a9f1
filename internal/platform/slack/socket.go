package slack

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"hermes/internal/platform"
	"hermes/internal/platform/httpcall"
)

const (
	maxFrame  = 4 << 20 // bytes; an event with all its blocks is below
	heldItems = 512     // frames that wait to be handled; then Slack waits
)

// socket is one websocket of Socket Mode. One goroutine reads it and one proves
// that it lives; both end with close.
type socket struct {
	a    *Adapter
	conn *websocket.Conn
	stop context.CancelFunc

	mu       sync.Mutex
	retiring bool // Slack is about to close it, and another one takes over
	err      *platform.Error
}

// item is what a socket says: an envelope, or that it has ended.
type item struct {
	envelope
	from  *socket
	ended bool
}

// dial connects and waits for the hello. Its frames go to out.
func (a *Adapter) dial(ctx context.Context, out chan<- item, wg *sync.WaitGroup) (*socket, envelope, *platform.Error) {
	address, e := a.connectionURL(ctx)
	if e != nil {
		return nil, envelope{}, harmless(e, "Slack did not say where to connect")
	}
	dctx, cancel := context.WithTimeout(ctx, a.pause.hello)
	defer cancel()
	s := &socket{a: a}
	conn, resp, err := websocket.Dial(dctx, address, &websocket.DialOptions{HTTPClient: a.http, OnPingReceived: func(context.Context, []byte) bool {
		a.health.Alive()
		return true
	}})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, envelope{}, &platform.Error{Kind: platform.Retry, Code: "slack_socket_" + strconv.Itoa(resp.StatusCode),
				Reason: "Slack did not open a websocket (HTTP " + strconv.Itoa(resp.StatusCode) + "): it is tried again"}
		}
		return nil, envelope{}, a.socketFailure("the websocket to Slack could not be opened", httpcall.WithoutURL(err))
	}
	conn.SetReadLimit(maxFrame)
	s.conn = conn
	hello, err := s.next(dctx)
	if err == nil && hello.Type != "hello" {
		err = errors.New("its first word was not hello")
	}
	if err != nil {
		conn.CloseNow()
		if hello.Type == "disconnect" {
			return nil, envelope{}, disconnected(hello.Reason)
		}
		return nil, envelope{}, a.socketFailure("Slack did not greet the websocket", err)
	}
	ctx, s.stop = context.WithCancel(ctx)
	wg.Go(func() { s.read(ctx, out) })
	wg.Go(func() { s.prove(ctx) })
	return s, hello, nil
}

// next reads a frame; one that is not understood is left out.
func (s *socket) next(ctx context.Context) (envelope, error) {
	for {
		_, b, err := s.conn.Read(ctx)
		if err != nil {
			return envelope{}, err
		}
		var f envelope
		if err := json.Unmarshal(b, &f); err == nil && f.Type != "" {
			return f, nil
		}
		// It may hold an envelope's id all the same, so that it is not sent again.
		var id struct {
			ID string `json:"envelope_id"`
		}
		_ = json.Unmarshal(b, &id)
		s.a.log.Warn("a frame of Slack's websocket could not be read and was left out", "bytes", len(b))
		s.ack(ctx, id.ID)
	}
}

// read hands frames on in order until the connection ends, and then says so.
func (s *socket) read(ctx context.Context, out chan<- item) {
	for {
		f, err := s.next(ctx)
		i := item{envelope: f, from: s}
		if err != nil {
			s.failed(s.a.socketFailure("the websocket to Slack was lost", err))
			i.ended = true
		}
		select {
		case out <- i:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// ack acknowledges an envelope,
// https://docs.slack.dev/apis/events-api/using-socket-mode#acknowledge. What
// cannot be acknowledged is sent again, and then dropped as known.
func (s *socket) ack(ctx context.Context, id string) {
	if id == "" {
		return
	}
	b, err := json.Marshal(map[string]string{"envelope_id": id})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.a.cfg.PingTimeout)
	defer cancel()
	if err := s.conn.Write(ctx, websocket.MessageText, b); err != nil {
		s.a.log.Debug("an event could not be acknowledged; it will come again", "error", s.a.scrubError(err))
	}
}

// prove pings again and again. A connection that does not answer is ended: some
// die without anybody being told.
func (s *socket) prove(ctx context.Context) {
	tick := time.NewTicker(s.a.cfg.PingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		pctx, cancel := context.WithTimeout(ctx, s.a.cfg.PingTimeout)
		err := s.conn.Ping(pctx)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.failed(&platform.Error{Kind: platform.Retry, Code: "slack_silent",
				Reason: "the websocket to Slack did not answer a ping within " + s.a.cfg.PingTimeout.String() + ": it is opened again"})
			s.conn.CloseNow()
			return
		}
		s.a.health.Alive()
	}
}

// retire lets the socket be heard a little longer, and ends it then.
func (s *socket) retire() {
	s.mu.Lock()
	s.retiring = true
	s.mu.Unlock()
	time.AfterFunc(s.a.pause.retire, s.close)
}

func (s *socket) isRetiring() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.retiring
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
		return s.a.socketFailure("the websocket to Slack was closed", nil)
	}
	return s.err
}

// close ends the connection; its goroutines end soon after.
func (s *socket) close() {
	s.stop()
	s.conn.CloseNow()
}

// disconnected is what Slack means by a disconnect,
// https://docs.slack.dev/apis/events-api/using-socket-mode#disconnect.
func disconnected(reason string) *platform.Error {
	if reason == "link_disabled" {
		return &platform.Error{Kind: platform.Retry, Code: "slack_socket_mode",
			Reason: "Socket Mode was switched off for the app: switch it on (https://api.slack.com/apps → your app → Socket Mode)"}
	}
	return &platform.Error{Kind: platform.Retry, Code: "slack_refresh", Reason: "Slack asked for a new connection"}
}

// socketFailure is a failure of the connection; it repeats no harm.
func (a *Adapter) socketFailure(what string, err error) *platform.Error {
	if code := websocket.CloseStatus(err); code >= 0 {
		what += " (closed by Slack, code " + strconv.Itoa(int(code)) + ")"
	}
	return &platform.Error{Kind: platform.Retry, Code: "slack_socket", Reason: what + ": it is tried again", Cause: a.scrubError(err)}
}
