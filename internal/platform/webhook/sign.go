package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"hermes/internal/lazyregexp"
	"hermes/internal/secret"
)

// standardPrefix marks a Standard Webhooks secret, whose rest is base64.
const standardPrefix = "whsec_"

// Why a call is not let in. The caller is told only that its signature is not
// right; the log and the status tell which.
var (
	errUnsigned = errors.New("it is not signed")
	errKey      = errors.New("its signature does not fit: another secret, or a body that was changed on its way")
	errClock    = errors.New("its timestamp is too far from this machine's clock: it is a repetition, or a clock is wrong")
	errNoTime   = errors.New("its signature covers no time, and the route requires one")
	errBrowser  = errors.New("it comes from a browser's page, and the route asks for no secret")
)

// verifier checks calls of one route.
type verifier struct {
	keys      []secret.Value
	timestamp bool // only signatures that cover a time
	tolerance time.Duration
}

// check tells whether a call may come in. Every key is tried, in constant time
// each. A call with several signatures is judged by the first kind that it has,
// the strictest first, so that a weaker one cannot stand in for it.
func (v verifier) check(h http.Header, body []byte, now time.Time) error {
	if len(v.keys) == 1 && v.keys[0].Reveal() == NoAuth {
		// Pages that a browser of this machine shows can call it as well.
		if h.Get("Origin") != "" || h.Get("Sec-Fetch-Site") != "" {
			return errBrowser
		}
		return nil
	}
	if id, at, sigs, ok := standardHeaders(h); ok {
		return v.standard(id, at, sigs, body, now)
	}
	if v.timestamp {
		return errNoTime
	}
	if s := h.Get("X-Hub-Signature-256"); s != "" {
		return v.plain(s, body)
	}
	if s := h.Get("X-Webhook-Signature"); s != "" {
		return v.plain(s, body)
	}
	if s := h.Get("X-Gitlab-Token"); s != "" {
		return v.any(func(key []byte) bool {
			// Digests are compared, since comparing shows the length.
			a, b := sha256.Sum256(key), sha256.Sum256([]byte(s))
			return subtle.ConstantTimeCompare(a[:], b[:]) == 1
		})
	}
	return errUnsigned
}

// any tells whether a key fits; each is tried, whichever does.
func (v verifier) any(fits func(key []byte) bool) error {
	found := false
	for _, k := range v.keys {
		if k.IsSet() && k.Reveal() != NoAuth && fits([]byte(k.Reveal())) {
			found = true
		}
	}
	if !found {
		return errKey
	}
	return nil
}

// standardHeaders finds the three headers of Standard Webhooks, or of the
// service that they come from.
func standardHeaders(h http.Header) (id, at, sigs string, ok bool) {
	for _, family := range []string{"Webhook-", "Svix-"} {
		id, at, sigs = h.Get(family+"Id"), h.Get(family+"Timestamp"), h.Get(family+"Signature")
		if sigs != "" {
			return id, at, sigs, true
		}
	}
	return "", "", "", false
}

// standard checks a signature over id, timestamp and body.
func (v verifier) standard(id, at, sigs string, body []byte, now time.Time) error {
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil || id == "" || len(id) > maxHeaderID {
		return errNoTime
	}
	err = v.any(func(key []byte) bool {
		want := mac(standardKey(key), []byte(id+"."+at+"."), body)
		fits := false
		for one := range strings.FieldsSeq(sigs) {
			sig, isV1 := strings.CutPrefix(one, "v1,")
			have, err := base64.StdEncoding.DecodeString(sig)
			if isV1 && err == nil && hmac.Equal(have, want) {
				fits = true
			}
		}
		return fits
	})
	if err != nil {
		return err
	}
	if d := now.Sub(time.Unix(seconds, 0)); d > v.tolerance || d < -v.tolerance {
		return errClock
	}
	return nil
}

// standardKey is the key that a Standard Webhooks secret stands for.
func standardKey(s []byte) []byte {
	text, ok := strings.CutPrefix(string(s), standardPrefix)
	if !ok {
		return s
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return s
	}
	return key
}

// stampedBody is how the signed text of Standard Webhooks begins. As the body of
// a call whose signature covers the body alone it would be a recorded call.
var stampedBody = lazyregexp.New(`^[^\s{\["]{1,256}\.\d{9,12}\.`)

// plain checks a hexadecimal signature over the body, as GitHub makes it.
func (v verifier) plain(sig string, body []byte) error {
	have, err := hex.DecodeString(strings.TrimPrefix(strings.TrimSpace(sig), "sha256="))
	if err != nil || len(have) != sha256.Size {
		return errKey
	}
	if stampedBody.Match(body) {
		return errNoTime
	}
	return v.any(func(key []byte) bool { return hmac.Equal(have, mac(key, nil, body)) })
}

func mac(key, head, body []byte) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write(head)
	_, _ = h.Write(body)
	return h.Sum(nil)
}

// Sign adds the headers of Standard Webhooks to a request with this body: one
// signature a key, so that a receiver that has only the new or only the old one
// is served.
func Sign(h http.Header, id string, at time.Time, body []byte, keys []secret.Value) {
	stamp := strconv.FormatInt(at.Unix(), 10)
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", stamp)
	var sigs []string
	for _, k := range keys {
		if k.IsSet() && k.Reveal() != NoAuth {
			sum := mac(standardKey([]byte(k.Reveal())), []byte(id+"."+stamp+"."), body)
			sigs = append(sigs, "v1,"+base64.StdEncoding.EncodeToString(sum))
		}
	}
	if len(sigs) > 0 {
		h.Set("Webhook-Signature", strings.Join(sigs, " "))
	}
}
