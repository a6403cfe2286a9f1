package box

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// One box is enough to prove what the others rely on: managers, sessions,
// lingering, files over a reboot, and that nothing of it is left.
func TestBox(t *testing.T) {
	before, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Skip("needs /proc: ", err)
	}
	t.Run("machine", func(t *testing.T) {
		b := Start(t)
		u := b.User(t, "ada")
		u.Login(t)
		if out := b.Root(t, "loginctl list-sessions --no-legend"); !strings.Contains(out, "ada") {
			t.Errorf("no session of ada: %s", out)
		}
		u.Write(t, u.Home+"/kept", "it's kept\n")
		u.Logout(t)
		gone := func(ctx context.Context) error {
			if out, _ := b.Try(ctx, "systemctl is-active user@"+b.Root(t, "id -u ada")); strings.TrimSpace(out) != "inactive" {
				return errors.New(out)
			}
			return nil
		}
		b.Until(t, time.Minute, "the user manager to end with the last session", gone)
		b.Root(t, "loginctl enable-linger ada")
		b.Reboot(t)
		u.AwaitManager(t)
		if got := b.Read(u.Home + "/kept"); got != "it's kept\n" {
			t.Errorf("after a reboot the file holds %q", got)
		}
		if out := b.Root(t, "ip -o addr show 2>/dev/null || cat /proc/net/dev"); strings.Contains(out, "eth0") {
			t.Errorf("the box sees the machine's network: %s", out)
		}
		if _, err := os.Stat("/home/ada"); err == nil {
			t.Error("the box wrote to the machine")
		}
	})
	after, err := os.ReadFile("/proc/self/mounts")
	if err != nil || string(before) != string(after) {
		t.Errorf("mounts changed: %s", after)
	}
}
