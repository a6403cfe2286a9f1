package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// tmpfs mounts a file system of a size that ends with the test.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system to fill")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		t.Skipf("this system lets nobody mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillUp takes all space that is left.
func fillUp(t *testing.T, dir string) (path string) {
	t.Helper()
	path = filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size >= 1; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// TestFullDisk fills the disk under a running turn and a message that is being
// sent: both end well, with the space of the ballast, and nothing else is
// accepted until there is space again.
func TestFullDisk(t *testing.T) {
	dir := tmpfs(t, "32m")
	s := mustOpen(t, Options{Path: filepath.Join(dir, "ledger.db"), ballastBytes: 1 << 20})
	s.reserve.wg.Wait()
	if in, _ := s.reserve.state(); !in {
		t.Fatal("there is no ballast")
	}
	ctx, now := t.Context(), time.Now()
	to := domain.Address{Platform: "telegram", ChatID: "1"}
	turn, err := s.StartTurn(ctx, ledger.NewTurn{Kind: domain.TurnChat, SessionKey: "k"}, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Enqueue(ctx, []domain.NewDelivery{{To: to, Part: domain.Part{Text: "x"}}}, now); err != nil {
		t.Fatal(err)
	}
	d, ok, _, err := s.ClaimDelivery(ctx, to, now)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	filler := fillUp(t, dir)

	// Somewhere in here the log cannot grow any more.
	for n := 0; err == nil && n < 10000; n++ {
		err = s.SetNote(ctx, fmt.Sprint("note", n), strings.Repeat("x", 4000))
	}
	if !domain.IsCode(err, domain.StorageFull) {
		t.Fatalf("writing to a full disk: %v", err)
	}
	info, err := s.Info(ctx)
	if err != nil || info.FullSince.IsZero() || info.Ballast {
		t.Fatalf("full since %v, ballast %v: %v", info.FullSince, info.Ballast, err)
	}
	if err := s.MarkSent(ctx, ledger.DeliveryRef{ID: d.ID, Attempt: d.Attempt}, "receipt", now); err != nil {
		t.Errorf("the receipt: %v", err)
	}
	if _, err := s.FinishTurn(ctx, turn.Ref(), ledger.Finish{State: domain.TurnDone, Now: now, Messages: []domain.Message{{Role: "assistant", Content: "done"}},
		Deliveries: []domain.NewDelivery{{To: to, Part: domain.Part{Text: "done"}}}}); err != nil {
		t.Errorf("the end of the turn: %v", err)
	}
	if _, err := s.AcceptInbound(ctx, ledger.Batch{Events: []ledger.Event{{Inbound: domain.Inbound{EventID: "e"}}}}); !domain.IsCode(err, domain.StorageFull) {
		t.Errorf("an event was accepted on a full disk: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(ctx); err != nil {
		t.Errorf("with space again: %v", err)
	}
	s.reserve.wg.Wait()
	info, err = s.Info(ctx)
	if err != nil || !info.FullSince.IsZero() || !info.Ballast {
		t.Errorf("with space again: full since %v, ballast %v: %v", info.FullSince, info.Ballast, err)
	}
}

// TestFullAtOnce has an essential write be the first that meets the full disk.
func TestFullAtOnce(t *testing.T) {
	dir := tmpfs(t, "32m")
	s := mustOpen(t, Options{Path: filepath.Join(dir, "ledger.db"), ballastBytes: 1 << 20})
	s.reserve.wg.Wait()
	fillUp(t, dir)
	d := []domain.NewDelivery{{To: domain.Address{Platform: "p"}, Part: domain.Part{Text: strings.Repeat("x", 300<<10)}}}
	if _, err := s.Enqueue(t.Context(), d, time.Now()); err != nil {
		t.Fatalf("the alarm was not committed: %v", err)
	}
	if in, since := s.reserve.state(); in || since.IsZero() {
		t.Errorf("ballast %v, full since %v", in, since)
	}
}

// TestBallastNeedsRoom leaves a small disk alone.
func TestBallastNeedsRoom(t *testing.T) {
	dir := tmpfs(t, "8m")
	s := mustOpen(t, Options{Path: filepath.Join(dir, "ledger.db"), ballastBytes: 1 << 20})
	s.reserve.wg.Wait()
	if left, err := filepath.Glob(filepath.Join(dir, "*ballast*")); err != nil || len(left) != 0 {
		t.Errorf("%v %v", left, err)
	}
}
