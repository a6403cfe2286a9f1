package slack

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
)

const (
	overlap     = time.Minute    // read again before the position
	threadBack  = 24 * time.Hour // before the position in which the first messages of threads are looked for
	historyPage = 200            // messages of one page, as Slack advises
	maxHistory  = 2000           // messages read of one conversation after a time without a connection
	maxThreads  = 64             // threads that are remembered over a restart
	maxPauses   = 20             // that the rate limiter may ask for in a row
)

// position is how far the account is up to date, by Slack's own clock in
// microseconds, which a ts is too. One instant serves for all conversations,
// since all that was written before it in any of them is committed; so one that
// is new is read from there too. It moves only when the history of all of them
// has been read, and what is read twice the inbox knows.
type position struct {
	From    int64    `json:"from"` // of the first connect ever; nothing before it is answered
	Seen    int64    `json:"seen"`
	Threads []thread `json:"threads,omitempty"` // heard last, the latest at the end
}

// thread is a thread in which somebody wrote to the bot. Its first message may
// be older than what is read of its channel.
type thread struct {
	Channel string `json:"c"`
	Root    string `json:"t"`
}

// parsePosition reads a cursor; one that makes no sense starts anew.
func parsePosition(s string) position {
	var p position
	if json.Unmarshal([]byte(s), &p) != nil || p.From <= 0 || p.Seen < p.From {
		return position{}
	}
	p.Threads = slices.DeleteFunc(p.Threads, func(t thread) bool { return !isID(t.Channel) || !isTS(t.Root) })
	p.Threads = p.Threads[max(0, len(p.Threads)-maxThreads):]
	return p
}

func (p position) String() string {
	b, _ := json.Marshal(p) // numbers and short texts
	return string(b)
}

// remember puts the threads of events to the end of those heard last.
func (p *position) remember(events []domain.Inbound) {
	for _, in := range events {
		if in.ThreadID == "" {
			continue
		}
		t := thread{in.ChatID, in.ThreadID}
		p.Threads = append(slices.DeleteFunc(slices.Clone(p.Threads), func(o thread) bool { return o == t }), t)
		p.Threads = p.Threads[max(0, len(p.Threads)-maxThreads):]
	}
}

// round is one reading of all conversations.
type round struct {
	open  bool
	since int64           // microseconds; what was written after it is read
	mark  int64           // the position when the round is done
	todo  []string        // conversations that were not read yet
	done  map[string]bool // those that were
	next  time.Time       // no request before this
}

// begin starts a round: it lists the conversations that the bot is in.
func (r *receiver) begin(ctx context.Context) error {
	all, c, missing, e := r.a.conversations(ctx, conversationTypes)
	if e != nil {
		return harmless(e, "Slack did not say which conversations the bot is in")
	}
	if len(missing) > 0 {
		r.a.health.Note("missing_permissions", strings.Join(missing, " "))
		r.a.log.Warn("the app lacks permissions: what is written there while hermes is down is not found; add them (https://api.slack.com/apps → your app → OAuth & Permissions → Scopes)", "missing", missing)
	}
	now := serverTime(c, r.a.now())
	if r.at.From == 0 { // the first connect ever
		r.at.From, r.at.Seen = now.UnixMicro(), now.UnixMicro()
	}
	since := max(r.at.From, r.at.Seen-overlap.Microseconds(), now.Add(-r.a.cfg.CatchUp).UnixMicro())
	r.round = round{open: true, since: since, mark: max(now.UnixMicro(), r.at.Seen), done: map[string]bool{}}
	// Where somebody talks to the bot is read first.
	heard := map[string]bool{}
	for _, t := range r.at.Threads {
		heard[t.Channel] = true
	}
	for _, ch := range all {
		if ch.IsIM || r.a.heard(ch) {
			r.round.todo = append(r.round.todo, ch.ID)
		}
	}
	slices.SortStableFunc(r.round.todo, func(x, y string) int {
		rank := map[bool]int{true: 0, false: 1}
		return cmp.Compare(rank[heard[x]], rank[heard[y]])
	})
	return nil
}

// serverTime is the earlier of Slack's clock and ours.
func serverTime(c *call, now time.Time) time.Time {
	if t, err := http.ParseTime(c.Header.Get("Date")); err == nil && t.Before(now) {
		return t
	}
	return now
}

// step reads one more conversation, or ends the round.
func (r *receiver) step(ctx context.Context) error {
	for len(r.round.todo) > 0 && r.round.done[r.round.todo[0]] {
		r.round.todo = r.round.todo[1:]
	}
	if len(r.round.todo) == 0 {
		r.round.open = false
		r.at.Seen = r.round.mark
		if err := r.accept(ctx, nil); err != nil {
			return err
		}
		r.a.health.OK()
		r.a.log.Info("all that was written in Slack is read", "conversations", len(r.round.done))
		return nil
	}
	// The socket is heard in between while the rate limit makes the history wait.
	if wait := r.a.tiers.peek("conversations.history", time.Now()); wait > 0 {
		r.round.next = time.Now().Add(wait)
		return nil
	}
	return r.readChannel(ctx, r.round.todo[0])
}

// readChannel commits what was written in a conversation since the position,
// in its threads too. One that may not be read is left out: it must not keep
// the others waiting.
func (r *receiver) readChannel(ctx context.Context, id string) error {
	found, e := r.history(ctx, id)
	if e != nil && e.Kind == platform.GiveUp {
		r.a.log.Warn("the history of a conversation cannot be read; only what the socket brings is heard", "channel", id, "error", e)
		r.round.done[id] = true
		return nil
	}
	if e != nil {
		return harmless(e, "the history of a conversation could not be read")
	}
	if len(found) > 0 {
		if err := r.commitHistory(ctx, id, found); err != nil {
			return err
		}
	}
	r.round.done[id] = true
	return nil
}

func (r *receiver) commitHistory(ctx context.Context, id string, found []*message) error {
	ch, e := r.a.channelOf(ctx, id, "")
	if e != nil {
		return e
	}
	var events []domain.Inbound
	for _, m := range found {
		in, ok, e := r.message(ctx, m, ch)
		if e != nil {
			return harmless(e, "what belongs to a message could not be read")
		}
		if !ok {
			continue
		}
		if events = append(events, in); len(events) == batchLimit {
			if err := r.accept(ctx, events); err != nil {
				return err
			}
			events = nil
		}
	}
	if len(events) == 0 {
		return nil
	}
	return r.accept(ctx, events)
}

// history gives what was written in a conversation and its threads since the
// position, oldest first. The history of a channel does not hold the answers in
// threads: those threads are read whose first message is near enough and says
// that somebody answered since, and those that are remembered.
func (r *receiver) history(ctx context.Context, id string) ([]*message, *platform.Error) {
	found := map[string]*message{}
	threads := map[string]bool{}
	oldest := r.round.since - threadBack.Microseconds()
	args := url.Values{"channel": {id}, "oldest": {tsOf(oldest)}, "limit": {strconv.Itoa(historyPage)}}
	reached := oldest
	for {
		page, e := r.a.page(ctx, "conversations.history", args)
		if e != nil {
			return nil, e
		}
		last := int64(0)
		for _, m := range page.messages {
			if at := micros(m.TS); at > r.round.since {
				found[m.TS] = m
			}
			if micros(m.LatestReply) > r.round.since {
				threads[m.root()] = true
			}
			last = micros(m.TS)
		}
		if page.next == "" || last == 0 {
			break
		}
		if last <= r.round.since || len(found) >= maxHistory {
			reached = last
			if last > r.round.since {
				r.a.log.Warn("more was written than is read after a time without a connection; the oldest messages stay unanswered", "channel", id, "messages", len(found))
			}
			break
		}
		args.Set("cursor", page.next)
	}
	for _, t := range r.at.Threads {
		if t.Channel == id && micros(t.Root) <= reached {
			threads[t.Root] = true
		}
	}
	for root := range threads {
		if e := r.replies(ctx, id, root, found); e != nil {
			return nil, e
		}
	}
	out := make([]*message, 0, len(found))
	for _, m := range found {
		out = append(out, m)
	}
	slices.SortFunc(out, func(x, y *message) int { return cmp.Compare(micros(x.TS), micros(y.TS)) })
	return out, nil
}

// replies adds what was written in a thread since the position.
func (r *receiver) replies(ctx context.Context, id, root string, found map[string]*message) *platform.Error {
	args := url.Values{"channel": {id}, "ts": {root}, "oldest": {tsOf(r.round.since)}, "limit": {strconv.Itoa(historyPage)}}
	for n := 0; n < maxHistory; {
		page, e := r.a.page(ctx, "conversations.replies", args)
		if e != nil {
			if e.Kind == platform.GiveUp { // the thread was deleted
				return nil
			}
			return e
		}
		for _, m := range page.messages {
			if micros(m.TS) > r.round.since {
				found[m.TS] = m
			}
		}
		n += len(page.messages)
		if page.next == "" || len(page.messages) == 0 {
			break
		}
		args.Set("cursor", page.next)
	}
	return nil
}

// page is one page of messages.
type page struct {
	messages []*message
	next     string // the cursor of the next page; "" after the last
}

// page reads messages, https://docs.slack.dev/reference/methods/conversations.history
// and https://docs.slack.dev/reference/methods/conversations.replies. A message
// that cannot be read costs no other.
func (a *Adapter) page(ctx context.Context, method string, args url.Values) (page, *platform.Error) {
	var out struct {
		Messages []json.RawMessage `json:"messages"`
		HasMore  bool              `json:"has_more"`
	}
	c, e := a.get(ctx, method, args, &out)
	if e != nil {
		return page{}, e
	}
	var p page
	for _, raw := range out.Messages {
		var m message
		if err := json.Unmarshal(raw, &m); err != nil || !isTS(m.TS) {
			a.log.Warn("a message of Slack's history could not be read and was left out", "method", method, "bytes", len(raw))
			continue
		}
		p.messages = append(p.messages, &m)
	}
	if out.HasMore {
		p.next = c.reply.Metadata.NextCursor
	}
	return p, nil
}

// get reads for the receiver. It waits where the rate limit asks for it.
func (a *Adapter) get(ctx context.Context, method string, args url.Values, out any) (*call, *platform.Error) {
	for pauses := 0; ; pauses++ {
		c, e := a.call(ctx, method, args, out)
		if e == nil || e.RetryAfter == 0 || pauses == maxPauses || !platform.Sleep(ctx, e.RetryAfter) {
			return c, e
		}
	}
}
