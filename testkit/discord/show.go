package discord

import (
	"regexp"
	"time"
)

// showGuild is GUILD_CREATE's form of a server,
// https://discord.com/developers/docs/events/gateway-events#guild-create; the
// caller holds s.mu.
func (s *Server) showGuild(g *guildState) map[string]any {
	channels, threads := []any{}, []any{}
	for _, c := range g.channels {
		switch {
		case c.hidden:
		case c.kind == typeThread:
			threads = append(threads, s.showChannel(c))
		default:
			channels = append(channels, s.showChannel(c))
		}
	}
	roles := []any{map[string]any{"id": g.id, "name": "@everyone"}}
	for _, id := range g.roles {
		roles = append(roles, map[string]any{"id": id, "name": "role " + id})
	}
	return map[string]any{"id": g.id, "name": g.name, "roles": roles, "channels": channels, "threads": threads, "member_count": len(s.users), "joined_at": time.Time{}}
}

// showChannel, https://discord.com/developers/docs/resources/channel#channel-object.
func (s *Server) showChannel(c *channelState) map[string]any {
	v := map[string]any{"id": c.id, "type": c.kind, "last_message_id": nil}
	if n := len(c.messages); n > 0 {
		v["last_message_id"] = c.messages[n-1].ID
	}
	if c.guild != nil {
		v["guild_id"], v["name"], v["parent_id"] = c.guild.id, c.name, nil
		if c.parent != "" {
			v["parent_id"] = c.parent
		}
	}
	if c.owner != "" {
		v["owner_id"] = c.owner
	}
	if c.with != nil {
		v["recipients"] = []User{*c.with}
	}
	return v
}

var mention = regexp.MustCompile(`<@!?(\d+)>`)

// showMessage, https://discord.com/developers/docs/resources/message#message-object.
// Without the intent, content is shown only of direct messages, of the bot's own
// and of those that mention it,
// https://discord.com/developers/docs/events/gateway#message-content-intent.
func (s *Server) showMessage(c *channelState, m *Message, content bool) map[string]any {
	mentions, mine := []User{}, false
	for _, found := range mention.FindAllStringSubmatch(m.Content, -1) {
		if u := s.users[found[1]]; u != nil {
			mentions = append(mentions, *u)
			mine = mine || u.ID == s.self.ID
		}
	}
	v := map[string]any{
		"id": m.ID, "channel_id": c.id, "author": m.Author, "content": m.Content, "timestamp": m.At.UTC().Format(time.RFC3339Nano),
		"edited_timestamp": nil, "tts": false, "mention_everyone": false, "mentions": mentions, "mention_roles": []string{},
		"attachments": append([]File{}, m.Files...), "embeds": []any{}, "pinned": false, "type": m.Type, "flags": m.Flags,
	}
	if m.ReplyTo != "" {
		v["message_reference"] = map[string]any{"message_id": m.ReplyTo, "channel_id": c.id}
		v["referenced_message"] = nil
		if r := s.find(c, m.ReplyTo); r != nil {
			old := s.showMessage(c, &Message{ID: r.ID, Author: r.Author, Content: r.Content, At: r.At, Files: r.Files}, true)
			v["referenced_message"] = old
			mine = mine || r.FromBot
		}
	}
	if m.Nonce != "" {
		v["nonce"] = m.Nonce
	}
	if !content && !mine && c.guild != nil && !m.FromBot {
		v["content"], v["attachments"] = "", []File{}
	}
	return v
}
