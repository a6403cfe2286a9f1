package matrix

import (
	"context"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
)

// Buttons are offered as reactions, since Matrix has none: the account puts
// numbers under its message, and a number that somebody adds is a press. What
// each means stands in the text, to be typed, and in the event, so that a later
// life of the process understands a press too.
const legendRoom = 500 // characters kept free for the legend under a message

// digits are the emoji of the numbers, in order.
var digits = []string{"1️⃣", "2️⃣", "3️⃣", "4️⃣", "5️⃣", "6️⃣", "7️⃣", "8️⃣", "9️⃣"}

// legend gives what stands under a message with buttons, as text and as HTML,
// and the commands of those that are offered. With no numbers it only says what
// to type.
func legend(buttons []domain.Button, numbers bool) (text, markup string, commands []string) {
	var b, h strings.Builder
	free := legendRoom
	for _, btn := range buttons {
		label, command := oneLine(btn.Label), oneLine(btn.Command)
		if label == "" || command == "" || len(commands) == len(digits) {
			continue
		}
		sign, typed := "-", command
		if numbers {
			sign = digits[len(commands)]
		}
		if strings.HasPrefix(typed, "/") {
			typed = "!" + typed[1:]
		}
		line := "\n" + sign + " " + label + ": " + typed
		if free -= len([]rune(line)); free < 2 {
			break
		}
		b.WriteString(line)
		h.WriteString("<br>" + sign + " " + html.EscapeString(label) + ": <code>" + html.EscapeString(typed) + "</code>")
		commands = append(commands, command)
	}
	if len(commands) == 0 {
		return "", "", nil
	}
	return "\n" + b.String(), "<br>" + h.String(), commands
}

// oneLine makes text fit for a line of the legend.
func oneLine(s string) string {
	return strings.TrimSpace(clean.Clip(strings.NewReplacer("\n", " ", "\r", " ").Replace(clean.Text(s)), 80))
}

// offer puts the numbers under a message, in order, without waiting for them.
func (a *Adapter) offer(room, id string, n int) {
	for _, key := range digits[:n] {
		a.react(room, id, key)
	}
}

// react queues a reaction,
// https://spec.matrix.org/v1.15/client-server-api/#event-annotations-and-reactions.
// One that is there already is refused, which is as good.
func (a *Adapter) react(room, id, key string) {
	in := map[string]any{"m.relates_to": map[string]string{"rel_type": "m.annotation", "event_id": id, "key": key}}
	path := "/v3/rooms/" + url.PathEscape(room) + "/send/" + typeReaction + "/" + url.PathEscape("r."+id+"."+strconv.QuoteToASCII(key))
	a.later(func(ctx context.Context) *platform.Error {
		_, e := a.call(ctx, request{method: http.MethodPut, path: path, in: in}, nil)
		if e != nil && e.Code == "matrix_limit" && e.RetryAfter <= time.Minute && platform.Sleep(ctx, e.RetryAfter) {
			_, e = a.call(ctx, request{method: http.MethodPut, path: path, in: in}, nil)
		}
		return e
	})
}

// press reads a reaction that somebody added; ok is false when it is none of the
// numbers that the account has offered. It comes with the timeline, so that one
// that was added while nobody listened is heard as well.
func (a *Adapter) press(ctx context.Context, id string, ev *event) (in domain.Inbound, ok bool, e *platform.Error) {
	self, c := a.self.Load(), contentOf(ev)
	plain := func(s string) string { return strings.ReplaceAll(s, "\ufe0f", "") } // some clients leave it out
	n := slices.IndexFunc(digits, func(d string) bool { return plain(d) == plain(c.Relates.Key) })
	if n < 0 || ev.Sender == self.user || c.Relates.Type != "m.annotation" || !isEvent(c.Relates.EventID) {
		return in, false, nil
	}
	to, e := a.eventAt(ctx, id, c.Relates.EventID)
	if e != nil || to == nil || to.Sender != self.user {
		return in, false, e
	}
	offered := contentOf(to)
	if n >= len(offered.Choices) || offered.Choices[n] == "" {
		return in, false, nil
	}
	where, e := a.roomOf(ctx, id)
	if e != nil {
		return in, false, unlessGone(e)
	}
	if !where.direct && !a.heard(where, id) {
		return in, false, nil
	}
	in.Source = a.source(ctx, where, id, ev.Sender, offered.thread())
	in.MessageID, in.EventID = to.ID, ev.ID
	in.ChatListed = where.matches(a.cfg.Allowed, id)
	if !isEvent(to.ID) {
		in.MessageID = c.Relates.EventID
	}
	in.Text, in.Button, in.Mentioned = clean.Clip(clean.Text(offered.Choices[n]), maxInText), true, true
	in.SentAt, in.ReceivedAt, in.State = time.UnixMilli(ev.TS), a.now(), domain.InboundReceived
	return in, true, nil
}

// transaction makes the id of an edit, which is one of its own each time.
func (a *Adapter) transaction() string {
	return fmt.Sprintf("hermes-edit-%d-%d", a.now().UnixNano(), a.edits.Add(1))
}
