package gateway

import (
	"context"
	"fmt"

	"hermes/internal/conversation"
	"hermes/internal/cron"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/model"
	"hermes/internal/model/catalog"
)

// runJob runs the turn of an agent job in a session of its own. The run ends in
// the transaction that ends the turn, with what is to be delivered.
func (g *Gateway) runJob(ctx context.Context, t cron.JobTurn) (cron.JobResult, error) {
	ended := false
	req := &conversation.ChatRequest{
		SessionID: t.SessionID, Kind: domain.TurnCron, System: t.Hint, Input: domain.Message{Role: domain.RoleUser, Content: t.Prompt, At: g.Now()},
		Vars: t.Env, Toolsets: t.Toolsets, Workdir: t.Workdir, RunID: t.Run.ID,
		Source: domain.Source{Address: domain.Address{Platform: domain.PlatformCron, ChatID: string(t.Job)}, ChatType: domain.ChatDM},
		End: func(r conversation.ChatResult, err error) (*ledger.RunEnd, []domain.NewDelivery) {
			end, out := t.End(cron.JobResult{Text: r.Text, Usage: r.Usage, Model: r.Model}, err)
			ended = true
			return &end, out
		},
	}
	if err := g.chooseModel(req, t); err != nil {
		return cron.JobResult{}, err
	}
	t.Touch("starting")
	res, err := g.lanes.Chat(ctx, req, func(e domain.TurnEvent) {
		doing := string(e.Kind)
		if e.Tool != "" {
			doing = fmt.Sprintf("%s: %s", e.Kind, e.Tool)
		}
		t.Touch(doing)
	})
	return cron.JobResult{Text: res.Text, Usage: res.Usage, Model: res.Model, Ended: ended}, err
}

// chooseModel gives a job that names a model, a provider or an address its own,
// with the profile's fallbacks behind it. The files are read anew, so that a key
// that was added since the start counts.
func (g *Gateway) chooseModel(req *conversation.ChatRequest, t cron.JobTurn) error {
	if t.Provider == "" && t.Model == "" && t.BaseURL == "" {
		return nil
	}
	env, _, err := home.LoadEnv(g.Profile, g.Process)
	if err != nil {
		return err
	}
	own, err := home.OwnModel(g.Profile, env, t.Provider, t.Model, t.BaseURL)
	if err != nil {
		return err
	}
	g.Redactor.Add(own.Key.Reveal())
	cfg := *g.Config
	cfg.Model = own
	deps := g.models
	deps.Health = nil // a job's own model says nothing about the profile's
	req.Provider, req.Window = catalog.FromConfig(&cfg, deps), model.ContextLength(own.Model, own.ContextLength)
	return nil
}
