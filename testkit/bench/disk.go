package main

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

// What a turn writes into the ledger's log, and how often at 200 requests a
// second; the log is overwritten in place, as SQLite does it.
const (
	diskWrite = 40 << 10 // bytes
	diskFile  = 4 << 20  // bytes
	diskEvery = 2500 * time.Microsecond
	diskTimes = 400
)

// syncs times bare synchronisations of the disk that the homes lie on. Each call
// of the API waits for two, so that its tail is never shorter than theirs.
func (b *bench) syncs(ctx context.Context) ([]time.Duration, error) {
	f, err := os.Create(filepath.Join(b.dir, "disk"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, diskFile)); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	block := make([]byte, diskWrite)
	took := make([]time.Duration, 0, diskTimes)
	for i := range diskTimes {
		began := time.Now()
		if _, err := f.WriteAt(block, int64(i*diskWrite%(diskFile-diskWrite))); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
		pause(ctx, diskEvery)
	}
	return took, nil
}
