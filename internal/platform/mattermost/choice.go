package mattermost

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
)

// Buttons are offered as reactions: the bot puts numbers under its post, and a
// number that somebody adds is a press. Mattermost's own buttons call an address
// of ours, which the server often cannot reach (see callback.go). What each
// number means stands in the post's text, to be typed where reactions are not
// allowed, and in its props, so that a later life of the process understands
// a press too.
const (
	choicesProp = "hermes_choices"
	legendRoom  = 500 // characters kept free for the legend under a message
)

// digits are the emoji of the numbers, in order.
var digits = []string{"one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}

// legend gives what stands under a message with buttons, and the labels and
// commands of those that are offered. With no numbers it only says what to type.
func legend(buttons []domain.Button, numbers bool) (text string, labels, commands []string) {
	var b strings.Builder
	free := legendRoom
	for _, btn := range buttons {
		label, command := oneLine(btn.Label), oneLine(btn.Command)
		if label == "" || command == "" || len(commands) == len(digits) {
			continue
		}
		sign := "-"
		if numbers {
			sign = ":" + digits[len(commands)] + ":"
		}
		typed := command
		if strings.HasPrefix(typed, "/") {
			typed = "!" + typed[1:]
		}
		line := fmt.Sprintf("\n%s %s: `%s`", sign, label, typed)
		if free -= len(line); free < 2 {
			break
		}
		b.WriteString(line)
		labels, commands = append(labels, label), append(commands, command)
	}
	if len(commands) == 0 {
		return "", nil, nil
	}
	return "\n" + b.String(), labels, commands
}

// oneLine makes text fit for a line of the legend.
func oneLine(s string) string {
	return strings.TrimSpace(clean.Clip(strings.NewReplacer("\n", " ", "\r", " ", "`", "'").Replace(clean.Text(s)), 80))
}

// offer puts the numbers under a post, in order, without waiting for them.
func (a *Adapter) offer(post string, n int) {
	for _, emoji := range digits[:n] {
		a.react(reaction{post: post, emoji: emoji})
	}
}

// reaction is one that is to be given.
type reaction struct{ post, emoji string }

// react queues a reaction. It is a courtesy: what does not fit is dropped.
func (a *Adapter) react(r reaction) {
	select {
	case a.reactions <- r:
	default:
	}
}

// give gives the queued reactions; what fails is dropped.
func (a *Adapter) give(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-a.reactions:
			self, e := a.identify(ctx)
			if e == nil {
				in := map[string]string{"user_id": self.id, "post_id": r.post, "emoji_name": r.emoji}
				_, e = a.call(ctx, http.MethodPost, "/reactions", in, nil)
			}
			if e != nil {
				a.log.Debug("a reaction could not be given", "error", e)
			}
		}
	}
}

// press reads a reaction that somebody added; ok is false when it is none of
// the numbers that the bot has offered.
func (a *Adapter) press(ctx context.Context, f frame) (in domain.Inbound, ok bool, e *platform.Error) {
	pressed, self := pressOf(f), a.self.Load()
	n := slices.Index(digits, pressed.Emoji)
	if n < 0 || pressed.UserID == self.id || !isID(pressed.UserID) || !isID(pressed.PostID) {
		return in, false, nil
	}
	if in, ok, e = a.choice(ctx, pressed.UserID, pressed.PostID, n); !ok {
		return in, false, e
	}
	in.EventID = fmt.Sprintf("%s:%s:%s:%d", pressed.PostID, pressed.UserID, pressed.Emoji, pressed.CreateAt)
	return in, true, nil
}

// added is a reaction, https://api.mattermost.com/#tag/reactions.
type added struct {
	UserID   string `json:"user_id"`
	PostID   string `json:"post_id"`
	Emoji    string `json:"emoji_name"`
	CreateAt int64  `json:"create_at"` // milliseconds
}

// pressOf reads the reaction of an event, which is JSON within JSON; the zero
// value stands for what is none.
func pressOf(f frame) (out added) {
	var d struct {
		Reaction string `json:"reaction"`
	}
	if json.Unmarshal(f.Data, &d) != nil || json.Unmarshal([]byte(d.Reaction), &out) != nil {
		return added{}
	}
	return out
}

// unlessGone passes a failure on, unless it says that a thing is not there.
func unlessGone(e *platform.Error) *platform.Error {
	if e.Kind == platform.GiveUp {
		return nil
	}
	return harmless(e, "a press of a button could not be read")
}
