package handover

import (
	"strings"
	"testing"

	"hermes/internal/failpoint"
	"hermes/testkit/rig"
)

// A successor that dies, leaves or panics at any stage changes nothing: the
// command says why and fails, and the same process serves on.
func TestSuccessorThatFails(t *testing.T) {
	for _, mark := range []string{failpoint.SuccessorReady, failpoint.SuccessorOwns, failpoint.SuccessorServes} {
		for _, how := range []string{"kill", "panic", "exit"} {
			t.Run(mark+"/"+how, func(t *testing.T) {
				w := newWorld(t, "overlap", "failpoint", "HERMES_FAILPOINT="+mark+":1:"+how)
				holdsOut(t, w, "the new process ended before it could serve")
			})
		}
	}
}

// A successor that hangs is given up.
func TestSuccessorThatHangs(t *testing.T) {
	w := newWorld(t, "overlap", "failpoint", "HERMES_FAILPOINT="+failpoint.SuccessorReady+":1:hang")
	holdsOut(t, w, "did not answer in time")
}

// holdsOut tries two restarts that fail and holds that nothing has changed.
func holdsOut(t *testing.T, w *world, reason string) {
	t.Helper()
	before := w.serving()
	u := w.tg.AddUser("Ann")
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	for _, id := range []string{"a1", "a2"} {
		out, err := w.home.Run(ctx, "gateway", "restart")
		if err == nil || !strings.Contains(out, reason) {
			t.Fatalf("restart: %v\n%s", err, out)
		}
		if after := w.serving(); after.PID != before.PID || !after.StartedAt.Equal(before.StartedAt) {
			t.Fatalf("PID %d served, now %d does", before.PID, after.PID)
		}
		if r, ok := w.holder(); !ok || r.PID != before.PID {
			t.Fatalf("the PID file names %d", r.PID)
		}
		if err := w.converse(u, id); err != nil {
			t.Fatal(err)
		}
	}
	w.until("the failed successors are gone", func() bool { return len(w.alive()) == 1 })
}

// A predecessor that is killed at any stage leaves exactly one process that
// serves, or none and a free profile; no message is lost or answered twice.
func TestPredecessorThatDies(t *testing.T) {
	for _, mark := range []string{failpoint.PredecessorOffers, failpoint.PredecessorGives, failpoint.PredecessorGave, failpoint.PredecessorLeaves} {
		t.Run(mark, func(t *testing.T) { diesAt(t, "overlap", mark) })
	}
	for _, mark := range []string{failpoint.InPlaceDrained, failpoint.InPlaceBecame} {
		t.Run(mark, func(t *testing.T) { diesAt(t, "exec", mark) })
	}
}

func diesAt(t *testing.T, mode, mark string) {
	w := newWorld(t, mode, "failpoint", "HERMES_FAILPOINT="+mark)
	u := w.tg.AddUser("Ben")
	if err := w.converse(u, "b1"); err != nil {
		t.Fatal(err)
	}
	old := w.first
	w.tg.Say(u, "say b2") // on its way when it happens
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	_, _ = w.home.Command(ctx, "gateway", "preflight").Output() // the disk is warm: a stage follows the other at once
	restart := w.home.Command(ctx, "gateway", "restart")
	if err := restart.Start(); err != nil {
		t.Fatal(err)
	}
	<-old.Done()
	// The command may see the death or the successor; either is right.
	go func() { _ = restart.Wait() }()
	survivor := false
	w.until("a successor serves or nobody is left", func() bool {
		r, ok := w.holder()
		survivor = ok && r.PID != old.Cmd.Process.Pid
		return survivor || len(w.alive()) == 0
	})
	if survivor {
		if out, err := w.home.Run(ctx, "gateway", "run"); err == nil || !strings.Contains(out, "already running") {
			t.Errorf("a second one began beside the survivor: %v\n%s", err, out)
		}
	} else {
		w.start()
	}
	if err := w.answered(u, "b2"); err != nil {
		t.Fatalf("%v\n%s", err, tail(w.first.Output()))
	}
	if err := w.converse(u, "b3"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"b1", "b2", "b3"} {
		if n := strings.Count(w.tg.Transcript(u.ID)+"\n", ": answer "+id+"\n"); n != 1 {
			t.Errorf("%s was answered %d times:\n%s", id, n, w.tg.Transcript(u.ID))
		}
	}
	if n := len(w.alive()); n != 1 {
		t.Errorf("%d processes are left", n)
	}
	t.Logf("survivor: %v", survivor)
}
