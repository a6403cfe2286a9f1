package model

import (
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"hermes/internal/lazyregexp"
)

// KindOfStatus classifies an HTTP status of 400 and above. It knows nothing of
// the body, which may say more: see https://platform.openai.com/docs/guides/error-codes.
func KindOfStatus(status int) Kind {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return Auth
	case http.StatusPaymentRequired:
		return Quota
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone:
		return NoModel
	case http.StatusRequestEntityTooLarge:
		return TooLarge
	case http.StatusTooManyRequests:
		return RateLimited
	case http.StatusRequestTimeout:
		return Timeout
	}
	switch {
	case status >= 500:
		return Unavailable
	case status >= 400:
		return BadRequest
	}
	return Other
}

// maxRetryAfter bounds what a header may ask for; more is a mistake of theirs.
const maxRetryAfter = 7 * 24 * time.Hour

// RetryAfter reads how long a provider asks to be left alone: retry-after-ms,
// Retry-After in seconds or as an HTTP date (RFC 9110, 10.2.3), else the reset
// of the x-ratelimit limit that is used up
// (https://platform.openai.com/docs/guides/rate-limits). 0 means that nothing,
// or nothing readable, is said.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil {
		return boundWait(ms / 1000)
	}
	if v := strings.TrimSpace(h.Get("Retry-After")); v != "" {
		if s, err := strconv.ParseFloat(v, 64); err == nil {
			return boundWait(s)
		}
		if t, err := http.ParseTime(v); err == nil {
			return boundWait(t.Sub(now).Seconds())
		}
	}
	var wait time.Duration
	for _, what := range []string{"Requests", "Tokens"} {
		if h.Get("X-Ratelimit-Remaining-"+what) != "0" {
			continue
		}
		if d, err := time.ParseDuration(h.Get("X-Ratelimit-Reset-" + what)); err == nil {
			wait = max(wait, boundWait(d.Seconds()))
		}
	}
	if wait > 0 {
		return wait
	}
	// OpenRouter says when the window ends, in milliseconds since 1970.
	if h.Get("X-Ratelimit-Remaining") == "0" {
		if ms, err := strconv.ParseInt(h.Get("X-Ratelimit-Reset"), 10, 64); err == nil {
			return boundWait(time.UnixMilli(ms).Sub(now).Seconds())
		}
	}
	return 0
}

// boundWait turns seconds into a duration of 0 to maxRetryAfter; NaN gives 0.
func boundWait(seconds float64) time.Duration {
	switch {
	case !(seconds > 0):
		return 0
	case seconds > maxRetryAfter.Seconds():
		return maxRetryAfter
	}
	return time.Duration(seconds * float64(time.Second))
}

// keyLike matches what providers' keys look like, also half masked as some
// echo them.
var keyLike = lazyregexp.New(`(?i)\b(?:sk|pk|rk|gsk|xai|hf|nvapi|AIza|key)[-_][A-Za-z0-9_\-*.]{6,}|\bAIza[A-Za-z0-9_\-]{20,}|\bBearer\s+[A-Za-z0-9_\-.*~+/=]{6,}|\beyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-.]+`)

// Scrub makes a provider's text fit for an error: the secrets and whatever
// looks like a key are replaced by <secret>, white space is folded, and no
// more than limit bytes are kept.
func Scrub(text string, limit int, secrets ...string) string {
	text = bound(text, 64<<10)
	for _, s := range secrets {
		if len(s) >= 4 {
			text = strings.ReplaceAll(text, s, "<secret>")
		}
	}
	text = keyLike.ReplaceAllString(text, "<secret>")
	return bound(strings.Join(strings.Fields(strings.ToValidUTF8(text, "�")), " "), limit)
}

// bound cuts text to at most limit bytes, between runes.
func bound(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	const dots = "…"
	cut := max(limit-len(dots), 0)
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + dots
}

// Wait says a duration as a person would: "40 s", "12 min", "3 h 5 min".
func Wait(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return strconv.Itoa(int((d+time.Second-1)/time.Second)) + " s"
	case d < time.Hour:
		return strconv.Itoa(int((d+time.Minute-1)/time.Minute)) + " min"
	}
	m := int((d + time.Minute - 1) / time.Minute)
	if m%60 == 0 {
		return strconv.Itoa(m/60) + " h"
	}
	return strconv.Itoa(m/60) + " h " + strconv.Itoa(m%60) + " min"
}
