package sqlite

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hermes/internal/domain"
)

// firstLedger makes a ledger of the first schema.
func firstLedger(t *testing.T) string {
	t.Helper()
	frozen, err := os.ReadFile("testdata/schema-1.sql")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	execFile(t, path, string(frozen))
	return path
}

func fileSchema(t *testing.T, path string) int {
	t.Helper()
	return int(QueryInt(t, path, "PRAGMA user_version"))
}

// next is a migration after the newest.
func next(text string) []migration {
	return []migration{{number: headSchema() + 1, name: "test_next.sql", text: text}}
}

// A process that does not serve yet leaves the schema to the one that does.
func TestUpgradeWaitsForTheOneThatServes(t *testing.T) {
	path := firstLedger(t)
	s := mustOpen(t, Options{Path: path, NoBallast: true, KeepSchema: true, Program: "9.9"})
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := fileSchema(t, path); v != 1 {
		t.Fatalf("opened with schema %d", v)
	}
	if err := s.Upgrade(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := fileSchema(t, path); v != headSchema() {
		t.Errorf("upgraded to %d", v)
	}
	if hits, err := s.Search(t.Context(), "old question", 0); err != nil || len(hits) != 1 {
		t.Errorf("search found %v: %v", hits, err)
	}
	if i, err := s.Info(t.Context()); err != nil || i.Schema != headSchema() {
		t.Errorf("it says schema %d: %v", i.Schema, err)
	}
	if by := QueryText(t, path, `SELECT value FROM meta WHERE key = 'upgraded_by'`); !strings.HasPrefix(by, "hermes 9.9 on ") {
		t.Errorf("upgraded by %q", by)
	}
}

// A step that fails is taken back whole, and the program before works on.
func TestFailedUpgradeChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	old := mustOpen(t, Options{Path: path, NoBallast: true})
	_, err := openIn(t, Options{Path: path, NoBallast: true, extraSteps: next("CREATE TABLE half (a); INSERT INTO nowhere VALUES (1);")})
	if !domain.IsCode(err, domain.Internal) || !strings.Contains(domain.MessageOf(err), "left as it was") {
		t.Fatalf("%v", err)
	}
	if v := fileSchema(t, path); v != headSchema() {
		t.Errorf("schema %d", v)
	}
	if n := QueryInt(t, path, `SELECT count(*) FROM sqlite_schema WHERE name = 'half'`); n != 0 {
		t.Error("half of the step was kept")
	}
	if err := old.Check(t.Context()); err != nil {
		t.Errorf("the program before: %v", err)
	}
	if _, err := openIn(t, Options{Path: path, NoBallast: true, extraSteps: next("CREATE TABLE whole (a);")}); err != nil {
		t.Errorf("the next attempt: %v", err)
	}
	if err := old.Check(t.Context()); err != nil {
		t.Errorf("the program before, on the new schema: %v", err)
	}
}

// A command does not upgrade what a gateway of an older program works on.
func TestCommandLeavesTheSchemaToTheGateway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	gateway := mustOpen(t, Options{Path: path, NoBallast: true})
	command := Options{Path: path, Kind: kindCommand, extraSteps: next("CREATE TABLE more (a);")}
	if _, err := openIn(t, command); !domain.IsCode(err, domain.Conflict) || !strings.Contains(domain.MessageOf(err), "gateway restart") {
		t.Fatalf("%v", err)
	}
	if err := gateway.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openIn(t, command); err != nil {
		t.Fatal(err)
	}
	if v := fileSchema(t, path); v != headSchema()+1 {
		t.Errorf("schema %d", v)
	}
}

// A step that programs of today cannot bear waits until none of them runs.
func TestContractionLocksNobodyOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	old := mustOpen(t, Options{Path: path, NoBallast: true})
	narrow := Options{Path: path, NoBallast: true, Program: "7.0", KeepSchema: true, extraSteps: next("UPDATE meta SET value = '99' WHERE key = 'oldest_reader';")}
	s := mustOpen(t, narrow)
	if err := s.Upgrade(t.Context()); !domain.IsCode(err, domain.Conflict) {
		t.Fatalf("%v", err)
	}
	if v := fileSchema(t, path); v != headSchema() {
		t.Fatalf("schema %d", v)
	}
	old.Close()
	s.Close()
	narrow.KeepSchema = false
	narrow.maxSchema = 0
	mustOpen(t, narrow).Close()
	_, err := openIn(t, Options{Path: path, NoBallast: true})
	if !domain.IsCode(err, domain.Config) || !strings.Contains(domain.MessageOf(err), "too old") || !strings.Contains(domain.MessageOf(err), "hermes 7.0 on ") {
		t.Errorf("%v", err)
	}
}

// The newest two copies stay, for this user only.
func TestCopiesAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	mustOpen(t, Options{Path: path, NoBallast: true}).Close()
	var steps []migration
	for i := range 4 {
		steps = append(steps, migration{number: headSchema() + 1 + i, name: "test.sql", text: "SELECT 1;"})
		mustOpen(t, Options{Path: path, NoBallast: true, extraSteps: steps}).Close()
	}
	copies, _ := filepath.Glob(path + ".schema-*")
	want := []string{copyPath(path, headSchema()+2), copyPath(path, headSchema()+3)}
	if strings.Join(copies, " ") != strings.Join(want, " ") {
		t.Fatalf("copies %v, want %v", copies, want)
	}
	for _, c := range copies {
		if st, err := os.Stat(c); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", c, st.Mode(), err)
		}
	}
}

// Without room the upgrade goes on without a copy, and says so.
func TestUpgradeWithoutRoomForACopy(t *testing.T) {
	path := firstLedger(t)
	var log bytes.Buffer
	small := func(string) (fileSystem, error) { return fileSystem{freeBytes: copyReserve}, nil }
	mustOpen(t, Options{Path: path, NoBallast: true, fileSystem: small, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if v := fileSchema(t, path); v != headSchema() {
		t.Errorf("schema %d", v)
	}
	if copies, _ := filepath.Glob(path + ".schema-*"); len(copies) > 0 {
		t.Errorf("there is %v", copies)
	}
	if !strings.Contains(log.String(), "without a copy") || !strings.Contains(log.String(), "64 MiB are there") {
		t.Errorf("the log says %s", log.String())
	}
}

// A start that is asked to stop ends the copy and changes nothing.
func TestStopDuringTheCopy(t *testing.T) {
	path := firstLedger(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, Options{Path: path, Kind: "gateway", NoBallast: true}); err == nil {
		t.Fatal("it was opened")
	}
	if v := fileSchema(t, path); v != 1 {
		t.Errorf("schema %d", v)
	}
	if left, _ := filepath.Glob(path + ".schema-*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
