package discord

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"hermes/internal/platform"
	"hermes/internal/platform/clean"
	"hermes/internal/platform/settings"
)

// classify turns the failure of a request into what the centre must know of it.
func (a *Adapter) classify(c *call) *platform.Error {
	if c.Status == 0 {
		return a.unanswered(c)
	}
	e := &platform.Error{Kind: platform.GiveUp, Code: "discord_" + strconv.Itoa(c.Status), Reason: "Discord refused " + c.what + ": " + a.scrubText(c.said())}
	switch {
	case c.Status == http.StatusTooManyRequests:
		d, global := c.pause()
		return limited(c.what, d, global)
	case c.Status >= 500:
		// The front end answers so also for requests that were carried out.
		e.Kind, e.Uncertain = platform.Retry, true
		e.Reason = "Discord has a fault of its own (" + http.StatusText(c.Status) + "): it is tried again"
	case c.Status == http.StatusUnauthorized:
		return a.improperToken()
	case c.Status == http.StatusRequestEntityTooLarge || c.reply.Code == 40005:
		e.Code, e.Reason = "discord_file", "Discord refused the file: it is larger than bots may send (10 MiB)"
	case !c.isJSON:
		e.Kind = platform.Retry
		e.Reason = "what answers at the API's address is not Discord (HTTP " + strconv.Itoa(c.Status) + "): check platforms.discord.extra.base_url and any proxy"
	default:
		a.refused(e, c)
	}
	return e
}

// improperToken is the refusal of the token, over REST or by close code 4004.
func (a *Adapter) improperToken() *platform.Error {
	return &platform.Error{Kind: platform.BadCredentials, Code: "discord_token",
		Reason: "LoginFailure: Improper token has been passed" + settings.Origin(a.cfg.TokenOrigin) + ": it was reset or copied wrongly; make a new one at https://discord.com/developers/applications (Bot → Reset Token) and put it there"}
}

// unanswered classifies a request that got no usable answer.
func (a *Adapter) unanswered(c *call) *platform.Error {
	e := &platform.Error{
		Kind: platform.Retry, Code: "discord_unreachable", Cause: a.scrub(c.Err), Uncertain: c.Wrote(),
		Reason: "Discord could not be reached: it is tried again",
	}
	switch {
	case e.Uncertain:
		e.Code = "discord_unknown"
		e.Reason = "the connection to Discord broke before it answered " + c.what + ", which may have been carried out"
		if errors.Is(c.Err, context.DeadlineExceeded) {
			e.Reason = "Discord did not answer " + c.what + " in time; it may have been carried out"
		}
	case errors.Is(c.Err, context.Canceled):
		e.Code, e.Reason = "discord_stopped", "stopped before "+c.what+" was sent"
	}
	return e
}

// said is the message of an error reply, bounded.
func (c *call) said() string {
	if !c.isJSON {
		return http.StatusText(c.Status)
	}
	s := c.reply.Message
	if len(c.reply.Errors) > 0 {
		s += " " + string(c.reply.Errors)
	}
	return clean.Clip(clean.Text(s), 300)
}

// JSON error codes that the adapter itself acts on,
// https://discord.com/developers/docs/topics/opcodes-and-status-codes#json.
const (
	unknownChannel = 10003
	unknownMessage = 10008
	threadExists   = 160004
)

// refusals are the codes that mean more than "give up".
var refusals = map[int]struct {
	kind   platform.Kind
	code   string
	reason string // "" keeps Discord's words
}{
	unknownChannel: {platform.GiveUp, "discord_chat", "there is no such channel, or the bot cannot see it: check the channel id, and invite the bot to the server"},
	unknownMessage: {platform.EditRefused, "discord_edit", "the message is gone"},
	50005:          {platform.EditRefused, "discord_edit", "the message is not the bot's own"},
	50001:          {platform.GiveUp, "discord_access", "the bot may not see that channel: give its role View Channel there"},
	50013:          {platform.GiveUp, "discord_rights", "the bot lacks a permission in that channel: give its role Send Messages, Send Messages in Threads, Create Public Threads, Attach Files and Read Message History"},
	50007:          {platform.GiveUp, "discord_blocked", "the user does not take direct messages from the bot: they must share a server with it and allow direct messages"},
	50278:          {platform.GiveUp, "discord_blocked", "the user does not take direct messages from the bot: they must share a server with it"},
	50006:          {platform.GiveUp, "discord_empty", "there is nothing in the message that Discord could show"},
	50035:          {platform.GiveUp, "discord_form", ""},
	50083:          {platform.GiveUp, "discord_archived", "the thread is archived: reopen it, or give the bot Manage Threads"},
	160005:         {platform.GiveUp, "discord_locked", "the thread is locked: unlock it, or give the bot Manage Threads"},
	40002:          {platform.Retry, "discord_verify", "Discord wants the bot's owner to verify their account before it may send"},
	20016:          {platform.Retry, "discord_slowmode", "the channel's slow mode is on: it is tried again"},
	50008:          {platform.GiveUp, "discord_chat", "that channel takes no messages"},
	50024:          {platform.GiveUp, "discord_chat", "that channel takes no messages"},
}

func (a *Adapter) refused(e *platform.Error, c *call) {
	r, ok := refusals[c.reply.Code]
	if !ok {
		return
	}
	e.Kind, e.Code = r.kind, r.code
	if r.reason != "" {
		e.Reason = r.reason
	}
	if c.reply.RetryAfter > 0 {
		e.RetryAfter, _ = c.pause()
	}
}
