package telegram

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-telegram/bot"
	"github.com/go-telegram/bot/models"

	"hermes/internal/domain"
	"hermes/internal/platform/clean"
)

// Bounds of one event; Telegram's own are lower but for albums.
const (
	maxInText      = 64 << 10 // bytes
	maxInReply     = 4 << 10  // bytes
	maxInFiles     = 32
	maxInName      = 200 // bytes
	maxButtonsHeld = 256 // button presses that wait to be answered
)

// events maps a batch to what is to be stored, and gives the ids of the
// pressed buttons, which are answered after the commit.
func (a *Adapter) events(batch []models.Update) (events []domain.Inbound, buttons []string) {
	now := a.now()
	for _, m := range mergeAlbums(batch) {
		var in domain.Inbound
		var ok bool
		switch {
		case m.update.CallbackQuery != nil:
			buttons = append(buttons, m.update.CallbackQuery.ID)
			in, ok = a.press(m.update.CallbackQuery)
		case m.update.Message != nil:
			in, ok = a.message(m.update.Message, m.rest)
		case m.update.ChannelPost != nil && a.cfg.ChannelPosts:
			in, ok = a.message(m.update.ChannelPost, nil)
		}
		if !ok {
			continue
		}
		in.Platform, in.Account = Name, a.account
		in.EventID = strconv.FormatInt(m.update.ID, 10)
		in.ReceivedAt, in.State = now, domain.InboundReceived
		events = append(events, in)
	}
	return events, buttons
}

// merged is an update with the other messages of its album.
type merged struct {
	update models.Update
	rest   []*models.Message
}

// mergeAlbums puts the messages of one album together: people send pictures as
// one thing, and only one of them has the caption. The event keeps the id of
// the first.
func mergeAlbums(batch []models.Update) []merged {
	out := make([]merged, 0, len(batch))
	at := map[string]int{}
	for _, u := range batch {
		if g := album(u); g != "" {
			key := itoa(u.Message.Chat.ID) + "/" + g
			if i, ok := at[key]; ok {
				out[i].rest = append(out[i].rest, u.Message)
				continue
			}
			at[key] = len(out)
		}
		out = append(out, merged{update: u})
	}
	return out
}

// message maps a message; ok is false when it is not for us.
func (a *Adapter) message(m *models.Message, rest []*models.Message) (in domain.Inbound, ok bool) {
	if m.IsAutomaticForward && !a.cfg.ChannelPosts {
		return in, false
	}
	if m.From != nil && m.From.IsBot && m.SenderChat == nil {
		return in, false // another bot; two bots that answer each other never end
	}
	in.Source = source(m)
	if !a.heard(in.Source, m.Chat) {
		return in, false
	}
	t := a.read(m)
	in.Attachments = attachments(m)
	for _, r := range rest {
		rt := a.read(r)
		t.text = strings.TrimSpace(t.text + "\n" + rt.text)
		t.mentioned = t.mentioned || rt.mentioned
		in.Attachments = append(in.Attachments, attachments(r)...)
	}
	if len(in.Attachments) > maxInFiles {
		in.Attachments = in.Attachments[:maxInFiles]
	}
	if t.text == "" && len(in.Attachments) == 0 {
		return in, false // a service message: somebody joined, a title changed
	}
	group := in.ChatType == domain.ChatGroup
	if t.otherBot || group && a.cfg.RequireMention && !t.mentioned && !slices.Contains(a.cfg.Free, in.ChatID) {
		return in, false
	}
	in.Text = clean.Clip(t.text, maxInText)
	in.ReplyText = replyText(m)
	in.Mentioned = t.mentioned || in.ChatType == domain.ChatDM
	in.SentAt = time.Unix(int64(m.Date), 0)
	return in, true
}

// press maps a pressed button,
// https://core.telegram.org/bots/api#callbackquery. A button under a message
// that has become inaccessible is still pressed.
func (a *Adapter) press(q *models.CallbackQuery) (in domain.Inbound, ok bool) {
	var chat models.Chat
	switch {
	case q.Message.Message != nil:
		m := *q.Message.Message
		m.From, m.SenderChat = &q.From, nil
		in.Source, chat = source(&m), m.Chat
	case q.Message.InaccessibleMessage != nil:
		m := q.Message.InaccessibleMessage
		in.Source = source(&models.Message{ID: m.MessageID, Chat: m.Chat, From: &q.From})
		chat = m.Chat
	}
	if in.ChatID == "" || in.ChatID == "0" || q.Data == "" || !a.heard(in.Source, chat) {
		return in, false
	}
	in.Text, in.Button, in.Mentioned = clean.Text(q.Data), true, true
	in.SentAt = a.now()
	return in, in.Text != ""
}

// source says where a message came from and who wrote it.
func source(m *models.Message) domain.Source {
	s := domain.Source{
		Address:   domain.Address{Platform: Name, ChatID: itoa(m.Chat.ID)},
		ChatType:  chatTypes[m.Chat.Type],
		ChatName:  clean.Name(m.Chat.Title, m.Chat.FirstName+" "+m.Chat.LastName, m.Chat.Username),
		MessageID: strconv.Itoa(m.ID),
	}
	switch {
	case m.DirectMessagesTopic != nil:
		s.ThreadID = directTopic + strconv.Itoa(m.DirectMessagesTopic.TopicID)
	case m.IsTopicMessage && m.MessageThreadID != 0:
		// Without is_topic_message the number names only a chain of replies.
		s.ThreadID = strconv.Itoa(m.MessageThreadID)
	}
	switch {
	case m.SenderChat != nil: // an anonymous administrator, or a channel; From is then a bot that all of them share
		s.UserID, s.UserName = itoa(m.SenderChat.ID), clean.Name(m.SenderChat.Title, m.SenderChat.Username)
	case m.From != nil:
		s.UserID = itoa(m.From.ID)
		s.UserName = clean.Name(m.From.FirstName+" "+m.From.LastName, m.From.Username)
	}
	return s
}

// directTopic marks the thread id of a channel's direct messages, which is
// sent back in another field,
// https://core.telegram.org/bots/api#directmessagestopic.
const directTopic = "dm"

var chatTypes = map[models.ChatType]domain.ChatType{
	models.ChatTypePrivate:    domain.ChatDM,
	models.ChatTypeGroup:      domain.ChatGroup,
	models.ChatTypeSupergroup: domain.ChatGroup,
	models.ChatTypeChannel:    domain.ChatChannel,
}

// heard tells whether the configuration lets the place be heard at all. Who
// may talk is decided elsewhere.
func (a *Adapter) heard(s domain.Source, c models.Chat) bool {
	if a.cfg.Ignores(s.ChatID, s.ThreadID) {
		return false
	}
	if s.ChatType == domain.ChatDM || len(a.cfg.Allowed) == 0 || slices.Contains(a.cfg.Allowed, "*") {
		return true
	}
	return slices.ContainsFunc(a.cfg.Allowed, func(allowed string) bool {
		return allowed == s.ChatID || c.Username != "" && strings.EqualFold(allowed, "@"+c.Username)
	})
}

// replyText is the text of the message that m answers, or the part of it that
// the user quoted.
func replyText(m *models.Message) string {
	r := m.ReplyToMessage
	switch {
	case m.Quote != nil && m.Quote.Text != "":
		return clean.Clip(clean.Text(m.Quote.Text), maxInReply)
	case r == nil || r.ForumTopicCreated != nil: // everything in a topic "answers" its creation
		return ""
	}
	return clean.Clip(clean.Text(cmp.Or(r.Text, r.Caption)), maxInReply)
}

// attachments are the files of a message.
func attachments(m *models.Message) []domain.Attachment {
	var out []domain.Attachment
	add := func(k domain.AttachmentKind, ref, name, mime string, size int64) {
		out = append(out, domain.Attachment{Kind: k, Ref: clean.Text(ref), Name: clean.FileName(name), MIME: clean.Clip(clean.Text(mime), maxInName), Size: size})
	}
	if n := len(m.Photo); n > 0 {
		p := slices.MaxFunc(m.Photo, func(x, y models.PhotoSize) int { return cmp.Compare(x.Width*x.Height, y.Width*y.Height) })
		add(domain.Image, p.FileID, "photo_"+strconv.Itoa(m.ID)+".jpg", "image/jpeg", int64(p.FileSize))
	}
	if v := m.Voice; v != nil {
		add(domain.Voice, v.FileID, "voice_"+strconv.Itoa(m.ID)+".ogg", cmp.Or(v.MimeType, "audio/ogg"), v.FileSize)
	}
	if f := m.Audio; f != nil {
		add(domain.Audio, f.FileID, cmp.Or(f.FileName, "audio_"+strconv.Itoa(m.ID)), f.MimeType, f.FileSize)
	}
	if f := m.Video; f != nil {
		add(domain.Video, f.FileID, cmp.Or(f.FileName, "video_"+strconv.Itoa(m.ID)+".mp4"), cmp.Or(f.MimeType, "video/mp4"), f.FileSize)
	}
	if f := m.VideoNote; f != nil {
		add(domain.Video, f.FileID, "video_"+strconv.Itoa(m.ID)+".mp4", "video/mp4", int64(f.FileSize))
	}
	switch {
	case m.Animation != nil: // comes as a document too
		add(domain.Video, m.Animation.FileID, cmp.Or(m.Animation.FileName, "animation_"+strconv.Itoa(m.ID)+".mp4"), m.Animation.MimeType, m.Animation.FileSize)
	case m.Document != nil:
		kind := domain.Document
		if strings.HasPrefix(m.Document.MimeType, "image/") && m.Document.MimeType != "image/svg+xml" {
			kind = domain.Image // a picture sent without compression
		}
		add(kind, m.Document.FileID, cmp.Or(m.Document.FileName, "document_"+strconv.Itoa(m.ID)), m.Document.MimeType, m.Document.FileSize)
	}
	return out
}

// described says in words what has no text: a place, a contact, a sticker.
func described(m *models.Message) string {
	switch {
	case m.Venue != nil:
		return fmt.Sprintf("[venue: %s, %s, %g, %g]", m.Venue.Title, m.Venue.Address, m.Venue.Location.Latitude, m.Venue.Location.Longitude)
	case m.Location != nil:
		return fmt.Sprintf("[location: %g, %g]", m.Location.Latitude, m.Location.Longitude)
	case m.Contact != nil:
		return fmt.Sprintf("[contact: %s, %s]", clean.Name(m.Contact.FirstName+" "+m.Contact.LastName), m.Contact.PhoneNumber)
	case m.Sticker != nil:
		return strings.TrimSpace("[sticker "+m.Sticker.Emoji) + "]"
	case m.Poll != nil:
		var options []string
		for _, o := range m.Poll.Options {
			options = append(options, o.Text)
		}
		return fmt.Sprintf("[poll: %s (%s)]", m.Poll.Question, strings.Join(options, ", "))
	}
	return ""
}

// answers tells Telegram that button presses were taken, so that the user's
// client stops showing them as pending. It is a courtesy: what does not fit or
// fails is dropped.
type answers struct {
	a *Adapter
	c chan string
}

func newAnswers(a *Adapter) *answers { return &answers{a, make(chan string, maxButtonsHeld)} }

func (s *answers) add(ids []string) {
	for _, id := range ids {
		select {
		case s.c <- id:
		default:
			return
		}
	}
}

func (s *answers) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-s.c:
			cctx, cancel := context.WithTimeout(ctx, s.a.cfg.SendTimeout)
			cctx, c := withCall(cctx, "answerCallbackQuery")
			if _, err := s.a.bot.AnswerCallbackQuery(cctx, &bot.AnswerCallbackQueryParams{CallbackQueryID: id}); err != nil {
				s.a.log.Debug("a button press could not be confirmed to its user", "error", s.a.classify(c, err))
			}
			cancel()
		}
	}
}
