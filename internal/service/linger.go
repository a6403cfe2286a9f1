package service

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
)

// lingerDir is where logind keeps one file a lingering user; loginctl(1),
// "enable-linger".
const lingerDir = "/var/lib/systemd/linger"

// Lingers tells whether the user's manager lives without a session and starts
// at boot. Without that a user's gateway ends with the last logout.
func Lingers(account string) bool {
	_, err := os.Stat(filepath.Join(lingerDir, account))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err == nil
	}
	out, err := loginctl(context.Background(), askLimit, "show-user", account, "--property=Linger", "--value")
	return err == nil && strings.TrimSpace(out) == "yes"
}

// EnableLinger switches lingering on and proves that it is. Errors: Forbidden,
// with the exact command for root.
func EnableLinger(ctx context.Context, account string) error {
	if Lingers(account) {
		return nil
	}
	out, err := loginctl(ctx, callLimit, "enable-linger", account)
	if Lingers(account) {
		return nil
	}
	return domain.E(domain.Forbidden, err, "lingering could not be switched on (%s), so the gateway ends when you log out and does not start at boot. Run once: sudo loginctl enable-linger %s", strings.TrimSpace(out), account)
}

// loginctl runs one command of loginctl(1) and gives both its streams.
func loginctl(ctx context.Context, limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "loginctl", append([]string{"--no-ask-password", "--no-pager"}, args...)...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Me is the account of this process; userHome is its home folder.
func Me(userHome string) Account {
	a := Account{UID: os.Getuid(), Home: userHome, Name: accountName()}
	if g, err := user.LookupGroupId(strconv.Itoa(os.Getgid())); err == nil {
		a.Group = g.Name
	}
	return a
}

// FindAccount gives an account by name. Errors: NotFound.
func FindAccount(name string) (Account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return Account{}, domain.E(domain.NotFound, err, "there is no user %q on this machine; create it with `sudo useradd -m %s`", name, name)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return Account{}, domain.E(domain.Internal, err, "the user %q has an id that is no number", name)
	}
	a := Account{Name: u.Username, Home: u.HomeDir, UID: uid}
	if g, err := user.LookupGroupId(u.Gid); err == nil {
		a.Group = g.Name
	}
	return a, nil
}

func accountName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}
