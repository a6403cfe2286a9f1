package gateway

import (
	"context"
	"slices"
	"strings"
	"time"

	"hermes/internal/conversation"
	"hermes/internal/cron"
	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/home"
)

// buildCron makes the scheduler and the service around its jobs.
func (g *Gateway) buildCron() {
	zone := g.Config.Zone
	targets := &cron.Targets{Homes: g.homes}
	var store cron.Store = g.store
	if g.caution.plan().Jobs {
		store = &carefulJobs{Store: g.store, c: g.caution, runs: map[int64]domain.JobID{}}
	}
	if g.OnlyJob != "" {
		store = onlyJob{g.store, g.OnlyJob}
	}
	g.cron = cron.New(cron.Options{
		Store: store, Home: g.Profile.Home, RootDir: g.Profile.Root, Zone: zone, Config: func() home.CronConfig { return g.Config.Cron },
		Agent: jobAgent{g}, Planner: planner{g}, Targets: targets, Environ: g.scriptEnviron, Redact: g.Redactor.Redact,
		Health: g.health.Part("cron"), Log: g.Log.With("component", "cron"), Committed: g.outbox.WakeAll,
	})
	g.jobs = cron.NewService(cron.ServiceOptions{
		Store: g.store, Home: g.Profile.Home, RootDir: g.Profile.Root, Zone: zone, Targets: targets, Changed: g.cron.Wake,
		Running: func(context.Context) (bool, string) { return true, "this gateway" },
	})
}

// onlyJob is a ledger in which one job has due runs, and nothing fires.
type onlyJob struct {
	cron.Store
	job domain.JobID
}

// DueJobs lists none.
func (onlyJob) DueJobs(context.Context, time.Time, int) ([]domain.Job, error) { return nil, nil }

// NextDue is never.
func (onlyJob) NextDue(context.Context) (time.Time, error) { return time.Time{}, nil }

// DueRuns lists those of the job.
func (o onlyJob) DueRuns(ctx context.Context, limit int) ([]domain.Run, error) {
	all, err := o.Store.DueRuns(ctx, 0)
	runs := slices.DeleteFunc(all, func(r domain.Run) bool { return r.Job != o.job })
	return runs[:min(len(runs), limit)], err
}

// scriptEnviron is the environment of scripts, without the gateway's secrets.
func (g *Gateway) scriptEnviron() []string {
	inFile := map[string]bool{}
	for _, n := range g.Env.FileNames() {
		inFile[n] = true
	}
	return cron.CleanEnviron(g.Env.Environ(), func(key string) bool { return inFile[key] && home.IsSecretName(key) })
}

// jobAgent runs the turns of jobs; planner renders what they say.
type (
	jobAgent struct{ *Gateway }
	planner  struct{ *Gateway }
)

// RunJob runs a turn.
func (a jobAgent) RunJob(ctx context.Context, t cron.JobTurn) (cron.JobResult, error) {
	return a.runJob(ctx, t)
}

// Plan renders a message.
func (p planner) Plan(to domain.Address, kind, markdown string) []domain.NewDelivery {
	return p.outbox.Plan(to, kind, markdown, delivery.PlanOptions{})
}

// commands are the slash commands that features bring to the chats.
func (g *Gateway) commands() []conversation.Command {
	return []conversation.Command{
		{Name: "cron", Usage: "list|create|run …", Help: "scheduled jobs", Now: true, Run: func(ctx context.Context, c conversation.Call) (conversation.Reply, error) {
			text := g.jobs.Command(ctx, c.Args, cron.Origin{Platform: c.In.Platform, ChatID: c.In.ChatID, ChatName: c.In.ChatName, ThreadID: c.In.ThreadID})
			return conversation.Reply{Text: text}, nil
		}},
		{Name: "restart", Help: "restart the gateway, after what runs", Run: g.restartCommand},
		{Name: "update", Usage: "[rollback]", Help: "bring the newest version, after what runs", Run: g.updateCommand},
	}
}

// without are the toolsets that a kind of turn never gets.
func (t *toolbox) without(kind domain.TurnKind) []string {
	if kind == domain.TurnCron {
		return cron.DisabledToolsets()
	}
	return nil
}

// homeKeys are the variables that name a platform's home channel.
func homeKeys(to domain.Address, name string) map[string]*string {
	value := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	prefix := homePrefix(to.Platform)
	return map[string]*string{prefix: value(to.ChatID), prefix + "_NAME": value(name), prefix + "_THREAD_ID": value(to.ThreadID)}
}

// homePrefix begins those variables; see the table of platforms.
func homePrefix(p domain.Platform) string {
	switch p {
	case "matrix":
		return "MATRIX_HOME_ROOM"
	case "email":
		return "EMAIL_HOME_ADDRESS"
	}
	return strings.ToUpper(string(p)) + "_HOME_CHANNEL"
}
