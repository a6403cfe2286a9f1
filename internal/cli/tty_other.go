//go:build !linux

package cli

import "os"

// isTerminal tells whether a file is a terminal, or another character device.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// hideEcho cannot keep what is typed from being shown on this system.
func hideEcho(*os.File) (restore func(), ok bool) { return nil, false }

// terminalWidth is not known on this system.
func terminalWidth(*os.File) int { return 0 }
