package cron

import (
	"hermes/internal/delivery"
	"hermes/internal/domain"
)

// DispatcherPlanner renders with the dispatcher's knowledge of platforms. The
// dispatcher need not be started.
type DispatcherPlanner struct{ Dispatcher *delivery.Dispatcher }

// Plan renders Markdown for an address.
func (p DispatcherPlanner) Plan(to domain.Address, kind, markdown string) []domain.NewDelivery {
	return p.Dispatcher.Plan(to, kind, markdown, delivery.PlanOptions{})
}
