package update_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/update"
	"hermes/internal/versions"
	"hermes/testkit/releases"
)

var temp atomic.Pointer[string]

func TestMain(m *testing.M) {
	code := m.Run()
	if dir := temp.Load(); dir != nil {
		os.RemoveAll(*dir)
	}
	os.Exit(code)
}

// stand is the program of testdata, built once.
var stand = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "hermes-update-")
	if err != nil {
		return nil, err
	}
	temp.Store(&dir)
	file := filepath.Join(dir, "program")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", file, "./testdata/program")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, text)
	}
	return os.ReadFile(file)
})

// program is one that says a version; "broken" panics.
func program(t testing.TB, version string) []byte {
	t.Helper()
	text, err := stand()
	if err != nil {
		t.Fatal(err)
	}
	return append(slices.Clone(text), "version:"+version...)
}

// world is an installation whose profiles a fake fleet serves.
type world struct {
	t      *testing.T
	user   string
	folder *releases.Folder
	fleet  *fleet
	said   []string
	place  update.Place
	now    string // version of the program that updates
}

// newWorld installs 1.0.0 as install.sh does, and offers versions.
func newWorld(t *testing.T, offered ...string) *world {
	t.Helper()
	return newWorldIn(t, t.TempDir(), offered...)
}

// newWorldIn is newWorld with a home of the user that is there.
func newWorldIn(t *testing.T, user string, offered ...string) *world {
	t.Helper()
	w := &world{t: t, user: user, now: "1.0.0"}
	var err error
	w.folder, err = releases.New(filepath.Join(t.TempDir(), "releases"))
	w.must(err)
	for _, v := range offered {
		_, err := w.folder.Add("stable", v, program(t, v))
		w.must(err)
	}
	w.must(os.MkdirAll(filepath.Dir(w.program("1.0.0")), 0o755))
	w.must(os.WriteFile(w.program("1.0.0"), program(t, "1.0.0"), 0o755))
	w.must(versions.Switch(versions.Current(w.user), "versions/1.0.0"))
	w.must(versions.Switch(w.link(), filepath.Join(versions.Current(w.user), "hermes")))
	w.locate()
	w.fleet = &fleet{w: w, sick: map[string]string{}, unfit: map[string]string{}}
	for _, name := range []string{"default", "liam", "drj"} {
		p, err := home.Named(filepath.Join(w.user, ".hermes"), name)
		w.must(err)
		w.must(os.MkdirAll(p.Home, 0o700))
		w.fleet.add(p, "hermes-gateway-"+name, false)
	}
	return w
}

func (w *world) locate() {
	w.place = update.Locate(update.Surroundings{UserHome: w.user, Executable: w.link(), Called: w.link()})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) link() string { return filepath.Join(w.user, ".local/bin/hermes") }

func (w *world) program(version string) string {
	path, err := versions.File(w.user, version)
	w.must(err)
	return path
}

// updater makes one that has used nothing yet.
func (w *world) updater() *update.Updater {
	return &update.Updater{
		UserHome: w.user, Root: filepath.Join(w.user, ".hermes"), Version: w.now, Program: w.link(), Place: w.place, Fleet: w.fleet,
		Platform: update.Platform(), Now: time.Now, Say: func(f string, a ...any) { w.said = append(w.said, fmt.Sprintf(f, a...)) },
	}
}

func (w *world) source(from string) *update.Source {
	w.t.Helper()
	keys, err := update.ParseKeys(w.folder.PublicKey)
	w.must(err)
	s, err := update.NewSource(from, keys)
	w.must(err)
	s.Retry, s.Stall = time.Millisecond, 500*time.Millisecond
	return s
}

// update brings the newest of the folder.
func (w *world) update() (update.Result, error) {
	w.t.Helper()
	return w.updater().Update(context.Background(), update.Request{Source: w.source(w.folder.Dir), Channel: "stable"})
}

// linked is the version that is started by what people type.
func (w *world) linked() string {
	out, err := exec.Command(w.link()).Output()
	w.must(err)
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "hermes ")
}

// last is the last line of update.log, without its time.
func (w *world) last() string {
	text, err := os.ReadFile(update.LogFile(filepath.Join(w.user, ".hermes")))
	w.must(err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	_, said, _ := strings.Cut(lines[len(lines)-1], "  ")
	return said
}

// serve offers the folder over HTTP, with what a test does to each answer.
func (w *world) serve(change func(http.Handler) http.Handler) string {
	h := http.FileServer(http.Dir(w.folder.Dir))
	if change != nil {
		h = change(h)
	}
	s := httptest.NewServer(h)
	w.t.Cleanup(s.Close)
	return s.URL
}

// fleet is processes that exist in memory only.
type fleet struct {
	w       *world
	members []update.Member
	sick    map[string]string // member → version on which it is not well
	unfit   map[string]string // profile → version that could not serve it
	stuck   bool              // a sick member cannot be brought back
	during  func(m update.Member)
	order   []string // of switches
}

func (f *fleet) add(p home.Profile, name string, scheduler bool) {
	f.members = append(f.members, update.Member{Profile: p, Name: name, Scheduler: scheduler, Running: true, PID: 100 * (len(f.members) + 1), Version: f.w.now, Program: f.w.program(f.w.now), Starts: f.w.link()})
}

func (f *fleet) at(name string) *update.Member {
	i := slices.IndexFunc(f.members, func(m update.Member) bool { return m.Name == name })
	return &f.members[i]
}

func (f *fleet) versions() (out []string) {
	for _, m := range f.members {
		v := m.Version
		if !m.Running {
			v = "off"
		}
		out = append(out, v)
	}
	return out
}

func (f *fleet) Members(context.Context) ([]update.Member, error) {
	return slices.Clone(f.members), nil
}

func (f *fleet) Look(_ context.Context, m update.Member) update.Member { return *f.at(m.Name) }

func (f *fleet) Preflight(_ context.Context, p home.Profile, program string) error {
	if v := f.unfit[p.Name]; v != "" && strings.Contains(program, v) {
		return domain.E(domain.Config, nil, "the ledger was written by a newer version")
	}
	return nil
}

func (f *fleet) Switch(_ context.Context, m update.Member, program, version string) (update.Member, error) {
	now := f.at(m.Name)
	f.order = append(f.order, m.Name+" "+version)
	if f.during != nil {
		f.during(m)
	}
	if m.Scheduler { // it goes by the pin
		pin, ok, err := versions.Pinned(m.Profile)
		if err != nil || ok && pin.Path != program {
			return m, errors.New("the pin does not name the program")
		}
	}
	if f.stuck && slices.Contains(f.order[:len(f.order)-1], m.Name+" "+f.sick[m.Name]) {
		now.Running = false
		return *now, domain.E(domain.Unavailable, nil, "it does not answer")
	}
	now.PID, now.Version, now.Program = now.PID+1, version, program
	if f.sick[m.Name] == version {
		return *now, domain.E(domain.Unavailable, nil, "telegram is down")
	}
	return *now, nil
}
