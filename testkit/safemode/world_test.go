package safemode

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hermes/internal/control"
	"hermes/internal/home"
	"hermes/internal/starts"
	"hermes/testkit/llm"
	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

// patience bounds every wait for evidence; a passing test does not come near it.
const patience = 60 * time.Second

// programs compiles the two binaries once: an ordinary one, and one that dies
// where HERMES_FAILPOINT says.
var programs = sync.OnceValues(func() (p struct{ good, dying string }, err error) {
	if p.good, err = rig.Build(context.Background(), buildDir, ""); err == nil {
		p.dying, err = rig.Build(context.Background(), buildDir, "failpoint")
	}
	return p, err
})

var buildDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hermes-safemode-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// world is one gateway with a bot whose home channel is Ann's chat.
type world struct {
	t       *testing.T
	tg      *telegram.Server
	user    telegram.User // Ann
	ann     int64         // her chat
	home    *rig.Home
	profile home.Profile
	config  string
	env     string
	good    string // programs
	dying   string
}

func setUp(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	p, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, good: p.good, dying: p.dying}
	if w.tg, err = telegram.New(telegram.Options{Token: "7000000001:AAF-fake_token_of_the_test_server_0000"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.tg.Close)
	brain, err := llm.Start(llm.Echo)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(brain.Close)
	w.user = w.tg.AddUser("Ann")
	w.ann = w.user.ID
	w.config = fmt.Sprintf("session_reset:\n  mode: none\nmodel:\n  default: fake-1\n  provider: custom\n  base_url: %s\n", brain.URL())
	w.env = fmt.Sprintf("TELEGRAM_BOT_TOKEN=%s\nTELEGRAM_BASE_URL=%s\nTELEGRAM_ALLOWED_USERS=%d\nTELEGRAM_HOME_CHANNEL=%d\n", w.tg.Token(), w.tg.URL(), w.ann, w.ann)
	if w.home, err = rig.NewHome(filepath.Join(t.TempDir(), ".hermes"), w.dying, w.config, w.env); err != nil {
		t.Fatal(err)
	}
	w.profile = home.Profile{Name: "default", Root: w.home.Dir, Home: w.home.Dir}
	return w
}

// healthy notes that the configuration on disk served healthily, as a gateway
// does that has lived for a while.
func (w *world) healthy() {
	w.t.Helper()
	f, err := home.ReadFiles(w.profile)
	if err == nil {
		_, err = home.OpenHistory(w.profile).Healthy(f, "test", time.Now())
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.home.Dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// dies starts a gateway that must die by itself.
func (w *world) dies(env ...string) string {
	w.t.Helper()
	p, err := w.home.Start(env...)
	if err != nil {
		w.t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(patience):
		p.Kill()
		w.t.Fatalf("it lives\n%s", p.Output())
	}
	if p.Cmd.ProcessState.ExitCode() == 0 {
		w.t.Fatalf("it ended well\n%s", p.Output())
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	return p.Whole(ctx)
}

// serves starts a gateway that must serve; it is stopped with the test.
func (w *world) serves(env ...string) *rig.Process {
	w.t.Helper()
	p, err := w.home.Start(env...)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	if err := p.Ready(ctx); err != nil {
		p.Kill()
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		ctx, cancel := rig.Deadline(patience)
		defer cancel()
		if w.t.Failed() {
			w.t.Logf("the gateway said:\n%s\nrecord: %+v", p.Output(), starts.Read(w.profile))
		}
		select {
		case <-p.Done():
		default:
			if _, err := p.Stop(ctx); err != nil {
				w.t.Error(err)
			}
		}
	})
	return p
}

// status asks the running gateway; wantCode is the command's exit code.
func (w *world) status(wantCode int) control.Status {
	w.t.Helper()
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	cmd := w.home.Command(ctx, "gateway", "status", "--json")
	out, _ := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != wantCode {
		w.t.Errorf("status ended with %d, want %d\n%s", code, wantCode, out)
	}
	var s control.Status
	if err := json.Unmarshal(out, &s); err != nil {
		w.t.Fatalf("%v in %s", err, out)
	}
	return s
}

// wait waits until a fact holds.
func (w *world) wait(what string, holds func() bool) {
	w.t.Helper()
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			w.t.Fatalf("it never came: %s", what)
		case <-tick.C:
		}
	}
}

// shown counts the messages of Ann's chat that hold a text.
func (w *world) shown(chat int64, text string) int {
	n := 0
	for _, m := range w.tg.Replies(chat) {
		if strings.Contains(m.Text, text) {
			n++
		}
	}
	return n
}
