package ledgertest

import (
	"fmt"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

var sessionCases = []testCase{
	{"sessions are listed by use", func(e *env) {
		a := e.say("q", "a").Session.ID
		c, err := e.s.StartTurn(e.ctx, ledger.NewTurn{Kind: domain.TurnAPI, SessionKey: "other", SessionID: "api-1",
			Source: domain.Source{Address: domain.Address{Platform: domain.PlatformAPI}}}, e.now)
		e.ok(err)
		_, err = e.s.FinishTurn(e.ctx, c.Ref(), done(e.after(1)))
		e.ok(err)
		list := func(f ledger.SessionFilter) (out []domain.SessionID) {
			ss, err := e.s.ListSessions(e.ctx, f)
			e.ok(err)
			for _, s := range ss {
				out = append(out, s.ID)
			}
			return out
		}
		e.equal("all", list(ledger.SessionFilter{}), []domain.SessionID{"api-1", a})
		e.equal("page", list(ledger.SessionFilter{Limit: 1, Offset: 1}), []domain.SessionID{a})
		e.equal("key", list(ledger.SessionFilter{Key: key}), []domain.SessionID{a})
		e.equal("source", list(ledger.SessionFilter{Source: domain.PlatformAPI}), []domain.SessionID{"api-1"})
	}},
	{"a session can be named", func(e *env) {
		id := e.say("q", "a").Session.ID
		title, model := "T", "m"
		e.ok(e.s.EditSession(e.ctx, id, &title, nil))
		e.ok(e.s.EditSession(e.ctx, id, nil, &model))
		s, err := e.s.Session(e.ctx, id)
		e.ok(err)
		e.equal("session", []any{s.Title, s.Model, s.Key, s.Source}, []any{"T", "m", key, source(chat)})
		e.code(e.s.EditSession(e.ctx, "none", &title, nil), domain.NotFound)
	}},
	{"a summary stands where its messages stood", func(e *env) {
		id := e.say("q1", "a1").Session.ID
		e.say("q2", "a2")
		e.say("q3", "a3")
		ms, err := e.s.History(e.ctx, id)
		e.ok(err)
		e.ok(e.s.Compress(e.ctx, id, ms[3].ID, domain.Message{Role: domain.RoleUser, Content: "summary 1"}))
		e.equal("compressed", e.history(id), []string{"summary 1", "q3", "a3"})
		e.code(e.s.Compress(e.ctx, id, ms[3].ID, domain.Message{}), domain.NotFound) // not active any more
		e.code(e.s.Compress(e.ctx, "none", ms[3].ID, domain.Message{}), domain.NotFound)
		e.say("q4", "a4")
		e.ok(e.s.Compress(e.ctx, id, ms[5].ID, domain.Message{Role: domain.RoleUser, Content: "summary 2"}))
		e.equal("compressed again", e.history(id), []string{"summary 2", "q4", "a4"})
		hits, err := e.s.Search(e.ctx, "q1", 0)
		e.ok(err)
		e.equal("replaced messages are found", len(hits), 1)
		e.equal("undo spares the summary", texts(e.command(ledger.Effects{Undo: 9}).Undone), []string{"q4", "a4"})
		e.equal("left", e.history(id), []string{"summary 2"})
	}},
	{"a missing session has no history", func(e *env) { e.equal("history", e.history("none"), nil) }},
}

var searchCases = []testCase{
	{"words of all scripts are found", func(e *env) {
		id := e.say("Where is the café near Zürich Hauptbahnhof?", "Try \"Kaffee & Kuchen\" at number 42, it's O'Brien's.").Session.ID
		e.say("明日の会議は東京駅の近くで行います", "ตกลง ฉันจะไปประชุมพรุ่งนี้")
		e.say(strings.Repeat("padding ", 200)+"needle "+strings.Repeat("padding ", 200), "found it")
		for query, want := range map[string]string{
			"café":               "Where is the café",
			"CAFE zurich":        "Where is the café",
			"haupt*":             "Where is the café",
			`"kaffee kuchen"`:    "Try ",
			"o'brien's":          "Try ",
			"42":                 "Try ",
			"東京駅":                "明日の",
			"会議":                 "明日の", // two characters: too short for trigrams
			"東京駅 会議":             "明日の",
			"ประชุม":             "ตกลง",
			"needle":             "padding",
			"needle AND padding": "",
			"nothinglikethis":    "",
			`"kuchen kaffee"`:    "",
		} {
			hits, err := e.s.Search(e.ctx, query, 0)
			e.ok(err)
			if want == "" {
				e.equal(query, len(hits), 0)
				continue
			}
			if len(hits) == 0 || !strings.HasPrefix(hits[0].Message.Content, want) {
				e.Errorf("%q found %v", query, hits)
				continue
			}
			e.equal("session", hits[0].Session, id)
			if hits[0].Snippet == "" || len(hits[0].Snippet) > 800 {
				e.Errorf("%q: snippet %q", query, hits[0].Snippet)
			}
		}
		hits, err := e.s.Search(e.ctx, "needle", 0)
		e.ok(err)
		if !strings.Contains(hits[0].Snippet, "needle") {
			e.Errorf("snippet %q", hits[0].Snippet)
		}
	}},
	{"no query is malformed", func(e *env) {
		e.say("alpha beta", "gamma")
		for _, q := range []string{`"`, `alpha "beta`, "alpha NEAR(", "alpha*", "(alpha", "-alpha", "alpha:beta", "content:alpha", `""`, "*", "", "\x00alpha", "alpha\xff", "^alpha", "{alpha}", "alpha+beta", strings.Repeat("alpha ", 500)} {
			if _, err := e.s.Search(e.ctx, q, 5); err != nil {
				e.Errorf("%q: %v", q, err)
			}
		}
		hits, err := e.s.Search(e.ctx, `(alpha "beta`, 5)
		e.ok(err)
		e.equal("as plain words", len(hits), 1)
	}},
	{"what is gone is not found", func(e *env) {
		id := e.say("secret word", "noted").Session.ID
		e.equal("before", e.hits("secret"), 1)
		e.command(ledger.Effects{Undo: 1})
		e.equal("taken back", e.hits("secret"), 0)
		e.say("another secret", "ok")
		e.equal("again", e.hits("secret"), 1)
		e.ok(e.s.DeleteSession(e.ctx, id))
		e.equal("deleted", e.hits("secret"), 0)
	}},
	{"many hits are bounded", func(e *env) {
		for i := range 30 {
			e.say(fmt.Sprintf("common number%d", i), "yes")
		}
		e.equal("default", e.hits("common"), 20)
		hits, err := e.s.Search(e.ctx, "common", 7)
		e.ok(err)
		e.equal("limit", len(hits), 7)
		e.equal("precise", e.hits("common number17"), 1)
	}},
}

func (e *env) hits(query string) int {
	e.Helper()
	hits, err := e.s.Search(e.ctx, query, 0)
	e.ok(err)
	return len(hits)
}
