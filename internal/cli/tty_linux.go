package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// isTerminal tells whether a file is a terminal.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// hideEcho keeps a terminal from showing what is typed, until restore is
// called. ok is false for what is no terminal. See termios(3).
func hideEcho(f *os.File) (restore func(), ok bool) {
	before, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, false
	}
	quiet := *before
	quiet.Lflag &^= unix.ECHO | unix.ECHONL
	if unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &quiet) != nil {
		return nil, false
	}
	return func() {
		// A terminal that is gone has nothing to be restored.
		_ = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, before)
	}, true
}

// terminalWidth is how many columns a terminal has, 0 for what is none or does
// not say. See tty_ioctl(4), TIOCGWINSZ.
func terminalWidth(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
