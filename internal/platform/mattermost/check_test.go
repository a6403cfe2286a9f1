package mattermost_test

import (
	"testing"

	"hermes/internal/platform"
	"hermes/testkit/adapter"
)

// The credentials are proved without a websocket.
func TestCheck(t *testing.T) {
	r := newRig(t, nil)
	if err := r.Check(r.ctx); err != nil {
		t.Fatal(err)
	}
	if n := r.srv.Sockets(); n != 0 {
		t.Errorf("%d websockets were opened", n)
	}
	r.srv.Revoke(true)
	adapter.Fails(t, r.Check(r.ctx), platform.BadCredentials)
	r.srv.Revoke(false)
	r.srv.GoDark()
	adapter.Fails(t, r.Check(r.ctx), platform.Retry)
}
