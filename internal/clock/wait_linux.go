package clock

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// waitUntil arms an absolute timerfd on CLOCK_REALTIME that is cancelled when
// the clock is set (https://man7.org/linux/man-pages/man2/timerfd_create.2.html).
// Where none can be had (out of descriptors, an old sandbox), it waits in slices.
func waitUntil(ctx context.Context, now func() time.Time, t time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !now().Before(t) {
		return nil
	}
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return waitSliced(ctx, now, t)
	}
	f := os.NewFile(uintptr(fd), "timerfd")
	defer f.Close()
	// A deadline in the past ends the read, on whichever goroutine ctx ends.
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	var expirations [8]byte
	for {
		if err := arm(f, t); err != nil {
			return waitSliced(ctx, now, t)
		}
		before := now()
		_, err := f.Read(expirations[:])
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !errors.Is(err, unix.ECANCELED):
			return waitSliced(ctx, now, t)
		case !now().Before(t) || now().Before(before.Add(-setBack)):
			return nil
		}
	}
}

// arm sets the timer to t. It goes through SyscallConn, because File.Fd would
// make the descriptor blocking.
func arm(f *os.File, t time.Time) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(t.UnixNano())}
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = conn.Control(func(fd uintptr) {
		set = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &spec, nil)
	})
	return errors.Join(err, set)
}
