package discord

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// User is a person or a bot, https://discord.com/developers/docs/resources/user#user-object.
type User struct {
	ID         string `json:"id"`
	Username   string `json:"username"`
	GlobalName string `json:"global_name,omitempty"`
	Bot        bool   `json:"bot,omitempty"`
}

// Button is a button under a message.
type Button struct{ Label, Data string }

// File is an attachment.
type File struct {
	ID          string `json:"id"`
	Filename    string `json:"filename"`
	ContentType string `json:"content_type,omitempty"`
	Size        int    `json:"size"`
	URL         string `json:"url"`
}

// Message is a message as people see it.
type Message struct {
	ID, ChannelID string
	Author        User
	FromBot       bool // from the bot that this server serves
	Content       string
	ReplyTo       string
	Nonce         string
	Flags         int
	Type          int
	Buttons       []Button
	Files         []File
	Edits         []string // earlier contents
	Reactions     []string // of the bot
	Deleted       bool
	At            time.Time
}

// Command is a registered application command.
type Command struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Type        int    `json:"type"`
	Options     []struct {
		Type        int    `json:"type"`
		Name        string `json:"name"`
		Description string `json:"description"`
	} `json:"options"`
}

type guildState struct {
	id, name string
	channels []*channelState
	roles    []string
	members  map[string][]string // the roles of those who hold any
}

type channelState struct {
	id, name, parent, owner string
	kind                    int
	guild                   *guildState
	with                    *User // of a direct message
	messages                []*Message
	typing                  int
	read                    int // by Next
	hidden                  bool
}

// Channel types, https://discord.com/developers/docs/resources/channel#channel-object-channel-types.
const (
	typeText   = 0
	typeDM     = 1
	typeThread = 11
)

// AddUser makes a person.
func (s *Server) AddUser(name string) User { return s.addUser(name, false) }

// AddBot makes another bot.
func (s *Server) AddBot(name string) User { return s.addUser(name, true) }

func (s *Server) addUser(name string, bot bool) User {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &User{ID: s.newID(), Username: strings.ToLower(name), GlobalName: name, Bot: bot}
	s.users[u.ID] = u
	return *u
}

// DM gives the channel of a person's direct messages with the bot.
func (s *Server) DM(u User) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dm(u.ID).id
}

func (s *Server) dm(user string) *channelState {
	for _, c := range s.channels {
		if c.with != nil && c.with.ID == user {
			return c
		}
	}
	c := &channelState{id: s.newID(), kind: typeDM, with: s.users[user]}
	s.channels[c.id] = c
	return c
}

// AddGuild makes a server that the bot is in, and tells it.
func (s *Server) AddGuild(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := &guildState{id: s.newID(), name: name}
	s.guilds = append(s.guilds, g)
	s.tellAll(IntentGuilds, "GUILD_CREATE", func(*gwSession) any { return s.showGuild(g) })
	return g.id
}

// AddRole makes a role in a server.
func (s *Server) AddRole(guild string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.newID()
	for _, g := range s.guilds {
		if g.id == guild {
			g.roles = append(g.roles, id)
		}
	}
	return id
}

// Grant gives somebody the roles of a server that are named, in place of those
// that they had.
func (s *Server) Grant(u User, guild string, roles ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.guilds {
		if g.id != guild {
			continue
		}
		if g.members == nil {
			g.members = map[string][]string{}
		}
		g.members[u.ID] = roles
	}
}

func (g *guildState) rolesOf(user string) []string { return append([]string{}, g.members[user]...) }

// AddChannel makes a text channel in a server, and tells the bot.
func (s *Server) AddChannel(guild, name string) string {
	return s.addChannel(guild, &channelState{name: name, kind: typeText})
}

// RenameChannel gives a channel another name, and tells the bot.
func (s *Server) RenameChannel(id, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[id]
	c.name = name
	s.tellAll(IntentGuilds, "CHANNEL_UPDATE", func(*gwSession) any { return s.showChannel(c) })
}

// AddThread makes a thread in a channel, and tells the bot.
func (s *Server) AddThread(owner User, parent, name string) string {
	s.mu.Lock()
	guild := s.channels[parent].guild.id
	s.mu.Unlock()
	return s.addChannel(guild, &channelState{name: name, kind: typeThread, parent: parent, owner: owner.ID})
}

func (s *Server) addChannel(guild string, c *channelState) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.guilds, func(g *guildState) bool { return g.id == guild })
	c.id, c.guild = s.newID(), s.guilds[i]
	s.join(c)
	return c.id
}

// join makes a channel part of its server; the caller holds s.mu.
func (s *Server) join(c *channelState) {
	s.channels[c.id] = c
	c.guild.channels = append(c.guild.channels, c)
	kind := "CHANNEL_CREATE"
	if c.kind == typeThread {
		kind = "THREAD_CREATE"
	}
	s.tellAll(IntentGuilds, kind, func(*gwSession) any {
		v := s.showChannel(c)
		v["newly_created"] = true
		return v
	})
}

// Hide takes a channel away from the bot: it may neither read nor write there.
func (s *Server) Hide(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels[channel].hidden = true
}

// Post is what a person writes beside the text.
type Post struct {
	Text    string
	ReplyTo string // message id
	Files   map[string][]byte
	Mime    string // of the files
	Flags   int
	Type    int
}

// Say lets somebody write in a channel; it gives the message's id.
func (s *Server) Say(u User, channel, text string) string {
	return s.Write(u, channel, Post{Text: text})
}

// Write lets somebody write in a channel; it gives the message's id.
func (s *Server) Write(u User, channel string, p Post) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[channel]
	m := &Message{ID: s.newID(), ChannelID: channel, Author: u, Content: p.Text, ReplyTo: p.ReplyTo, Flags: p.Flags, Type: p.Type, At: s.now()}
	if p.ReplyTo != "" && p.Type == 0 {
		m.Type = 19
	}
	for name, data := range p.Files {
		m.Files = append(m.Files, s.store(channel, name, p.Mime, data))
	}
	s.add(c, m)
	return m.ID
}

// add shows a message and tells the bot; the caller holds s.mu.
func (s *Server) add(c *channelState, m *Message) {
	c.messages = append(c.messages, m)
	intent := IntentGuildMessages
	if c.guild == nil {
		intent = IntentDirectMessages
	}
	if c.hidden {
		s.Touch()
		return
	}
	s.tellAll(intent, "MESSAGE_CREATE", func(ses *gwSession) any {
		v := s.showMessage(c, m, ses.intents&IntentMessageContent != 0)
		if c.guild != nil {
			v["guild_id"] = c.guild.id
			v["member"] = map[string]any{"nick": nil, "roles": c.guild.rolesOf(m.Author.ID)}
		}
		return v
	})
}

// store keeps a file; the caller holds s.mu.
func (s *Server) store(channel, name, mime string, data []byte) File {
	f := File{ID: s.newID(), Filename: name, ContentType: mime, Size: len(data)}
	f.URL = "http://" + s.Addr() + "/attachments/" + channel + "/" + f.ID + "/" + strings.Map(func(r rune) rune {
		if strings.ContainsRune(`/\?#% `, r) {
			return '_' // as Discord does
		}
		return r
	}, name)
	s.files[f.ID] = data
	return f
}

// Press lets somebody press a button under a message; it gives the interaction's id.
func (s *Server) Press(u User, m Message, data string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[m.ChannelID]
	return s.interact(u, c, 3, map[string]any{"custom_id": data, "component_type": 2}, s.find(c, m.ID))
}

// Slash lets somebody use a registered command; it gives the interaction's id.
func (s *Server) Slash(u User, channel, command, text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	data := map[string]any{"id": "1", "type": 1, "name": command}
	if text != "" {
		data["options"] = []any{map[string]any{"name": "text", "type": 3, "value": text}}
	}
	return s.interact(u, s.channels[channel], 2, data, nil)
}

// interact tells the bot of an interaction; the caller holds s.mu.
func (s *Server) interact(u User, c *channelState, kind int, data any, m *Message) string {
	id := s.newID()
	s.presses[id] = false
	v := map[string]any{"id": id, "application_id": s.self.ID, "type": kind, "token": "interaction-" + id, "version": 1,
		"channel_id": c.id, "channel": s.showChannel(c), "data": data}
	if c.guild != nil {
		v["guild_id"], v["member"] = c.guild.id, map[string]any{"user": u, "roles": c.guild.rolesOf(u.ID)}
	} else {
		v["user"] = u
	}
	if m != nil {
		v["message"] = s.showMessage(c, m, true)
	}
	s.tellAll(0, "INTERACTION_CREATE", func(*gwSession) any { return v })
	return id
}

// WaitAnswered waits until the bot has answered an interaction.
func (s *Server) WaitAnswered(ctx context.Context, id string) error {
	return s.Until(ctx, func() bool { return s.presses[id] })
}

// find gives a message; the caller holds s.mu.
func (s *Server) find(c *channelState, id string) *Message {
	if c == nil {
		return nil
	}
	for _, m := range c.messages {
		if m.ID == id && !m.Deleted {
			return m
		}
	}
	return nil
}

// Delete takes a message away.
func (s *Server) Delete(channel, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.find(s.channels[channel], id); m != nil {
		m.Deleted = true
	}
}

// Next waits for the bot's next message in a channel: each call gives the one
// after the last that was given. Edits are no messages of their own.
func (s *Server) Next(ctx context.Context, channel string) (Message, error) {
	var found Message
	err := s.Until(ctx, func() bool {
		c := s.channels[channel]
		for ; c != nil && c.read < len(c.messages); c.read++ {
			if m := c.messages[c.read]; m.FromBot {
				c.read++
				found = *m
				return true
			}
		}
		return false
	})
	if err != nil {
		return found, fmt.Errorf("no message from the bot in channel %s: %w", channel, err)
	}
	return found, nil
}

// WaitFor waits until a channel shows a message, of anybody, that matches. match
// must not call the server.
func (s *Server) WaitFor(ctx context.Context, channel string, match func(Message) bool) (Message, error) {
	var found Message
	err := s.Until(ctx, func() bool {
		c := s.channels[channel]
		if c == nil {
			return false
		}
		for _, m := range c.messages {
			if match(*m) {
				found = *m
				return true
			}
		}
		return false
	})
	return found, err
}

// Messages is what a channel shows, oldest first, the deleted ones included.
func (s *Server) Messages(channel string) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Message
	if c := s.channels[channel]; c != nil {
		for _, m := range c.messages {
			out = append(out, *m)
		}
	}
	return out
}

// Replies is what the bot wrote in a channel, oldest first.
func (s *Server) Replies(channel string) []Message {
	return slices.DeleteFunc(s.Messages(channel), func(m Message) bool { return !m.FromBot })
}

// Typing counts the typing signals that a channel was shown.
func (s *Server) Typing(channel string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.channels[channel]; c != nil {
		return c.typing
	}
	return 0
}

// Commands are the registered commands.
func (s *Server) Commands() []Command {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.commands)
}

// Transcript is a channel as its people see it, for reading.
func (s *Server) Transcript(channel string) string {
	var b strings.Builder
	for _, m := range s.Messages(channel) {
		fmt.Fprintf(&b, "%s: %s", m.Author.Username, strings.ReplaceAll(m.Content, "\n", "\n    "))
		for _, f := range m.Files {
			fmt.Fprintf(&b, " [%s, %d bytes]", f.Filename, f.Size)
		}
		if n := len(m.Edits); n > 0 {
			fmt.Fprintf(&b, " (edited %d×)", n)
		}
		if m.Deleted {
			b.WriteString(" (deleted)")
		}
		b.WriteByte('\n')
		for _, k := range m.Buttons {
			b.WriteString("    [" + k.Label + "]\n")
		}
	}
	return b.String()
}
