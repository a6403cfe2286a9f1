package e2e

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // the driver

	"hermes/internal/control"
)

// damage overwrites the page on which a table of the ledger begins.
func (w *world) damage(table string) {
	w.t.Helper()
	path := filepath.Join(w.home.Dir, "ledger.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	var page, size, busy int64
	if err := db.QueryRow("SELECT rootpage FROM sqlite_schema WHERE name = ?", table).Scan(&page); err != nil {
		w.t.Fatal(err)
	}
	if err := db.QueryRow("PRAGMA page_size").Scan(&size); err != nil {
		w.t.Fatal(err)
	}
	if err := db.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, new(int64), new(int64)); err != nil || busy != 0 {
		w.t.Fatal(busy, err)
	}
	db.Close()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(strings.Repeat("\xA5", int(size))), (page-1)*size); err != nil {
		w.t.Fatal(err)
	}
}

// A ledger with damaged pages is no end: the gateway starts, on what could be
// read, keeps the file, and says so in status and, once, in the home channel.
func TestALedgerWithDamagedPages(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	p := w.start()
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "/sethome")
	w.sees(ann.ID, "ome channel")
	w.tg.Say(ann, "remember me")
	w.sees(ann.ID, "remember me")
	w.stop(p)
	w.damage("process") // which every start writes to
	p = w.start()
	w.sees(ann.ID, "The ledger was damaged")
	s := w.waitStatus("the status tells of the damage", func(s control.Status) bool { return !s.Healthy && shows(s, "damaged") })
	if s.Ledger.Messages < 2 || s.Ledger.Salvaged == nil {
		t.Errorf("the ledger is %+v", s.Ledger)
	} else if _, err := os.Stat(s.Ledger.Salvaged.Kept); err != nil {
		t.Error(err)
	}
	w.tg.Say(ann, "and now")
	w.sees(ann.ID, "and now")
	w.stop(p)
	p = w.start()
	w.tg.Say(ann, "once more")
	w.sees(ann.ID, "once more")
	if n := w.count(ann.ID, "The ledger was damaged"); n != 1 {
		t.Errorf("told %d times", n)
	}
	w.stop(p)
}
