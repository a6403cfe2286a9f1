package mattermost

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Channel is a channel, https://api.mattermost.com/#tag/channels.
type Channel struct {
	ID          string `json:"id"`
	TeamID      string `json:"team_id"` // "" for D and G
	Type        string `json:"type"`    // D, G, O or P
	Name        string `json:"name"`
	DisplayName string `json:"display_name"`
	LastPostAt  int64  `json:"last_post_at"`
	DeleteAt    int64  `json:"delete_at"`
}

// channelState is a channel and what it shows. It is guarded by Server.mu.
type channelState struct {
	Channel
	shown     []string // posts, oldest first
	read      int      // position of Next
	forbidden bool
	typing    int
}

// post is https://api.mattermost.com/#tag/posts.
type post struct {
	ID            string         `json:"id"`
	CreateAt      int64          `json:"create_at"`
	UpdateAt      int64          `json:"update_at"`
	EditAt        int64          `json:"edit_at"`
	DeleteAt      int64          `json:"delete_at"`
	UserID        string         `json:"user_id"`
	ChannelID     string         `json:"channel_id"`
	RootID        string         `json:"root_id"`
	Message       string         `json:"message"`
	Type          string         `json:"type"`
	Props         map[string]any `json:"props"`
	FileIDs       []string       `json:"file_ids,omitempty"`
	PendingPostID string         `json:"pending_post_id"`
	Metadata      metadata       `json:"metadata"`

	edits     []string
	reactions []string
	buttons   []button
}

type metadata struct {
	Files []fileInfo `json:"files,omitempty"`
}

// fileInfo is https://api.mattermost.com/#tag/files.
type fileInfo struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Extension string `json:"extension"`
	Size      int64  `json:"size"`
	MIMEType  string `json:"mime_type"`
}

type stored struct {
	info fileInfo
	data []byte
}

// Message is what a channel shows at one place.
type Message struct {
	ID        string
	Channel   string
	FromBot   bool
	From      string // user name
	Root      string // the first post of its thread, or ""
	Text      string
	Props     map[string]any
	Files     []File
	At        time.Time
	Edits     []string // what Text was before, oldest first
	Reactions []string // the bot's
	Buttons   []string // names of the native ones
	Deleted   bool
}

// File is a file under a message.
type File struct {
	ID, Name, MIME string
	Data           []byte
}

// AddUser makes a person and the direct channel with them.
func (s *Server) AddUser(name string) User {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &User{ID: s.newID("u"), Username: strings.ToLower(name)}
	s.users[u.ID] = u
	s.addChannel(Channel{Type: "D", Name: s.directName(u.ID)})
	return *u
}

// directName is how direct channels are called: both ids in order.
func (s *Server) directName(user string) string {
	return min(user, s.self.ID) + "__" + max(user, s.self.ID)
}

// Direct is the id of the direct channel with a person.
func (s *Server) Direct(u User) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.direct(u)
}

func (s *Server) direct(u User) string {
	for _, c := range s.channels {
		if c.Type == "D" && c.Name == s.directName(u.ID) {
			return c.ID
		}
	}
	panic("mattermost fake: there is no such user")
}

// AddChannel makes a channel that the bot is in; kind is O, P or G.
func (s *Server) AddChannel(name, kind string) Channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addChannel(Channel{Type: kind, Name: strings.ToLower(name), DisplayName: name})
}

func (s *Server) addChannel(c Channel) Channel {
	c.ID = s.newID("c")
	if c.Type == "O" || c.Type == "P" {
		c.TeamID = teamID
	}
	s.channels[c.ID] = &channelState{Channel: c}
	s.order = append(s.order, c.ID)
	return c
}

// Forbid makes a channel refuse the bot, or let it in again.
func (s *Server) Forbid(channel string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels[channel].forbidden = on
}

// Archive archives a channel.
func (s *Server) Archive(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels[channel].DeleteAt = s.stamp()
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

// ForgetPending empties what is remembered of pending_post_id, as half a
// minute or a restart of the server does.
func (s *Server) ForgetPending() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.pending)
}

// Post is what a person writes.
type Post struct {
	From    User
	Channel string // "": the direct channel with From
	Text    string
	Root    string // the first post of the thread
	Files   []File
	Type    string         // of a system message
	Props   map[string]any // e.g. from_bot: "true"
}

// Say lets a person write to the bot directly.
func (s *Server) Say(from User, text string) Message { return s.Post(Post{From: from, Text: text}) }

// Post lets a person write, and tells the bot. A channel that does not exist
// is a mistake of the test and panics.
func (s *Server) Post(p Post) Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.Channel == "" {
		p.Channel = s.direct(p.From)
	}
	n := &post{UserID: p.From.ID, ChannelID: p.Channel, RootID: p.Root, Message: p.Text, Type: p.Type, Props: p.Props}
	for _, f := range p.Files {
		n.FileIDs = append(n.FileIDs, s.store(f.Name, f.MIME, f.Data).ID)
	}
	s.show(n)
	return s.message(n)
}

// show adds a post and tells the bot; the caller holds s.mu.
func (s *Server) show(p *post) {
	c := s.channels[p.ChannelID]
	if c == nil {
		panic("mattermost fake: there is no such channel")
	}
	p.ID, p.CreateAt = s.newID("p"), s.stamp()
	p.UpdateAt = p.CreateAt
	if p.Props == nil {
		p.Props = map[string]any{}
	}
	for _, id := range p.FileIDs {
		p.Metadata.Files = append(p.Metadata.Files, s.files[id].info)
	}
	s.posts[p.ID] = p
	c.shown = append(c.shown, p.ID)
	c.LastPostAt = p.CreateAt
	s.Touch()
	text, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	data := map[string]any{
		"channel_display_name": c.DisplayName, "channel_name": c.Name, "channel_type": c.Type, "post": string(text),
		"sender_name": "@" + s.users[p.UserID].Username, "set_online": true, "team_id": "",
	}
	for k := range s.sockets {
		s.emit(k, event{Event: "posted", Data: data, Broadcast: map[string]any{"channel_id": c.ID}})
	}
}

// Edit changes what a person wrote.
func (s *Server) Edit(id, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.edit(s.posts[id], text)
}

func (s *Server) edit(p *post, text string) {
	p.edits = append(p.edits, p.Message)
	p.Message, p.UpdateAt = text, s.stamp()
	p.EditAt = p.UpdateAt
	s.Touch()
}

// Delete deletes a post; it stays in what was changed since.
func (s *Server) Delete(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.posts[id]
	p.DeleteAt = s.stamp()
	p.UpdateAt = p.DeleteAt
	s.Touch()
}

// Press lets a person add a reaction to a post, and tells the bot.
func (s *Server) Press(by User, post, emoji string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reacted(s.posts[post], by.ID, emoji)
}

// reacted tells the bot of a reaction; the caller holds s.mu.
func (s *Server) reacted(p *post, user, emoji string) {
	p.UpdateAt = s.stamp()
	text, err := json.Marshal(map[string]any{"user_id": user, "post_id": p.ID, "emoji_name": emoji, "create_at": p.UpdateAt})
	if err != nil {
		panic(err)
	}
	s.Touch()
	for k := range s.sockets {
		s.emit(k, event{Event: "reaction_added", Data: map[string]any{"reaction": string(text)}, Broadcast: map[string]any{"channel_id": p.ChannelID}})
	}
}

// message is a post as people see it; the caller holds s.mu.
func (s *Server) message(p *post) Message {
	m := Message{ID: p.ID, Channel: p.ChannelID, FromBot: p.UserID == s.self.ID, From: s.users[p.UserID].Username, Root: p.RootID, Text: p.Message,
		Props: maps.Clone(p.Props), At: time.UnixMilli(p.CreateAt), Edits: slices.Clone(p.edits), Reactions: slices.Clone(p.reactions), Deleted: p.DeleteAt != 0}
	for _, b := range p.buttons {
		m.Buttons = append(m.Buttons, b.Name)
	}
	for _, id := range p.FileIDs {
		f := s.files[id]
		m.Files = append(m.Files, File{ID: id, Name: f.info.Name, MIME: f.info.MIMEType, Data: f.data})
	}
	return m
}

// Messages is what a channel shows, oldest first, the deleted ones included.
func (s *Server) Messages(channel string) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Message
	for _, id := range s.channels[channel].shown {
		out = append(out, s.message(s.posts[id]))
	}
	return out
}

// Replies is what the bot wrote in a channel, oldest first.
func (s *Server) Replies(channel string) []Message {
	return slices.DeleteFunc(s.Messages(channel), func(m Message) bool { return !m.FromBot })
}

// Next waits for the bot's next post in a channel: each call gives the one
// after the last that was given. Edits are no posts of their own.
func (s *Server) Next(ctx context.Context, channel string) (Message, error) {
	var found Message
	err := s.Until(ctx, func() bool {
		c := s.channels[channel]
		for ; c.read < len(c.shown); c.read++ {
			if p := s.posts[c.shown[c.read]]; p.UserID == s.self.ID {
				c.read++
				found = s.message(p)
				return true
			}
		}
		return false
	})
	if err != nil {
		return Message{}, fmt.Errorf("no post of the bot in channel %s: %w", channel, err)
	}
	return found, nil
}

// WaitFor waits until a channel shows a message, of anybody, that matches.
func (s *Server) WaitFor(ctx context.Context, channel string, match func(Message) bool) (Message, error) {
	var found Message
	err := s.Until(ctx, func() bool {
		for _, id := range s.channels[channel].shown {
			if m := s.message(s.posts[id]); match(m) {
				found = m
				return true
			}
		}
		return false
	})
	return found, err
}

// Typing counts how often a channel was shown that the bot writes.
func (s *Server) Typing(channel string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.channels[channel].typing
}

// RenameChannel gives a channel another name, and tells the bot.
func (s *Server) RenameChannel(id, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[id]
	c.Name, c.DisplayName = strings.ToLower(name), name
	s.Touch()
	for k := range s.sockets {
		s.emit(k, event{Event: "channel_updated", Data: map[string]any{"channel": "{}"}, Broadcast: map[string]any{"channel_id": id}})
	}
}

// AddChannelOnce gives the id of an open channel, which it makes if it is not
// there.
func (s *Server) AddChannelOnce(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.order {
		if c := s.channels[id]; c.Type == "O" && c.DisplayName == name {
			return id
		}
	}
	return s.addChannel(Channel{Type: "O", Name: strings.ToLower(name), DisplayName: name}).ID
}
