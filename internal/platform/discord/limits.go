package discord

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"hermes/internal/platform"
)

const maxBuckets = 4096 // routes whose limit is remembered

// limits obeys the API's rate limits before they are hit,
// https://discord.com/developers/docs/topics/rate-limits. A route is a method
// and a path with its major ids, which is at least as fine as Discord's own
// buckets; where several routes share one, its refusal is obeyed by each.
type limits struct {
	now func() time.Time
	mu  sync.Mutex
	all time.Time // nothing goes before
	m   map[string]bucket
}

type bucket struct {
	left  int
	reset time.Time
}

func newLimits(now func() time.Time) *limits { return &limits{now: now, m: map[string]bucket{}} }

// wait takes one request of a route, or tells how long it has to wait.
func (l *limits) wait(route string) (d time.Duration, global bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if d = l.all.Sub(now); d > 0 {
		return d, true
	}
	b, ok := l.m[route]
	if !ok || !b.reset.After(now) {
		return 0, false
	}
	if b.left > 0 {
		b.left--
		l.m[route] = b
		return 0, false
	}
	return b.reset.Sub(now), false
}

// note learns from an answer's headers.
func (l *limits) note(route string, c *call) {
	if c.Header == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if c.Status == http.StatusTooManyRequests {
		if d, global := c.pause(); global {
			l.all = now.Add(d)
		} else {
			l.put(route, bucket{0, now.Add(d)}, now)
		}
		return
	}
	left, err := strconv.Atoi(c.Header.Get("X-RateLimit-Remaining"))
	after, err2 := strconv.ParseFloat(c.Header.Get("X-RateLimit-Reset-After"), 64)
	if err != nil || err2 != nil || after < 0 || after > 86400 {
		return
	}
	l.put(route, bucket{left, now.Add(time.Duration(after * float64(time.Second)))}, now)
}

func (l *limits) put(route string, b bucket, now time.Time) {
	if _, known := l.m[route]; !known && len(l.m) >= maxBuckets {
		for r, old := range l.m {
			if !old.reset.After(now) {
				delete(l.m, r)
			}
		}
		if len(l.m) >= maxBuckets {
			return // Discord says it again where it matters
		}
	}
	l.m[route] = b
}

// pause is what a 429 asks for, and whether it binds every request. A refusal
// that is not in the API's form comes from the front end and binds all.
func (c *call) pause() (d time.Duration, global bool) {
	seconds := c.reply.RetryAfter
	if h, err := strconv.ParseFloat(c.Header.Get("Retry-After"), 64); err == nil {
		seconds = max(seconds, h)
	}
	seconds = min(max(seconds, 0.05), 86400)
	global = c.reply.Global || strings.EqualFold(c.Header.Get("X-RateLimit-Global"), "true") ||
		c.Header.Get("X-RateLimit-Scope") == "global" || !c.isJSON
	return time.Duration(seconds * float64(time.Second)), global
}

func limited(what string, d time.Duration, global bool) *platform.Error {
	return &platform.Error{Kind: platform.Retry, Code: "discord_429", RetryAfter: d, Global: global,
		Reason: "Discord's rate limit asks for a pause of " + d.Round(10*time.Millisecond).String() + " before " + what}
}
