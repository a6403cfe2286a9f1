package discord

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// The parts of Discord's objects that are read here. The library's own types
// refuse a whole message for one part of a kind that they do not know.

// frame is a gateway payload,
// https://discord.com/developers/docs/events/gateway-events#payload-structure.
type frame struct {
	Op   int             `json:"op"`
	Data json.RawMessage `json:"d,omitempty"`
	Seq  int64           `json:"s,omitempty"`
	Type string          `json:"t,omitempty"`
}

type user struct {
	ID         string `json:"id"`
	Username   string `json:"username"`
	GlobalName string `json:"global_name"`
	Bot        bool   `json:"bot"`
}

// message, https://discord.com/developers/docs/resources/message#message-object.
type message struct {
	ID          string  `json:"id"`
	ChannelID   string  `json:"channel_id"`
	GuildID     string  `json:"guild_id"` // only in events
	Author      user    `json:"author"`
	WebhookID   string  `json:"webhook_id"`
	Member      *member `json:"member"` // only in events
	Type        int     `json:"type"`
	Flags       int     `json:"flags"`
	Content     string  `json:"content"`
	Mentions    []user  `json:"mentions"`
	Attachments []file  `json:"attachments"`
	Stickers    []struct {
		Name string `json:"name"`
	} `json:"sticker_items"`
	Snapshots []struct {
		Message struct {
			Content string `json:"content"`
		} `json:"message"`
	} `json:"message_snapshots"`
	Referenced *message `json:"referenced_message"`
}

// Message types and flags that are heard,
// https://discord.com/developers/docs/resources/message#message-object-message-types.
const (
	typeDefault = 0
	typeReply   = 19
	flagVoice   = 1 << 13
	flagSilent  = 1 << 12 // SUPPRESS_NOTIFICATIONS
	flagPrivate = 1 << 6  // EPHEMERAL
)

// file, https://discord.com/developers/docs/resources/message#attachment-object.
type file struct {
	ID          string `json:"id"`
	Filename    string `json:"filename"`
	ContentType string `json:"content_type"`
	Size        int64  `json:"size"`
	URL         string `json:"url"`
}

// channel, https://discord.com/developers/docs/resources/channel#channel-object.
type channel struct {
	ID          string `json:"id"`
	Type        int    `json:"type"`
	GuildID     string `json:"guild_id"`
	Name        string `json:"name"`
	ParentID    string `json:"parent_id"` // of a thread its channel; of a channel its category
	OwnerID     string `json:"owner_id"`
	LastMessage string `json:"last_message_id"`
}

// Channel types, as above.
const (
	guildText         = 0
	directMessage     = 1
	groupMessage      = 3
	guildAnnouncement = 5
	threadFirst       = 10 // announcement thread
	threadLast        = 12 // private thread
)

func (c channel) isThread() bool { return c.Type >= threadFirst && c.Type <= threadLast }

// holdsText tells whether people can write there.
func (c channel) holdsText() bool {
	switch c.Type {
	case 4, 14, 15, 16: // category, directory, forum, media: only their threads do
		return false
	}
	return true
}

// guild is a server as GUILD_CREATE shows it,
// https://discord.com/developers/docs/events/gateway-events#guild-create.
type guild struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Unavailable bool      `json:"unavailable"`
	Channels    []channel `json:"channels"`
	Threads     []channel `json:"threads"`
	Roles       []role    `json:"roles"`
}

// role, https://discord.com/developers/docs/topics/permissions#role-object.
type role struct {
	ID string `json:"id"`
}

// interaction, https://discord.com/developers/docs/interactions/receiving-and-responding#interaction-object.
type interaction struct {
	ID        string   `json:"id"`
	Token     string   `json:"token"`
	Type      int      `json:"type"`
	GuildID   string   `json:"guild_id"`
	ChannelID string   `json:"channel_id"`
	Channel   channel  `json:"channel"`
	Member    *member  `json:"member"` // where it is in a server
	User      *user    `json:"user"`
	Message   *message `json:"message"`
	Data      struct {
		Name     string `json:"name"`
		CustomID string `json:"custom_id"`
		Options  []struct {
			Value any `json:"value"`
		} `json:"options"`
	} `json:"data"`
}

// Interaction types and the answers to them, as above.
const (
	applicationCommand = 2
	messageComponent   = 3
	answerMessage      = 4
	answerDeferUpdate  = 6
)

// snowflake reads an id, https://discord.com/developers/docs/reference#snowflakes;
// 0 when it is none. Ids rise with time.
func snowflake(id string) uint64 {
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil || strings.HasPrefix(id, "+") {
		return 0
	}
	return n
}

// discordEpoch is the first instant of snowflakes, Unix milliseconds.
const discordEpoch = 1420070400000

// snowflakeAt is the lowest id of an instant.
func snowflakeAt(t time.Time) uint64 {
	return uint64(max(t.UnixMilli()-discordEpoch, 0)) << 22
}

func timeOf(id string) time.Time {
	return time.UnixMilli(int64(snowflake(id)>>22) + discordEpoch)
}

func later(x, y string) bool { return snowflake(x) > snowflake(y) }
