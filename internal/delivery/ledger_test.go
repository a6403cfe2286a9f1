package delivery

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/platform"
)

// openLedger opens a real ledger that the test closes.
func openLedger(t testing.TB) *sqlite.Store {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := sqlite.Open(context.Background(), sqlite.Options{Path: filepath.Join(t.TempDir(), "ledger.db"), Kind: "test", Now: time.Now, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// startOn starts a dispatcher over a ledger that ends with the test.
func startOn(t testing.TB, s Store, a platform.Adapter) *Dispatcher {
	t.Helper()
	d := New(Options{Store: s, Now: time.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Unlimited: true})
	d.Attach(a)
	if err := d.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := d.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return d
}

func messages(chats, each int) (ds []domain.NewDelivery, to []domain.Address) {
	for n := range each {
		for c := range chats {
			a := domain.Address{Platform: "p", ChatID: fmt.Sprint(c)}
			if n == 0 {
				to = append(to, a)
			}
			ds = append(ds, domain.NewDelivery{To: a, Kind: "reply", Part: domain.Part{Text: fmt.Sprint(n)}})
		}
	}
	return ds, to
}

// TestRealLedger sends through the real ledger with failures of every kind in
// between: each chat gets everything, in order, once, and every row ends.
func TestRealLedger(t *testing.T) {
	const chats, each = 20, 10
	store := openLedger(t)
	ctx := t.Context()
	ds, to := messages(chats, each)
	ids, err := store.Enqueue(ctx, ds, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var left sync.WaitGroup
	left.Add(len(ids))
	seen := map[string]int{}
	var mu sync.Mutex
	a := &script{name: "p", do: func(_ context.Context, n int, c sent) error {
		mu.Lock()
		defer mu.Unlock()
		key := c.to.ChatID + "/" + c.text
		seen[key]++
		switch {
		case n%7 == 0 && seen[key] == 1:
			return retry(time.Millisecond)
		case n%11 == 0 && c.part.Markup:
			return &platform.Error{Kind: platform.MarkupRefused}
		}
		left.Done()
		return nil
	}}
	d := startOn(t, store, a)
	d.Wake(to...)
	left.Wait()
	if err := d.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	var want []string
	for n := range each {
		want = append(want, fmt.Sprint(n))
	}
	for c := range chats {
		if got := a.texts(fmt.Sprint(c)); !slices.Equal(got, want) {
			t.Errorf("chat %d got %q", c, got)
		}
	}
	rows, err := store.Deliveries(ctx, ledger.DeliveryFilter{Limit: len(ids) + 1})
	if err != nil || len(rows) != len(ids) {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, r := range rows {
		if r.State != domain.DeliverySent || r.Receipt == "" || r.Uncertain {
			t.Errorf("row %d: %+v", r.ID, r)
		}
	}
}

// TestRealLedgerKeepsWhatChanged follows a refused edit, refused markup and a
// moved chat through the real ledger.
func TestRealLedgerKeepsWhatChanged(t *testing.T) {
	store := openLedger(t)
	to := domain.Address{Platform: "p", ChatID: "old"}
	done := make(chan sent, 1)
	a := &script{name: "p", do: func(_ context.Context, _ int, c sent) error {
		switch {
		case c.to.ChatID == "old":
			return &platform.Error{Kind: platform.Moved, NewChatID: "new"}
		case c.edit != "":
			return &platform.Error{Kind: platform.EditRefused}
		case c.part.Markup:
			return &platform.Error{Kind: platform.MarkupRefused}
		}
		done <- c
		return nil
	}}
	d := startOn(t, store, a)
	if _, err := store.Enqueue(t.Context(), []domain.NewDelivery{{To: to, Edit: "9", Part: domain.Part{Text: "<b>x</b>", Plain: "x", Markup: true}}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	d.Wake(to)
	if c := <-done; c.text != "x" || c.to.ChatID != "new" || c.edit != "" {
		t.Errorf("sent %+v", c)
	}
	if err := d.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := store.Deliveries(t.Context(), ledger.DeliveryFilter{})
	if err != nil || len(rows) != 1 || rows[0].State != domain.DeliverySent || rows[0].Attempt != 4 || rows[0].To.ChatID != "new" || rows[0].Edit != "" {
		t.Errorf("row: %+v, %v", rows, err)
	}
}

// BenchmarkDispatch sends through the real ledger with the limiter off. The
// budget is 500 messages a second.
func BenchmarkDispatch(b *testing.B) {
	for _, chats := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("chats=%d", chats), func(b *testing.B) {
			store := openLedger(b)
			var left sync.WaitGroup
			a := &script{name: "p", do: func(context.Context, int, sent) error { left.Done(); return nil }}
			d := startOn(b, store, a)
			ds, to := messages(chats, b.N/chats+1)
			if _, err := store.Enqueue(context.Background(), ds, time.Now()); err != nil {
				b.Fatal(err)
			}
			left.Add(len(ds))
			b.ResetTimer()
			d.Wake(to...)
			left.Wait()
			b.StopTimer()
			b.ReportMetric(float64(len(ds))/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
