package update

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hermes/internal/control"
	"hermes/testkit/releases"
	"hermes/testkit/rig"
)

// patience bounds every wait for evidence.
const patience = 90 * time.Second

// The versions: one that is installed, the next, and one that serves and is
// never well.
const (
	first, next, sick = "1.0.0", "1.1.0", "1.2.0"
)

// builds are the programs, each built once for the test process.
type builds struct {
	dir  string
	once map[string]func() (string, error)
}

var temp atomic.Pointer[string]

var programs = sync.OnceValue(func() *builds {
	dir, err := os.MkdirTemp("", "hermes-update-")
	if err != nil {
		return &builds{}
	}
	temp.Store(&dir)
	b := &builds{dir: dir, once: map[string]func() (string, error){}}
	for _, version := range []string{first, next, sick} {
		b.once[version] = sync.OnceValues(func() (string, error) {
			changed := map[string]string{"cmd/hermes/release.go": "package main\n"}
			if version == sick {
				text, err := rig.Source(context.Background(), "internal/gateway/status.go")
				if err != nil {
					return "", err
				}
				const was = "func (g *Gateway) Status(ctx context.Context) control.Status {\n"
				if !strings.Contains(text, was) {
					return "", fmt.Errorf("the function that says how the gateway is has changed; change this test with it")
				}
				changed["internal/gateway/status.go"] = strings.Replace(text, was, was+"\tg.health.Part(\"sick\").Down(\"sick\", \"This release is sick.\")\n", 1)
			}
			return rig.BuildOther(context.Background(), dir, version, "failpoint", changed)
		})
	}
	return b
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir := temp.Load(); dir != nil {
		os.RemoveAll(*dir)
	}
	os.Exit(code)
}

func program(t *testing.T, version string) string {
	t.Helper()
	path, err := programs().once[version]()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// world is one user's installation with two profiles.
type world struct {
	t       *testing.T
	user    string // home of the user
	folder  *releases.Folder
	home    *rig.Home
	running []*rig.Process
}

// newWorld installs the first version as install.sh does, and offers the others.
func newWorld(t *testing.T, offered ...string) *world {
	t.Helper()
	w := &world{t: t, user: t.TempDir()}
	folder, err := releases.New(filepath.Join(t.TempDir(), "releases"))
	if err != nil {
		t.Fatal(err)
	}
	w.folder = folder
	for _, v := range offered {
		text, err := os.ReadFile(program(t, v))
		if err == nil {
			_, err = folder.Add("stable", v, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	share := filepath.Join(w.user, ".local/share/hermes")
	w.must(os.MkdirAll(filepath.Join(share, "versions", first), 0o755))
	w.must(os.MkdirAll(filepath.Join(w.user, ".local/bin"), 0o755))
	w.must(os.Link(program(t, first), filepath.Join(share, "versions", first, "hermes")))
	w.must(os.Symlink("versions/"+first, filepath.Join(share, "current")))
	w.must(os.Symlink("../share/hermes/current/hermes", w.link()))
	w.home, err = rig.NewHome(filepath.Join(w.user, ".hermes"), w.link(), w.config(), "")
	w.must(err)
	w.must(os.MkdirAll(w.profile("liam"), 0o700))
	w.must(os.WriteFile(filepath.Join(w.profile("liam"), "config.yaml"), []byte(w.config()), 0o600))
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) link() string { return filepath.Join(w.user, ".local/bin/hermes") }

// profile is the home of a profile.
func (w *world) profile(name string) string {
	if name == "default" {
		return filepath.Join(w.user, ".hermes")
	}
	return filepath.Join(w.user, ".hermes/profiles", name)
}

func (w *world) config() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	defer ln.Close()
	return fmt.Sprintf("model:\n  provider: offline\nplatforms:\n  api_server:\n    enabled: true\n    port: %d\nupdate:\n  url: %s\n  public_key: %s\n", ln.Addr().(*net.TCPAddr).Port, w.folder.Dir, w.folder.PublicKey)
}

// start starts a gateway or a scheduler as a person does.
func (w *world) start(profile string, args ...string) {
	w.t.Helper()
	p, err := w.home.StartArgs(nil, append([]string{"-p", profile}, args...)...)
	w.must(err)
	w.running = append(w.running, p)
	w.t.Cleanup(func() {
		ctx, cancel := rig.Deadline(patience)
		defer cancel()
		if args[0] == "gateway" {
			_, _ = w.home.Run(ctx, "-p", profile, "gateway", "stop")
		}
		_, _ = p.Stop(ctx)
		if w.t.Failed() {
			w.t.Logf("%s %v said:\n%s", profile, args, p.Output())
		}
	})
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	w.must(p.Ready(ctx))
}

// update runs `hermes update`, with extra environment, and gives its output.
func (w *world) update(env []string, args ...string) (string, error) {
	ctx, cancel := rig.Deadline(3 * patience)
	defer cancel()
	cmd := w.home.Command(ctx, append([]string{"update", "--yes"}, args...)...)
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// serves gives the version that serves a profile.
func (w *world) serves(profile string) control.Status {
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	out, _ := w.home.Run(ctx, "-p", profile, "gateway", "status", "--json") // one that is not well is exit 1
	var s control.Status
	_ = json.Unmarshal([]byte(out), &s)
	return s
}

// want holds which versions serve the profiles, and which is started next.
func (w *world) want(linked string, profiles ...string) {
	w.t.Helper()
	for i, version := range profiles {
		name := []string{"default", "liam"}[i]
		if s := w.serves(name); s.Version != version || s.State != "running" {
			w.t.Errorf("%s is served by %q (%s), not %s", name, s.Version, s.State, version)
		}
	}
	ctx, cancel := rig.Deadline(patience)
	defer cancel()
	if out, err := w.home.Run(ctx, "--version"); err != nil || strings.TrimSpace(out) != "hermes "+linked {
		w.t.Errorf("what is started is %q (%v), not %s", out, err, linked)
	}
}

// log is update.log.
func (w *world) log() string {
	text, err := os.ReadFile(filepath.Join(w.user, ".hermes/logs/update.log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// last holds how the last line of update.log begins.
func (w *world) last(sign string) {
	w.t.Helper()
	lines := strings.Split(strings.TrimSpace(w.log()), "\n")
	if _, said, _ := strings.Cut(lines[len(lines)-1], "  "); !strings.HasPrefix(said, sign) {
		w.t.Errorf("the log does not end with %s:\n%s", sign, w.log())
	}
}

func (w *world) pinned(profile string) bool {
	_, err := os.Stat(filepath.Join(w.profile(profile), "binary.pin"))
	return err == nil
}
