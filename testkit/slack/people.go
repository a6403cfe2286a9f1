package slack

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Channel is a conversation.
type Channel struct {
	ID       string
	Name     string
	Kind     string // im, mpim, public_channel or private_channel
	Archived bool
}

// channelState is a conversation and what it shows. It is guarded by Server.mu.
type channelState struct {
	Channel
	user      string // the other side of an im
	shown     []*message
	ephemeral []Message
	read      int // position of Next
	outside   bool
	typing    int
}

func (c *channelState) find(ts string) *message {
	if i := slices.IndexFunc(c.shown, func(m *message) bool { return m.TS == ts }); i >= 0 {
		return c.shown[i]
	}
	return nil
}

// message is what one shows.
type message struct {
	TS, Thread, User, BotID, Subtype, Text string
	Metadata                               map[string]any
	files                                  []*stored
	attachments                            []any
	raw                                    map[string]any // more fields, as a test wants them

	plain     bool
	deleted   bool
	edits     []string
	reactions []string
	channel   string
}

// object is a message as the API gives it; the caller holds s.mu.
func (s *Server) object(m *message) map[string]any {
	o := map[string]any{"type": "message", "user": m.User, "text": m.Text, "ts": m.TS, "team": teamID,
		"blocks": []any{map[string]any{"type": "rich_text", "block_id": "b", "elements": []any{}}}}
	set := func(key, value string) {
		if value != "" {
			o[key] = value
		}
	}
	set("bot_id", m.BotID)
	set("subtype", m.Subtype)
	set("thread_ts", m.Thread)
	c := s.channels[m.channel]
	if m.Thread != "" && m.Thread != m.TS {
		if root := c.find(m.Thread); root != nil {
			set("parent_user_id", root.User)
		}
	}
	for _, r := range c.shown {
		if r.Thread == m.TS && r != m && !r.deleted {
			o["thread_ts"], o["latest_reply"] = m.TS, r.TS
		}
	}
	if len(m.files) > 0 {
		var files []any
		for _, f := range m.files {
			files = append(files, s.fileObject(f))
		}
		o["files"] = files
	}
	if len(m.attachments) > 0 {
		o["attachments"] = m.attachments
	}
	for k, v := range m.raw {
		o[k] = v
	}
	return o
}

// Message is what a conversation shows at one place.
type Message struct {
	TS        string
	Channel   string
	FromBot   bool
	From      string // name
	Thread    string // the ts of the first message of its thread, or ""
	Text      string
	Metadata  map[string]any
	Buttons   []Button
	Files     []File
	Edits     []string // what Text was before, oldest first
	Reactions []string // the bot's
	Plain     bool     // shown without markup
	Only      string   // of an ephemeral one: who sees it
}

// Button is one that a message has.
type Button struct{ Label, ActionID, Value string }

// File is a file under a message. One with a URL is kept elsewhere.
type File struct {
	ID, Name, MIME string
	Data           []byte
	URL            string
}

// AddUser makes a person.
func (s *Server) AddUser(name string) User {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &User{ID: s.newID("U"), Name: name}
	s.users[u.ID] = u
	return *u
}

// Direct is the id of the direct conversation with a person, which is opened
// if it is not.
func (s *Server) Direct(u User) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.direct(u.ID)
}

func (s *Server) direct(user string) string {
	for _, c := range s.channels {
		if c.Kind == "im" && c.user == user {
			return c.ID
		}
	}
	return s.add(Channel{Kind: "im"}, user)
}

// AddChannel makes a conversation that the bot is in: public_channel,
// private_channel or mpim. It gives its id.
func (s *Server) AddChannel(name, kind string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.add(Channel{Name: name, Kind: kind}, "")
}

// AddChannelOnce gives the id of a public channel, which it makes if it is not
// there.
func (s *Server) AddChannelOnce(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.order {
		if c := s.channels[id]; c.Name == name {
			return id
		}
	}
	return s.add(Channel{Name: name, Kind: "public_channel"}, "")
}

func (s *Server) add(c Channel, user string) string {
	prefix := map[string]string{"im": "D", "mpim": "G"}[c.Kind]
	if prefix == "" {
		prefix = "C"
	}
	c.ID = s.newID(prefix)
	s.channels[c.ID] = &channelState{Channel: c, user: user}
	s.order = append(s.order, c.ID)
	return c.ID
}

// Outside takes the bot out of a conversation, or back in.
func (s *Server) Outside(channel string, out bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels[channel].outside = out
}

// Archive archives a channel.
func (s *Server) Archive(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels[channel].Archived = true
}

// RenameChannel gives a channel another name, and tells the app.
func (s *Server) RenameChannel(channel, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels[channel].Name = name
	s.event(map[string]any{"type": "channel_rename", "channel": map[string]any{"id": channel, "name": name}})
}

// Revoke makes the bot's token invalid, or valid again.
func (s *Server) Revoke(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = s.o.Token
	if on {
		s.token = "revoked"
	}
}

// DropScope takes a permission away from the app, e.g. "mpim:read".
func (s *Server) DropScope(scope string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noScope[scope] = true
}

// Post is what a person writes.
type Post struct {
	From    User
	Channel string
	Text    string // as Slack sends it: <@U…> for a mention
	Thread  string // the ts of the thread's first message
	Subtype string
	BotID   string
	Files   []File
	Raw     map[string]any // more fields
	Mention bool           // an app_mention comes too
	Unheard bool           // no event is sent, as when a connection loses it
}

// Say lets a person write. What looks like markup is escaped, but for mentions.
func (s *Server) Say(from User, channel, text string) Message {
	text = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
	text = strings.ReplaceAll(text, "&lt;@"+s.self.ID+"&gt;", s.Mention())
	return s.Post(Post{From: from, Channel: channel, Text: text})
}

// Post lets a person write, and tells the app. A conversation that does not
// exist is a mistake of the test and panics.
func (s *Server) Post(p Post) Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[p.Channel]
	m := &message{User: p.From.ID, BotID: p.BotID, Text: p.Text, Thread: p.Thread, Subtype: p.Subtype, raw: p.Raw}
	for _, f := range p.Files {
		n := s.store(f.Name, f.MIME, f.Data)
		n.url = f.URL
		m.files = append(m.files, n)
	}
	if len(p.Files) > 0 && m.Subtype == "" {
		m.Subtype = "file_share"
	}
	if p.Unheard {
		s.record(c, m)
		return s.message(m)
	}
	s.show(c, m)
	if p.Mention {
		o := s.object(m)
		o["type"], o["channel"], o["event_ts"] = "app_mention", c.ID, m.TS
		s.event(o)
	}
	return s.message(m)
}

// record adds a message to the history; the caller holds s.mu.
func (s *Server) record(c *channelState, m *message) {
	m.TS, m.channel = s.stamp(), c.ID
	c.shown = append(c.shown, m)
	s.Touch()
}

// show adds a message and tells the app; the caller holds s.mu.
func (s *Server) show(c *channelState, m *message) {
	s.record(c, m)
	o := s.object(m)
	o["channel"], o["event_ts"] = c.ID, m.TS
	o["channel_type"] = map[string]string{"im": "im", "mpim": "mpim", "public_channel": "channel", "private_channel": "group"}[c.Kind]
	if !c.outside {
		s.event(o)
	}
}

// event sends an event, https://docs.slack.dev/apis/events-api/#event-type-structure;
// the caller holds s.mu.
func (s *Server) event(event map[string]any) string {
	return s.deliver("events_api", map[string]any{"token": "verification", "team_id": teamID, "api_app_id": appID, "type": "event_callback",
		"event_id": s.newID("Ev"), "event_time": s.o.Now().Unix(), "event": event})
}

// Event sends any event.
func (s *Server) Event(event map[string]any) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.event(event)
}

// Edit changes what a person wrote, and tells the app.
func (s *Server) Edit(channel, ts, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.channels[channel].find(ts)
	m.Text = text
	s.event(map[string]any{"type": "message", "subtype": "message_changed", "channel": channel, "ts": s.stamp(), "message": s.object(m)})
}

// Delete deletes a message.
func (s *Server) Delete(channel, ts string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels[channel].find(ts).deleted = true
}

// Press lets a person press the nth button of a message. It gives the id of
// the envelope, https://docs.slack.dev/reference/interaction-payloads/block_actions-payload.
func (s *Server) Press(by User, m Message, n int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, c := m.Buttons[n], s.channels[m.Channel]
	body := s.object(c.find(m.TS))
	return s.deliver("interactive", map[string]any{
		"type": "block_actions", "api_app_id": appID, "team": map[string]any{"id": teamID}, "trigger_id": s.newID("X"),
		"user":      map[string]any{"id": by.ID, "username": strings.ToLower(by.Name), "name": by.Name, "team_id": teamID},
		"channel":   map[string]any{"id": c.ID, "name": c.Name},
		"container": map[string]any{"type": "message_attachment", "message_ts": m.TS, "channel_id": c.ID, "is_ephemeral": false},
		"message":   body,
		"actions": []any{map[string]any{"action_id": b.ActionID, "block_id": "b", "type": "button", "value": b.Value, "action_ts": s.stamp(),
			"text": map[string]any{"type": "plain_text", "text": b.Label}}},
	})
}

// Command lets a person use a slash command. It gives the id of the envelope,
// https://docs.slack.dev/interactivity/implementing-slash-commands#app_command_handling.
func (s *Server) Command(by User, channel, command, text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := s.channels[channel].Name
	if s.channels[channel].Kind == "im" {
		name = "directmessage"
	}
	return s.deliver("slash_commands", map[string]any{"token": "verification", "team_id": teamID, "api_app_id": appID, "channel_id": channel,
		"channel_name": name, "user_id": by.ID, "user_name": strings.ToLower(by.Name), "command": command, "text": text,
		"trigger_id": s.newID("X"), "response_url": "https://hooks.slack.com/commands/none"})
}

// message is a message as people see it; the caller holds s.mu.
func (s *Server) message(m *message) Message {
	out := Message{TS: m.TS, Channel: m.channel, FromBot: m.User == s.self.ID, Thread: m.Thread, Text: m.Text, Metadata: m.Metadata,
		Edits: slices.Clone(m.edits), Reactions: slices.Clone(m.reactions), Plain: m.plain, Buttons: buttonsOf(m.attachments)}
	if u := s.users[m.User]; u != nil {
		out.From = u.Name
	}
	for _, f := range m.files {
		out.Files = append(out.Files, File{ID: f.id, Name: f.name, MIME: f.kind, Data: f.data})
	}
	return out
}

// buttonsOf finds the buttons of a message's attachments.
func buttonsOf(attachments []any) (out []Button) {
	b, err := json.Marshal(attachments)
	if err != nil {
		return nil
	}
	var list []struct {
		Blocks []struct {
			Elements []struct {
				Type     string `json:"type"`
				ActionID string `json:"action_id"`
				Value    string `json:"value"`
				Text     struct {
					Text string `json:"text"`
				} `json:"text"`
			} `json:"elements"`
		} `json:"blocks"`
	}
	if json.Unmarshal(b, &list) != nil {
		return nil
	}
	for _, a := range list {
		for _, block := range a.Blocks {
			for _, e := range block.Elements {
				if e.Type == "button" {
					out = append(out, Button{Label: e.Text.Text, ActionID: e.ActionID, Value: e.Value})
				}
			}
		}
	}
	return out
}

// Messages is what a conversation shows, oldest first.
func (s *Server) Messages(channel string) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Message
	for _, m := range s.channels[channel].shown {
		out = append(out, s.message(m))
	}
	return out
}

// Replies is what the bot wrote in a conversation, oldest first.
func (s *Server) Replies(channel string) []Message {
	return slices.DeleteFunc(s.Messages(channel), func(m Message) bool { return !m.FromBot })
}

// Next waits for the bot's next message in a conversation: each call gives the
// one after the last that was given. Edits are no messages of their own.
func (s *Server) Next(ctx context.Context, channel string) (Message, error) {
	var found Message
	err := s.Until(ctx, func() bool {
		c := s.channels[channel]
		for ; c.read < len(c.shown); c.read++ {
			if m := c.shown[c.read]; m.User == s.self.ID {
				c.read++
				found = s.message(m)
				return true
			}
		}
		return false
	})
	if err != nil {
		return Message{}, fmt.Errorf("no message of the bot in %s: %w", channel, err)
	}
	return found, nil
}

// WaitFor waits until a conversation shows a message, of anybody, that matches.
func (s *Server) WaitFor(ctx context.Context, channel string, match func(Message) bool) (Message, error) {
	var found Message
	err := s.Until(ctx, func() bool {
		for _, m := range s.channels[channel].shown {
			if v := s.message(m); match(v) {
				found = v
				return true
			}
		}
		return false
	})
	return found, err
}

// Typing counts how often a conversation was shown that the bot writes.
func (s *Server) Typing(channel string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.channels[channel].typing
}
