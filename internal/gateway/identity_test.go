package gateway

import (
	"testing"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/secret"
)

// Two profiles are kept apart by the account, whatever stands for it: the same
// mailbox with two passwords is one account, two mailboxes with one password are two.
func TestWhatTheLockOfAPlatformIsAbout(t *testing.T) {
	config := func(token string, extra ...string) home.PlatformConfig {
		c := home.PlatformConfig{Token: secret.Value(token), Extra: map[string]string{}}
		for i := 0; i+1 < len(extra); i += 2 {
			c.Extra[extra[i]] = extra[i+1]
		}
		return c
	}
	for _, tt := range []struct {
		name domain.Platform
		x, y home.PlatformConfig
		same bool
	}{
		{"telegram", config("a"), config("a"), true},
		{"telegram", config("a"), config("b"), false},
		{"slack", config("a", "app_token", "x"), config("b", "app_token", "x"), true},
		{"email", config("one", "address", "a@e.x", "imap_host", "m"), config("two", "address", "a@e.x", "imap_host", "m"), true},
		{"email", config("one", "address", "a@e.x", "imap_host", "m"), config("one", "address", "b@e.x", "imap_host", "m"), false},
		{"matrix", config("", "user_id", "@a:e.x", "base_url", "https://m", "password", "1"), config("", "user_id", "@a:e.x", "base_url", "https://m/", "password", "2"), true},
		{"matrix", config("t", "base_url", "https://m"), config("u", "base_url", "https://m"), false},
	} {
		k, ok := kinds[tt.name]
		if !ok || k.scope == "" {
			t.Fatalf("%s has no lock", tt.name)
		}
		if k.owned == nil {
			k.owned = func(c home.PlatformConfig) string { return c.Token.Reveal() }
		}
		if got := k.owned(tt.x) == k.owned(tt.y); got != tt.same {
			t.Errorf("%s: one account is %v, want %v: %q, %q", tt.name, got, tt.same, k.owned(tt.x), k.owned(tt.y))
		}
	}
}
