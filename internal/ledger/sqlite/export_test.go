package sqlite

import "testing"

// Kill ends the store as kill -9 ends its process: nothing is written, and the
// lock is gone.
func (s *Store) Kill() {
	s.closeOnce.Do(func() {
		s.indexer.stop()
		s.reserve.stop()
		lock := s.selfLock
		s.selfLock = nil // its file stays, as after a crash
		s.stop()
		lock.Close()
	})
}

// QueryInt asks the file a question that has a number for an answer.
func QueryInt(t *testing.T, path, q string) (n int64) {
	t.Helper()
	queryFile(t, path, q, &n)
	return n
}

// QueryText asks the file a question that has a text for an answer.
func QueryText(t *testing.T, path, q string) (s string) {
	t.Helper()
	queryFile(t, path, q, &s)
	return s
}

func queryFile(t *testing.T, path, q string, dst any) {
	t.Helper()
	dsn, err := connector(path, true)
	if err != nil {
		t.Fatal(err)
	}
	c, err := openConn(dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if _, err := c.one(q, nil, dst); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
}
