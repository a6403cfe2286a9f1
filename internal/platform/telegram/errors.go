package telegram

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"hermes/internal/platform"
	"hermes/internal/platform/clean"
	"hermes/internal/platform/settings"
)

// classify turns the failure of a call into what the centre must know of it.
// err is what the caller of the Bot API got.
func (a *Adapter) classify(c *call, err error) *platform.Error {
	if c.Status == 0 || c.Status == http.StatusOK {
		return a.unanswered(c, err)
	}
	said := c.said()
	e := &platform.Error{
		Kind:   platform.GiveUp,
		Code:   "telegram_" + strconv.Itoa(c.Status),
		Reason: "Telegram refused " + c.method + ": " + a.scrubText(said),
	}
	switch {
	case c.Status == http.StatusTooManyRequests:
		e.Kind = platform.Retry
		e.RetryAfter = max(time.Duration(c.reply.Parameters.RetryAfter)*time.Second, time.Second)
		e.Reason = "Telegram's flood control asks for a pause of " + e.RetryAfter.String()
	case c.Status >= 500:
		// Telegram's front end answers so also for requests that were carried out.
		e.Kind, e.Uncertain = platform.Retry, true
		e.Reason = "Telegram has a fault of its own (" + said + "): it is tried again"
	case c.Status == http.StatusRequestEntityTooLarge:
		e.Reason = "Telegram refused the file: it is larger than bots may send (50 MB)"
	case !c.isJSON:
		e.Kind = platform.Retry
		e.Reason = "what answers at the Bot API's address is no Bot API server (HTTP " + strconv.Itoa(c.Status) + "): check platforms.telegram.extra.base_url and any proxy"
	case c.Status == http.StatusUnauthorized, c.Status == http.StatusNotFound:
		e.Kind = platform.BadCredentials
		e.Reason = "Telegram does not know the bot token" + settings.Origin(a.cfg.TokenOrigin) + ": it was revoked or copied wrongly; get the current one from @BotFather (/mybots → API Token)"
	case c.Status == http.StatusConflict:
		e.Kind = platform.TakenOver
		e.Reason = conflictReason(said)
		if isWebhookConflict(said) {
			e.Code = codeWebhook
		}
	case c.Status == http.StatusForbidden:
		e.Reason = forbiddenReason(said)
	case c.Status == http.StatusBadRequest:
		badRequest(e, c, said)
	}
	return e
}

// unanswered classifies a call that got no usable answer.
func (a *Adapter) unanswered(c *call, err error) *platform.Error {
	cause := c.Err
	if cause == nil {
		cause = err
	}
	e := &platform.Error{
		Kind: platform.Retry, Code: "telegram_unreachable", Cause: a.scrub(cause), Uncertain: c.Wrote(),
		Reason: "Telegram could not be reached: it is tried again",
	}
	switch {
	case e.Uncertain:
		e.Code = "telegram_unknown"
		e.Reason = "the connection to Telegram broke before it answered " + c.method + ", which may have been carried out"
		if errors.Is(cause, context.DeadlineExceeded) {
			e.Reason = "Telegram did not answer " + c.method + " in time; it may have been carried out"
		}
	case errors.Is(cause, context.Canceled):
		e.Code, e.Reason = "telegram_stopped", "stopped before "+c.method+" was sent"
	}
	return e
}

// said is the description of an error reply, bounded.
func (c *call) said() string {
	if !c.isJSON {
		return http.StatusText(c.Status)
	}
	return clean.Clip(c.reply.Description, 300)
}

func isWebhookConflict(said string) bool {
	return strings.Contains(strings.ToLower(said), "webhook")
}

func conflictReason(said string) string {
	if isWebhookConflict(said) {
		return "a webhook is set for this bot, so Telegram refuses polling: stop the program that set it, or set platforms.telegram.extra.delete_webhook: true"
	}
	return "another program polls this bot with the same token, so messages go to whichever asks first: stop the other one, or give each its own bot (@BotFather)"
}

func forbiddenReason(said string) string {
	low := strings.ToLower(said)
	switch {
	case strings.Contains(low, "blocked by the user"):
		return "the user has blocked the bot; messages go again once they unblock it"
	case strings.Contains(low, "kicked"), strings.Contains(low, "not a member"):
		return "the bot is not in that chat any more: add it again"
	case strings.Contains(low, "deactivated"):
		return "the user's account is deleted"
	case strings.Contains(low, "initiate conversation"):
		return "a bot cannot write first: the user must send it /start once"
	}
	return "the chat does not let the bot write: " + said
}

// refusals are the answers to a bad request that mean more than "give up",
// by a part of their description in lower case.
var refusals = []struct {
	part   string
	kind   platform.Kind
	code   string
	reason string // "" keeps the description
}{
	{"can't parse entities", platform.MarkupRefused, "telegram_markup", ""},
	{"can't parse message text", platform.MarkupRefused, "telegram_markup", ""},
	{"entity_text_invalid", platform.MarkupRefused, "telegram_markup", ""},
	{"entity_bounds_invalid", platform.MarkupRefused, "telegram_markup", ""},
	{"message to edit not found", platform.EditRefused, "telegram_edit", ""},
	{"message can't be edited", platform.EditRefused, "telegram_edit", ""},
	{"message_id_invalid", platform.EditRefused, "telegram_edit", ""},
	{"no text in the message to edit", platform.EditRefused, "telegram_edit", ""},
	{"message is not modified", platform.EditRefused, codeUnmodified, ""},
	{"chat not found", platform.GiveUp, "telegram_chat", "there is no such chat, or the bot has never been in it: check the chat id, and let the user send /start once"},
	{"peer_id_invalid", platform.GiveUp, "telegram_chat", "there is no such chat, or the bot has never been in it: check the chat id"},
	{"message thread not found", platform.GiveUp, codeThread, "the topic does not exist any more"},
	{"message is too long", platform.GiveUp, "telegram_length", ""},
	{"caption is too long", platform.GiveUp, "telegram_length", ""},
	{"rights to send", platform.GiveUp, "telegram_rights", "the bot may not write in that chat: give it the right, or make it an administrator"},
	{"chat_write_forbidden", platform.GiveUp, "telegram_rights", "the bot may not write in that chat: give it the right, or make it an administrator"},
	{"topic_closed", platform.GiveUp, "telegram_rights", "the topic is closed: reopen it, or make the bot an administrator"},
	{"photo_invalid_dimensions", platform.GiveUp, codePhoto, ""},
	{"image_process_failed", platform.GiveUp, codePhoto, ""},
	{"photo_save_file_invalid", platform.GiveUp, codePhoto, ""},
	{"file is too big", platform.GiveUp, "telegram_file", "the file is larger than Telegram hands to bots (20 MB)"},
}

// Codes that the adapter itself acts on.
const (
	codeWebhook    = "telegram_webhook"
	codeUnmodified = "telegram_unmodified"
	codeThread     = "telegram_thread"
	codePhoto      = "telegram_photo"
)

func badRequest(e *platform.Error, c *call, said string) {
	if id := c.reply.Parameters.MigrateToChatID; id != 0 {
		e.Kind, e.NewChatID = platform.Moved, strconv.FormatInt(id, 10)
		e.Code, e.Reason = "telegram_moved", "the group has become a supergroup and has another id now"
		return
	}
	low := strings.ToLower(said)
	for _, r := range refusals {
		if strings.Contains(low, r.part) {
			e.Kind, e.Code = r.kind, r.code
			if r.reason != "" {
				e.Reason = r.reason
			}
			return
		}
	}
}
