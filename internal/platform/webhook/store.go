package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/gofrs/flock"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
	"hermes/internal/platform/clean"
)

// maxList bounds the file of subscriptions, in bytes.
const maxList = 4 << 20

// routes finds routes: the configured ones, and those of the subscriptions'
// file, which is read again when it has changed.
type routes struct {
	cfg   Config
	d     Deps
	fixed map[string]*Route

	mu    sync.Mutex
	seen  fs.FileInfo // of the file that was read
	added map[string]*Route
}

func newRoutes(c Config, d Deps) *routes {
	r := &routes{cfg: c, d: d, fixed: map[string]*Route{}}
	for _, k := range c.Secrets {
		d.Secrets(k.Reveal())
	}
	for name, one := range c.Routes {
		r.fixed[name] = &one
		d.Secrets(one.Secret...)
	}
	for _, t := range c.Targets {
		for _, k := range t.Secrets {
			d.Secrets(k.Reveal())
		}
	}
	return r
}

// find gives a route by its name.
func (r *routes) find(name string) (*Route, bool) {
	if one, ok := r.fixed[name]; ok {
		return one, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reload()
	one, ok := r.added[name]
	return one, ok
}

// count is how many routes are served.
func (r *routes) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reload()
	n := len(r.fixed)
	for name := range r.added {
		if _, fixed := r.fixed[name]; !fixed {
			n++
		}
	}
	return n
}

// reload reads the file if it is another than the one that was read. While it
// cannot be read, what was read before holds.
func (r *routes) reload() {
	if r.cfg.Subscriptions == "" {
		return
	}
	info, err := os.Stat(r.cfg.Subscriptions)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			r.added, r.seen = nil, nil
		}
		return
	}
	if r.seen != nil && os.SameFile(info, r.seen) && info.Size() == r.seen.Size() && info.ModTime().Equal(r.seen.ModTime()) {
		return
	}
	r.seen = info
	list, err := Subscriptions(r.cfg.Subscriptions)
	if err != nil {
		r.d.Log.Error("the list of webhook subscriptions cannot be read; the one read before holds", "err", err)
		return
	}
	r.added = map[string]*Route{}
	for name, one := range list {
		if problems := r.cfg.routeProblems(name, &one); len(problems) > 0 {
			r.d.Log.Warn("a webhook subscription is not served", "route", clean.Short(name, 64), "problems", problems)
			continue
		}
		r.d.Secrets(one.Secret...)
		r.added[name] = &one
	}
}

// Subscriptions reads the routes of a list; there is none where there is no
// file. domain.Config when the file is not what it should be.
func Subscriptions(path string) (map[string]Route, error) {
	f, err := plain.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]Route{}, nil
	}
	if err != nil {
		return nil, domain.E(domain.Unavailable, err, "%s cannot be read", path)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxList+1))
	if err != nil {
		return nil, domain.E(domain.Unavailable, err, "%s cannot be read", path)
	}
	list := map[string]Route{}
	if len(text) > maxList {
		return nil, domain.E(domain.Config, nil, "%s has more than %d MiB; that is no list of subscriptions", path, maxList>>20)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return list, nil
	}
	if err := json.Unmarshal(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), &list); err != nil {
		return nil, domain.E(domain.Config, nil, "%s is damaged: %s. Mend it, or move it away and subscribe anew.", path, plainJSON(err))
	}
	if len(list) > maxRoutes {
		return nil, domain.E(domain.Config, nil, "%s lists %d routes; at most %d are served", path, len(list), maxRoutes)
	}
	return list, nil
}

// Subscribe adds a route to a list, or takes the place of the one of that name;
// replaced tells which. It fails with domain.Invalid when the route cannot be
// served as c says, and as Subscriptions.
func (c Config) Subscribe(name string, r Route) (replaced bool, err error) {
	c.setDefaults()
	if _, fixed := c.Routes[name]; fixed {
		return false, domain.E(domain.Conflict, nil, "the route %q stands in config.yaml (platforms.webhook.extra.routes); change it there", name)
	}
	if problems := c.routeProblems(name, &r); len(problems) > 0 {
		return false, domain.E(domain.Invalid, nil, "the route %q cannot be served: %s", clean.Short(name, 64), joined(problems))
	}
	err = c.change(func(list map[string]Route) error {
		_, replaced = list[name]
		if !replaced && len(list)+len(c.Routes) >= maxRoutes {
			return domain.E(domain.TooLarge, nil, "there are %d routes, which is the most that is served", maxRoutes)
		}
		list[name] = r
		return nil
	})
	return replaced, err
}

// Unsubscribe takes a route from a list. domain.NotFound.
func (c Config) Unsubscribe(name string) error {
	if _, fixed := c.Routes[name]; fixed {
		return domain.E(domain.Conflict, nil, "the route %q stands in config.yaml (platforms.webhook.extra.routes); remove it there", name)
	}
	return c.change(func(list map[string]Route) error {
		if _, ok := list[name]; !ok {
			return domain.E(domain.NotFound, nil, "there is no subscription %q; `hermes webhook list` shows them", clean.Short(name, 64))
		}
		delete(list, name)
		return nil
	})
}

// change rewrites the list while no other process does.
func (c Config) change(edit func(map[string]Route) error) error {
	if err := os.MkdirAll(filepath.Dir(c.Subscriptions), 0o700); err != nil {
		return domain.E(domain.Unavailable, err, "the profile's home cannot be made")
	}
	lock := flock.New(c.Subscriptions+".lock", flock.SetFlag(plain.LockFlag))
	if err := lock.Lock(); err != nil {
		return domain.E(domain.Unavailable, err, "%s cannot be locked", c.Subscriptions)
	}
	defer lock.Close()
	list, err := Subscriptions(c.Subscriptions)
	if err != nil {
		return err
	}
	if err := edit(list); err != nil {
		return err
	}
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return domain.E(domain.Internal, err, "the list of subscriptions cannot be written")
	}
	return home.WriteAtomic(c.Subscriptions, append(text, '\n'), 0o600)
}

// Find gives a configured or subscribed route with the secrets that it is
// called with. domain.NotFound.
func (c Config) Find(name string) (Route, error) {
	if r, ok := c.Routes[name]; ok {
		return r, nil
	}
	list, err := Subscriptions(c.Subscriptions)
	if err != nil {
		return Route{}, err
	}
	r, ok := list[name]
	if !ok {
		known := slices.Sorted(maps.Keys(list))
		return Route{}, domain.E(domain.NotFound, nil, "there is no route %q; there are %s", clean.Short(name, 64), joined(append(slices.Sorted(maps.Keys(c.Routes)), known...)))
	}
	return r, nil
}

func joined(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	var b bytes.Buffer
	for i, s := range list {
		if i > 0 {
			b.WriteString("; ")
		}
		if i == 20 {
			b.WriteString("…")
			break
		}
		b.WriteString(s)
	}
	return b.String()
}
