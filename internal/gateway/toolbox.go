package gateway

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"hermes/internal/agent"
	"hermes/internal/cron"
	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/tool"
	"hermes/internal/tool/clarify"
	"hermes/internal/tool/files"
	"hermes/internal/tool/memory"
	"hermes/internal/tool/recall"
	"hermes/internal/tool/terminal"
	"hermes/internal/tool/todo"
	"hermes/internal/tool/web"
)

// toolbox holds the tools of a profile.
type toolbox struct {
	g         *Gateway
	registry  *tool.Registry
	terminal  *terminal.Terminal
	snapshot  func() string
	closeIdle func()

	mu     sync.Mutex
	chosen map[string]*agent.Toolset // selections, which are the same for most turns
}

// newToolbox makes the tools. One that cannot be made is told in the log and
// missing; the others are there.
func newToolbox(g *Gateway) *toolbox {
	t := &toolbox{g: g}
	t.registry, _ = tool.NewRegistry()
	tools := t.makeTerminal()
	pages, closeIdle := web.New(web.Options{AllowPrivate: func() bool { return g.Config.AllowPrivateURLs }, OwnPorts: func() []int { return []int{g.Config.API.Port} }})
	t.closeIdle = closeIdle
	mem, remember := memory.New(memory.Options{Home: g.Profile.Home, Config: func() home.MemoryConfig { return g.Config.Memory }})
	t.snapshot = mem.Snapshot
	tools = append(tools, files.New(g.fileOptions())...)
	tools = append(tools, pages...)
	tools = append(tools, remember, todo.New(g.store), recall.New(g.store, g.Config.Zone), clarify.New(), g.jobs.Tool(), t.sendMessage())
	for _, one := range tools {
		if err := t.registry.Add(one); err != nil {
			g.Log.Error("a tool is missing", "component", "tools", "tool", one.Name, "err", err)
		}
	}
	if err := os.MkdirAll(filepath.Join(g.Profile.CacheDir()), 0o700); err != nil {
		g.Log.Warn("the cache folder cannot be made; files that people send cannot be kept", "component", "tools", "err", err)
	}
	return t
}

// makeTerminal makes the terminal and its tools; without a shell there are none.
func (t *toolbox) makeTerminal() []tool.Tool {
	g := t.g
	term, tools, err := terminal.New(terminal.Options{
		Home: g.Profile.Home, Env: g.Env.Environ, Hidden: g.Env.FileNames, Secrets: g.Env.Secrets, Redact: g.Redactor.Redact,
		Approval: g.approvals, Timeout: g.Config.Terminal.Timeout, OnEnd: g.processEnded, Log: g.Log.With("component", "tools"),
	})
	if err != nil {
		g.health.Part("tool.terminal").Down("unusable", domain.MessageOf(err))
		g.Log.Error("the agent has no terminal", "component", "tools", "err", err)
		return nil
	}
	t.terminal = term
	return tools
}

// processEnded tells a chat that the background command that it started ended.
func (g *Gateway) processEnded(p terminal.Process) {
	if p.Source.ChatID == "" || p.Source.Platform == domain.PlatformAPI || p.Source.Platform == domain.PlatformCron {
		return
	}
	text := fmt.Sprintf("🏁 The background command `%s` (%s) ended with exit code %d.", strings.ReplaceAll(p.Command, "`", "'"), p.ID, p.ExitCode)
	ids, err := g.store.Enqueue(context.Background(), g.outbox.Plan(p.Source.Address, "notice", text, delivery.PlanOptions{}), g.Now())
	if err != nil {
		g.Log.Warn("the end of a background command could not be told", "component", "tools", "process", p.ID, "err", err)
		return
	}
	if len(ids) > 0 {
		g.outbox.Wake(p.Source.Address)
	}
}

// sendMessage is the tool that writes to another chat. Its targets are those of
// jobs.
func (t *toolbox) sendMessage() tool.Tool {
	targets := &cron.Targets{Homes: t.g.homes}
	return t.g.outbox.SendMessage(delivery.SendMessageOptions{
		Outbox: t.g.store,
		Resolve: func(target string, from domain.Source) ([]domain.Address, error) {
			to, problems := targets.Resolve(cron.SplitTargets(target), &cron.Origin{Platform: from.Platform, ChatID: from.ChatID, ThreadID: from.ThreadID})
			if len(problems) > 0 {
				return nil, domain.E(domain.Invalid, nil, "%s", strings.Join(problems, "; "))
			}
			return to, nil
		},
		Refuse: func(env tool.Env, to domain.Address) error {
			if env.Kind == domain.TurnCron {
				return domain.E(domain.Forbidden, nil, "a scheduled run does not send to %s itself: its final answer is delivered to the job's targets; put what you wanted to send into that answer", to)
			}
			return nil
		},
	})
}

// fileOptions say which files tools may touch.
func (g *Gateway) fileOptions() files.Options {
	return files.Options{UserHome: g.Env.Get("HOME"), Root: g.Profile.Root, Approval: g.approvals}
}

// allowFile tells whether an answer may carry a file.
func (g *Gateway) allowFile(path string) error {
	return files.Allow(g.fileOptions(), g.Profile.Home, path)
}

// forTurn gives the tools of a turn: the given toolsets, else those that the
// configuration names for its platform, without what its kind must not have.
func (t *toolbox) forTurn(kind domain.TurnKind, p domain.Platform, toolsets []string) *agent.Toolset {
	if kind == domain.TurnCron {
		p = domain.PlatformCron
	}
	if toolsets == nil {
		toolsets = t.configured(p)
	}
	key := string(kind) + "\x00" + strings.Join(toolsets, "\x00")
	t.mu.Lock()
	defer t.mu.Unlock()
	if got, ok := t.chosen[key]; ok {
		return got
	}
	if t.chosen == nil || len(t.chosen) >= maxChosen {
		t.chosen = map[string]*agent.Toolset{}
	}
	t.chosen[key] = agent.NewToolset(t.registry.Select(toolsets, t.without(kind)))
	return t.chosen[key]
}

// maxChosen bounds the selections that are remembered.
const maxChosen = 64

// configured are the toolsets of a platform. The composite names of the other
// system (hermes-telegram, hermes-cli) stand for everything.
func (t *toolbox) configured(p domain.Platform) []string {
	list := t.g.Config.PlatformToolsets[string(p)]
	if len(list) == 0 {
		list = t.g.Config.Toolsets
	}
	for _, name := range list {
		if name == "all" || name == "hermes-cli" || name == "hermes-"+string(p) {
			return nil
		}
	}
	return list
}

// busy counts the commands of a session that run.
func (t *toolbox) busy(key domain.SessionKey) int {
	if t.terminal == nil {
		return 0
	}
	return t.terminal.Running(key)
}

// memory is the snapshot of MEMORY.md and USER.md for the system prompt.
func (t *toolbox) memory() string {
	if t.snapshot == nil || !t.g.Config.Memory.Enabled {
		return ""
	}
	return t.snapshot()
}

// close ends what runs in the foreground; background commands live on.
func (t *toolbox) close() {
	t.closeIdle()
	if t.terminal == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeDeadline)
	defer cancel()
	if err := t.terminal.Close(ctx); err != nil {
		t.g.Log.Warn("a command would not end", "component", "tools", "err", err)
	}
}
