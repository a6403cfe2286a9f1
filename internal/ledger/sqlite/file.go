package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// fileSystem is what is known of the file system under a folder.
type fileSystem struct {
	magic     int64  // f_type of statfs(2)
	name      string // as /proc/self/mountinfo calls it; "" when unknown
	freeBytes int64  // for this user
}

// networkMagic are the file systems that several machines may have mounted.
// SQLite's write-ahead log needs shared memory and locks that all its users
// see, which these do not give. https://www.sqlite.org/wal.html
var networkMagic = map[int64]string{
	0x6969:     "NFS",
	0x517B:     "SMB",
	0xFE534D42: "SMB2",
	0xFF534D42: "CIFS",
	0x564C:     "NCP",
	0x5346414F: "AFS",
	0x6B414653: "AFS",
	0x73757245: "Coda",
	0x00C36400: "Ceph",
	0x0BD00BD0: "Lustre",
	0x01021997: "9P",
}

const fuseMagic = 0x65735546

// networkFuse are kinds of FUSE mounts that reach over a network. Other FUSE
// mounts (ntfs-3g, encrypted folders) are local.
var networkFuse = []string{"sshfs", "rclone", "s3fs", "gcsfuse", "goofys", "davfs", "glusterfs", "curlftpfs", "juicefs", "cephfs", "smbnetfs", "afpfs", "mfs", "seaweedfs"}

// network names the network file system, "" for a local one.
func (f fileSystem) network() string {
	if name := networkMagic[f.magic&0xFFFFFFFF]; name != "" {
		return name
	}
	if f.magic != fuseMagic {
		return ""
	}
	for _, n := range networkFuse {
		if strings.Contains(strings.ToLower(f.name), n) {
			return f.name
		}
	}
	return ""
}

func statFileSystem(dir string) (fileSystem, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return fileSystem{}, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	f := fileSystem{magic: int64(st.Type), freeBytes: int64(st.Bavail) * int64(st.Bsize)} //nolint:unconvert // their types differ from system to system
	if f.magic == fuseMagic {
		f.name = mountType(dir)
	}
	return f, nil
}

// mountType finds the type of the mount that dir lies in: the longest mount
// point that is its prefix. https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
func mountType(dir string) string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	var best, kind string
	for line := range strings.Lines(string(b)) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 1 {
			continue
		}
		point := strings.ReplaceAll(l[4], `\040`, " ")
		if (dir == point || point == "/" || strings.HasPrefix(dir, point+"/")) && len(point) >= len(best) {
			best, kind = point, r[0]
		}
	}
	return kind
}

// sqliteHeader begins every database file. https://www.sqlite.org/fileformat.html
var sqliteHeader = []byte("SQLite format 3\x00")

const headerSize = 100 // bytes

// prepareFile makes the folders and the file with their permissions, refuses
// network file systems, and moves aside what is no database. It returns where
// such a file was moved.
func prepareFile(ctx context.Context, o Options) (aside string, err error) {
	if err := os.MkdirAll(runDir(o.Path), 0o700); err != nil {
		return "", err
	}
	dir := filepath.Dir(o.Path)
	kind, err := o.fileSystem(dir)
	if err != nil {
		return "", err
	}
	if name := kind.network(); name != "" {
		return "", domain.E(domain.Config, nil, "the ledger %s would lie on a network file system (%s), where its locks and its log are not safe; put the profile on a local disk", o.Path, name)
	}
	if err := finishSalvage(o); err != nil {
		return "", err
	}
	for _, suffix := range []string{"-wal", "-shm", "-journal"} { // of which SQLite would say that the disk is broken
		info, err := os.Stat(o.Path + suffix)
		if err == nil && !info.Mode().IsRegular() {
			return "", domain.E(domain.Config, nil, "%s belongs to the ledger and is %s; move away what is there", o.Path+suffix, plain.Kind(info.Mode()))
		}
	}
	ok, err := looksLikeDatabase(o.Path)
	if err != nil {
		return "", err
	}
	if !ok {
		if aside, err = setAside(ctx, o); err != nil {
			return "", err
		}
	}
	f, err := plain.OpenFile(o.Path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if st.Mode().Perm()&0o077 != 0 {
		err = f.Chmod(0o600) // transcripts are nobody else's business
	}
	return aside, err
}

// looksLikeDatabase tells whether the file is missing, empty, or begins as a
// database does.
func looksLikeDatabase(path string) (bool, error) {
	f, err := plain.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if errors.Is(err, plain.ErrNotPlain) {
		return false, domain.E(domain.Config, err, "the ledger's path %s is not a file; move away what is there", path)
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, headerSize)
	n, err := io.ReadFull(f, head)
	if n == 0 && errors.Is(err, io.EOF) {
		return true, nil
	}
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	return n == headerSize && plausibleHeader(head), nil
}

// plausibleHeader checks what SQLite checks before it says that a file is no
// database: magic, page size, versions, and three constants. It is done here as
// well because SQLite, by the time it says so, has removed the file's log.
func plausibleHeader(h []byte) bool {
	pageSize := int(h[16])<<8 | int(h[17])
	sizeOK := pageSize == 1 || (pageSize >= 512 && pageSize&(pageSize-1) == 0)
	return bytes.HasPrefix(h, sqliteHeader) && sizeOK && h[18] <= 2 && h[19] <= 2 && h[21] == 64 && h[22] == 32 && h[23] == 32
}

// setAside moves a file that is no database, with its companions, to a name
// with the time. Two processes that start at once do it once. A command moves
// nothing: domain.Unavailable.
func setAside(ctx context.Context, o Options) (string, error) {
	if o.Kind == kindCommand {
		// Else nobody heard of it: only who moved it can tell.
		return "", domain.E(domain.Unavailable, nil, "the ledger %s is no database, so nothing was read or done. The gateway's next start keeps the file under another name and begins a new ledger; if you have a copy, put it back first: `hermes doctor` says how", o.Path)
	}
	lock, err := waitLock(ctx, filepath.Join(runDir(o.Path), "aside.lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if ok, err := looksLikeDatabase(o.Path); err != nil {
		return "", err
	} else if ok && !refusedBySQLite(o) {
		return "", nil // the other one was faster
	}
	to, err := freeName(o.Path + ".broken-" + o.Now().UTC().Format("20060102T150405Z"))
	if err != nil {
		return "", err
	}
	return to, moveAside(o.Path, to)
}

// moveAside renames a file with its companions.
func moveAside(path, to string) error {
	for _, suffix := range []string{"-wal", "-shm", ""} { // the file last: without it the rest means nothing
		err := os.Rename(path+suffix, to+suffix)
		if err != nil && !(suffix != "" && errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return nil
}

// refusedBySQLite tells whether SQLite takes the file for something else.
func refusedBySQLite(o Options) bool {
	dsn, err := connector(o.Path, true)
	if err != nil {
		return false
	}
	c, err := openConn(dsn)
	if err == nil {
		_, err = schemaVersion(c)
		_ = c.close() // nothing was written
	}
	return isNoDatabase(err)
}

// freeName appends a number where the name is taken, so that nothing is
// overwritten.
func freeName(base string) (string, error) {
	name := base
	for i := 2; i < 1000; i++ {
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return name, nil
		} else if err != nil {
			return "", err
		}
		name = fmt.Sprintf("%s.%d", base, i)
	}
	return "", domain.E(domain.Config, nil, "a thousand broken ledgers lie beside %s; move them away", base)
}

// waitLock takes an exclusive flock; closing the file gives it back. Errors:
// ctx's; Config, when there can be no lock at that path.
func waitLock(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, plain.LockFlag, 0o600)
	if errors.Is(err, fs.ErrPermission) || wrongPath(err) {
		return nil, domain.E(domain.Config, err, "%s cannot be opened, and without it the ledger is not safe from another process; remove it, or give it to the user that runs hermes", path)
	}
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(err, f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
