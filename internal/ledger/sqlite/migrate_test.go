package sqlite

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

func openIn(t *testing.T, o Options) (*Store, error) {
	t.Helper()
	if o.Kind == "" {
		o.Kind = "gateway"
	}
	s, err := Open(t.Context(), o)
	if err == nil {
		t.Cleanup(func() { s.Close() })
	}
	return s, err
}

func mustOpen(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := openIn(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// execFile runs statements on the file behind the ledger's back.
func execFile(t *testing.T, path, text string) {
	t.Helper()
	dsn, err := connector(path, false)
	if err != nil {
		t.Fatal(err)
	}
	c, err := openConn(dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.script(text); err != nil {
		t.Fatal(err)
	}
}

func TestMigrationsAreNumbered(t *testing.T) {
	for i, m := range migrations() {
		if m.number != i+1 {
			t.Errorf("migration %s stands where number %d belongs", m.name, i+1)
		}
	}
}

// TestUpgrade takes a ledger with the first schema, frozen in testdata, to the
// newest: everything in it is still there and works.
func TestUpgrade(t *testing.T) {
	frozen, err := os.ReadFile("testdata/schema-1.sql")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	execFile(t, path, string(frozen))
	s := mustOpen(t, Options{Path: path, NoBallast: true})
	if v := QueryInt(t, path, "PRAGMA user_version"); v != int64(headSchema()) {
		t.Errorf("schema is %d, want %d", v, headSchema())
	}
	rec, err := s.Recover(t.Context(), time.Now())
	if err != nil || rec.Uncertain != 1 || rec.Processes != 1 {
		t.Errorf("recovered %+v: %v", rec, err)
	}
	hits, err := s.Search(t.Context(), "old question", 0)
	if err != nil || len(hits) != 1 {
		t.Errorf("search found %v: %v", hits, err)
	}
	c, ok, err := s.ClaimTurn(t.Context(), "agent:main:telegram:dm:1", ledger.ClaimOptions{Now: time.Now()})
	if err != nil || !ok || c.Turn.Input[0].Content != "still waiting" || c.NewSession {
		t.Errorf("claimed %+v (%v): %v", c, ok, err)
	}
	// The copy from before is a ledger of the old schema.
	backup := path + ".schema-1"
	if v := QueryInt(t, backup, "PRAGMA user_version"); v != 1 {
		t.Errorf("the copy has schema %d", v)
	}
	if st, err := os.Stat(backup); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the copy: %v %v", st, err)
	}
}

// TestOlderProgram opens a ledger that a newer program has upgraded.
func TestOlderProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	mustOpen(t, Options{Path: path, NoBallast: true}).Close()
	older := Options{Path: path, NoBallast: true, maxSchema: headSchema() - 1}
	if _, err := openIn(t, older); err != nil {
		t.Fatalf("an expansion must not lock out the release before: %v", err)
	}
	execFile(t, path, `UPDATE meta SET value = '`+strconv.Itoa(headSchema())+`' WHERE key = 'oldest_reader'`)
	if _, err := openIn(t, older); !domain.IsCode(err, domain.Config) {
		t.Fatalf("a ledger that asks for a newer program was opened: %v", err)
	}
	if _, err := openIn(t, Options{Path: path, NoBallast: true}); err != nil {
		t.Fatal(err)
	}
}

// TestSpaceIsGivenBack holds the file to incremental vacuum.
func TestSpaceIsGivenBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := mustOpen(t, Options{Path: path, NoBallast: true})
	for i := range 200 {
		if err := s.SetNote(t.Context(), strconv.Itoa(i), strings.Repeat("x", 10_000)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		if err := s.SetNote(t.Context(), strconv.Itoa(i), ""); err != nil {
			t.Fatal(err)
		}
	}
	before := QueryInt(t, path, "PRAGMA page_count")
	if err := s.Tidy(t.Context(), time.Now(), ledger.Retention{}); err != nil {
		t.Fatal(err)
	}
	if after := QueryInt(t, path, "PRAGMA page_count"); after > before/2 {
		t.Errorf("%d pages before, %d after", before, after)
	}
}
