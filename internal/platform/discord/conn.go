package discord

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"hermes/internal/platform"
	"hermes/internal/platform/clean"
)

// Opcodes of the gateway,
// https://discord.com/developers/docs/topics/opcodes-and-status-codes#gateway.
const (
	opDispatch  = 0
	opHeartbeat = 1
	opIdentify  = 2
	opResume    = 6
	opReconnect = 7
	opInvalid   = 9
	opHello     = 10
	opAck       = 11
)

// Intents that are asked for,
// https://discord.com/developers/docs/events/gateway#list-of-intents.
const (
	intentGuilds   = 1 << 0
	intentMessages = 1 << 9
	intentDirect   = 1 << 12
	intentContent  = 1 << 15 // privileged
)

const (
	maxFrame   = 32 << 20 // bytes; GUILD_CREATE of a large server has some
	maxQueued  = 512      // dispatches that wait to be handled
	maxBatch   = 64       // dispatches that are committed together
	writeLimit = 10 * time.Second
	perMinute  = 110 // frames sent; Discord cuts a connection at 120, https://discord.com/developers/docs/events/gateway#rate-limiting
	closeKeep  = 4000
)

// conn is one websocket. Its reader, its heart and its handler are a goroutine
// each; the first of them that ends, ends it.
type conn struct {
	*loop
	ws    *websocket.Conn
	queue chan frame

	seq     atomic.Int64 // of the last dispatch that came, for the heartbeats
	acked   atomic.Bool  // the last heartbeat was answered
	heard   atomic.Bool  // something came since the last heartbeat
	blocked atomic.Bool  // the reader waits for the handler, so that no answer can be read
	beatAt  atomic.Int64 // Unix nanoseconds of the last heartbeat
	beat    chan struct{}

	over   atomic.Bool // the session cannot be resumed
	denied atomic.Bool // the intents were refused

	sendMu sync.Mutex
	sent   []time.Time // within the last minute

	// Of the handler alone.
	ready  bool
	floor  string          // what is not newer was handled before this connection
	caught map[string]bool // channels whose history was read
	done   map[string]bool // message ids that the history brought on this connection
}

// connect makes one connection and serves it to its end. ready tells whether a
// session was established.
func (l *loop) connect(ctx context.Context) (ready bool, err error) {
	if err := l.load(ctx); err != nil {
		return false, err
	}
	address, err := l.address(ctx)
	if err != nil {
		return false, err
	}
	dctx, cancel := context.WithTimeout(ctx, l.a.pause.hello)
	ws, _, err := websocket.Dial(dctx, strings.TrimRight(address, "/")+"/?v=10&encoding=json", &websocket.DialOptions{HTTPClient: l.a.http})
	cancel()
	if err != nil {
		l.a.session.url = "" // its host may be gone; a resume is then tried nowhere, and a new session begun
		l.a.session.id = ""
		return false, &platform.Error{Kind: platform.Retry, Code: "discord_unreachable", Reason: "Discord's gateway could not be reached: it is tried again", Cause: l.a.scrub(err)}
	}
	ws.SetReadLimit(maxFrame)
	c := &conn{loop: l, ws: ws, queue: make(chan frame, maxQueued), beat: make(chan struct{}, 1),
		floor: l.at.Seen, caught: map[string]bool{}, done: map[string]bool{}}
	err = c.serve(ctx)
	// Discord ends the session with an orderly close of ours.
	if ctx.Err() != nil || c.over.Load() {
		l.a.session = session{}
	}
	if c.denied.Load() {
		l.a.noContent = true // the other intents need nobody's leave
	}
	return c.ready, err
}

// load begins at what is committed: what the last connection took and did not
// commit is read again.
func (l *loop) load(ctx context.Context) error {
	cursor, err := l.sink.Cursor(ctx, l.a.account)
	if err != nil {
		return err
	}
	held := l.at.held
	l.at, l.dirty = readPosition(cursor), false
	l.at.held = held
	return nil
}

// bye closes without waiting for the other side, which may be gone.
func (c *conn) bye(code websocket.StatusCode) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.ws.Close(code, "")
	}()
	t := time.NewTimer(500 * time.Millisecond)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		_ = c.ws.CloseNow()
		<-done
	}
}

// serve greets Discord and runs the three goroutines. The reader's context ends
// last, since its end cuts the connection in the middle of the closing.
func (c *conn) serve(ctx context.Context) error {
	interval, err := c.greet(ctx)
	if err != nil {
		c.bye(closeKeep)
		return err
	}
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	rctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { cancel(c.read(ctx, rctx)) })
	wg.Go(func() { cancel(c.heart(ctx, interval)) })
	wg.Go(func() { cancel(c.handle(ctx)) })
	<-ctx.Done()
	if outer.Err() != nil {
		c.bye(websocket.StatusNormalClosure)
	} else {
		c.bye(closeKeep)
	}
	stop()
	wg.Wait()
	return context.Cause(ctx)
}

// greet waits for hello, and resumes or begins a session,
// https://discord.com/developers/docs/events/gateway#connecting.
func (c *conn) greet(ctx context.Context) (interval time.Duration, err error) {
	gctx, cancel := context.WithTimeout(ctx, c.a.pause.hello)
	defer cancel()
	f, err := c.next(gctx)
	if err != nil {
		if gctx.Err() != nil && ctx.Err() == nil {
			err = &platform.Error{Kind: platform.Retry, Code: "discord_deaf", Reason: "Discord's gateway did not say hello in time: the connection is made again"}
		}
		return 0, err
	}
	var hello struct {
		Interval int64 `json:"heartbeat_interval"` // milliseconds
	}
	if f.Op != opHello || json.Unmarshal(f.Data, &hello) != nil || hello.Interval <= 0 || hello.Interval > 600_000 {
		return 0, &platform.Error{Kind: platform.Retry, Code: "discord_garbled", Reason: "what answers as Discord's gateway does not greet as one: check platforms.discord.extra.base_url and any proxy"}
	}
	interval = time.Duration(hello.Interval) * time.Millisecond
	if s := c.a.session; s.id != "" {
		c.seq.Store(s.seq)
		return interval, c.send(ctx, opResume, map[string]any{"token": c.a.cfg.token(), "session_id": s.id, "seq": s.seq})
	}
	if err := c.begin(ctx); err != nil {
		return 0, err
	}
	intents := intentGuilds | intentMessages | intentDirect
	if !c.a.noContent {
		intents |= intentContent
	}
	return interval, c.send(ctx, opIdentify, map[string]any{
		"token": c.a.cfg.token(), "intents": intents,
		"properties": map[string]string{"os": "linux", "browser": "hermes", "device": "hermes"},
	})
}

// send writes a frame. Heartbeats over the gateway's own rate limit are left
// out; the limit for others is far away.
func (c *conn) send(ctx context.Context, op int, d any) error {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	now := time.Now()
	for len(c.sent) > 0 && now.Sub(c.sent[0]) > time.Minute {
		c.sent = c.sent[1:]
	}
	if len(c.sent) >= perMinute {
		return nil
	}
	c.sent = append(c.sent, now)
	body, err := json.Marshal(map[string]any{"op": op, "d": d})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	if err := c.ws.Write(ctx, websocket.MessageText, body); err != nil {
		return c.lost(err)
	}
	return nil
}

// next reads a frame.
func (c *conn) next(ctx context.Context) (f frame, err error) {
	for {
		_, body, err := c.ws.Read(ctx)
		if err != nil {
			return f, c.lost(err)
		}
		if err := json.Unmarshal(body, &f); err == nil {
			return f, nil
		}
		c.a.log.Warn("a frame of Discord's gateway could not be read and was left out", "bytes", len(body))
		f = frame{}
	}
}

// read takes what comes and hands dispatches to the handler, until the
// connection ends.
func (c *conn) read(ctx, rctx context.Context) error {
	for {
		f, err := c.next(rctx)
		if err != nil {
			return err
		}
		c.heard.Store(true)
		switch f.Op {
		case opDispatch:
			c.seq.Store(max(f.Seq, c.seq.Load()))
			select {
			case c.queue <- f:
				continue
			default:
			}
			c.blocked.Store(true)
			select {
			case c.queue <- f:
			case <-ctx.Done():
				return ctx.Err()
			}
			c.acked.Store(true) // an answer may have waited behind
			c.blocked.Store(false)
		case opHeartbeat:
			select {
			case c.beat <- struct{}{}:
			default:
			}
		case opReconnect:
			return &platform.Error{Kind: platform.Retry, Code: codeReconnect, Reason: "Discord asked for a new connection"}
		case opInvalid:
			return c.invalid(f)
		case opAck:
			c.acked.Store(true)
			c.a.health.Note("latency", time.Duration(time.Now().UnixNano()-c.beatAt.Load()).Round(time.Millisecond).String())
			c.alive()
		}
	}
}

// alive records a proof of life. It says what is missing where something is.
func (c *conn) alive() {
	switch {
	case c.stuck.Load():
		c.a.health.Alive()
	case c.a.noContent:
		c.a.health.Degraded(codeIntents, noContentReason)
		c.a.health.Alive()
	default:
		c.a.health.OK()
	}
}

// invalid is the end of a session,
// https://discord.com/developers/docs/events/gateway-events#invalid-session.
func (c *conn) invalid(f frame) error {
	var resumable bool
	_ = json.Unmarshal(f.Data, &resumable) // what cannot be read is not resumable
	e := &platform.Error{Kind: platform.Retry, Code: "discord_session", Reason: "Discord has ended the session: it is begun again"}
	if !resumable {
		c.over.Store(true)
		e.RetryAfter = c.a.pause.invalid/5 + time.Duration(rand.Int64N(int64(c.a.pause.invalid)*4/5+1))
	}
	return e
}

// heart sends a heartbeat every interval, the first after a part of it, and
// gives the connection up when one is not answered by the next and nothing else
// came meanwhile (an answer may wait behind a flood), or when five are not,
// https://discord.com/developers/docs/events/gateway#sending-heartbeats.
func (c *conn) heart(ctx context.Context, interval time.Duration) error {
	t := time.NewTimer(time.Duration(rand.Int64N(int64(interval))))
	defer t.Stop()
	c.acked.Store(true)
	for missed := 0; ; {
		asked := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.beat:
			asked = true
		case <-t.C:
			t.Reset(interval)
		}
		switch heard := c.heard.Load(); {
		case asked || c.blocked.Load():
		case c.acked.Swap(false):
			missed = 0
			c.heard.Store(false)
		case heard && missed < 4:
			missed++
			c.heard.Store(false)
		default:
			return &platform.Error{Kind: platform.Retry, Code: "discord_deaf", Reason: "Discord has not answered a heartbeat for " + interval.String() + ": the connection is dead and is made again"}
		}
		c.beatAt.Store(time.Now().UnixNano())
		var seq any // null before the first dispatch
		if n := c.seq.Load(); n > 0 {
			seq = n
		}
		if err := c.send(ctx, opHeartbeat, seq); err != nil {
			return err
		}
	}
}

const codeIntents = "discord_4014"

const noContentReason = "Discord refuses the Message Content intent, so in servers only messages that mention the bot can be read: switch on Message Content Intent at https://discord.com/developers/applications (Bot → Privileged Gateway Intents) and restart the gateway"

// lost classifies the end of a connection,
// https://discord.com/developers/docs/topics/opcodes-and-status-codes#gateway-gateway-close-event-codes.
func (c *conn) lost(err error) error {
	var ce websocket.CloseError
	if !errors.As(err, &ce) {
		return &platform.Error{Kind: platform.Retry, Code: "discord_cut", Reason: "the connection to Discord broke: it is made again", Cause: c.a.scrub(err)}
	}
	n := int(ce.Code)
	e := &platform.Error{Kind: platform.Retry, Code: "discord_" + strconv.Itoa(n), Reason: "Discord closed the connection (" + strconv.Itoa(n) + " " + clean.Clip(clean.Text(ce.Reason), 100) + "): it is made again"}
	switch n {
	case 4004:
		c.over.Store(true)
		return c.a.improperToken()
	case 4003, 4007, 4009: // not authenticated, invalid sequence, session timed out
		c.over.Store(true)
	case 4010, 4011: // invalid shard, sharding required
		c.over.Store(true)
		e.RetryAfter = c.a.pause.intent
		e.Reason = "Discord wants this bot to be split into shards, which is asked of bots in 2,500 servers and more and is not supported: take the bot out of servers that do not need it"
	case 4012: // invalid API version
		c.over.Store(true)
		e.RetryAfter = c.a.pause.intent
		e.Reason = "Discord does not speak version 10 of its gateway any more: update hermes"
	case 4013, 4014: // invalid, disallowed intents
		c.over.Store(true)
		if !c.a.noContent {
			c.denied.Store(true)
			e.Reason = noContentReason
			break
		}
		e.RetryAfter = c.a.pause.intent
		e.Reason = "Discord refuses the intents that every bot may ask for (guilds, messages, direct messages): look at the bot's page at https://discord.com/developers/applications (Bot → Privileged Gateway Intents)"
	}
	return e
}
