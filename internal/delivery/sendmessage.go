package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/tool"
)

// SendMessageOptions wires the send_message tool.
type SendMessageOptions struct {
	Outbox interface {
		Enqueue(ctx context.Context, d []domain.NewDelivery, now time.Time) ([]int64, error)
	}
	// Resolve finds the addresses that a target names: "origin", "telegram",
	// "telegram:<chat>[:<thread>]", a channel's name. Its error (domain.Invalid,
	// domain.NotFound) says what would be understood.
	Resolve func(target string, from domain.Source) ([]domain.Address, error)
	// Refuse tells why the turn may not send to an address, e.g. because its
	// answer is delivered there anyway; nil allows all.
	Refuse func(env tool.Env, to domain.Address) error
}

// sendMessageArgs are the parameters of send_message.
type sendMessageArgs struct {
	Target  string `json:"target"`
	Message string `json:"message"`
}

// SendMessage is the tool that sends a message to another chat than the one
// that the answer goes to. The message is committed to the outbox before the
// tool answers.
func (d *Dispatcher) SendMessage(o SendMessageOptions) tool.Tool {
	return tool.Tool{
		Name: "send_message", Toolset: "messaging",
		Description: "Send a message to a chat. Do not use it to answer the user: your final answer is delivered to the conversation by itself. A line MEDIA:/absolute/path in the message attaches that file.",
		Schema: json.RawMessage(`{"type":"object","properties":{
			"target":{"type":"string","description":"Where to: a platform for its home channel (telegram), platform:chat_id, platform:chat_id:thread_id, platform:#channel-name, or origin for this conversation."},
			"message":{"type":"string","description":"The text, in Markdown."}},
			"required":["target","message"]}`),
		Label: func(raw json.RawMessage) string {
			var a sendMessageArgs
			if tool.Decode(raw, &a) != nil || a.Target == "" {
				return "send a message"
			}
			return "to " + a.Target
		},
		Run: func(ctx context.Context, env tool.Env, raw json.RawMessage) (tool.Result, error) {
			return d.sendMessage(ctx, o, env, raw)
		},
	}
}

func (d *Dispatcher) sendMessage(ctx context.Context, o SendMessageOptions, env tool.Env, raw json.RawMessage) (tool.Result, error) {
	var a sendMessageArgs
	if err := tool.Decode(raw, &a, "target", "message"); err != nil {
		return tool.Result{}, err
	}
	to, err := o.Resolve(strings.TrimSpace(a.Target), env.Source)
	if err != nil {
		return tool.Result{}, err
	}
	var planned []domain.NewDelivery
	for _, addr := range to {
		if o.Refuse != nil {
			if err := o.Refuse(env, addr); err != nil {
				return tool.Result{}, err
			}
		}
		planned = append(planned, d.Plan(addr, "message", a.Message, PlanOptions{})...)
	}
	if len(planned) == 0 {
		return tool.Result{}, domain.E(domain.Invalid, nil, "there is nothing to send: the message has no visible text and names no file, or the target %q names no chat", a.Target)
	}
	ids, err := o.Outbox.Enqueue(ctx, planned, d.o.Now())
	if err != nil {
		return tool.Result{}, err
	}
	d.Wake(to...)
	return tool.Result{Content: d.accepted(to, ids)}, nil
}

// accepted says what is true at this moment: the message is safe, not that it
// has arrived.
func (d *Dispatcher) accepted(to []domain.Address, ids []int64) string {
	var b strings.Builder
	b.WriteString("The message is in the outbox and will be sent to")
	for i, a := range to {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString(" " + a.String())
		if _, ok := d.Adapter(a.Platform); !ok {
			b.WriteString(" (once that platform is connected, which it is not now)")
		}
	}
	fmt.Fprintf(&b, ". Delivery %s.", strings.Trim(strings.ReplaceAll(fmt.Sprint(ids), " ", ", "), "[]"))
	return b.String()
}
