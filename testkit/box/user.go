package box

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// User is a person with an account in a box.
type User struct {
	box  *Box
	Name string
	UID  int
	// Home is the home folder.
	Home string
}

// User makes an account, with no session and no lingering.
func (b *Box) User(t testing.TB, name string) *User {
	t.Helper()
	b.Root(t, "useradd -m -s /bin/bash "+name)
	uid, err := strconv.Atoi(strings.TrimSpace(b.Root(t, "id -u "+name)))
	if err != nil {
		t.Fatal(err)
	}
	return &User{box: b, Name: name, UID: uid, Home: "/home/" + name}
}

// session is the unit in which the user's login lives.
func (u *User) session() string { return "login-" + u.Name + ".service" }

// Login begins a session by PAM, as a login by SSH does, and waits for the
// user's manager.
func (u *User) Login(t testing.TB) {
	t.Helper()
	u.box.Root(t, fmt.Sprintf("systemd-run --quiet --collect --unit=%s -p PAMName=login -p User=%s sleep infinity", u.session(), u.Name))
	u.box.Until(t, time.Minute, "the session of "+u.Name, func(ctx context.Context) error {
		out, err := u.box.Try(ctx, "loginctl list-sessions --no-legend")
		if err == nil && !strings.Contains(out, u.Name) {
			err = fmt.Errorf("only these are open: %s", out)
		}
		return err
	})
	u.AwaitManager(t)
}

// AwaitManager waits until the user's manager answers.
func (u *User) AwaitManager(t testing.TB) {
	t.Helper()
	u.box.Until(t, time.Minute, "the user manager of "+u.Name, func(ctx context.Context) error {
		out, err := u.Try(ctx, "systemctl --user is-system-running")
		if s := strings.TrimSpace(out); s == "running" || s == "degraded" {
			return nil
		}
		return fmt.Errorf("%s: %w", out, err)
	})
}

// Logout ends the session.
func (u *User) Logout(t testing.TB) {
	t.Helper()
	u.box.Root(t, "systemctl stop "+u.session())
}

// Try runs a shell command as the user, in the home folder and with the
// variables of a login session.
func (u *User) Try(ctx context.Context, command string) (string, error) {
	runtime := fmt.Sprintf("/run/user/%d", u.UID)
	return u.shell(ctx, command, "XDG_RUNTIME_DIR="+runtime, "DBUS_SESSION_BUS_ADDRESS=unix:path="+runtime+"/bus")
}

// TryBare runs a shell command as the user without the variables that lead to
// the user's bus, as `su` and cron do.
func (u *User) TryBare(ctx context.Context, command string) (string, error) {
	return u.shell(ctx, command)
}

func (u *User) shell(ctx context.Context, command string, environ ...string) (string, error) {
	id := strconv.Itoa(u.UID)
	argv := []string{"setpriv", "--reuid", id, "--regid", id, "--init-groups", "env", "--chdir=" + u.Home, "HOME=" + u.Home, "USER=" + u.Name, "LOGNAME=" + u.Name}
	argv = append(append(argv, environ...), "bash", "-c", command)
	return u.box.enter(ctx, argv...)
}

// Run runs a command as the user, which must succeed.
func (u *User) Run(t testing.TB, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	out, err := u.Try(ctx, command)
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", u.Name, command, err, out)
	}
	return out
}

// Fails runs a command as the user, which must not succeed.
func (u *User) Fails(t testing.TB, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	out, err := u.Try(ctx, command)
	if err == nil {
		t.Fatalf("%s: %s succeeded:\n%s", u.Name, command, out)
	}
	return out
}

// Write makes a file that belongs to the user.
func (u *User) Write(t testing.TB, path, text string) {
	t.Helper()
	u.Run(t, fmt.Sprintf("mkdir -p \"$(dirname %s)\" && printf %%s %s > %s", quote(path), quote(text), quote(path)))
}

// Property is one property of a unit of the user's manager.
func (u *User) Property(t testing.TB, unit, name string) string {
	t.Helper()
	return strings.TrimSpace(u.Run(t, fmt.Sprintf("systemctl --user show %s -p %s --value", quote(unit), name)))
}

// quote makes one word of the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
