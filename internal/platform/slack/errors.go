package slack

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"hermes/internal/platform"
	"hermes/internal/platform/clean"
	"hermes/internal/platform/settings"
	"hermes/internal/secret"
)

// Codes that the adapter itself acts on.
const (
	codeUnknown = "slack_unknown"
	codeLimited = "slack_ratelimited"
	codeThread  = "slack_thread"
	codeScope   = "slack_missing_scope"
)

// refusal is what an error of the API means.
type refusal struct {
	kind   platform.Kind
	code   string
	reason string
}

// refusals are the errors that need more than to be repeated in words, as the
// methods' own pages list them (https://docs.slack.dev/reference/methods).
var refusals = map[string]refusal{
	"invalid_auth":                              {platform.BadCredentials, "", "Slack does not know the token"},
	"not_authed":                                {platform.BadCredentials, "", "Slack saw no token"},
	"account_inactive":                          {platform.BadCredentials, "", "the app was removed from the workspace, or its bot was deactivated: install it again"},
	"token_revoked":                             {platform.BadCredentials, "", "the token was revoked: install the app again"},
	"token_expired":                             {platform.BadCredentials, "", "the token has expired: switch token rotation off for the app, and install it again"},
	"not_allowed_token_type":                    {platform.BadCredentials, "", "that is the wrong kind of token: SLACK_BOT_TOKEN is the one with xoxb-, SLACK_APP_TOKEN the one with xapp-"},
	"no_permission":                             {platform.BadCredentials, "", "the app may not do that in this workspace: its administrators have to allow it"},
	"org_login_required":                        {platform.BadCredentials, "", "the workspace is moving to an organisation: try again later"},
	"team_access_not_granted":                   {platform.BadCredentials, "", "the app is not approved for this workspace: its administrators have to allow it"},
	"access_denied":                             {platform.BadCredentials, "", "Slack denies the app access to the workspace"},
	"channel_not_found":                         {platform.GiveUp, "slack_absent", "there is no such channel, or the bot cannot see it: check the id, and invite the bot there (/invite @…)"},
	"not_in_channel":                            {platform.GiveUp, "slack_absent", "the bot is not in the channel: invite it there (/invite @…)"},
	"is_archived":                               {platform.GiveUp, "slack_archived", "the channel is archived: unarchive it, or choose another"},
	"user_not_found":                            {platform.GiveUp, "slack_absent", "there is no such user"},
	"users_not_found":                           {platform.GiveUp, "slack_absent", "there is no such user"},
	"cannot_dm_bot":                             {platform.GiveUp, "slack_absent", "bots cannot write to each other directly"},
	"messages_tab_disabled":                     {platform.GiveUp, "slack_rights", "direct messages to the app are switched off: https://api.slack.com/apps → your app → App Home → Messages Tab"},
	"restricted_action":                         {platform.GiveUp, "slack_rights", "the workspace's settings do not let the bot post there"},
	"msg_too_long":                              {platform.GiveUp, "slack_length", "the message is longer than Slack takes"},
	"no_text":                                   {platform.GiveUp, "slack_empty", "there is nothing in the message that Slack could show"},
	"thread_not_found":                          {platform.GiveUp, codeThread, "the thread does not exist any more"},
	"invalid_thread_ts":                         {platform.GiveUp, codeThread, "the thread does not exist any more"},
	"cannot_reply_to_message":                   {platform.GiveUp, codeThread, "to that message nobody can reply"},
	"message_not_found":                         {platform.EditRefused, "slack_edit", "the message is not there any more"},
	"cant_update_message":                       {platform.EditRefused, "slack_edit", "the message is not the bot's own"},
	"edit_window_closed":                        {platform.EditRefused, "slack_edit", "the workspace's settings do not let so old a message be changed"},
	"invalid_blocks":                            {platform.MarkupRefused, "slack_blocks", "Slack does not take the message's form"},
	"file_not_found":                            {platform.GiveUp, "slack_file", "the file is not there any more"},
	"file_deleted":                              {platform.GiveUp, "slack_file", "the file was deleted"},
	"storage_limit_reached":                     {platform.GiveUp, "slack_file", "the workspace's storage is full"},
	"file_uploads_disabled":                     {platform.GiveUp, "slack_file", "the workspace's settings do not allow files"},
	"ratelimited":                               {platform.Retry, codeLimited, ""},
	"rate_limited":                              {platform.Retry, codeLimited, ""},
	"message_limit_exceeded":                    {platform.Retry, codeLimited, ""},
	"internal_error":                            {platform.Retry, "slack_fault", "Slack has a fault of its own: it is tried again"},
	"fatal_error":                               {platform.Retry, "slack_fault", "Slack has a fault of its own: it is tried again"},
	"service_unavailable":                       {platform.Retry, "slack_fault", "Slack is not available at the moment: it is tried again"},
	"request_timeout":                           {platform.Retry, "slack_fault", "Slack did not get the whole request in time: it is tried again"},
	"team_added_to_org":                         {platform.Retry, "slack_moving", "the workspace is being moved to an organisation: it is tried again"},
	"too_many_websockets":                       {platform.Retry, "slack_connections", "the app has as many connections as Slack allows (ten): something else uses its app-level token"},
	"too_many_sockets":                          {platform.Retry, "slack_connections", "the app has as many connections as Slack allows (ten): something else uses its app-level token"},
	"socket_mode_not_enabled":                   {platform.BadCredentials, "slack_socket_mode", "Socket Mode is switched off: https://api.slack.com/apps → your app → Socket Mode → Enable"},
	"forbidden_team":                            {platform.BadCredentials, "", "the token does not belong to this workspace"},
	"app_missing_action_url":                    {platform.BadCredentials, "slack_socket_mode", "Socket Mode is switched off: https://api.slack.com/apps → your app → Socket Mode → Enable"},
	"slack_connect_file_upload_sharing_blocked": {platform.GiveUp, "slack_file", "files may not be shared into that channel of another organisation"},
}

// uncertain are the errors before which something may have been carried out.
var uncertain = []string{"internal_error", "fatal_error", "service_unavailable", "request_timeout"}

// classify turns a request that did not succeed into what the centre must know.
func (a *Adapter) classify(c *call) *platform.Error {
	if c.Status == http.StatusTooManyRequests {
		// The limit binds one method, or one channel for what is sent there.
		e := &platform.Error{Kind: platform.Retry, Code: codeLimited, RetryAfter: c.retryAfter()}
		e.Reason = "Slack's rate limit asks for a pause of " + e.RetryAfter.String()
		return e
	}
	if c.isJSON && !c.reply.OK {
		return a.refused(c)
	}
	if c.Status == 0 || c.Status < 300 {
		return a.unanswered(c)
	}
	e := &platform.Error{Kind: platform.Retry, Code: "slack_" + strconv.Itoa(c.Status)}
	switch {
	case c.Status >= 500:
		e.Uncertain = true
		e.Reason = "Slack has a fault of its own (HTTP " + strconv.Itoa(c.Status) + "): it is tried again"
	default:
		e.Reason = "what answers at Slack's address is not Slack (HTTP " + strconv.Itoa(c.Status) + "): check SLACK_BASE_URL and any proxy"
	}
	return e
}

// refused classifies an answer with ok: false.
func (a *Adapter) refused(c *call) *platform.Error {
	said := clean.Clip(clean.Text(c.reply.Error), 80)
	if said == "missing_scope" {
		e := &platform.Error{Kind: platform.GiveUp, Code: codeScope,
			Reason: "the app lacks the permission " + a.scrub(clean.Clip(clean.Text(c.reply.Needed), 100)) + " for " + c.method + ": add it (https://api.slack.com/apps → your app → OAuth & Permissions → Scopes) and install the app again"}
		if c.method == "apps.connections.open" {
			e.Kind, e.Reason = platform.BadCredentials, "the app-level token lacks the scope connections:write: make one that has it ("+whereApp+")"
		}
		return e
	}
	r, known := refusals[said]
	if !known {
		kind := platform.GiveUp
		if c.method == "chat.update" {
			kind = platform.EditRefused
		}
		r = refusal{kind, "", "Slack refused " + c.method + ": " + a.scrub(said)}
	}
	e := &platform.Error{Kind: r.kind, Code: r.code, Reason: r.reason, Uncertain: slices.Contains(uncertain, said)}
	if e.Code == "" {
		e.Code = "slack_" + a.scrub(said)
	}
	switch {
	case e.Code == codeLimited:
		e.RetryAfter = c.retryAfter()
		e.Reason = "Slack's rate limit asks for a pause of " + e.RetryAfter.String()
	case e.Kind == platform.BadCredentials:
		which, where := "SLACK_BOT_TOKEN"+settings.Origin(a.cfg.TokenOrigin), whereBot
		if c.method == "apps.connections.open" {
			which, where = "SLACK_APP_TOKEN", whereApp
		}
		e.Reason += ". It is about " + which + " (" + where + ")"
	case c.method == "chat.update" && e.Kind == platform.GiveUp:
		e.Kind = platform.EditRefused // a new message says the same, or why not
	}
	return e
}

// unanswered classifies a request that got no usable answer.
func (a *Adapter) unanswered(c *call) *platform.Error {
	e := &platform.Error{
		Kind: platform.Retry, Code: "slack_unreachable", Cause: a.scrubError(c.Err), Uncertain: c.Wrote(),
		Reason: "Slack could not be reached: it is tried again",
	}
	switch {
	case c.Status != 0 && !c.isJSON:
		e.Code = "slack_garbled"
		e.Reason = "what answers at Slack's address is not Slack: check SLACK_BASE_URL and any proxy"
	case e.Uncertain:
		e.Code = codeUnknown
		e.Reason = "the connection to Slack broke before it answered " + c.method + ", which may have been carried out"
		if errors.Is(c.Err, context.DeadlineExceeded) {
			e.Reason = "Slack did not answer " + c.method + " in time; it may have been carried out"
		}
	case errors.Is(c.Err, context.Canceled):
		e.Code, e.Reason = "slack_stopped", "stopped before "+c.method+" was sent"
	}
	return e
}

// retryAfter is the pause that a refusal asks for,
// https://docs.slack.dev/apis/web-api/rate-limits.
func (c *call) retryAfter() time.Duration {
	if n, err := strconv.Atoi(c.Header.Get("Retry-After")); err == nil && n > 0 && n < 24*60*60 {
		return time.Duration(n) * time.Second
	}
	return time.Second
}

// harmless says of a request that only reads what classify says of a send: it
// repeats no harm, so its outcome is never uncertain.
func harmless(e *platform.Error, what string) *platform.Error { return e.Harmless(codeUnknown, what) }

// scrub takes the tokens out of a text.
func (a *Adapter) scrub(s string) string { return secret.Hide(s, a.cfg.Token, a.cfg.AppToken) }

// scrubError takes the tokens out of an error's text.
func (a *Adapter) scrubError(err error) error { return secret.HideIn(err, a.cfg.Token, a.cfg.AppToken) }
