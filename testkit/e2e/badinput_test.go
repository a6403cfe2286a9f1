package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hermes/internal/control"
	"hermes/testkit/llm"
)

// A configuration that cannot be read ends the start with the place and the
// code on which units do not start it again.
func TestBrokenYAML(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"indentation": "model:\n  default: x\n provider: y\n",
		"quote":       "model:\n  default: \"x\n",
		"tab":         "model:\n\tdefault: x\n",
		"list":        "- a\n- b\n",
		"binary":      "\x00\x01\x02 not yaml \xff\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setUp(t, options{})
			w.write("config.yaml", text)
			out, code := w.run("gateway", "run")
			if code != 78 || !strings.Contains(out, filepath.Join(w.home.Dir, "config.yaml")+":") {
				t.Errorf("exit %d: %s", code, out)
			}
			if strings.Contains(out, "goroutine ") {
				t.Errorf("a crash: %s", out)
			}
			if _, code := w.status(); code == 0 {
				t.Error("status says that all is well")
			}
			if r := w.lastExit(); r.Code != 78 || !strings.Contains(r.Reason, "config.yaml") {
				t.Errorf("exit record %+v", r)
			}
			// Nothing was begun: the bot was not asked for anything.
			if n := w.tg.Calls("getUpdates"); n != 0 {
				t.Errorf("it polled %d times", n)
			}
		})
	}
}

// Lines of .env that are none are reported with their numbers; the others count.
func TestBadLinesOfEnv(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	w.write(".env", "this is no assignment\nexport "+strings.ReplaceAll(w.env, "\n", "\r\n")+"=novalue\nBAD NAME=1\n\xff\xfe=2\nOPEN=\"never closed\n")
	p := w.start()
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "hello")
	w.sees(ann.ID, "hello")
	s, _ := w.status()
	all := strings.Join(s.Warnings, "\n")
	for _, want := range []string{".env:1", ".env:5", ".env:6", ".env:7", ".env:8"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing is said of %s:\n%s", want, all)
		}
	}
	w.stop(p)
}

// Messages that hold what they should not are taken in, answered, and leave the
// conversation usable.
func TestStrangeMessages(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{api: true})
	p := w.start()
	ann := w.tg.AddUser("Ann")
	for i, text := range []string{
		"nul\x00inside 0", "bell\x07 and escape\x1b[31m 1", "half a rune \xff\xfe 2", "separators \u2028 \u202e 3",
		"zalgo " + strings.Repeat("a\u0301\u0302\u0303", 300) + " 4", strings.Repeat("🧑\u200d🚀", 900) + " 5", "<b>&amp;</b> `*_[](x) 6", "   7   ",
	} {
		w.tg.Say(ann, text)
		w.eventually("an answer to message "+fmt.Sprint(i), func() bool { return len(w.tg.Replies(ann.ID)) > i })
	}
	w.tg.Say(ann, "") // a message with nothing that the bot knows, e.g. a sticker
	w.tg.PushUpdate("message", map[string]any{"message_id": "no number", "chat": 5})
	w.tg.PushUpdate("message_of_the_future", map[string]any{"a": []int{1}})
	w.tg.PushUpdate("message", map[string]any{"message_id": 900, "date": 1, "chat": map[string]any{"id": ann.ID, "type": "private"}, "from": map[string]any{"id": ann.ID, "first_name": "Ann"},
		"text": "from a later API", "forward_origin": map[string]any{"type": "hologram", "beam": 7}})
	w.sees(ann.ID, "from a later API")
	for _, m := range w.tg.Replies(ann.ID) {
		if strings.ContainsAny(m.Text, "\x00\x07\x1b") || strings.Contains(m.Text, "⚠") {
			t.Errorf("answered %q", m.Text)
		}
	}
	for _, body := range []string{
		"{\"messages\":[{\"role\":\"user\",\"content\":\"nul \\u0000 and \xff\xfe half runes\"}]}",
		`{"messages":[{"role":"user","content":"\ud800 lone surrogate"}]}`,
	} {
		if status, answer := w.api(http.MethodPost, "/v1/chat/completions", body); status != 200 && status != 400 {
			t.Errorf("%q: %d %s", body, status, answer)
		}
	}
	if s, _ := w.status(); !s.Healthy {
		t.Errorf("%v", s.Problems)
	}
	w.stop(p)
}

// Big messages are taken, or refused with 413 and a sentence; 50 MB never are.
func TestBigMessages(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{api: true, brain: llm.Instant})
	w.brain.KeepRequests(2)
	p := w.start()
	chat := func(text string) (int, string) {
		b, err := json.Marshal(map[string]any{"model": "x", "messages": []any{map[string]any{"role": "user", "content": text}}})
		if err != nil {
			t.Fatal(err)
		}
		return w.api(http.MethodPost, "/v1/chat/completions", string(b))
	}
	page := func(id, text string) (int, string) {
		b, err := json.Marshal(map[string]any{"client_id": id, "text": text})
		if err != nil {
			t.Fatal(err)
		}
		return w.api(http.MethodPost, "/chat/api/messages", string(b))
	}
	if status, body := chat(strings.Repeat("x", 60_000)); status != 200 {
		t.Errorf("60 kB: %d %s", status, body)
	}
	for _, size := range []int{1 << 20, 50 << 20} {
		big := strings.Repeat("x", size)
		for name, post := range map[string]func() (int, string){"API": func() (int, string) { return chat(big) }, "page": func() (int, string) { return page("a", big) }} {
			status, body := post()
			var e struct{ Error struct{ Message string } }
			if err := json.Unmarshal([]byte(body), &e); status != 413 || err != nil || e.Error.Message == "" {
				t.Errorf("%s, %d bytes: %d %.300s", name, size, status, body)
			}
		}
	}
	if status, body := page("b", strings.Repeat("y", 60_000)); status != 202 {
		t.Errorf("page, 60 kB: %d %s", status, body)
	}
	w.settled()
	if rss := p.RSS(); rss > 300<<20 {
		t.Errorf("it holds %d MiB afterwards", rss>>20)
	}
	if s, _ := w.status(); !s.Healthy {
		t.Errorf("%v", s.Problems)
	}
	w.stop(p)
}

// A ledger that is no database is kept aside, which is said, and the bot works.
func TestALedgerThatIsNoDatabase(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"text": strings.Repeat("this was never a database\n", 500), "short": "x", "zeros": strings.Repeat("\x00", 8192)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setUp(t, options{})
			w.write("ledger.db", text)
			p := w.start()
			ann := w.tg.AddUser("Ann")
			w.tg.Say(ann, "hello")
			w.sees(ann.ID, "hello")
			s, code := w.status()
			if s.Ledger.SetAside == "" || code == 0 || !shows(s, s.Ledger.SetAside) {
				t.Fatalf("status does not say it: exit %d, %+v %v", code, s.Ledger, s.Problems)
			}
			path := s.Ledger.SetAside
			if !filepath.IsAbs(path) {
				path = filepath.Join(w.home.Dir, path)
			}
			if kept, err := os.ReadFile(path); err != nil || string(kept) != text {
				t.Errorf("the file was not kept: %v", err)
			}
			w.stop(p)
			p = w.start()
			w.tg.Say(ann, "again")
			w.sees(ann.ID, "again")
			w.stop(p)
		})
	}
}

// Files of dead, reused or foreign processes never keep the gateway from its start.
func TestStaleProcessFiles(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"dead":    `{"pid":4194303,"kind":"hermes-gateway","argv":["hermes","gateway","run"],"start_time":1}`,
		"reused":  fmt.Sprintf(`{"pid":%d,"kind":"hermes-gateway","argv":["hermes"],"start_time":7}`, os.Getpid()),
		"bare":    fmt.Sprint(os.Getpid()),
		"rubbish": "\x00\xff{{{",
		"empty":   "",
		"init":    "1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setUp(t, options{})
			for _, f := range []string{"gateway.pid", "gateway.lock", "gateway_state.json", "gateway.sock"} {
				w.write(f, text)
			}
			if s, code := w.status(); code == 0 || s.State != "stopped" {
				t.Errorf("before the start: exit %d, %+v", code, s)
			}
			p := w.start()
			w.waitStatus("healthy", func(s control.Status) bool { return s.Healthy })
			w.stop(p)
		})
	}
}
