package sqlite

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// grown makes a ledger with many messages and a turn that a process
// left running.
func grown(t *testing.T) (path string) {
	t.Helper()
	path = firstLedger(t)
	mustOpen(t, Options{Path: path, NoBallast: true}).Close()
	execFile(t, path, `WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1500) INSERT INTO message (session, role, content, at) SELECT 1, 'user', 'text number '||x||' `+strings.Repeat("and more ", 30)+`', x FROM n;
		PRAGMA wal_checkpoint(TRUNCATE);`)
	return path
}

// pageSize is that of a file that SQLite makes.
const pageSize = 4096

// spoil overwrites pages of a file, from a share of its length on.
func spoil(t *testing.T, path string, share float64, pages int) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	spoilPages(t, path, max(1, int64(float64(st.Size()/pageSize)*share)), pages)
}

// spoilPages overwrites pages; the first of the file is 0.
func spoilPages(t *testing.T, path string, from int64, pages int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(strings.Repeat("\xA5", pages*pageSize)), from*pageSize); err != nil {
		t.Fatal(err)
	}
}

// Of a ledger with damaged pages everything else is saved, the file is kept, and
// it is told.
func TestDamagedLedgerIsSalvaged(t *testing.T) {
	path := grown(t)
	spoil(t, path, 0.5, 3)
	if err := os.WriteFile(DamageMark(path), nil, 0o600); err != nil { // as whoever meets the damage leaves it
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, Options{Path: path, NoBallast: true})
	info, err := s.Info(t.Context())
	if err != nil || info.Salvaged == nil {
		t.Fatalf("%+v: %v", info, err)
	}
	if info.Messages < 1400 || info.Messages >= 1502 {
		t.Errorf("%d messages of 1502 were saved", info.Messages)
	}
	if got := strings.Join(info.Salvaged.Lost, " "); got != "message" {
		t.Errorf("incomplete: %q", got)
	}
	if kept, err := os.ReadFile(info.Salvaged.Kept); err != nil || string(kept) != string(before) {
		t.Errorf("the damaged file is not kept as it was: %v", err)
	}
	rec, err := s.Recover(t.Context(), time.Now())
	if err != nil || rec.Uncertain != 1 {
		t.Errorf("recovered %+v: %v", rec, err)
	}
	if hits, err := s.Search(t.Context(), "old question", 0); err != nil || len(hits) != 1 {
		t.Errorf("search found %v: %v", hits, err)
	}
	if _, ok, err := s.ClaimTurn(t.Context(), "agent:main:telegram:dm:1", ledger.ClaimOptions{Now: time.Now()}); err != nil || !ok {
		t.Errorf("claimed %v: %v", ok, err)
	}
	if found := QueryText(t, path, "PRAGMA integrity_check"); found != "ok" {
		t.Errorf("the new ledger: %s", found)
	}
	if err := s.SalvageTold(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Close()
	again := mustOpen(t, Options{Path: path, NoBallast: true})
	if info, err := again.Info(t.Context()); err != nil || info.Salvaged == nil || !info.Salvaged.Told {
		t.Errorf("%+v: %v", info.Salvaged, err)
	}
}

// Wherever the damage lies, the ledger opens and works.
func TestDamageAnywhere(t *testing.T) {
	clean := grown(t)
	text, err := os.ReadFile(clean)
	if err != nil {
		t.Fatal(err)
	}
	for share := 0.001; share < 0.98; share += 0.16 {
		path := filepath.Join(t.TempDir(), "ledger.db")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(runDir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(DamageMark(path), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		spoil(t, path, share, 1)
		s := mustOpen(t, Options{Path: path, NoBallast: true})
		info, err := s.Info(t.Context())
		if err != nil || info.Salvaged == nil {
			t.Fatalf("damage at %.2f: %+v: %v", share, info, err)
		}
		if err := s.Check(t.Context()); err != nil {
			t.Errorf("damage at %.2f: %v", share, err)
		}
		t.Logf("damage at %.2f: %d rows, incomplete %v", share, info.Salvaged.Rows, info.Salvaged.Lost)
		s.Close()
	}
}

// A command and a process that does not serve yet leave the damage alone, and
// nobody takes the file from under another process.
func TestSalvageIsTheServersAlone(t *testing.T) {
	path := grown(t)
	other := mustOpen(t, Options{Path: path, NoBallast: true})
	root := QueryInt(t, path, `SELECT rootpage FROM sqlite_schema WHERE name = 'process'`)
	execFile(t, path, `PRAGMA wal_checkpoint(TRUNCATE);`)
	spoilPages(t, path, root-1, 1)
	if _, err := openIn(t, Options{Path: path, Kind: kindCommand}); !domain.IsCode(err, domain.Unavailable) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a command: %v", err)
	}
	if _, err := openIn(t, Options{Path: path, NoBallast: true}); !domain.IsCode(err, domain.Unavailable) || !strings.Contains(err.Error(), fmt.Sprintf("PID %d", os.Getpid())) {
		t.Errorf("beside another process: %v", err)
	}
	other.Kill()
	if s := mustOpen(t, Options{Path: path, NoBallast: true}); s == nil {
		t.Error("not opened")
	}
}

// A crash between the renames is made good.
func TestSalvageSurvivesACrash(t *testing.T) {
	for _, at := range []string{"log renamed", "file renamed"} {
		t.Run(at, func(t *testing.T) {
			path := grown(t)
			spoil(t, path, 0.5, 3)
			o, err := Options{Path: path, Kind: "gateway", NoBallast: true}.withDefaults()
			if err != nil {
				t.Fatal(err)
			}
			kept := path + ".damaged-x"
			if _, err := rebuild(t.Context(), o, kept); err != nil {
				t.Fatal(err)
			}
			for _, n := range []string{path + "-wal", path + "-shm"} {
				_ = os.Remove(n)
			}
			if err := os.WriteFile(kept+"-wal", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if at == "file renamed" {
				err = os.Rename(path, kept)
			} else {
				err = os.WriteFile(DamageMark(path), nil, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, Options{Path: path, NoBallast: true})
			info, err := s.Info(t.Context())
			if err != nil || info.Salvaged == nil || info.Salvaged.Kept != kept || info.Messages < 1400 {
				t.Errorf("%+v: %v", info, err)
			}
			if _, err := os.Stat(kept); err != nil {
				t.Errorf("the damaged file: %v", err)
			}
		})
	}
}
