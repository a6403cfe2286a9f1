package conversation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// Command is a slash command. Features bring their own; the built-in ones are
// in commands_*.go.
type Command struct {
	Name    string // without the slash
	Aliases []string
	Usage   string // arguments, for /help
	Help    string
	Hidden  bool // not in menus and /help
	Now     bool // works while a turn runs; others wait for its end
	// Run works out what the command does. Its effects are committed together
	// with its reply, once. An error with a domain code is told to the user.
	Run func(ctx context.Context, c Call) (Reply, error)
}

// Call is one use of a command.
type Call struct {
	In   domain.Inbound
	Args string // what stands behind the name, trimmed
	lane *lane
}

// Reply is what a command answers and changes.
type Reply struct {
	Text    string
	Buttons []domain.Button
	Effects ledger.Effects
	After   func() // called once the effects are committed
}

// say is a reply without effects.
func say(format string, args ...any) (Reply, error) {
	return Reply{Text: fmt.Sprintf(format, args...)}, nil
}

// parse splits "/name@bot args".
func parse(text string) (name, args string) {
	name, args, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(text), "/"), " ")
	if i := strings.IndexByte(name, '\n'); i >= 0 {
		name, args = name[:i], name[i+1:]+" "+args
	}
	name, _, _ = strings.Cut(name, "@")
	return strings.ReplaceAll(strings.ToLower(name), "_", "-"), strings.TrimSpace(args)
}

// runCommands handles the session's received commands in order. Those that
// must not disturb a running turn wait for its end.
func (ln *lane) runCommands(ctx context.Context) error {
	in, err := ln.Store.ReceivedCommands(ctx, ln.key)
	if err != nil {
		return err
	}
	for _, e := range in {
		name, args := parse(e.Text)
		name, args = ln.quick(name, args)
		c, known := ln.commands[name]
		if known && !c.Now && ln.turn != nil {
			continue
		}
		if c.Name == "steer" && args != "" && ln.turn != nil {
			ln.steerLater(ctx, e)
			continue
		}
		if err := ln.runCommand(ctx, c, known, name, Call{In: e, Args: args, lane: ln}); err != nil {
			return err
		}
	}
	return nil
}

// quick resolves an alias of quick_commands.
func (ln *lane) quick(name, args string) (string, string) {
	q, ok := ln.Config.QuickCommands[name]
	if !ok || q.Type != "alias" {
		return name, args
	}
	target, more := parse(q.Target)
	return target, strings.TrimSpace(more + " " + args)
}

// runCommand works one command out and commits what it does.
func (ln *lane) runCommand(ctx context.Context, c Command, known bool, name string, call Call) error {
	var r Reply
	var err error
	switch {
	case !known:
		r.Text = fmt.Sprintf("I do not know /%s. /help lists what there is.", name)
	case c.Run == nil:
		r.Text = fmt.Sprintf("/%s is not available in this version.", name)
	default:
		r, err = ln.tryCommand(ctx, c, call)
	}
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		ln.Log.Warn("a command failed", "component", "conversation", "command", name, "err", err)
		r = Reply{Text: "⚠️ " + domain.MessageOf(err)}
	}
	err = ln.commit(ctx, call.In, r)
	if domain.IsCode(err, domain.NotFound) || domain.IsCode(err, domain.Invalid) {
		err = ln.commit(ctx, call.In, Reply{Text: "⚠️ " + domain.MessageOf(err)})
	}
	if domain.IsCode(err, domain.Conflict) {
		return nil // finished before
	}
	return err
}

// tryCommand contains a panic of a command.
func (ln *lane) tryCommand(ctx context.Context, c Command, call Call) (r Reply, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = domain.E(domain.Internal, fmt.Errorf("panic: %v", p), "/%s crashed; nothing was changed", c.Name)
		}
	}()
	return c.Run(ctx, call)
}

// commit ends the command's event with its effects and its reply.
func (ln *lane) commit(ctx context.Context, in domain.Inbound, r Reply) error {
	e := r.Effects
	e.Key = ln.key
	if r.Text != "" {
		e.Deliveries = append(e.Deliveries, ln.Outbox.Plan(in.Address, "reply", r.Text, delivery.PlanOptions{Buttons: r.Buttons, Commands: ln.spoken()})...)
	}
	if _, err := ln.Store.FinishCommand(ctx, in.ID, ln.Now(), e); err != nil {
		return err
	}
	if len(e.Deliveries) > 0 {
		ln.Outbox.Wake(in.Address)
	}
	if e.Queue != nil && e.Queue.SessionKey != ln.key {
		ln.Wake(e.Queue.SessionKey)
	}
	if r.After != nil {
		r.After()
	}
	return nil
}

// builtins is the table of the commands that conversations have by themselves.
func builtins() []Command {
	return []Command{
		{Name: "help", Aliases: []string{"commands"}, Help: "what I understand", Now: true, Run: cmdHelp},
		{Name: "start", Help: "say hello", Hidden: true, Now: true, Run: cmdStart},
		{Name: "new", Aliases: []string{"reset"}, Help: "begin a new session", Now: true, Run: cmdNew},
		{Name: "stop", Help: "end what runs and drop what waits", Now: true, Run: cmdStop},
		{Name: "status", Help: "this session and the gateway", Now: true, Run: cmdStatus},
		{Name: "approve", Usage: "[once|session|always]", Help: "allow what was asked", Now: true, Run: cmdApprove},
		{Name: "deny", Help: "refuse what was asked", Now: true, Run: cmdDeny},
		{Name: "answer", Usage: "TEXT|NUMBER", Help: "answer a question", Hidden: true, Now: true, Run: cmdAnswer},
		{Name: "queue", Aliases: []string{"q"}, Usage: "TEXT", Help: "do this next, without disturbing what runs", Now: true, Run: cmdQueue},
		{Name: "steer", Usage: "TEXT", Help: "tell the running turn something", Now: true, Run: cmdSteer},
		{Name: "background", Aliases: []string{"bg"}, Usage: "TEXT", Help: "do this beside the conversation", Now: true, Run: cmdBackground},
		{Name: "retry", Help: "answer my last message again", Run: cmdRetry},
		{Name: "undo", Usage: "[N]", Help: "take back the last exchange", Run: cmdUndo},
		{Name: "model", Usage: "[NAME] [--global]", Help: "show or set the model", Run: cmdModel},
		{Name: "usage", Help: "tokens of this session", Now: true, Run: cmdUsage},
		{Name: "title", Usage: "[TEXT]", Help: "show or set the session's title", Run: cmdTitle},
		{Name: "sessions", Help: "earlier sessions of this chat", Now: true, Run: cmdSessions},
		{Name: "resume", Usage: "ID|TITLE", Help: "go back to an earlier session", Run: cmdResume},
		{Name: "compress", Usage: "[WHAT MATTERS]", Help: "shorten the history to a summary", Run: cmdCompress},
		{Name: "sethome", Aliases: []string{"set-home"}, Help: "make this chat the home channel", Now: true, Run: cmdSetHome},
		{Name: "whoami", Help: "who you are to me", Now: true, Run: cmdWhoami},
	}
}

func cmdHelp(_ context.Context, c Call) (Reply, error) {
	var b strings.Builder
	b.WriteString("**What I understand**\n")
	for _, m := range append(builtins(), c.lane.Options.Commands...) {
		if m.Hidden {
			continue
		}
		fmt.Fprintf(&b, "\n`/%s` – %s", strings.TrimSpace(m.Name+" "+m.Usage), m.Help)
	}
	names := make([]string, 0, len(c.lane.Config.QuickCommands))
	for n := range c.lane.Config.QuickCommands {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		fmt.Fprintf(&b, "\n`/%s` – your own", n)
	}
	return say("%s", b.String())
}

func cmdStart(_ context.Context, c Call) (Reply, error) {
	text := "Hello! Write to me as you would to a colleague; /help lists the commands."
	if !c.lane.Config.Model.IsSet() {
		text += "\n\n" + noModel
	}
	return say("%s", text)
}

// noModel is what is said where a model is needed and none is set.
const noModel = "No model is set, so I cannot answer yet. Whoever runs me sets one with `hermes model`."

func cmdWhoami(_ context.Context, c Call) (Reply, error) {
	in := c.In
	return say("You are **%s** (`%s`) on %s, in the %s `%s`. Session key: `%s`.", orDash(in.UserName), orDash(in.UserID), in.Platform, in.ChatType, in.ChatID, c.lane.key)
}

func cmdSetHome(ctx context.Context, c Call) (Reply, error) {
	l := c.lane
	if l.Hooks.SetHome == nil {
		return Reply{}, domain.E(domain.Unavailable, errors.New("no hook"), "the home channel cannot be set here")
	}
	name := c.In.ChatName
	if name == "" {
		name = c.In.UserName
	}
	if err := l.Hooks.SetHome(ctx, c.In.Address, name); err != nil {
		return Reply{}, err
	}
	return say("🏠 This chat is the home channel of %s now: jobs and alerts without another target come here.", c.In.Platform)
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
