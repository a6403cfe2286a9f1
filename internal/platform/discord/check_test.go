package discord_test

import (
	"context"
	"testing"
	"time"

	"hermes/internal/platform"
	"hermes/testkit/adapter"
	fake "hermes/testkit/discord"
)

// The credentials are proved without a session, and without ending anybody's.
func TestCheck(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	must(t, r.Check(r.ctx))
	r.srv.ResetToken(fake.Token("1100000000000000002", "another"))
	adapter.Fails(t, r.Check(r.ctx), platform.BadCredentials)
	r.srv.Close()
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Second)
	defer cancel()
	adapter.Fails(t, r.Check(ctx), platform.Retry)
}
