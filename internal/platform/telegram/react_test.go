package telegram_test

import (
	"testing"

	"hermes/internal/platform/telegram"
)

// A message that is being worked on is marked, where that is switched on.
func TestReactions(t *testing.T) {
	for _, on := range []bool{true, false} {
		r := newRig(t, func(c *telegram.Config) { c.Reactions = on })
		alice := r.srv.AddUser("Alice")
		r.run(t)
		said := r.srv.Say(alice, "hello")
		in := r.sink.Wait(t, r.ctx, 1)[0]
		if got := r.srv.Reaction(alice.ID, said.ID); got != "" {
			t.Errorf("before anything is done it is marked %s", got)
		}
		for range 2 {
			if err := r.Typing(r.ctx, in.Address); err != nil {
				t.Fatal(err)
			}
		}
		want := ""
		if on {
			want = "👀"
		}
		if got := r.srv.Reaction(alice.ID, said.ID); got != want {
			t.Errorf("the mark is %q, want %q", got, want)
		}
	}
}
