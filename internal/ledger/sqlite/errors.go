package sqlite

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// resultCode is SQLite's extended result code in err's chain; 0 when there is
// none. https://www.sqlite.org/rescode.html
func resultCode(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

// isBusy tells that another connection had the lock for too long.
func isBusy(err error) bool {
	c := resultCode(err) & 0xff
	return c == sqlite3.SQLITE_BUSY || c == sqlite3.SQLITE_LOCKED
}

// isFull tells that there was no space. The shared memory file of the
// write-ahead log reports a lack of space as an I/O error of its own.
func isFull(err error) bool {
	c := resultCode(err)
	return c&0xff == sqlite3.SQLITE_FULL || c == sqlite3.SQLITE_IOERR_SHMSIZE ||
		errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// isNoDatabase tells that the file is something else than a database.
func isNoDatabase(err error) bool { return resultCode(err)&0xff == sqlite3.SQLITE_NOTADB }

// classify gives every error that leaves the package a code and a sentence.
// Errors that have a code keep it.
func (s *Store) classify(err error) error {
	var de *domain.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &de):
		return err
	case errors.Is(err, context.Canceled):
		return domain.E(domain.Cancelled, err, "stopped while the ledger was asked; what was to be written may or may not be there")
	case errors.Is(err, context.DeadlineExceeded):
		return domain.E(domain.Timeout, err, "the ledger did not answer in time; what was to be written may or may not be there")
	case isFull(err):
		return domain.E(domain.StorageFull, err, "no space is left for the ledger %s; nothing was written; free some space on that file system", s.path)
	case isBusy(err):
		return domain.E(domain.Unavailable, err, "the ledger %s is held by another process; nothing was written; it is tried again", s.path)
	case isDamaged(err):
		_ = plain.Write(DamageMark(s.path), nil, 0o600) // without it the next start sees only what it happens to read
	}
	return classifyFile(err, s.path)
}

// classifyFile explains errors that come from the file itself.
func classifyFile(err error, path string) error {
	var de *domain.Error
	if errors.As(err, &de) {
		return err
	}
	switch c := resultCode(err) & 0xff; {
	case errors.Is(err, fs.ErrPermission) || c == sqlite3.SQLITE_PERM || c == sqlite3.SQLITE_AUTH:
		return domain.E(domain.Config, err, "the ledger %s may not be read and written by this user; give the file and its folder to the user that runs hermes", path)
	case errors.Is(err, syscall.EROFS) || c == sqlite3.SQLITE_READONLY:
		return domain.E(domain.Unavailable, err, "the ledger %s cannot be written, because the file or its file system is read-only; make it writable", path)
	case c == sqlite3.SQLITE_CANTOPEN || wrongPath(err):
		return domain.E(domain.Config, err, "the ledger %s cannot be opened; look at its path, and at the permissions of the file and of its folder", path)
	case isFull(err):
		return domain.E(domain.StorageFull, err, "no space is left for the ledger %s; free some space on that file system", path)
	case isBusy(err):
		return domain.E(domain.Unavailable, err, "the ledger %s is held by another process; try again", path)
	case c == sqlite3.SQLITE_CORRUPT || c == sqlite3.SQLITE_NOTADB:
		return domain.E(domain.Unavailable, err, "the ledger %s is damaged; stop the gateway and start it again (`hermes gateway stop`, `hermes gateway start`): a start keeps the file and saves what can be read of it into a new one", path)
	case c == sqlite3.SQLITE_IOERR:
		return domain.E(domain.Unavailable, err, "the disk under the ledger %s reports errors; look at the kernel's log", path)
	case errors.As(err, new(syscall.Errno)):
		return domain.E(domain.Unavailable, err, "the system refused an operation on the ledger %s or beside it; it is tried again", path)
	}
	return domain.E(domain.Internal, err, "the ledger failed in an unforeseen way; nothing was written; see the log")
}

// wrongPath tells that the path leads nowhere, which no waiting mends.
func wrongPath(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) ||
		errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENAMETOOLONG)
}

// fenced is the answer to a write under a claim that is over.
func fenced(what string, id int64) error {
	return domain.E(domain.Fenced, nil, "%s %d is not held by this claim any more; it ended, or another process has taken it over; stop working on it", what, id)
}

func notFound(what string, id any) error {
	return domain.E(domain.NotFound, nil, "there is no %s %v", what, id)
}
