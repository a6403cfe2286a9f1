// Package sqlite keeps the ledger in one SQLite file: write-ahead log, every
// commit synchronised to the disk, hand-written SQL.
//
// One goroutine of the process writes. It commits together whatever waits for
// it, with a savepoint for each member, so that many small transactions share
// one synchronisation of the disk while a lone one waits for nobody. A few
// connections read. Several processes may have the file open and write at once;
// what each of them holds is bound to a lock on a file of its own (process.go),
// never to a clock.
//
// Times are kept in milliseconds and come back in UTC. The texts of events and
// messages are kept byte for byte, NUL and invalid UTF-8 included. What is kept
// as JSON (sources, attachments, parts of deliveries, steps, the input of turns)
// comes back with U+FFFD in place of invalid UTF-8.
package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"modernc.org/sqlite"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

var _ ledger.Store = (*Store)(nil)

// maxReaders is how many reads can run at once.
const maxReaders = 3

// Options say how to open a ledger.
type Options struct {
	Path string           // of the file; its folder is made where it is missing
	Kind string           // what the process is: gateway, cron, cli
	Now  func() time.Time // the clock; nil means time.Now
	Log  *slog.Logger     // nil discards

	// Program is the version of the program, which a ledger that it upgrades
	// remembers.
	Program string

	// KeepSchema leaves the schema of an earlier program as it is until Upgrade is
	// called: for a process that does not serve yet, because another still does.
	KeepSchema bool

	// NoBallast leaves out the reserve for a full disk. A process of kind cli
	// never makes one, but uses it.
	NoBallast bool

	self int64 // the process's number, once it is registered

	// For tests of the package itself.
	fileSystem   func(dir string) (fileSystem, error)
	ballastBytes int64
	maxSchema    int         // pretends to be an older program
	extraSteps   []migration // pretends to be a newer one
}

// kindCommand is a process that is over in a moment and serves nothing.
const kindCommand = "cli"

// Store is an open ledger. It is safe for concurrent use.
type Store struct {
	path, runDir, kind string
	opened             Options
	now                func() time.Time
	log                *slog.Logger
	schema             int
	setAside           string
	self               ledger.Process
	selfLock           *os.File

	w          *conn // the writer goroutine's
	requests   chan *request
	closing    chan struct{}
	closeOnce  sync.Once
	closeErr   error
	writerDone chan struct{}
	readers    readers
	readerDSN  driver.Connector
	reserve    *reserve
	indexer    *indexer
}

// Open opens the ledger at o.Path, making or upgrading it where needed, and
// registers this process. A ledger that a gateway of an older program serves
// from is not upgraded by a command, which gets domain.Conflict. Open answers domain.Config for what somebody must mend
// (permissions, a network file system, a ledger of a newer program),
// domain.Unavailable for what can pass (a disk gone read-only, a busy ledger)
// and domain.StorageFull. A file that is no database is moved aside by
// a process that serves, and Info.SetAside names its new place; of one with damaged
// pages it saves what can be read, and Info.Salvaged tells of it. A command gets
// domain.Unavailable for both.
func Open(ctx context.Context, o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	mends := !o.KeepSchema && o.Kind != kindCommand
	var s *Store
	if !mends || !suspect(o) {
		if s, err = open(ctx, o); err == nil || !mends || !isDamaged(err) {
			return s, err
		}
	}
	if err := salvage(ctx, o); err != nil {
		return nil, classifyFile(err, o.Path)
	}
	return open(ctx, o)
}

func open(ctx context.Context, o Options) (*Store, error) {
	aside, err := prepareFile(ctx, o)
	if err != nil {
		return nil, classifyFile(err, o.Path)
	}
	s := &Store{
		path: o.Path, runDir: runDir(o.Path), kind: o.Kind, opened: o, now: o.Now, log: o.Log, setAside: aside,
		requests: make(chan *request, maxGroup), closing: make(chan struct{}), writerDone: make(chan struct{}),
		readers: readers{free: make(chan struct{}, maxReaders)},
	}
	if s.w, s.schema, err = openWriter(ctx, o); isNoDatabase(err) {
		// Its first bytes looked right, but SQLite knows better.
		if s.setAside, err = setAside(ctx, o); err == nil {
			s.w, s.schema, err = openWriter(ctx, o)
		}
	}
	if err != nil {
		return nil, classifyFile(err, o.Path)
	}
	if s.setAside != "" {
		o.Log.Error("the ledger was no database; it was moved aside and a new one begun", "moved_to", s.setAside)
	}
	if s.readerDSN, err = connector(o.Path, true); err != nil {
		return nil, errors.Join(classifyFile(err, o.Path), s.w.close())
	}
	for range maxReaders {
		s.readers.free <- struct{}{}
	}
	s.reserve = newReserve(o)
	s.indexer = newIndexer(s)
	go s.writer()
	if err := s.register(ctx); err != nil {
		_ = s.stop() // the error that matters is err
		return nil, err
	}
	s.reserve.start()
	if !o.KeepSchema { // the index may be of the schema that is to come
		s.indexer.start()
	}
	return s, nil
}

func (o Options) withDefaults() (Options, error) {
	if o.Path == "" {
		return o, domain.E(domain.Config, nil, "no path for the ledger is given")
	}
	abs, err := filepath.Abs(o.Path)
	if err != nil {
		return o, domain.E(domain.Config, err, "the ledger's path %s cannot be resolved", o.Path)
	}
	o.Path = abs
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.fileSystem == nil {
		o.fileSystem = statFileSystem
	}
	if o.ballastBytes == 0 {
		o.ballastBytes = defaultBallast
	}
	if o.maxSchema == 0 {
		o.maxSchema = headSchema() + len(o.extraSteps)
	}
	return o, nil
}

func runDir(path string) string { return filepath.Join(filepath.Dir(path), "run") }

// connector makes connections to the ledger. All settings are in the name, so
// that none is without them.
func connector(path string, readOnly bool) (driver.Connector, error) {
	q := url.Values{
		"_txlock": {"immediate"},
		"_dqs":    {"0"},
		"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "journal_size_limit(33554432)", "temp_store(MEMORY)"},
	}
	if st, err := os.Stat(path); err == nil && st.Size() == 0 {
		// Only at the beginning: it needs the write lock, and is kept in the file.
		q.Set("_auto_vacuum", "incremental")
	}
	// Small caches: the system's own has the pages too, and what lies here grows
	// with the ledger until they are full.
	busy, cache := 100*time.Millisecond, 1024 // the writer waits in begin
	if readOnly {
		busy, cache = 10*time.Second, 256
		q.Set("_query_only", "1")
	}
	q.Set("_busy_timeout", strconv.FormatInt(busy.Milliseconds(), 10))
	q.Add("_pragma", "cache_size(-"+strconv.Itoa(cache)+")") // KiB
	u := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	return sqlite.NewConnector(u.String())
}

// openWriter opens the write connection and brings the schema up to date.
func openWriter(ctx context.Context, o Options) (*conn, int, error) {
	dsn, err := connector(o.Path, false)
	if err != nil {
		return nil, 0, err
	}
	c, err := openConn(dsn)
	limit := time.Now().Add(busyLimit)
	for isBusy(err) && ctx.Err() == nil && time.Now().Before(limit) { // another process recovers the log
		time.Sleep(busyRetry)
		c, err = openConn(dsn)
	}
	if err != nil {
		return nil, 0, err
	}
	version, err := migrate(ctx, c, o)
	if err != nil {
		return nil, 0, errors.Join(err, c.close())
	}
	return c, version, nil
}

// read runs f on a connection of its own. f sees what is committed when its
// first statement runs; see readAll for several that must agree.
func (s *Store) read(ctx context.Context, f func(*conn) error) error {
	if err := ctx.Err(); err != nil {
		return s.classify(err)
	}
	select {
	case <-s.readers.free:
	case <-ctx.Done():
		return s.classify(ctx.Err())
	case <-s.closing:
		return errClosed()
	}
	defer func() { s.readers.free <- struct{}{} }()
	c := s.readers.take()
	if c == nil {
		var err error
		if c, err = openConn(s.readerDSN); err != nil {
			return s.classify(err)
		}
	}
	defer s.readers.give(c)
	return s.classify(f(c))
}

// readers are the connections that read. A read takes the one that was given back
// last, so that the others are opened only when several read at once: each holds
// the whole schema in memory, and reads it first.
type readers struct {
	free chan struct{} // the right to read

	mu   sync.Mutex
	idle []*conn
}

// take gives an open connection, nil where one must be opened.
func (r *readers) take() *conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.idle)
	if n == 0 {
		return nil
	}
	c := r.idle[n-1]
	r.idle = r.idle[:n-1]
	return c
}

func (r *readers) give(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle = append(r.idle, c)
}

// readAll is read with all statements of f seeing the same state.
func (s *Store) readAll(ctx context.Context, f func(*conn) error) error {
	return s.read(ctx, func(c *conn) (err error) {
		if _, err := c.exec("BEGIN DEFERRED"); err != nil {
			return err
		}
		defer func() {
			if _, cerr := c.exec("COMMIT"); err == nil {
				err = cerr
			}
		}()
		return f(c)
	})
}

// committed tells those who work after commits.
func (s *Store) committed() { s.reserve.committed() }

// Check proves that the store answers: it commits a row and reads it back. It
// fails with domain.StorageFull also when that succeeded, but next to nothing
// more would.
func (s *Store) Check(ctx context.Context) error {
	if err := s.prove(ctx); err != nil {
		return err
	}
	return s.reserve.nearlyFull()
}

func (s *Store) prove(ctx context.Context) error {
	want := strconv.FormatInt(s.now().UnixNano(), 10)
	key := "check." + strconv.FormatInt(s.self.ID, 10)
	err := writeOnly(ctx, s, ordinary, func(c *conn) error {
		_, err := c.exec(`INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, want)
		return err
	})
	if err != nil {
		return err
	}
	return s.read(ctx, func(c *conn) error {
		var got string
		_, err := c.one(`SELECT value FROM meta WHERE key = ?`, []any{key}, &got)
		if err == nil && got < want {
			err = domain.E(domain.Internal, nil, "the ledger %s did not give back what was just committed to it", s.path)
		}
		return err
	})
}

// Close ends the registration and closes the files. What this process still
// holds is left for the next Recover to take over, as after a crash.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.indexer.stop()
		s.reserve.stop()
		err := writeOnly(context.Background(), s, essential, s.deregister)
		s.closeErr = errors.Join(err, s.stop())
	})
	return s.closeErr
}

// deregister forgets the process unless something still refers to it.
func (s *Store) deregister(c *conn) error {
	if _, err := c.exec(`UPDATE lease SET process = NULL WHERE process = ?`, s.self.ID); err != nil {
		return err
	}
	if _, err := c.exec(`DELETE FROM meta WHERE key = ?`, "check."+strconv.FormatInt(s.self.ID, 10)); err != nil {
		return err
	}
	_, err := c.exec(`DELETE FROM process WHERE id = ?1
		AND NOT EXISTS (SELECT 1 FROM turn WHERE process = ?1 AND state = 'running')
		AND NOT EXISTS (SELECT 1 FROM run WHERE process = ?1 AND state = 'running')
		AND NOT EXISTS (SELECT 1 FROM delivery WHERE process = ?1 AND state = 'sending')`, s.self.ID)
	return err
}

// stop ends the writer, waits for the reads, and closes the connections.
func (s *Store) stop() error {
	close(s.closing)
	<-s.writerDone
	var errs []error
	for range maxReaders {
		<-s.readers.free
	}
	for c := s.readers.take(); c != nil; c = s.readers.take() {
		errs = append(errs, c.close())
	}
	errs = append(errs, s.w.close())
	if s.selfLock != nil {
		errs = append(errs, os.Remove(s.selfLock.Name()), s.selfLock.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return domain.E(domain.Internal, err, "the ledger did not close cleanly; nothing that was committed is lost")
	}
	return nil
}
