package rescue

import (
	"encoding/json"
	"strings"
	"testing"
)

// The drill on a generated unit finds that everything is kept, on a unit that
// goes on in place what that one promises, and is refused where nothing would
// bring the gateway back.
func testDrill(t *testing.T, w *world) {
	u := w.user
	w.serves(program)
	u.Run(t, "systemctl --user reset-failed "+unit)
	want(t, u.Fails(t, "echo no | hermes -p liam gateway drill"), "This restarts and kills "+unit, "nothing was done")
	before := w.property("NRestarts")
	out := u.Run(t, "hermes -p liam gateway drill --yes")
	t.Log(out)
	want(t, out, "✓ restart", "✓ kill -9", "✓ bad successor", "0 refused, 0 failed, 0 cut", "0 lost, 0 doubled", "served on", "was kept: a unit that hands over")
	if after := w.property("NRestarts"); after == before {
		t.Errorf("nothing was killed: systemd restarted it %s times", after)
	}
	// Interrupted, it leaves the gateway serving.
	u.Run(t, "systemctl --user reset-failed "+unit)
	want(t, u.Fails(t, "timeout --signal=INT 2 hermes -p liam gateway drill --yes 2>&1"), "interrupted")
	w.serves(program)

	drop := u.Home + "/.config/systemd/user/" + unit + ".d/20-drill.conf"
	u.Write(t, drop, "[Service]\nRestart=no\n")
	u.Run(t, "systemctl --user daemon-reload; systemctl --user reset-failed "+unit)
	want(t, u.Fails(t, "hermes -p liam gateway drill --yes"), "has Restart=no, so nothing would bring it back")
	u.Write(t, drop, "[Service]\nType=simple\nNotifyAccess=none\nWatchdogSec=0\nFileDescriptorStoreMax=0\n")
	u.Run(t, "systemctl --user daemon-reload; systemctl --user reset-failed "+unit+"; systemctl --user restart "+unit)
	w.serves(program)
	var got struct {
		OK    bool
		Mode  string
		Steps []struct {
			Step                        string
			Kept                        bool `json:"promise_kept"`
			Requests, Refused, Messages int64
			Lost, Doubled               int64
		}
	}
	if err := json.Unmarshal([]byte(u.Run(t, "hermes -p liam gateway drill --yes --json")), &got); err != nil {
		t.Fatal(err)
	}
	if !got.OK || got.Mode != "exec" || len(got.Steps) != 3 {
		t.Errorf("%+v", got)
	}
	for _, s := range got.Steps {
		if s.Requests < 300 || s.Messages == 0 || s.Lost+s.Doubled > 0 {
			t.Errorf("%+v", s)
		}
	}
	u.Run(t, "rm "+drop+"; systemctl --user daemon-reload; systemctl --user reset-failed "+unit+"; systemctl --user restart "+unit)
	w.serves(program)
	// Without the API the gateway is asked over its control socket.
	env := w.Read(w.file(".env"))
	u.Run(t, "sed -i s/API_SERVER_ENABLED=true/API_SERVER_ENABLED=false/ "+w.file(".env")+" && hermes -p liam gateway restart && systemctl --user reset-failed "+unit)
	out = u.Run(t, "hermes -p liam gateway drill --yes")
	want(t, out, "✓ restart", "✓ kill -9", "✓ bad successor", "0 failed")
	if strings.Contains(out, "messages") {
		t.Errorf("messages were counted without an API:\n%s", out)
	}
	u.Write(t, w.file(".env"), env)
	u.Run(t, "hermes -p liam gateway restart")
	w.serves(program)
	if strings.Contains(w.tg.Transcript(w.ann.ID), "/title") {
		t.Error("the drill was heard in a chat")
	}
	w.quiet()
}
