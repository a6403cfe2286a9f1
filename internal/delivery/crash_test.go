package delivery

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/platform"
)

// crashEnv makes the test binary a gateway that dies while it sends.
const crashEnv = "HERMES_TEST_DELIVERY_CRASH"

// sendAndHang enqueues two messages, says so once the first is on its way, and
// waits to be killed.
func sendAndHang(path string) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := sqlite.Open(context.Background(), sqlite.Options{Path: path, Kind: "test", Log: log, NoBallast: true})
	if err != nil {
		panic(err)
	}
	a := &script{name: "p", do: func(ctx context.Context, _ int, _ sent) error {
		_, _ = os.Stdout.WriteString("sending\n")
		<-ctx.Done()
		return ctx.Err()
	}}
	d := New(Options{Store: s, Now: time.Now, Log: log})
	d.Attach(a)
	to := domain.Address{Platform: "p", ChatID: "1"}
	if _, err := s.Enqueue(context.Background(), []domain.NewDelivery{{To: to, Part: domain.Part{Text: "first"}}, {To: to, Part: domain.Part{Text: "second"}}}, time.Now()); err != nil {
		panic(err)
	}
	if err := d.Start(context.Background()); err != nil {
		panic(err)
	}
	select {}
}

// TestKilledWhileSending kills a process between the claim and the receipt, and
// shows what its successor does with the message whose fate is unknown.
func TestKilledWhileSending(t *testing.T) {
	tests := []struct {
		name      string
		onUnknown string
		caps      platform.Capabilities
		trace     []error // what the platform's records say, one after another; nil: it has none
		want      []string
	}{
		{"resend", Resend, platform.Capabilities{}, nil, []string{repeatMark + "\nfirst", "second"}},
		{"drop", Drop, platform.Capabilities{}, nil, []string{"second"}},
		{"deduped", Drop, platform.Capabilities{Idempotency: platform.IdempotencyAlways}, nil, []string{"first", "second"}},
		{"found", Resend, platform.Capabilities{}, []error{nil}, []string{"second"}},
		{"found, drop", Drop, platform.Capabilities{}, []error{nil}, []string{"second"}},
		{"not taken", Resend, platform.Capabilities{}, []error{platform.ErrNotTaken}, []string{"first", "second"}},
		{"not taken, drop", Drop, platform.Capabilities{}, []error{platform.ErrNotTaken}, []string{"first", "second"}},
		{"no trace", Resend, platform.Capabilities{}, []error{platform.ErrNoTrace}, []string{repeatMark + "\nfirst", "second"}},
		{"no trace, drop", Drop, platform.Capabilities{}, []error{platform.ErrNoTrace}, []string{"second"}},
		{"not to be read", Resend, platform.Capabilities{}, []error{retry(0)}, []string{repeatMark + "\nfirst", "second"}},
		{"not to be read, drop", Drop, platform.Capabilities{}, []error{retry(time.Millisecond), platform.ErrNotTaken}, []string{"first", "second"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			killWhileSending(t, path)
			store, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, Kind: "test", NoBallast: true})
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			if r, err := store.Recover(t.Context(), time.Now()); err != nil || r.Uncertain != 1 {
				t.Fatalf("recovered %+v, %v", r, err)
			}
			last := make(chan struct{})
			a := &script{name: "p", caps: tt.caps, do: func(_ context.Context, _ int, c sent) error {
				if c.text == "second" {
					close(last)
				}
				return nil
			}}
			d := New(Options{Store: store, Now: time.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), OnUnknown: tt.onUnknown})
			if tt.trace != nil {
				d.Attach(&tracing{script: a, say: tt.trace})
			} else {
				d.Attach(a)
			}
			if err := d.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			<-last
			if err := d.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := a.texts("1"); !slices.Equal(got, tt.want) {
				t.Errorf("sent %q, want %q", got, tt.want)
			}
			rows, err := store.Deliveries(t.Context(), ledger.DeliveryFilter{States: []domain.DeliveryState{domain.DeliverySent, domain.DeliveryDead}})
			if err != nil || len(rows) != 2 {
				t.Errorf("%d of 2 messages have ended: %v", len(rows), err)
			}
		})
	}
}

// tracing is an adapter of a platform with records.
type tracing struct {
	*script
	say []error
}

func (a *tracing) Trace(_ context.Context, _ domain.Address, nonce, _ string) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.say[0]
	if len(a.say) > 1 {
		a.say = a.say[1:]
	}
	if err != nil {
		return "", err
	}
	return "of " + nonce, nil
}

// killWhileSending runs sendAndHang and kills it with the message on its way.
func killWhileSending(t *testing.T, path string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Skipf("the test binary cannot find itself to run as the process that dies: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), crashEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "sending\n" {
		t.Errorf("the process said %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process ended by itself")
	}
}
