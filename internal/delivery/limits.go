package delivery

import (
	"container/list"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"hermes/internal/platform"
)

// Grouped is an optional interface of an adapter that can tell groups by their
// ids, for platforms that allow less in a group than in a private chat.
type Grouped interface {
	IsGroup(chatID string) bool
}

// maxChats bounds how many chats' rates are kept in mind; the ones used longest
// ago are forgotten.
const maxChats = 4096

// limits obeys the rates of one platform before they are hit.
type limits struct {
	mu      sync.Mutex
	every   time.Duration // per chat
	group   time.Duration // per group
	burst   int
	isGroup func(chatID string) bool
	all     *rate.Limiter // nil without a limit over all chats
	held    time.Time     // nothing goes before
	chats   map[string]*list.Element
	recent  *list.List // of *chatRate, the latest first
	off     bool
}

type chatRate struct {
	id    string
	limit *rate.Limiter
	held  time.Time
}

func newLimits(c platform.Capabilities, a platform.Adapter, off bool) *limits {
	l := &limits{every: c.PerChatEvery, group: c.PerGroupEvery, burst: max(c.Burst, 1), off: off, chats: map[string]*list.Element{}, recent: list.New()}
	if g, ok := a.(Grouped); ok && l.group > 0 {
		l.isGroup = g.IsGroup
	}
	if c.PerSecond > 0 {
		l.all = rate.NewLimiter(rate.Limit(c.PerSecond), c.PerSecond)
	}
	return l
}

// reserve asks to send one message to a chat now. It may, and giveBack undoes
// it; or chatAt says when the chat, or slotAt when the platform, allows it.
func (l *limits) reserve(chat string, now time.Time) (giveBack func(), chatAt, slotAt time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held.After(now) {
		return nil, time.Time{}, l.held
	}
	c := l.chat(chat)
	if c.held.After(now) {
		return nil, c.held, time.Time{}
	}
	if l.off {
		return func() {}, time.Time{}, time.Time{}
	}
	mine := c.limit.ReserveN(now, 1)
	if wait := mine.DelayFrom(now); wait > 0 {
		mine.CancelAt(now)
		return nil, now.Add(wait), time.Time{}
	}
	if l.all == nil {
		return func() { mine.CancelAt(now) }, time.Time{}, time.Time{}
	}
	ours := l.all.ReserveN(now, 1)
	giveBack = func() { ours.CancelAt(now); mine.CancelAt(now) }
	if wait := ours.DelayFrom(now); wait > 0 {
		giveBack()
		return nil, time.Time{}, now.Add(wait)
	}
	return giveBack, time.Time{}, time.Time{}
}

// allowEdit asks to edit a message of a chat now.
func (l *limits) allowEdit(chat string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if later(l.held, l.chat(chat).held).After(now) {
		return false
	}
	return l.off || l.all == nil || l.all.AllowN(now, 1)
}

// hold stops a chat, or the whole platform, until an instant.
func (l *limits) hold(chat string, until time.Time, global bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if global {
		l.held = later(l.held, until)
		return
	}
	c := l.chat(chat)
	c.held = later(c.held, until)
}

// chat gives the rate of a chat and makes it the one that was used last.
func (l *limits) chat(id string) *chatRate {
	if e := l.chats[id]; e != nil {
		l.recent.MoveToFront(e)
		return e.Value.(*chatRate)
	}
	every := l.every
	if l.isGroup != nil && l.isGroup(id) {
		every = l.group
	}
	c := &chatRate{id: id, limit: rate.NewLimiter(rate.Every(every), l.burst)}
	l.chats[id] = l.recent.PushFront(c)
	if l.recent.Len() > maxChats {
		oldest := l.recent.Back()
		l.recent.Remove(oldest)
		delete(l.chats, oldest.Value.(*chatRate).id)
	}
	return c
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
