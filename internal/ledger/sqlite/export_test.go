package sqlite

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
