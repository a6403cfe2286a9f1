package domain

import "time"

// DeliveryState is the state of one message on its way out.
type DeliveryState string

// delivery: pending → sending(attempt, nonce) → sent(receipt) | retrying(next) | dead(reason).
// What was sent and came back (a mail that no server could deliver) is dead, too.
const (
	DeliveryPending  DeliveryState = "pending"
	DeliverySending  DeliveryState = "sending"
	DeliverySent     DeliveryState = "sent"
	DeliveryRetrying DeliveryState = "retrying"
	DeliveryDead     DeliveryState = "dead"
)

// Button is one choice under a message. Command is what pressing it sends to
// us, as if the user had typed it; platforms bound it to 64 bytes.
type Button struct {
	Label   string `json:"label"`
	Command string `json:"command"`
}

// Part is one message, rendered for its platform and within its limits.
type Part struct {
	Text        string       `json:"text,omitempty"`   // in the platform's dialect
	Plain       string       `json:"plain,omitempty"`  // the same without markup, for when the platform refuses the markup
	Markup      bool         `json:"markup,omitempty"` // Text is markup; false: Text is plain
	ReplyTo     string       `json:"reply_to,omitempty"`
	Attachments []Attachment `json:"attachments,omitempty"`
	Buttons     []Button     `json:"buttons,omitempty"`
	Silent      bool         `json:"silent,omitempty"` // no notification sound
}

// NewDelivery is a message to be committed to the outbox.
type NewDelivery struct {
	To    Address `json:"to"`
	Part  Part    `json:"part"`
	Edit  string  `json:"edit,omitempty"` // platform message id to edit in place of sending
	RunID int64   `json:"run_id,omitempty"`
	Kind  string  `json:"kind,omitempty"` // reply, question, notice, cron, alert: for people who read the outbox
	// NotBefore delays the first attempt; zero means now.
	NotBefore time.Time `json:"not_before,omitzero"`
}

// Delivery is a row of the outbox: one message to one address.
type Delivery struct {
	ID        int64 `json:"id"` // ascending; the order within an address
	TurnID    int64 `json:"turn_id,omitempty"`
	InboundID int64 `json:"inbound_id,omitempty"`
	NewDelivery
	State     DeliveryState `json:"state"`
	Attempt   int           `json:"attempt"`
	Nonce     string        `json:"nonce,omitempty"`     // stable over the attempts of one delivery, for platforms that dedupe
	Receipt   string        `json:"receipt,omitempty"`   // the platform's message id
	Reason    string        `json:"reason,omitempty"`    // of the last failure
	Uncertain bool          `json:"uncertain,omitempty"` // an attempt was cut off; it may have arrived
	NextAt    time.Time     `json:"next_at,omitzero"`
	CreatedAt time.Time     `json:"created_at"`
	SentAt    time.Time     `json:"sent_at,omitzero"`
}
