package service

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
)

// hangingSystemctl is a systemctl whose bus does not answer. It notes each call.
func hangingSystemctl(t *testing.T) (calls func() int) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "calls")
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte("#!/bin/sh\necho \"$*\" >>"+log+"\nexec sleep 600\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() int {
		text, _ := os.ReadFile(log)
		return strings.Count(string(text), "\n")
	}
}

// A manager that does not answer costs a command askLimit, once.
func TestSilentManagerIsAskedOnce(t *testing.T) {
	calls := hangingSystemctl(t)
	h := NewHost(ada, os.Getenv)
	p, err := home.Named(t.TempDir(), "liam")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	m := &Manager{System: true, env: os.Environ()}
	_, err = m.Show(t.Context(), "hermes-gateway.service")
	if !domain.IsCode(err, domain.Timeout) || !strings.Contains(err.Error(), "systemd did not answer") {
		t.Fatalf("%v", err)
	}
	if took := time.Since(began); took > 10*askLimit {
		t.Errorf("it took %s", took)
	}
	h.silent.note(false, err)
	h.silent.note(true, err)
	asked := calls()
	for range 5 {
		if _, err := h.Find(context.Background(), p, false); !domain.IsCode(err, domain.Timeout) {
			t.Errorf("%v", err)
		}
	}
	if n := calls(); n != asked {
		t.Errorf("it was asked %d times more", n-asked)
	}
}
