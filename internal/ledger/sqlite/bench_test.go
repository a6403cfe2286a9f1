package sqlite

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// benchStore opens a ledger on the disk of the test's folder.
func benchStore(b *testing.B, path string) *Store {
	b.Helper()
	s, err := Open(context.Background(), Options{Path: path, Kind: "gateway", NoBallast: true})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// parallel runs f from n goroutines until b.N calls were made.
func parallel(b *testing.B, n int, f func(worker int) error) {
	b.Helper()
	b.SetParallelism((n + 1) / 2)
	var worker atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		w := int(worker.Add(1))
		for pb.Next() {
			if err := f(w); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkGroupCommit is one small durable transaction, from 64 goroutines.
func BenchmarkGroupCommit(b *testing.B) {
	s := benchStore(b, filepath.Join(b.TempDir(), "ledger.db"))
	defer s.Close()
	var n atomic.Int64
	b.ResetTimer()
	parallel(b, 64, func(w int) error {
		id := n.Add(1)
		_, err := s.AcceptInbound(context.Background(), ledger.Batch{Platform: "telegram", Account: "bot", Events: []ledger.Event{{
			Inbound: domain.Inbound{EventID: fmt.Sprint(id), Text: "hello", SessionKey: domain.SessionKey(fmt.Sprint("k", w)),
				Source: domain.Source{Address: domain.Address{Platform: "telegram", ChatID: fmt.Sprint(w)}, Account: "bot"}}}}})
		return err
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tx/s")
}

// BenchmarkLoneCommit is the same from one goroutine: the latency of the disk.
func BenchmarkLoneCommit(b *testing.B) {
	s := benchStore(b, filepath.Join(b.TempDir(), "ledger.db"))
	defer s.Close()
	for b.Loop() {
		if err := s.SetNote(context.Background(), "key", "value"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAPITurn is what a chat completion writes, from 64 goroutines.
func BenchmarkAPITurn(b *testing.B) {
	s := benchStore(b, filepath.Join(b.TempDir(), "ledger.db"))
	defer s.Close()
	src := domain.Source{Address: domain.Address{Platform: domain.PlatformAPI, ChatID: "c"}, ChatType: domain.ChatDM}
	b.ResetTimer()
	parallel(b, 64, func(w int) error {
		ctx, now := context.Background(), time.Now()
		question := domain.Message{Role: domain.RoleUser, Content: "what is the weather like in Lisbon today?", At: now}
		c, err := s.StartTurn(ctx, ledger.NewTurn{Kind: domain.TurnAPI, SessionKey: "agent:main:api_server:dm",
			SessionID: domain.SessionID(fmt.Sprint("api-", w)), Source: src, Input: []domain.Message{question}}, now)
		if err != nil {
			return err
		}
		_, err = s.FinishTurn(ctx, c.Ref(), ledger.Finish{State: domain.TurnDone, Now: now, Usage: domain.Usage{Calls: 1, InputTokens: 10, OutputTokens: 20},
			Messages: []domain.Message{question, {Role: domain.RoleAssistant, Content: "It is sunny, with a light wind from the sea.", At: now}}})
		return err
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "turns/s")
}

// BenchmarkChatTurn is a whole message: event, turn, delivery, receipt.
func BenchmarkChatTurn(b *testing.B) {
	s := benchStore(b, filepath.Join(b.TempDir(), "ledger.db"))
	defer s.Close()
	var n atomic.Int64
	b.ResetTimer()
	parallel(b, 64, func(w int) error {
		ctx, now := context.Background(), time.Now()
		to := domain.Address{Platform: "telegram", ChatID: fmt.Sprint(w)}
		src := domain.Source{Address: to, Account: "bot", ChatType: domain.ChatDM, UserID: "u"}
		key := domain.KeyFor(src, true, false)
		_, err := s.AcceptInbound(ctx, ledger.Batch{Platform: "telegram", Account: "bot", Events: []ledger.Event{{
			Inbound: domain.Inbound{EventID: fmt.Sprint(n.Add(1)), Text: "hello", SessionKey: key, Source: src}}}})
		if err != nil {
			return err
		}
		c, ok, err := s.ClaimTurn(ctx, key, ledger.ClaimOptions{Now: now})
		if err != nil || !ok {
			return fmt.Errorf("claim turn: %v %w", ok, err)
		}
		if _, err := s.FinishTurn(ctx, c.Ref(), ledger.Finish{State: domain.TurnDone, Now: now,
			Messages:   append(c.Turn.Input, domain.Message{Role: domain.RoleAssistant, Content: "good day"}),
			Deliveries: []domain.NewDelivery{{To: to, Kind: "reply", Part: domain.Part{Text: "good day"}}}}); err != nil {
			return err
		}
		d, ok, _, err := s.ClaimDelivery(ctx, to, now)
		if err != nil || !ok {
			return fmt.Errorf("claim delivery: %v %w", ok, err)
		}
		return s.MarkSent(ctx, ledger.DeliveryRef{ID: d.ID, Attempt: d.Attempt}, "1", now)
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "turns/s")
}
