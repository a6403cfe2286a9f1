package sqlite_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
)

// childMode makes the test binary act as another process that has the ledger.
const (
	childMode = "LEDGER_TEST_CHILD"
	childPath = "LEDGER_TEST_PATH"
)

func TestMain(m *testing.M) {
	switch os.Getenv(childMode) {
	case "":
		goleak.VerifyTestMain(m)
	case "write":
		childWrite(os.Getenv(childPath))
	case "acknowledge":
		childAcknowledge(os.Getenv(childPath))
	}
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// acknowledge writes a line with one write, as an answer to a platform would
// leave the process.
func acknowledge(format string, args ...any) {
	fmt.Fprintf(os.Stdout, format+"\n", args...)
}

const childLanes = 8

// childWrite takes over what is there, then works in several lanes until it is
// killed, and says what it was told to be durable.
func childWrite(path string) {
	ctx := context.Background()
	s, err := sqlite.Open(ctx, sqlite.Options{Path: path, Kind: "gateway", NoBallast: true})
	fatal(err)
	_, err = s.Recover(ctx, time.Now())
	fatal(err)
	var wg sync.WaitGroup
	for lane := range childLanes {
		wg.Go(func() {
			for n := 0; ; n++ {
				fatal(childTurn(ctx, s, lane, fmt.Sprintf("%d-%d-%d", os.Getpid(), lane, n)))
			}
		})
	}
	wg.Wait()
}

// childTurn is a message from its acceptance to the receipt of its answer. A
// turn that a killed process left behind is finished first.
func childTurn(ctx context.Context, s ledger.Store, lane int, id string) error {
	to := domain.Address{Platform: "telegram", ChatID: fmt.Sprint(lane)}
	src := domain.Source{Address: to, Account: "bot", ChatType: domain.ChatDM}
	key := domain.KeyFor(src, true, false)
	now := time.Now()
	acc, err := s.AcceptInbound(ctx, ledger.Batch{Platform: "telegram", Account: "bot", Events: []ledger.Event{{
		Inbound: domain.Inbound{Source: src, EventID: id, SessionKey: key, Text: id}}}})
	if err != nil {
		return err
	}
	acknowledge("event %d", acc[0].ID)
	c, ok, err := s.ClaimTurn(ctx, key, ledger.ClaimOptions{Now: now})
	if err != nil || !ok {
		return fmt.Errorf("lane %d: claim: %v %w", lane, ok, err)
	}
	if _, err := s.AppendStep(ctx, c.Ref(), domain.Step{Kind: domain.StepToolStarted, CallID: "c"}); err != nil {
		return err
	}
	f, err := s.FinishTurn(ctx, c.Ref(), ledger.Finish{State: domain.TurnDone, Now: now,
		Messages:   append(c.Turn.Input, domain.Message{Role: domain.RoleAssistant, Content: "answer to " + c.Turn.Input[0].Content}),
		Deliveries: []domain.NewDelivery{{To: to, Part: domain.Part{Text: "answer"}}}})
	if err != nil {
		return err
	}
	acknowledge("turn %d %d", c.Turn.ID, f.Deliveries[0])
	d, ok, _, err := s.ClaimDelivery(ctx, to, now)
	if err != nil || !ok {
		return fmt.Errorf("lane %d: claim delivery: %v %w", lane, ok, err)
	}
	if err := s.MarkSent(ctx, ledger.DeliveryRef{ID: d.ID, Attempt: d.Attempt}, "r", now); err != nil {
		return err
	}
	acknowledge("sent %d", d.ID)
	return nil
}

// childAcknowledge commits a few times, one after the other.
func childAcknowledge(path string) {
	ctx := context.Background()
	s, err := sqlite.Open(ctx, sqlite.Options{Path: path, Kind: "gateway", NoBallast: true})
	fatal(err)
	for n := range acknowledgements {
		fatal(s.SetNote(ctx, "n", fmt.Sprint(n)))
		acknowledge("acknowledged %d", n)
	}
	fatal(s.Close())
}

const acknowledgements = 5

func open(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, Kind: "gateway", NoBallast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func ledgerPath(t testing.TB) string { return filepath.Join(t.TempDir(), "ledger.db") }
