package control

import (
	"context"
	"net"
	"net/http"
	"syscall"
)

type peerKey struct{}

// withPeer notes the PID of who connected: SO_PEERCRED of unix(7), which the
// kernel fills in and the peer cannot choose.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return context.WithValue(ctx, peerKey{}, pid)
}

// peer is the PID of who asks, 0 when it is not known.
func peer(r *http.Request) int {
	pid, _ := r.Context().Value(peerKey{}).(int)
	return pid
}
