package matrix

import (
	"cmp"
	"context"
	"net/url"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
)

// maxInText bounds the text of one event, in bytes; an event has fewer.
const maxInText = 64 << 10

// kinds are the messages that people write, and what a file of each is,
// https://spec.matrix.org/v1.15/client-server-api/#mroommessage-msgtypes.
var kinds = map[string]domain.AttachmentKind{
	"m.text": "", "m.emote": "", "m.notice": "",
	"m.image": domain.Image, "m.file": domain.Document, "m.audio": domain.Audio, "m.video": domain.Video,
}

// message maps a message; ok is false when it is not for us.
func (a *Adapter) message(ctx context.Context, id string, ev *event) (in domain.Inbound, ok bool, e *platform.Error) {
	self, c := a.self.Load(), contentOf(ev)
	thread := c.thread()
	if ev.Sender == self.user {
		if thread != "" {
			a.rooms.setThread(thread, true)
		}
		return in, false, nil
	}
	kind, known := kinds[c.MsgType]
	if !known || c.Relates.Type == "m.replace" || c.MsgType == "m.notice" && !a.cfg.AllowBots || a.cfg.Ignores(id, thread) {
		return in, false, nil
	}
	where, e := a.roomOf(ctx, id)
	if e != nil {
		return in, false, unlessGone(e)
	}
	if !where.direct && !a.heard(where, id) {
		return in, false, nil
	}
	at, text := a.attachment(kind, &c)
	said := a.read(self, &c, text)
	need := a.cfg.RequireMention && !where.direct && !where.matches(a.cfg.Free, id)
	answered := repliesTo(&c)
	// Whoever writes m.mentions names in it whom a reply is for.
	if answered != "" && (!need || said.mentioned || c.Mentions == nil) {
		to, e := a.eventAt(ctx, id, answered)
		if e != nil {
			return in, false, unlessGone(e)
		}
		if to != nil {
			said.mentioned = said.mentioned || to.Sender == self.user
			was := contentOf(to)
			in.ReplyText = clean.Clip(strings.TrimSpace(withoutFallback(clean.Text(was.Body), was.Relates.Reply.EventID != "")), maxInText)
		}
	}
	if thread != "" && need && !said.mentioned {
		if said.mentioned, e = a.inThread(ctx, self, id, thread); e != nil {
			return in, false, e
		}
	}
	if need && !said.mentioned {
		return in, false, nil
	}
	if said.text == "" && at == nil {
		return in, false, nil
	}
	if at != nil {
		in.Attachments = []domain.Attachment{*at}
	}
	in.Source = a.source(ctx, where, id, ev.Sender, thread)
	if thread == "" && (a.cfg.OwnThreads && !where.direct || a.cfg.DirectThreads) {
		in.ThreadID = ev.ID // the answer begins a thread
	}
	in.MessageID, in.EventID = ev.ID, ev.ID
	in.ChatListed = where.matches(a.cfg.Allowed, id)
	in.Text, in.Mentioned = clean.Clip(said.text, maxInText), said.mentioned || where.direct
	in.SentAt, in.ReceivedAt, in.State = time.UnixMilli(ev.TS), a.now(), domain.InboundReceived
	return in, true, nil
}

// source says where something came from and who did it.
func (a *Adapter) source(ctx context.Context, where room, id, user, thread string) domain.Source {
	who := a.userName(ctx, id, user)
	s := domain.Source{
		Address: domain.Address{Platform: Name, ChatID: id, ThreadID: thread}, Account: a.self.Load().user,
		ChatType: domain.ChatGroup, ChatName: clean.Name(where.name, where.alias, id), UserID: user, UserName: who,
	}
	if where.direct {
		s.ChatType, s.ChatName = domain.ChatDM, who
	}
	return s
}

// heard tells whether the configuration lets a room be heard at all. Who may
// talk is decided elsewhere.
func (a *Adapter) heard(where room, id string) bool {
	return len(a.cfg.Allowed) == 0 || where.matches(a.cfg.Allowed, id)
}

// repliesTo is the event that a message answers, or "". In a thread, clients
// that know none of threads are given an answer to the event before.
func repliesTo(c *content) string {
	if id := c.Relates.Reply.EventID; isEvent(id) && !(c.thread() != "" && c.Relates.Falling) {
		return id
	}
	return ""
}

// eventAt reads one event of a room; nil when it cannot be seen,
// https://spec.matrix.org/v1.15/client-server-api/#get_matrixclientv3roomsroomideventeventid.
func (a *Adapter) eventAt(ctx context.Context, room, id string) (*event, *platform.Error) {
	var all struct{ event }
	_, e := a.get(ctx, "/v3/rooms/"+url.PathEscape(room)+"/event/"+url.PathEscape(id), nil, &all)
	if e != nil && e.Kind == platform.GiveUp {
		return nil, nil
	}
	if e != nil {
		return nil, harmless(e, "a message that is spoken of could not be read")
	}
	return &all.event, nil
}

// inThread tells whether the account has written in a thread, or begun it: there
// it need not be named.
func (a *Adapter) inThread(ctx context.Context, self *identity, room, root string) (bool, *platform.Error) {
	if joined, known := a.rooms.thread(root); known {
		return joined, nil
	}
	first, e := a.eventAt(ctx, room, root)
	if e != nil {
		return false, e
	}
	joined := first != nil && (first.Sender == self.user || first.Unsigned.Relations.Thread.Joined)
	a.rooms.setThread(root, joined)
	return joined, nil
}

// unlessGone passes a failure on, unless it says that a thing is not there, or
// may not be seen (any more).
func unlessGone(e *platform.Error) *platform.Error {
	if e.Kind == platform.GiveUp {
		return nil
	}
	return e
}

// attachment is the file of a message, and the text beside it.
func (a *Adapter) attachment(kind domain.AttachmentKind, c *content) (*domain.Attachment, string) {
	if kind == "" {
		return nil, c.Body
	}
	text, name := "", cmp.Or(c.Filename, c.Body)
	if c.Filename != "" && c.Body != c.Filename {
		text = c.Body // a caption
	}
	if _, _, ok := mediaOf(c.URL); !ok {
		return nil, text
	}
	mime := clean.Clip(clean.Text(c.Info.MIMEType), 200)
	switch {
	case kind == domain.Audio && len(c.Voice) > 0:
		kind = domain.Voice
	case kind == domain.Image && strings.HasPrefix(mime, "image/svg"):
		kind = domain.Document
	}
	return &domain.Attachment{Kind: kind, Ref: c.URL, Name: clean.FileName(name), MIME: mime, Size: max(c.Info.Size, 0)}, text
}
