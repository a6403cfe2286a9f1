package gateway

import (
	"context"
	"fmt"
	"strings"
	"time"

	"hermes/internal/ledger"
)

// salvageShown is how long status tells of a ledger that was damaged.
const salvageShown = 24 * time.Hour

// salvageText says what became of a damaged ledger.
func salvageText(s *ledger.Salvage) string {
	lost := "Every table could be read to its end."
	if len(s.Lost) > 0 {
		lost = "Not every row could be read of: " + strings.Join(s.Lost, ", ") + ". What stood there is lost, unless a copy has it."
	}
	return fmt.Sprintf("The ledger was damaged. On %s, %d rows were read of it into a new one, and the damaged file was kept as %s. %s",
		s.At.Format("2006-01-02 15:04 MST"), s.Rows, s.Kept, lost)
}

// salvageProblem is what status shows of a salvage, "" for none of late.
func salvageProblem(s *ledger.Salvage, now time.Time) string {
	if s == nil || now.Sub(s.At) > salvageShown {
		return ""
	}
	return "ledger: " + salvageText(s)
}

// tellSalvage tells the home channels, once, of a ledger that was damaged.
func (g *Gateway) tellSalvage(ctx context.Context) {
	s, err := g.store.Salvaged(ctx)
	if err != nil || s == nil || s.Told {
		return
	}
	if err := g.store.SalvageTold(ctx); err != nil {
		g.Log.Warn("the home channels are told of the damaged ledger later", "component", "gateway", "err", err)
		return // not twice
	}
	for _, p := range g.homes.Platforms() {
		if to, ok := g.homes.Home(p); ok {
			g.tell(ctx, to, "⚠️ "+salvageText(s)+" Look at the disk and at the memory of this machine.")
		}
	}
}
