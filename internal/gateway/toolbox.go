package gateway

import (
	"context"
	"os"
	"path/filepath"

	"hermes/internal/approval"
	"hermes/internal/domain"
	"hermes/internal/tool"
	"hermes/internal/tool/files"
	"hermes/internal/tool/terminal"
	"hermes/internal/tool/web"
)

// toolbox holds the tools of a profile.
type toolbox struct {
	g         *Gateway
	registry  *tool.Registry
	terminal  *terminal.Terminal
	snapshot  func() string
	closeIdle func()
}

// newToolbox makes the tools. One that cannot be made is told in the log and
// missing; the others are there.
func newToolbox(g *Gateway) *toolbox {
	t := &toolbox{g: g}
	t.registry, _ = tool.NewRegistry()
	approvals := func() approval.Options { return g.approvals() }
	term, tools, err := terminal.New(terminal.Options{
		Home: g.Profile.Home, Env: g.Env.Environ, Hidden: g.Env.FileNames, Secrets: g.Env.Secrets, Redact: g.Redactor.Redact,
		Approval: approvals, Timeout: g.Config.Terminal.Timeout, Log: g.Log.With("component", "tools"),
	})
	if err != nil {
		g.health.Part("tool.terminal").Down("unusable", domain.MessageOf(err))
		g.Log.Error("the agent has no terminal", "component", "tools", "err", err)
	}
	t.terminal = term
	tools = append(tools, files.New(files.Options{UserHome: g.Env.Get("HOME"), Root: g.Profile.Root, Approval: approvals})...)
	pages, closeIdle := web.New(web.Options{AllowPrivate: func() bool { return g.Config.AllowPrivateURLs }, OwnPorts: func() []int { return []int{g.Config.API.Port} }})
	t.closeIdle = closeIdle
	tools = append(tools, pages...)
	tools = append(tools, g.jobs.Tool())
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

// forTurn gives the tools of a turn: the given toolsets, else those that the
// configuration names for its platform, without what its kind must not have.
func (t *toolbox) forTurn(kind domain.TurnKind, p domain.Platform, toolsets []string) []tool.Tool {
	if kind == domain.TurnCron {
		p = domain.PlatformCron
	}
	if toolsets == nil {
		toolsets = t.configured(p)
	}
	return t.registry.Select(toolsets, t.without(kind))
}

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
