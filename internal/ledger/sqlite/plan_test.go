package sqlite

import (
	"context"
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
	{`FROM job WHERE enabled = 1 AND next_at IS NOT NULL ORDER BY name`, `INDEX job_name`, "a page was asked for, in order"},
	{`FROM job WHERE name = ? COLLATE NOCASE`, `INDEX job_name`, "a person wrote the name; the index is narrow"},
	{`count(*) FROM job`, `SCAN job`, "counted for a person who pages"},
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
	for _, c := range append([]*conn{s.w}, s.readers.idle...) {
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

// tour calls every method of the store with every kind of argument that leads
// to a statement of its own.
type tour struct {
	*testing.T
	s   *Store
	ctx context.Context
	now time.Time
	to  domain.Address
	out []domain.NewDelivery
}

func everyVerb(t *testing.T, s *Store) {
	t.Helper()
	to := domain.Address{Platform: "telegram", ChatID: "1"}
	v := &tour{T: t, s: s, ctx: t.Context(), now: time.Now(), to: to, out: []domain.NewDelivery{{To: to, Part: domain.Part{Text: "x"}}}}
	command, session := v.turns()
	v.outbox()
	v.sessions(command, session)
	v.jobs()
	v.processes()
	v.rest()
}

func (v *tour) check(err error) {
	v.Helper()
	if err != nil {
		v.Fatal(err)
	}
}

// maybe is for reads that may find nothing: the statement ran.
func maybe(any, error) {}

// turns gives a command that waits and the session that was spoken in.
func (v *tour) turns() (command int64, session domain.SessionID) {
	src := domain.Source{Address: v.to, Account: "bot"}
	event := func(id, text string) ledger.Event {
		return ledger.Event{Inbound: domain.Inbound{Source: src, EventID: id, SessionKey: "k", Text: text}, Replies: v.out, Pairing: &ledger.Pairing{Platform: "p", UserID: id}}
	}
	batch := ledger.Batch{Platform: "telegram", Account: "bot", Cursor: "1", Events: []ledger.Event{event("1", "a"), event("2", "b"), event("3", "/c"), event("1", "a")}}
	acc, err := v.s.AcceptInbound(v.ctx, batch)
	v.check(err)
	maybe(v.s.Cursor(v.ctx, "telegram", "bot"))
	maybe(v.s.Inbound(v.ctx, 1))
	maybe(v.s.Received(v.ctx, "k"))
	maybe(v.s.ReceivedCommands(v.ctx, "k"))
	maybe(v.s.ActiveKeys(v.ctx))
	c, _, err := v.s.ClaimTurn(v.ctx, "k", ledger.ClaimOptions{Now: v.now})
	v.check(err)
	maybe(v.s.AppendStep(v.ctx, c.Ref(), domain.Step{Kind: domain.StepInput}))
	v.check(v.s.JoinTurn(v.ctx, c.Ref(), acc[1].ID, domain.Step{Kind: domain.StepInput}))
	v.check(v.s.SetPreview(v.ctx, c.Ref(), "p"))
	v.check(v.s.RequeueTurn(v.ctx, c.Ref()))
	c, _, err = v.s.ClaimTurn(v.ctx, "k", ledger.ClaimOptions{Now: v.now, Collect: true, ResetBefore: v.now.Add(time.Hour)})
	v.check(err)
	q, _, err := v.s.SuspendTurn(v.ctx, c.Ref(), domain.Question{Kind: domain.AskApproval, Key: "key", ExpiresAt: v.now}, v.out)
	v.check(err)
	maybe(v.s.OpenQuestions(v.ctx, ""))
	maybe(v.s.OpenQuestions(v.ctx, "k"))
	maybe(v.s.Question(v.ctx, q.ID))
	_, _, err = v.s.ExpireQuestions(v.ctx, v.now.Add(time.Hour))
	v.check(err)
	maybe(v.s.Granted(v.ctx, c.Session.ID, "key"))
	maybe(v.s.AnswerQuestion(v.ctx, ledger.Answer{Question: q.ID, Text: domain.ApproveAlways}, v.now))
	c, _, err = v.s.ClaimTurn(v.ctx, "k", ledger.ClaimOptions{Now: v.now})
	v.check(err)
	_, err = v.s.FinishTurn(v.ctx, c.Ref(), ledger.Finish{State: domain.TurnDone, Now: v.now, Messages: []domain.Message{{Role: "user", Content: "hello 世界和平"}, {Role: "user", Content: "x"}}, Deliveries: v.out})
	v.check(err)
	maybe(v.s.OpenTurns(v.ctx, ""))
	maybe(v.s.OpenTurns(v.ctx, "k"))
	maybe(v.s.Turn(v.ctx, c.Turn.ID))
	return acc[2].ID, c.Session.ID
}

func (v *tour) outbox() {
	maybe(v.s.DueAddresses(v.ctx))
	d, _, _, err := v.s.ClaimDelivery(v.ctx, v.to, v.now)
	v.check(err)
	v.check(v.s.MarkRetry(v.ctx, ledger.DeliveryRef{ID: d.ID, Attempt: d.Attempt}, v.now, "r", true, &domain.Part{}, new(string)))
	d, _, _, err = v.s.ClaimDelivery(v.ctx, v.to, v.now)
	v.check(err)
	v.check(v.s.MarkSent(v.ctx, ledger.DeliveryRef{ID: d.ID, Attempt: d.Attempt}, "r", v.now))
	v.check(v.s.DropDelivery(v.ctx, d.ID+1, "", v.now))
	maybe(v.s.RetryDelivery(v.ctx, d.ID+1, v.now))
	v.check(v.s.MoveAddress(v.ctx, v.to, domain.Address{Platform: "x"}))
	for _, f := range []ledger.DeliveryFilter{{}, {RunID: 1}, {TurnID: 1}, {States: []domain.DeliveryState{"dead", "sent", "pending"}}} {
		maybe(v.s.Deliveries(v.ctx, f))
	}
	maybe(v.s.ChatLog(v.ctx, v.to, 1))
}

func (v *tour) sessions(command int64, session domain.SessionID) {
	maybe(v.s.Session(v.ctx, session))
	maybe(v.s.CurrentSession(v.ctx, "k"))
	for _, f := range []ledger.SessionFilter{{}, {Key: "k"}, {Source: "p"}} {
		maybe(v.s.ListSessions(v.ctx, f))
	}
	h, err := v.s.History(v.ctx, session)
	v.check(err)
	v.check(v.s.Compress(v.ctx, session, h[0].ID, domain.Message{Role: "user", Content: "s"}))
	title := "t"
	v.check(v.s.EditSession(v.ctx, session, &title, &title))
	for _, q := range []string{"hello", "世界和", "世界"} {
		_, err := v.s.Search(v.ctx, q, 1)
		v.check(err)
	}
	_, err = v.s.FinishCommand(v.ctx, command, v.now, ledger.Effects{Key: "k", Resume: session, Undo: 1, Title: &title, EndSession: "r", DropQueued: true,
		Queue: &ledger.NewTurn{Kind: domain.TurnChat, SessionKey: "k", SessionID: "fixed"}, Deliveries: v.out})
	v.check(err)
}

func (v *tour) jobs() {
	j, err := v.s.PutJob(v.ctx, domain.Job{ID: "j", Enabled: true, NextAt: v.now, Definition: json.RawMessage("{}")})
	v.check(err)
	maybe(v.s.PutJob(v.ctx, j))
	maybe(v.s.PutJob(v.ctx, domain.Job{ID: "none", Version: 7, Definition: json.RawMessage("{}")}))
	maybe(v.s.Job(v.ctx, "j"))
	maybe(v.s.ListJobs(v.ctx, ledger.JobFilter{}))
	for _, f := range []ledger.JobFilter{{EnabledOnly: true}, {Scheduled: true}, {Name: "j"}} {
		maybe(v.s.ListJobs(v.ctx, f))
		maybe(v.s.CountJobs(v.ctx, f))
	}
	maybe(v.s.NextDue(v.ctx))
	maybe(v.s.DueJobs(v.ctx, v.now, 1))
	runs, err := v.s.Fire(v.ctx, "j", v.now, time.Time{}, []domain.Run{{Instant: v.now}, {Instant: v.now.Add(time.Second)}})
	v.check(err)
	maybe(v.s.DueRuns(v.ctx, 1))
	for _, f := range []ledger.RunFilter{{}, {Job: "j"}, {Since: v.now}, {States: []domain.RunState{"ok"}}} {
		maybe(v.s.Runs(v.ctx, f))
	}
	r, _, err := v.s.ClaimRun(v.ctx, runs[0].ID, v.now)
	v.check(err)
	maybe(v.s.StartTurn(v.ctx, ledger.NewTurn{Kind: domain.TurnCron, SessionKey: "c", RunID: r.ID}, v.now))
	maybe(v.s.FinishRun(v.ctx, ledger.RunEnd{Ref: ledger.RunRef{ID: r.ID, Fence: r.Fence}, State: domain.RunOK}, v.out, v.now))
	maybe(v.s.ForgetMissed(v.ctx, v.now))
	v.check(v.s.DeleteJob(v.ctx, "j"))
}

func (v *tour) processes() {
	due, err := v.s.DueRuns(v.ctx, 1)
	v.check(err)
	l, err := v.s.AcquireLease(v.ctx, "l")
	v.check(err)
	v.check(v.s.CheckLease(v.ctx, l))
	v.check(v.s.ReleaseLease(v.ctx, l))
	dead := mustOpen(v.T, Options{Path: v.s.path, NoBallast: true})
	_, _, err = dead.ClaimRun(v.ctx, due[0].ID, v.now)
	v.check(err)
	maybe(dead.StartTurn(v.ctx, ledger.NewTurn{Kind: domain.TurnCron, SessionKey: "c", RunID: due[0].ID}, v.now))
	maybe(dead.StartTurn(v.ctx, ledger.NewTurn{Kind: domain.TurnAPI, SessionKey: "c"}, v.now))
	dead.Kill()
	_, err = v.s.Recover(v.ctx, v.now)
	v.check(err)
}

func (v *tour) rest() {
	v.check(v.s.PutPairing(v.ctx, ledger.Pairing{Platform: "p", UserID: "u"}))
	maybe(v.s.ListPairings(v.ctx, "p"))
	v.check(v.s.DeletePairing(v.ctx, "p", "u"))
	v.check(v.s.SetNote(v.ctx, "k", "v"))
	v.check(v.s.SetNote(v.ctx, "k", ""))
	maybe(v.s.Note(v.ctx, "k"))
	maybe(v.s.Info(v.ctx))
	v.check(v.s.Check(v.ctx))
	open, err := v.s.OpenTurns(v.ctx, "k")
	v.check(err)
	for _, t := range open {
		v.check(v.s.CancelTurn(v.ctx, t.ID, "x", v.now))
	}
	v.check(v.s.DeleteSession(v.ctx, "fixed"))
	v.check(v.s.Tidy(v.ctx, v.now.Add(time.Hour), ledger.Retention{Inbound: 1, Steps: 1, Deliveries: 1, RunsPerJob: 1}))
}
