package matrix

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
	codeAbsent  = "matrix_absent"
	codeRights  = "matrix_rights"
	codeUnknown = "matrix_unknown"
	codeLarge   = "matrix_length"
	codeToken   = "matrix_token"
)

// forgotten tells whether the homeserver does not know the token (any more).
func (c *call) forgotten() bool {
	return c.isJSON && (c.reply.Code == "M_UNKNOWN_TOKEN" || c.reply.Code == "M_MISSING_TOKEN")
}

// refusal is what an error code means.
type refusal struct {
	kind   platform.Kind
	code   string
	reason string
}

// refusals are the codes that need more than to be repeated in words,
// https://spec.matrix.org/v1.15/client-server-api/#common-error-codes.
var refusals = map[string]refusal{
	"M_FORBIDDEN":                {platform.GiveUp, codeRights, "the account may not do that there: invite it into the room, and give it the power level that the room asks for"},
	"M_NOT_FOUND":                {platform.GiveUp, codeAbsent, "that does not exist on the homeserver, or the account cannot see it: check the id, and invite the account into the room"},
	"M_NOT_JOINED":               {platform.GiveUp, codeRights, "the account is not in the room: invite it there"},
	"M_TOO_LARGE":                {platform.GiveUp, codeLarge, "that is larger than the homeserver takes"},
	"M_USER_DEACTIVATED":         {platform.BadCredentials, "matrix_deactivated", "the account was deactivated: use another, or have the homeserver's administrator bring it back"},
	"M_USER_LOCKED":              {platform.BadCredentials, "matrix_locked", "the account is locked: ask the homeserver's administrator"},
	"M_USER_SUSPENDED":           {platform.GiveUp, "matrix_suspended", "the account is suspended: ask the homeserver's administrator"},
	"M_RESOURCE_LIMIT_EXCEEDED":  {platform.Retry, "matrix_resources", "the homeserver has reached a limit of its own and is not to be used at the moment"},
	"M_UNRECOGNIZED":             {platform.Retry, "matrix_unrecognized", "the homeserver does not know this request: check MATRIX_HOMESERVER, which must be the address of a homeserver that speaks version 1.1 of the specification or later"},
	"M_UNSUPPORTED_ROOM_VERSION": {platform.GiveUp, codeRights, "the homeserver does not know the room's version"},
	"M_GUEST_ACCESS_FORBIDDEN":   {platform.GiveUp, codeRights, "the account is a guest: use one that is registered"},
}

// classify turns a request that did not succeed into what the centre must know.
func (a *Adapter) classify(c *call) *platform.Error {
	if c.Status == 0 || c.OK() {
		return a.unanswered(c)
	}
	if c.Status == http.StatusTooManyRequests || c.isJSON && c.reply.Code == "M_LIMIT_EXCEEDED" {
		// The limit binds the account, never one room.
		e := &platform.Error{Kind: platform.Retry, Code: "matrix_limit", Global: true, RetryAfter: c.retryAfter()}
		e.Reason = "the homeserver's rate limit asks for a pause of " + e.RetryAfter.Round(100*time.Millisecond).String()
		return e
	}
	if !c.isJSON {
		return notJSON(c)
	}
	said := a.scrub(clean.Clip(clean.Text(strings.TrimSpace(c.reply.Code+" "+c.reply.Message)), 200))
	e := &platform.Error{Kind: platform.GiveUp, Code: "matrix_" + strconv.Itoa(c.Status), Reason: "the homeserver refused " + c.what + ": " + said}
	switch r, known := refusals[c.reply.Code]; {
	case c.forgotten():
		e.Kind, e.Code = platform.BadCredentials, codeToken
		e.Reason = "the homeserver does not know MATRIX_ACCESS_TOKEN" + settings.Origin(a.cfg.TokenOrigin) + ": the device was logged out, or the token was copied wrongly; make a new one (" + whereToken + ")"
		if a.canLogIn() {
			e.Reason = "the homeserver does not know the token that it gave for MATRIX_PASSWORD"
		}
	case c.reply.Code == "M_CONSENT_NOT_GIVEN":
		e.Code = "matrix_consent"
		e.Reason = "the account has to accept the homeserver's terms first: log in to it with a client"
		if strings.HasPrefix(c.reply.Consent, "https://") {
			e.Reason += ", or open " + a.scrub(clean.Clip(clean.Text(c.reply.Consent), 200))
		}
	case known:
		e.Kind, e.Code, e.Reason = r.kind, r.code, r.reason+" ("+said+")"
	case c.Status >= 500:
		e.Kind, e.Uncertain = platform.Retry, true
		e.Reason = "the homeserver has a fault of its own (" + said + "): it is tried again"
	case c.Status == http.StatusUnauthorized:
		e.Kind, e.Code, e.Reason = platform.BadCredentials, codeToken, "the homeserver refuses the credentials ("+said+")"
	}
	return e
}

// notJSON classifies a refusal that is not in the API's form: a proxy's.
func notJSON(c *call) *platform.Error {
	switch {
	case c.Status == http.StatusRequestEntityTooLarge:
		return &platform.Error{Kind: platform.GiveUp, Code: codeLarge, Reason: "that is larger than the proxy before the homeserver lets through"}
	case c.Status >= 300 && c.Status < 400:
		return &platform.Error{Kind: platform.Retry, Code: "matrix_moved", Reason: "the homeserver is at another address: set MATRIX_HOMESERVER to the one that clients are sent to (https in place of http, perhaps)"}
	case c.Status >= 500:
		return &platform.Error{Kind: platform.Retry, Code: "matrix_" + strconv.Itoa(c.Status), Uncertain: true,
			Reason: "the homeserver, or the proxy before it, has a fault of its own (HTTP " + strconv.Itoa(c.Status) + "): it is tried again"}
	}
	return notMatrix(c.Status)
}

// notMatrix is the failure of whatever answers without being the API.
func notMatrix(status int) *platform.Error {
	return &platform.Error{Kind: platform.Retry, Code: "matrix_garbled",
		Reason: "what answers at the homeserver's address is none (HTTP " + strconv.Itoa(status) + "): check MATRIX_HOMESERVER (it may differ from the server in user ids; https://SERVER/.well-known/matrix/client names it) and any proxy"}
}

// unanswered classifies a request that got no usable answer.
func (a *Adapter) unanswered(c *call) *platform.Error {
	e := &platform.Error{
		Kind: platform.Retry, Code: "matrix_unreachable", Cause: a.scrubError(c.Err), Uncertain: c.Wrote(),
		Reason: "the homeserver could not be reached: it is tried again",
	}
	switch {
	case c.OK() && !c.isJSON && c.Err != nil && !errors.Is(c.Err, context.DeadlineExceeded) && strings.HasPrefix(c.Err.Error(), "the answer"):
		uncertain := e.Uncertain
		e = notMatrix(c.Status)
		e.Uncertain = uncertain
	case e.Uncertain:
		e.Code = codeUnknown
		e.Reason = "the connection to the homeserver broke before it answered " + c.what + ", which may have been carried out"
		if errors.Is(c.Err, context.DeadlineExceeded) {
			e.Reason = "the homeserver did not answer " + c.what + " in time; it may have been carried out"
		}
	case errors.Is(c.Err, context.Canceled):
		e.Code, e.Reason = "matrix_stopped", "stopped before "+c.what+" was sent"
	}
	return e
}

// retryAfter is the pause that a refusal asks for: by the header, or by the
// field that it replaces, https://spec.matrix.org/v1.15/client-server-api/#rate-limiting.
func (c *call) retryAfter() time.Duration {
	const most = 24 * time.Hour
	if n, err := strconv.ParseInt(c.Header.Get("Retry-After"), 10, 32); err == nil && n > 0 {
		return min(time.Duration(n)*time.Second, most)
	}
	if ms := c.reply.RetryAfter; ms > 0 && ms < int64(most/time.Millisecond) {
		return time.Duration(ms) * time.Millisecond
	}
	return time.Second
}

// harmless says of a request that only reads, or that the homeserver carries out
// once however often it is made, what classify says of a send: its outcome is
// never uncertain.
func harmless(e *platform.Error, what string) *platform.Error { return e.Harmless(codeUnknown, what) }

// scrub takes the credentials out of a text.
func (a *Adapter) scrub(s string) string {
	return secret.Hide(s, a.cfg.Token, a.cfg.Password, a.session.get())
}

// scrubError takes the credentials out of an error's text.
func (a *Adapter) scrubError(err error) error {
	return secret.HideIn(err, a.cfg.Token, a.cfg.Password, a.session.get())
}
