package matrix

import (
	"context"
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
)

// What is looked through for a message that may have arrived.
const (
	lookPages = 5              // of historyPage messages of ours each
	lookBack  = 48 * time.Hour // an outbox gives up long before
)

// Send sends a part as one event, and each of its files as one behind it. The
// receipt is the id of the first.
//
// An event is never repeated: its transaction id is made of the nonce, and the
// homeserver drops a second one of the same device
// (https://spec.matrix.org/v1.15/client-server-api/#transaction-identifiers). For
// what it has forgotten, and for another device, the room is searched for the
// nonce before a message goes that may have arrived: one whose outcome this
// process does not know, and the first that it sends to an address, which its
// predecessor may have sent.
//
// Nothing is sent into a room that is encrypted.
func (a *Adapter) Send(ctx context.Context, to domain.Address, p domain.Part, nonce string) (string, error) {
	self, e := a.identify(ctx)
	if e != nil {
		return "", e
	}
	relates, e := relation(to.ThreadID, p.ReplyTo)
	if e != nil {
		return "", e
	}
	if strings.TrimSpace(p.Text) == "" && len(p.Attachments) == 0 {
		return "", &platform.Error{Kind: platform.GiveUp, Code: "matrix_empty", Reason: "there is nothing in the message that could be shown"}
	}
	room, e := a.resolve(ctx, to.ChatID)
	if e != nil {
		return "", e
	}
	crypted, e := a.encrypted(ctx, room)
	if e != nil {
		return "", e
	}
	if crypted {
		return "", &platform.Error{Kind: platform.GiveUp, Code: "matrix_encrypted",
			Reason: "the room is end-to-end encrypted, and hermes writes nothing there in the clear: use a room that is not encrypted"}
	}
	o := outgoing{self: self, to: to, room: room, nonce: nonce}
	receipt, n := "", 0
	if _, look := a.sends.Begin(to.String(), nonce); look { // so for each of them, also once the first was found
		for i := range p.Attachments {
			a.sends.Unknown(o.numbered(i + 1).nonce)
		}
	}
	one := func(c map[string]any) *platform.Error {
		if relates != nil {
			c["m.relates_to"] = relates
		}
		c["m.mentions"] = struct{}{} // nobody is called by what stands in the text
		id, e := a.sendOne(ctx, o.numbered(n), c)
		if e == nil && n == 0 {
			receipt = id
		}
		n++
		return e
	}
	if strings.TrimSpace(p.Text) != "" {
		c, choices := textContent(p, true)
		if e := one(c); e != nil {
			return "", e
		}
		a.offer(room, receipt, choices)
	}
	for i := range p.Attachments {
		o.file = &p.Attachments[i]
		if e := one(map[string]any{}); e != nil {
			return "", e
		}
	}
	a.stopTyping(self, room)
	if to.ThreadID != "" {
		a.rooms.setThread(to.ThreadID, true)
	}
	return receipt, nil
}

// outgoing is one event.
type outgoing struct {
	self  *identity
	to    domain.Address
	room  string // to's id, where to has an alias or a user
	nonce string
	file  *domain.Attachment // to be uploaded, or nil
}

// numbered is the n-th event of a part, each of which has a nonce of its own.
func (o outgoing) numbered(n int) outgoing {
	if n > 0 && o.nonce != "" {
		o.nonce += "." + strconv.Itoa(n)
	}
	return o
}

// relation says which thread an event belongs to and what it answers,
// https://spec.matrix.org/v1.15/client-server-api/#threading.
func relation(thread, answers string) (map[string]any, *platform.Error) {
	if thread != "" && !isEvent(thread) {
		return nil, &platform.Error{Kind: platform.GiveUp, Code: "matrix_address", Reason: "the thread " + quoted(thread) + " is not one of Matrix': write the id of its first event, such as $abc"}
	}
	if !isEvent(answers) {
		answers = ""
	}
	reply := func(id string) map[string]string { return map[string]string{"event_id": id} }
	switch {
	case thread != "" && (answers == "" || answers == thread):
		return map[string]any{"rel_type": "m.thread", "event_id": thread, "is_falling_back": true, "m.in_reply_to": reply(thread)}, nil
	case thread != "":
		return map[string]any{"rel_type": "m.thread", "event_id": thread, "is_falling_back": false, "m.in_reply_to": reply(answers)}, nil
	case answers != "":
		return map[string]any{"m.in_reply_to": reply(answers)}, nil
	}
	return nil, nil
}

// textContent is the content of a message, and how many of its buttons are
// offered by number. What is to make no sound is a notice, for which clients make none.
func textContent(p domain.Part, numbers bool) (c map[string]any, choices int) {
	body := strings.ToValidUTF8(p.Text, "\uFFFD")
	under, markup, commands := legend(p.Buttons, numbers)
	c = map[string]any{"msgtype": "m.text", "body": body + under}
	if p.Silent {
		c["msgtype"] = "m.notice"
	}
	if p.Markup {
		c["format"], c["formatted_body"] = "org.matrix.custom.html", body+markup
		c["body"] = strings.ToValidUTF8(p.Plain, "\uFFFD") + under
	} else if under != "" {
		c["format"], c["formatted_body"] = "org.matrix.custom.html", strings.ReplaceAll(html.EscapeString(body), "\n", "<br>")+markup
	}
	if numbers && len(commands) > 0 {
		c["dev.hermes.choices"] = commands
		choices = len(commands)
	}
	return c, choices
}

// sendOne sends an event, unless it has been sent.
func (a *Adapter) sendOne(ctx context.Context, o outgoing, c map[string]any) (string, *platform.Error) {
	receipt, look := a.sends.Begin(o.to.String(), o.nonce)
	if receipt != "" {
		return receipt, nil
	}
	if look {
		id, e := a.find(ctx, o)
		if e != nil {
			a.sends.Unknown(o.nonce)
			return "", e
		}
		if id != "" {
			a.log.Info("a message that may have arrived has arrived", "event", id)
			a.sends.Done(o.to.String(), o.nonce, id)
			return id, nil
		}
	}
	if o.file != nil {
		if e := a.fileContent(ctx, o.file, c); e != nil {
			return "", e
		}
	}
	transaction := a.transaction()
	if o.nonce != "" {
		c["dev.hermes.nonce"], transaction = o.nonce, "hermes-"+o.nonce
	}
	id, e := a.put(ctx, o.room, c, transaction)
	if e != nil {
		if e.Uncertain {
			a.sends.Unknown(o.nonce)
		}
		return "", a.replaced(ctx, o.room, e)
	}
	a.sends.Done(o.to.String(), o.nonce, id)
	return id, nil
}

// put makes an event,
// https://spec.matrix.org/v1.15/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid.
func (a *Adapter) put(ctx context.Context, room string, c map[string]any, transaction string) (string, *platform.Error) {
	if b, err := json.Marshal(c); err != nil || len(b) > maxContent {
		e := &platform.Error{Kind: platform.GiveUp, Code: codeLarge, Reason: "the message is longer than Matrix takes"}
		if c["formatted_body"] != nil {
			e.Kind = platform.MarkupRefused // it may be the addresses of its links
		}
		return "", e
	}
	var made struct {
		ID string `json:"event_id"`
	}
	path := "/v3/rooms/" + url.PathEscape(room) + "/send/" + typeMessage + "/" + url.PathEscape(transaction)
	answer, e := a.call(ctx, request{method: http.MethodPut, path: path, in: c}, &made)
	if e != nil && e.Code == codeLarge && c["formatted_body"] != nil {
		e.Kind = platform.MarkupRefused
	}
	if e == nil && !isEvent(made.ID) {
		e = notMatrix(answer.Status)
		e.Uncertain = true
	}
	return made.ID, e
}

// replaced finds out whether a refusal is that of a room that was replaced by
// another, and goes there,
// https://spec.matrix.org/v1.15/client-server-api/#room-upgrades.
func (a *Adapter) replaced(ctx context.Context, room string, e *platform.Error) *platform.Error {
	if e.Code != codeRights {
		return e
	}
	var c content
	if found, se := a.state(ctx, room, typeTombstone, "", &c); se != nil || !found || !isRoom(c.Replacement) || c.Replacement == room {
		return e
	}
	if je := a.enter(ctx, c.Replacement, serverOf(room)); je != nil {
		return &platform.Error{Kind: platform.GiveUp, Code: codeRights, Reason: "the room was replaced by " + c.Replacement + ", which the account cannot join: invite it there", Cause: je}
	}
	return &platform.Error{Kind: platform.Moved, Code: "matrix_moved", NewChatID: c.Replacement, Reason: "the room was replaced by " + c.Replacement}
}

// find looks for a message of ours with a nonce among the latest of the room
// that are ours.
func (a *Adapter) find(ctx context.Context, o outgoing) (string, *platform.Error) {
	filter, _ := json.Marshal(map[string]any{"types": []string{typeMessage}, "senders": []string{o.self.user}}) // strings only
	q := url.Values{"dir": {"b"}, "limit": {strconv.Itoa(historyPage)}, "filter": {string(filter)}}
	oldest := a.now().Add(-lookBack).UnixMilli()
	for range lookPages {
		var page struct {
			Chunk events `json:"chunk"`
			End   string `json:"end"`
		}
		_, e := a.get(ctx, "/v3/rooms/"+url.PathEscape(o.room)+"/messages", q, &page)
		if e != nil && e.Kind == platform.GiveUp {
			return "", a.replaced(ctx, o.room, e)
		}
		if e != nil {
			return "", harmless(e, "it is not known yet whether the message has arrived")
		}
		for _, ev := range page.Chunk {
			if ev.Sender == o.self.user && isEvent(ev.ID) && contentOf(ev).Nonce == o.nonce {
				return ev.ID, nil
			}
			if ev.TS < oldest {
				return "", nil
			}
		}
		if page.End == "" || page.End == q.Get("from") {
			break
		}
		q.Set("from", page.End)
	}
	return "", nil
}

// maxShown is what an edit says to clients that know no edits, in characters.
const maxShown = 1000

// Edit changes a message's text,
// https://spec.matrix.org/v1.15/client-server-api/#event-replacements.
func (a *Adapter) Edit(ctx context.Context, to domain.Address, messageID string, p domain.Part) error {
	if !isEvent(messageID) {
		return &platform.Error{Kind: platform.EditRefused, Code: "matrix_edit", Reason: "the message " + quoted(messageID) + " is not one of Matrix'"}
	}
	room, e := a.resolve(ctx, to.ChatID)
	if e != nil {
		return e
	}
	now, _ := textContent(p, false)
	shown, _ := now["body"].(string)
	if r := []rune(shown); len(r) > maxShown {
		shown = string(r[:maxShown]) + "…"
	}
	now["m.mentions"] = struct{}{}
	c := map[string]any{
		"msgtype": now["msgtype"], "body": "* " + shown, "m.mentions": struct{}{}, "m.new_content": now,
		"m.relates_to": map[string]string{"rel_type": "m.replace", "event_id": messageID},
	}
	_, e = a.put(ctx, room, c, a.transaction())
	switch {
	case e == nil:
		return nil
	case e.Kind == platform.GiveUp && e.Code != codeLarge:
		e.Kind, e.Code = platform.EditRefused, "matrix_edit" // a new message says the same, or why not
	}
	return e
}

// typingFor is how long the account is shown as writing.
const typingFor = 12 * time.Second

// Typing puts 👀 on the message that is being worked on, and shows that the
// account writes,
// https://spec.matrix.org/v1.15/client-server-api/#typing-notifications.
func (a *Adapter) Typing(ctx context.Context, to domain.Address) error {
	if id := a.waiting.Take(to); id != "" && a.cfg.Reactions && isRoom(to.ChatID) {
		a.react(to.ChatID, id, "👀")
	}
	if a.cfg.NoTyping || !isRoom(to.ChatID) {
		return nil
	}
	self, e := a.identify(ctx)
	if e != nil {
		return e
	}
	if e := a.showTyping(ctx, self, to.ChatID, true); e != nil {
		return e
	}
	return nil
}

// showTyping says that the account writes, or does not any more.
func (a *Adapter) showTyping(ctx context.Context, self *identity, room string, on bool) *platform.Error {
	in := map[string]any{"typing": on}
	if on {
		in["timeout"] = typingFor.Milliseconds()
	}
	path := "/v3/rooms/" + url.PathEscape(room) + "/typing/" + url.PathEscape(self.user)
	_, e := a.call(ctx, request{method: http.MethodPut, path: path, in: in}, nil)
	return e
}

// stopTyping ends it: homeservers do not by themselves when a message comes.
func (a *Adapter) stopTyping(self *identity, room string) {
	if a.cfg.NoTyping {
		return
	}
	a.later(func(ctx context.Context) *platform.Error { return a.showTyping(ctx, self, room, false) })
}

func fileName(at *domain.Attachment, path string) string {
	if at.Name != "" {
		return clean.FileName(at.Name)
	}
	return clean.FileName(path)
}
