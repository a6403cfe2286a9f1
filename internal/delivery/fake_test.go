package delivery

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/ledger"
	"hermes/internal/platform"
)

// memStore is an outbox in memory, for tests in a synctest bubble. The same
// tests of the main paths run over the real ledger too; see ledger_test.go.
type memStore struct {
	mu   sync.Mutex
	rows []*domain.Delivery
	// fail, where not nil, is asked before each verb, under mu.
	fail func(verb string) error
}

func (s *memStore) enter(verb string) (func(), error) {
	s.mu.Lock()
	if s.fail != nil {
		if err := s.fail(verb); err != nil {
			s.mu.Unlock()
			return nil, err
		}
	}
	return s.mu.Unlock, nil
}

func (s *memStore) Enqueue(_ context.Context, ds []domain.NewDelivery, now time.Time) ([]int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []int64
	for _, n := range ds {
		id := int64(len(s.rows) + 1)
		s.rows = append(s.rows, &domain.Delivery{ID: id, NewDelivery: n, State: domain.DeliveryPending, Nonce: fmt.Sprint("nonce", id), NextAt: n.NotBefore, CreatedAt: now})
		ids = append(ids, id)
	}
	return ids, nil
}

// failing sets what is asked before each verb.
func (s *memStore) failing(fail func(verb string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

func open(d *domain.Delivery) bool {
	return d.State != domain.DeliverySent && d.State != domain.DeliveryDead
}

func (s *memStore) DueAddresses(context.Context) (out []ledger.DueAddress, err error) {
	leave, err := s.enter("due")
	if err != nil {
		return nil, err
	}
	defer leave()
	seen := map[domain.Address]bool{}
	for _, d := range s.rows {
		if open(d) && !seen[d.To] {
			seen[d.To] = true
			if d.State != domain.DeliverySending {
				out = append(out, ledger.DueAddress{To: d.To, Next: d.NextAt})
			}
		}
	}
	return out, nil
}

func (s *memStore) ClaimDelivery(_ context.Context, to domain.Address, now time.Time) (domain.Delivery, bool, time.Time, error) {
	leave, err := s.enter("claim")
	if err != nil {
		return domain.Delivery{}, false, time.Time{}, err
	}
	defer leave()
	for _, d := range s.rows {
		if d.To != to || !open(d) {
			continue
		}
		if d.State == domain.DeliverySending {
			return domain.Delivery{}, false, time.Time{}, nil
		}
		if d.NextAt.After(now) {
			return domain.Delivery{}, false, d.NextAt, nil
		}
		d.State, d.NextAt = domain.DeliverySending, time.Time{}
		d.Attempt++
		return *d, true, time.Time{}, nil
	}
	return domain.Delivery{}, false, time.Time{}, nil
}

func (s *memStore) mark(verb string, ref ledger.DeliveryRef, fn func(d *domain.Delivery)) error {
	leave, err := s.enter(verb)
	if err != nil {
		return err
	}
	defer leave()
	d := s.rows[ref.ID-1]
	if d.State != domain.DeliverySending || d.Attempt != ref.Attempt {
		return domain.E(domain.Fenced, nil, "the attempt is over")
	}
	fn(d)
	return nil
}

func (s *memStore) MarkSent(_ context.Context, ref ledger.DeliveryRef, receipt string, now time.Time) error {
	return s.mark("sent", ref, func(d *domain.Delivery) { d.State, d.Receipt, d.SentAt = domain.DeliverySent, receipt, now })
}

func (s *memStore) MarkRetry(_ context.Context, ref ledger.DeliveryRef, next time.Time, reason string, uncertain bool, part *domain.Part, edit *string) error {
	return s.mark("retry", ref, func(d *domain.Delivery) {
		d.State, d.NextAt, d.Reason, d.Uncertain = domain.DeliveryRetrying, next, reason, d.Uncertain || uncertain
		if part != nil {
			d.Part = *part
		}
		if edit != nil {
			d.Edit = *edit
		}
	})
}

func (s *memStore) MarkDead(_ context.Context, ref ledger.DeliveryRef, reason string, now time.Time) error {
	return s.mark("dead", ref, func(d *domain.Delivery) { d.State, d.Reason = domain.DeliveryDead, reason })
}

func (s *memStore) MoveAddress(_ context.Context, from, to domain.Address) error {
	leave, err := s.enter("move")
	if err != nil {
		return err
	}
	defer leave()
	for _, d := range s.rows {
		if d.To == from && open(d) {
			d.To = to
		}
	}
	return nil
}

func (s *memStore) Deliveries(_ context.Context, f ledger.DeliveryFilter) (out []domain.Delivery, err error) {
	leave, err := s.enter("list")
	if err != nil {
		return nil, err
	}
	defer leave()
	for _, d := range slices.Backward(s.rows) {
		if slices.Contains(f.States, d.State) && d.To.Platform == f.Platform && len(out) < f.Limit {
			out = append(out, *d)
		}
	}
	return out, nil
}

func (s *memStore) RetryDelivery(_ context.Context, id int64, _ time.Time) (domain.Delivery, error) {
	leave, err := s.enter("again")
	if err != nil {
		return domain.Delivery{}, err
	}
	defer leave()
	d := s.rows[id-1]
	if d.State != domain.DeliveryRetrying && d.State != domain.DeliveryDead {
		return domain.Delivery{}, domain.E(domain.Conflict, nil, "it is %s", d.State)
	}
	d.State, d.NextAt = domain.DeliveryPending, time.Time{}
	return *d, nil
}

// row gives a copy of the nth delivery, from 1.
func (s *memStore) row(id int64) domain.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.rows[id-1]
}

// sent is one call of the adapter.
type sent struct {
	at   time.Time
	to   domain.Address
	text string
	part domain.Part
	edit string
}

// script is an adapter that does what it is told. Its zero behaviour is to
// take everything.
type script struct {
	name domain.Platform
	caps platform.Capabilities
	// do, where not nil, decides about the nth call (from 1) before it counts
	// as sent.
	do func(ctx context.Context, n int, c sent) error

	mu    sync.Mutex
	calls int
	log   []sent
}

func (a *script) Name() domain.Platform                    { return a.name }
func (a *script) Capabilities() platform.Capabilities      { return a.caps }
func (a *script) Run(context.Context, platform.Sink) error { return nil }
func (a *script) IsGroup(chat string) bool                 { return chat[0] == '-' }

func (a *script) Send(ctx context.Context, to domain.Address, p domain.Part, _ string) (string, error) {
	return a.call(ctx, sent{to: to, text: p.Text, part: p})
}

func (a *script) Edit(ctx context.Context, to domain.Address, id string, p domain.Part) error {
	_, err := a.call(ctx, sent{to: to, text: p.Text, part: p, edit: id})
	return err
}

func (a *script) call(ctx context.Context, c sent) (string, error) {
	c.at = time.Now()
	a.mu.Lock()
	a.calls++
	n := a.calls
	a.mu.Unlock()
	if a.do != nil {
		if err := a.do(ctx, n, c); err != nil {
			return "", err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.log = append(a.log, c)
	return fmt.Sprint("id", n), nil
}

// texts lists what was sent to a chat ("" for all), in order.
func (a *script) texts(chat string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, c := range a.log {
		if chat == "" || c.to.ChatID == chat {
			out = append(out, c.text)
		}
	}
	return out
}

// entries is a copy of the log.
func (a *script) entries() []sent {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]sent(nil), a.log...)
}

func (a *script) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls
}

// bench is a dispatcher with its surroundings.
type bench struct {
	d      *Dispatcher
	store  *memStore
	health *health.Registry
}

func newBench(change func(o *Options)) *bench {
	b := &bench{store: &memStore{}, health: health.New(time.Now)}
	o := Options{Store: b.store, Now: time.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Health: b.health}
	if change != nil {
		change(&o)
	}
	b.d = New(o)
	return b
}

// send enqueues texts for a chat of the platform "p" and wakes the dispatcher.
func (b *bench) send(chat string, texts ...string) {
	to := domain.Address{Platform: "p", ChatID: chat}
	for _, text := range texts {
		_, _ = b.store.Enqueue(context.Background(), []domain.NewDelivery{{To: to, Part: domain.Part{Text: text}}}, time.Now())
	}
	b.d.Wake(to)
}

// part reads a part's health.
func (b *bench) part(name string) health.Part {
	for _, p := range b.health.Parts() {
		if p.Name == name {
			return p
		}
	}
	return health.Part{}
}
