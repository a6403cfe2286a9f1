package sqlite

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var freeze = flag.Bool("freeze", false, "write the schema of a new migration into testdata/frozen")

// column is what a statement of another release depends on.
type column struct {
	kind, fallback string
	notNull        bool
	key            int
	hasFallback    bool
}

// schema is what the programs of a release can rely on.
type schema struct {
	text     string                       // as SQLite keeps it
	columns  map[string]map[string]column // by table
	unique   map[string]string            // by name: what may stand only once
	triggers map[string]string
	indexes  map[string]bool // statements name them (INDEXED BY)
	checks   map[string]int  // by table: how often its text says CHECK or REFERENCES
}

// schemaOf applies scripts to an empty file and reads what is there then.
func schemaOf(t *testing.T, scripts ...string) schema {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.db")
	dsn, err := connector(path, false)
	if err != nil {
		t.Fatal(err)
	}
	c, err := openConn(dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for _, text := range scripts {
		if err := c.script(text); err != nil {
			t.Fatal(err)
		}
	}
	s := schema{columns: map[string]map[string]column{}, unique: map[string]string{}, triggers: map[string]string{}, indexes: map[string]bool{}, checks: map[string]int{}}
	var b strings.Builder
	each := func(q string, f func(r row) error, args ...any) {
		t.Helper()
		if err := c.each(q, args, f); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	var tables []string
	each(`SELECT s.type, s.name, s.sql FROM sqlite_schema s LEFT JOIN pragma_table_list l ON l.name = s.tbl_name AND l.schema = 'main'
		WHERE s.sql IS NOT NULL AND s.name NOT LIKE 'sqlite_%' AND coalesce(l.type, '') <> 'shadow' ORDER BY s.type DESC, s.name`, func(r row) error {
		var kind, name, text string
		if err := r.scan(&kind, &name, &text); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s;\n\n", text)
		switch kind {
		case "table":
			tables = append(tables, name)
			upper := strings.ToUpper(text)
			s.checks[name] = strings.Count(upper, "CHECK") + strings.Count(upper, "REFERENCES")
		case "index":
			s.indexes[name] = true
		case "trigger":
			s.triggers[name] = text
		}
		return nil
	})
	s.text = b.String()
	for _, table := range tables {
		s.columns[table] = map[string]column{}
		each(`SELECT name, type, "notnull", coalesce(dflt_value, ''), dflt_value IS NOT NULL, pk FROM pragma_table_xinfo(?)`, func(r row) error {
			var name string
			var col column
			err := r.scan(&name, &col.kind, &col.notNull, &col.fallback, &col.hasFallback, &col.key)
			s.columns[table][name] = col
			return err
		}, table)
		each(`SELECT l.name, group_concat(coalesce(i.name, '(expression)')) || CASE WHEN l.partial THEN ' partial' ELSE '' END
			FROM pragma_index_list(?) l, pragma_index_info(l.name) i WHERE l."unique" GROUP BY l.name`, func(r row) error {
			var name, what string
			err := r.scan(&name, &what)
			s.unique[table+"."+name] = what
			return err
		}, table)
	}
	return s
}

// contractions lists what a program that was written for old can trip over in
// new: the rules of a schema that only expands.
func contractions(old, new schema) (out []string) {
	for table, columns := range old.columns {
		now, ok := new.columns[table]
		if !ok {
			out = append(out, "table "+table+" was removed or renamed")
			continue
		}
		for name, col := range columns {
			if got, ok := now[name]; !ok {
				out = append(out, "column "+table+"."+name+" was removed or renamed")
			} else if got != col {
				out = append(out, "column "+table+"."+name+" was changed")
			}
		}
		for name, col := range now {
			if _, known := columns[name]; !known && (col.key > 0 || col.notNull && !col.hasFallback) {
				out = append(out, "column "+table+"."+name+" is new, but neither nullable nor defaulted")
			}
		}
		if new.checks[table] > old.checks[table] {
			out = append(out, "table "+table+" has new constraints")
		}
	}
	for name, what := range new.unique {
		table, _, _ := strings.Cut(name, ".")
		if _, known := old.columns[table]; known && old.unique[name] != what {
			out = append(out, "index "+name+" forbids rows that were allowed")
		}
	}
	for name := range old.indexes {
		if !new.indexes[name] {
			out = append(out, "index "+name+" was removed or renamed")
		}
	}
	for name := range new.triggers {
		if _, known := old.triggers[name]; !known {
			out = append(out, "trigger "+name+" is new")
		}
	}
	return out
}

func frozenPath(number int) string { return fmt.Sprintf("testdata/frozen/%04d.sql", number) }

func frozenSchema(t *testing.T, number int) schema {
	t.Helper()
	text, err := os.ReadFile(frozenPath(number))
	if err != nil {
		t.Fatal(err)
	}
	return schemaOf(t, string(text))
}

// TestMigrationsMakeTheFrozenSchemas holds every migration to the schema that it
// made when it was released: one that is changed afterwards would leave two
// kinds of ledgers with one number.
func TestMigrationsMakeTheFrozenSchemas(t *testing.T) {
	var scripts []string
	for _, m := range migrations() {
		scripts = append(scripts, m.text)
		got := schemaOf(t, scripts...).text
		want, err := os.ReadFile(frozenPath(m.number))
		if errors.Is(err, fs.ErrNotExist) && *freeze {
			err = os.WriteFile(frozenPath(m.number), []byte(got), 0o644)
			want = []byte(got)
		}
		if err != nil {
			t.Fatalf("%v; a new migration is frozen by `go test ./internal/ledger/sqlite -run Frozen -freeze`", err)
		}
		if got != string(want) {
			t.Errorf("migration %s makes another schema than %s; write a new migration instead of changing a released one", m.name, frozenPath(m.number))
		}
	}
}

// TestSchemaOnlyExpands holds each frozen schema to the one before: a program of
// the release before must work on it.
func TestSchemaOnlyExpands(t *testing.T) {
	for _, m := range migrations()[1:] {
		for _, what := range contractions(frozenSchema(t, m.number-1), frozenSchema(t, m.number)) {
			t.Errorf("%s: %s", m.name, what)
		}
	}
}

// TestContractionsAreSeen holds the rules themselves.
func TestContractionsAreSeen(t *testing.T) {
	const before = `CREATE TABLE a (id INTEGER PRIMARY KEY, x TEXT NOT NULL, y INTEGER); CREATE INDEX a_x ON a (x);`
	for change, want := range map[string]string{
		`ALTER TABLE a ADD COLUMN z TEXT; CREATE TABLE b (k TEXT NOT NULL UNIQUE); CREATE INDEX a_y ON a (y);`: "",
		`DROP INDEX a_x;`: "index a_x was removed or renamed",
		`ALTER TABLE a ADD COLUMN z TEXT NOT NULL DEFAULT '';`:                                              "",
		`ALTER TABLE a DROP COLUMN y;`:                                                                      "column a.y was removed or renamed",
		`ALTER TABLE a RENAME COLUMN y TO z;`:                                                               "column a.y was removed or renamed",
		`ALTER TABLE a RENAME TO b;`:                                                                        "table a was removed or renamed",
		`DROP TABLE a; CREATE TABLE a (id INTEGER PRIMARY KEY, x TEXT NOT NULL, y TEXT);`:                   "column a.y was changed",
		`DROP TABLE a; CREATE TABLE a (id INTEGER PRIMARY KEY, x TEXT NOT NULL, y INTEGER, z INT NOT NULL)`: "column a.z is new, but neither nullable nor defaulted",
		`CREATE UNIQUE INDEX a_once ON a (x);`:                                                              "index a.a_once forbids rows that were allowed",
		`ALTER TABLE a ADD COLUMN z INTEGER CHECK (z > 1);`:                                                 "table a has new constraints",
		`CREATE TRIGGER t BEFORE INSERT ON a BEGIN SELECT raise(ABORT, 'no'); END;`:                         "trigger t is new",
	} {
		if got := strings.Join(contractions(schemaOf(t, before), schemaOf(t, before, change)), "; "); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%s\n\tgot %q, want %q", change, got, want)
		}
	}
}

// TestLedgerAsksForNoProgramNewerThanTheOneBefore: the release before must open
// what this one made.
func TestLedgerAsksForNoProgramNewerThanTheOneBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	mustOpen(t, Options{Path: path, NoBallast: true}).Close()
	if oldest := QueryInt(t, path, `SELECT cast(value AS INTEGER) FROM meta WHERE key = 'oldest_reader'`); oldest < 1 || oldest > int64(max(1, headSchema()-1)) {
		t.Errorf("the ledger asks for schema %d; programs of schema %d must open it", oldest, headSchema()-1)
	}
}
