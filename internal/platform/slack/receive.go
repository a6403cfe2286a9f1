package slack

import (
	"context"
	"strconv"
	"sync"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/intake"
	"hermes/internal/platform/recall"
	"hermes/internal/platform/reconnect"
)

// batchLimit is how many envelopes are committed at once.
const batchLimit = 100

// receiver is one Run: it keeps a connection and commits what comes. It
// belongs to one goroutine.
type receiver struct {
	a       *Adapter
	sink    platform.Sink
	intake  intake.Intake
	line    reconnect.Line
	frames  chan item       // of all sockets
	sockets *sync.WaitGroup // their goroutines

	current *socket // the one whose end is the end of the session
	loaded  bool
	at      position
	stored  string // the cursor that the sink was given last
	round   round
	known   recall.Table[bool] // events that this run has committed: the history brings many again
}

// session is one connection, or several that replace each other without a gap.
// The socket is open before the history is read, so that nothing falls between
// the two.
func (r *receiver) session(ctx context.Context) error {
	if err := r.connect(ctx); err != nil {
		return err
	}
	if e := r.open(ctx); e != nil {
		return e
	}
	defer func() { r.current.close() }()
	if err := r.begin(ctx); err != nil {
		return err
	}
	r.alive()
	check := time.NewTicker(r.a.cfg.CheckEvery)
	defer check.Stop()
	for {
		var history <-chan time.Time
		var wait *time.Timer
		if r.round.open {
			wait = time.NewTimer(time.Until(r.round.next))
			history = wait.C
		}
		var err error
		select {
		case <-ctx.Done():
		case <-check.C:
			// A socket that answers pings and brings no events is found out here.
			err = r.begin(ctx)
		case <-history:
			err = r.step(ctx)
		case i := <-r.frames:
			err = r.take(ctx, i)
		}
		if wait != nil {
			wait.Stop()
		}
		if err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// connect learns who the account is and, once, where the inbox stands.
func (r *receiver) connect(ctx context.Context) error {
	self, e := r.a.whoAmI(ctx)
	if e != nil {
		return harmless(e, "Slack did not say who the bot is")
	}
	if r.loaded {
		return nil
	}
	text, err := r.sink.Cursor(ctx, self.account())
	if err != nil {
		return err
	}
	r.at = parsePosition(text)
	r.stored, r.loaded = text, true
	return nil
}

// open makes a socket the current one.
func (r *receiver) open(ctx context.Context) *platform.Error {
	s, hello, e := r.a.dial(ctx, r.frames, r.sockets)
	if e != nil {
		return e
	}
	others := hello.Connections - 1
	if r.current != nil && r.current.isRetiring() {
		others--
	}
	r.current = s
	r.a.health.Note("connections", strconv.Itoa(max(hello.Connections, 1)))
	if others > 0 {
		// It may be our own, lost a moment ago, which Slack has not noticed yet.
		r.a.log.Warn("Slack counts more connections of this app than this one, and gives each a share of the events; if something else uses SLACK_APP_TOKEN, stop it", "connections", hello.Connections)
	}
	return nil
}

// refresh replaces the socket that Slack is about to close. The old one is
// still heard until then: no history brings a button or a command.
func (r *receiver) refresh(ctx context.Context) error {
	old := r.current
	old.retire()
	if e := r.open(ctx); e != nil {
		return e
	}
	r.line.Renewed()
	r.a.log.Info("the connection to Slack was renewed, as Slack asked")
	return r.begin(ctx)
}

// alive records that the connection stands.
func (r *receiver) alive() {
	r.a.log.Info("connected to Slack", "bot", r.a.Capabilities().MentionName)
	r.line.Up()
}

// batch is what is committed, and then acknowledged, together.
type batch struct {
	events []domain.Inbound
	acks   []item
}

// take handles a frame and those that wait behind it, as one commit.
func (r *receiver) take(ctx context.Context, i item) error {
	b := &batch{}
	for n := 1; ; n++ {
		if err := r.frame(ctx, i, b); err != nil {
			return err
		}
		if n >= batchLimit {
			break
		}
		select {
		case i = <-r.frames:
			continue
		default:
		}
		break
	}
	return r.commit(ctx, b)
}

// frame takes one frame of a socket.
func (r *receiver) frame(ctx context.Context, i item, b *batch) error {
	switch {
	case i.ended && i.from != r.current:
		return nil // it was replaced
	case i.ended:
		if err := r.commit(ctx, b); err != nil {
			return err
		}
		return i.from.cause()
	case i.Type == "disconnect":
		r.a.log.Debug("Slack is about to close the connection", "reason", i.Reason)
		if i.from != r.current {
			return nil
		}
		if err := r.commit(ctx, b); err != nil {
			return err
		}
		if i.Reason == "link_disabled" {
			return disconnected(i.Reason)
		}
		return r.refresh(ctx)
	}
	in, ok, err := r.event(ctx, &i.envelope, b)
	if err != nil {
		return err
	}
	if ok {
		b.events = append(b.events, in)
	}
	b.acks = append(b.acks, i)
	return nil
}

// event reads an envelope; ok is false when there is nothing to store. The
// history of a conversation comes before what the socket says of it, so that
// its order is kept.
func (r *receiver) event(ctx context.Context, f *envelope, b *batch) (in domain.Inbound, ok bool, err error) {
	switch f.Type {
	case "slash_commands":
		in, ok = r.a.command(f)
		return in, ok, nil
	case "interactive":
		in, ok = r.a.press(f)
		return in, ok, nil
	case "events_api":
	default:
		return in, false, nil
	}
	m, kind := messageOf(f.Payload)
	if kind != "" && kind != "message" && kind != "app_mention" {
		r.changed(kind, m)
		return in, false, nil
	}
	if m == nil {
		return in, false, nil
	}
	if r.round.open && !r.round.done[m.Channel] {
		if err := r.commit(ctx, b); err != nil {
			return in, false, err
		}
		if err := r.readChannel(ctx, m.Channel); err != nil {
			return in, false, err
		}
	}
	ch, e := r.a.channelOf(ctx, m.Channel, m.ChannelType)
	if e != nil {
		return in, false, e
	}
	in, ok, e = r.message(ctx, m, ch)
	if e != nil {
		return in, false, e
	}
	return in, ok, nil
}

// changed takes note that a conversation is not what it was.
func (r *receiver) changed(kind string, m *message) {
	switch kind {
	case "channel_rename", "group_rename", "channel_created", "channel_deleted", "group_deleted", "channel_archive", "channel_unarchive",
		"group_archive", "group_unarchive", "member_joined_channel", "channel_left", "group_left":
		if m != nil {
			r.a.names.dropChannel(m.Channel)
		}
		r.a.changed()
	}
}

// message maps a message that this run has not committed yet.
func (r *receiver) message(ctx context.Context, m *message, ch channel) (domain.Inbound, bool, *platform.Error) {
	if known, _ := r.known.Get(ch.ID + ":" + m.TS); known {
		return domain.Inbound{}, false, nil
	}
	return r.a.message(ctx, m, ch)
}

// commit stores a batch and acknowledges it.
func (r *receiver) commit(ctx context.Context, b *batch) error {
	if len(b.events) > 0 {
		if err := r.accept(ctx, b.events); err != nil {
			return err
		}
		r.a.health.OK()
	}
	for _, i := range b.acks {
		i.from.ack(ctx, i.ID)
	}
	*b = batch{}
	return nil
}

// accept commits events with the position.
func (r *receiver) accept(ctx context.Context, events []domain.Inbound) error {
	r.at.remember(events)
	cursor := r.at.String()
	if len(events) == 0 && cursor == r.stored {
		return nil
	}
	for _, in := range events { // before the commit: the turn may begin at once
		if !in.Button && isTS(in.MessageID) {
			r.a.waiting.Set(in.Address, in.MessageID)
		}
	}
	if err := r.intake.Accept(ctx, r.a.self.Load().account(), events, cursor); err != nil {
		return err
	}
	r.stored = cursor
	return nil
}

// accepted remembers what was committed.
func (r *receiver) accepted(events []domain.Inbound) {
	for _, in := range events {
		r.known.Set(in.EventID, true)
	}
}
