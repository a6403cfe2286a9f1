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
// number that somebody adds is a press. Mattermost's own buttons
// (https://developers.mattermost.com/integrate/plugins/interactive-messages/)
// call an address of ours, which the server often cannot reach. What each
// number means stands in the post's text, to be typed where reactions are not
// allowed, and in its props, so that a later life of the process understands
// a press too.
const (
	choicesProp = "hermes_choices"
	legendRoom  = 500 // characters kept free for the legend under a message
)

// digits are the emoji of the numbers, in order.
var digits = []string{"one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}

// legend gives what stands under a message with buttons, and the commands of
// those that are offered. With no numbers it only says what to type.
func legend(buttons []domain.Button, numbers bool) (text string, commands []string) {
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
		commands = append(commands, command)
	}
	if len(commands) == 0 {
		return "", nil
	}
	return "\n" + b.String(), commands
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
	var p post
	if _, e := a.get(ctx, "/posts/"+pressed.PostID, &p); e != nil {
		return in, false, unlessGone(e)
	}
	choices, _ := p.Props[choicesProp].([]any)
	if p.UserID != self.id || p.DeleteAt != 0 || n >= len(choices) || !isID(p.ChannelID) {
		return in, false, nil
	}
	command, _ := choices[n].(string)
	var ch channel
	if _, e := a.get(ctx, "/channels/"+p.ChannelID, &ch); e != nil {
		return in, false, unlessGone(e)
	}
	chatType, known := chatTypes[ch.Type]
	if !known || command == "" || !a.heard(ch) {
		return in, false, nil
	}
	who, e := a.userName(ctx, pressed.UserID)
	if e != nil {
		return in, false, e
	}
	who = clean.Name(who, pressed.UserID)
	in.Source = domain.Source{
		Address:  domain.Address{Platform: Name, ChatID: p.ChannelID, ThreadID: p.RootID},
		ChatType: chatType, ChatName: clean.Name(ch.DisplayName, ch.Name), MessageID: p.ID, UserID: pressed.UserID, UserName: who,
	}
	if chatType == domain.ChatDM {
		in.ChatName = who
	}
	in.EventID = fmt.Sprintf("%s:%s:%s:%d", p.ID, pressed.UserID, pressed.Emoji, pressed.CreateAt)
	in.Account, in.Text, in.Button, in.Mentioned = self.id, clean.Clip(clean.Text(command), maxInText), true, true
	in.ChatListed = matches(a.cfg.Allowed, ch)
	in.SentAt, in.ReceivedAt, in.State = a.now(), a.now(), domain.InboundReceived
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
