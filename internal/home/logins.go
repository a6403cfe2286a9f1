package home

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"hermes/internal/domain"
)

// AuthFile is where a profile keeps keys and logins of model providers.
func AuthFile(p Profile) string { return p.Path("auth.json") }

// dropLogins takes out of a copied profile's auth.json what renews itself, and
// names the providers. A refresh token is good for one use: of two profiles that
// hold the same, whichever renews second is logged out, and some services then
// take the login from both. API keys stay. A file that cannot be read is taken out
// whole, since nobody can say what is in it.
func dropLogins(p Profile) (providers []string, err error) {
	path := AuthFile(p)
	data, err := readBounded(path)
	if err != nil || data == nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var d map[string]any
	if dec.Decode(&d) != nil || d == nil {
		if err := put(path, data, nil); err != nil {
			return nil, err
		}
		return []string{"auth.json (it cannot be read)"}, nil
	}
	left := map[string]bool{}
	if logins, ok := d["providers"].(map[string]any); ok {
		for name, item := range logins {
			if e, ok := item.(map[string]any); !ok || renews(e, true) {
				delete(logins, name)
				left[name] = true
			}
		}
	}
	pools, _ := d["credential_pool"].(map[string]any)
	for name, list := range pools {
		items, _ := list.([]any)
		kept := slices.DeleteFunc(slices.Clone(items), func(item any) bool {
			e, ok := item.(map[string]any)
			return !ok || renews(e, false)
		})
		if len(kept) < len(items) {
			left[name] = true
		}
		if pools[name] = kept; len(kept) == 0 {
			delete(pools, name)
		}
	}
	if len(left) == 0 {
		return nil, nil
	}
	if active, ok := d["active_provider"].(string); ok && left[active] {
		delete(d, "active_provider")
	}
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, domain.E(domain.Internal, err, "auth.json cannot be written again")
	}
	return slices.Sorted(maps.Keys(left)), WriteAtomic(path, append(text, '\n'), 0o600)
}

// renews tells whether an entry of auth.json is a login. login says what one
// without a type is.
func renews(e map[string]any, login bool) bool {
	if token, ok := e["refresh_token"].(string); ok && token != "" {
		return true
	}
	kind, typed := e["auth_type"].(string)
	kind = strings.ReplaceAll(kind, "-", "_")
	return typed && strings.HasPrefix(kind, "oauth") || !typed && login
}
