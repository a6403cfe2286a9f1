package reconnect_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/reconnect"
)

func line() (*reconnect.Line, func() health.Part) {
	r := health.New(time.Now)
	return &reconnect.Line{Service: "Pigeon", Health: r.Part("pigeon"), Log: slog.New(slog.DiscardHandler),
		First: time.Second, Most: 8 * time.Second, Failures: 6}, func() health.Part { return r.Parts()[0] }
}

var gone = &platform.Error{Kind: platform.Retry, Code: "pigeon_gone", Reason: "it flew away"}

// The pauses double to the longest, each at most a quarter shorter, and after so
// many failures in a row the connection is given up.
func TestPausesGrowUntilItIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, part := line()
		cut := 0
		l.Cut = func() { cut++ }
		var pauses []time.Duration
		last := time.Now()
		err := l.Run(t.Context(), func(context.Context) error {
			pauses = append(pauses, time.Since(last))
			if last = time.Now(); len(pauses) > 1 {
				if p := part(); p.State != health.Degraded || p.Code != "pigeon_gone" || p.Message != "it flew away" {
					t.Errorf("while it waits, health says %+v", p)
				}
			}
			return gone
		})
		if !errors.Is(err, gone) || len(pauses) != 6 || cut != 6 {
			t.Fatalf("%d attempts, cut %d times, %v", len(pauses), cut, err)
		}
		for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 8 * time.Second} {
			if d := pauses[i+1]; d > want || d < want*3/4 {
				t.Errorf("pause %d lasts %v, want %v or up to a quarter less", i, d, want)
			}
		}
	})
}

// A proof of life forgives what failed before it, once for each connection.
func TestAProofOfLifeForgives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, part := line()
		n := 0
		ctx, cancel := context.WithCancel(t.Context())
		err := l.Run(ctx, func(context.Context) error {
			if n++; n == 50 {
				cancel()
			}
			if l.Up(); !l.IsUp() || part().State != health.OK {
				t.Error("it is not up")
			}
			return gone
		})
		if err != nil || n != 50 || part().Evidence["reconnects"] != "49" {
			t.Errorf("after %d connections: %v, %+v", n, err, part())
		}
	})
}

func TestWhatEndsItAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := &platform.Error{Kind: platform.BadCredentials, Reason: "the token is refused"}
		other := errors.New("the ledger is closed")
		for _, want := range []error{refused, other} {
			l, _ := line()
			n := 0
			err := l.Run(t.Context(), func(context.Context) error { n++; return want })
			if !errors.Is(err, want) || n != 1 {
				t.Errorf("%v: %d attempts, %v", want, n, err)
			}
		}
	})
}

// What the service asks for is kept to, however long.
func TestTheServicesPauseIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := line()
		began := time.Now()
		asked := &platform.Error{Kind: platform.Retry, Reason: "slow down", RetryAfter: time.Minute}
		if err := l.Down(t.Context(), asked); err != nil || time.Since(began) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
