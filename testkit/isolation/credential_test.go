package isolation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/testkit/rig"
)

// TestOneCredentialOneProfile clones a profile that has every platform. Not one
// of their credentials is in a copy, unless that is asked for; then the second
// profile is refused each of them with the holder's name, and takes them over once
// the holder has crashed.
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

	for name, flags := range map[string][]string{"clone": {"--clone"}, "all": {"--clone-all"}, "from": {"--clone-from", "default"}, "asked": {"--clone-all", "--clone-channels"}} {
		clone(ctx, t, w, name, flags...)
	}
	second := &world{o: w.o, platforms: w.platforms}
	second.home = &rig.Home{Dir: filepath.Join(w.home.Dir, "profiles", "asked"), Binary: binary, Env: []string{"HERMES_GATEWAY_LOCK_DIR=" + filepath.Join(w.home.Dir, "locks")}}
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

// clone clones the profile, and looks for the credentials of its platforms in the
// copy: they are there only where they are asked for.
func clone(ctx context.Context, t *testing.T, w *world, name string, flags ...string) {
	t.Helper()
	out, err := w.home.Run(ctx, append([]string{"profile", "create", name, "--no-alias"}, flags...)...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	asked := slices.Contains(flags, "--clone-channels")
	found := contents(t, filepath.Join(w.home.Dir, "profiles", name))
	for _, p := range w.platforms {
		secrets := 0
		for line := range strings.Lines(p.Env) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			if !home.IsSecretName(key) {
				continue
			}
			secrets++
			if strings.Contains(found, value) != asked {
				t.Errorf("%q: that %s is in the copy is %v", flags, key, !asked)
			}
			if strings.Contains(out, key) == asked {
				t.Errorf("%q: that %s was left out is told: %v\n%s", flags, key, asked, out)
			}
		}
		if secrets == 0 {
			t.Errorf("%s has no credential that could be looked for", p.Name)
		}
	}
}

// contents is all that is written in a folder.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	}))
	return all.String()
}
