package cron

import (
	"context"
	"os"
	"syscall"

	"hermes/internal/domain"
)

// WatchPokes calls poked after every Poke until ctx ends; see inotify(7). It
// returns when the watch cannot be kept (domain.Unavailable), or with nil when
// ctx ended. The scheduler's scan once a minute is what remains without it.
func WatchPokes(ctx context.Context, home string, poked func()) error {
	fail := func(err error) error {
		return domain.E(domain.Unavailable, err, "changes of jobs are noticed within a minute, not at once")
	}
	if err := makePokeFile(home); err != nil {
		return fail(err)
	}
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	if err != nil {
		return fail(err)
	}
	watch := os.NewFile(uintptr(fd), "inotify")
	defer watch.Close()
	if _, err := syscall.InotifyAddWatch(fd, pokeFile(home), syscall.IN_ATTRIB); err != nil {
		return fail(err)
	}
	defer context.AfterFunc(ctx, func() { _ = watch.Close() })()
	poked() // for what came before the watch
	events := make([]byte, 4<<10)
	for {
		if _, err := watch.Read(events); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fail(err)
		}
		poked()
	}
}
