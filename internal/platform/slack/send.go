package slack

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
)

// What is looked through for a message that may have arrived.
const (
	lookPages  = 3              // of historyPage messages each, the latest of a channel
	lookThread = 10             // the same of a thread, which is read from its older end
	lookBack   = 48 * time.Hour // from the latest message; an outbox gives up long before
)

// How a message of ours is known again.
const (
	metaEvent    = "hermes_delivery" // event_type of its metadata
	metaNonce    = "nonce"
	actionPrefix = "hermes_" // of the action_id of its buttons
)

var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// Send sends a part as one message, with its files behind it. The receipt is
// the ts of the message.
//
// A message is never repeated: it carries the nonce in its metadata, and the
// conversation is searched for it before a message goes that may have arrived:
// one whose outcome this process does not know, and the first that it sends to
// an address, which its predecessor may have sent. Files carry nothing of ours;
// they are known by standing behind the message (files.go).
//
// A thread that is gone does not stop the message: it goes to the channel. To
// the id of a user a direct message is sent.
func (a *Adapter) Send(ctx context.Context, to domain.Address, p domain.Part, nonce string) (string, error) {
	self, e := a.identify(ctx)
	if e != nil {
		return "", e
	}
	o := outgoing{self: self, to: to, nonce: nonce, files: p.Attachments}
	if o.thread, e = target(to, p); e != nil {
		return "", e
	}
	if o.text, o.plain, e = textOf(p, maxPost); e != nil {
		return "", e
	}
	if strings.TrimSpace(o.text) == "" {
		if len(p.Attachments) == 0 {
			return "", &platform.Error{Kind: platform.GiveUp, Code: "slack_empty", Reason: "there is nothing in the message that Slack could show"}
		}
		for i := range p.Attachments { // none is announced that cannot follow
			f, _, e := takes.Open(&p.Attachments[i], nameOf(&p.Attachments[i]))
			if e != nil {
				return "", e
			}
			f.Close()
		}
		// The message by which the files are known again.
		o.text, o.plain = "📎 "+escape.Replace(fileNames(p.Attachments)), true
	}
	o.buttons = attachmentsOf(p.Buttons)
	if o.channel, e = a.open(ctx, to.ChatID); e != nil {
		return "", e
	}
	receipt, e := a.sendOne(ctx, o)
	if e != nil {
		return "", e
	}
	return receipt, nil
}

// outgoing is one message.
type outgoing struct {
	self    *identity
	to      domain.Address
	channel string // to's, or the direct conversation with to's user
	thread  string
	text    string
	plain   bool   // text is no markup
	buttons string // JSON
	files   []domain.Attachment
	nonce   string
}

// target checks an address and finds the thread to answer in.
func target(to domain.Address, p domain.Part) (thread string, e *platform.Error) {
	bad := func(what, value, want string) *platform.Error {
		return &platform.Error{Kind: platform.GiveUp, Code: "slack_address",
			Reason: "the " + what + " " + strconv.Quote(clean.Clip(value, 40)) + " is not one of Slack's: write " + want}
	}
	switch {
	case !isID(to.ChatID):
		return "", bad("channel", to.ChatID, "its id, such as C0123456789 (at the end of the channel's details)")
	case to.ThreadID != "" && !isTS(to.ThreadID):
		return "", bad("thread", to.ThreadID, "the ts of its first message, such as 1712345678.123456")
	case to.ThreadID != "":
		return to.ThreadID, nil
	case isTS(p.ReplyTo) && to.ChatID[0] != 'D':
		return p.ReplyTo, nil
	}
	return "", nil
}

// textOf is the text of a part as Slack takes it, at most limit characters.
func textOf(p domain.Part, limit int) (text string, plain bool, e *platform.Error) {
	text = strings.ToValidUTF8(p.Text, "\uFFFD")
	if !p.Markup {
		text = escape.Replace(text)
	}
	if utf8.RuneCountInString(text) > limit {
		e = &platform.Error{Kind: platform.GiveUp, Code: "slack_length", Reason: "the message is longer than Slack takes (" + strconv.Itoa(limit) + " characters)"}
		if p.Markup {
			e.Kind = platform.MarkupRefused // it may be the addresses of its links
		}
	}
	return text, !p.Markup, e
}

// button is https://docs.slack.dev/reference/block-kit/block-elements/button-element.
type button struct {
	Type     string `json:"type"`
	Text     any    `json:"text"`
	ActionID string `json:"action_id"`
	Value    string `json:"value"`
}

// attachmentsOf is the JSON of an attachment with buttons, or of none, which
// takes those away that a message has. They stand in an attachment, so that the
// text over them may be as long as any.
func attachmentsOf(buttons []domain.Button) string {
	var elements []button
	for _, b := range buttons {
		label, value := strings.TrimSpace(clean.Text(b.Label)), strings.TrimSpace(clean.Text(b.Command))
		if label == "" || value == "" || utf8.RuneCountInString(value) > maxValue || len(elements) == maxButtons {
			continue
		}
		if runes := []rune(label); len(runes) > maxLabel {
			label = string(runes[:maxLabel-1]) + "…"
		}
		elements = append(elements, button{Type: "button", Text: map[string]any{"type": "plain_text", "text": label, "emoji": true},
			ActionID: actionPrefix + strconv.Itoa(len(elements)), Value: value})
	}
	if len(elements) == 0 {
		return "[]"
	}
	block := map[string]any{"type": "actions", "elements": elements}
	b, _ := json.Marshal([]any{map[string]any{"blocks": []any{block}}}) // strings only
	return string(b)
}

// open gives the conversation to write to. A user's id stands for the direct
// one, https://docs.slack.dev/reference/methods/conversations.open.
func (a *Adapter) open(ctx context.Context, id string) (string, *platform.Error) {
	if id[0] != 'U' && id[0] != 'W' {
		return id, nil
	}
	var out struct {
		Channel channel `json:"channel"`
	}
	if _, e := a.call(ctx, "conversations.open", url.Values{"users": {id}}, &out); e != nil {
		return "", harmless(e, "the direct conversation could not be opened")
	}
	if !isID(out.Channel.ID) {
		return "", &platform.Error{Kind: platform.Retry, Code: "slack_garbled", Reason: "Slack did not say which conversation it opened"}
	}
	return out.Channel.ID, nil
}

// sendOne sends a message with its files, unless it has been sent.
func (a *Adapter) sendOne(ctx context.Context, o outgoing) (string, *platform.Error) {
	receipt, look := a.sends.Begin(o.to.String(), o.nonce)
	if receipt != "" {
		return receipt, nil
	}
	var found sent
	if look {
		var e *platform.Error
		if found, e = a.find(ctx, o); e != nil {
			a.sends.Unknown(o.nonce)
			return "", e
		}
		if found.ts != "" {
			a.log.Info("a message that may have arrived has arrived", "ts", found.ts)
		}
	}
	if found.ts == "" {
		ts, e := a.post(ctx, o)
		if e != nil {
			if e.Uncertain {
				a.sends.Unknown(o.nonce)
			}
			return "", e
		}
		found.ts = ts
	}
	if e := a.share(ctx, o, found.files); e != nil {
		a.sends.Unknown(o.nonce) // the message is there, and its files may be
		return "", e
	}
	a.sends.Done(o.to.String(), o.nonce, found.ts)
	if o.thread != "" {
		a.names.setThread(o.channel, o.thread, true)
	}
	return found.ts, nil
}

// post makes the message, https://docs.slack.dev/reference/methods/chat.postMessage.
func (a *Adapter) post(ctx context.Context, o outgoing) (string, *platform.Error) {
	args := url.Values{"channel": {o.channel}, "text": {o.text}, "unfurl_links": {"false"}, "unfurl_media": {"false"}}
	if o.thread != "" {
		args.Set("thread_ts", o.thread)
	}
	if o.plain {
		args.Set("mrkdwn", "false")
	}
	if o.buttons != "[]" {
		args.Set("attachments", o.buttons)
	}
	if o.nonce != "" {
		b, _ := json.Marshal(map[string]any{"event_type": metaEvent, "event_payload": map[string]string{metaNonce: o.nonce}})
		args.Set("metadata", string(b))
	}
	var made struct {
		TS string `json:"ts"`
	}
	_, e := a.call(ctx, "chat.postMessage", args, &made)
	if e != nil && e.Code == codeThread && o.thread != "" {
		a.log.Warn("a thread is gone; its message goes to the channel", "channel", o.channel, "thread", o.thread)
		args.Del("thread_ts")
		_, e = a.call(ctx, "chat.postMessage", args, &made)
	}
	if e == nil && !isTS(made.TS) {
		e = &platform.Error{Kind: platform.Retry, Code: "slack_garbled", Reason: "Slack did not say which message it made", Uncertain: true}
	}
	return made.TS, e
}

// sent is what is found of a message that may have arrived.
type sent struct {
	ts    string
	files []file // of the messages of ours behind it, up to the next that has a nonce
}

// find looks for a message of ours with a nonce among the latest of the
// conversation, or of the thread.
func (a *Adapter) find(ctx context.Context, o outgoing) (sent, *platform.Error) {
	pages, method, args := lookPages, "conversations.history", url.Values{"channel": {o.channel}, "include_all_metadata": {"true"}, "limit": {strconv.Itoa(historyPage)}}
	if o.thread != "" {
		pages, method = lookThread, "conversations.replies"
		args.Set("ts", o.thread)
		args.Set("oldest", tsOf(a.now().Add(-lookBack).UnixMicro()))
	}
	var all []*message
	for range pages {
		p, e := a.page(ctx, method, args)
		if e != nil && e.Kind == platform.GiveUp {
			if e.Code == codeScope || e.Code == codeThread {
				return sent{}, nil // what cannot be read cannot be found: it is sent
			}
			return sent{}, e
		}
		if e != nil {
			return sent{}, harmless(e, "it is not known yet whether the message has arrived")
		}
		all = append(all, p.messages...)
		if p.next == "" || len(p.messages) == 0 || method == "conversations.history" && micros(all[0].TS)-micros(all[len(all)-1].TS) > lookBack.Microseconds() {
			break
		}
		args.Set("cursor", p.next)
	}
	slices.SortFunc(all, func(x, y *message) int { return strings.Compare(tsOf(micros(x.TS)), tsOf(micros(y.TS))) })
	return foundIn(all, o), nil
}

// foundIn finds a message of ours, and the files behind it, in order of time.
func foundIn(all []*message, o outgoing) (out sent) {
	for _, m := range all {
		if !o.self.wrote(m) {
			continue
		}
		nonce, _ := m.Metadata.Payload[metaNonce].(string)
		switch {
		case m.Metadata.EventType == metaEvent && nonce == o.nonce:
			out.ts = m.TS
		case out.ts != "" && m.Metadata.EventType == metaEvent:
			return out
		case out.ts != "":
			out.files = append(out.files, m.Files...)
		}
	}
	return out
}

// Edit changes a message's text and buttons, https://docs.slack.dev/reference/methods/chat.update.
func (a *Adapter) Edit(ctx context.Context, to domain.Address, messageID string, p domain.Part) error {
	if !isTS(messageID) || !isID(to.ChatID) {
		return &platform.Error{Kind: platform.EditRefused, Code: "slack_edit", Reason: "the message " + strconv.Quote(clean.Clip(messageID, 40)) + " is not one of Slack's"}
	}
	text, _, e := textOf(p, maxUpdate)
	if e != nil {
		e.Kind = platform.EditRefused // a new message may be longer
		return e
	}
	ch, e := a.open(ctx, to.ChatID)
	if e != nil {
		return e
	}
	args := url.Values{"channel": {ch}, "ts": {messageID}, "text": {text}, "attachments": {attachmentsOf(p.Buttons)}}
	if _, e := a.call(ctx, "chat.update", args, nil); e != nil {
		return e
	}
	return nil
}

// Typing puts 👀 on the message that is being worked on, and shows that the bot
// writes where Slack has a place for it: in threads of apps that are assistants,
// https://docs.slack.dev/reference/methods/assistant.threads.setStatus. Both are
// courtesies: a failure is not repeated, and an app that may not is not asked again.
func (a *Adapter) Typing(ctx context.Context, to domain.Address) error {
	if !isID(to.ChatID) {
		return nil
	}
	if ts := a.waiting.Take(to); ts != "" && a.cfg.Reactions {
		args := url.Values{"channel": {to.ChatID}, "timestamp": {ts}, "name": {"eyes"}}
		if _, e := a.call(ctx, "reactions.add", args, nil); e != nil {
			a.log.Debug("a reaction was not set", "code", e.Code, "reason", e.Reason)
		}
	}
	if a.cfg.NoTyping || !isTS(to.ThreadID) || a.noStatus.Load() {
		return nil
	}
	args := url.Values{"channel_id": {to.ChatID}, "thread_ts": {to.ThreadID}, "status": {"is thinking…"}}
	_, e := a.call(ctx, "assistant.threads.setStatus", args, nil)
	if e == nil {
		return nil
	}
	if e.Kind == platform.GiveUp {
		a.noStatus.Store(true)
		a.log.Debug("the app is no assistant: nothing shows that it writes", "code", e.Code)
		return nil
	}
	return e
}
