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
	n := 0
	for b.Loop() {
		n++ // SQLite writes nothing when nothing changes
		if err := s.SetNote(context.Background(), "key", fmt.Sprint(n)); err != nil {
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

// BenchmarkOpen opens a grown ledger whose last process was killed in the
// middle of its work, and takes that work over: 10,000 sessions, 100,000
// messages, 1,000 jobs, 50,000 ended deliveries.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "ledger.db")
	grow(b, path)
	ctx := context.Background()
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		dying := benchStore(b, path)
		if _, err := dying.StartTurn(ctx, ledger.NewTurn{Kind: domain.TurnChat, SessionKey: "k1"}, time.Now()); err != nil {
			b.Fatal(err)
		}
		dying.Kill()
		b.StartTimer()
		s := benchStore(b, path)
		rec, err := s.Recover(ctx, time.Now())
		if err != nil || rec.Requeued != 1 {
			b.Fatalf("%+v %v", rec, err)
		}
		if _, err := s.ActiveKeys(ctx); err != nil {
			b.Fatal(err)
		}
		if _, err := s.DueAddresses(ctx); err != nil {
			b.Fatal(err)
		}
		if _, err := s.NextDue(ctx); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// grow fills a ledger by statements of its own, which is faster than by verbs.
func grow(b *testing.B, path string) {
	b.Helper()
	s := benchStore(b, path)
	const text = `A message of ordinary length, as people write them to each other in the course of a day, with some words that differ: '||x||'.`
	err := writeOnly(context.Background(), s, ordinary, func(c *conn) error {
		series := func(n int) string {
			return fmt.Sprintf("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < %d) ", n)
		}
		for _, q := range []string{
			series(10000) + `INSERT INTO session (id, key, current, platform, source, created_at, updated_at) SELECT 's'||x, 'k'||x, 1, 'telegram', '{}', x, x FROM n`,
			series(100000) + `INSERT INTO message (session, role, content, at) SELECT x % 10000 + 1, 'user', '` + text + `', x FROM n`,
			series(50000) + `INSERT INTO inbound (platform, account, event_id, chat_id, thread_id, session_key, state, command, text, reply_text, body, ended_at)
				SELECT 'telegram', 'bot', x, x % 10000, '', 'k'||(x % 10000), 'done', 0, '` + text + `', '', '{}', x FROM n`,
			series(50000) + `INSERT INTO turn (kind, session_key, session, source, state, input, created_at, ended_at) SELECT 'chat', 'k'||(x % 10000), x % 10000 + 1, '{}', 'done', '[]', x, x FROM n`,
			series(50000) + `INSERT INTO delivery (platform, chat_id, thread_id, state, kind, part, edit, nonce, created_at, ended_at)
				SELECT 'telegram', x % 10000, '', 'sent', 'reply', '{"text":"` + text + `"}', '', x, x, x FROM n`,
			series(1000) + `INSERT INTO job (id, name, enabled, definition, next_at, created_at, updated_at, version) SELECT x, 'job '||x, 1, '{}', 4000000000000 + x, x, x, 1 FROM n`,
			`UPDATE meta SET value = '100000' WHERE key = 'indexed_to'`,
		} {
			if _, err := c.exec(q); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkGrown asks a grown ledger what status and people ask.
func BenchmarkGrown(b *testing.B) {
	path := filepath.Join(b.TempDir(), "ledger.db")
	grow(b, path)
	s := benchStore(b, path)
	defer s.Close()
	ctx := context.Background()
	for name, f := range map[string]func() error{
		"Info":     func() error { _, err := s.Info(ctx); return err },
		"History":  func() error { _, err := s.History(ctx, "s17"); return err },
		"Sessions": func() error { _, err := s.ListSessions(ctx, ledger.SessionFilter{}); return err },
		"Sent": func() error {
			_, err := s.Deliveries(ctx, ledger.DeliveryFilter{States: []domain.DeliveryState{domain.DeliverySent}, Limit: 20})
			return err
		},
		"DueAddresses": func() error { _, err := s.DueAddresses(ctx); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
