//go:build linux

package cron

import (
	"context"
	"testing"
)

func TestPoke(t *testing.T) {
	home := t.TempDir()
	if err := Poke(home); err != nil {
		t.Errorf("with no scheduler: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	pokes, done := make(chan struct{}), make(chan error)
	go func() { done <- WatchPokes(ctx, home, func() { pokes <- struct{}{} }) }()
	<-pokes // the watch stands
	for range 3 {
		if err := Poke(home); err != nil {
			t.Fatal(err)
		}
		<-pokes
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
