package sqlite

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// scanAllowed are the reads of a whole table or index that are meant.
var scanAllowed = []struct{ statement, plan, why string }{
	{`FROM process`, `SCAN process`, "a handful of rows"},
	{`FROM inbound INDEXED BY inbound_received`, `INDEX inbound_received`, "only what waits"},
	{`count(*) FROM inbound`, `INDEX inbound_`, "counts of status, from an index"},
	{`count(*) FROM turn`, `INDEX turn_open`, "only what is open"},
	{`count(*) FROM delivery`, `INDEX delivery_`, "counts of status, from an index"},
	{`FROM delivery INDEXED BY delivery_open`, `INDEX delivery_open`, "only what is unsent"},
	{`FROM turn INDEXED BY turn_open`, `INDEX turn_open`, "only what is open"},
	{`t.ended_at IS NULL ORDER BY t.session_key`, `INDEX turn_open`, "only what is open"},
	{`FROM delivery WHERE state = 'sent' ORDER BY id DESC LIMIT`, `SCAN delivery`, "walked from its end, with a limit"},
	{`ended_at IS NULL AND state = 'pending'`, `INDEX delivery_open`, "only what is unsent"},
	{`state = 'dead'`, `INDEX delivery_dead`, "only what is dead"},
	{`FROM question INDEXED BY question_open WHERE answered_at IS NULL`, `INDEX question_open`, "only what is open"},
	{`min(expires_at) FROM question`, `INDEX question_expires`, "its first entry"},
	{`count(*) FROM session`, `COVERING INDEX`, "counts of status, from an index"},
	{`count(*) FROM message`, `COVERING INDEX`, "counts of status, from an index"},
	{`FROM session WHERE 1`, `INDEX session_updated`, "walked from its end, with a limit"},
	{`FROM delivery WHERE 1 ORDER BY id DESC LIMIT`, `SCAN delivery`, "walked from its end, with a limit"},
	{`FROM run WHERE 1 ORDER BY instant`, `INDEX run_instant`, "walked from its end, with a limit"},
	{`FROM job ORDER BY name, id`, `INDEX job_name`, "all were asked for, in order"},
	{`FROM job WHERE enabled = 1 ORDER BY name`, `INDEX job_name`, "all were asked for, in order"},
	{`SELECT job FROM run GROUP BY job`, `COVERING INDEX`, "now and then, in Tidy"},
	{`min(next_at) FROM job`, `INDEX job_due`, "its first entry"},
	{`FROM pairing`, `pairing`, "a handful of rows"},
	{`JOIN message ON`, `VIRTUAL TABLE`, "the index of words"},
	{`message_words`, `VIRTUAL TABLE`, "by row id"},
	{`message_trigrams`, `VIRTUAL TABLE`, "by row id"},
	{`(SELECT * FROM message ORDER BY id DESC LIMIT ?)`, `SCAN message`, "walked from its end, with a limit"},
	{`(SELECT * FROM message ORDER BY id DESC LIMIT ?)`, `SCAN (subquery`, "walked from its end, with a limit"},
}

// TestPlans asks SQLite how it would run every statement of the package: none
// reads a whole table but those that are meant to. It stands for the promise
// that cost does not grow with the ledger, which a stopwatch cannot hold.
func TestPlans(t *testing.T) {
	s := mustOpen(t, Options{Path: filepath.Join(t.TempDir(), "ledger.db"), NoBallast: true})
	everyVerb(t, s)
	texts := map[string]bool{}
	conns := []*conn{s.w}
	for range readers {
		c := <-s.readers
		conns = append(conns, c)
		defer func() { s.readers <- c }()
	}
	for _, c := range conns {
		if c == nil {
			continue
		}
		for q := range c.stmts {
			texts[q] = true
		}
	}
	if len(texts) < 90 {
		t.Fatalf("only %d statements were used", len(texts))
	}
	c, err := openConn(s.readerDSN)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for q := range texts {
		for _, detail := range plan(t, c, q) {
			if !strings.HasPrefix(detail, "SCAN") || strings.HasPrefix(detail, "SCAN CONSTANT") || meant(q, detail) {
				continue
			}
			t.Errorf("%s\n\tin %s", detail, strings.Join(strings.Fields(q), " "))
		}
	}
}

var explainable = regexp.MustCompile(`^\s*(SELECT|INSERT|UPDATE|DELETE)`)

func plan(t *testing.T, c *conn, q string) (details []string) {
	t.Helper()
	if !explainable.MatchString(q) {
		return nil
	}
	// Unbound parameters count as NULL, which the driver would refuse.
	args := make([]any, 32)
	err := c.each("EXPLAIN QUERY PLAN "+q, args, func(r row) error {
		details = append(details, r[3].(string))
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	return details
}

func meant(q, detail string) bool {
	q = strings.Join(strings.Fields(q), " ")
	for _, a := range scanAllowed {
		if strings.Contains(q, a.statement) && strings.Contains(detail, a.plan) {
			return true
		}
	}
	return false
}

// everyVerb calls every method of the store with every kind of argument that
// leads to a statement of its own.
func everyVerb(t *testing.T, s *Store) {
	t.Helper()
	ctx, now := t.Context(), time.Now()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	maybe := func(_ any, _ error) {} // NotFound and the like are fine: the statement ran
	to := domain.Address{Platform: "telegram", ChatID: "1"}
	src := domain.Source{Address: to, Account: "bot"}
	out := []domain.NewDelivery{{To: to, Part: domain.Part{Text: "x"}}}
	event := func(id, text string) ledger.Event {
		return ledger.Event{Inbound: domain.Inbound{Source: src, EventID: id, SessionKey: "k", Text: text}, Replies: out, Pairing: &ledger.Pairing{Platform: "p", UserID: id}}
	}
	batch := ledger.Batch{Platform: "telegram", Account: "bot", Cursor: "1", Events: []ledger.Event{event("1", "a"), event("2", "b"), event("3", "/c"), event("1", "a")}}
	acc, err := s.AcceptInbound(ctx, batch)
	check(err)
	maybe(s.Cursor(ctx, "telegram", "bot"))
	maybe(s.Inbound(ctx, 1))
	maybe(s.Received(ctx, "k"))
	maybe(s.ReceivedCommands(ctx, "k"))
	maybe(s.ActiveKeys(ctx))
	c, _, err := s.ClaimTurn(ctx, "k", ledger.ClaimOptions{Now: now})
	check(err)
	maybe(s.AppendStep(ctx, c.Ref(), domain.Step{Kind: domain.StepInput}))
	check(s.JoinTurn(ctx, c.Ref(), acc[1].ID, domain.Step{Kind: domain.StepInput}))
	check(s.SetPreview(ctx, c.Ref(), "p"))
	check(s.RequeueTurn(ctx, c.Ref()))
	c, _, err = s.ClaimTurn(ctx, "k", ledger.ClaimOptions{Now: now, Collect: true, ResetBefore: now.Add(time.Hour)})
	check(err)
	q, _, err := s.SuspendTurn(ctx, c.Ref(), domain.Question{Kind: domain.AskApproval, Key: "key", ExpiresAt: now}, out)
	check(err)
	maybe(s.OpenQuestions(ctx, ""))
	maybe(s.OpenQuestions(ctx, "k"))
	maybe(s.Question(ctx, q.ID))
	_, _, err = s.ExpireQuestions(ctx, now.Add(time.Hour))
	check(err)
	maybe(s.Granted(ctx, c.Session.ID, "key"))
	maybe(s.AnswerQuestion(ctx, ledger.Answer{Question: q.ID, Text: domain.ApproveAlways}, now))
	c, _, err = s.ClaimTurn(ctx, "k", ledger.ClaimOptions{Now: now})
	check(err)
	_, err = s.FinishTurn(ctx, c.Ref(), ledger.Finish{State: domain.TurnDone, Now: now, Messages: []domain.Message{{Role: "user", Content: "hello 世界和平"}, {Role: "user", Content: "x"}}, Deliveries: out})
	check(err)
	maybe(s.OpenTurns(ctx, ""))
	maybe(s.OpenTurns(ctx, "k"))
	maybe(s.Turn(ctx, c.Turn.ID))

	maybe(s.DueAddresses(ctx))
	d, _, _, err := s.ClaimDelivery(ctx, to, now)
	check(err)
	check(s.MarkRetry(ctx, ledger.DeliveryRef{ID: d.ID, Attempt: d.Attempt}, now, "r", true, &domain.Part{}, new(string)))
	d, _, _, err = s.ClaimDelivery(ctx, to, now)
	check(err)
	check(s.MarkSent(ctx, ledger.DeliveryRef{ID: d.ID, Attempt: d.Attempt}, "r", now))
	check(s.DropDelivery(ctx, d.ID+1, "", now))
	maybe(s.RetryDelivery(ctx, d.ID+1, now))
	check(s.MoveAddress(ctx, to, domain.Address{Platform: "x"}))
	for _, f := range []ledger.DeliveryFilter{{}, {RunID: 1}, {TurnID: 1}, {States: []domain.DeliveryState{"dead", "sent", "pending"}}} {
		maybe(s.Deliveries(ctx, f))
	}
	maybe(s.ChatLog(ctx, to, 1))

	maybe(s.Session(ctx, c.Session.ID))
	maybe(s.CurrentSession(ctx, "k"))
	for _, f := range []ledger.SessionFilter{{}, {Key: "k"}, {Source: "p"}} {
		maybe(s.ListSessions(ctx, f))
	}
	h, err := s.History(ctx, c.Session.ID)
	check(err)
	check(s.Compress(ctx, c.Session.ID, h[0].ID, domain.Message{Role: "user", Content: "s"}))
	title := "t"
	check(s.EditSession(ctx, c.Session.ID, &title, &title))
	for _, q := range []string{"hello", "世界和", "世界"} {
		_, err := s.Search(ctx, q, 1)
		check(err)
	}
	_, err = s.FinishCommand(ctx, acc[2].ID, now, ledger.Effects{Key: "k", Resume: c.Session.ID, Undo: 1, Title: &title, EndSession: "r", DropQueued: true,
		Queue: &ledger.NewTurn{Kind: domain.TurnChat, SessionKey: "k", SessionID: "fixed"}, Deliveries: out})
	check(err)

	j, err := s.PutJob(ctx, domain.Job{ID: "j", Enabled: true, NextAt: now, Definition: json.RawMessage("{}")})
	check(err)
	maybe(s.PutJob(ctx, j))
	maybe(s.PutJob(ctx, domain.Job{ID: "none", Version: 7, Definition: json.RawMessage("{}")}))
	maybe(s.Job(ctx, "j"))
	maybe(s.ListJobs(ctx, ledger.JobFilter{}))
	maybe(s.ListJobs(ctx, ledger.JobFilter{EnabledOnly: true}))
	maybe(s.NextDue(ctx))
	maybe(s.DueJobs(ctx, now, 1))
	runs, err := s.Fire(ctx, "j", now, time.Time{}, []domain.Run{{Instant: now}, {Instant: now.Add(time.Second)}})
	check(err)
	maybe(s.DueRuns(ctx, 1))
	for _, f := range []ledger.RunFilter{{}, {Job: "j"}, {Since: now}, {States: []domain.RunState{"ok"}}} {
		maybe(s.Runs(ctx, f))
	}
	r, _, err := s.ClaimRun(ctx, runs[0].ID, now)
	check(err)
	maybe(s.StartTurn(ctx, ledger.NewTurn{Kind: domain.TurnCron, SessionKey: "c", RunID: r.ID}, now))
	maybe(s.FinishRun(ctx, ledger.RunEnd{Ref: ledger.RunRef{ID: r.ID, Fence: r.Fence}, State: domain.RunOK}, out, now))
	check(s.DeleteJob(ctx, "j"))

	l, err := s.AcquireLease(ctx, "l")
	check(err)
	check(s.CheckLease(ctx, l))
	check(s.ReleaseLease(ctx, l))
	dead := mustOpen(t, Options{Path: s.path, NoBallast: true})
	_, _, err = dead.ClaimRun(ctx, runs[1].ID, now)
	check(err)
	maybe(dead.StartTurn(ctx, ledger.NewTurn{Kind: domain.TurnCron, SessionKey: "c", RunID: runs[1].ID}, now))
	maybe(dead.StartTurn(ctx, ledger.NewTurn{Kind: domain.TurnAPI, SessionKey: "c"}, now))
	dead.Kill()
	_, err = s.Recover(ctx, now)
	check(err)

	check(s.PutPairing(ctx, ledger.Pairing{Platform: "p", UserID: "u"}))
	maybe(s.ListPairings(ctx, "p"))
	check(s.DeletePairing(ctx, "p", "u"))
	check(s.SetNote(ctx, "k", "v"))
	check(s.SetNote(ctx, "k", ""))
	maybe(s.Note(ctx, "k"))
	maybe(s.Info(ctx))
	check(s.Check(ctx))
	open, err := s.OpenTurns(ctx, "k")
	check(err)
	for _, t := range open {
		check(s.CancelTurn(ctx, t.ID, "x", now))
	}
	check(s.DeleteSession(ctx, "fixed"))
	check(s.Tidy(ctx, now.Add(time.Hour), ledger.Retention{Inbound: 1, Steps: 1, Deliveries: 1, RunsPerJob: 1}))
}
