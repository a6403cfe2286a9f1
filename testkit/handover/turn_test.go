package handover

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hermes/testkit/llm"
	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

// begin lets a person ask something that takes until the test lets it go, and
// returns when the model is at it.
func (w *world) begin(u telegram.User, id string) {
	w.t.Helper()
	n := w.brain.Count()
	w.tg.Say(u, "think "+id)
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	if err := w.brain.Wait(ctx, n+1); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) sees(u telegram.User, text string) {
	w.t.Helper()
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	if _, err := w.tg.WaitFor(ctx, u.ID, func(m telegram.Message) bool { return m.FromBot && strings.Contains(m.Text, text) }); err != nil {
		w.t.Fatalf("%q was not seen: %v\n%s\n%s", text, err, w.tg.Transcript(u.ID), tail(w.first.Output()))
	}
}

// A turn that runs goes on in the old process and is answered once; others are
// served by the new one meanwhile.
func TestRunningTurnStaysWithItsProcess(t *testing.T) {
	w := newWorld(t, "overlap", "")
	ann, ben := w.tg.AddUser("Ann"), w.tg.AddUser("Ben")
	w.begin(ann, "t1")
	w.restart()
	if err := w.converse(ben, "t2"); err != nil {
		t.Fatal(err)
	}
	if n := len(w.alive()); n != 2 {
		t.Fatalf("%d processes live while a turn runs in the old one", n)
	}
	calls := w.brain.Count()
	close(w.gate("t1"))
	if err := w.answered(ann, "t1"); err != nil {
		t.Fatal(err)
	}
	w.until("the old process leaves", func() bool { return len(w.alive()) == 1 })
	if n := w.brain.Count(); n != calls {
		t.Errorf("the model was asked %d times more", n-calls)
	}
	if err := w.converse(ann, "t3"); err != nil {
		t.Fatal(err)
	}
}

// What a chat says during its turn reaches the old process: a message
// interrupts, /stop stops.
func TestOldTurnObeysItsChat(t *testing.T) {
	w := newWorld(t, "overlap", "")
	ann, ben := w.tg.AddUser("Ann"), w.tg.AddUser("Ben")
	w.begin(ann, "o1")
	w.begin(ben, "o2")
	w.restart()
	if err := w.converse(ann, "o3"); err != nil {
		t.Fatal(err)
	}
	w.tg.Say(ben, "/stop")
	w.sees(ben, "Stopped")
	w.until("the old process leaves", func() bool { return len(w.alive()) == 1 })
	if err := w.converse(ben, "o4"); err != nil {
		t.Fatal(err)
	}
}

// An old process that is killed with a turn in it loses nothing: the new one
// resumes the turn.
func TestOldProcessKilledWithATurn(t *testing.T) {
	w := newWorld(t, "overlap", "")
	ann := w.tg.AddUser("Ann")
	w.begin(ann, "k1")
	w.restart()
	w.first.Kill()
	close(w.gate("k1"))
	if err := w.answered(ann, "k1"); err != nil {
		t.Fatal(err)
	}
}

// A restart into what could not serve is refused with the reason.
func TestRestartIntoABrokenConfiguration(t *testing.T) {
	for _, mode := range []string{"overlap", "exec"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, mode, "")
			file := filepath.Join(w.home.Dir, "config.yaml")
			good, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			before := w.serving().PID
			ctx, cancel := rig.Deadline(stepLimit)
			defer cancel()
			if err := os.WriteFile(file, []byte("model: [\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := w.home.Run(ctx, "gateway", "restart")
			if err == nil || !strings.Contains(out, "config.yaml") {
				t.Fatalf("%v\n%s", err, out)
			}
			if err := os.WriteFile(file, good, 0o600); err != nil {
				t.Fatal(err)
			}
			if w.serving().PID != before {
				t.Fatal("another process serves")
			}
			if err := w.converse(w.tg.AddUser("Ann"), "x1"); err != nil {
				t.Fatal(err)
			}
			w.restart()
		})
	}
}

// A changed port moves; a port that is taken refuses the restart.
func TestRestartWithAnotherPort(t *testing.T) {
	w := newWorld(t, "overlap", "")
	env := filepath.Join(w.home.Dir, ".env")
	text, err := os.ReadFile(env)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(w.addr)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other := fmt.Sprint(taken.Addr().(*net.TCPAddr).Port)
	if err := os.WriteFile(env, []byte(strings.Replace(string(text), "PORT="+port, "PORT="+other, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	out, err := w.home.Run(ctx, "gateway", "restart")
	if err == nil || !strings.Contains(out, "already in use") {
		t.Fatalf("%v\n%s", err, out)
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if _, err := w.post(c, "say p1"); err != nil {
		t.Fatalf("the old port: %v", err)
	}
	taken.Close()
	w.restart()
	old := w.addr
	w.addr = "127.0.0.1:" + other
	if _, err := w.post(c, "say p2"); err != nil {
		t.Fatalf("the new port: %v", err)
	}
	w.until("the old port is free", func() bool {
		l, err := net.Listen("tcp", old)
		if err == nil {
			l.Close()
		}
		return err == nil
	})
}

// /restart answers before and after, to the chat that asked.
func TestRestartFromAChat(t *testing.T) {
	for _, mode := range []string{"overlap", "exec"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, mode, "")
			ann := w.tg.AddUser("Ann")
			before := w.serving().StartedAt
			w.tg.Say(ann, "/restart")
			w.sees(ann, "I am back (version")
			if after := w.serving().StartedAt; !after.After(before) {
				t.Fatal("it was not restarted")
			}
			if n := strings.Count(w.tg.Transcript(ann.ID), "Restarting"); n != 1 {
				t.Errorf("told %d times:\n%s", n, w.tg.Transcript(ann.ID))
			}
		})
	}
}

// --replace takes over from a stranger without a gap.
func TestReplace(t *testing.T) {
	w := newWorld(t, "overlap", "")
	ann := w.tg.AddUser("Ann")
	if err := w.converse(ann, "y1"); err != nil {
		t.Fatal(err)
	}
	old := w.first
	p, err := w.home.StartArgs(nil, "gateway", "run", "--replace")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	if err := p.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-old.Done():
	case <-ctx.Done():
		t.Fatalf("the old one does not leave\n%s", tail(old.Output()))
	}
	if got := w.serving().PID; got != p.Cmd.Process.Pid {
		t.Errorf("PID %d serves, want %d", got, p.Cmd.Process.Pid)
	}
	if err := w.converse(ann, "y2"); err != nil {
		t.Fatal(err)
	}
}

// attempt speaks to the control socket as any program could.
const attempt = `import socket, sys
for path in ("/st" + "op", "/rest" + "art", "/repl" + "ace"):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    s.sendall(("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" % path).encode())
    print(s.recv(4096).decode())
`

// What the agent runs cannot stop or restart its gateway, in whatever words and
// from wherever it has hidden in the process tree.
func TestToolsCannotEndTheirGateway(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3, which scripts/setup installs")
	}
	w := newWorld(t, "overlap", "")
	dir := t.TempDir()
	program, socket := filepath.Join(dir, "innocent.py"), filepath.Join(dir, "s")
	if err := os.WriteFile(program, []byte(attempt), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(w.home.Dir, "gateway.sock"), socket); err != nil {
		t.Fatal(err)
	}
	before := w.serving()
	run := fmt.Sprintf("python3 %s %s", program, socket)
	w.brain.SetBrain(llm.ToolThenAnswer("terminal", fmt.Sprintf(`{"command":"%s; setsid --fork --wait %s"}`, run, run), "it said: "))
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "try it")
	w.sees(ann, "it said:")
	if n := strings.Count(w.tg.Transcript(ann.ID), "what the gateway runs must not end it"); n != 6 {
		t.Errorf("%d of 6 attempts were refused:\n%s", n, w.tg.Transcript(ann.ID))
	}
	if after := w.serving(); after.PID != before.PID || after.State != "running" {
		t.Errorf("it was %d %s and is %d %s", before.PID, before.State, after.PID, after.State)
	}
}
