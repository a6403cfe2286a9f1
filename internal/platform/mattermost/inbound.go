package mattermost

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
)

// Bounds of one event; a server's own are lower.
const (
	maxInText    = 64 << 10 // bytes
	maxInFiles   = 32
	maxInName    = 200 // bytes
	maxReactions = 256 // that wait to be given
)

// ackEmoji is the reaction that acknowledges a message.
const ackEmoji = "eyes"

var chatTypes = map[string]domain.ChatType{
	"D": domain.ChatDM,
	"G": domain.ChatGroup,
	"O": domain.ChatGroup, // channels are where several people talk: a session for each, as in groups
	"P": domain.ChatGroup,
}

// message maps a post; ok is false when it is not for us. sender is the
// author's name where it is known. The id of the event is that of the post, so
// that the socket and the history bring the same event.
func (a *Adapter) message(ctx context.Context, p *post, ch channel, sender string) (in domain.Inbound, ok bool, e *platform.Error) {
	self := a.self.Load()
	root := cmp.Or(p.RootID, p.ID)
	if p.UserID == self.id {
		a.names.joinThread(root)
		return in, false, nil
	}
	if p.DeleteAt != 0 || p.Type != "" && p.Type != "me" || !isID(p.UserID) || a.isBot(p) {
		return in, false, nil
	}
	chatType, known := chatTypes[ch.Type]
	if !known || !a.heard(ch) || a.cfg.Ignores(p.ChannelID, root) {
		return in, false, nil
	}
	text, mentioned := a.read(self, p.Message)
	if p.RootID != "" && isID(p.RootID) && chatType != domain.ChatDM && !mentioned {
		if mentioned, e = a.inThread(ctx, self, p.RootID); e != nil {
			return in, false, e
		}
	}
	if chatType != domain.ChatDM && a.cfg.RequireMention && !mentioned && !matches(a.cfg.Free, ch) {
		return in, false, nil
	}
	in.Attachments = attachments(p)
	if text == "" && len(in.Attachments) == 0 {
		return in, false, nil
	}
	if sender == "" {
		if sender, e = a.userName(ctx, p.UserID); e != nil {
			return in, false, e
		}
	}
	sender = clean.Name(strings.TrimPrefix(sender, "@"), p.UserID)
	in.Source = domain.Source{
		Address:  domain.Address{Platform: Name, ChatID: p.ChannelID, ThreadID: p.RootID},
		ChatType: chatType, ChatName: clean.Name(ch.DisplayName, ch.Name), MessageID: p.ID,
		UserID: p.UserID, UserName: sender,
	}
	switch {
	case chatType == domain.ChatDM:
		in.ChatName = sender // the channel's own name is made of two ids
	case a.cfg.Threads && p.RootID == "":
		in.ThreadID = p.ID // the answer begins a thread
	}
	in.Platform, in.EventID, in.Account = Name, p.ID, self.id
	in.Text = clean.Clip(text, maxInText)
	in.Mentioned = mentioned || chatType == domain.ChatDM
	in.ChatListed = matches(a.cfg.Allowed, ch)
	in.SentAt, in.ReceivedAt, in.State = time.UnixMilli(p.CreateAt), a.now(), domain.InboundReceived
	return in, true, nil
}

// isBot tells whether a post is to be left out since no person wrote it: two
// bots that answer each other never end. The props are set by the server
// (https://developers.mattermost.com/integrate/webhooks/incoming/).
func (a *Adapter) isBot(p *post) bool {
	set := func(prop string) bool { v := p.Props[prop]; return v == "true" || v == true }
	return !a.cfg.AllowBots && (set("from_bot") || set("from_webhook"))
}

// heard tells whether the configuration lets the place be heard at all. Who
// may talk is decided elsewhere.
func (a *Adapter) heard(ch channel) bool {
	return ch.Type == "D" || len(a.cfg.Allowed) == 0 || matches(a.cfg.Allowed, ch)
}

// matches finds a channel in a list of ids and names.
func matches(list []string, ch channel) bool {
	return slices.ContainsFunc(list, func(s string) bool {
		s = strings.TrimPrefix(strings.TrimPrefix(s, "#"), "~")
		return s == "*" || s == ch.ID || ch.Name != "" && strings.EqualFold(s, ch.Name)
	})
}

// read gives what a post says, without what only addresses the bot, and
// whether it is addressed to the bot by name or by a configured pattern.
// @channel, @all and @here mean everybody, not the bot.
func (a *Adapter) read(self *identity, message string) (text string, mentioned bool) {
	whole := strings.TrimSpace(clean.Text(message))
	if m := self.mention.FindStringIndex(whole); m != nil {
		mentioned = true
		at := "@" + self.name
		low := strings.ToLower(whole)
		if strings.HasPrefix(low, strings.ToLower(at)) { // at the front it only addresses
			text = strings.TrimSpace(strings.TrimLeft(whole[len(at):], ",:."))
		} else if strings.HasSuffix(low, strings.ToLower(at)) {
			text = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(whole[:len(whole)-len(at)]), ","))
		} else {
			text = whole
		}
	}
	if text == "" {
		text = whole // nothing but the name: that is what was said
	}
	mentioned = mentioned || a.cfg.Addressed(whole)
	return a.commands.Read(text), mentioned
}

// inThread tells whether the bot has written in a thread: who goes on there
// need not name it again.
func (a *Adapter) inThread(ctx context.Context, self *identity, root string) (bool, *platform.Error) {
	if joined, known := a.names.thread(root); known {
		return joined, nil
	}
	var l postList
	_, e := a.get(ctx, "/posts/"+root+"/thread?perPage=200", &l)
	if e != nil && e.Kind != platform.GiveUp {
		return false, harmless(e, "a thread could not be read")
	}
	joined := false
	for _, p := range l.Posts {
		joined = joined || p != nil && p.UserID == self.id
	}
	a.names.setThread(root, joined)
	return joined, nil
}

// userName gives the name of a user; one that cannot be seen is called by its id.
func (a *Adapter) userName(ctx context.Context, id string) (string, *platform.Error) {
	if s := a.names.user(id); s != "" {
		return s, nil
	}
	var u user
	_, e := a.get(ctx, "/users/"+id, &u)
	if e != nil && e.Kind != platform.GiveUp {
		return "", harmless(e, "a user's name could not be read")
	}
	s := cmp.Or(u.Username, id)
	a.names.setUser(id, s)
	return s, nil
}

// attachments are the files of a post. Older servers give their ids only.
func attachments(p *post) []domain.Attachment {
	var out []domain.Attachment
	described := map[string]fileInfo{}
	for _, f := range p.Metadata.Files {
		described[f.ID] = f
	}
	for _, id := range p.FileIDs {
		if !isID(id) || len(out) == maxInFiles {
			continue
		}
		f := described[id]
		mime := clean.Clip(clean.Text(f.MIMEType), maxInName)
		out = append(out, domain.Attachment{Kind: kindOf(mime), Ref: id, Name: clean.FileName(cmp.Or(f.Name, "file_"+id)), MIME: mime, Size: max(f.Size, 0)})
	}
	return out
}

func kindOf(mime string) domain.AttachmentKind {
	class, _, _ := strings.Cut(mime, "/")
	switch {
	case class == "image" && !strings.HasPrefix(mime, "image/svg"):
		return domain.Image
	case class == "audio":
		return domain.Audio
	case class == "video":
		return domain.Video
	}
	return domain.Document
}
