// Package ledgertest holds every implementation of ledger.Store to the
// contract: each verb, each error code that its comment names, and, by a model
// (model.go), what holds for any order of verbs.
package ledgertest

import (
	"context"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// Harness is how the suite gets its stores.
type Harness struct {
	// Open opens the store that belongs to dir, as a process of its own would,
	// also while others have it open. now is the store's clock. The suite
	// closes it.
	Open func(t *testing.T, dir string, now func() time.Time) ledger.Store
	// Kill ends the process that has the store, as kill -9 would: what it holds
	// stays as it is, and it is dead to others. Nothing is called afterwards.
	Kill func(t *testing.T, s ledger.Store)
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, group := range []struct {
		name  string
		cases []testCase
	}{
		{"Inbox", inboxCases}, {"Effects", effectCases}, {"Turns", turnCases}, {"Journal", journalCases},
		{"Questions", questionCases}, {"Outbox", outboxCases}, {"Sessions", sessionCases}, {"Search", searchCases},
		{"Jobs", jobCases}, {"Processes", processCases}, {"Store", storeCases}, {"MoveIn", moveInCases},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.cases {
				t.Run(c.name, func(t *testing.T) { c.run(newEnv(t, h)) })
			}
		})
	}
	t.Run("Model", func(t *testing.T) { runModel(t, h) })
}

type testCase struct {
	name string
	run  func(e *env)
}

// start is when every case begins.
var start = time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.UTC)

// env is one case's store with its clock and short forms of common steps.
type env struct {
	*testing.T
	h   Harness
	dir string
	ctx context.Context
	now time.Time
	s   ledger.Store

	commands int // given so far, for their event ids
}

func newEnv(t *testing.T, h Harness) *env {
	e := &env{T: t, h: h, dir: t.TempDir(), ctx: t.Context(), now: start}
	e.s = e.open()
	return e
}

// open opens the store once more, as another process.
func (e *env) open() ledger.Store {
	e.Helper()
	s := e.h.Open(e.T, e.dir, func() time.Time { return start })
	e.Cleanup(func() { _ = s.Close() }) // a test may have closed it
	return s
}

// kill ends the process of e.s and opens the store as its successor.
func (e *env) kill() {
	e.Helper()
	e.h.Kill(e.T, e.s)
	e.s = e.open()
}

// ok fails the case on an error.
func (e *env) ok(err error) {
	e.Helper()
	if err != nil {
		e.Fatalf("unexpected error: %v", err)
	}
}

// code fails the case unless err has the code and a sentence for people.
func (e *env) code(err error, want domain.Code) {
	e.Helper()
	if got := domain.CodeOf(err); got != want {
		e.Fatalf("error code %q, want %q (error: %v)", got, want, err)
	}
	if m := domain.MessageOf(err); len(m) < 15 {
		e.Errorf("the error says only %q to people", m)
	}
}

// equal compares values; times by instant, empty lists like missing ones. nil
// wants an empty list.
func (e *env) equal(what string, got, want any) {
	e.Helper()
	if want == nil {
		want = reflect.Zero(reflect.TypeOf(got)).Interface()
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		e.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// after gives the case's time plus n seconds.
func (e *env) after(n int) time.Time { return e.now.Add(time.Duration(n) * time.Second) }

var (
	chat  = domain.Address{Platform: "telegram", ChatID: "100"}
	chat2 = domain.Address{Platform: "telegram", ChatID: "200", ThreadID: "7"}
)

const key = domain.SessionKey("agent:main:telegram:dm:100")

func source(to domain.Address) domain.Source {
	return domain.Source{Address: to, Account: "bot", ChatType: domain.ChatDM, ChatName: "Ann's", UserID: "u1", UserName: "Ann", MessageID: "m1"}
}

func event(id, text string) domain.Inbound {
	return domain.Inbound{Source: source(chat), EventID: id, SessionKey: key, Text: text,
		SentAt: start.Add(-time.Second), ReceivedAt: start, State: domain.InboundReceived}
}

func batch(events ...domain.Inbound) ledger.Batch {
	b := ledger.Batch{Platform: "telegram", Account: "bot"}
	for _, in := range events {
		b.Events = append(b.Events, ledger.Event{Inbound: in})
	}
	return b
}

// accept stores messages and gives their ids.
func (e *env) accept(texts ...string) []int64 {
	e.Helper()
	var ids []int64
	for i, text := range texts {
		acc, err := e.s.AcceptInbound(e.ctx, batch(event(text+"/"+strconv.Itoa(i), text)))
		e.ok(err)
		ids = append(ids, acc[0].ID)
	}
	return ids
}

// claim claims the key's next turn, which must be there.
func (e *env) claim() ledger.Claim {
	e.Helper()
	c, ok, err := e.s.ClaimTurn(e.ctx, key, ledger.ClaimOptions{Now: e.now})
	e.ok(err)
	if !ok {
		e.Fatal("nothing to claim")
	}
	return c
}

// idle fails the case when the key has a turn to claim.
func (e *env) idle() {
	e.Helper()
	c, ok, err := e.s.ClaimTurn(e.ctx, key, ledger.ClaimOptions{Now: e.now})
	e.ok(err)
	if ok {
		e.Fatalf("claimed turn %d, where there should be nothing to do", c.Turn.ID)
	}
}

// say runs a whole turn: a question and its answer.
func (e *env) say(question, answer string) ledger.Claim {
	e.Helper()
	e.accept(question)
	c := e.claim()
	_, err := e.s.FinishTurn(e.ctx, c.Ref(), done(e.now, append(c.Turn.Input, reply(answer))...))
	e.ok(err)
	return c
}

func reply(text string) domain.Message {
	return domain.Message{Role: domain.RoleAssistant, Content: text, At: start}
}

func done(now time.Time, messages ...domain.Message) ledger.Finish {
	return ledger.Finish{State: domain.TurnDone, Messages: messages, Now: now}
}

func to(a domain.Address, text string) domain.NewDelivery {
	return domain.NewDelivery{To: a, Part: domain.Part{Text: text}, Kind: "notice"}
}

// enqueue puts messages in the outbox.
func (e *env) enqueue(ds ...domain.NewDelivery) []int64 {
	e.Helper()
	ids, err := e.s.Enqueue(e.ctx, ds, e.now)
	e.ok(err)
	return ids
}

// send claims the head of an address, which must be due.
func (e *env) send(at domain.Address) domain.Delivery {
	e.Helper()
	d, ok, next, err := e.s.ClaimDelivery(e.ctx, at, e.now)
	e.ok(err)
	if !ok {
		e.Fatalf("nothing to send to %s (next: %v)", at, next)
	}
	return d
}

// blocked fails the case when the address has something to send now, and
// compares when it will.
func (e *env) blocked(at domain.Address, want time.Time) {
	e.Helper()
	d, ok, next, err := e.s.ClaimDelivery(e.ctx, at, e.now)
	e.ok(err)
	if ok {
		e.Fatalf("delivery %d was claimed, where there should be nothing to send", d.ID)
	}
	e.equal("when to look again", next, want)
}

func ref(d domain.Delivery) ledger.DeliveryRef {
	return ledger.DeliveryRef{ID: d.ID, Attempt: d.Attempt}
}

// delivery reads one row of the outbox.
func (e *env) delivery(id int64) domain.Delivery {
	e.Helper()
	ds, err := e.s.Deliveries(e.ctx, ledger.DeliveryFilter{Before: id + 1, Limit: 1})
	e.ok(err)
	if len(ds) != 1 || ds[0].ID != id {
		e.Fatalf("delivery %d is not there", id)
	}
	return ds[0]
}

// history gives the texts of a session's active messages.
func (e *env) history(id domain.SessionID) (texts []string) {
	e.Helper()
	ms, err := e.s.History(e.ctx, id)
	e.ok(err)
	for _, m := range ms {
		texts = append(texts, m.Content)
	}
	return texts
}
