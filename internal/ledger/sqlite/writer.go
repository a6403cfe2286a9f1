package sqlite

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"hermes/internal/domain"
)

const (
	// maxGroup bounds how many transactions share one commit, and with it how
	// long the first of them waits for the last.
	maxGroup = 128
	// busyRetry is the pause between attempts while another process writes.
	// SQLite's own pauses grow to 100 ms, which is long for a hand-over.
	busyRetry = 2 * time.Millisecond
	// busyLimit is when a write gives up although nobody stopped waiting.
	busyLimit = 30 * time.Second
)

// urgency says what a write may use when the disk is full.
type urgency int

const (
	ordinary  urgency = iota // refused on a full disk
	essential                // may use the space of the ballast: receipts, alarms, ends of turns
)

// request is one transaction that waits for the writer.
type request struct {
	ctx  context.Context
	op   func(*conn) error
	urge urgency
	err  error
	done chan struct{} // closed when err is final
}

func (r *request) finish(err error) {
	r.err = err
	close(r.done)
}

// write runs op in a transaction and returns once it is durable. op may be run
// more than once (each time from an unchanged state), so it builds its result
// anew. When ctx ends first, the zero value is returned and op may still happen.
func write[T any](ctx context.Context, s *Store, urge urgency, op func(*conn) (T, error)) (T, error) {
	var zero, result T
	if err := ctx.Err(); err != nil {
		return zero, s.classify(err)
	}
	if urge == ordinary {
		if err := s.reserve.admit(); err != nil {
			return zero, err
		}
	}
	r := &request{ctx: ctx, urge: urge, done: make(chan struct{}), op: func(c *conn) (err error) {
		result, err = op(c)
		return err
	}}
	select {
	case s.requests <- r:
	case <-ctx.Done():
		return zero, s.classify(ctx.Err())
	case <-s.closing:
		return zero, errClosed()
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		return zero, s.classify(ctx.Err())
	case <-s.writerDone:
		select {
		case <-r.done:
		default: // it came when the writer had gone
			return zero, errClosed()
		}
	}
	if r.err != nil {
		return zero, s.classify(r.err)
	}
	return result, nil
}

// writeOnly is write for an op without a result.
func writeOnly(ctx context.Context, s *Store, urge urgency, op func(*conn) error) error {
	_, err := write(ctx, s, urge, func(c *conn) (struct{}, error) { return struct{}{}, op(c) })
	return err
}

func errClosed() error {
	return domain.E(domain.Unavailable, nil, "the ledger is closed, because this process is ending; nothing was written")
}

// writer owns the write connection. Whatever waits when it is free is committed
// together; a lone request is committed at once.
func (s *Store) writer() {
	defer close(s.writerDone)
	group := make([]*request, 0, maxGroup)
	for {
		group = group[:0]
		select {
		case r := <-s.requests:
			group = append(group, r)
		case <-s.closing:
			s.refuseWaiting()
			return
		}
		group = s.gather(group)
		s.commitGroup(group)
		clear(group)
	}
}

// gather adds the requests that already wait.
func (s *Store) gather(group []*request) []*request {
	for len(group) < maxGroup {
		select {
		case r := <-s.requests:
			group = append(group, r)
		default:
			return group
		}
	}
	return group
}

// refuseWaiting answers those whose request the writer will not take any more.
func (s *Store) refuseWaiting() {
	for {
		select {
		case r := <-s.requests:
			r.finish(errClosed())
		default:
			return
		}
	}
}

// commitGroup runs the group in one transaction. If that fails as a whole,
// each member is tried alone, so that one cannot harm another.
func (s *Store) commitGroup(group []*request) {
	if len(group) == 1 {
		group[0].finish(s.commitAlone(group[0]))
		return
	}
	errs, err := s.tryGroup(group)
	if err != nil {
		for _, r := range group {
			r.finish(s.commitAlone(r))
		}
		return
	}
	for i, r := range group {
		r.finish(errs[i])
	}
	s.committed()
}

// tryGroup commits the members that succeed. errs are the answers of the
// members; err says that the transaction as a whole did not happen.
func (s *Store) tryGroup(group []*request) (errs []error, err error) {
	if err := s.begin(func() bool { return anyLive(group) }); err != nil {
		return nil, err
	}
	errs = make([]error, len(group))
	for i, r := range group {
		if errs[i] = r.ctx.Err(); errs[i] != nil {
			continue
		}
		if _, err := s.w.exec("SAVEPOINT member"); err != nil {
			return nil, s.rollback(err)
		}
		errs[i] = runOp(s.w, r.op)
		if errs[i] != nil {
			if resultCode(errs[i]) != 0 {
				// SQLite itself failed and may have ended the transaction.
				return nil, s.rollback(errs[i])
			}
			if _, err := s.w.exec("ROLLBACK TO member"); err != nil {
				return nil, s.rollback(err)
			}
		}
		if _, err := s.w.exec("RELEASE member"); err != nil {
			return nil, s.rollback(err)
		}
	}
	if _, err := s.w.exec("COMMIT"); err != nil {
		return nil, s.rollback(err)
	}
	return errs, nil
}

func anyLive(group []*request) bool {
	for _, r := range group {
		if r.ctx.Err() == nil {
			return true
		}
	}
	return false
}

// commitAlone runs one request in a transaction of its own. On a full disk an
// essential one is tried again with the space of the ballast.
func (s *Store) commitAlone(r *request) error {
	err := s.tryAlone(r)
	if isFull(err) {
		gaveUp := s.reserve.full(s.now())
		if r.urge == essential && gaveUp {
			err = s.tryAlone(r)
		}
	}
	if err == nil {
		s.committed()
	}
	return err
}

func (s *Store) tryAlone(r *request) error {
	if err := s.begin(func() bool { return r.ctx.Err() == nil }); err != nil {
		if ctxErr := r.ctx.Err(); ctxErr != nil {
			return ctxErr
		}
		return err
	}
	if err := runOp(s.w, r.op); err != nil {
		return s.rollback(err)
	}
	if _, err := s.w.exec("COMMIT"); err != nil {
		return s.rollback(err)
	}
	return nil
}

// begin takes the write lock, waiting for another process as long as wanted.
func (s *Store) begin(wanted func() bool) error {
	limit := time.Now().Add(busyLimit) // monotonic; not the ledger's clock, which tests stop
	for {
		_, err := s.w.exec("BEGIN IMMEDIATE")
		if err == nil || !isBusy(err) || !wanted() || time.Now().After(limit) {
			return err
		}
		time.Sleep(busyRetry)
	}
}

// rollback ends the transaction after err and returns err. SQLite may have
// ended it already, so that a second error says nothing.
func (s *Store) rollback(err error) error {
	_, _ = s.w.exec("ROLLBACK")
	return err
}

// runOp contains a panic: it is that transaction's failure only.
func runOp(c *conn, op func(*conn) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = domain.E(domain.Internal, fmt.Errorf("panic: %v\n%s", p, debug.Stack()),
				"the ledger failed in an unforeseen way; nothing was written; see the log")
		}
	}()
	return op(c)
}
