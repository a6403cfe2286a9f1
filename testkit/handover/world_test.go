package handover

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hermes/internal/control"
	"hermes/internal/succession"
	"hermes/testkit/llm"
	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

const apiKey = "hand-over-key-of-the-api"

// stepLimit bounds each thing that a test waits for.
const stepLimit = 90 * time.Second

var binaries struct {
	sync.Mutex
	dir  string
	made map[string]string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if binaries.dir != "" {
		os.RemoveAll(binaries.dir)
	}
	os.Exit(code)
}

// binary builds the program once for each set of tags.
func binary(t *testing.T, tags string) string {
	t.Helper()
	binaries.Lock()
	defer binaries.Unlock()
	if binaries.dir == "" {
		dir, err := os.MkdirTemp("", "hermes-handover-")
		if err != nil {
			t.Fatal(err)
		}
		binaries.dir, binaries.made = dir, map[string]string{}
	}
	if b := binaries.made[tags]; b != "" {
		return b
	}
	b, err := rig.Build(context.Background(), binaries.dir, tags)
	if err != nil {
		t.Fatal(err)
	}
	binaries.made[tags] = b
	return b
}

// world is a gateway with everything around it.
type world struct {
	t     *testing.T
	tg    *telegram.Server
	brain *llm.Server
	home  *rig.Home
	addr  string
	first *rig.Process
	group int
	round sync.Map // stream's word → chan struct{}: closed when it may go on
}

// newWorld starts a gateway that is replaced by the given mode.
func newWorld(t *testing.T, mode, tags string, env ...string) *world {
	t.Helper()
	return newWorldOf(t, mode, binary(t, tags), env...)
}

// newWorldOf is newWorld with a given program.
func newWorldOf(t *testing.T, mode, program string, env ...string) *world {
	t.Helper()
	w := prepare(t, mode, program)
	w.start(env...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the gateway said:\n%s", tail(w.first.Output()))
		}
	})
	return w
}

// prepare makes everything but starts no gateway.
func prepare(t *testing.T, mode, program string) *world {
	t.Helper()
	w := &world{t: t}
	var err error
	if w.tg, err = telegram.New(telegram.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.tg.Close)
	if w.brain, err = llm.Start(w.think); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.brain.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(w.addr)
	config := fmt.Sprintf("model:\n  default: fake\n  provider: custom\n  base_url: %s\n  api_key: hand-over-key-of-the-model\napprovals:\n  mode: \"off\"\nstreaming:\n  enabled: false\nsession_reset:\n  mode: none\n", w.brain.URL())
	dotenv := fmt.Sprintf("TELEGRAM_BOT_TOKEN=%s\nTELEGRAM_BASE_URL=%s\nTELEGRAM_ALLOW_ALL_USERS=true\nAPI_SERVER_ENABLED=true\nAPI_SERVER_PORT=%s\nAPI_SERVER_KEY=%s\nHERMES_LOG_LEVEL=info\n", w.tg.Token(), w.tg.URL(), port, apiKey)
	if w.home, err = rig.NewHome(filepath.Join(t.TempDir(), "home"), program, config, dotenv); err != nil {
		t.Fatal(err)
	}
	w.home.Env = []string{"HERMES_GATEWAY_HANDOVER=" + mode}
	return w
}

// start starts the gateway; whatever comes of it is ended with the test.
func (w *world) start(env ...string) {
	w.t.Helper()
	p := w.launch(env...)
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	if err := p.Ready(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// launch starts the gateway and does not wait for it.
func (w *world) launch(env ...string) *rig.Process {
	w.t.Helper()
	p, err := w.home.Start(env...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.first, w.group = p, p.Cmd.Process.Pid
	group := w.group
	w.t.Cleanup(func() {
		_ = syscall.Kill(-group, syscall.SIGKILL)
		<-p.Done()
	})
	return p
}

func tail(s string) string {
	if len(s) > 12000 {
		return s[len(s)-12000:]
	}
	return s
}

// think answers "say X" at once, and "stream X" in pieces, of which the last
// waits until the test lets it go.
func (w *world) think(r llm.Request) llm.Reply {
	said := r.LastUser()
	verb, id, _ := strings.Cut(said, " ")
	switch verb {
	case "stream":
		gate := w.gate(id)
		return llm.Reply{Text: "one two three " + id, Pieces: []string{"one ", "two ", "three ", id}, BeforePiece: func(ctx context.Context, i int) {
			if i == 2 {
				select {
				case <-gate:
				case <-ctx.Done():
				}
			}
		}}
	case "think":
		gate := w.gate(id)
		return llm.Reply{Text: "answer " + id, Before: func(ctx context.Context) {
			select {
			case <-gate:
			case <-ctx.Done():
			}
		}}
	}
	return llm.Reply{Text: "answer " + id}
}

func (w *world) gate(id string) chan struct{} {
	c, _ := w.round.LoadOrStore(id, make(chan struct{}))
	return c.(chan struct{})
}

// serving is the process that serves, by its own word.
func (w *world) serving() control.Status {
	w.t.Helper()
	ctx, cancel := rig.Deadline(10 * time.Second)
	defer cancel()
	s, err := control.Dial(filepath.Join(w.home.Dir, "gateway.sock")).Status(ctx)
	if err != nil {
		w.t.Fatalf("nobody serves: %v", err)
	}
	return s
}

// restart runs the command and fails the test when it does.
func (w *world) restart() {
	w.t.Helper()
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	if out, err := w.home.Run(ctx, "gateway", "restart"); err != nil {
		w.t.Fatalf("restart: %v\n%s", err, out)
	}
}

// post sends a chat request and gives the answer's text.
func (w *world) post(c *http.Client, text string) (string, error) {
	body := fmt.Sprintf(`{"model":"x","messages":[{"role":"user","content":%q}]}`, text)
	req, err := http.NewRequest(http.MethodPost, "http://"+w.addr+"/v1/chat/completions", bytes.NewReader([]byte(body)))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	req.GetBody = nil // no silent second try by the client
	res, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	var got struct {
		Choices []struct{ Message struct{ Content string } }
	}
	if err := json.Unmarshal(raw, &got); err != nil || res.StatusCode != 200 || len(got.Choices) == 0 {
		return "", fmt.Errorf("status %d: %s", res.StatusCode, raw)
	}
	return got.Choices[0].Message.Content, nil
}

// stream is an answer that is read as it is written.
type stream struct {
	res *http.Response
	in  *bufio.Reader
}

// openStream asks for a stream and reads its first piece.
func (w *world) openStream(id string) (*stream, error) {
	body := fmt.Sprintf(`{"model":"x","stream":true,"messages":[{"role":"user","content":"stream %s"}]}`, id)
	req, err := http.NewRequest(http.MethodPost, "http://"+w.addr+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return nil, err
	}
	s := &stream{res, bufio.NewReader(res.Body)}
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			res.Body.Close()
			return nil, err
		}
		if strings.Contains(line, "one ") {
			return s, nil
		}
	}
}

// rest reads the stream to its end.
func (s *stream) rest(id string) error {
	defer s.res.Body.Close()
	text, err := io.ReadAll(s.in)
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), id) || !strings.Contains(string(text), "[DONE]") {
		return fmt.Errorf("the stream was cut: %s", text)
	}
	return nil
}

// alive lists the processes of the group that are no zombies.
func (w *world) alive() (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range stats {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		i := strings.LastIndexByte(string(text), ')')
		fields := strings.Fields(string(text[i+1:]))
		var pid, group int
		fmt.Sscan(string(text), &pid)
		fmt.Sscan(fields[2], &group)
		if group == w.group && fields[0] != "Z" && fields[0] != "X" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// until waits for a condition to be seen.
func (w *world) until(what string, holds func() bool) {
	w.t.Helper()
	deadline := time.NewTimer(stepLimit)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			w.t.Fatalf("%s: not seen\n%s", what, tail(w.first.Output()))
		}
	}
}

// converse lets a person write and waits for the answer.
func (w *world) converse(u telegram.User, id string) error {
	w.tg.Say(u, "say "+id)
	return w.answered(u, id)
}

func (w *world) answered(u telegram.User, id string) error {
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	_, err := w.tg.WaitFor(ctx, u.ID, func(m telegram.Message) bool { return m.FromBot && m.Text == "answer "+id })
	return err
}

// holder is the process that has the profile's lock.
func (w *world) holder() (succession.Record, bool) {
	r, err := os.ReadFile(filepath.Join(w.home.Dir, "gateway.pid"))
	var rec succession.Record
	if err != nil || json.Unmarshal(r, &rec) != nil {
		return rec, false
	}
	return rec, rec.Alive()
}
