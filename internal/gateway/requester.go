package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"hermes/internal/control"
	"hermes/internal/conversation"
	"hermes/internal/delivery"
	"hermes/internal/domain"
)

// requesterNote is the ledger's note of the chat that asked for a restart.
const requesterNote = "restart.requester"

// requester is who is to be told when the gateway is back.
type requester struct {
	To      domain.Address `json:"to"`
	Process int64          `json:"process"` // the ledger's number of the process that was asked
	At      time.Time      `json:"at"`
}

// restartLimit is how old a request may be whose fulfilment is told.
const restartLimit = time.Hour

// restartCommand is /restart in a chat. It runs after the session's turn; the
// answer is committed before anything ends.
func (g *Gateway) restartCommand(ctx context.Context, c conversation.Call) (conversation.Reply, error) {
	text, err := json.Marshal(requester{To: c.In.Address, Process: g.store.Self().ID, At: g.Now()})
	if err != nil {
		return conversation.Reply{}, err
	}
	if err := g.store.SetNote(ctx, requesterNote, string(text)); err != nil {
		return conversation.Reply{}, err
	}
	return conversation.Reply{Text: "♻️ Restarting; I write here when I am back.", After: func() { go g.restartForChat(c.In.Address) }}, nil
}

// restartForChat restarts, and tells the chat when that was not possible.
func (g *Gateway) restartForChat(to domain.Address) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if _, err := g.Restart(ctx, control.RestartRequest{Reason: "/restart in a chat"}); err != nil {
		if nerr := g.store.SetNote(ctx, requesterNote, ""); nerr != nil {
			g.Log.Warn("the note of a restart could not be removed", "component", "gateway", "err", nerr)
		}
		g.tell(ctx, to, "⚠️ I was not restarted and go on as I was: "+domain.MessageOf(err))
	}
}

// tellRequester tells the chat that asked for it that the gateway is back.
func (g *Gateway) tellRequester(ctx context.Context) {
	text, err := g.store.Note(ctx, requesterNote)
	if err != nil || text == "" {
		return
	}
	var r requester
	if json.Unmarshal([]byte(text), &r) != nil || r.Process == g.store.Self().ID {
		return
	}
	if err := g.store.SetNote(ctx, requesterNote, ""); err != nil {
		g.Log.Warn("the note of a restart could not be removed", "component", "gateway", "err", err)
		return // told later, not twice
	}
	if age := g.Now().Sub(r.At); age >= 0 && age < restartLimit {
		g.tell(ctx, r.To, fmt.Sprintf("♻️ I am back (version %s, %s later).", g.Version, age.Round(100*time.Millisecond)))
	}
}

// tell sends a notice to an address.
func (g *Gateway) tell(ctx context.Context, to domain.Address, text string) {
	if _, err := g.store.Enqueue(ctx, g.outbox.Plan(to, "notice", text, delivery.PlanOptions{}), g.Now()); err != nil {
		g.Log.Warn("a notice could not be stored", "component", "gateway", "err", err)
		return
	}
	g.outbox.Wake(to)
}
