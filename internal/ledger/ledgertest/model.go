package ledgertest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// model is what the ledger must say after any order of verbs: the way of every
// event from accepted to answered and of every answer from committed to sent.
type model struct {
	e       *env
	seq     int
	waiting []int64               // events, in order
	claim   *ledger.Claim         // the running turn
	outbox  map[int64]*modelDeliv // by id
	order   []int64               // of unended deliveries
	done    int                   // events that were answered
}

type modelDeliv struct {
	ref       ledger.DeliveryRef
	state     domain.DeliveryState
	uncertain bool
	nonce     string
}

func runModel(t *testing.T, h Harness) {
	rapid.Check(t, func(rt *rapid.T) {
		t.Run("", func(t *testing.T) {
			m := &model{e: newEnv(t, h), outbox: map[int64]*modelDeliv{}}
			actions := []func(){m.accept, m.claimTurn, m.step, m.finish, m.requeue, m.claimDelivery, m.sent, m.retry, m.dead, m.crash}
			for range rapid.IntRange(1, 40).Draw(rt, "length") {
				actions[rapid.IntRange(0, len(actions)-1).Draw(rt, "action")]()
				m.check()
			}
			if t.Failed() {
				rt.Fail()
			}
		})
	})
}

func (m *model) accept() {
	m.seq++
	acc, err := m.e.s.AcceptInbound(m.e.ctx, batch(event(fmt.Sprint(m.seq), "text"), event(fmt.Sprint(m.seq), "twice"), event(fmt.Sprint(max(1, m.seq-1)), "again")))
	m.e.ok(err)
	m.e.equal("known events", []bool{acc[0].Duplicate, acc[1].Duplicate, acc[2].Duplicate}, []bool{false, true, true})
	m.waiting = append(m.waiting, acc[0].ID)
}

func (m *model) claimTurn() {
	c, ok, err := m.e.s.ClaimTurn(m.e.ctx, key, ledger.ClaimOptions{Now: m.e.now})
	m.e.ok(err)
	resumable := m.claim != nil && m.claim.Turn.State == domain.TurnQueued
	want := resumable || (m.claim == nil && len(m.waiting) > 0)
	m.e.equal("something to claim", ok, want)
	if !ok {
		return
	}
	if resumable {
		m.e.equal("resumed turn", c.Turn.ID, m.claim.Turn.ID)
	} else {
		m.e.equal("oldest event", c.Inbound[0].ID, m.waiting[0])
		m.waiting = m.waiting[1:]
	}
	m.claim = &c
}

// held tells whether the turn runs in this process.
func (m *model) held() bool { return m.claim != nil && m.claim.Turn.State == domain.TurnRunning }

func (m *model) step() {
	if m.claim == nil {
		return
	}
	_, err := m.e.s.AppendStep(m.e.ctx, m.claim.Ref(), domain.Step{Kind: domain.StepInput})
	m.expectHeld(err)
}

func (m *model) expectHeld(err error) {
	if m.held() {
		m.e.ok(err)
	} else {
		m.e.code(err, domain.Fenced)
	}
}

func (m *model) finish() {
	if m.claim == nil {
		return
	}
	out, err := m.e.s.FinishTurn(m.e.ctx, m.claim.Ref(), ledger.Finish{State: domain.TurnDone, Now: m.e.now, Messages: []domain.Message{reply("a")},
		Deliveries: []domain.NewDelivery{to(chat, "a"), to(chat, "b")}})
	m.expectHeld(err)
	if err != nil {
		return
	}
	m.claim = nil
	m.done++
	for _, id := range out.Deliveries {
		m.outbox[id] = &modelDeliv{state: domain.DeliveryPending, ref: ledger.DeliveryRef{ID: id}}
		m.order = append(m.order, id)
	}
}

func (m *model) requeue() {
	if m.claim == nil {
		return
	}
	err := m.e.s.RequeueTurn(m.e.ctx, m.claim.Ref())
	m.expectHeld(err)
	m.claim.Turn.State = domain.TurnQueued
}

func (m *model) head() *modelDeliv {
	if len(m.order) == 0 {
		return nil
	}
	return m.outbox[m.order[0]]
}

func (m *model) claimDelivery() {
	d, ok, _, err := m.e.s.ClaimDelivery(m.e.ctx, chat, m.e.now)
	m.e.ok(err)
	h := m.head()
	m.e.equal("something to send", ok, h != nil && h.state != domain.DeliverySending)
	if !ok {
		return
	}
	m.e.equal("the head", []any{d.ID, d.Uncertain, d.Attempt}, []any{m.order[0], h.uncertain, h.ref.Attempt + 1})
	if h.nonce != "" {
		m.e.equal("nonce", d.Nonce, h.nonce)
	}
	h.state, h.ref, h.nonce = domain.DeliverySending, ref(d), d.Nonce
}

// mark applies an outcome to the head, which works only while it is sent.
func (m *model) mark(state domain.DeliveryState, write func(ledger.DeliveryRef) error) {
	h := m.head()
	if h == nil {
		return
	}
	err := write(h.ref)
	if h.state != domain.DeliverySending {
		m.e.code(err, domain.Fenced)
		return
	}
	m.e.ok(err)
	h.state = state
	if state == domain.DeliverySent || state == domain.DeliveryDead {
		m.order = m.order[1:]
	}
}

func (m *model) sent() {
	m.mark(domain.DeliverySent, func(r ledger.DeliveryRef) error { return m.e.s.MarkSent(m.e.ctx, r, "r", m.e.now) })
}

func (m *model) dead() {
	m.mark(domain.DeliveryDead, func(r ledger.DeliveryRef) error { return m.e.s.MarkDead(m.e.ctx, r, "x", m.e.now) })
}

func (m *model) retry() {
	m.mark(domain.DeliveryRetrying, func(r ledger.DeliveryRef) error {
		return m.e.s.MarkRetry(m.e.ctx, r, time.Time{}, "x", false, nil, nil)
	})
}

func (m *model) crash() {
	m.e.kill()
	rec, err := m.e.s.Recover(m.e.ctx, m.e.now)
	m.e.ok(err)
	want := ledger.Recovered{Processes: 1}
	if m.held() {
		want.Requeued = 1
		m.claim.Turn.State = domain.TurnQueued
	}
	if h := m.head(); h != nil && h.state == domain.DeliverySending {
		want.Uncertain = 1
		h.state, h.uncertain = domain.DeliveryRetrying, true
	}
	m.e.equal("recovered", rec, want)
}

func (m *model) check() {
	ins, err := m.e.s.Received(m.e.ctx, key)
	m.e.ok(err)
	var got []int64
	for _, in := range ins {
		got = append(got, in.ID)
	}
	m.e.equal("events that wait", got, m.waiting)
	ds, err := m.e.s.Deliveries(m.e.ctx, ledger.DeliveryFilter{Limit: 1000})
	m.e.ok(err)
	slices.Reverse(ds)
	for _, d := range ds {
		w := m.outbox[d.ID]
		m.e.equal("delivery", []any{d.State, d.Uncertain}, []any{w.state, w.uncertain})
	}
	m.e.equal("deliveries", len(ds), len(m.outbox))
	info, err := m.e.s.Info(m.e.ctx)
	m.e.ok(err)
	m.e.equal("answered events", info.Inbound["done"], int64(m.done))
}
