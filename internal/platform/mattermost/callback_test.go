package mattermost_test

import (
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/platform/mattermost"
	"hermes/testkit/fault"
	fake "hermes/testkit/mattermost"
)

// native is a rig whose buttons are Mattermost's own: an API server stands at
// the address that the server is told to call.
func native(t *testing.T) *rig {
	t.Helper()
	var r *rig
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/callback/mattermost" {
			t.Errorf("%s was called", req.URL.Path)
		}
		r.Callback(w, req)
	}))
	t.Cleanup(api.Close)
	r = newRig(t, func(c *mattermost.Config) { c.CallbackURL = api.URL + "/callback/mattermost" })
	return r
}

func (r *rig) call(t *testing.T, c fake.Call, want int) string {
	t.Helper()
	status, said, err := c.Make(r.ctx)
	if err != nil || status != want {
		t.Fatalf("a press was answered with %d %q (%v), want %d", status, said, err, want)
	}
	return said
}

func TestANativeButton(t *testing.T) {
	r := native(t)
	alice, town := r.srv.AddUser("alice"), r.srv.AddChannel("Town", "O")
	r.connect(t)
	id, err := r.Send(r.ctx, address(town.ID), question, "n1")
	if err != nil {
		t.Fatal(err)
	}
	// What can be typed stands there all the same: the server may be unable to
	// call this machine.
	m := r.srv.Messages(town.ID)[0]
	if !slices.Equal(m.Buttons, []string{"Allow once", "De'ny"}) {
		t.Errorf("the buttons are %q", m.Buttons)
	}
	if want := "May I?\n\n- Allow once: `!approve 7`\n- De'ny: `!deny 7`"; m.Text != want || len(m.Reactions) != 0 {
		t.Errorf("it says %q with %q under it, want %q", m.Text, m.Reactions, want)
	}
	for range 2 { // twice is once: the ledger knows the event
		r.call(t, r.srv.CallOf(alice, id, 1), 200)
	}
	in := r.sink.Events()
	if len(in) != 1 || r.sink.Again() != 1 {
		t.Fatalf("%d presses were stored, %d came again", len(in), r.sink.Again())
	}
	if e := in[0]; !e.Button || e.Text != "/deny 7" || e.UserID != alice.ID || e.UserName != "alice" || e.Address != address(town.ID) || e.MessageID != id {
		t.Errorf("stored %+v", e)
	}
}

// Who can reach the address can press nothing that the server did not sign for.
func TestACallThatIsNotTheServers(t *testing.T) {
	r := native(t)
	alice, town, other := r.srv.AddUser("alice"), r.srv.AddChannel("Town", "O"), r.srv.AddChannel("Other", "O")
	r.connect(t)
	id, err := r.Send(r.ctx, address(town.ID), question, "n1")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(body, context map[string]any){
		"another choice":    func(_, c map[string]any) { c["choice"] = 0 },
		"another channel":   func(b, c map[string]any) { b["channel_id"], c["channel"] = other.ID, other.ID },
		"a channel of none": func(b, _ map[string]any) { b["channel_id"] = "" },
		"no signature":      func(_, c map[string]any) { delete(c, "signature") },
		"its own signature": func(_, c map[string]any) { c["signature"] = strings.Repeat("0", 64) },
	} {
		c := r.srv.CallOf(alice, id, 1)
		signed := maps.Clone(c.Body["context"].(map[string]any))
		c.Body["context"] = signed
		change(c.Body, signed)
		if status, said, err := c.Make(r.ctx); err != nil || status != http.StatusForbidden {
			t.Errorf("%s: %d %q %v", name, status, said, err)
		}
	}
	for name, body := range map[string]map[string]any{
		"nothing":         {},
		"a path for ids":  {"user_id": "../../users/me", "post_id": id},
		"ten million":     {"user_id": alice.ID, "post_id": id, "channel_name": strings.Repeat("x", 10_000_000)},
		"a list of users": {"user_id": []string{alice.ID}, "post_id": id},
	} {
		c := fake.Call{URL: r.srv.CallOf(alice, id, 1).URL, Body: body}
		if status, said, err := c.Make(r.ctx); err == nil && status != http.StatusBadRequest {
			t.Errorf("%s: %d %q", name, status, said)
		}
	}
	if got := r.sink.Events(); len(got) != 0 {
		t.Errorf("stored %+v", got)
	}
}

// A press that cannot be stored is refused, so that whoever pressed is told.
func TestAPressThatCannotBeStored(t *testing.T) {
	r := native(t)
	alice := r.srv.AddUser("alice")
	r.connect(t)
	id, err := r.Send(r.ctx, address(r.srv.Direct(alice)), question, "n1")
	if err != nil {
		t.Fatal(err)
	}
	r.sink.SetAccept(func([]domain.Inbound) error { return errors.New("the disk is full") })
	r.call(t, r.srv.CallOf(alice, id, 0), http.StatusServiceUnavailable)
	r.sink.SetAccept(nil)
	r.srv.Fail("GET /posts/{id}", fault.Fault{Times: 1, Status: 503})
	r.call(t, r.srv.CallOf(alice, id, 0), http.StatusServiceUnavailable)
	r.call(t, r.srv.CallOf(alice, id, 0), 200)
	if in := r.sink.Wait(t, r.ctx, 1)[0]; in.Text != "/approve 7" {
		t.Errorf("stored %+v", in)
	}
	r.srv.Delete(id)
	if said := r.call(t, r.srv.CallOf(alice, id, 1), 200); !strings.Contains(said, "no longer open") {
		t.Errorf("a press under a post that is gone was answered with %q", said)
	}
}

// A press right after a take-over waits for the connection and is then stored.
func TestAPressBeforeTheConnection(t *testing.T) {
	r := native(t)
	alice := r.srv.AddUser("alice")
	stop := r.connect(t)
	id, err := r.Send(r.ctx, address(r.srv.Direct(alice)), question, "n1")
	if err != nil {
		t.Fatal(err)
	}
	stop()
	pressed := make(chan int, 1)
	call := r.srv.CallOf(alice, id, 0)
	go func() {
		status, _, err := call.Make(r.ctx)
		if err != nil {
			t.Error(err)
		}
		pressed <- status
	}()
	r.run(t)
	if in := r.sink.Wait(t, r.ctx, 1)[0]; in.Text != "/approve 7" || <-pressed != 200 {
		t.Errorf("stored %+v", in)
	}
}
