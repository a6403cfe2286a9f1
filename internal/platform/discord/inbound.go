package discord

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/lazyregexp"
	"hermes/internal/platform/clean"
	"hermes/internal/platform/settings"
)

// Bounds of one event; Discord's own are lower.
const (
	maxInText  = 64 << 10 // bytes
	maxInReply = 4 << 10  // bytes
	maxInFiles = 10
	maxInName  = 200 // bytes
)

// event maps a message; ok is false when it is not for us. err is set when it
// cannot be told yet, because a channel could not be asked for.
func (a *Adapter) event(ctx context.Context, m *message) (in domain.Inbound, ok bool, err error) {
	if m.ID == "" || m.Author.ID == a.account || m.Type != typeDefault && m.Type != typeReply {
		return in, false, nil
	}
	t := a.read(m)
	if (m.Author.Bot || m.WebhookID != "") && !a.botAllowed(t.mentioned) {
		return in, false, nil
	}
	ch, err := a.channel(ctx, m.ChannelID, m.GuildID)
	if err != nil {
		return in, false, err
	}
	in.Source = a.source(ch, m)
	if ch.GuildID != "" && !a.heard(ch) {
		return in, false, nil
	}
	in.Attachments = attachments(m)
	if t.text == "" && len(in.Attachments) == 0 {
		return in, false, nil
	}
	free := listed(a.cfg.Free, ch)
	own := ch.isThread() && ch.OwnerID == a.account // a thread that the bot opened is a talk with it
	if in.ChatType == domain.ChatGroup && a.cfg.RequireMention && !t.mentioned && !free && !own {
		return in, false, nil
	}
	in.Mentioned = t.mentioned || own || in.ChatType == domain.ChatDM
	if a.opensThread(ch, t.mentioned, free) {
		// A thread that is made from a message has the message's id; it is opened
		// by the first thing that is sent there.
		in.ThreadID = m.ID
	}
	in.Text = clean.Clip(t.text, maxInText)
	if m.Referenced != nil {
		in.ReplyText = clean.Clip(clean.Text(m.Referenced.Content), maxInReply)
	}
	if in.UserListed, err = a.permitted(ctx, ch.GuildID, m.Author.ID, m.Member); err != nil {
		return in, false, err
	}
	in.EventID, in.SentAt = m.ID, timeOf(m.ID)
	a.received(&in)
	return in, true, nil
}

func (a *Adapter) received(in *domain.Inbound) {
	in.Platform, in.Account = Name, a.account
	in.ReceivedAt, in.State = a.now(), domain.InboundReceived
}

func (a *Adapter) botAllowed(mentioned bool) bool {
	return a.cfg.AllowBots == settings.AllBots || a.cfg.AllowBots == settings.MentioningBots && mentioned
}

// opensThread tells whether the answer gets a thread of its own.
func (a *Adapter) opensThread(ch channel, mentioned, free bool) bool {
	return a.cfg.AutoThread && mentioned && !free && !listed(a.cfg.NoThreadChannels, ch) &&
		(ch.Type == guildText || ch.Type == guildAnnouncement)
}

// interaction maps a pressed button or a native command; ok is false when it
// is neither, or not heard here.
func (a *Adapter) interaction(ctx context.Context, i *interaction) (in domain.Inbound, ok bool, err error) {
	m := &message{ID: i.ID, ChannelID: i.ChannelID, GuildID: i.GuildID}
	switch {
	case i.Member != nil:
		m.Author, m.Member = i.Member.User, i.Member
	case i.User != nil:
		m.Author = *i.User
	}
	if i.ID == "" || m.ChannelID == "" || m.Author.ID == "" {
		return in, false, nil
	}
	switch i.Type {
	case messageComponent:
		in.Text, in.Button = clean.Text(i.Data.CustomID), true
		if i.Message != nil {
			m.ID = i.Message.ID
		}
	case applicationCommand:
		in.Text = "/" + clean.Text(i.Data.Name)
		for _, o := range i.Data.Options {
			in.Text += " " + clean.Text(fmt.Sprint(o.Value))
		}
		m.ID = "" // there is no message that could be replied to
	default:
		return in, false, nil
	}
	in.Text = clean.Clip(strings.TrimSpace(in.Text), maxInText)
	ch, err := a.channel(ctx, m.ChannelID, m.GuildID)
	if err != nil {
		return in, false, err
	}
	if in.Text == "" || ch.GuildID != "" && !a.heard(ch) {
		return in, false, nil
	}
	in.Source = a.source(ch, m)
	if in.UserListed, err = a.permitted(ctx, ch.GuildID, m.Author.ID, m.Member); err != nil {
		return in, false, err
	}
	in.EventID, in.Mentioned, in.SentAt = "i"+i.ID, true, timeOf(i.ID)
	a.received(&in)
	return in, true, nil
}

// channel finds out about a channel. One without a server is a direct message
// and need not be asked for.
func (a *Adapter) channel(ctx context.Context, id, guildID string) (channel, error) {
	if ch, ok := a.channels.get(id); ok {
		return ch, nil
	}
	if guildID == "" {
		return channel{ID: id, Type: directMessage}, nil
	}
	if snowflake(id) == 0 {
		return channel{ID: id, GuildID: guildID}, nil
	}
	ch, err := a.lookUp(ctx, id)
	ch.GuildID = guildID
	return ch, err
}

// source says where a message came from and who wrote it.
func (a *Adapter) source(ch channel, m *message) domain.Source {
	s := domain.Source{
		Address:   domain.Address{Platform: Name, ChatID: ch.ID},
		ChatType:  domain.ChatGroup,
		ChatName:  clean.Name(ch.Name),
		UserID:    m.Author.ID,
		UserName:  clean.Name(m.Author.GlobalName, m.Author.Username),
		MessageID: m.ID,
	}
	if m.Member != nil {
		s.UserName = clean.Name(m.Member.Nick, s.UserName)
	}
	switch {
	case ch.Type == directMessage || ch.Type != groupMessage && ch.GuildID == "":
		s.ChatType, s.ChatName = domain.ChatDM, s.UserName
	case ch.isThread() && ch.ParentID != "":
		s.ChatID, s.ThreadID = ch.ParentID, ch.ID
		if parent, ok := a.channels.get(ch.ParentID); ok {
			s.ChatName = clean.Name(parent.Name+" / "+ch.Name, ch.Name)
		}
	}
	return s
}

// listed tells whether a list names a channel, or the channel of a thread.
func listed(ids []string, ch channel) bool {
	return slices.Contains(ids, "*") || slices.Contains(ids, ch.ID) || ch.isThread() && slices.Contains(ids, ch.ParentID)
}

// heard tells whether the configuration lets a server's channel be heard at
// all. Who may talk is decided elsewhere.
func (a *Adapter) heard(ch channel) bool {
	if listed(a.cfg.IgnoredChannels, ch) || ch.isThread() && a.cfg.Ignores(ch.ParentID, ch.ID) {
		return false
	}
	return len(a.cfg.Allowed) == 0 || listed(a.cfg.Allowed, ch)
}

// reading is what a message says and to whom.
type reading struct {
	text      string // without what only addressed the bot
	mentioned bool
}

var (
	userMention  = lazyregexp.New(`<@!?(\d{1,20})>`)
	otherMention = lazyregexp.New(`<(#)(\d{1,20})>|<a?(:\w{2,32}:)\d{1,20}>`)
)

// read takes a message's text and finds out whether it is addressed to the bot:
// by a mention, by an answer to a message of the bot, or by a configured
// pattern, https://discord.com/developers/docs/reference#message-formatting.
func (a *Adapter) read(m *message) reading {
	raw := m.Content
	for _, s := range m.Snapshots {
		raw = strings.TrimSpace(raw + "\n[forwarded] " + s.Message.Content)
	}
	for _, s := range m.Stickers {
		raw = strings.TrimSpace(raw + "\n[sticker " + s.Name + "]")
	}
	var r reading
	names := map[string]string{}
	for _, u := range m.Mentions {
		names[u.ID] = cmp.Or(u.GlobalName, u.Username)
		r.mentioned = r.mentioned || u.ID == a.account
	}
	text := userMention.ReplaceAllStringFunc(clean.Text(raw), func(s string) string {
		id := userMention.FindStringSubmatch(s)[1]
		if id == a.account {
			r.mentioned = true
			return ""
		}
		if n := names[id]; n != "" {
			return "@" + clean.Text(n)
		}
		return s
	})
	text = otherMention.ReplaceAllStringFunc(text, func(s string) string {
		part := otherMention.FindStringSubmatch(s)
		if part[1] == "" {
			return part[3]
		}
		if ch, ok := a.channels.get(part[2]); ok && ch.Name != "" {
			return "#" + clean.Text(ch.Name)
		}
		return s
	})
	r.text = strings.TrimSpace(text)
	if r.text == "" && strings.TrimSpace(raw) != "" {
		r.text = "@" + a.ownName() // nothing but the name: that is what was said
	}
	if ref := m.Referenced; ref != nil && ref.Author.ID == a.account {
		r.mentioned = true
	}
	r.mentioned = r.mentioned || a.cfg.Addressed(r.text)
	return r
}

func (a *Adapter) ownName() string {
	if n := a.name.Load(); n != nil {
		return *n
	}
	return "bot"
}

// attachments are the files of a message. A ref names message and file, since
// the address of a file is valid for a day only
// (https://discord.com/developers/docs/reference#signed-attachment-cdn-urls).
func attachments(m *message) []domain.Attachment {
	var out []domain.Attachment
	for _, f := range m.Attachments[:min(len(m.Attachments), maxInFiles)] {
		mime, _, _ := strings.Cut(f.ContentType, ";")
		mime = clean.Clip(clean.Text(strings.TrimSpace(mime)), maxInName)
		out = append(out, domain.Attachment{
			Kind: kindOf(mime, m.Flags), Ref: m.ChannelID + "/" + m.ID + "/" + f.ID,
			Name: clean.FileName(cmp.Or(f.Filename, "file_"+f.ID)), MIME: mime, Size: max(f.Size, 0),
		})
	}
	return out
}

func kindOf(mime string, flags int) domain.AttachmentKind {
	kind, _, _ := strings.Cut(mime, "/")
	switch {
	case kind == "audio" && flags&flagVoice != 0:
		return domain.Voice
	case kind == "audio":
		return domain.Audio
	case kind == "video":
		return domain.Video
	case kind == "image" && mime != "image/svg+xml":
		return domain.Image
	}
	return domain.Document
}
