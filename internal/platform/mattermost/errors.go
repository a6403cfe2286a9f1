package mattermost

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"hermes/internal/platform"
	"hermes/internal/platform/clean"
	"hermes/internal/platform/settings"
	"hermes/internal/secret"
)

// Codes that the adapter itself acts on.
const (
	codeRoot    = "mattermost_thread"
	codeAbsent  = "mattermost_absent"
	codeUnknown = "mattermost_unknown"
)

// classify turns a request that did not succeed into what the centre must know.
func (a *Adapter) classify(c *call) *platform.Error {
	if c.Status == 0 || c.OK() {
		return a.unanswered(c)
	}
	said := a.scrub(c.said())
	e := &platform.Error{
		Kind: platform.GiveUp, Code: "mattermost_" + strconv.Itoa(c.Status),
		Reason: "Mattermost refused " + c.what + ": " + said,
	}
	switch {
	case c.Status == http.StatusTooManyRequests:
		// The limit binds the account or the address, never one channel.
		e.Kind, e.Global, e.RetryAfter = platform.Retry, true, c.retryAfter()
		e.Reason = "Mattermost's rate limit asks for a pause of " + e.RetryAfter.String()
	case c.Status == http.StatusNotImplemented && c.isJSON:
		e.Reason = "the server has switched that off: " + said
	case c.Status >= 500:
		e.Kind, e.Uncertain = platform.Retry, true
		e.Reason = "Mattermost has a fault of its own (" + said + "): it is tried again"
	case c.Status >= 300 && c.Status < 400:
		e.Kind = platform.Retry
		e.Reason = "the Mattermost server is at another address: set MATTERMOST_URL to the one that the browser shows in the end (https in place of http, perhaps)"
	case c.Status == http.StatusRequestEntityTooLarge:
		e.Code, e.Reason = "mattermost_file", "Mattermost refused the file: it is larger than the server allows"
	case !c.isJSON && c.Status != http.StatusUnauthorized:
		return notMattermost(c.Status)
	case c.Status == http.StatusUnauthorized && strings.Contains(c.reply.ID, "mfa"):
		e.Kind = platform.BadCredentials
		e.Reason = "the server wants a second factor of this account: use the token of a bot account (Integrations → Bot Accounts)"
	case c.Status == http.StatusUnauthorized:
		e.Kind = platform.BadCredentials
		e.Reason = "Mattermost does not know the token" + settings.Origin(a.cfg.TokenOrigin) + ": it was revoked, has expired or was copied wrongly, or the account is deactivated; make a new one (Integrations → Bot Accounts) and put it into .env"
	case c.Status == http.StatusForbidden:
		e.Code, e.Reason = "mattermost_rights", "the bot may not do that there ("+said+"): add it to the team and the channel, or give it the right"
	case c.Status == http.StatusNotFound:
		e.Code, e.Reason = codeAbsent, "that does not exist on the server, or the bot cannot see it ("+said+"): check the id, and add the bot to the channel"
	default:
		badRequest(e, c.reply.ID)
	}
	return e
}

// notMattermost is the failure of whatever answers without being the API.
func notMattermost(status int) *platform.Error {
	return &platform.Error{Kind: platform.Retry, Code: "mattermost_" + strconv.Itoa(status),
		Reason: "what answers at the server's address is no Mattermost (HTTP " + strconv.Itoa(status) + "): check MATTERMOST_URL and any proxy"}
}

// badRequest tells refusals of a request by their ids, which are stable where
// the texts are translated.
func badRequest(e *platform.Error, id string) {
	for _, r := range []struct{ part, code, reason string }{
		{"root_id", codeRoot, "the thread does not exist any more"},
		{"message_length", "mattermost_length", "the message is longer than the server allows"},
		{"can_not_post_to_deleted", "mattermost_archived", "the channel is archived: unarchive it, or choose another"},
		{"town_square_read_only", "mattermost_rights", "the channel is read-only for the bot"},
		{"file_too_large", "mattermost_file", "the file is larger than the server allows"},
		{"too_large", "mattermost_file", "the file is larger than the server allows"},
	} {
		if strings.Contains(id, r.part) {
			e.Code, e.Reason = r.code, r.reason
			return
		}
	}
}

// unanswered classifies a request that got no usable answer.
func (a *Adapter) unanswered(c *call) *platform.Error {
	e := &platform.Error{
		Kind: platform.Retry, Code: "mattermost_unreachable", Cause: a.scrubError(c.Err), Uncertain: c.Wrote(),
		Reason: "Mattermost could not be reached: it is tried again",
	}
	switch {
	case c.OK() && c.Err != nil && !c.isJSON && c.Header.Get("Content-Type") != "application/json":
		uncertain := e.Uncertain
		e = notMattermost(c.Status)
		e.Uncertain = uncertain
	case e.Uncertain:
		e.Code = codeUnknown
		e.Reason = "the connection to Mattermost broke before it answered " + c.what + ", which may have been carried out"
		if errors.Is(c.Err, context.DeadlineExceeded) {
			e.Reason = "Mattermost did not answer " + c.what + " in time; it may have been carried out"
		}
	case errors.Is(c.Err, context.Canceled):
		e.Code, e.Reason = "mattermost_stopped", "stopped before "+c.what+" was sent"
	}
	return e
}

// said is what the server says of its refusal, bounded.
func (c *call) said() string {
	if c.isJSON && c.reply.Message != "" {
		return clean.Clip(clean.Text(c.reply.Message), 300)
	}
	return http.StatusText(c.Status)
}

// retryAfter is the pause that a 429 asks for: Retry-After or, as the server's
// own limiter says it, the seconds until X-Ratelimit-Reset
// (https://api.mattermost.com/#tag/rate-limiting).
func (c *call) retryAfter() time.Duration {
	for _, name := range []string{"Retry-After", "X-Ratelimit-Reset"} {
		n, err := strconv.ParseInt(c.Header.Get(name), 10, 64)
		if err == nil && n > 0 && n < 24*60*60 { // some proxies write an instant
			return time.Duration(n) * time.Second
		}
	}
	return time.Second
}

// harmless says of a request that only reads what classify says of a send: it
// repeats no harm, so its outcome is never uncertain.
func harmless(e *platform.Error, what string) *platform.Error { return e.Harmless(codeUnknown, what) }

// scrub takes the token out of a text.
func (a *Adapter) scrub(s string) string { return secret.Hide(s, a.cfg.Token) }

// scrubError takes the token out of an error's text.
func (a *Adapter) scrubError(err error) error { return secret.HideIn(err, a.cfg.Token) }
