package matrix

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/intake"
	"hermes/internal/platform/reconnect"
)

const (
	timelineLimit = 50              // events of one room that a sync brings; what is more leaves a gap
	batchLimit    = 100             // events that are committed at once
	storeEvery    = 5 * time.Minute // of the position while nothing comes that is for us
)

// receiver is one Run: it polls and commits what comes. It belongs to one
// goroutine.
type receiver struct {
	a      *Adapter
	sink   platform.Sink
	intake intake.Intake
	line   reconnect.Line

	loaded   bool
	at       position
	stored   string    // the cursor that the sink was given last
	storedAt time.Time // and when
	filter   string
	tryAgain time.Time // when invitations that wait are looked at again
}

// session polls until something fails.
func (r *receiver) session(ctx context.Context) error {
	if err := r.connect(ctx); err != nil {
		return err
	}
	for wait := time.Duration(0); ctx.Err() == nil; wait = r.a.cfg.PollTimeout { // at first a proof at once
		began := time.Now()
		s, e := r.poll(ctx, wait)
		if e != nil {
			return e
		}
		was := r.at.Since
		if err := r.take(ctx, s); err != nil {
			return err
		}
		r.alive()
		if wait > 0 && r.at.Since == was && time.Since(began) < wait/10 {
			platform.Sleep(ctx, r.a.pause.first) // a server that does not wait must not make us spin
		}
	}
	return nil
}

// connect learns who the account is and, once, where the inbox stands.
func (r *receiver) connect(ctx context.Context) error {
	self, e := r.a.whoAmI(ctx)
	if e != nil {
		return harmless(e, "the homeserver did not say who the account is")
	}
	if _, e := r.a.loadDirects(ctx); e != nil {
		return e
	}
	if r.loaded {
		return nil
	}
	text, err := r.sink.Cursor(ctx, self.user)
	if err != nil {
		return err
	}
	r.at, r.stored, r.storedAt, r.loaded = parsePosition(text), text, r.a.now(), true
	if r.a.cfg.Encryption {
		r.a.log.Warn("MATRIX_ENCRYPTION is on, but this version does not read rooms that are end-to-end encrypted; write to the account in a room that is not")
	}
	r.noteEncrypted()
	return nil
}

// poll asks for news. One that is not back in twice its time is cut.
func (r *receiver) poll(ctx context.Context, wait time.Duration) (*syncReply, *platform.Error) {
	q := url.Values{"timeout": {strconv.FormatInt(wait.Milliseconds(), 10)}, "filter": {r.syncFilter()}}
	if r.at.Since != "" {
		q.Set("since", r.at.Since)
	}
	limit := 2 * max(wait, r.a.cfg.PollTimeout)
	if r.at.Since == "" {
		limit = max(limit, 10*time.Minute) // the first one of a large account takes a server long
	}
	var s syncReply
	c, e := r.a.call(ctx, request{method: http.MethodGet, path: "/v3/sync", query: q, timeout: limit}, &s)
	if e == nil {
		if s.Next == "" {
			return nil, notMatrix(c.Status)
		}
		return &s, nil
	}
	e.Uncertain = false
	switch {
	case e.Code == codeUnknown && errors.Is(c.Err, context.DeadlineExceeded):
		e.Code, e.Reason = "matrix_poll_stuck", "a poll of the homeserver did not come back in twice its time: it was cut and is made again"
	case e.Code == codeUnknown:
		e.Code, e.Reason = "matrix_poll_cut", "the connection to the homeserver broke while it was polled: it is made again"
	case e.Kind == platform.GiveUp && r.at.Since != "" && c.Status == http.StatusBadRequest:
		// The homeserver was set up anew, or put back to an older state.
		r.a.log.Warn("the homeserver does not know the stored position any more; what was written since the last message is read from the rooms' histories", "reason", e.Reason)
		r.at.Since = ""
		e.Kind = platform.Retry
	case e.Kind == platform.GiveUp:
		e.Kind = platform.Retry
	}
	return nil, e
}

// syncFilter says what is wanted,
// https://spec.matrix.org/v1.15/client-server-api/#filtering.
func (r *receiver) syncFilter() string {
	if r.filter == "" {
		nothing := map[string]any{"types": []string{}}
		b, _ := json.Marshal(map[string]any{ // strings and numbers only
			"presence":     nothing,
			"account_data": map[string]any{"types": []string{typeDirect}},
			"room": map[string]any{
				"account_data": nothing, "ephemeral": nothing,
				"state":    map[string]any{"types": []string{typeMember, typeName, typeAlias, typeCrypto}, "lazy_load_members": true},
				"timeline": map[string]any{"types": timelineTypes, "limit": timelineLimit, "lazy_load_members": true},
			},
		})
		r.filter = string(b)
	}
	return r.filter
}

var timelineTypes = []string{typeMessage, typeEncrypted, typeReaction, typeMember, typeName, typeAlias, typeCrypto}

// alive records a poll that came back and was taken.
func (r *receiver) alive() {
	if !r.line.IsUp() {
		r.a.log.Info("connected to Matrix", "user", r.a.self.Load().user)
	}
	r.line.Up()
}

// take handles what a poll brought, and commits it with its position.
func (r *receiver) take(ctx context.Context, s *syncReply) error {
	first := r.at.From == 0
	if first {
		// The messages of before are nobody's business; clocks may differ a little.
		r.at.From = r.a.now().Add(-time.Minute).UnixMilli()
	}
	for _, ev := range s.AccountData.Events {
		if ev.Type == typeDirect {
			d := map[string][]string{}
			lenient(ev.Content, &d)
			r.a.rooms.setDirects(d)
		}
	}
	if err := r.invitations(ctx, s); err != nil {
		return err
	}
	for id := range s.Rooms.Leave {
		r.a.rooms.drop(id)
		r.at.forgetInvite(id)
		r.a.changed()
	}
	var all [][]domain.Inbound
	for _, id := range slices.Sorted(maps.Keys(s.Rooms.Join)) {
		if !isRoom(id) || s.Rooms.Join[id] == nil {
			continue
		}
		r.at.forgetInvite(id)
		got, err := r.room(ctx, id, s.Rooms.Join[id], first)
		if err != nil {
			return err
		}
		if len(got) > 0 {
			all = append(all, got)
		}
	}
	r.at.Since = s.Next
	return r.commit(ctx, merge(all))
}

// merge puts the events of all rooms into one order, by when they were sent; those
// of one room stay in the room's.
func merge(rooms [][]domain.Inbound) (out []domain.Inbound) {
	for len(rooms) > 0 {
		first := 0
		for i := range rooms {
			if rooms[i][0].SentAt.Before(rooms[first][0].SentAt) {
				first = i
			}
		}
		out = append(out, rooms[first][0])
		if rooms[first] = rooms[first][1:]; len(rooms[first]) == 0 {
			rooms = slices.Delete(rooms, first, first+1)
		}
	}
	return out
}

// room reads what is new in a room. quiet is the first sync of an account: what
// it brings was said before anybody listened.
func (r *receiver) room(ctx context.Context, id string, j *joined, quiet bool) ([]domain.Inbound, error) {
	renamed := false
	for _, ev := range j.State.Events {
		renamed = r.a.rooms.apply(id, ev, false) || renamed
	}
	for _, ev := range j.Timeline.Events {
		renamed = r.a.rooms.apply(id, ev, true) || renamed
	}
	if renamed {
		r.a.changed()
	}
	if quiet {
		return nil, nil
	}
	timeline := j.Timeline.Events
	if j.Timeline.Limited || r.at.Since == "" {
		gap, e := r.gap(ctx, id, j.Timeline.Prev)
		if e != nil {
			return nil, e
		}
		timeline = slices.Concat(gap, timeline)
	}
	self := r.a.self.Load()
	timeline, entered := sinceInvited(timeline, self)
	if entered {
		r.a.changed()
		if known, e := r.a.roomOf(ctx, id); e == nil && known.encrypted {
			r.tellEncrypted(ctx, id)
		}
	}
	var out []domain.Inbound
	for _, ev := range timeline {
		if ev.TS < r.floor() && r.at.Since == "" {
			continue
		}
		in, ok, e := r.event(ctx, id, ev)
		if e != nil {
			return nil, e
		}
		if ok {
			out = append(out, in)
		}
	}
	return out, nil
}

// event maps one event of a room; ok is false when it is not for us.
func (r *receiver) event(ctx context.Context, id string, ev *event) (in domain.Inbound, ok bool, e *platform.Error) {
	if !isEvent(ev.ID) || !isUser(ev.Sender) || ev.StateKey != nil {
		return in, false, nil
	}
	switch ev.Type {
	case typeMessage:
		return r.a.message(ctx, id, ev)
	case typeReaction:
		return r.a.press(ctx, id, ev)
	case typeEncrypted:
		if ev.Sender != r.a.self.Load().user {
			r.tellEncrypted(ctx, id)
		}
	}
	return in, false, nil
}

// commit stores events in order, the position with the last of them.
func (r *receiver) commit(ctx context.Context, all []domain.Inbound) error {
	for len(all) > batchLimit {
		if err := r.accept(ctx, all[:batchLimit], ""); err != nil {
			return err
		}
		all = all[batchLimit:]
	}
	if n := len(all); n > 0 {
		r.at.Last = max(r.at.Last, all[n-1].SentAt.UnixMilli())
	}
	cursor := r.at.String()
	now := r.a.now()
	was := parsePosition(r.stored)
	was.Since = r.at.Since
	if len(all) == 0 && (cursor == r.stored || was.String() == cursor && now.Sub(r.storedAt) < storeEvery) {
		return nil
	}
	if err := r.accept(ctx, all, cursor); err != nil {
		return err
	}
	r.stored, r.storedAt = cursor, now
	return nil
}

// accept commits events.
func (r *receiver) accept(ctx context.Context, all []domain.Inbound, cursor string) error {
	for _, in := range all { // before the commit: the turn may begin at once
		if !in.Button {
			r.a.waiting.Set(in.Address, in.MessageID)
		}
	}
	return r.intake.Accept(ctx, r.a.self.Load().user, all, cursor)
}

// accepted tells the rooms how far they were read.
func (r *receiver) accepted(all []domain.Inbound) {
	read := map[string]string{}
	for _, in := range all {
		if !in.Button {
			read[in.ChatID] = in.MessageID
		}
	}
	for room, id := range read {
		// https://spec.matrix.org/v1.15/client-server-api/#post_matrixclientv3roomsroomidreceiptreceipttypeeventid
		path := "/v3/rooms/" + url.PathEscape(room) + "/receipt/m.read/" + url.PathEscape(id)
		r.a.later(func(ctx context.Context) *platform.Error {
			_, e := r.a.call(ctx, request{method: http.MethodPost, path: path, in: struct{}{}}, nil)
			return e
		})
	}
}
