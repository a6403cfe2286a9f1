package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"hermes/internal/control"
	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/secret"
	"hermes/internal/succession"
)

func ids(found []Finding) string {
	var out []string
	for _, f := range found {
		s := f.ID
		for _, x := range f.Symptoms {
			s += "<" + x.ID
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func TestRank(t *testing.T) {
	for _, c := range []struct {
		name  string
		found []Finding
		want  string
	}{
		{"errors before warnings before advice", []Finding{{ID: "c", Severity: Advice}, {ID: "b", Severity: Warning}, {ID: "a", Severity: Error}}, "a b c"},
		{"the deeper first", []Finding{{ID: "work", Severity: Error, depth: ofWork}, {ID: "disk", Severity: Error, depth: ofHost}}, "disk work"},
		{"a cause takes its symptoms", []Finding{{ID: "down", Severity: Error, depth: ofProcess}, {ID: "yaml", Severity: Error, depth: ofFiles, explains: []string{"down"}}}, "yaml<down"},
		{"a cause weighs as much as what it brings about", []Finding{{ID: "x", Severity: Error, depth: ofWork}, {ID: "down", Severity: Error, depth: ofHost}, {ID: "minor", Severity: Warning, depth: ofFiles, explains: []string{"down"}}}, "x minor<down"},
		{"causes of causes", []Finding{{ID: "c", Severity: Error}, {ID: "b", Severity: Error, explains: []string{"c"}}, {ID: "a", Severity: Error, explains: []string{"b"}}}, "a<c<b"},
		{"two that explain each other", []Finding{{ID: "a", Severity: Error, explains: []string{"b"}}, {ID: "b", Severity: Error, explains: []string{"a"}}}, "a<b"},
		{"patterns, and what it is about", []Finding{{ID: "x.one", about: "p", Severity: Error, depth: ofWork}, {ID: "x.one", about: "q", Severity: Error, depth: ofWork}, {ID: "r", Severity: Error, explains: []string{"x.*:p"}}}, "r<x.one x.one"},
		{"one of two with the same ID about the same", []Finding{{ID: "a", Severity: Error, Evidence: []string{"1"}}, {ID: "a", Severity: Error, Evidence: []string{"1", "2"}}}, "a"},
	} {
		if got := ids(rank(c.found)); got != c.want {
			t.Errorf("%s: %s, not %s", c.name, got, c.want)
		}
	}
}

// Whatever explains whatever: nothing is lost, nothing doubled, and what is
// ranked again stays as it is.
func TestRankKeepsEverything(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e", "f", "g"}
	rapid.Check(t, func(t *rapid.T) {
		var found []Finding
		for _, n := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 7, rapid.ID[string]).Draw(t, "names") {
			found = append(found, Finding{ID: n, Severity: rapid.SampledFrom([]Severity{Error, Warning, Advice}).Draw(t, "severity"),
				depth: depth(rapid.IntRange(0, 6).Draw(t, "depth")), explains: rapid.SliceOf(rapid.SampledFrom(append(names, "*"))).Draw(t, "explains")})
		}
		want := strings.Fields(ids(found))
		slices.Sort(want)
		ranked := rank(slices.Clone(found))
		got := strings.FieldsFunc(ids(ranked), func(r rune) bool { return r == ' ' || r == '<' })
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("%v became %s", want, ids(ranked))
		}
		if len(found) > 0 && len(ranked) == 0 {
			t.Fatal("everything is a symptom")
		}
	})
}

// A question that is not answered in time, or whose answer is a panic, is named
// as not known, and the others are answered.
func TestLearn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		c := &Case{redactor: secret.NewRedactor()}
		c.learn(t.Context(), []fact{
			{"the deaf one", time.Second, func(context.Context, *Case) func(*Case) { <-never; return func(c *Case) { c.Root = "late" } }},
			{"the ill one", time.Second, func(context.Context, *Case) func(*Case) { panic("ill") }},
			{"the good one", time.Second, func(context.Context, *Case) func(*Case) { return func(c *Case) { c.Version = "1" } }},
			{"the one that heeds its deadline", time.Second, func(ctx context.Context, _ *Case) func(*Case) {
				<-ctx.Done()
				return func(c *Case) { c.Binary = "known" }
			}},
		})
		close(never)
		synctest.Wait()
		if c.Root != "" || c.Version != "1" || c.Binary != "known" {
			t.Errorf("learnt: %+v", c.Options)
		}
		if len(c.Unknown) != 2 || !strings.Contains(c.Unknown[0], "the deaf one did not answer within 1s") || !strings.Contains(c.Unknown[1], "ill") {
			t.Errorf("unknown: %q", c.Unknown)
		}
	})
}

// All questions together are bounded, whatever each may take.
func TestLearnWithinTheWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		never := make(chan struct{})
		deaf := fact{"the deaf one", time.Hour, func(context.Context, *Case) func(*Case) { <-never; return func(*Case) {} }}
		began := time.Now()
		c := &Case{redactor: secret.NewRedactor()}
		c.learn(ctx, []fact{deaf, deaf})
		c.learn(ctx, []fact{deaf})
		if took := time.Since(began); took > time.Second+2*grace || len(c.Unknown) != 3 {
			t.Errorf("it took %s, and %q is not known", took, c.Unknown)
		}
		close(never)
		synctest.Wait()
	})
}

// No check may fall over what is not known.
func TestChecksBearIgnorance(t *testing.T) {
	p := home.Profile{Name: "default", Root: "/nowhere", Home: "/nowhere"}
	env, _, err := home.LoadEnv(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg, _, err := home.Load(p, env)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Now: time.Now, Binary: "/usr/bin/hermes", Origin: "https://example.org", Request: home.Request{Env: func(string) (string, bool) { return "", false }, UserHome: "/nowhere"}}
	bad := &control.Status{State: "running", Parts: []health.Part{}}
	for _, name := range []string{"api", "model", "cron", "cron.import", "delivery", "ledger", "control", "platform.telegram", "platform.webchat", "tool.terminal"} {
		bad.Parts = append(bad.Parts, health.Part{Name: name, State: health.Down, Code: "x", Message: "y"})
	}
	for name, c := range map[string]*Case{
		"nothing":            {},
		"a configuration":    {Config: cfg, Env: env},
		"a broken one":       {ConfigErr: errors.New("broken")},
		"a bad gateway":      {Config: cfg, Gateway: gatewayFacts{Status: bad}},
		"a bad one, no file": {Gateway: gatewayFacts{Status: bad}},
		"a silent one":       {Config: cfg, Gateway: gatewayFacts{Held: true, Silent: domain.E(domain.Timeout, nil, "no answer"), Holder: succession.Record{PID: 1 << 30}}},
		"a manager's error":  {Units: unitFacts{Booted: true, Manager: errors.New("no bus")}},
		"no profile":         {ProfileErr: errors.New("none")},
	} {
		c.Options, c.Profile, c.redactor = o, p, secret.NewRedactor()
		for i, check := range checks() {
			func() {
				defer func() {
					if p := recover(); p != nil {
						t.Errorf("%s: check %d panics: %v", name, i, p)
					}
				}()
				for _, f := range check(c) {
					if f.ID == "" || f.What == "" || f.Means == "" || f.Fix == "" || f.Class == "" || f.Severity == "" {
						t.Errorf("%s: a finding is not whole: %+v", name, f)
					}
				}
			}()
		}
	}
}

// A safe fix that fails says so, without a secret, and the others are done.
func TestRepair(t *testing.T) {
	const secretWord = "sk-a-secret-of-the-installation"
	redactor := secret.NewRedactor(secretWord)
	done := 0
	r := Report{redact: redactor.Redact, Findings: []Finding{
		{ID: "unsafe", Fix: "rm -rf /"},
		{ID: "fails", Fix: "chmod 600 x", repair: func(context.Context) error { return fmt.Errorf("no: %s", secretWord) }},
		{ID: "works", Fix: "chmod 600 y", repair: func(context.Context) error { done++; return nil }},
	}}
	got := Repair(t.Context(), r)
	if len(got) != 2 || got[0].ID != "fails" || got[0].Problem == "" || strings.Contains(got[0].Problem, secretWord) || got[1].Problem != "" || done != 1 {
		t.Errorf("%+v, done %d", got, done)
	}
}
