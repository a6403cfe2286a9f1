package faults

import (
	"context"
	"fmt"
	"strings"
	"time"

	"hermes/internal/doctor"
	"hermes/internal/domain"
	"hermes/internal/ledger/sqlite"
	upset "hermes/testkit/fault"
)

// deliveryFaults let work be done of which nobody hears.
func deliveryFaults() []fault {
	return []fault{
		{what: "a job reports to Telegram, which has no home channel", id: "delivery.no_home", class: doctor.Delivery,
			inject: func(w *world) {
				w.job("watch", "every 1h", "--deliver", "telegram")
				chat := w.takeHome()
				w.fill["chat id"] = chat
			}},
		{what: "a job reports to a platform that was taken away", id: "delivery.no_target", class: doctor.Delivery, shape: shape{discord: true},
			inject: func(w *world) {
				w.job("watch", "every 1h", "--deliver", "discord:123456789012345678")
				w.stop()
				w.edit(".env", "DISCORD_BOT_TOKEN="+w.dc.Token()+"\n", "")
				w.start()
				w.fill["target"] = "telegram"
			}},
		{what: "a message went to a chat that does not exist", id: "delivery.dead", class: doctor.Delivery,
			inject: func(w *world) {
				_, _ = w.home.Run(w.deadline(), w.args("send", "-t", "telegram:999999999", "hello")...) // it is meant to fail
				w.dead()
			}},
		{what: "the home channel does not exist any more", id: "delivery.home_gone", class: doctor.Delivery,
			inject: func(w *world) {
				chat := w.takeHome()
				w.add(".env", "TELEGRAM_HOME_CHANNEL=999999999\n")
				w.restart()
				_, _ = w.home.Run(w.deadline(), w.args("send", "-t", "telegram", "hello")...) // it is meant to fail
				w.dead()
				w.fill["chat id"] = chat
			}},
		{what: "Telegram takes no message, and one waits", id: "delivery.held_up", class: doctor.Delivery,
			inject: func(w *world) { w.refuseSends(time.Now()) },
			hand:   func(w *world) { w.release() }},
		{what: "a message has waited for twenty minutes", id: "delivery.waiting", class: doctor.Delivery,
			inject: func(w *world) { w.refuseSends(time.Now().Add(-20 * time.Minute)) },
			later:  func(w *world) { w.release() }},
		{what: "messages wait for a platform that was taken away", id: "delivery.not_connected", class: doctor.Delivery,
			inject: func(w *world) {
				w.store(func(ctx context.Context, s *sqlite.Store) error {
					d := domain.NewDelivery{To: domain.Address{Platform: "discord", ChatID: "123456789012345678"}, Part: domain.Part{Text: "hello", Plain: "hello"}}
					_, err := s.Enqueue(ctx, []domain.NewDelivery{d}, time.Now())
					return err
				})
			}},
	}
}

// refuseSends lets Telegram refuse every message, with one in the outbox since
// the given time.
func (w *world) refuseSends(since time.Time) {
	w.t.Helper()
	f := upset.BadGateway()
	f.Times = -1
	w.release = w.tg.Fail("sendMessage", f)
	w.store(func(ctx context.Context, s *sqlite.Store) error {
		d := domain.NewDelivery{To: domain.Address{Platform: "telegram", ChatID: fmt.Sprint(w.homeChat())}, Part: domain.Part{Text: "hello", Plain: "hello"}}
		_, err := s.Enqueue(ctx, []domain.NewDelivery{d}, since)
		return err
	})
	_, _ = w.home.Run(w.deadline(), w.args("send", "-t", "telegram", "--timeout", "1s", "hello")...)
}

// takeHome takes the home channel out of .env, restarts, and gives its id.
func (w *world) takeHome() string {
	w.t.Helper()
	for line := range strings.Lines(w.read(".env")) {
		if id, ok := strings.CutPrefix(line, "TELEGRAM_HOME_CHANNEL="); ok {
			w.edit(".env", line, "")
			w.restart()
			return strings.TrimSpace(id)
		}
	}
	w.t.Fatal("there is no home channel")
	return ""
}

// dead waits until a message was given up.
func (w *world) dead() {
	w.t.Helper()
	w.until("a message to be given up", func() bool { return w.status().Ledger.Delivery["dead"] > 0 })
}
