package mattermost_test

import (
	"testing"

	"hermes/internal/platform"
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
	fails(t, r.Check(r.ctx), platform.BadCredentials)
	r.srv.Revoke(false)
	r.srv.GoDark()
	fails(t, r.Check(r.ctx), platform.Retry)
}
