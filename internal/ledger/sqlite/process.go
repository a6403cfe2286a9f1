package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/plain"
)

// A process lives as long as it holds an exclusive flock on its file
// run/process-<id>.lock beside the ledger. The kernel gives the lock up with
// the last descriptor, however the process ends, and an execve does so too, as
// the descriptor is close-on-exec. No clock is involved.

// maxLockTries bounds the search for a process number that nobody uses.
const maxLockTries = 64

func (s *Store) lockPath(id int64) string { return lockPath(s.runDir, id) }

func lockPath(dir string, id int64) string {
	return filepath.Join(dir, fmt.Sprintf("process-%d.lock", id))
}

// register makes this process known. The lock is held before the row can be
// seen, so that nobody takes a newcomer for dead.
func (s *Store) register(ctx context.Context) error {
	p := ledger.Process{BootID: bootID(), PID: os.Getpid(), StartTime: startTime("self"), Kind: s.kind, Since: s.now()}
	var lock *os.File
	drop := func() {
		if lock != nil {
			os.Remove(lock.Name())
			lock.Close()
			lock = nil
		}
	}
	err := writeOnly(ctx, s, essential, func(c *conn) (err error) {
		drop() // of an attempt before
		for range maxLockTries {
			p.ID, err = c.insert(`INSERT INTO process (boot_id, pid, start_time, kind, since) VALUES (?, ?, ?, ?, ?)`,
				p.BootID, p.PID, p.StartTime, p.Kind, p.Since)
			if err != nil {
				return err
			}
			lock, err = holdLock(s.lockPath(p.ID))
			if !errors.Is(err, syscall.EWOULDBLOCK) {
				return err
			}
			// A live process that uses a ledger which was set aside has this number.
			if _, derr := c.exec(`DELETE FROM process WHERE id = ?`, p.ID); derr != nil {
				return derr
			}
		}
		return err
	})
	if err != nil {
		return err // the file of an attempt that failed late stays locked until this process ends
	}
	s.self, s.selfLock, s.opened.self = p, lock, p.ID
	return nil
}

func holdLock(path string) (*os.File, error) {
	f, err := plain.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	fmt.Fprintf(f, "%d\n", os.Getpid()) // for people; nothing reads it
	return f, nil
}

// alive tells whether a registered process still lives.
func (s *Store) alive(p ledger.Process) bool { return p.ID == s.self.ID || lives(s.runDir, p) }

// lives tells whether another process still holds its lock. Probing takes a
// shared lock, so that two who probe do not take each other for the holder.
func lives(dir string, p ledger.Process) bool {
	f, err := plain.Open(lockPath(dir, p.ID))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Somebody cleaned the folder. The row's own evidence decides.
		return p.PID != os.Getpid() && p.BootID == bootID() && startTime(strconv.Itoa(p.PID)) == p.StartTime
	case err != nil:
		return true // not provably dead
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	return err != nil
}

// holderAlive is alive for the id in a row; 0 is nobody.
func (s *Store) holderAlive(c *conn, id int64) (bool, error) {
	if id == 0 {
		return false, nil
	}
	if id == s.self.ID {
		return true, nil
	}
	p, found, err := processByID(c, id)
	if err != nil || !found {
		return false, err
	}
	return s.alive(p), nil
}

const processColumns = `id, boot_id, pid, start_time, kind, since`

func scanProcess(r row, p *ledger.Process) error {
	return r.scan(&p.ID, &p.BootID, &p.PID, &p.StartTime, &p.Kind, &p.Since)
}

func processByID(c *conn, id int64) (p ledger.Process, found bool, err error) {
	err = c.each(`SELECT `+processColumns+` FROM process WHERE id = ?`, []any{id}, func(r row) error {
		found = true
		return scanProcess(r, &p)
	})
	return p, found, err
}

// checkSelf answers Fenced when another process took this one for dead, which
// can happen only if its lock file was tampered with. Every claim asks it.
func (s *Store) checkSelf(c *conn) error {
	found, err := c.one(`SELECT 1 FROM process WHERE id = ?`, []any{s.self.ID}, new(int64))
	if err == nil && !found {
		err = domain.E(domain.Fenced, nil, "another process has taken this one (PID %d) for dead and holds its work now; restart it", s.self.PID)
	}
	return err
}

// Self is this process as registered when the store was opened.
func (s *Store) Self() ledger.Process { return s.self }

// Recover takes over what dead processes held. It looks only at rows that a
// process holds, each by an index, so its cost does not grow with the ledger.
func (s *Store) Recover(ctx context.Context, now time.Time) (ledger.Recovered, error) {
	return write(ctx, s, essential, func(c *conn) (ledger.Recovered, error) {
		var out ledger.Recovered
		dead, err := s.deadProcesses(c)
		if err != nil {
			return out, err
		}
		for _, p := range dead {
			if err := s.takeOver(c, p, now, &out); err != nil {
				return out, err
			}
			os.Remove(s.lockPath(p.ID)) // best effort: a file without a row is only a crumb
		}
		return out, nil
	})
}

func (s *Store) deadProcesses(c *conn) (dead []ledger.Process, err error) {
	err = c.each(`SELECT `+processColumns+` FROM process`, nil, func(r row) error {
		var p ledger.Process
		if err := scanProcess(r, &p); err != nil {
			return err
		}
		if !s.alive(p) {
			dead = append(dead, p)
		}
		return nil
	})
	return dead, err
}

// takeOver frees everything that one dead process held, and forgets it.
func (s *Store) takeOver(c *conn, p ledger.Process, now time.Time, out *ledger.Recovered) error {
	out.Processes++
	n, err := c.exec(`UPDATE lease SET process = NULL WHERE process = ?`, p.ID)
	if err != nil {
		return err
	}
	out.Leases += int(n)
	n, err = c.exec(`UPDATE delivery SET state = 'retrying', uncertain = 1, process = NULL, next_at = NULL,
		reason = 'the process that was sending it ended' WHERE process = ? AND state = 'sending'`, p.ID)
	if err != nil {
		return err
	}
	out.Uncertain += int(n)
	if err := recoverRuns(c, p.ID, now, out); err != nil {
		return err
	}
	if err := recoverTurns(c, p.ID, now, out); err != nil {
		return err
	}
	_, err = c.exec(`DELETE FROM process WHERE id = ?`, p.ID)
	return err
}

// recoverTurns resumes what can be resumed, and ends what nobody waits for.
func recoverTurns(c *conn, process int64, now time.Time, out *ledger.Recovered) error {
	n, err := c.exec(`UPDATE turn SET state = 'queued', resumed = 1, process = NULL
		WHERE process = ? AND state = 'running' AND kind IN ('chat', 'background')`, process)
	if err != nil {
		return err
	}
	out.Requeued += int(n)
	ended, err := c.ids(`SELECT id FROM turn WHERE process = ? AND state = 'running'`, process)
	if err != nil {
		return err
	}
	for _, id := range ended {
		if err := interruptTurn(c, id, "the process that ran it ended", now); err != nil {
			return err
		}
	}
	out.Ended += len(ended)
	return nil
}

// recoverRuns ends the runs that were cut off, each with its turn, wherever
// that turn is held.
func recoverRuns(c *conn, process int64, now time.Time, out *ledger.Recovered) error {
	from := len(out.Runs)
	err := c.each(`SELECT `+runColumns+` FROM run WHERE process = ? AND state = 'running'`, []any{process}, func(r row) error {
		run, err := scanRun(r)
		out.Runs = append(out.Runs, run)
		return err
	})
	if err != nil {
		return err
	}
	for i := range out.Runs[from:] {
		run := &out.Runs[from+i]
		run.State, run.EndedAt, run.Error = domain.RunInterrupted, now, "the process that ran it ended"
		if _, err := c.exec(`UPDATE run SET state = 'interrupted', ended_at = ?, error = ?, process = NULL WHERE id = ?`,
			now, run.Error, run.ID); err != nil {
			return err
		}
		if run.TurnID == 0 {
			continue
		}
		open, err := c.one(`SELECT 1 FROM turn WHERE id = ? AND ended_at IS NULL`, []any{run.TurnID}, new(int64))
		if err != nil {
			return err
		}
		if open {
			if err := interruptTurn(c, run.TurnID, run.Error, now); err != nil {
				return err
			}
			out.Ended++
		}
	}
	return nil
}

// AcquireLease takes the lease, also from a dead holder. A lease that this very
// process holds is a Conflict too: it has one owner.
func (s *Store) AcquireLease(ctx context.Context, name string) (ledger.Lease, error) {
	return write(ctx, s, ordinary, func(c *conn) (ledger.Lease, error) {
		l := ledger.Lease{Name: name}
		if err := s.checkSelf(c); err != nil {
			return l, err
		}
		var holder int64
		if _, err := c.one(`SELECT fence, process FROM lease WHERE name = ?`, []any{name}, &l.Fence, &holder); err != nil {
			return l, err
		}
		if holder != 0 {
			p, found, err := processByID(c, holder)
			if err != nil {
				return l, err
			}
			if found && s.alive(p) {
				return l, domain.E(domain.Conflict, &ledger.Held{By: p}, "%s is in the hands of the %s process with PID %d; stop that one first, or leave it to it", name, p.Kind, p.PID)
			}
		}
		l.Fence++
		_, err := c.exec(`INSERT INTO lease (name, fence, process) VALUES (?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET fence = excluded.fence, process = excluded.process`, name, l.Fence, s.self.ID)
		return l, err
	})
}

// ReleaseLease gives a lease back; one that was lost is left to its new holder.
func (s *Store) ReleaseLease(ctx context.Context, l ledger.Lease) error {
	return writeOnly(ctx, s, essential, func(c *conn) error {
		_, err := c.exec(`UPDATE lease SET process = NULL WHERE name = ? AND fence = ? AND process = ?`, l.Name, l.Fence, s.self.ID)
		return err
	})
}

// CheckLease answers Fenced when the lease has changed hands.
func (s *Store) CheckLease(ctx context.Context, l ledger.Lease) error {
	return s.read(ctx, func(c *conn) error {
		held, err := c.one(`SELECT 1 FROM lease WHERE name = ? AND fence = ? AND process = ?`, []any{l.Name, l.Fence, s.self.ID}, new(int64))
		if err == nil && !held {
			err = domain.E(domain.Fenced, nil, "%s has passed to another holder; stop at once", l.Name)
		}
		return err
	})
}

// bootID names this boot of the machine, "" where the system does not tell.
// https://docs.kernel.org/admin-guide/sysctl/kernel.html#random
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(b))
}

// startTime is field 22 of /proc/PID/stat, in clock ticks since boot; 0 when
// there is no such process. The name in field 2 may hold spaces and
// parentheses, so the fields are counted from the last parenthesis.
// https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
func startTime(pid string) uint64 {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(f[19], 10, 64) // the third field is f[0]
	return n
}
