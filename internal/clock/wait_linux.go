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
	f, stop, err := openTimer(ctx)
	if err != nil {
		return waitSliced(ctx, now, t)
	}
	defer f.Close()
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

// openTimer makes a timer whose reads end when ctx does.
func openTimer(ctx context.Context) (f *os.File, stop func() bool, err error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, nil, err
	}
	f = os.NewFile(uintptr(fd), "timerfd")
	// A deadline in the past ends the read, on whichever goroutine ctx ends.
	return f, context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) }), nil
}

// never is an instant that no timer of watch reaches.
const never = 100 * 365 * 24 * time.Hour

// watch reads a timer that only a clock that moves ends: one that was set, or
// the end of a suspend.
func watch(ctx context.Context, look func()) {
	f, stop, err := openTimer(ctx)
	if err != nil {
		watchSliced(ctx, look)
		return
	}
	defer f.Close()
	defer stop()
	var expirations [8]byte
	for ctx.Err() == nil {
		if err := arm(f, time.Now().Add(never)); err != nil {
			watchSliced(ctx, look)
			return
		}
		_, err := f.Read(expirations[:])
		if ctx.Err() == nil && err != nil && !errors.Is(err, unix.ECANCELED) {
			watchSliced(ctx, look)
			return
		}
		look()
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
