package login

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/secret"
)

// Service is where a provider signs people in: the device flow of RFC 8628 and
// the renewal of RFC 6749, section 6.
type Service struct {
	DeviceURL, TokenURL, ClientID, Scope string

	BaseURL string // where its models are served
	PKCE    bool   // RFC 7636: the device flow proves that one program did both steps
}

// ServiceOf gives what is known of a provider's sign-in.
func ServiceOf(provider string) (Service, bool) {
	switch provider {
	case "nous":
		return Service{DeviceURL: "https://portal.nousresearch.com/api/oauth/device/code", TokenURL: "https://portal.nousresearch.com/api/oauth/token",
			ClientID: "hermes-cli", Scope: "inference:invoke", BaseURL: "https://inference-api.nousresearch.com/v1"}, true
	case "qwen-oauth":
		return Service{DeviceURL: "https://chat.qwen.ai/api/v1/oauth2/device/code", TokenURL: "https://chat.qwen.ai/api/v1/oauth2/token",
			ClientID: "f0304373b74a44d2b584a3fb70ca9e56", Scope: "openid profile email model.completion", BaseURL: "https://portal.qwen.ai/v1", PKCE: true}, true
	}
	return Service{}, false
}

// Limits of one request to a sign-in service.
const (
	requestLimit = 20 * time.Second
	maxAnswer    = 1 << 20 // bytes
)

// answer is what the endpoints give, errors included.
type answer struct {
	Access   string  `json:"access_token"`
	Refresh  string  `json:"refresh_token"`
	Seconds  float64 `json:"expires_in"`
	Resource string  `json:"resource_url"` // of some: the host that serves this account

	DeviceCode string  `json:"device_code"`
	UserCode   string  `json:"user_code"`
	Verify     string  `json:"verification_uri"`
	VerifyAll  string  `json:"verification_uri_complete"`
	Interval   float64 `json:"interval"`

	Error       string `json:"error"`
	Description string `json:"error_description"`

	status int
}

// unsent is the failure of a request that certainly did not reach the service.
type unsent struct{ error }

func (u unsent) Unwrap() error { return u.error }

// post sends a form and reads the answer, whatever its status. No redirect is
// followed: a token goes to nobody else.
func post(ctx context.Context, client *http.Client, to string, form url.Values) (answer, error) {
	if err := safe(to); err != nil {
		return answer{}, unsent{err}
	}
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, unsent{domain.E(domain.Invalid, nil, "%s is no address of a sign-in service", to)}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "hermes")
	once := *client
	once.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := once.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return answer{}, unsent{domain.E(domain.Unavailable, op, "%s could not be reached from here", req.URL.Host)}
		}
		return answer{}, domain.E(domain.Unavailable, nil, "%s did not answer", req.URL.Host)
	}
	defer resp.Body.Close()
	var a answer
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer{}, domain.E(domain.Unavailable, nil, "the answer of %s broke off", req.URL.Host)
	}
	a.status = resp.StatusCode
	if json.Unmarshal(data, &a) != nil && resp.StatusCode == http.StatusOK {
		return answer{}, domain.E(domain.Unavailable, nil, "%s answered with something that is no sign-in; check the address", req.URL.Host)
	}
	return a, nil
}

// safe holds that a token is sent over TLS, or to this machine. Errors: Invalid.
func safe(to string) error {
	u, err := url.Parse(to)
	if err != nil || u.Host == "" {
		return domain.E(domain.Invalid, nil, "%q is no address of a sign-in service", to)
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()) {
		return nil
	}
	return domain.E(domain.Invalid, nil, "%s is not https, so no token is sent there", u.Host)
}

// into lays what was given over a credential.
func (a answer) into(c Credential, now time.Time) Credential {
	c.Access = secret.Value(a.Access)
	if a.Refresh != "" {
		c.Refresh = secret.Value(a.Refresh)
	}
	c.Expires = time.Time{}
	if a.Seconds > 0 {
		c.Expires = now.Add(time.Duration(a.Seconds * float64(time.Second)))
	}
	if a.Resource != "" {
		host := strings.TrimPrefix(strings.TrimPrefix(a.Resource, "https://"), "http://")
		c.BaseURL = "https://" + strings.TrimSuffix(strings.TrimSuffix(host, "/"), "/v1") + "/v1"
	}
	c.Failure, c.FailedAt, c.CutShort = "", time.Time{}, time.Time{}
	return c
}

// Renew gives a credential with a token that is good, and writes it before it
// returns. stale is the token that is of no use any more: where the file holds
// another by now, somebody else has renewed it, and that one is given; an empty
// one renews in any case. Errors: Unauthenticated, when nothing but a new login
// helps; Unavailable, when the service could not be asked; NotFound, Config,
// StorageFull.
func (s *Store) Renew(ctx context.Context, client *http.Client, c Credential, stale secret.Value) (Credential, error) {
	var out Credential
	err := s.change(ctx, func(d document) error {
		e := d.find(c.Provider, c.ID)
		if e == nil {
			return domain.E(domain.NotFound, nil, "the login %q of %s is gone; log in again: `hermes auth add %s --type oauth`", c.Label, c.Provider, c.Provider)
		}
		now := read(c.Provider, e)
		if stale.IsSet() && now.Access != stale && !now.Expired(s.now()) {
			out = now
			return nil
		}
		if !now.Refresh.IsSet() || now.TokenURL == "" {
			return domain.E(domain.Unauthenticated, nil, "the login %q of %s cannot be renewed; log in again: `hermes auth add %s --type oauth`", now.Label, now.Provider, now.Provider)
		}
		// The note is written first: it proves that the file can be written, and
		// tells a later renewal what became of this one.
		e["refresh_started_at"] = s.now().UTC().Format(time.RFC3339Nano)
		if err := s.save(d); err != nil {
			return err
		}
		a, err := post(ctx, client, now.TokenURL, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {now.Refresh.Reveal()}, "client_id": {now.ClientID}})
		if err == nil && a.Access != "" {
			out = a.into(now, s.now())
			put(e, out)
			return s.save(d)
		}
		return s.notRenewed(d, e, now, a, err)
	})
	return out, err
}

// notRenewed writes down why a renewal failed, and says it.
func (s *Store) notRenewed(d document, e map[string]any, c Credential, a answer, err error) error {
	if _, ok := errors.AsType[unsent](err); err != nil && !ok {
		return err // the note stays: the token may be used up
	}
	delete(e, "refresh_started_at")
	if !c.CutShort.IsZero() {
		e["refresh_started_at"] = c.CutShort.UTC().Format(time.RFC3339Nano)
	}
	host := c.TokenURL
	if u, perr := url.Parse(c.TokenURL); perr == nil {
		host = u.Host
	}
	if err != nil || a.status >= http.StatusInternalServerError || a.status == http.StatusTooManyRequests {
		if serr := s.save(d); serr != nil {
			return serr
		}
		if err != nil {
			return err
		}
		return domain.E(domain.Unavailable, nil, "%s cannot renew logins just now (HTTP %d)", host, a.status)
	}
	again := fmt.Sprintf("log in again: `hermes auth add %s --type oauth`", c.Provider)
	why := orElse(a.Error, fmt.Sprintf("http_%d", a.status))
	var message string
	switch {
	case a.Error == "invalid_grant" && !c.CutShort.IsZero():
		why = "invalid_grant: a renewal was cut short"
		message = fmt.Sprintf("the login %q of %s is used up: a renewal that began %s was cut short, and its answer is lost; %s", c.Label, c.Provider, c.CutShort.UTC().Format(time.RFC3339), again)
	case a.Error == "invalid_grant":
		message = fmt.Sprintf("%s refuses to renew the login %q: it was revoked, or another program has used its refresh token, which is good for one use; %s", host, c.Label, again)
	default:
		message = fmt.Sprintf("%s refuses to renew the login %q (%s); %s", host, c.Label, why, again)
	}
	delete(e, "refresh_started_at")
	e["last_error_reason"], e["last_error_at"] = why, s.now().UTC().Format(time.RFC3339)
	if err := s.save(d); err != nil {
		return err
	}
	return domain.E(domain.Unauthenticated, nil, "%s", message)
}

// Device is a sign-in that waits for a person.
type Device struct {
	URL, Code string // to be opened, and to be typed there
	Ends      time.Time

	deviceCode, verifier string
	every                time.Duration
}

// Begin asks a service for a code that a person confirms in a browser anywhere.
// Errors: Unavailable, Invalid.
func (v Service) Begin(ctx context.Context, client *http.Client, now time.Time) (Device, error) {
	form := url.Values{"client_id": {v.ClientID}}
	if v.Scope != "" {
		form.Set("scope", v.Scope)
	}
	var dev Device
	if v.PKCE {
		raw := make([]byte, 32)
		_, _ = rand.Read(raw) // it never fails: crypto/rand
		dev.verifier = base64.RawURLEncoding.EncodeToString(raw)
		sum := sha256.Sum256([]byte(dev.verifier))
		form.Set("code_challenge", base64.RawURLEncoding.EncodeToString(sum[:]))
		form.Set("code_challenge_method", "S256")
	}
	a, err := post(ctx, client, v.DeviceURL, form)
	if err != nil {
		return Device{}, err
	}
	if a.DeviceCode == "" || a.UserCode == "" || a.Verify == "" {
		return Device{}, domain.E(domain.Unavailable, nil, "the sign-in service gave no code (HTTP %d %s)", a.status, a.Error)
	}
	const usual, shortest = 5 * time.Second, 10 * time.Millisecond // RFC 8628, section 3.2
	dev.URL, dev.Code, dev.deviceCode, dev.every = orElse(a.VerifyAll, a.Verify), a.UserCode, a.DeviceCode, usual
	if a.Interval > 0 {
		dev.every = max(time.Duration(a.Interval*float64(time.Second)), shortest)
	}
	dev.Ends = now.Add(15 * time.Minute)
	if a.Seconds > 0 {
		dev.Ends = now.Add(time.Duration(a.Seconds * float64(time.Second)))
	}
	return dev, nil
}

// Wait asks until the person has confirmed. wait is called between two
// questions. Errors: Forbidden, when the person refused; Timeout; Unavailable.
func (v Service) Wait(ctx context.Context, client *http.Client, provider string, dev Device, now func() time.Time, wait func(context.Context, time.Duration) error) (Credential, error) {
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {dev.deviceCode}, "client_id": {v.ClientID}}
	if dev.verifier != "" {
		form.Set("code_verifier", dev.verifier)
	}
	every := dev.every
	for now().Before(dev.Ends) {
		if err := wait(ctx, every); err != nil {
			return Credential{}, err
		}
		a, err := post(ctx, client, v.TokenURL, form)
		switch {
		case err != nil && ctx.Err() != nil:
			return Credential{}, ctx.Err()
		case err != nil, a.Error == "authorization_pending": // a broken connection is asked again, RFC 8628 section 3.5
		case a.Error == "slow_down":
			every += dev.every
		case a.Error == "access_denied":
			return Credential{}, domain.E(domain.Forbidden, nil, "the sign-in was refused in the browser; nothing was changed")
		case a.Access != "":
			c := a.into(Credential{Provider: provider, Type: OAuth, TokenURL: v.TokenURL, ClientID: v.ClientID, BaseURL: v.BaseURL}, now())
			return c, nil
		case a.Error == "expired_token":
			dev.Ends = now()
		default:
			return Credential{}, domain.E(domain.Unavailable, nil, "the sign-in service answered %s (HTTP %d); nothing was changed", orElse(a.Error, "nothing that is known"), a.status)
		}
	}
	return Credential{}, domain.E(domain.Timeout, nil, "nobody confirmed the code in time; nothing was changed. Begin again")
}
