package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/health"
	"hermes/testkit/rig"
)

// TestOneCredentialOneProfile has two profiles with the same credentials on
// every platform: the second is refused each of them with the holder's name, and
// takes them over once the holder has crashed.
func TestOneCredentialOneProfile(t *testing.T) {
	binary, err := rig.Build(t.Context(), t.TempDir(), "")
	must(t, err)
	w, err := setUp(Options{Dir: t.TempDir(), Binary: binary}, "", nil)
	must(t, err)
	defer w.close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	holder, err := w.home.Start()
	must(t, err)
	defer holder.Kill()
	must(t, holder.Ready(ctx))
	must(t, w.connected(ctx, "", false))

	second := &world{o: w.o, platforms: w.platforms}
	config, err := os.ReadFile(filepath.Join(w.home.Dir, "config.yaml"))
	must(t, err)
	env, err := os.ReadFile(filepath.Join(w.home.Dir, ".env"))
	must(t, err)
	second.home, err = rig.NewHome(filepath.Join(t.TempDir(), "second"), binary, string(config), string(env))
	must(t, err)
	second.home.Env = []string{"HERMES_GATEWAY_LOCK_DIR=" + filepath.Join(w.home.Dir, "locks")}
	heir, err := second.home.Start()
	must(t, err)
	defer heir.Kill()
	must(t, heir.Ready(ctx))
	for _, p := range w.platforms {
		if !p.OwnLife { // which others connect to, at a port
			continue
		}
		err := second.until(ctx, p.Name, func(part health.Part) bool {
			return part.State == health.Down && strings.HasSuffix(part.Code, "_lock") && strings.Contains(part.Message, fmt.Sprintf("(PID %d)", holder.Cmd.Process.Pid))
		})
		if err != nil {
			t.Errorf("%s is not refused to the second profile with the holder's name: %v\n%s", p.Name, err, heir.Output())
		}
		if _, err := w.ask(ctx, p, time.Minute); err != nil {
			t.Errorf("%s: the holder answers no more: %v", p.Name, err)
		}
	}
	holder.Kill()
	began := time.Now()
	for _, p := range w.platforms {
		err := second.until(ctx, p.Name, func(part health.Part) bool { return part.State == health.OK })
		if err == nil {
			_, err = second.ask(ctx, p, time.Minute)
		}
		if err != nil {
			t.Fatal(errors.Join(fmt.Errorf("%s is not taken over: %w", p.Name, err), errors.New(heir.Output())))
		}
	}
	t.Logf("all were taken over, and answered, within %s", time.Since(began).Round(10*time.Millisecond))
	if took := time.Since(began); took > time.Minute { // it looks every five seconds
		t.Errorf("the crash was seen after %s only", took)
	}
}
