package succession

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
)

func profile(t *testing.T) home.Profile {
	dir := t.TempDir()
	return home.Profile{Name: "liam", Root: dir, Home: filepath.Join(dir, "profiles", "liam")}
}

func TestSecondInstanceIsRefusedWithHolder(t *testing.T) {
	p := profile(t)
	i, err := Claim(p)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Claim(p)
	if !domain.IsCode(err, domain.Conflict) || !strings.Contains(err.Error(), fmt.Sprintf("PID %d", os.Getpid())) {
		t.Fatalf("second claim: %v", err)
	}
	if r, ok := Holder(p); !ok || r.PID != os.Getpid() {
		t.Fatalf("holder: %+v %v", r, ok)
	}
	i.Release()
	if _, ok := Holder(p); ok {
		t.Fatal("still held after release")
	}
	if _, err := os.Stat(p.PIDFile()); !os.IsNotExist(err) {
		t.Fatalf("PID file: %v", err)
	}
	j, err := Claim(p)
	if err != nil {
		t.Fatal(err)
	}
	j.Release()
}

// A PID file of a process that is dead, a zombie, or another one with the same
// number never blocks a start.
func TestStaleRecordsNeverBlock(t *testing.T) {
	zombie := exec.Command("sh", "-c", "exec true")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	zpid := zombie.Process.Pid
	defer zombie.Wait()
	waitZombie(t, zpid)
	zstart, _, _ := procStat(zpid)

	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	parent := os.Getppid()
	pstart, _, err := procStat(parent)
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]Record{
		"zombie":     {PID: zpid, Kind: "hermes-gateway", StartTime: zstart},
		"dead":       {PID: dead.Process.Pid, Kind: "hermes-gateway", StartTime: 1},
		"reused":     {PID: parent, Kind: "hermes-gateway", StartTime: pstart + 7},
		"other kind": {PID: parent, Kind: "something", StartTime: pstart},
		"no process": {PID: 1 << 30, Kind: "hermes-gateway"},
		"negative":   {PID: -4, Kind: "hermes-gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			p := profile(t)
			if err := os.MkdirAll(p.Home, 0o700); err != nil {
				t.Fatal(err)
			}
			text, _ := json.Marshal(r)
			for _, f := range []string{p.PIDFile(), p.LockFile()} {
				if err := os.WriteFile(f, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			i, err := Claim(p)
			if err != nil {
				t.Fatal(err)
			}
			i.Release()
		})
	}
}

// A gateway that is killed between fork and exec of a command leaves a child
// that holds the lock for a moment.
func TestALockOfADeadHolderIsWaitedFor(t *testing.T) {
	p := profile(t)
	if err := os.MkdirAll(p.Home, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(p.LockFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := flock(f); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"pid":1073741824,"kind":"hermes-gateway","start_time":1}`); err != nil {
		t.Fatal(err)
	}
	child := exec.Command("cat")
	child.ExtraFiles = []*os.File{f}
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	claimed := make(chan error, 1)
	go func() {
		i, err := Claim(p)
		if err == nil {
			i.Release()
		}
		claimed <- err
	}()
	in.Close()
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := <-claimed; err != nil {
		t.Fatal(err)
	}
}

// A gateway of the other system writes gateway.pid and may not hold our lock.
func TestForeignGatewayIsRespected(t *testing.T) {
	p := profile(t)
	if err := os.MkdirAll(p.Home, 0o700); err != nil {
		t.Fatal(err)
	}
	start, _, err := procStat(os.Getppid())
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(Record{PID: os.Getppid(), Kind: "hermes-gateway", StartTime: start})
	if err := os.WriteFile(p.PIDFile(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Claim(p); !domain.IsCode(err, domain.Conflict) {
		t.Fatalf("claim: %v", err)
	}
}

func TestCredentialLock(t *testing.T) {
	dir := t.TempDir()
	const token = "123456:a-very-secret-token"
	a := Self("/h/liam", "liam")
	l, err := LockCredential(dir, "telegram-bot-token", token, a, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other := a
	other.PID = 1
	_, err = LockCredential(dir, "telegram-bot-token", token, other, time.Now())
	if !domain.IsCode(err, domain.Conflict) || !strings.Contains(err.Error(), "profile liam (PID ") {
		t.Fatalf("second: %v", err)
	}
	if _, err := LockCredential(dir, "telegram-bot-token", "999:another", other, time.Now()); err != nil {
		t.Fatalf("another bot: %v", err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		if text, _ := os.ReadFile(f); strings.Contains(string(text), "very-secret") || strings.Contains(f, "secret") {
			t.Fatalf("the token stands in %s", f)
		}
	}
	l.Release()
	if l, err = LockCredential(dir, "telegram-bot-token", token, other, time.Now()); err != nil {
		t.Fatalf("after release: %v", err)
	}
	l.Release()
}

// waitZombie waits until a child has ended and was not reaped.
func waitZombie(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if _, state, err := procStat(pid); err == nil && state == 'Z' {
			return
		}
	}
	t.Fatal("the child did not become a zombie")
}
