package mattermost

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/intake"
	"hermes/internal/platform/recall"
	"hermes/internal/platform/reconnect"
)

const (
	batchLimit = 100 // events that are committed at once
	pressTries = 6   // at reading a press, over about fifteen seconds
)

// receiver is one Run: it keeps a connection and commits what comes. It
// belongs to one goroutine.
type receiver struct {
	a      *Adapter
	sink   platform.Sink
	intake intake.Intake
	line   reconnect.Line

	loaded bool
	at     position
	stored position           // what the sink was given last
	known  recall.Table[bool] // events that this run has committed: the history brings many again
}

// session is one connection, from its first request to its loss. The socket is
// open before the history is read, so that nothing falls between the two.
func (r *receiver) session(ctx context.Context) error {
	if e := r.connect(ctx); e != nil {
		return e
	}
	s, e := r.a.dial(ctx)
	if e != nil {
		return e
	}
	defer s.close()
	if err := r.catchUp(ctx); err != nil {
		return err
	}
	r.alive()
	check := time.NewTicker(r.a.cfg.CheckEvery)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-check.C:
			// A socket that answers pings and brings no posts is found out here.
			if err := r.catchUp(ctx); err != nil {
				return err
			}
			r.a.health.OK()
		case i, open := <-s.items:
			if !open {
				return s.cause()
			}
			if err := r.take(ctx, i, s.items); err != nil {
				return err
			}
		}
	}
}

// connect learns who the account is, what the server allows and, once, where
// the inbox stands.
func (r *receiver) connect(ctx context.Context) error {
	a := r.a
	var me user
	if _, e := a.call(ctx, http.MethodGet, "/users/me", nil, &me); e != nil {
		return harmless(e, "Mattermost did not say who the bot is")
	}
	self, e := a.become(me)
	if e != nil {
		return e
	}
	var conf map[string]any
	if _, e := a.call(ctx, http.MethodGet, "/config/client?format=old", nil, &conf); e != nil {
		a.log.Debug("the server's limits are not known", "error", e)
	}
	a.limits.Store(&serverLimits{postRunes: int(number(conf["MaxPostSize"])), fileBytes: number(conf["MaxFileSize"])})
	if r.loaded {
		return nil
	}
	text, err := r.sink.Cursor(ctx, self.id)
	if err != nil {
		return err
	}
	r.at = parsePosition(text)
	r.stored, r.loaded = r.at, true
	return nil
}

// number reads a value of the client's configuration, all of which are text.
func number(v any) int64 {
	s, _ := v.(string)
	n, _ := strconv.ParseInt(s, 10, 64)
	return max(n, 0)
}

// alive records that the connection is up to date.
func (r *receiver) alive() {
	r.a.log.Info("connected to Mattermost", "bot", r.a.Capabilities().MentionName)
	r.line.Up()
}

// take handles an event and those that wait behind it, as one commit. The
// position moves with the commit: what is not stored is read again.
func (r *receiver) take(ctx context.Context, i item, more <-chan item) error {
	var events []domain.Inbound
	var seen int64
	for {
		if i.gap {
			// The history has what is missing; what follows is taken after it.
			r.a.log.Info("events of Mattermost's websocket are missing; the history is read")
			if err := r.accept(ctx, events, ""); err != nil {
				return err
			}
			events = nil
			if err := r.catchUp(ctx); err != nil {
				return err
			}
		}
		in, at, ok, err := r.event(ctx, i.frame)
		if err != nil {
			return err
		}
		seen = max(seen, at)
		if ok {
			events = append(events, in)
		}
		if len(events) == batchLimit {
			break
		}
		var open bool
		select {
		case i, open = <-more:
			if open {
				continue
			}
		default:
		}
		break
	}
	return r.commit(ctx, events, seen)
}

// event reads one event of the socket, made at an instant of the server's
// clock; ok is false when there is nothing to store.
func (r *receiver) event(ctx context.Context, f frame) (in domain.Inbound, at int64, ok bool, err error) {
	var d struct {
		Post        string `json:"post"`
		ChannelType string `json:"channel_type"`
		ChannelName string `json:"channel_name"`
		DisplayName string `json:"channel_display_name"`
		SenderName  string `json:"sender_name"`
	}
	if changesChannels(f.Event) {
		r.a.changed()
		return in, 0, false, nil
	}
	if err := json.Unmarshal(f.Data, &d); err != nil {
		return in, 0, false, nil //nolint:nilerr // an event that is not understood is passed over
	}
	if f.Event == "reaction_added" {
		in, ok, e := r.pressed(ctx, f)
		if e != nil {
			return in, 0, false, e
		}
		return in, 0, ok, nil
	}
	var p post
	if f.Event != "posted" || json.Unmarshal([]byte(d.Post), &p) != nil || !isID(p.ID) || !isID(p.ChannelID) {
		return in, 0, false, nil //nolint:nilerr // as above
	}
	ch := channel{ID: p.ChannelID, Type: d.ChannelType, Name: d.ChannelName, DisplayName: d.DisplayName}
	in, ok, e := r.message(ctx, &p, ch, d.SenderName)
	if e != nil {
		return in, 0, false, e
	}
	return in, p.CreateAt, ok, nil
}

// pressed reads a press, and tries again what fails: no history has it.
func (r *receiver) pressed(ctx context.Context, f frame) (in domain.Inbound, ok bool, e *platform.Error) {
	wait := r.a.pause.first
	for range pressTries {
		in, ok, e = r.a.press(ctx, f)
		if e == nil || e.Kind != platform.Retry || !platform.Sleep(ctx, wait) {
			break
		}
		wait = min(2*wait, r.a.pause.most)
	}
	return in, ok, e
}

// message maps a post that this run has not committed yet.
func (r *receiver) message(ctx context.Context, p *post, ch channel, sender string) (domain.Inbound, bool, *platform.Error) {
	if known, _ := r.known.Get(p.ID); known {
		return domain.Inbound{}, false, nil
	}
	return r.a.message(ctx, p, ch, sender)
}

// commit stores events of the socket with the position behind them.
func (r *receiver) commit(ctx context.Context, events []domain.Inbound, seen int64) error {
	next := position{From: r.at.From, Seen: max(r.at.Seen, seen)}
	if len(events) > 0 { // chatter that is read again after a restart costs less than a commit for each
		if err := r.accept(ctx, events, next.String()); err != nil {
			return err
		}
		r.stored = next
		r.a.health.OK()
	}
	r.at = next
	return nil
}

// accept commits events.
func (r *receiver) accept(ctx context.Context, events []domain.Inbound, cursor string) error {
	return r.intake.Accept(ctx, r.a.self.Load().id, events, cursor)
}

// accepted queues the acknowledgements, which are a courtesy: what does not fit
// is dropped.
func (r *receiver) accepted(events []domain.Inbound) {
	for _, in := range events {
		r.known.Set(in.EventID, true)
	}
	if !r.a.cfg.Reactions {
		return
	}
	for _, in := range events {
		if !in.Button {
			r.a.react(reaction{post: in.MessageID, emoji: ackEmoji})
		}
	}
}
