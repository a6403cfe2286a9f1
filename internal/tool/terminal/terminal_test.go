package terminal

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/approval"
	"hermes/internal/domain"
	"hermes/internal/tool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// box is a Terminal in a folder of its own.
type box struct {
	*Terminal
	t     *testing.T
	tools map[string]tool.Tool
	env   tool.Env
}

func open(t *testing.T, home string, change func(*Options)) *box {
	t.Helper()
	o := Options{
		Home: home, Grace: 200 * time.Millisecond,
		Env: func() []string { return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home} },
	}
	if change != nil {
		change(&o)
	}
	term, tools, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	b := &box{Terminal: term, t: t, tools: map[string]tool.Tool{}, env: tool.Env{
		Home: home, Workdir: t.TempDir(), CacheDir: filepath.Join(home, "cache"), SessionKey: "agent:main:test:dm:1",
	}}
	for _, x := range tools {
		b.tools[x.Name] = x
	}
	if _, err := tool.NewRegistry(tools...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.close() })
	return b
}

func (b *box) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		b.t.Errorf("close: %v", err)
	}
}

func (b *box) call(ctx context.Context, name string, args map[string]any) (string, error) {
	b.t.Helper()
	raw, err := json.Marshal(args)
	if err != nil {
		b.t.Fatal(err)
	}
	res, err := b.tools[name].Run(ctx, b.env, raw)
	return res.Content, err
}

func (b *box) run(command string) string {
	b.t.Helper()
	out, err := b.call(b.t.Context(), "terminal", map[string]any{"command": command})
	if err != nil {
		b.t.Fatalf("%s: %v (%s)", command, err, out)
	}
	return out
}

func (b *box) start(command string, stdin bool) string {
	b.t.Helper()
	out, err := b.call(b.t.Context(), "terminal", map[string]any{"command": command, "background": true, "stdin": stdin})
	if err != nil {
		b.t.Fatalf("%s: %v", command, err)
	}
	_, rest, _ := strings.Cut(out, "with id ")
	id, _, ok := strings.Cut(rest, " ")
	if !ok {
		b.t.Fatalf("no id in %q", out)
	}
	return id
}

func (b *box) act(action, id string, more ...any) string {
	b.t.Helper()
	args := map[string]any{"action": action, "id": id}
	for i := 0; i < len(more); i += 2 {
		args[more[i].(string)] = more[i+1]
	}
	out, err := b.call(b.t.Context(), "process", args)
	if err != nil {
		b.t.Fatalf("%s %s: %v", action, id, err)
	}
	return out
}

// fifo makes a named pipe that a command reports over; line reads what it says.
func fifo(t *testing.T, dir string) (path string, line func() string) {
	t.Helper()
	path = filepath.Join(dir, "report")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	r := bufio.NewReader(f)
	return path, func() string {
		f.SetReadDeadline(time.Now().Add(time.Minute))
		s, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the command reported nothing: %v", err)
		}
		return strings.TrimSpace(s)
	}
}

func pidOf(t *testing.T, s string) proc {
	t.Helper()
	pid, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("no PID: %q", s)
	}
	p, ok := identify(pid)
	if !ok {
		t.Fatalf("process %d is not there", pid)
	}
	return p
}

func TestForeground(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	if err := os.Mkdir(filepath.Join(b.env.Workdir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, command string
		want          []string
	}{
		{"order of the streams", "echo a; echo b >&2; echo c", []string{"a\nb\nc\n[exit code 0"}},
		{"exit code", "exit 3", []string{"[no output]", "[exit code 3"}},
		{"pipefail and bash", "set -o pipefail; false | true", []string{"[exit code 1"}},
		{"nothing to read", "cat; read x || echo none", []string{"none", "[exit code 0"}},
		{"no terminal", "tty; ps -o tty= -p $$ 2>/dev/null; exec 3<>/dev/tty || echo detached", []string{"detached"}},
		{"a missing program names the PATH", "no-such-program-here", []string{"[exit code 127", "PATH is "}},
		{"a signal", "kill -9 $$", []string{"[exit code 137", "killed"}},
		{"colours and carriage returns", `printf '\033[31mred\033[0m\n10%%\r100%%\n'`, []string{"red\n100%\n"}},
		{"a session of its own", `test "$(ps -o sid= -p $$ | tr -d ' ')" = $$ && echo leader`, []string{"leader"}},
		{"dies before the gateway does", "cat /proc/self/oom_score_adj", []string{"500\n"}},
	} {
		if out := b.run(tt.command); !contains(out, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, out, tt.want)
		}
	}
	out, err := b.call(t.Context(), "terminal", map[string]any{"command": "pwd", "workdir": "sub"})
	if err != nil || !strings.HasPrefix(out, filepath.Join(b.env.Workdir, "sub")+"\n") {
		t.Errorf("workdir: %q, %v", out, err)
	}
	if _, err := b.call(t.Context(), "terminal", map[string]any{"command": "pwd", "workdir": "none"}); domain.CodeOf(err) != domain.Invalid {
		t.Errorf("a missing workdir: %v", err)
	}
}

func contains(s string, all []string) bool {
	for _, w := range all {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}

func TestEnvironmentIsClean(t *testing.T) {
	base := []string{"PATH=" + os.Getenv("PATH"), "KEEP=1", "OPENROUTER_API_KEY=sk-1", "TELEGRAM_BOT_TOKEN=t", "DB_PASSWORD=p", "MY_SECRET=s",
		"API_SERVER_KEY=k", "NOTIFY_SOCKET=/run/x", "LISTEN_FDS=1", "LISTEN_PID=1", "WATCHDOG_USEC=1", "INVOCATION_ID=a", "FROM_FILE=v", "URL=http://u:hunter22@h", "TERM=xterm"}
	b := open(t, t.TempDir(), func(o *Options) {
		o.Env = func() []string { return base }
		o.Hidden = func() []string { return []string{"FROM_FILE", "PATH"} }
		o.Secrets = func() []string { return []string{"hunter22"} }
		o.Redact = func(s string) string { return strings.ReplaceAll(s, "visible", "<secret>") }
	})
	out := b.run("env; echo visible")
	for _, gone := range []string{"API_KEY", "TOKEN", "PASSWORD", "SECRET=", "API_SERVER", "NOTIFY", "LISTEN_", "WATCHDOG", "INVOCATION", "FROM_FILE", "hunter22", "xterm", "visible"} {
		if strings.Contains(out, gone) {
			t.Errorf("%s reached the command:\n%s", gone, out)
		}
	}
	if !contains(out, []string{"KEEP=1\n", "TERM=dumb\n", "<secret>"}) {
		t.Errorf("something is missing:\n%s", out)
	}
	if id := b.start("env", false); !strings.Contains(b.act("wait", id), "KEEP=1") || strings.Contains(b.act("log", id), "TOKEN") {
		t.Error("the environment of background commands is not clean")
	}
}

func TestLongOutputKeepsBothEndsAndAllOnDisk(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	out := b.run("echo first; for i in $(seq 20000); do echo line $i; done; echo last")
	if len(out) > keepHead+keepTail+1000 || !contains(out, []string{"first\n", "\nlast\n", "bytes left out"}) {
		t.Fatalf("%d bytes: %.200s", len(out), out)
	}
	_, rest, _ := strings.Cut(out, "the output is in ")
	path, _, _ := strings.Cut(rest, " …]")
	whole, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(whole), "first\nline 1\n") || !strings.HasSuffix(string(whole), "line 20000\nlast\n") {
		t.Fatalf("%d bytes on disk, %v", len(whole), err)
	}
}

// What the command started dies with it, also what left its process group and
// session.
func TestCancelEndsTheWholeTree(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	report, line := fifo(t, b.env.Workdir)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := domain.E(domain.Cancelled, nil, "stopped by the user")
	done := make(chan error, 1)
	go func() {
		raw, _ := json.Marshal(map[string]string{"command": "trap '' TERM; echo $$ > " + report +
			"; sleep 1000 & echo $! > " + report +
			"; setsid sh -c 'echo $$ > " + report + "; sleep 1000' & " +
			"(setsid sh -c 'echo $$ > " + report + "; trap \"\" TERM; while :; do sleep 1000; done' &) ; wait; sleep 1000"})
		_, err := b.tools["terminal"].Run(ctx, b.env, raw)
		done <- err
	}()
	var all []proc
	for range 4 {
		all = append(all, pidOf(t, line()))
	}
	if n := b.Running(b.env.SessionKey); n != 1 {
		t.Errorf("%d commands run, want 1", n)
	}
	cancel(cause)
	if err := <-done; err != cause {
		t.Errorf("got %v", err)
	}
	for _, p := range all {
		if p.alive() {
			t.Errorf("process %d is left", p.PID)
			syscall.Kill(p.PID, syscall.SIGKILL)
		}
	}
	if n := b.Running(b.env.SessionKey); n != 0 {
		t.Errorf("%d commands run, want 0", n)
	}
}

func TestTimeout(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	out, err := b.call(t.Context(), "terminal", map[string]any{"command": "echo begun; sleep 1000", "timeout": 0.3})
	if domain.CodeOf(err) != domain.Timeout || !contains(out, []string{"begun", "not finished"}) {
		t.Errorf("got %q, %v", out, err)
	}
}

// A process that keeps the output open does not keep the call.
func TestInheritedPipeDoesNotHang(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	out := b.run("sleep 1000 & echo $!")
	left := pidOf(t, strings.SplitN(out, "\n", 2)[0])
	defer syscall.Kill(left.PID, syscall.SIGKILL)
	if !strings.Contains(out, "still runs") || !left.alive() {
		t.Errorf("got %q", out)
	}
}

func TestCloseEndsForeground(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	report, line := fifo(t, b.env.Workdir)
	done := make(chan error, 1)
	go func() {
		_, err := b.call(context.Background(), "terminal", map[string]any{"command": "echo $$ > " + report + "; sleep 1000"})
		done <- err
	}()
	p := pidOf(t, line())
	b.close()
	if err := <-done; domain.CodeOf(err) != domain.Cancelled || p.alive() {
		t.Errorf("got %v, alive %v", err, p.alive())
	}
	if _, err := b.call(t.Context(), "terminal", map[string]any{"command": "true"}); domain.CodeOf(err) != domain.Cancelled {
		t.Errorf("a closed terminal ran a command: %v", err)
	}
}

func TestBackground(t *testing.T) {
	ended := make(chan Process, 4)
	b := open(t, t.TempDir(), func(o *Options) { o.OnEnd = func(p Process) { ended <- p } })
	id := b.start("echo hello; while read -r l; do echo got $l; [ $l = end ] && exit 7; done", true)
	if out := b.act("list", ""); !contains(out, []string{id, "running", "echo hello"}) {
		t.Errorf("list: %q", out)
	}
	if n := b.Running(b.env.SessionKey); n != 1 {
		t.Errorf("%d run, want 1", n)
	}
	b.act("submit", id, "data", "one")
	b.act("write", id, "data", "end\n")
	if out := b.act("wait", id, "timeout", 60); !contains(out, []string{"ended with exit code 7", "hello\ngot one\ngot end"}) {
		t.Errorf("wait: %q", out)
	}
	if p := <-ended; p.ID != id || p.ExitCode != 7 || p.Running {
		t.Errorf("OnEnd got %+v", p)
	}
	if out := b.act("log", id, "offset", 1, "limit", 1); !strings.HasSuffix(out, "\ngot one") {
		t.Errorf("log: %q", out)
	}
	if _, err := b.call(t.Context(), "process", map[string]any{"action": "write", "id": id, "data": "x"}); domain.CodeOf(err) != domain.Conflict {
		t.Errorf("writing to an ended command: %v", err)
	}
	b.env.SessionKey = "agent:main:test:dm:2"
	if _, err := b.call(t.Context(), "process", map[string]any{"action": "poll", "id": id}); domain.CodeOf(err) != domain.NotFound {
		t.Errorf("another conversation sees the command: %v", err)
	}
	if _, err := b.call(t.Context(), "process", map[string]any{"action": "eat", "id": id}); err == nil {
		t.Error("an unknown action passed")
	}
}

func TestKillBackground(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	report, line := fifo(t, b.env.Workdir)
	id := b.start("setsid sh -c 'trap \"\" TERM; echo $$ > "+report+"; while :; do sleep 1000; done' & sleep 1000", false)
	child := pidOf(t, line())
	if out := b.act("kill", id); !strings.Contains(out, "ended") || child.alive() {
		t.Errorf("kill: %q, child alive %v", out, child.alive())
	}
}

// A background command outlives its gateway; the next one finds it, reads its
// output and reports its end, once.
func TestBackgroundIsAdopted(t *testing.T) {
	home := t.TempDir()
	first := open(t, home, func(o *Options) { o.OnEnd = func(Process) { t.Error("the first gateway reported an end") } })
	id := first.start("echo before; read -r l; echo after; exit 5", true)
	first.close()

	ended := make(chan Process, 4)
	second := open(t, home, func(o *Options) { o.OnEnd = func(p Process) { ended <- p } })
	if out := second.act("poll", id); !contains(out, []string{"running"}) {
		t.Fatalf("poll: %q", out)
	}
	second.act("submit", id, "data", "go")
	if out := second.act("wait", id, "timeout", 60); !contains(out, []string{"exit code 5", "before\nafter"}) {
		t.Errorf("wait: %q", out)
	}
	if p := <-ended; p.ID != id || p.ExitCode != 5 {
		t.Errorf("OnEnd got %+v", p)
	}
	second.close()

	third := open(t, home, func(o *Options) { o.OnEnd = func(Process) { t.Error("an end was reported twice") } })
	if out := third.act("list", ""); !strings.Contains(out, "exit code 5") {
		t.Errorf("list: %q", out)
	}
}

// In a hand-over the successor is there before its predecessor goes: what that
// one started meanwhile is taken up by Adopt, and its end is reported once.
func TestAdoptDuringAHandOver(t *testing.T) {
	home := t.TempDir()
	ended := make(chan string, 4)
	old := open(t, home, func(o *Options) { o.OnEnd = func(Process) { ended <- "old" } })
	next := open(t, home, func(o *Options) { o.OnEnd = func(Process) { ended <- "next" } })
	id := old.start("read -r l", true)
	next.Adopt()
	next.Adopt()
	old.close()
	next.act("submit", id, "data", "go")
	if who := <-ended; who != "next" {
		t.Errorf("%s reported the end", who)
	}
	next.Adopt()
	next.close()
	if len(ended) != 0 {
		t.Errorf("the end was reported again by %s", <-ended)
	}
}

func TestBackgroundIsBounded(t *testing.T) {
	b := open(t, t.TempDir(), func(o *Options) { o.MaxBackground, o.EndBackground = 1, true })
	b.start("sleep 1000", false)
	if _, err := b.call(t.Context(), "terminal", map[string]any{"command": "sleep 1000", "background": true}); domain.CodeOf(err) != domain.TooLarge {
		t.Errorf("got %v", err)
	}
	live := b.processes("")
	b.close()
	for _, p := range live {
		if p.alive() {
			t.Errorf("process %d is left", p.PID)
		}
	}
}

func TestTrimKeepsTheLastPart(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	id := b.start("head -c 20000000 /dev/zero | tr '\\0' x; echo; echo end", false)
	out := b.act("wait", id, "timeout", 60)
	b.trim(id)
	if !strings.Contains(out, "end") || !strings.HasSuffix(b.act("log", id, "limit", 1), "end") {
		t.Errorf("the end is gone: %.300q", out)
	}
}

func TestGuard(t *testing.T) {
	b := open(t, t.TempDir(), func(o *Options) {
		o.Approval = func() approval.Options { return approval.Options{CronMode: approval.CronDeny} }
	})
	script := filepath.Join(b.env.Workdir, "again.sh")
	if err := os.WriteFile(script, []byte("hermes gateway restart\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cron := b.env
	cron.Kind = domain.TurnCron
	granted := b.env
	granted.Granted = func(key string) bool { return key == "sudo" }
	for _, tt := range []struct {
		command string
		env     tool.Env
		want    tool.Action
	}{
		{"ls", b.env, tool.Run}, {"sudo ls", b.env, tool.Ask}, {"sudo ls", granted, tool.Run}, {"sudo ls", cron, tool.Refuse},
		{"rm -rf /", b.env, tool.Refuse}, {"./again.sh", b.env, tool.Refuse},
	} {
		raw, _ := json.Marshal(map[string]string{"command": tt.command})
		d, err := b.tools["terminal"].Guard(t.Context(), tt.env, raw)
		if err != nil || d.Action != tt.want {
			t.Errorf("%s: got %+v, %v; want %v", tt.command, d, err, tt.want)
		}
		if d.Action == tool.Ask && (d.Question.Kind != domain.AskApproval || d.Question.Key != "sudo" || d.Question.Detail != tt.command) {
			t.Errorf("%s: question %+v", tt.command, d.Question)
		}
	}
}

// What is typed into a shell in the background is judged as a command, also
// when it comes in pieces.
func TestInputOfAShellIsGuarded(t *testing.T) {
	b := open(t, t.TempDir(), func(o *Options) { o.EndBackground = true })
	shell, other := b.start("bash", true), b.start("sort", true)
	judge := func(id, action, data string) tool.Action {
		t.Helper()
		raw, _ := json.Marshal(map[string]string{"action": action, "id": id, "data": data})
		d, err := b.tools["process"].Guard(t.Context(), b.env, raw)
		if err != nil {
			t.Fatal(err)
		}
		return d.Action
	}
	for _, tt := range []struct {
		id, data string
		want     tool.Action
	}{
		{shell, "ls", tool.Run}, {shell, "sudo ls", tool.Ask}, {shell, "rm -rf /", tool.Refuse}, {shell, "hermes gateway restart", tool.Refuse},
		{other, "it's", tool.Run}, {other, "sudo ls", tool.Run}, {other, "rm -rf /", tool.Refuse},
	} {
		if got := judge(tt.id, "submit", tt.data); got != tt.want {
			t.Errorf("%q: got %v, want %v", tt.data, got, tt.want)
		}
	}
	b.act("write", shell, "data", "rm -r")
	if got := judge(shell, "submit", "f /"); got != tool.Refuse {
		t.Errorf("in pieces: got %v", got)
	}
	b.act("submit", shell, "data", "x; true")
	if got := judge(shell, "submit", "f /"); got != tool.Run {
		t.Errorf("after the end of the line: got %v", got)
	}
}

func TestManyAtOnce(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			want := strconv.Itoa(i) + "\n[exit code 0"
			raw, _ := json.Marshal(map[string]string{"command": "echo " + strconv.Itoa(i)})
			if res, err := b.tools["terminal"].Run(t.Context(), b.env, raw); err != nil || !strings.HasPrefix(res.Content, want) {
				t.Errorf("%d: %q, %v", i, res.Content, err)
			}
		})
	}
	wg.Wait()
}
