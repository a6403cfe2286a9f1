package sqlite

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

func TestParseQuery(t *testing.T) {
	for q, want := range map[string][]term{
		"two words":        {{"two", false}, {"words", false}},
		`a "b  c" d`:       {{"a", false}, {"b  c", false}, {"d", false}},
		`open "quote here`: {{"open", false}, {"quote here", false}},
		"pre* * **":        {{"pre", true}},
		"!!! -- ()":        nil,
		"":                 nil,
		"a\x00b \xffc":     {{"a", false}, {"b", false}, {"c", false}},
		"C++ a.b@c.d":      {{"C++", false}, {"a.b@c.d", false}},
	} {
		if got := parseQuery(q); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", q, got, want)
		}
	}
	if n := len(parseQuery(strings.Repeat("word ", 1000))); n != maxTerms {
		t.Errorf("%d terms", n)
	}
}

func TestSnippet(t *testing.T) {
	long := strings.Repeat("before ", 50) + "the Café é is " + strings.Repeat("after ", 50)
	got := snippet(long, []term{{text: "cafe"}})
	if !strings.Contains(got, "Café") || !strings.HasPrefix(got, "…") || !strings.HasSuffix(got, "…") || utf8.RuneCountInString(got) > snippetRunes+2 {
		t.Errorf("snippet %q", got)
	}
	for in, want := range map[string]string{"short\n\n text": "short text", "": "", "bad \xff": "bad \uFFFD"} {
		if got := snippet(in, []term{{text: "absent"}}); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzSearch asks for anything: there is never an error, and what was found
// holds every word of the query.
func FuzzSearch(f *testing.F) {
	for _, q := range []string{"hello", `"hello world"`, `"`, "hel*", "a OR b", "NEAR(a b)", "世界", "世界和平 hello", "\x00", "\xff", "col:x", "^x", "-x", "a''b", "%_", "ก็"} {
		f.Add(q)
	}
	ctx := context.Background()
	s, err := Open(ctx, Options{Path: f.TempDir() + "/ledger.db", Kind: "cli"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	now := time.Now()
	c, err := s.StartTurn(ctx, ledger.NewTurn{Kind: domain.TurnAPI, SessionKey: "k"}, now)
	if err != nil {
		f.Fatal(err)
	}
	messages := []domain.Message{{Role: "user", Content: "hello world"}, {Role: "assistant", Content: "世界和平 hello ก็ดี"}, {Role: "user", Content: "a''b %_ \xff \x00 x"}}
	if _, err := s.FinishTurn(ctx, c.Ref(), ledger.Finish{State: domain.TurnDone, Now: now, Messages: messages}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, q string) {
		hits, err := s.Search(ctx, q, 3)
		if err != nil {
			t.Fatalf("%q: %v", q, err)
		}
		if len(hits) > 3 {
			t.Fatalf("%q: %d hits", q, len(hits))
		}
		for _, h := range hits {
			if !utf8.ValidString(h.Snippet) {
				t.Fatalf("%q: snippet %q", q, h.Snippet)
			}
		}
	})
}
