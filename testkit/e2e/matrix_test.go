package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hermes/internal/control"
	"hermes/internal/health"
	"hermes/testkit/fault"
	"hermes/testkit/llm"
	"hermes/testkit/matrix"
)

// Matrix as a user has it: an invitation accepted, a question answered, a
// mention answered in a thread of its own, a command, a number pressed, a file,
// questions that were asked while nobody ran, one whose answer was sent in the
// instant of a crash, an encrypted room that is told so, and a stranger's
// invitation that stays open.
func TestMatrix(t *testing.T) {
	t.Parallel()
	mx, err := matrix.New(matrix.Options{Token: "syt_ZTJl_secretOfTheEndToEndTest_1Xy2Zz"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mx.Close)
	ann, eve := mx.AddUser("Ann"), mx.AddUser("Eve")
	w := setUp(t, options{brain: obedient(llm.NewGate()), config: "delivery:\n  unlimited: true\n", env: fmt.Sprintf(
		"MATRIX_HOMESERVER=%s\nMATRIX_ACCESS_TOKEN=%s\nMATRIX_ALLOWED_USERS=%s\nMATRIX_ALLOWED_ROOMS=town\n", mx.URL(), mx.Token(), ann.ID)})
	w.mu.Lock()
	w.secrets["the homeserver's token"] = mx.Token()
	w.mu.Unlock()
	dm, town := mx.Invite(ann, true), mx.Open(matrix.Room{By: ann, Name: "Town"})
	sees := func(room, text string) matrix.Message {
		t.Helper()
		m, err := mx.WaitFor(w.deadline(), room, func(m matrix.Message) bool { return m.FromBot && strings.Contains(m.Text, text) })
		if err != nil {
			t.Fatalf("the room never showed %q: %v\n%s", text, err, w.logs())
		}
		return m
	}
	connected := func() {
		t.Helper()
		w.waitStatus("Matrix is connected", func(s control.Status) bool {
			for _, part := range s.Parts {
				if part.Name == "platform.matrix" {
					return part.State == health.OK && part.Evidence["bot"] == mx.User().ID
				}
			}
			return false
		})
	}

	p := w.start()
	connected()
	mx.Say(ann, dm, "hello")
	sees(dm, "you said: hello")
	for _, room := range []string{dm, town} {
		if err := mx.WaitJoined(w.deadline(), room); err != nil {
			t.Fatal("an invitation was not accepted")
		}
	}
	root := mx.Say(ann, town, "@hermes what now?")
	if m := sees(town, "you said: what now?"); m.Thread != root {
		t.Errorf("the answer stands in the thread %q", m.Thread)
	}
	mx.Post(matrix.Post{From: ann, Room: town, Thread: root, Text: "and then?"})
	sees(town, "you said: and then?")
	mx.Say(ann, town, "chatter")
	mx.Say(ann, dm, "!status")
	sees(dm, "Session")
	mx.Say(ann, dm, "run rm -rf "+filepath.Join(t.TempDir(), "absent")+" && echo removed-$((1+1))")
	asked, err := mx.WaitFor(w.deadline(), dm, func(m matrix.Message) bool { return slices.Contains(m.Reactions, "2️⃣") })
	if err != nil {
		t.Fatalf("no question with numbers: %v\n%s", err, w.logs())
	}
	mx.Press(ann, dm, asked.ID, "1️⃣")
	sees(dm, "removed-2")
	dark := mx.Open(matrix.Room{By: ann, Encrypted: true})
	sees(dark, "end-to-end encrypted")
	strange := mx.Invite(eve, true)
	if out, code := w.run("send", "-t", "matrix:Town", "told by name"); code != 0 {
		t.Errorf("hermes send: %d\n%s", code, out)
	}
	sees(town, "told by name")
	w.settled()
	w.stop(p)

	mx.Say(ann, dm, "anybody there?")
	late := mx.Say(ann, town, "@hermes anybody here?")
	p = w.start()
	sees(dm, "you said: anybody there?")
	if m := sees(town, "you said: anybody here?"); m.Thread != late {
		t.Errorf("the late answer stands in the thread %q", m.Thread)
	}
	w.settled()

	// The homeserver has taken the answer and says nothing; then comes the crash.
	defer mx.Fail(matrix.Send, fault.Lost())()
	mx.Say(ann, dm, "crash")
	sees(dm, "you said: crash")
	p.Kill()
	mx.ForgetTransactions() // so that it is found by its number
	p = w.start()
	connected()
	mx.Say(ann, dm, "after it")
	sees(dm, "you said: after it")
	w.settled()
	for text, room := range map[string]string{"hello": dm, "anybody there?": dm, "crash": dm, "after it": dm, "what now?": town, "and then?": town, "anybody here?": town} {
		n := 0
		for _, m := range mx.Replies(room) {
			if strings.Contains(m.Text, "you said: "+text) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%q was answered %d times", text, n)
		}
	}
	for _, m := range mx.Replies(town) {
		if strings.Contains(m.Text, "chatter") {
			t.Error("what was not said to the account was answered")
		}
	}
	if n := len(mx.Replies(dark)); n != 1 {
		t.Errorf("the encrypted room was told %d times", n)
	}
	if m := mx.Membership(strange); m != "invite" {
		t.Errorf("a stranger's invitation became %q", m)
	}
	w.stop(p)
}
