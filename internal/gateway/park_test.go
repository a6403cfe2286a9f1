package gateway

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
)

func TestAParkedStartIsTriedAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		after time.Duration // until the configuration is mended; 0 for never
		stop  time.Duration // until it is asked to stop; 0 for never
		want  time.Duration
		code  domain.Code
	}{
		{name: "by and by", want: parkTry},
		{name: "at once when the configuration changed", after: 5 * time.Second, want: 6 * time.Second},
		{name: "not when it is stopped", stop: 3 * time.Second, want: 3 * time.Second, code: domain.Cancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				p := home.Profile{Name: "default", Root: dir, Home: dir}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				began := time.Now()
				if c.after > 0 {
					time.AfterFunc(c.after, func() {
						if err := os.WriteFile(p.ConfigFile(), []byte("a: 1\n"), 0o600); err != nil {
							t.Error(err)
						}
					})
				}
				if c.stop > 0 {
					time.AfterFunc(c.stop, cancel)
				}
				// A scheduler alone has no control socket, which time would wait for.
				err := Park(ctx, Options{Profile: p, Now: time.Now, CronOnly: true}, errors.New("it did not work"))
				if got := time.Since(began); got != c.want || (err != nil) != (c.code != "") || err != nil && !domain.IsCode(err, c.code) {
					t.Errorf("after %s: %v", got, err)
				}
			})
		})
	}
}
