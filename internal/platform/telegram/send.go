package telegram

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-telegram/bot"
	"github.com/go-telegram/bot/models"

	"hermes/internal/domain"
	"hermes/internal/lazyregexp"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
)

// Send sends a part: its files, one message each, and its text as the caption
// of the first file where it fits, else as a message of its own. Telegram has
// no idempotency keys; what an earlier attempt with the same nonce has sent for
// certain is not sent again by this process. The receipt is the id of the
// message that carries the text, or of the last one.
//
// A topic that is gone and a reply to a message that is gone do not stop the
// message: it goes to the same chat without them.
func (a *Adapter) Send(ctx context.Context, to domain.Address, p domain.Part, nonce string) (string, error) {
	t, err := a.target(to, p)
	if err != nil {
		return "", err
	}
	steps := t.steps(p)
	if len(steps) == 0 {
		return "", &platform.Error{Kind: platform.GiveUp, Code: "telegram_empty", Reason: "there is nothing in the message that Telegram could show"}
	}
	done, receipt := 0, ""
	if len(steps) > 1 {
		done, receipt = a.progress.get(nonce)
	}
	for i := done; i < len(steps); i++ {
		id, err := a.step(ctx, t, steps[i])
		if err != nil {
			return "", err
		}
		if receipt == "" || steps[i].text != "" {
			receipt = strconv.Itoa(id)
		}
		if len(steps) > 1 {
			a.progress.set(nonce, i+1, receipt)
		}
	}
	a.progress.drop(nonce)
	return receipt, nil
}

// target is where a message goes and what all its requests share.
type target struct {
	chat    any // int64, or "@name"
	chatID  string
	thread  int
	direct  int // topic of a channel's direct messages
	replyTo int
	silent  bool
	markup  bool
}

func (a *Adapter) target(to domain.Address, p domain.Part) (*target, error) {
	t := &target{chatID: to.ChatID, silent: p.Silent, markup: p.Markup}
	bad := func(what, value string) error {
		return &platform.Error{Kind: platform.GiveUp, Code: "telegram_address", Reason: "the " + what + " " + strconv.Quote(value) + " is not one of Telegram's: write a number"}
	}
	if id, err := strconv.ParseInt(to.ChatID, 10, 64); err == nil {
		t.chat = id
	} else if len(to.ChatID) > 1 && to.ChatID[0] == '@' {
		t.chat = to.ChatID
	} else {
		return nil, bad("chat id", to.ChatID)
	}
	n, direct, err := threadNumber(to.ThreadID)
	switch {
	case err != nil:
		return nil, bad("topic id", to.ThreadID)
	case direct:
		t.direct = n
	case n != generalTopic:
		t.thread = n
	}
	// A reply to something that is no id of Telegram's is sent as no reply.
	t.replyTo, _ = strconv.Atoi(p.ReplyTo)
	return t, nil
}

// generalTopic is the id of a forum's first topic, which messages to it must
// not carry.
const generalTopic = 1

func (t *target) reply() *models.ReplyParameters {
	if t.replyTo == 0 {
		return nil
	}
	return &models.ReplyParameters{MessageID: t.replyTo, AllowSendingWithoutReply: true}
}

// step is one request of a part.
type step struct {
	file    *domain.Attachment
	text    string // the message, or the file's caption
	buttons *keyboard
}

// steps orders what a part consists of; the buttons are under the last.
func (t *target) steps(p domain.Part) []step {
	text := strings.ToValidUTF8(p.Text, "\uFFFD")
	var out []step
	for i := range p.Attachments {
		out = append(out, step{file: &p.Attachments[i]})
	}
	switch {
	case strings.TrimSpace(text) == "":
	case len(out) > 0 && visibleLength(text, p.Markup) <= maxCaption:
		out[0].text = text
	default:
		out = append(out, step{text: text})
	}
	if len(out) > 0 {
		out[len(out)-1].buttons = newKeyboard(p.Buttons)
	}
	return out
}

var (
	tags     = lazyregexp.New(`<[^<>]*>`)
	entities = lazyregexp.New(`&(lt|gt|amp|quot|#\d+|#x[0-9a-fA-F]+);`)
)

// visibleLength counts a text as Telegram does: in UTF-16 units, after its
// markup was parsed. Tags and entities do not count.
func visibleLength(text string, markup bool) int {
	if markup {
		text = entities.ReplaceAllString(tags.ReplaceAllString(text, ""), "x")
	}
	n := 0
	for _, r := range text {
		n++
		if r > 0xFFFF {
			n++
		}
	}
	return n
}

// keyboard is an inline keyboard,
// https://core.telegram.org/bots/api#inlinekeyboardmarkup. The library's own
// type would add an empty copy_text to each button.
type keyboard struct {
	Rows [][]key `json:"inline_keyboard"`
}

type key struct {
	Text string `json:"text"`
	Data string `json:"callback_data"`
}

// newKeyboard puts two buttons in a row; long ones have a row of their own.
// A button whose command is over the limit is left out: people can type it.
func newKeyboard(buttons []domain.Button) *keyboard {
	k := &keyboard{}
	var row []key
	flush := func() {
		if len(row) > 0 {
			k.Rows, row = append(k.Rows, row), nil
		}
	}
	for _, b := range buttons {
		if b.Label == "" || b.Command == "" || len(b.Command) > maxButton {
			continue
		}
		if len(b.Label) > 20 || len(row) == 2 {
			flush()
		}
		row = append(row, key{b.Label, b.Command})
		if len(b.Label) > 20 {
			flush()
		}
	}
	flush()
	if len(k.Rows) == 0 {
		return nil
	}
	return k
}

// markup is the keyboard as the library takes it: a nil interface for none.
func (k *keyboard) markup() models.ReplyMarkup {
	if k == nil {
		return nil
	}
	return k
}

// step carries out one request, and where the topic is gone the same without it.
func (a *Adapter) step(ctx context.Context, t *target, s step) (id int, err error) {
	for {
		var c *call
		if s.file != nil {
			id, c, err = a.sendFile(ctx, t, s)
		} else {
			id, c, err = a.sendText(ctx, t, s)
		}
		if err == nil {
			return id, nil
		}
		e := a.sendFailure(t.chatID, c, err)
		if e.Code != codeThread || t.thread == 0 && t.direct == 0 {
			return 0, e
		}
		a.log.Warn("a topic is gone; its message goes to the chat without it", "chat", t.chatID, "topic", t.thread+t.direct)
		t.thread, t.direct = 0, 0
	}
}

func (a *Adapter) sendText(ctx context.Context, t *target, s step) (int, *call, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout)
	defer cancel()
	ctx, c := withCall(ctx, "sendMessage")
	m, err := a.bot.SendMessage(ctx, &bot.SendMessageParams{
		ChatID: t.chat, MessageThreadID: t.thread, DirectMessagesTopicID: t.direct,
		Text: s.text, ParseMode: t.parseMode(), LinkPreviewOptions: a.previews(),
		DisableNotification: t.silent, ReplyParameters: t.reply(), ReplyMarkup: s.buttons.markup(),
	})
	if err != nil {
		return 0, c, err
	}
	return m.ID, c, nil
}

func (t *target) parseMode() models.ParseMode {
	if t.markup {
		return models.ParseModeHTML
	}
	return ""
}

func (a *Adapter) previews() *models.LinkPreviewOptions {
	if !a.cfg.DisableLinkPreviews {
		return nil
	}
	return &models.LinkPreviewOptions{IsDisabled: bot.True()}
}

// sendFailure classifies and notes flood control.
func (a *Adapter) sendFailure(chatID string, c *call, err error) *platform.Error {
	var e *platform.Error
	if !errors.As(err, &e) {
		e = a.classify(c, err)
	}
	if e.Kind == platform.Retry && e.RetryAfter > 0 {
		e.Global = a.flood.hit(chatID, e.RetryAfter, a.now())
	}
	return e
}

// Edit changes a message's text and buttons. A message that already says so is
// a success.
func (a *Adapter) Edit(ctx context.Context, to domain.Address, messageID string, p domain.Part) error {
	t, err := a.target(to, p)
	if err != nil {
		return err
	}
	id, err := strconv.Atoi(messageID)
	if err != nil {
		return &platform.Error{Kind: platform.EditRefused, Code: "telegram_edit", Reason: "the message id " + strconv.Quote(clean.Clip(messageID, 40)) + " is not one of Telegram's"}
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout)
	defer cancel()
	ctx, c := withCall(ctx, "editMessageText")
	_, err = a.bot.EditMessageText(ctx, &bot.EditMessageTextParams{
		ChatID: t.chat, MessageID: id, Text: strings.ToValidUTF8(p.Text, "\uFFFD"), ParseMode: t.parseMode(),
		LinkPreviewOptions: a.previews(), ReplyMarkup: newKeyboard(p.Buttons).markup(),
	})
	if err == nil {
		return nil
	}
	e := a.sendFailure(t.chatID, c, err)
	if e.Code == codeUnmodified {
		return nil
	}
	return e
}

// Typing shows "typing…" for about five seconds,
// https://core.telegram.org/bots/api#sendchataction.
func (a *Adapter) Typing(ctx context.Context, to domain.Address) error {
	t, err := a.target(to, domain.Part{})
	if err != nil {
		return err
	}
	if a.cfg.Reactions {
		a.react(ctx, to, t)
	}
	if a.cfg.NoTyping {
		return nil
	}
	thread := t.thread
	if to.ThreadID == strconv.Itoa(generalTopic) {
		thread = generalTopic // here, unlike in messages, it is wanted
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout)
	defer cancel()
	ctx, c := withCall(ctx, "sendChatAction")
	if _, err = a.bot.SendChatAction(ctx, &bot.SendChatActionParams{ChatID: t.chat, MessageThreadID: thread, Action: models.ChatActionTyping}); err != nil {
		return a.sendFailure(t.chatID, c, err)
	}
	return nil
}

// react puts 👀 on the message that is being worked on,
// https://core.telegram.org/bots/api#setmessagereaction. It is a courtesy: a
// failure, such as in a chat that allows other reactions only, is not repeated.
func (a *Adapter) react(ctx context.Context, to domain.Address, t *target) {
	id, err := strconv.Atoi(a.waiting.Take(to))
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout)
	defer cancel()
	ctx, c := withCall(ctx, "setMessageReaction")
	eyes := models.ReactionType{Type: models.ReactionTypeTypeEmoji, ReactionTypeEmoji: &models.ReactionTypeEmoji{Type: models.ReactionTypeTypeEmoji, Emoji: "👀"}}
	if _, err := a.bot.SetMessageReaction(ctx, &bot.SetMessageReactionParams{ChatID: t.chat, MessageID: id, Reaction: []models.ReactionType{eyes}}); err != nil {
		e := a.sendFailure(t.chatID, c, err)
		a.log.Debug("a reaction was not set", "code", e.Code, "reason", e.Reason)
	}
}

// Limits of the native menu, https://core.telegram.org/bots/api#botcommand.
const (
	maxMenu        = 100
	maxDescription = 256
)

var commandName = lazyregexp.New(`^[a-z0-9_]{1,32}$`)

// SetCommands puts the commands into the bot's menu. Hyphens become
// underscores there, and are turned back in what users send. Commands that the
// menu cannot hold are left out. A menu that is set already is not sent again.
func (a *Adapter) SetCommands(ctx context.Context, cmds []platform.Command) error {
	m := &menu{hyphen: map[string]string{}}
	seen := map[string]bool{}
	for _, c := range cmds {
		own := strings.ToLower(c.Name)
		shown := strings.ReplaceAll(own, "-", "_")
		if c.Unlisted || !commandName.MatchString(shown) || seen[shown] || len(m.shown) == maxMenu {
			continue
		}
		seen[shown] = true
		if own != shown {
			m.hyphen[shown] = own
		}
		description := []rune(strings.TrimSpace(clean.Text(c.Description)))
		if len(description) == 0 {
			description = []rune(shown)
		}
		m.shown = append(m.shown, models.BotCommand{Command: shown, Description: string(description[:min(len(description), maxDescription)])})
	}
	if old := a.menu.Load(); old != nil && slices.Equal(old.shown, m.shown) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout)
	defer cancel()
	ctx, c := withCall(ctx, "setMyCommands")
	if _, err := a.bot.SetMyCommands(ctx, &bot.SetMyCommandsParams{Commands: m.shown}); err != nil {
		return a.classify(c, err)
	}
	a.menu.Store(m)
	return nil
}

// floodWatch tells flood control of one chat from that of the whole account.
// Telegram does not say which it is
// (https://core.telegram.org/bots/api#responseparameters), but when a second
// chat is refused while the first still is, it is the account.
type floodWatch struct {
	mu    sync.Mutex
	chat  string
	until time.Time
}

// hit records a refusal and tells whether it binds every chat.
func (f *floodWatch) hit(chat string, after time.Duration, now time.Time) (global bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	global = f.chat != "" && f.chat != chat && now.Before(f.until)
	f.chat, f.until = chat, now.Add(after)
	return global
}

// progress remembers how far a send of several requests came, by nonce, so
// that a retry does not repeat what has arrived for certain. It holds the
// latest maxProgress sends.
type progress struct {
	mu    sync.Mutex
	order []string
	done  map[string]progressMark
}

type progressMark struct {
	steps   int
	receipt string
}

func (p *progress) get(nonce string) (steps int, receipt string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.done[nonce]
	return m.steps, m.receipt
}

func (p *progress) set(nonce string, steps int, receipt string) {
	if nonce == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		p.done = map[string]progressMark{}
	}
	if _, known := p.done[nonce]; !known {
		if len(p.order) == maxProgress {
			delete(p.done, p.order[0])
			p.order = p.order[1:]
		}
		p.order = append(p.order, nonce)
	}
	p.done[nonce] = progressMark{steps, receipt}
}

func (p *progress) drop(nonce string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.done[nonce]; known {
		delete(p.done, nonce)
		p.order = slices.DeleteFunc(p.order, func(s string) bool { return s == nonce })
	}
}
