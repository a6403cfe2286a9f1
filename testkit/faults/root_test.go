package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"hermes/internal/doctor"
)

// stranger is the user as whom some installations run.
const stranger = 12345

// rootFaults need root: to be another user, and to mount. Without it there are
// none, unless they are only to be listed.
func rootFaults(listed bool) []fault {
	if os.Getuid() != 0 && !listed {
		return nil
	}
	return []fault{
		{what: "a command was once run by sudo, and left files of root", id: "profile.owner", class: doctor.Scope, needs: "setpriv", shape: shape{as: stranger},
			inject: func(w *world) { w.stop(); w.must(os.Chown(w.path("config.yaml"), 0, 0)) }},
		{what: "the ledger belongs to root", id: "profile.owner", class: doctor.Scope, needs: "setpriv", shape: shape{as: stranger},
			inject: func(w *world) { w.stop(); w.must(os.Chown(w.path("ledger.db"), 0, 0)) }},
		{what: "the home folder belongs to root", id: "profile.home_unreadable", class: doctor.Scope, needs: "setpriv", shape: shape{as: stranger},
			inject: func(w *world) { w.stop(); w.must(os.Chown(w.path(), 0, 0)) }},
		{what: "the home folder may not be written", id: "profile.home_not_writable", class: doctor.Scope, needs: "setpriv", shape: shape{as: stranger},
			inject: func(w *world) { w.stop(); w.must(os.Chmod(w.path(), 0o500)) }},
		{what: ".env may not be read", id: "profile.unreadable", class: doctor.Scope, needs: "setpriv", shape: shape{as: stranger},
			inject: func(w *world) { w.stop(); w.must(os.Chmod(w.path(".env"), 0)) }},
		{what: "the logs may not be written", id: "profile.unreadable", class: doctor.Scope, needs: "setpriv", shape: shape{as: stranger},
			inject: func(w *world) { w.must(os.Chmod(w.path("logs"), 0o500)) }},
		{what: "the disk is full", id: "service.disk_full", class: doctor.Service, shape: shape{disk: "size=200m"},
			inject: func(w *world) { w.fillDisk(150) },
			hand:   func(w *world) { w.must(os.Remove(w.path("filler"))) }},
		{what: "no more files can be made on the disk", id: "service.inodes", class: doctor.Service, shape: shape{disk: "size=400m,nr_inodes=600"},
			inject: func(w *world) { w.fillInodes(420) },
			hand:   func(w *world) { w.must(os.RemoveAll(w.path("filler"))) }},
		{what: "the disk was mounted read-only", id: "service.disk_read_only", class: doctor.Service, shape: shape{disk: "size=400m"},
			inject: func(w *world) {
				w.stop()
				w.must(syscall.Mount("", w.home.Dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
			}, fixes: 2},
	}
}

// become makes everything of the world belong to another user, and lets every
// command run as that one.
func (w *world) become(uid int) {
	w.t.Helper()
	wrapper := filepath.Join(w.dir, "bin", "hermes")
	w.must(os.Remove(wrapper))
	w.must(os.WriteFile(wrapper, fmt.Appendf(nil, "#!/bin/sh\nexec setpriv --reuid=%d --regid=%d --clear-groups %s \"$@\"\n", uid, uid, w.home.Binary), 0o755))
	w.binary, w.home.Binary = w.home.Binary, wrapper
	for _, dir := range []string{filepath.Dir(w.dir), w.dir, filepath.Dir(w.binary)} {
		w.must(os.Chmod(dir, 0o755))
	}
	w.must(filepath.WalkDir(w.dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	}))
}

// mount lets the home lie on a file system of its own.
func (w *world) mount(options string) {
	w.t.Helper()
	w.must(os.MkdirAll(w.home.Dir, 0o700))
	w.must(syscall.Mount("tmpfs", w.home.Dir, "tmpfs", 0, "mode=0700,"+options))
	w.t.Cleanup(func() { w.must(syscall.Unmount(w.home.Dir, syscall.MNT_DETACH)) })
}

// fillDisk takes some MiB of the disk.
func (w *world) fillDisk(mib int) {
	w.t.Helper()
	w.must(os.WriteFile(w.path("filler"), make([]byte, mib<<20), 0o600))
}

// fillInodes makes that many files.
func (w *world) fillInodes(n int) {
	w.t.Helper()
	w.must(os.Mkdir(w.path("filler"), 0o700))
	for i := range n {
		w.must(os.WriteFile(w.path("filler", fmt.Sprint(i)), nil, 0o600))
	}
}
