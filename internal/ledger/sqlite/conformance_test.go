package sqlite_test

import (
	"path/filepath"
	"testing"
	"time"

	"hermes/internal/ledger"
	"hermes/internal/ledger/ledgertest"
	"hermes/internal/ledger/sqlite"
)

func TestConformance(t *testing.T) {
	ledgertest.Run(t, ledgertest.Harness{
		Open: func(t *testing.T, dir string, now func() time.Time) ledger.Store {
			t.Helper()
			s, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(dir, "ledger.db"), Kind: "gateway", Now: now, NoBallast: true})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Kill: func(t *testing.T, s ledger.Store) { s.(*sqlite.Store).Kill() },
	})
}
