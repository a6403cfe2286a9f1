package box

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Inside calls a function on a thread that lies in the box's network: a socket
// that it makes itself, and not another goroutine for it, belongs there, for as
// long as the box is up; see network_namespaces(7). It is safe for concurrent
// use.
func (b *Box) Inside(do func() error) error {
	pid, err := b.leader()
	if err != nil {
		return err
	}
	ns, err := os.Open("/proc/" + pid + "/ns/net")
	if err != nil {
		return fmt.Errorf("the box's network: %w", err)
	}
	defer ns.Close()
	result := make(chan error)
	go func() {
		// The thread is not given back: it ends with this goroutine.
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("the box's network: %w", err)
			return
		}
		result <- do()
	}()
	return <-result
}

// Dial connects to a TCP address in the box. It has the form of
// http.Transport.DialContext and is safe for concurrent use.
func (b *Box) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	var d net.Dialer // an address in numbers is dialled by the goroutine that asks
	err = b.Inside(func() error {
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}
