package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"hermes/internal/approval"
	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/platform"
	"hermes/internal/tool/files"
)

// SenderOptions is what a sender is made of. Every field is needed.
type SenderOptions struct {
	Profile home.Profile
	Config  *home.Config
	Env     *home.Env
	Store   delivery.Store
	Log     *slog.Logger
	Now     func() time.Time
}

// Sender takes messages to their platforms while no gateway runs: the sending
// half of one, for a command that sends and ends. It may be at work beside a
// gateway that starts meanwhile; the ledger lets each message be sent once.
type Sender struct {
	*delivery.Dispatcher
	o      SenderOptions
	only   *onlyTo
	row    []platform.Adapter
	health *health.Registry
}

// NewSender makes a sender that can plan messages. It sends nothing before Send.
func NewSender(o SenderOptions) *Sender {
	only, registry := &onlyTo{Store: o.Store}, health.New(o.Now)
	return &Sender{o: o, only: only, health: registry, Dispatcher: delivery.New(delivery.Options{
		Store: only, Now: o.Now, Log: o.Log, Health: registry, OnUnknown: o.Config.Delivery.OnUnknown, MaxAge: o.Config.Delivery.MaxAge,
		MaxAttempts: o.Config.Delivery.MaxAttempts, Capabilities: capabilities,
		AllowFile: func(path string) error {
			return files.Allow(files.Options{UserHome: o.Env.Get("HOME"), Root: o.Profile.Root, Approval: func() approval.Options {
				return approvals(o.Profile, o.Config, o.Env)
			}}, o.Profile.Home, path)
		},
	})}
}

// Connect attaches the platforms of the given addresses, without listening to
// them, and limits the sender to these addresses: what else waits in the outbox
// is the gateway's. domain.Unavailable, with what to do, when a platform is not
// set up or only a gateway can reach it. It is called once, before Start.
func (s *Sender) Connect(to ...domain.Address) error {
	var row []platform.Adapter
	for i, a := range to {
		if slices.ContainsFunc(to[:i], func(b domain.Address) bool { return b.Platform == a.Platform }) {
			continue
		}
		k, known := kinds[a.Platform]
		if !known {
			return domain.E(domain.Unavailable, nil, "%s can only be reached by a running gateway; start it with `hermes gateway run`", a.Platform)
		}
		adapter, err := k.build(s.o.Config.Platforms[a.Platform], adapterDeps{log: s.o.Log, now: s.o.Now, profile: s.o.Profile})
		if err != nil {
			return domain.E(domain.Unavailable, nil, "%s", domain.MessageOf(err))
		}
		row = append(row, adapter)
	}
	s.only.to, s.row = slices.Clone(to), row
	for _, a := range row {
		s.Attach(a)
	}
	return nil
}

// Refused tells whether a platform refuses the credentials, so that waiting is
// of no use.
func (s *Sender) Refused() bool {
	for _, p := range s.health.Parts() {
		if p.Name == "delivery" && p.Code == "credentials" {
			return true
		}
	}
	return false
}

// onlyTo is an outbox that shows some addresses only.
type onlyTo struct {
	delivery.Store
	to []domain.Address
}

// DueAddresses lists those of the chosen addresses that have something to send.
func (o *onlyTo) DueAddresses(ctx context.Context) ([]ledger.DueAddress, error) {
	all, err := o.Store.DueAddresses(ctx)
	return slices.DeleteFunc(all, func(d ledger.DueAddress) bool { return !slices.Contains(o.to, d.To) }), err
}

// Direct sends a text past the outbox, for when there is no ledger to be had,
// and gives the receipt of its last part. What goes wrong is not tried again.
// Connect comes first. Errors: Unavailable, with the platform's own words.
func (s *Sender) Direct(ctx context.Context, to domain.Address, text string) (receipt string, err error) {
	i := slices.IndexFunc(s.row, func(a platform.Adapter) bool { return a.Name() == to.Platform })
	if i < 0 {
		return "", domain.E(domain.Unavailable, nil, "%s is not connected", to.Platform)
	}
	for n, d := range s.Plan(to, "alert", text, delivery.PlanOptions{}) {
		if receipt, err = s.row[i].Send(ctx, to, d.Part, fmt.Sprintf("direct-%d-%d", s.o.Now().UnixNano(), n)); err != nil {
			return "", domain.E(domain.Unavailable, err, "%s did not take the message: %s", to.Platform, domain.MessageOf(err))
		}
	}
	return receipt, nil
}
