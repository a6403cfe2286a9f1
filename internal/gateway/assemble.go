package gateway

import (
	"context"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"hermes/internal/agent"
	"hermes/internal/api"
	"hermes/internal/approval"
	"hermes/internal/control"
	"hermes/internal/conversation"
	"hermes/internal/cron"
	"hermes/internal/dashboard"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/model"
	"hermes/internal/model/catalog"
	"hermes/internal/model/openai"
	"hermes/internal/model/transcribe"
	"hermes/internal/platform"
	"hermes/internal/platform/webchat"
	"hermes/internal/succession"
)

// buildAgent makes the tools, the model and the agent.
func (g *Gateway) buildAgent() {
	g.toolbox = newToolbox(g)
	g.models = catalog.Deps{Transport: openai.NewTransport(), Health: g.health.Part("model"), Log: g.Log.With("component", "model"), Now: g.Now, Secrets: g.Redactor.Add}
	g.agent = agent.New(catalog.FromConfig(g.Config, g.models), g.Log, g.Now)
}

// buildLanes makes the lanes; jobs and their chat command are there already.
func (g *Gateway) buildLanes() {
	g.lanes = conversation.New(conversation.Options{
		Store: g.store, Agent: g.agent, Tools: g.toolbox.forTurn, Outbox: g.outbox, Gate: g.gate, Profile: g.Profile, Config: g.Config,
		Health: g.health, Log: g.Log, Now: g.Now, Commands: g.commands(),
		Hooks: conversation.Hooks{
			SetHome: g.homes.set, SetModel: g.setModel, Memory: g.toolbox.memory, BusyProcesses: g.toolbox.busy, Status: g.statusLine,
			Elsewhere: g.elsewhere, Left: g.pokeSuccessor, Redact: g.Redactor.Redact,
			Transcribe: g.transcriber(),
		},
	})
}

// transcriber turns voice messages into text, where a service is set up for it;
// nil where none is. The part "speech" tells how the last one went.
func (g *Gateway) transcriber() func(ctx context.Context, path string) (string, error) {
	s := g.Config.STT
	if !s.IsSet() {
		return nil
	}
	part := g.health.Part("speech")
	client := transcribe.New(transcribe.Config{BaseURL: s.BaseURL, Key: s.Key, Model: s.Model, Language: s.Language}, g.models.Transport)
	return func(ctx context.Context, path string) (string, error) {
		text, err := client.Transcribe(ctx, path)
		switch {
		case err == nil:
			part.OK()
		case ctx.Err() == nil && !domain.IsCode(err, domain.TooLarge): // which say nothing of the service
			part.Degraded("transcription", "voice messages come without their words: "+domain.MessageOf(err))
		}
		return text, err
	}
}

// setModel writes the model into config.yaml, for /model --global.
func (g *Gateway) setModel(_ context.Context, name string) error {
	_, err := home.Set(g.Profile, g.Env, "model.default", name, home.By{Command: "/model", Version: g.Version})
	return err
}

// buildAPI makes the API server with the pages, where it is switched on. The
// web chat is a platform like any other, whose network is the API server.
func (g *Gateway) buildAPI(socket *succession.Socket) {
	part := g.health.Part("api")
	if !g.Config.API.Enabled {
		part.Disabled("API_SERVER_ENABLED is not set")
		return
	}
	log := g.Log.With("component", "api")
	wpart := g.health.Part("platform.webchat")
	chat := webchat.New(webchat.Options{Log: g.store, Logger: log, Health: wpart, Now: g.Now, Commands: g.lanes.Menu()})
	g.attach(&link{name: chat.Name(), adapter: chat, part: wpart, log: log, g: g})
	var mounts []api.Mount
	for _, r := range chat.Routes() {
		mounts = append(mounts, api.Mount{Pattern: r.Pattern, Handler: r.Handler, UntilDrain: r.Endless})
	}
	mounts = append(mounts, api.Mount{Pattern: "POST " + platform.CallbackPath + "{platform}", Handler: http.HandlerFunc(g.callback), Open: true})
	pages := dashboard.Handler()
	for _, p := range dashboard.Patterns() {
		mounts = append(mounts, api.Mount{Pattern: p, Handler: pages, Open: true})
	}
	o := api.Options{
		Config: g.Config.API, Profile: g.Profile.Name, Gateway: (*face)(g), Jobs: g.jobs, Log: log, Health: part, Now: g.Now, Mounts: mounts,
		MaxConcurrent: maxAPITurns,
	}
	if socket != nil {
		o.Listener = socket.Listener
	}
	g.api = api.New(o)
}

// callback passes a call of a platform's own server on to its adapter.
func (g *Gateway) callback(w http.ResponseWriter, r *http.Request) {
	name := domain.Platform(r.PathValue("platform"))
	for _, l := range g.links {
		if c, ok := l.adapter.(platform.Caller); ok && l.name == name && c.CallbackURL() != "" {
			c.Callback(w, r)
			return
		}
	}
	http.Error(w, "no platform of this gateway takes calls under that name", http.StatusNotFound)
}

// maxAPITurns bounds the API's turns where the configuration does not.
const maxAPITurns = 10_000

// face is the gateway as the API sees it.
type face Gateway

// ModelName is the configured model's id.
func (f *face) ModelName() string { return f.Config.Model.Model }

// Status is the truth for pages and /health/detailed.
func (f *face) Status(ctx context.Context) (api.Status, error) {
	g := (*Gateway)(f)
	s := apiStatus(g.Status(ctx))
	if st, err := g.jobs.Status(ctx); err == nil {
		all, err := g.store.CountJobs(ctx, ledger.JobFilter{})
		if err != nil {
			all = st.Active
		}
		s.Cron = &api.CronStatus{Jobs: all, Enabled: st.Active, NextAt: st.Next, NextJob: st.NextName, Failing: st.Failing}
	}
	return s, nil
}

// Chat runs a turn for a client of the API.
func (f *face) Chat(ctx context.Context, r *api.ChatRequest, onEvent func(domain.TurnEvent)) (*api.ChatResult, error) {
	res, err := f.lanes.Chat(ctx, f.request(r), onEvent)
	return f.result(res), err
}

// result words the lanes' result for the API.
func (f *face) result(r *conversation.ChatResult) *api.ChatResult {
	finish := api.FinishStop
	if r.Finish == model.FinishLength {
		finish = api.FinishLength
	}
	return &api.ChatResult{Text: r.Text, Finish: finish, Usage: r.Usage, SessionID: string(r.SessionID), TurnID: r.TurnID, Model: r.Model, Partial: !r.Completed}
}

// request words an API request for the lanes. Clients send all sorts of model
// names; the agent is the one model here, and only names of the configuration
// select another.
func (f *face) request(r *api.ChatRequest) *conversation.ChatRequest {
	name := r.Model
	if !f.knownModel(name) {
		name = ""
	}
	return &conversation.ChatRequest{
		SessionID: domain.SessionID(r.SessionID), Stored: r.Stored, Kind: domain.TurnAPI, System: r.System, History: r.History, Input: r.Input, Model: name,
		Source: domain.Source{Address: domain.Address{Platform: domain.PlatformAPI, ChatID: r.SessionID}, ChatType: domain.ChatDM, UserID: r.SessionKey},
	}
}

// knownModel tells whether a name selects a model of the configuration.
func (f *face) knownModel(name string) bool {
	for _, m := range f.Config.Fallbacks {
		if m.Model == name {
			return true
		}
	}
	return false
}

// homes knows the home channels, and changes them for /sethome.
type homes struct {
	cron.ConfigHomes
	profile home.Profile
	process []string // the environment that the process was started with
	version string
	current atomic.Pointer[home.Config]
}

func newHomes(p home.Profile, cfg *home.Config, process []string, version string) *homes {
	h := &homes{profile: p, process: process, version: version}
	h.current.Store(cfg)
	h.Config = h.current.Load
	return h
}

// set makes an address the home channel of its platform: in .env, where tools
// for the other system look too, and at once here.
func (h *homes) set(_ context.Context, to domain.Address, name string) error {
	if err := home.EditEnv(h.profile, homeKeys(to, name), home.By{Command: "/sethome", Version: h.version}); err != nil {
		return err
	}
	env, _, err := home.LoadEnv(h.profile, h.process)
	if err != nil {
		return err
	}
	cfg, _, err := home.Load(h.profile, env)
	if err != nil {
		return err
	}
	h.current.Store(cfg)
	return nil
}

// approvals is the configuration of the command analysis.
func (g *Gateway) approvals() approval.Options { return approvals(g.Profile, g.Config, g.Env) }

func approvals(p home.Profile, cfg *home.Config, env *home.Env) approval.Options {
	return approval.Options{
		Mode: approval.Mode(cfg.Approvals.Mode), CronMode: cfg.Approvals.CronMode, Allowlist: cfg.Approvals.Allowlist,
		Home: p.Home, Root: p.Root, UserHome: env.Get("HOME"), GatewayPID: os.Getpid(),
	}
}

// startControl binds the control socket, or takes its place from the process
// that hands over.
func (g *Gateway) startControl() (err error) {
	path := g.controlPath()
	inherited, isUnix := (*net.UnixListener)(nil), false
	if g.socket != nil {
		inherited, isUnix = g.socket.Listener.(*net.UnixListener)
	}
	switch {
	case isUnix:
		g.control = control.Resume(inherited, path, g)
	case g.predecessor() != nil:
		g.control, err = control.TakePlace(path, g)
	default:
		g.findElders(path)
		g.control, err = control.Listen(path, g)
	}
	if err != nil {
		return err
	}
	g.control.Start()
	g.health.Part("control").OK()
	return nil
}

// hostEvery is how often it is looked whether the machine changed under the
// gateway.
const hostEvery = 10 * time.Second

// watchHost follows what changes on the machine and tells nobody.
func (g *Gateway) watchHost(ctx context.Context) {
	for ctx.Err() == nil {
		if g.control != nil { // a scheduler alone has none
			g.keepControl()
		}
		if host := g.Config.Host; host != nil && host.Refresh() {
			g.Log.Info("the host's time zone was changed; jobs without one of their own follow it", "component", "cron", "zone", host.Zone().String())
			g.cron.Realign(ctx)
		}
		sleep(ctx, hostEvery)
	}
}

// keepControl makes the control socket anew where somebody swept it away, as
// cleaners of passing files do, and logind at the last logout.
func (g *Gateway) keepControl() {
	part := g.health.Part("control")
	switch restored, err := g.control.Restore(g.controlPath()); {
	case err != nil:
		part.Degraded(string(domain.CodeOf(err)), domain.MessageOf(err))
	case restored:
		g.Log.Warn("the control socket was swept away and was made anew", "component", "gateway", "path", g.controlPath())
		part.OK()
	}
}

func (g *Gateway) controlPath() string { return control.SocketPath(g.Profile, g.Env.Get) }
