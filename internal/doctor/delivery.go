package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"hermes/internal/domain"
)

// deliveryChecks are about messages that did not arrive.
func deliveryChecks() []check { return []check{checkDead, checkOrphans, checkWaiting, checkOutbox} }

// waitsLong is how long a message may wait before that is a fault.
const waitsLong = 10 * time.Minute

// checkDead tells of messages that were given up and that nobody has seen.
func checkDead(c *Case) []Finding {
	dead := c.Ledger.Dead
	if len(dead) == 0 {
		return nil
	}
	d := dead[0]
	f := Finding{ID: "delivery.dead", Class: Delivery, Severity: Error, depth: ofWork, about: string(d.To.Platform),
		What:     fmt.Sprintf("%d messages could not be delivered", len(dead)),
		Evidence: []string{fmt.Sprintf("delivery %d to %s was given up after %d attempts: %s", d.ID, d.To, d.Attempt, d.Reason)},
		Means:    "What they said has reached nobody.", Fix: c.hermes("deliveries ack")}
	if len(dead) == 1 {
		f.What = "a message could not be delivered"
	}
	reason := strings.ToLower(d.Reason)
	gone := slices.ContainsFunc([]string{"no such", "not found", "blocked", "kicked", "unknown channel", "never been"}, func(s string) bool { return strings.Contains(reason, s) })
	if gone && c.homeOf(d.To.Platform).ChatID == d.To.ChatID {
		f.ID, f.What = "delivery.home_gone", fmt.Sprintf("the home channel of %s takes no messages", d.To.Platform)
		f.Means = "Reports of jobs and notices of the gateway reach nobody."
		f.Fix = c.then(c.hermes(fmt.Sprintf("config set %s_HOME_CHANNEL <chat id>", strings.ToUpper(string(d.To.Platform))))) + " && " + c.hermes("deliveries ack")
	}
	return []Finding{f}
}

// homeOf is the home channel of a platform.
func (c *Case) homeOf(p domain.Platform) domain.Address {
	if c.Config == nil {
		return domain.Address{}
	}
	return c.Config.Platforms[p].Home
}

// checkWaiting tells of messages that have waited long.
func checkWaiting(c *Case) []Finding {
	var old []domain.Delivery
	for _, d := range c.Ledger.Waiting {
		if c.Now().Sub(d.CreatedAt) > waitsLong {
			old = append(old, d)
		}
	}
	if len(old) == 0 {
		return nil
	}
	d := old[len(old)-1]
	f := Finding{ID: "delivery.waiting", Class: Delivery, Severity: Warning, depth: ofWork, about: string(d.To.Platform), explains: []string{"delivery.held_up"},
		What:     fmt.Sprintf("%d messages have waited for over %s", len(old), waitsLong),
		Evidence: []string{fmt.Sprintf("delivery %d to %s waits since %s: %s", d.ID, d.To, d.CreatedAt.Local().Format(time.DateTime), orNone(d.Reason))},
		Means:    "They are tried again for a day, and then given up.", Fix: c.hermes(fmt.Sprintf("deliveries retry %d", d.ID))}
	return []Finding{f}
}

// maxDropped bounds the messages that one command drops.
const maxDropped = 20

// checkOrphans tells of messages for platforms that are not switched on.
func checkOrphans(c *Case) []Finding {
	var orphans []domain.Delivery
	for _, d := range c.Ledger.Waiting {
		if cfg, known := c.Config.Platforms[d.To.Platform]; !known || !cfg.Enabled {
			orphans = append(orphans, d)
		}
	}
	if len(orphans) == 0 {
		return nil
	}
	d := orphans[len(orphans)-1]
	var drops []string
	for _, o := range orphans[:min(len(orphans), maxDropped)] {
		drops = append(drops, c.hermes(fmt.Sprintf("deliveries drop %d", o.ID)))
	}
	return []Finding{{ID: "delivery.not_connected", Class: Delivery, Severity: Warning, depth: ofWork, about: string(d.To.Platform), explains: []string{"delivery.held_up", "delivery.waiting"},
		What:     fmt.Sprintf("%d messages wait for %s, which is not switched on", len(orphans), d.To.Platform),
		Evidence: []string{fmt.Sprintf("delivery %d to %s waits since %s", d.ID, d.To, d.CreatedAt.Local().Format(time.DateTime))},
		Means:    "They are given up after a day, unless that platform is switched on again.", Fix: strings.Join(drops, " && ")}}
}

// checkOutbox tells what the running dispatcher says of itself, where it is not
// about one platform only.
func checkOutbox(c *Case) []Finding {
	p := c.part("delivery")
	if !p.bad() {
		return nil
	}
	f := Finding{ID: "delivery.held_up", Class: Delivery, Severity: Warning, depth: ofWork, What: "messages wait to be sent",
		Evidence: []string{"status: " + p.Message}, Means: "They go out by themselves once the cause is gone.", Fix: c.hermes("deliveries --open")}
	return []Finding{f}
}
