//go:build !linux

package api

import (
	"errors"
	"net"
	"os"
)

// ownUID is the user that this process acts as.
func ownUID() int { return os.Geteuid() }

// peerUID cannot be answered here, so that a key is needed.
func peerUID(_, _ net.Addr) (int, error) {
	return 0, errors.New("this system does not tell who owns a connection; set API_SERVER_KEY")
}

// PortHolder cannot be answered here.
func PortHolder(int) string { return "" }
