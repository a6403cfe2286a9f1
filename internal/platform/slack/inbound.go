package slack

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
	"hermes/internal/platform/settings"
)

// Bounds of one event; Slack's own are lower.
const (
	maxInText  = 64 << 10 // bytes
	maxInFiles = 32
)

// subtypes are the kinds of messages that people and bots write; the others
// tell of what happened to a channel or a message
// (https://docs.slack.dev/reference/events/message#subtypes).
var subtypes = []string{"", "file_share", "thread_broadcast", "me_message", "bot_message"}

// messageOf reads the payload of an event and tells its kind; nil for what
// holds no message. An event about a channel gives its id.
func messageOf(payload []byte) (m *message, kind string) {
	var p eventPayload
	var t struct {
		Type    string          `json:"type"`
		Channel json.RawMessage `json:"channel"`
	}
	if json.Unmarshal(payload, &p) != nil || json.Unmarshal(p.Event, &t) != nil {
		return nil, ""
	}
	if t.Type != "message" && t.Type != "app_mention" {
		var ch channel
		id := ""
		if json.Unmarshal(t.Channel, &ch) != nil {
			_ = json.Unmarshal(t.Channel, &id)
		}
		return &message{Channel: cmp.Or(ch.ID, id)}, t.Type
	}
	m = &message{}
	if json.Unmarshal(p.Event, m) != nil || !isID(m.Channel) || !isTS(m.TS) {
		return nil, t.Type
	}
	return m, t.Type
}

// message maps a message; ok is false when it is not for us. The id of the
// event is that of the message, so that the socket, which may bring it twice
// (as message and as app_mention), and the history bring the same event.
func (a *Adapter) message(ctx context.Context, m *message, ch channel) (in domain.Inbound, ok bool, e *platform.Error) {
	self := a.self.Load()
	root := m.root()
	if self.wrote(m) {
		a.names.setThread(ch.ID, root, true)
		return in, false, nil
	}
	if !slices.Contains(subtypes, m.Subtype) || !isTS(m.TS) || !isTS(root) {
		return in, false, nil
	}
	if !ch.IsIM && !a.heard(ch) || a.cfg.Ignores(ch.ID, root) {
		return in, false, nil
	}
	said := a.read(ctx, self, m.Text)
	bot := m.BotID != "" || m.Subtype == "bot_message"
	if bot && a.cfg.AllowBots != settings.AllBots && !(a.cfg.AllowBots == settings.MentioningBots && said.mentioned) {
		return in, false, nil // two bots that answer each other never end
	}
	user := cmp.Or(m.User, m.BotID)
	if !isID(user) {
		return in, false, nil
	}
	if m.ThreadTS != "" && !ch.IsIM && !said.mentioned {
		if said.mentioned, e = a.inThread(ctx, self, m, ch.ID); e != nil {
			return in, false, e
		}
	}
	if !ch.IsIM && a.cfg.RequireMention && !said.mentioned && !matches(a.cfg.Free, ch) {
		return in, false, nil
	}
	in.Attachments = attachments(m)
	if said.text == "" && len(in.Attachments) == 0 {
		return in, false, nil
	}
	in.Source = a.source(ctx, ch, m, user)
	in.Platform, in.EventID, in.Account = Name, ch.ID+":"+m.TS, self.account()
	in.Text = clean.Clip(said.text, maxInText)
	in.Mentioned = said.mentioned || ch.IsIM
	in.ChatListed = matches(a.cfg.Allowed, ch)
	in.SentAt, in.ReceivedAt, in.State = timeOf(m.TS), a.now(), domain.InboundReceived
	return in, true, nil
}

// source says where a message came from and who wrote it.
func (a *Adapter) source(ctx context.Context, ch channel, m *message, user string) domain.Source {
	who := clean.Name(m.Username)
	if m.User != "" {
		name, e := a.userName(ctx, m.User)
		if e != nil { // a name is not worth a message
			a.log.Debug("a user's name could not be read", "user", m.User, "error", e)
			name = m.User
		}
		who = clean.Name(name)
	}
	s := domain.Source{
		Address:  domain.Address{Platform: Name, ChatID: ch.ID, ThreadID: m.ThreadTS},
		ChatType: domain.ChatGroup, ChatName: clean.Name(ch.Name), MessageID: m.TS, UserID: user, UserName: clean.Name(who, user),
	}
	switch {
	case ch.IsIM:
		s.ChatType, s.ChatName = domain.ChatDM, s.UserName
	case m.ThreadTS == "" && !a.cfg.NoThreads:
		s.ThreadID = m.TS // the answer begins a thread
	}
	return s
}

// heard tells whether the configuration lets a channel or group be heard at
// all. Who may talk is decided elsewhere.
func (a *Adapter) heard(ch channel) bool {
	return len(a.cfg.Allowed) == 0 || matches(a.cfg.Allowed, ch)
}

// reading is what a message says and to whom.
type reading struct {
	text      string // without what only addresses the bot
	mentioned bool
}

// read takes a message's text and finds out whether it is addressed to the bot:
// by a mention or by a configured pattern. @channel, @here and @everyone mean
// everybody, not the bot.
func (a *Adapter) read(ctx context.Context, self *identity, raw string) reading {
	whole := plainText(clean.Text(raw), func(kind byte, id, label string) string {
		switch {
		case kind == '@' && id == self.user:
			return selfMark
		case kind == '@' && label == "":
			name, e := a.userName(ctx, id)
			if e != nil {
				return "@" + id
			}
			return "@" + name
		case kind == '#' && label == "":
			ch, _ := a.names.channel(id)
			return "#" + cmp.Or(ch.Name, id)
		}
		return string(kind) + cmp.Or(label, id)
	})
	var r reading
	r.text, r.mentioned = withoutSelf(whole, self.name)
	r.mentioned = r.mentioned || a.cfg.Addressed(r.text)
	r.text = a.commands.Read(r.text)
	return r
}

// attachments are the files of a message that can still be had.
func attachments(m *message) []domain.Attachment {
	var out []domain.Attachment
	for _, f := range m.Files {
		if !isID(f.ID) || f.Mode == "tombstone" || f.Mode == "hidden_by_limit" || len(out) == maxInFiles {
			continue
		}
		mime := clean.Clip(clean.Text(f.MIMEType), 200)
		out = append(out, domain.Attachment{Kind: kindOf(mime, f.Subtype), Ref: f.ID, Name: clean.FileName(cmp.Or(f.Name, f.Title, "file_"+f.ID)), MIME: mime, Size: max(f.Size, 0)})
	}
	return out
}

func kindOf(mime, subtype string) domain.AttachmentKind {
	class, _, _ := strings.Cut(mime, "/")
	switch {
	case subtype == "slack_audio":
		return domain.Voice
	case class == "image" && !strings.HasPrefix(mime, "image/svg"):
		return domain.Image
	case class == "audio":
		return domain.Audio
	case class == "video":
		return domain.Video
	}
	return domain.Document
}

// press reads a pressed button; ok is false when it is something else.
func (a *Adapter) press(f *envelope) (in domain.Inbound, ok bool) {
	var p interaction
	if json.Unmarshal(f.Payload, &p) != nil || p.Type != "block_actions" || len(p.Actions) == 0 || !isID(p.User.ID) {
		return in, false
	}
	act := p.Actions[0]
	at := cmp.Or(p.Message.TS, p.Container.MessageTS)
	ch := channel{ID: cmp.Or(p.Channel.ID, p.Container.ChannelID), Name: p.Channel.Name}
	text := strings.TrimSpace(clean.Text(act.Value))
	if act.Type != "button" || text == "" || !strings.HasPrefix(act.ActionID, actionPrefix) || !isTS(at) || !isID(ch.ID) {
		return in, false
	}
	thread := cmp.Or(p.Message.ThreadTS, p.Container.ThreadTS)
	in, ok = a.direct(ch, cmp.Or(p.User.Name, p.User.Username), p.User.ID, thread, text)
	in.EventID = strings.Join([]string{"press", ch.ID, at, p.User.ID, clean.Clip(act.ActionTS, 40)}, ":")
	in.MessageID, in.Button = at, true
	return in, ok
}

// command reads a slash command that the app has in its settings: /hermes with
// one of ours behind it, or one of ours by its own name. Anything else that is
// said to it is a message.
func (a *Adapter) command(f *envelope) (in domain.Inbound, ok bool) {
	var c slashCommand
	if json.Unmarshal(f.Payload, &c) != nil || !isID(c.UserID) || !isID(c.ChannelID) || c.TriggerID == "" {
		return in, false
	}
	name := strings.ToLower(strings.TrimPrefix(strings.TrimSpace(clean.Text(c.Command)), "/"))
	said := strings.TrimSpace(plainText(clean.Text(c.Text), func(kind byte, id, label string) string { return string(kind) + cmp.Or(label, id) }))
	text := said
	word, _, _ := strings.Cut(strings.TrimLeft(said, "/!"), " ")
	switch {
	case a.commands.Has(name):
		text = strings.TrimSpace("/" + name + " " + said)
	case a.commands.Has(word):
		text = "/" + strings.TrimLeft(said, "/!")
	}
	if text == "" {
		text = "/help"
	}
	ch := channel{ID: c.ChannelID, Name: c.ChannelName}
	in, ok = a.direct(ch, c.UserName, c.UserID, "", text)
	in.EventID = "command:" + clean.Clip(clean.Text(c.TriggerID), 100)
	return in, ok
}

// direct is what somebody said to the bot in another way than by a message.
// Nothing is asked of Slack for it, which shows it as failed after three seconds.
func (a *Adapter) direct(ch channel, who, user, thread, text string) (in domain.Inbound, ok bool) {
	if known, has := a.names.channel(ch.ID); has {
		ch = known
	} else if ch.ID[0] == 'D' || ch.Name == "directmessage" {
		ch.IsIM = true
	}
	if !ch.IsIM && !a.heard(ch) || thread != "" && !isTS(thread) {
		return in, false
	}
	who = clean.Name(who, user)
	in.Source = domain.Source{
		Address:  domain.Address{Platform: Name, ChatID: ch.ID, ThreadID: thread},
		ChatType: domain.ChatGroup, ChatName: clean.Name(ch.Name), UserID: user, UserName: who,
	}
	if ch.IsIM {
		in.ChatType, in.ChatName = domain.ChatDM, who
	}
	in.Platform, in.Account, in.Text, in.Mentioned = Name, a.self.Load().account(), clean.Clip(text, maxInText), true
	in.SentAt, in.ReceivedAt, in.State = a.now(), a.now(), domain.InboundReceived
	in.ChatListed = matches(a.cfg.Allowed, ch)
	return in, true
}
