package mattermost

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
)

const (
	overlap    = time.Minute // read again before the position: posts become visible out of order
	sinceLimit = 1000        // posts that the server gives at most for one "since"
	pageLimit  = 200         // posts of one page
	maxHistory = 5000        // posts read of one channel after a time without a connection
	maxPauses  = 20          // that the rate limiter may ask for in a row
)

// position is how far the account is up to date, by the server's own clock in
// milliseconds. One instant serves for all channels, since all that was posted
// before it in any of them is committed; so the cursor does not grow with the
// number of channels, and one that is new is read from there too.
type position struct {
	From int64 `json:"from"` // of the first connect ever; nothing before it is answered
	Seen int64 `json:"seen"`
}

// parsePosition reads a cursor; one that makes no sense starts anew.
func parsePosition(s string) position {
	var p position
	if json.Unmarshal([]byte(s), &p) != nil || p.From <= 0 || p.Seen < p.From {
		return position{}
	}
	return p
}

func (p position) String() string {
	b, _ := json.Marshal(p) // two numbers
	return string(b)
}

// catchUp reads from the history what was posted since the position in every
// channel, and commits it. The position moves only when all of them are done;
// what was committed before a failure is dropped as known when it comes again.
func (r *receiver) catchUp(ctx context.Context) error {
	var channels []channel
	c, e := r.a.get(ctx, "/users/"+r.a.self.Load().id+"/channels", &channels)
	if e != nil {
		return harmless(e, "Mattermost did not say which channels the bot is in")
	}
	newest := int64(0)
	for _, ch := range channels {
		newest = max(newest, ch.LastPostAt)
	}
	if r.at.From == 0 { // the first connect ever
		from := newest + 1
		if newest == 0 {
			from = serverTime(c, r.a.now()).UnixMilli()
		}
		r.at = position{From: from, Seen: max(from, r.at.Seen)}
		return r.keep(ctx)
	}
	since := max(r.at.From, r.at.Seen-overlap.Milliseconds(), newest-r.a.cfg.CatchUp.Milliseconds()) - 1
	for _, ch := range channels {
		if ch.LastPostAt <= since || ch.DeleteAt != 0 || !isID(ch.ID) || !r.a.heard(ch) {
			continue
		}
		if err := r.readChannel(ctx, ch, since); err != nil {
			return err
		}
	}
	r.at.Seen = max(r.at.Seen, newest)
	return r.keep(ctx)
}

// get reads for the receiver. It waits where the rate limiter asks for it:
// beginning anew, an account in very many channels would never come to an end.
func (a *Adapter) get(ctx context.Context, path string, out any) (*call, *platform.Error) {
	for pauses := 0; ; pauses++ {
		c, e := a.call(ctx, http.MethodGet, path, nil, out)
		if e == nil || e.RetryAfter == 0 || pauses == maxPauses || !platform.Sleep(ctx, e.RetryAfter) {
			return c, e
		}
	}
}

// serverTime is the earlier of the server's clock and ours.
func serverTime(c *call, now time.Time) time.Time {
	if t, err := http.ParseTime(c.Header.Get("Date")); err == nil && t.Before(now) {
		return t
	}
	return now
}

// keep stores the position if it has moved.
func (r *receiver) keep(ctx context.Context) error {
	if r.at == r.stored {
		return nil
	}
	if err := r.accept(ctx, nil, r.at.String()); err != nil {
		return err
	}
	r.stored = r.at
	return nil
}

// readChannel commits what was posted in a channel after an instant. A channel
// that may not be read is left out: it must not keep the others waiting.
func (r *receiver) readChannel(ctx context.Context, ch channel, since int64) error {
	posts, e := r.a.postsSince(ctx, ch.ID, since)
	if e != nil {
		if e.Kind == platform.GiveUp {
			r.a.log.Warn("the history of a channel cannot be read; only what the socket brings is heard", "channel", ch.ID, "error", e)
			return nil
		}
		return harmless(e, "the history of a channel could not be read")
	}
	var events []domain.Inbound
	for _, p := range posts {
		in, ok, e := r.message(ctx, p, ch, "")
		if e != nil {
			return harmless(e, "what belongs to a post could not be read")
		}
		if !ok {
			continue
		}
		if events = append(events, in); len(events) == batchLimit {
			if err := r.accept(ctx, events, ""); err != nil {
				return err
			}
			events = nil
		}
	}
	return r.accept(ctx, events, "")
}

// postsSince gives the posts of a channel that were made after an instant,
// oldest first. The server gives the newest of those that were changed since;
// when that is not all, what is older is read by pages.
func (a *Adapter) postsSince(ctx context.Context, channel string, since int64) ([]*post, *platform.Error) {
	path := "/channels/" + channel + "/posts?"
	var l postList
	if _, e := a.get(ctx, path+"since="+strconv.FormatInt(since, 10), &l); e != nil {
		return nil, e
	}
	found := map[string]*post{}
	oldest := l.collect(found, since)
	for more := len(l.Order) >= sinceLimit; more && oldest != nil && oldest.CreateAt > since; {
		if len(found) >= maxHistory {
			a.log.Warn("more was posted than is read after a time without a connection; the oldest posts stay unanswered", "channel", channel, "posts", len(found))
			break
		}
		l = postList{}
		if _, e := a.get(ctx, path+"per_page="+strconv.Itoa(pageLimit)+"&before="+oldest.ID, &l); e != nil {
			return nil, e
		}
		before := oldest
		if oldest = l.collect(found, since); oldest == nil || oldest.CreateAt > before.CreateAt {
			break
		}
		more = len(l.Order) >= pageLimit
	}
	out := make([]*post, 0, len(found))
	for _, p := range found {
		out = append(out, p)
	}
	slices.SortFunc(out, func(x, y *post) int { return cmp.Or(cmp.Compare(x.CreateAt, y.CreateAt), cmp.Compare(x.ID, y.ID)) })
	return out, nil
}

// collect adds the listed posts that were made after an instant and gives the
// oldest of all that are listed.
func (l postList) collect(found map[string]*post, since int64) (oldest *post) {
	for _, id := range l.Order {
		p := l.Posts[id]
		if p == nil || !isID(p.ID) {
			continue
		}
		if oldest == nil || p.CreateAt < oldest.CreateAt {
			oldest = p
		}
		if p.CreateAt > since && p.DeleteAt == 0 {
			found[p.ID] = p
		}
	}
	return oldest
}
