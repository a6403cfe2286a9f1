package main

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"aead.dev/minisign"

	"hermes/internal/update"
	"hermes/testkit/port"
)

// TestMain runs in the module's root, as `make release` does.
func TestMain(m *testing.M) {
	if err := os.Chdir("../.."); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// writeKey makes a key pair as `minisign -G -W` does.
func writeKey(t *testing.T) (file string, keys update.Keys) {
	t.Helper()
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := private.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "minisign.key")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file, update.Keys{public}
}

func makeRelease(t *testing.T, out, version, key string, arches ...string) {
	t.Helper()
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	j := job{version: version, out: out, arches: arches}
	if err := j.run(t.Context(), key, ""); err != nil {
		t.Fatal(err)
	}
}

// TestRelease makes a release for both processors, and looks at every file of
// it as those who use it do.
func TestRelease(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("no dpkg-deb here, so no Debian package can be made")
	}
	key, keys := writeKey(t)
	out := t.TempDir()
	makeRelease(t, out, "1.2.3", key, arches...)
	in := readIndex(t, out, keys)
	if in.Channels["stable"] != "1.2.3" || len(in.Releases) != 1 || len(in.Releases[0].Archives) != len(arches) {
		t.Errorf("index: %+v", in)
	}
	check := exec.Command("sha256sum", "-c", "--strict", "--quiet", update.SumsName)
	check.Dir = out
	if text, err := check.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, text)
	}
	for _, arch := range arches {
		program := unpack(t, filepath.Join(out, update.ArchiveName("1.2.3", "linux", arch)))
		machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
		f, err := elf.Open(program)
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != machine || f.Section(".interp") != nil {
			t.Errorf("%s: built for %s, dynamic: %v", arch, f.Machine, f.Section(".interp") != nil)
		}
		f.Close()
		checkDebian(t, out, arch)
		t.Run("serves on "+arch, func(t *testing.T) { testServes(t, program, arch) })
	}
	t.Run("can be made again", func(t *testing.T) { testAgain(t, out, key) })
	t.Run("installs for one user", func(t *testing.T) { testInstall(t, out, key) })
}

// testServes runs the program of one processor, emulated where it is not ours:
// its gateway answers with the help of a tool, and ends when it is asked to.
func testServes(t *testing.T, program, arch string) {
	argv := []string{program}
	if arch != runtime.GOARCH {
		emulator, err := exec.LookPath("qemu-aarch64")
		if err != nil || arch != "arm64" {
			t.Skip("no emulator of " + arch + " here")
		}
		argv = []string{emulator, program}
	}
	home := t.TempDir()
	command := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), argv[0], append(argv[1:], args...)...)
		cmd.Env = []string{"HERMES_HOME=" + home, "HOME=" + home, "HERMES_GATEWAY_LOCK_DIR=" + home, "PATH=" + os.Getenv("PATH")}
		return cmd
	}
	kept, err := port.Lend("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Release()
	for _, set := range [][2]string{{"model.provider", "offline"}, {"API_SERVER_ENABLED", "true"}, {"API_SERVER_PORT", strings.TrimPrefix(kept.Addr(), "127.0.0.1:")}} {
		if text, err := command("config", "set", set[0], set[1]).CombinedOutput(); err != nil {
			t.Fatalf("config set %s: %v\n%s", set[0], err, text)
		}
	}
	gateway := command("gateway", "run", "--no-reserve")
	said, err := gateway.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	gateway.Stderr = gateway.Stdout
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	running := make(chan bool, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(said)
		for lines.Scan() {
			fmt.Fprintln(&log, lines.Text())
			if strings.Contains(lines.Text(), "gateway running") {
				running <- true
			}
		}
	}()
	select {
	case <-running:
	case <-ended:
		t.Fatalf("the gateway ended: %v\n%s", gateway.Wait(), log.String())
	}
	body := `{"messages":[{"role":"user","content":"run: echo here-$((6*7))"}]}`
	answer, err := http.Post("http://"+kept.Addr()+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || !strings.Contains(string(text), "here-42") {
		t.Errorf("it answered %v %s", err, text)
	}
	if text, err := command("gateway", "status").CombinedOutput(); err != nil || !strings.Contains(string(text), "running and healthy") {
		t.Errorf("status: %v\n%s", err, text)
	}
	if err := gateway.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := gateway.Wait(); err != nil {
		t.Errorf("it ended with %v\n%s", err, log.String())
	}
}

// testAgain holds that the same source gives the same bytes.
func testAgain(t *testing.T, out, key string) {
	again := t.TempDir()
	makeRelease(t, again, "1.2.3", key, runtime.GOARCH)
	names, err := os.ReadDir(again)
	if err != nil || len(names) < 7 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	for _, n := range names {
		if listsBoth := strings.HasPrefix(n.Name(), update.SumsName) || strings.HasPrefix(n.Name(), update.IndexName); listsBoth {
			continue // of the archives that were made for the other processor too
		}
		x, xerr := os.ReadFile(filepath.Join(out, n.Name()))
		y, yerr := os.ReadFile(filepath.Join(again, n.Name()))
		if xerr != nil || yerr != nil || !bytes.Equal(x, y) {
			t.Errorf("%s differs between two releases of the same (%v, %v)", n.Name(), xerr, yerr)
		}
	}
}

func readIndex(t *testing.T, out string, keys update.Keys) update.Index {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(out, update.IndexName))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := os.ReadFile(filepath.Join(out, update.IndexName+update.SignatureSuffix))
	if err != nil {
		t.Fatal(err)
	}
	in, err := update.ReadIndex(text, sig, keys)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// unpack gives the program of an archive.
func unpack(t *testing.T, archive string) string {
	t.Helper()
	dir := t.TempDir()
	if text, err := exec.Command("tar", "-xzf", archive, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, text)
	}
	for _, name := range []string{"hermes", "LICENSE", "man/hermes-gateway-run.1", "completions/hermes.bash", "completions/_hermes", "completions/hermes.fish"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("%s: %v", filepath.Base(archive), err)
		}
	}
	return filepath.Join(dir, "hermes")
}

func checkDebian(t *testing.T, out, arch string) {
	t.Helper()
	deb := filepath.Join(out, "hermes_1.2.3_"+arch+".deb")
	text, err := exec.Command("dpkg-deb", "--info", deb).CombinedOutput()
	if err != nil || !strings.Contains(string(text), "Architecture: "+arch) || !strings.Contains(string(text), "Version: 1.2.3\n") {
		t.Errorf("dpkg-deb --info: %v\n%s", err, text)
	}
	text, err = exec.Command("dpkg-deb", "--contents", deb).CombinedOutput()
	for _, want := range []string{
		"-rwxr-xr-x root/root", " ./usr/bin/hermes\n", " ./usr/share/man/man1/hermes.1.gz\n",
		" ./usr/share/bash-completion/completions/hermes\n", " ./usr/share/doc/hermes/copyright\n", " ./usr/share/doc/hermes/changelog.gz\n",
	} {
		if err != nil || !strings.Contains(string(text), want) {
			t.Fatalf("the package for %s lacks %q (%v):\n%s", arch, want, err, text)
		}
	}
}

// testInstall runs install.sh twice for a new user, and once with an archive
// that somebody changed; what it installed then updates itself to the next
// release, and back.
func testInstall(t *testing.T, out, key string) {
	home := t.TempDir()
	install := func(home string) (string, error) {
		cmd := exec.Command("sh", filepath.Join(out, "install.sh"))
		cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
		text, err := cmd.CombinedOutput()
		return string(text), err
	}
	for range 2 {
		text, err := install(home)
		if err != nil || !strings.Contains(text, "✓ checksum") || !strings.Contains(text, "go on with: hermes setup") {
			t.Fatalf("install.sh: %v\n%s", err, text)
		}
		version, err := exec.Command(filepath.Join(home, ".local/bin/hermes"), "--version").CombinedOutput()
		if err != nil || string(version) != "hermes 1.2.3\n" {
			t.Fatalf("hermes --version: %v, %q", err, version)
		}
	}
	if target, err := os.Readlink(filepath.Join(home, ".local/share/hermes/current")); err != nil || target != "versions/1.2.3" {
		t.Errorf("current -> %q, %v", target, err)
	}
	if left, err := filepath.Glob(filepath.Join(home, ".local/share/hermes/versions/.*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	archive := filepath.Join(out, update.ArchiveName("1.2.3", "linux", runtime.GOARCH))
	text, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(archive, append(text, 0), 0o644); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if said, err := install(other); err == nil || !strings.Contains(said, "is not what SHA256SUMS says; nothing was installed") {
		t.Errorf("a changed archive: %v\n%s", err, said)
	}
	if entries, err := os.ReadDir(other); err != nil || len(entries) > 0 {
		t.Errorf("a changed archive left %v behind (%v)", entries, err)
	}
	makeRelease(t, out, "1.3.0", key, runtime.GOARCH)
	for _, c := range []struct{ args, says, version string }{
		{"update --yes --from " + out, "✓ Updated to 1.3.0 (was 1.2.3)", "1.3.0"},
		{"update --yes --rollback", "✓ Went back to 1.2.3 (was 1.3.0)", "1.2.3"},
	} {
		cmd := exec.Command(filepath.Join(home, ".local/bin/hermes"), strings.Fields(c.args)...)
		cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
		if text, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(text), c.says) {
			t.Errorf("hermes %s: %v\n%s", c.args, err, text)
		}
		if version, err := exec.Command(filepath.Join(home, ".local/bin/hermes"), "--version").CombinedOutput(); err != nil || string(version) != "hermes "+c.version+"\n" {
			t.Errorf("after hermes %s: %v, %q", c.args, err, version)
		}
	}
}

func TestWhatNoReleaseIsMadeOf(t *testing.T) {
	key, _ := writeKey(t)
	notAKey := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(notAKey, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ version, key, epoch, want string }{
		{"", key, "", "is no version of a release"},
		{"79af3d2-dirty", key, "", "is no version of a release"},
		{"1.2.3", "", "", "a release must be signed"},
		{"1.2.3", notAKey, "", "is no secret key of minisign"},
		{"1.2.3", key, "today", "takes seconds since 1970"},
	} {
		t.Setenv("SOURCE_DATE_EPOCH", c.epoch)
		j := job{version: c.version, out: t.TempDir(), arches: arches}
		if err := j.run(t.Context(), c.key, ""); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("version %q, key %q, date %q: %v, want %q", c.version, filepath.Base(c.key), c.epoch, err, c.want)
		}
	}
}
