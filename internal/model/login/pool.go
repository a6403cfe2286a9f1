package login

import (
	"cmp"
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"hermes/internal/domain"
)

// The ways to choose among the credentials of a provider, as
// credential_pool_strategies in config.yaml names them.
const (
	FillFirst  = "fill_first" // the first, until it is refused
	RoundRobin = "round_robin"
	LeastUsed  = "least_used"
	Random     = "random"
)

// early is how long before its end a token is renewed.
const early = 60 * time.Second

// Pool chooses among the credentials of one provider. It is safe for concurrent
// use; what was refused is remembered for the life of the process.
type Pool struct {
	store    *Store
	provider string
	strategy string
	client   *http.Client
	told     func(secrets ...string)

	mu   sync.Mutex
	cool map[string]time.Time // by id: not before
	used map[string]int
	turn int
}

// NewPool makes the pool of a provider. strategy "" means FillFirst. told is
// given every secret before it is used, for a redactor; it may be nil.
func NewPool(s *Store, provider, strategy string, client *http.Client, told func(...string)) *Pool {
	if told == nil {
		told = func(...string) {}
	}
	return &Pool{store: s, provider: provider, strategy: strategy, client: client, told: told, cool: map[string]time.Time{}, used: map[string]int{}}
}

// Pick gives a credential that can be used now; a login that is about to end is
// renewed first. Errors: Unauthenticated, when none can be used; RateLimited,
// when all were refused lately; Unavailable, Config.
func (p *Pool) Pick(ctx context.Context) (Credential, error) {
	all, err := p.store.List(p.provider)
	if err != nil {
		return Credential{}, err
	}
	if len(all) == 0 {
		return Credential{}, domain.E(domain.Unauthenticated, nil, "%s holds no login for %s; `hermes auth add %s` adds one", p.store.path, p.provider, p.provider)
	}
	var last error
	for _, c := range p.order(all) {
		fresh, err := p.renewed(ctx, c)
		if err == nil {
			p.told(fresh.Access.Reveal(), fresh.Refresh.Reveal())
			return fresh, nil
		}
		if ctx.Err() != nil {
			return Credential{}, ctx.Err()
		}
		last = err
	}
	if last == nil {
		last = domain.E(domain.RateLimited, nil, "every login of %s was refused lately; they are tried again at %s", p.provider, p.soonest().Format("15:04"))
	}
	return Credential{}, last
}

// renewed gives the credential with a token that is good for a while.
func (p *Pool) renewed(ctx context.Context, c Credential) (Credential, error) {
	now := p.store.now()
	if c.Type != OAuth || c.Access.IsSet() && !c.Expired(now.Add(early)) {
		return c, nil
	}
	fresh, err := p.store.Renew(ctx, p.client, c, c.Access)
	switch {
	case err == nil:
		return fresh, nil
	case domain.IsCode(err, domain.Unauthenticated):
		p.Refuse(c, time.Hour)
	case c.Access.IsSet() && !c.Expired(now):
		return c, nil // it is good for a little yet
	}
	return Credential{}, err
}

// Renew renews a login whose token was refused before its time. Errors: as
// Store.Renew; Invalid for an API key.
func (p *Pool) Renew(ctx context.Context, c Credential) error {
	if c.Type != OAuth || !c.Refresh.IsSet() {
		return domain.E(domain.Invalid, nil, "an API key cannot be renewed")
	}
	_, err := p.store.Renew(ctx, p.client, c, c.Access)
	return err
}

// Refuse leaves a credential alone for a while.
func (p *Pool) Refuse(c Credential, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cool[c.ID] = p.store.now().Add(d)
}

// Others tells whether another credential than c could be used now.
func (p *Pool) Others(c Credential) bool {
	all, err := p.store.List(p.provider)
	if err != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.store.now()
	return slices.ContainsFunc(all, func(o Credential) bool { return o.ID != c.ID && !now.Before(p.cool[o.ID]) })
}

// order gives the credentials that may be tried, in the order of the strategy.
func (p *Pool) order(all []Credential) []Credential {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.store.now()
	all = slices.DeleteFunc(all, func(c Credential) bool { return now.Before(p.cool[c.ID]) })
	if len(all) == 0 {
		return nil
	}
	switch p.strategy {
	case RoundRobin:
		at := p.turn % len(all)
		all = slices.Concat(all[at:], all[:at])
	case LeastUsed:
		slices.SortStableFunc(all, func(a, b Credential) int { return cmp.Compare(p.used[a.ID], p.used[b.ID]) })
	case Random:
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	p.turn++
	p.used[all[0].ID]++
	return all
}

// soonest is when the first that was refused may be tried again.
func (p *Pool) soonest() (at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.cool {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	return at
}
