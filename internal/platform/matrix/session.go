package matrix

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"hermes/internal/plain"
	"hermes/internal/platform"
	"hermes/internal/secret"
)

// session is the access token in force. One that a password was exchanged for is
// kept in a file, since a new login of the same device ends the token of the
// process before, which may still serve. Its methods are safe for concurrent use.
type session struct {
	file string

	mu     sync.Mutex
	value  secret.Value
	logins sync.Mutex // one login at a time
}

// stored is the content of the file.
type stored struct {
	Homeserver string `json:"homeserver"`
	User       string `json:"user"` // as configured
	Device     string `json:"device"`
	Token      string `json:"access_token"`
}

func (s *session) get() secret.Value {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value
}

func (s *session) set(v secret.Value) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value = v
}

// token gives the token in force, for which it logs in where there is none.
func (a *Adapter) token(ctx context.Context) (secret.Value, *platform.Error) {
	if v := a.session.get(); v.IsSet() {
		return v, nil
	}
	if e := a.renew(ctx, ""); e != nil {
		return "", e
	}
	return a.session.get(), nil
}

func (a *Adapter) canLogIn() bool { return !a.cfg.Token.IsSet() && a.cfg.Password.IsSet() }

// renew replaces a token that the homeserver does not know: by the one that
// another process has put into the file meanwhile, or by a new login.
func (a *Adapter) renew(ctx context.Context, dead secret.Value) *platform.Error {
	a.session.logins.Lock()
	defer a.session.logins.Unlock()
	if v := a.session.get(); v.IsSet() && v != dead {
		return nil
	}
	if v := a.loadToken(); v.IsSet() && v != dead {
		a.secrets(v.Reveal())
		a.session.set(v)
		return nil
	}
	v, e := a.logIn(ctx)
	if e != nil {
		return e
	}
	a.session.set(v)
	if err := a.keepToken(v); err != nil {
		a.log.Warn("the homeserver's token could not be kept; the next start logs in anew", "error", err)
	}
	return nil
}

// logIn exchanges the password for a token,
// https://spec.matrix.org/v1.15/client-server-api/#post_matrixclientv3login.
func (a *Adapter) logIn(ctx context.Context) (secret.Value, *platform.Error) {
	in := map[string]any{
		"type":                        "m.login.password",
		"identifier":                  map[string]string{"type": "m.id.user", "user": a.cfg.UserID},
		"password":                    a.cfg.Password.Reveal(),
		"initial_device_display_name": "hermes",
	}
	if a.session.file != "" { // else it is for a moment, and must not end the session of a process that serves
		in["device_id"] = a.cfg.DeviceID
	}
	var out struct {
		Token  string `json:"access_token"`
		User   string `json:"user_id"`
		Device string `json:"device_id"`
	}
	c, e := a.once(ctx, request{method: http.MethodPost, path: "/v3/login", in: in, public: true}, &out)
	switch {
	case e != nil && c.isJSON && c.Status == http.StatusForbidden && c.reply.Code != "M_USER_DEACTIVATED":
		return "", &platform.Error{Kind: platform.BadCredentials, Code: "matrix_login", Reason: "the homeserver refuses MATRIX_USER_ID with MATRIX_PASSWORD: correct them in .env"}
	case e != nil && c.isJSON && (c.reply.Code == "M_UNKNOWN" || c.reply.Code == "M_UNRECOGNIZED") && c.Status < 500:
		return "", &platform.Error{Kind: platform.BadCredentials, Code: "matrix_login", Reason: "the homeserver takes no passwords (single sign-on, perhaps): set MATRIX_ACCESS_TOKEN (" + whereToken + ")"}
	case e != nil:
		return "", harmless(e, "the homeserver could not be asked to log the account in")
	case out.Token == "":
		return "", notMatrix(http.StatusOK)
	}
	a.secrets(out.Token)
	a.log.Info("logged in to the homeserver", "user", out.User, "device", out.Device)
	return secret.Value(out.Token), nil
}

// logOut ends a session that was begun for a moment only,
// https://spec.matrix.org/v1.15/client-server-api/#post_matrixclientv3logout.
func (a *Adapter) logOut(ctx context.Context) {
	if a.session.file != "" || !a.canLogIn() || !a.session.get().IsSet() {
		return
	}
	if _, e := a.once(ctx, request{method: http.MethodPost, path: "/v3/logout", in: struct{}{}}, nil); e != nil {
		a.log.Debug("the session could not be ended", "code", e.Code)
	}
	a.session.set("")
}

// loadToken reads the token that is kept of this account; "" when there is none.
func (a *Adapter) loadToken() secret.Value {
	if a.session.file == "" {
		return ""
	}
	b, err := plain.Read(a.session.file)
	if err != nil {
		return ""
	}
	var s stored
	if json.Unmarshal(b, &s) != nil || s.Homeserver != a.cfg.Homeserver || s.User != a.cfg.UserID || s.Device != a.cfg.DeviceID {
		return ""
	}
	return secret.Value(s.Token)
}

// keepToken writes the token, whole or not at all.
func (a *Adapter) keepToken(v secret.Value) error {
	if a.session.file == "" {
		return nil
	}
	b, err := json.Marshal(stored{Homeserver: a.cfg.Homeserver, User: a.cfg.UserID, Device: a.cfg.DeviceID, Token: v.Reveal()})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(a.session.file), ".matrix-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it is gone once it has its name
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), a.session.file)
}
