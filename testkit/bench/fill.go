package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
)

// fill writes 10,000 sessions, 100,000 messages and 1,000 jobs into a ledger.
func fill(ctx context.Context, path string) error {
	s, err := sqlite.Open(ctx, sqlite.Options{Path: path, Kind: "cli"})
	if err != nil {
		return err
	}
	defer s.Close()
	const sessions, perSession, workers = 10_000, 10, 64
	next := make(chan int)
	errs := make(chan error, workers)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				if err := fillSession(ctx, s, i, perSession); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	for i := range sessions {
		select {
		case next <- i:
		case err := <-errs:
			close(next)
			return err
		}
	}
	close(next)
	wg.Wait()
	for i := range 1000 {
		j := domain.Job{ID: domain.JobID(fmt.Sprintf("%012x", i)), Name: fmt.Sprintf("job %d", i), Enabled: true,
			Definition: []byte(fmt.Sprintf(`{"name":"job %d","prompt":"say hello","schedule":{"kind":"cron","expr":"0 4 * * *"},"deliver":"local"}`, i)),
			NextAt:     time.Now().Add(time.Duration(i+60) * time.Minute)}
		if _, err := s.PutJob(ctx, j); err != nil {
			return err
		}
	}
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

func fillSession(ctx context.Context, s *sqlite.Store, i, messages int) error {
	src := domain.Source{Address: domain.Address{Platform: "telegram", ChatID: fmt.Sprint(i)}, ChatType: domain.ChatDM, UserID: fmt.Sprint(i)}
	c, err := s.StartTurn(ctx, ledger.NewTurn{Kind: domain.TurnChat, SessionKey: domain.KeyFor(src, true, false), Source: src}, time.Now())
	if err != nil {
		return err
	}
	f := ledger.Finish{State: domain.TurnDone, Now: time.Now()}
	for m := range messages {
		role := domain.RoleUser
		if m%2 == 1 {
			role = domain.RoleAssistant
		}
		f.Messages = append(f.Messages, domain.Message{Role: role, Content: fmt.Sprintf("message %d of session %d, with some words in it", m, i), At: time.Now()})
	}
	_, err = s.FinishTurn(ctx, c.Ref(), f)
	return err
}
