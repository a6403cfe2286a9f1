package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"hermes/internal/control"
	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/gateway"
	"hermes/internal/home"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/secret"
	"hermes/internal/service"
	"hermes/internal/starts"
	"hermes/internal/succession"
	"hermes/internal/versions"
)

// Case is what is known of an installation. It is filled in by gather and only
// read afterwards.
type Case struct {
	Options
	Root       string
	Profile    home.Profile
	ProfileErr error // the profile does not exist; most facts are missing then

	Home       homeFacts
	Env        *home.Env
	Config     *home.Config // nil when it cannot be read
	ConfigErr  error
	Problems   home.Problems // of config.yaml and .env
	Neighbours []neighbour   // the other profiles of the root
	Auth       []authFile

	Gateway gatewayFacts
	Starts  startFacts
	Program programFacts
	Older   []olderGateway
	Units   unitFacts
	Ledger  ledgerFacts
	API     apiFacts
	Probes  map[domain.Platform]probe
	Models  []modelProbe
	Speech  speechProbe

	Unknown []string // what was not learnt, and why

	redactor *secret.Redactor
}

// neighbour is another profile of the same root.
type neighbour struct {
	home.Profile
	Env    *home.Env
	Config *home.Config // nil when it cannot be read
}

// gatewayFacts are about the process that serves the profile.
type gatewayFacts struct {
	Status  *control.Status // nil when none answers
	Silent  error           // a process holds the profile, and this is how its control socket fails
	Holder  succession.Record
	Held    bool
	Unclean bool // the last one left its PID file
	Exit    gateway.ExitRecord
	Exited  bool // Exit is known
	Command string
	Tail    []string // the last lines of gateway.error.log, without their time
}

// startFacts are what is written down of the gateway's starts.
type startFacts struct {
	starts.Record
	Pin    versions.Pin
	Pinned bool
	PinErr error // the program that the profile is pinned to cannot be run
}

// word is the state in one word.
func (g gatewayFacts) word() string {
	switch {
	case g.Status != nil:
		return g.Status.State
	case g.Held:
		return "silent"
	}
	return "stopped"
}

// probe is how a platform or a provider answered.
type probe struct {
	Asked bool
	Err   error // nil when it took the credentials
}

// ledgerFacts are what the durable store says.
type ledgerFacts struct {
	sqlite.Inspection
	Err     error // it cannot be opened
	Dead    []domain.Delivery
	Waiting []domain.Delivery
	Cron    *cron.Status
	Jobs    []cron.View
}

// fact is one question. ask runs beside others and must not write to the case;
// what it gives is called when the answer came in time.
type fact struct {
	name  string
	limit time.Duration
	ask   func(ctx context.Context, c *Case) func(*Case)
}

// gather learns the facts in three steps: the files, on which everything else
// depends; what this machine says; and what others say over the network, where
// that is needed.
func gather(ctx context.Context, o Options) *Case {
	c := &Case{Options: o, Probes: map[domain.Platform]probe{}, redactor: secret.NewRedactor()}
	c.Root, _, _ = home.Locate(o.Request)
	c.Profile, c.ProfileErr = home.Resolve(o.Request)
	if c.ProfileErr != nil {
		c.Profile = home.Profile{Name: o.Request.Flag, Root: c.Root, Home: filepath.Join(c.Root, "profiles", o.Request.Flag)}
		if !o.Request.FlagSet {
			c.Profile.Name = home.Active(c.Root)
		}
		return c
	}
	c.learn(ctx, []fact{{"the files of the profile", 3 * time.Second, askFiles}})
	c.learn(ctx, []fact{
		{"the running gateway", 3 * time.Second, askGateway},
		{"the units of systemd", 4 * time.Second, askUnits},
		{"the ledger", 4 * time.Second, askLedger},
		{"the other profiles", 2 * time.Second, askNeighbours},
	})
	asks := []fact{{"the programs", 3 * time.Second, askPrograms}}
	if c.Config != nil {
		asks = append(asks, fact{"the API", 2 * time.Second, askAPI})
	}
	if c.Config != nil && !o.Local {
		asks = append(asks, fact{"the model's provider", probeLimit, askModels}, fact{"the transcription service", probeLimit, askSpeech})
		for p, cfg := range c.Config.Platforms {
			if cfg.Enabled && c.wantsProbe(p) {
				asks = append(asks, fact{string(p), probeLimit, askPlatform(p, cfg)})
			}
		}
	}
	c.learn(ctx, asks)
	return c
}

// probeLimit bounds what is asked over the network.
const probeLimit = 3 * time.Second

// grace is what an answer may be later than its limit.
const grace = 300 * time.Millisecond

// learn asks several questions at once. One that is not answered within its
// limit stays unknown, is named, and may end whenever it does.
func (c *Case) learn(ctx context.Context, facts []fact) {
	answers := make([]chan func(*Case), len(facts))
	var asked sync.WaitGroup
	snapshot := *c
	for i, f := range facts {
		answers[i] = make(chan func(*Case), 1)
		asked.Add(1)
		go func() {
			ctx, cancel := context.WithTimeout(ctx, f.limit)
			defer cancel()
			asked.Done()
			answers[i] <- f.contained(ctx, &snapshot)
		}()
	}
	asked.Wait()
	began := time.Now()
	for i, f := range facts {
		// A little over the question's own limit, so that one which notices its
		// deadline can still say what it has.
		end := began.Add(f.limit)
		if whole, ok := ctx.Deadline(); ok && whole.Before(end) {
			end = whole
		}
		late := time.NewTimer(time.Until(end.Add(grace)))
		var learnt func(*Case)
		select {
		case learnt = <-answers[i]:
		case <-late.C:
			select {
			case learnt = <-answers[i]: // it came while an earlier one was waited for
			default:
				learnt = func(c *Case) {
					c.Unknown = append(c.Unknown, fmt.Sprintf("%s did not answer within %s", f.name, end.Sub(began).Round(100*time.Millisecond)))
				}
			}
		}
		late.Stop()
		learnt(c)
	}
}

// contained asks, and makes of a panic a fact that is not known: a doctor that
// falls ill is no help.
func (f fact) contained(ctx context.Context, c *Case) (learnt func(*Case)) {
	defer func() {
		if p := recover(); p != nil {
			learnt = func(c *Case) {
				c.Unknown = append(c.Unknown, fmt.Sprintf("%s could not be examined, which is a defect of this program: %v", f.name, p))
			}
		}
	}()
	return f.ask(ctx, c)
}

// redact takes the secrets of every profile that was read out of a text.
func (c *Case) redact(text string) string { return c.redactor.Redact(text) }

// flag names the profile on a command line.
func (c *Case) flag() string {
	if c.Profile.Name == home.DefaultProfile {
		return ""
	}
	return " -p " + c.Profile.Name
}

// hermes is a command of ours for the profile.
func (c *Case) hermes(args string) string { return "hermes" + c.flag() + " " + args }

// serve is the command after which the profile is served with what is on disk:
// a restart of what runs, a start of what is installed, else the foreground.
func (c *Case) serve() string {
	switch {
	case c.Gateway.Status != nil:
		return c.hermes("gateway restart")
	case c.Units.managed() && (c.Units.gatewayLive() != nil || c.Units.gatewayFile() != nil):
		return c.hermes("gateway start")
	case c.Units.managed() && c.cronOnly() && c.Units.cronFile() != nil:
		return systemctl(c.Units.cronFile().System, "restart "+c.Units.cronFile().Name)
	case c.cronOnly():
		return c.hermes("cron run")
	}
	return c.hermes("gateway run")
}

// then is a command that changes something on disk and brings it in force.
func (c *Case) then(command string) string { return command + " && " + c.serve() }

// env gives a variable of the process's environment.
func (c *Case) env(name string) string {
	v, _ := c.Request.Env(name)
	return v
}

// running tells whether the gateway answers and gives the named part's health.
func (c *Case) part(name string) (p partFacts) {
	if c.Gateway.Status == nil {
		return p
	}
	i := slices.IndexFunc(c.Gateway.Status.Parts, func(h partHealth) bool { return h.Name == name })
	if i < 0 {
		return p
	}
	return partFacts{true, c.Gateway.Status.Parts[i]}
}

// host is the machine as this user sees it.
func (c *Case) host() service.Host {
	return service.NewHost(service.Me(c.Request.UserHome), c.env)
}

// config is the configuration in force.
func (c *Case) config() *home.Config { return c.Config }
