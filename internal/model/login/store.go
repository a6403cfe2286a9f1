// Package login keeps what a provider of models is signed in with: pools of API
// keys, and OAuth logins that are renewed. They stand in auth.json of a profile,
// or of the root, whose logins every profile may use.
//
// A refresh token is good for one use. So a renewal holds a lock that other
// processes of this machine respect (auth.lock beside the file), reads the file
// again under it, notes that it begins, and writes what it was given before
// anybody uses it.
package login

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
	"hermes/internal/secret"
)

// The types of credentials.
const (
	APIKey = "api_key"
	OAuth  = "oauth"
)

// Credential is one way to prove oneself to a provider. It is a value.
type Credential struct {
	Provider string
	ID       string // names it within the provider
	Label    string // for people
	Type     string // APIKey or OAuth
	Priority int    // the smallest is used first

	Access  secret.Value // the key, or the token of the day
	Refresh secret.Value // renews Access; good for one use
	Expires time.Time    // of Access; zero when it does not say

	BaseURL  string // where the provider says that it serves; "" means its usual address
	TokenURL string // renews; "" for what cannot be renewed
	ClientID string

	Failure  string    // why it was refused last; "" when it was not
	FailedAt time.Time // of Failure
	// CutShort is when a renewal began that never ended: the process died, or
	// the network broke, so that the refresh token may be used up.
	CutShort time.Time
}

// Expired tells whether the token of the day is of no use at an instant.
func (c Credential) Expired(now time.Time) bool { return !c.Expires.IsZero() && !now.Before(c.Expires) }

// Store is one auth.json. Its methods may be used by several goroutines and
// processes at once. What stands there for others is kept as it is.
type Store struct {
	path string
	now  func() time.Time
}

// Open gives the store in a file, which need not exist. now may be nil.
func Open(path string, now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	return &Store{path, now}
}

// Path is the file.
func (s *Store) Path() string { return s.path }

// document is the file as it stands, with what nobody here knows.
type document map[string]any

const maxFile = 4 << 20 // bytes of an auth.json

func (s *Store) load() (document, error) {
	info, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return document{"version": json.Number("1")}, nil
	}
	if err == nil && !info.Mode().IsRegular() { // a pipe would be waited for
		return nil, domain.E(domain.Config, nil, "%s is no plain file (%s), so no login is taken from it; move it away and log in again", s.path, info.Mode().Type())
	}
	if err == nil && info.Size() > maxFile {
		return nil, domain.E(domain.Config, nil, "%s is larger than %d MiB, so it was not read", s.path, maxFile>>20)
	}
	data, err := plain.Read(s.path)
	if err != nil {
		return nil, domain.E(domain.Config, err, "%s cannot be read, so its logins are unknown; check its owner and mode", s.path)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var d document
	if err := dec.Decode(&d); err != nil || d == nil {
		return nil, domain.E(domain.Config, err, "%s is not the JSON that was expected, so no login is taken from it; move it away and log in again", s.path)
	}
	return d, nil
}

func (s *Store) save(d document) error {
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return domain.E(domain.Unavailable, err, "the folder of %s cannot be made", s.path)
	}
	return home.WriteAtomic(s.path, append(data, '\n'), 0o600)
}

// lockLimit is how long a change waits for another process, which may be in the
// middle of a renewal.
const lockLimit = 45 * time.Second

// change reads, changes and writes the file while no other process does.
// Errors: Config, Unavailable, StorageFull, and what edit answers.
func (s *Store) change(ctx context.Context, edit func(document) error) error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return domain.E(domain.Unavailable, err, "the folder of %s cannot be made", s.path)
	}
	lock := flock.New(filepath.Join(filepath.Dir(s.path), "auth.lock"), flock.SetPermissions(0o600), flock.SetFlag(plain.LockFlag))
	waiting, cancel := context.WithTimeout(ctx, lockLimit)
	defer cancel()
	if _, err := lock.TryLockContext(waiting, 20*time.Millisecond); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return domain.E(domain.Unavailable, err, "another process changes %s and does not end, so nothing was changed; try again", s.path)
	}
	defer lock.Unlock()
	d, err := s.load()
	if err != nil {
		return err
	}
	return edit(d)
}

// List gives the credentials of a provider, or of all for "", those that are
// used first at the front. Errors: Config.
func (s *Store) List(provider string) ([]Credential, error) {
	d, err := s.load()
	if err != nil {
		return nil, err
	}
	var out []Credential
	d.each(func(p string, e map[string]any) {
		if provider == "" || p == provider {
			if c := read(p, e); c.Access.IsSet() || c.Refresh.IsSet() {
				out = append(out, c)
			}
		}
	})
	slices.SortStableFunc(out, func(a, b Credential) int {
		if n := strings.Compare(a.Provider, b.Provider); n != 0 {
			return n
		}
		return a.Priority - b.Priority
	})
	return out, nil
}

// each visits every entry: the pools, and the logins by provider.
func (d document) each(visit func(provider string, e map[string]any)) {
	pool, _ := d["credential_pool"].(map[string]any)
	for provider, list := range pool {
		items, _ := list.([]any)
		for _, item := range items {
			if e, ok := item.(map[string]any); ok {
				visit(provider, e)
			}
		}
	}
	logins, _ := d["providers"].(map[string]any)
	for provider, item := range logins {
		if e, ok := item.(map[string]any); ok {
			if _, has := e["auth_type"]; !has {
				e["auth_type"] = OAuth
			}
			visit(provider, e)
		}
	}
}

// find gives the entry of a provider with an id.
func (d document) find(provider, id string) (found map[string]any) {
	d.each(func(p string, e map[string]any) {
		if p == provider && read(p, e).ID == id {
			found = e
		}
	})
	return found
}

// read makes a credential of an entry.
func read(provider string, e map[string]any) Credential {
	text := func(names ...string) string {
		for _, name := range names {
			if s, ok := e[name].(string); ok && s != "" {
				return s
			}
		}
		return ""
	}
	c := Credential{
		Provider: provider, ID: text("id"), Label: text("label"), Type: strings.ReplaceAll(text("auth_type"), "-", "_"),
		Access: secret.Value(text("access_token", "api_key")), Refresh: secret.Value(text("refresh_token")), Expires: instant(e["expires_at"]),
		BaseURL: text("base_url", "inference_base_url"), TokenURL: text("token_url"), ClientID: text("client_id"),
		Failure: text("last_error_reason", "last_error_message"), FailedAt: instant(e["last_error_at"]), CutShort: instant(e["refresh_started_at"]),
	}
	if n, ok := e["priority"].(json.Number); ok {
		i, _ := n.Int64()
		c.Priority = int(i)
	}
	if ms, ok := e["expires_at_ms"].(json.Number); ok && c.Expires.IsZero() {
		if i, err := ms.Int64(); err == nil && i > 0 {
			c.Expires = time.UnixMilli(i)
		}
	}
	if c.Type == "" {
		c.Type = APIKey
	}
	if c.ID == "" {
		c.ID = orElse(c.Label, "login")
	}
	if known, ok := ServiceOf(provider); ok && c.Type == OAuth {
		c.TokenURL, c.ClientID = orElse(c.TokenURL, known.TokenURL), orElse(c.ClientID, known.ClientID)
	}
	return c
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// instant reads a time as files of several origins write it: ISO 8601, or
// seconds since 1970.
func instant(v any) time.Time {
	switch v := v.(type) {
	case json.Number:
		if f, err := v.Float64(); err == nil && f > 0 {
			return time.UnixMilli(int64(f * 1000))
		}
	case string:
		if f, err := strconv.ParseFloat(v, 64); err == nil && f > 0 {
			return time.UnixMilli(int64(f * 1000))
		}
		for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999"} {
			if t, err := time.Parse(form, v); err == nil {
				return t
			}
		}
	}
	return time.Time{}
}

// Add puts a credential at the end of its provider's pool and gives its id. One
// with the same secret is replaced, so that adding twice changes nothing.
// Errors: Invalid, Config, Unavailable, StorageFull.
func (s *Store) Add(ctx context.Context, c Credential) (id string, err error) {
	if c.Provider == "" || !c.Access.IsSet() {
		return "", domain.E(domain.Invalid, nil, "a credential needs a provider and a key")
	}
	err = s.change(ctx, func(d document) error {
		pool, _ := d["credential_pool"].(map[string]any)
		if pool == nil {
			pool = map[string]any{}
			d["credential_pool"] = pool
		}
		list, _ := pool[c.Provider].([]any)
		for _, item := range list {
			if e, ok := item.(map[string]any); ok && read(c.Provider, e).Access == c.Access {
				id = read(c.Provider, e).ID
				put(e, c)
				return s.save(d)
			}
		}
		raw := make([]byte, 3)
		_, _ = rand.Read(raw) // it never fails: crypto/rand
		id = hex.EncodeToString(raw)
		if c.Label == "" {
			c.Label = fmt.Sprintf("%s-%d", c.Provider, len(list)+1)
		}
		e := map[string]any{"id": id, "source": "manual", "priority": json.Number(strconv.Itoa(max(c.Priority, len(list))))}
		put(e, c)
		pool[c.Provider] = append(list, e)
		return s.save(d)
	})
	return id, err
}

// put writes what a credential says into its entry; a fresh one has no failure.
func put(e map[string]any, c Credential) {
	e["auth_type"], e["access_token"] = c.Type, c.Access.Reveal()
	for name, v := range map[string]string{"label": c.Label, "refresh_token": c.Refresh.Reveal(), "base_url": c.BaseURL, "token_url": c.TokenURL, "client_id": c.ClientID} {
		if v != "" {
			e[name] = v
		}
	}
	delete(e, "expires_at_ms")
	delete(e, "expires_at")
	if !c.Expires.IsZero() {
		e["expires_at"] = c.Expires.UTC().Format(time.RFC3339)
	}
	clearFailure(e)
}

func clearFailure(e map[string]any) {
	for _, name := range []string{"refresh_started_at", "last_error_reason", "last_error_message", "last_error_code", "last_error_at", "last_error_reset_at", "last_status", "last_status_at"} {
		delete(e, name)
	}
}

// Match finds the one credential of a provider that a word means: its id, its
// label or its place in the list, from 1. Errors: NotFound, Config.
func (s *Store) Match(provider, word string) (Credential, error) {
	all, err := s.List(provider)
	if err != nil {
		return Credential{}, err
	}
	for i, c := range all {
		if c.ID == word || strings.EqualFold(c.Label, word) || word == strconv.Itoa(i+1) {
			return c, nil
		}
	}
	return Credential{}, domain.E(domain.NotFound, nil, "%s holds no credential %q of %s; `hermes auth list %s` lists them", s.path, word, provider, provider)
}

// Remove takes a credential out. Errors: NotFound, Config, Unavailable,
// StorageFull.
func (s *Store) Remove(ctx context.Context, c Credential) error {
	return s.change(ctx, func(d document) error {
		if d.find(c.Provider, c.ID) == nil {
			return domain.E(domain.NotFound, nil, "the credential %q of %s is gone already", c.Label, c.Provider)
		}
		if pool, ok := d["credential_pool"].(map[string]any); ok {
			list, _ := pool[c.Provider].([]any)
			pool[c.Provider] = slices.DeleteFunc(list, func(item any) bool {
				e, ok := item.(map[string]any)
				return ok && read(c.Provider, e).ID == c.ID
			})
			if len(pool[c.Provider].([]any)) == 0 {
				delete(pool, c.Provider)
			}
		}
		if logins, ok := d["providers"].(map[string]any); ok {
			if e, ok := logins[c.Provider].(map[string]any); ok && read(c.Provider, e).ID == c.ID {
				delete(logins, c.Provider)
			}
		}
		return s.save(d)
	})
}

// Prioritize says how early a credential is used: the smallest goes first.
// Errors: NotFound, Config, Unavailable, StorageFull.
func (s *Store) Prioritize(ctx context.Context, c Credential, priority int) error {
	return s.change(ctx, func(d document) error {
		e := d.find(c.Provider, c.ID)
		if e == nil {
			return domain.E(domain.NotFound, nil, "the credential %q of %s is gone already", c.Label, c.Provider)
		}
		e["priority"] = json.Number(strconv.Itoa(priority))
		return s.save(d)
	})
}

// Reset forgets why the credentials of a provider were refused. Errors: Config,
// Unavailable, StorageFull.
func (s *Store) Reset(ctx context.Context, provider string) error {
	return s.change(ctx, func(d document) error {
		d.each(func(p string, e map[string]any) {
			if p == provider {
				clearFailure(e)
			}
		})
		return s.save(d)
	})
}
