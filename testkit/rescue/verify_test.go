package rescue

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// An installation in which everything holds is proved, and what a user of a
// service can lose is told from it line by line.
func testVerify(t *testing.T, w *world) {
	u := w.user
	want(t, u.Run(t, "hermes -p liam gateway install"), "✓ Wrote /home/ada/.config/systemd/user/hermes-rescue@.service", "✓ Started")
	w.serves(program)
	w.told("hello") // the answer to Ann
	u.Write(t, w.file("scripts/beat.sh"), "true\n")
	u.Run(t, "hermes -p liam cron create 'every 1h' --no-agent --script beat.sh --name beat --deliver telegram")
	out := u.Run(t, "hermes -p liam gateway verify")
	want(t, out, "✓ model", "✓ message", "delivered to telegram:", "✓ API", "✓ next tick beat at", "✓ logout lingering is on", "✓ reboot "+unit+" is enabled, and lingering is on")
	if strings.Contains(out, "✗") || strings.Contains(out, "–") {
		t.Errorf("not all of it is proved:\n%s", out)
	}
	w.told("hermes gateway verify", "profile liam")
	u.Login(t) // without it the manager would end with the lingering
	w.Until(t, limit, "the session", func(ctx context.Context) error {
		if out, err := w.Try(ctx, "loginctl list-sessions --no-legend"); err != nil || !strings.Contains(out, "ada") {
			return fmt.Errorf("%s %w", out, err)
		}
		return nil
	})
	w.Root(t, "loginctl disable-linger ada")
	want(t, u.Fails(t, "hermes -p liam gateway verify --no-send"), "✗ logout no: lingering is off; `sudo loginctl enable-linger ada`", "✗ reboot no: lingering is off")
	w.Root(t, "loginctl enable-linger ada")
	u.Logout(t)
	u.Run(t, "systemctl --user disable "+unit)
	want(t, u.Fails(t, "hermes -p liam gateway verify --no-send"), "✓ logout", "✗ reboot no: "+unit+" is disabled")
	u.Run(t, "systemctl --user enable "+unit)
	want(t, u.Run(t, "hermes -p liam gateway verify --no-send"), "✓ reboot")
	w.quiet()
}
