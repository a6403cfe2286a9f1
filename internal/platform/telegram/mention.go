package telegram

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/go-telegram/bot/models"

	"hermes/internal/platform/clean"
)

// reading is what a message says and to whom.
type reading struct {
	text      string // without what only addressed the bot
	mentioned bool   // it is addressed to the bot
	otherBot  bool   // a command for another bot
}

// read takes a message's text or caption and finds out whether it is addressed
// to the bot: by @name, by /command@name, by an answer to a message of the
// bot, or by a configured pattern.
func (a *Adapter) read(m *models.Message) reading {
	text, entities := m.Text, m.Entities
	if text == "" {
		text, entities = m.Caption, m.CaptionEntities
	}
	if text == "" {
		text = described(m)
	}
	self := a.self.Load()
	if self == nil {
		self = &identity{}
	}
	units := utf16.Encode([]rune(text))
	var r reading
	var cut []models.MessageEntity // what addresses the bot
	for _, e := range entities {
		if e.Offset < 0 || e.Length <= 0 || e.Offset > len(units) || e.Length > len(units)-e.Offset {
			continue
		}
		word := string(utf16.Decode(units[e.Offset : e.Offset+e.Length]))
		switch e.Type {
		case models.MessageEntityTypeMention:
			if self.name != "" && strings.EqualFold(word, "@"+self.name) {
				r.mentioned = true
				cut = append(cut, e)
			}
		case models.MessageEntityTypeTextMention:
			if e.User != nil && e.User.ID == self.id {
				r.mentioned = true
				cut = append(cut, e)
			}
		case models.MessageEntityTypeBotCommand:
			command, to, ok := strings.Cut(word, "@")
			if !ok {
				break
			}
			if !strings.EqualFold(to, self.name) {
				r.otherBot = r.otherBot || e.Offset == 0
				break
			}
			r.mentioned = true
			n := len(utf16.Encode([]rune(command)))
			cut = append(cut, models.MessageEntity{Offset: e.Offset + n, Length: e.Length - n})
		}
	}
	whole := strings.TrimSpace(clean.Text(text))
	r.text = strings.TrimSpace(clean.Text(without(units, cut)))
	if r.text == "" {
		r.text = whole // nothing but the name: that is what was said
	}
	if from := replyTo(m); from != nil && from.ID == self.id {
		r.mentioned = true
	}
	r.mentioned = r.mentioned || a.cfg.Addressed(whole)
	r.text = a.menu.Load().typed(r.text)
	return r
}

// replyTo is who wrote the message that m answers. Everything in a topic
// "answers" the message of its creation, which does not count.
func replyTo(m *models.Message) *models.User {
	if m.ReplyToMessage == nil || m.ReplyToMessage.ForumTopicCreated != nil {
		return nil
	}
	return m.ReplyToMessage.From
}

// without cuts the ranges out, each with one space beside it.
func without(units []uint16, cut []models.MessageEntity) string {
	slices.SortFunc(cut, func(x, y models.MessageEntity) int { return cmp.Compare(x.Offset, y.Offset) })
	out := make([]uint16, 0, len(units))
	at := 0
	for _, e := range cut {
		if e.Offset < at {
			continue
		}
		out = append(out, units[at:e.Offset]...)
		at = e.Offset + e.Length
		atStart := len(out) == 0 || out[len(out)-1] == ' ' || out[len(out)-1] == '\n'
		if atStart && at < len(units) && units[at] == ' ' {
			at++
		}
	}
	return string(utf16.Decode(append(out, units[at:]...)))
}

// menu is what the native menu offers: its names cannot have a hyphen, so that
// what is typed from it is turned back.
type menu struct {
	shown  []models.BotCommand
	hyphen map[string]string // menu name to the command's own, where they differ
}

// typed gives the text with its command's own name.
func (m *menu) typed(text string) string {
	if m == nil || !strings.HasPrefix(text, "/") {
		return text
	}
	word, rest, _ := strings.Cut(text, " ")
	if own, ok := m.hyphen[strings.ToLower(word[1:])]; ok {
		if rest != "" {
			rest = " " + rest
		}
		return "/" + own + rest
	}
	return text
}

// threadNumber reads a topic's id; direct is true for a topic of a channel's
// direct messages.
func threadNumber(thread string) (n int, direct bool, err error) {
	number, direct := strings.CutPrefix(thread, directTopic)
	if thread == "" {
		return 0, false, nil
	}
	n, err = strconv.Atoi(number)
	return n, direct, err
}
