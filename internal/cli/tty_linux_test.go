package cli

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal; see pty(7).
func terminal(t *testing.T) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this machine gives no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return slave
}

func shows(t *testing.T, f *os.File) bool {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return s.Lflag&unix.ECHO != 0
}

// A key is not shown while it is typed, and everything after it is again.
func TestHideEcho(t *testing.T) {
	tty := terminal(t)
	if !isTerminal(tty) || !shows(t, tty) {
		t.Fatal("a fresh terminal does not show what is typed")
	}
	restore, ok := hideEcho(tty)
	if !ok || shows(t, tty) {
		t.Error("the terminal still shows what is typed")
	}
	restore()
	if !shows(t, tty) {
		t.Error("the terminal was not restored")
	}
	file, err := os.Create(t.TempDir() + "/plain")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, ok := hideEcho(file); ok || isTerminal(file) {
		t.Error("a file counts as a terminal")
	}
}

// Lines are folded at the width of the terminal, and at 80 columns elsewhere.
func TestWrapFollowsTheTerminal(t *testing.T) {
	tty := terminal(t)
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 20, Col: 36}); err != nil {
		t.Fatal(err)
	}
	if got := columns(tty); got != 36 {
		t.Errorf("a terminal of 36 columns counts as one of %d", got)
	}
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 20, Col: 200}); err != nil {
		t.Fatal(err)
	}
	if got := columns(tty); got != width {
		t.Errorf("a wide terminal is used in full: %d columns", got)
	}
	if got := columns(new(bytes.Buffer)); got != width {
		t.Errorf("what is no terminal has %d columns", got)
	}
}
