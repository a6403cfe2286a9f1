package delivery

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"

	"hermes/internal/domain"
	"hermes/internal/tool"
)

func TestSendMessage(t *testing.T) {
	own := domain.Address{Platform: "p", ChatID: "own"}
	other := domain.Address{Platform: "p", ChatID: "other"}
	away := domain.Address{Platform: "away", ChatID: "1"}
	tests := []struct {
		name, args string
		code       domain.Code
		result     string // part of what the model is told
		arrives    []string
	}{
		{name: "sent", args: `{"target":"other","message":"**hi**"}`, result: "in the outbox and will be sent to p:other. Delivery 1.", arrives: []string{"hi"}},
		{name: "platform away", args: `{"target":"away","message":"hi"}`, result: "which it is not now"},
		{name: "no message", args: `{"target":"other"}`, code: domain.Invalid},
		{name: "nothing visible", args: `{"target":"other","message":" \n"}`, code: domain.Invalid},
		{name: "unknown target", args: `{"target":"nobody","message":"hi"}`, code: domain.NotFound},
		{name: "refused", args: `{"target":"own","message":"hi"}`, code: domain.Forbidden},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := &script{}
			inBubble(t, nil, a, func(t *testing.T, b *bench) {
				x := b.d.SendMessage(SendMessageOptions{
					Outbox: b.store,
					Resolve: func(target string, _ domain.Source) ([]domain.Address, error) {
						to, ok := map[string]domain.Address{"own": own, "other": other, "away": away}[target]
						if !ok {
							return nil, domain.E(domain.NotFound, nil, "no such target")
						}
						return []domain.Address{to}, nil
					},
					Refuse: func(_ tool.Env, to domain.Address) error {
						if to == own {
							return domain.E(domain.Forbidden, nil, "the answer is delivered there anyway")
						}
						return nil
					},
				})
				if !json.Valid(x.Schema) || x.ReadOnly {
					t.Error("the tool's schema is not JSON, or it claims that it only reads")
				}
				got, err := x.Run(t.Context(), tool.Env{}, json.RawMessage(tt.args))
				if domain.CodeOf(err) != tt.code || !strings.Contains(got.Content, tt.result) {
					t.Errorf("got %q, %v", got.Content, err)
				}
				synctest.Wait()
				// The default limits render plain text for this adapter.
				wantTexts(t, a, "", tt.arrives...)
			})
		})
	}
}
