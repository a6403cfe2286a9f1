package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/platform"
	"hermes/internal/platform/telegram"
	"hermes/internal/tool"
	"hermes/testkit/llm"
)

// crashing is an adapter whose methods panic when they are told to.
type crashing struct {
	in    chan domain.Inbound
	shown lines
	where map[string]*atomic.Int32 // how often a method panics
}

func newCrashing(where ...string) *crashing {
	c := &crashing{in: make(chan domain.Inbound, 16), where: map[string]*atomic.Int32{}}
	for _, w := range where {
		c.where[w] = new(atomic.Int32)
		c.where[w].Store(1)
	}
	return c
}

func (c *crashing) hit(method string) {
	if n := c.where[method]; n != nil && n.Add(-1) >= 0 {
		panic("a defect in " + method)
	}
}

func (c *crashing) Name() domain.Platform { return telegram.Name }

func (c *crashing) Capabilities() platform.Capabilities {
	return platform.Capabilities{MaxText: 4096, Dialect: platform.DialectPlain, TypingEvery: 2 * time.Second, EditEvery: time.Second, MaxUpload: 1 << 20}
}

func (c *crashing) Run(ctx context.Context, sink platform.Sink) error {
	c.hit("Run")
	for {
		select {
		case in := <-c.in:
			if err := sink.Accept(ctx, "bot", []domain.Inbound{in}, ""); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *crashing) Send(_ context.Context, _ domain.Address, p domain.Part, _ string) (string, error) {
	c.hit("Send")
	c.shown.add(p.Text)
	return "1", nil
}

func (c *crashing) Edit(_ context.Context, _ domain.Address, _ string, p domain.Part) error {
	c.hit("Edit")
	c.shown.add(p.Text)
	return nil
}

func (c *crashing) Typing(context.Context, domain.Address) error { c.hit("Typing"); return nil }

func (c *crashing) SetCommands(context.Context, []platform.Command) error {
	c.hit("SetCommands")
	return nil
}

func (c *crashing) Live(domain.Address, domain.TurnEvent) { c.hit("Live") }

func (c *crashing) Fetch(_ context.Context, a domain.Attachment, _ int64, w io.Writer) (domain.Attachment, error) {
	c.hit("Fetch")
	_, err := io.WriteString(w, "a file")
	return a, err
}

// say lets somebody write; each chat is a person of their own.
func (c *crashing) say(id int, chat, text string) {
	c.in <- domain.Inbound{
		Source:  domain.Source{Address: domain.Address{Platform: telegram.Name, ChatID: chat}, ChatType: domain.ChatDM, UserID: chat},
		EventID: fmt.Sprint(id), Text: text, Mentioned: true,
		Attachments: []domain.Attachment{{Kind: domain.Document, Name: "a.txt", Ref: "r"}},
	}
}

func withTyping(c home.PlatformConfig) home.PlatformConfig {
	c.Typing, c.AllowAll = true, true
	return c
}

// A defect in any method of an adapter costs at most what it was asked for:
// the process lives, and the next message is answered.
func TestACrashInAnAdapterHarmsNothingElse(t *testing.T) {
	for _, method := range []string{"Run", "Send", "Edit", "Typing", "SetCommands", "Live", "Fetch"} {
		t.Run(method, func(t *testing.T) {
			c := newCrashing(method)
			s := newSetup(t, func(r llm.Request) llm.Reply {
				text := "answer to " + strings.Fields(r.LastUser())[0] + " in several words" + strings.Repeat(" and more", 40)
				return llm.Reply{Text: text, BeforePiece: func(ctx context.Context, i int) {
					if i == 60 && method == "Edit" { // the answer edits what was shown by now
						c.shown.wait(ctx, "answer to")
					}
				}}
			}, "streaming:\n  enabled: true\n")
			g := s.serve(func(g *Gateway) {
				g.Config.Platforms[telegram.Name] = withTyping(g.Config.Platforms[telegram.Name])
				g.attach(&link{name: telegram.Name, adapter: c, part: g.health.Part("platform.telegram"), log: g.Log, g: g})
			})
			c.say(1, "7", "first")
			s.until("the first message was dealt with", func() bool {
				return c.shown.has("answer to first in several words") || c.shown.has("⚠")
			})
			c.say(2, "8", "second")
			s.until("the next message is answered", func() bool { return c.shown.has("answer to second in several words") })
			c.say(3, "7", "third")
			s.until("the same chat is answered", func() bool { return c.shown.has("answer to third in several words") })
			if status, body := s.ask("and the API?"); status != 200 {
				t.Errorf("%d %s", status, body)
			}
			if n := c.where[method].Load(); n >= 1 {
				t.Errorf("%s was never called, so this test shows nothing", method)
			}
			if g.currentPhase() != phaseRunning {
				t.Error("it runs no more")
			}
		})
	}
}

// A defect in a tool is told to the model as a failure of that call.
func TestACrashInAToolIsTheModelsToHandle(t *testing.T) {
	s := newSetup(t, llm.ToolThenAnswer("explode", "{}", "the tool said: "), "")
	s.serve(func(g *Gateway) {
		for name, t := range map[string]tool.Tool{
			"explode": {Run: func(context.Context, tool.Env, json.RawMessage) (tool.Result, error) { panic("boom") }},
		} {
			t.Name, t.Toolset, t.Description, t.Schema = name, "file", "explodes", json.RawMessage(`{"type":"object"}`)
			if err := g.toolbox.registry.Add(t); err != nil {
				s.t.Fatal(err)
			}
		}
	})
	status, body := s.ask("go")
	if status != 200 || !strings.Contains(body, "the tool said: ") || strings.Contains(body, "goroutine") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := s.ask("again"); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}
