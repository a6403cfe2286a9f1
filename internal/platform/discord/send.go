package discord

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
	"hermes/internal/platform/files"
)

// Send sends a part: its text with the first files, further files in messages
// of their own. Each message carries a nonce with enforce_nonce, so that
// Discord answers a repetition within the next minutes with the message that it
// has already. The receipt is the id of the message that carries the text, or
// of the last one.
//
// A thread that does not exist yet is opened from the message with its id; where
// that is not allowed, the message goes to the channel itself. A reply to a
// message that is gone is sent as no reply.
func (a *Adapter) Send(ctx context.Context, to domain.Address, p domain.Part, nonce string) (string, error) {
	if err := checkAddress(to); err != nil {
		return "", err
	}
	steps, err := a.steps(p)
	if err != nil {
		return "", err
	}
	if len(steps) == 0 {
		return "", &platform.Error{Kind: platform.GiveUp, Code: "discord_empty", Reason: "there is nothing in the message that Discord could show"}
	}
	receipt := ""
	for i, s := range steps {
		if nonce != "" {
			s.body.Nonce, s.body.Enforce = shortNonce(nonce, i), true
		}
		var id string
		err := a.inThread(ctx, to, p.ReplyTo, func(channel, replyTo string) (err *platform.Error) {
			s.body.reply(channel, replyTo)
			id, err = a.post(ctx, channel, s)
			return err
		})
		if err != nil {
			return "", err
		}
		if receipt == "" || s.body.Content != "" {
			receipt = id
		}
	}
	return receipt, nil
}

func checkAddress(to domain.Address) error {
	for _, x := range []struct{ what, id string }{{"channel", to.ChatID}, {"thread", to.ThreadID}} {
		if snowflake(x.id) == 0 && (x.what == "channel" || x.id != "") {
			return &platform.Error{Kind: platform.GiveUp, Code: "discord_address", Reason: "the " + x.what + " id " + strconv.Quote(clean.Clip(x.id, 40)) + " is not one of Discord's: write the number (Developer Mode → Copy Channel ID)"}
		}
	}
	return nil
}

// shortNonce fits a nonce into Discord's limit; each message of a part has its own.
func shortNonce(nonce string, i int) string {
	if i == 0 && len(nonce) <= maxNonce {
		return nonce
	}
	sum := sha256.Sum256([]byte(nonce + "#" + strconv.Itoa(i)))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:15]))
}

// inThread calls f with the channel that an address means. A thread that Discord
// does not know is opened first; where it cannot be, f gets the thread's channel.
func (a *Adapter) inThread(ctx context.Context, to domain.Address, replyTo string, f func(channel, replyTo string) *platform.Error) error {
	if to.ThreadID == "" {
		return orNil(f(to.ChatID, replyTo))
	}
	err := f(to.ThreadID, replyTo)
	if err == nil || err.Code != refusals[unknownChannel].code {
		return orNil(err)
	}
	if perr := a.openThread(ctx, to); perr != nil {
		if perr.Kind != platform.GiveUp && perr.Kind != platform.EditRefused {
			return perr
		}
		a.log.Warn("a thread could not be opened; the message goes to its channel", "channel", to.ChatID, "thread", to.ThreadID, "reason", perr.Reason)
		return orNil(f(to.ChatID, to.ThreadID))
	}
	return orNil(f(to.ThreadID, replyTo))
}

// orNil keeps a nil *platform.Error from becoming an error that is not nil.
func orNil(e *platform.Error) error {
	if e == nil {
		return nil
	}
	return e
}

// openThread opens the thread of a message, whose id it gets,
// https://discord.com/developers/docs/resources/channel#start-thread-from-message.
// One that is there already is a success.
func (a *Adapter) openThread(ctx context.Context, to domain.Address) *platform.Error {
	path := "/channels/" + to.ChatID + "/messages/"
	var m message
	if perr := a.get(ctx, "reading the message of a thread", path, path+to.ThreadID, &m); perr != nil {
		return perr
	}
	title := []rune(strings.Join(strings.Fields(a.read(&m).text), " "))
	if len(title) == 0 {
		title = []rune("Conversation")
	}
	if len(title) > maxThread {
		title = append(title[:maxThread-1], '…')
	}
	_, c, perr := a.do(ctx, request{what: "opening a thread", method: http.MethodPost, route: path + "threads", path: path + to.ThreadID + "/threads",
		body: map[string]any{"name": string(title), "auto_archive_duration": 1440}})
	if perr != nil && c.reply.Code == threadExists {
		return nil
	}
	if perr == nil {
		a.channels.put(channel{ID: to.ThreadID, Type: 11, GuildID: "0", ParentID: to.ChatID, OwnerID: a.account, Name: string(title)})
	}
	return perr
}

// newMessage is the body of
// https://discord.com/developers/docs/resources/message#create-message.
type newMessage struct {
	Content    string     `json:"content,omitempty"`
	Nonce      string     `json:"nonce,omitempty"`
	Enforce    bool       `json:"enforce_nonce,omitempty"`
	Flags      int        `json:"flags,omitempty"`
	Components []row      `json:"components,omitempty"`
	Reference  *reference `json:"message_reference,omitempty"`
	Mentions   mentions   `json:"allowed_mentions"`
}

type reference struct {
	MessageID string `json:"message_id"`
	ChannelID string `json:"channel_id"`
	MustExist bool   `json:"fail_if_not_exists"`
}

// mentions says who may be notified: people, never everyone and no roles,
// whatever a model writes.
type mentions struct {
	Parse   []string `json:"parse"`
	Replied bool     `json:"replied_user"`
}

func (m *newMessage) reply(channel, to string) {
	m.Reference = nil
	if snowflake(to) != 0 && to != channel { // a thread's first message stands in its parent
		m.Reference = &reference{to, channel, false}
		m.Mentions.Replied = true
	}
}

// row and button, https://discord.com/developers/docs/components/reference#action-row.
type row struct {
	Type    int      `json:"type"`
	Buttons []button `json:"components"`
}

type button struct {
	Type  int    `json:"type"`
	Style int    `json:"style"`
	Label string `json:"label"`
	ID    string `json:"custom_id"`
}

// rows puts five buttons in a row, and five rows under a message. A button
// whose command is over the limit, or comes twice, is left out: people can type it.
func rows(buttons []domain.Button) []row {
	out := []row{}
	seen := map[string]bool{}
	for _, b := range buttons {
		if b.Label == "" || b.Command == "" || utf8.RuneCountInString(b.Command) > maxCustomID || seen[b.Command] {
			continue
		}
		seen[b.Command] = true
		if len(out) == 0 || len(out[len(out)-1].Buttons) == 5 {
			if len(out) == 5 {
				break
			}
			out = append(out, row{Type: 1})
		}
		label := []rune(b.Label)
		last := &out[len(out)-1]
		last.Buttons = append(last.Buttons, button{Type: 2, Style: 2, Label: string(label[:min(len(label), maxLabel)]), ID: b.Command})
	}
	return out
}

// step is one message of a part.
type step struct {
	body  newMessage
	files []upload
}

// steps orders what a part consists of: the text stands over the first files,
// the buttons under the last.
func (a *Adapter) steps(p domain.Part) ([]step, error) {
	var out []step
	add := func(files []upload) {
		s := step{files: files}
		s.body.Mentions.Parse = []string{"users"}
		if p.Silent {
			s.body.Flags = flagSilent
		}
		out = append(out, s)
	}
	files, err := uploads(p.Attachments)
	if err != nil {
		return nil, err
	}
	for len(files) > 0 {
		n, size := 0, int64(0)
		for n < len(files) && n < maxFiles && (n == 0 || size+files[n].size <= maxUpload) {
			size += files[n].size
			n++
		}
		add(files[:n])
		files = files[n:]
	}
	if text := strings.ToValidUTF8(p.Text, "\uFFFD"); strings.TrimSpace(text) != "" {
		if len(out) == 0 {
			add(nil)
		}
		out[0].body.Content = text
	}
	if len(out) > 0 {
		out[len(out)-1].body.Components = rows(p.Buttons)
	}
	return out, nil
}

// post makes one message.
func (a *Adapter) post(ctx context.Context, channel string, s step) (string, *platform.Error) {
	path := "/channels/" + channel + "/messages"
	r := request{what: "the message", method: http.MethodPost, route: path, path: path, body: s.body}
	if len(s.files) > 0 {
		body, contentType, perr := multipartBody(s)
		if perr != nil {
			return "", perr
		}
		r.body, r.contentType, r.timeout = body, contentType, a.cfg.SendTimeout+files.Patience(int64(len(body)))
	}
	answer, _, perr := a.do(ctx, r)
	if perr != nil {
		return "", perr
	}
	var m struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(answer, &m); err != nil || m.ID == "" {
		return "", &platform.Error{Kind: platform.Retry, Code: "discord_garbled", Reason: "Discord's answer to the message could not be read; it may have been sent", Uncertain: true, Cause: err}
	}
	return m.ID, nil
}

// Edit changes a message's text and buttons,
// https://discord.com/developers/docs/resources/message#edit-message.
func (a *Adapter) Edit(ctx context.Context, to domain.Address, messageID string, p domain.Part) error {
	if err := checkAddress(to); err != nil {
		return err
	}
	if snowflake(messageID) == 0 {
		return &platform.Error{Kind: platform.EditRefused, Code: "discord_edit", Reason: "the message id " + strconv.Quote(clean.Clip(messageID, 40)) + " is not one of Discord's"}
	}
	body := map[string]any{
		"content": strings.ToValidUTF8(p.Text, "\uFFFD"), "components": rows(p.Buttons), "allowed_mentions": mentions{Parse: []string{"users"}},
	}
	edit := func(channel string) *platform.Error {
		path := "/channels/" + channel + "/messages/"
		_, _, perr := a.do(ctx, request{what: "the edit", method: http.MethodPatch, route: path, path: path + messageID, body: body})
		return perr
	}
	if to.ThreadID == "" {
		return orNil(edit(to.ChatID))
	}
	perr := edit(to.ThreadID)
	if perr != nil && perr.Code == refusals[unknownChannel].code {
		perr = edit(to.ChatID) // where the thread could not be opened
	}
	return orNil(perr)
}

// Typing shows "is typing…" for about ten seconds,
// https://discord.com/developers/docs/resources/channel#trigger-typing-indicator,
// and puts 👀 on the message that is being worked on, once.
func (a *Adapter) Typing(ctx context.Context, to domain.Address) error {
	if err := checkAddress(to); err != nil {
		return err
	}
	if a.cfg.Reactions {
		a.react(ctx, to)
	}
	if a.cfg.NoTyping {
		return nil
	}
	return a.inThread(ctx, to, "", func(channel, _ string) *platform.Error {
		path := "/channels/" + channel + "/typing"
		_, _, perr := a.do(ctx, request{what: "the typing signal", method: http.MethodPost, route: path, path: path})
		return perr
	})
}

// react puts 👀 on the message that is being worked on,
// https://discord.com/developers/docs/resources/message#create-reaction. It is
// a courtesy: a failure is not repeated.
func (a *Adapter) react(ctx context.Context, to domain.Address) {
	channel, id, ok := strings.Cut(a.waiting.Take(to), "/")
	if !ok {
		return
	}
	path := "/channels/" + channel + "/messages/" + id + "/reactions/" + url.PathEscape("👀") + "/@me"
	if _, _, perr := a.do(ctx, request{what: "the reaction", method: http.MethodPut, route: "/channels/" + channel + "/reactions", path: path}); perr != nil {
		a.log.Debug("a reaction was not set", "code", perr.Code, "reason", perr.Reason)
	}
}

// Limits of application commands,
// https://discord.com/developers/docs/interactions/application-commands#registering-a-command.
const (
	maxMenu        = 100
	maxDescription = 100 // characters
)

// maxCommandName is the longest name of a command, in characters.
const maxCommandName = 32

// isCommandName tells whether Discord takes a name for a command: letters and
// digits of any script, hyphens and underscores.
func isCommandName(s string) bool {
	n := utf8.RuneCountInString(s)
	return n > 0 && n <= maxCommandName && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && r != '_' && !unicode.IsLetter(r) && !unicode.IsNumber(r)
	})
}

// command is an application command with one free text, since what follows a
// slash command here is free text.
type command struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Type        int      `json:"type"`
	Options     []option `json:"options"`
}

type option struct {
	Type        int    `json:"type"`
	Name        string `json:"name"`
	Description string `json:"description"`
}

// SetCommands registers the commands for every server and direct message,
// https://discord.com/developers/docs/interactions/application-commands#bulk-overwrite-global-application-commands.
// What is registered so already is not written again.
func (a *Adapter) SetCommands(ctx context.Context, cmds []platform.Command) error {
	if a.cfg.SyncCommands == syncOff {
		return nil
	}
	want := []command{}
	for _, c := range cmds {
		own := strings.ToLower(c.Name)
		if c.Unlisted || !isCommandName(own) || len(want) == maxMenu || slices.ContainsFunc(want, func(w command) bool { return w.Name == own }) {
			continue
		}
		description := []rune(strings.TrimSpace(strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return ' '
			}
			return r
		}, clean.Text(c.Description))))
		if len(description) == 0 {
			description = []rune(own)
		}
		want = append(want, command{Name: own, Type: 1, Description: string(description[:min(len(description), maxDescription)]),
			Options: []option{{Type: 3, Name: "text", Description: "What follows the command"}}})
	}
	var app struct {
		ID string `json:"id"`
	}
	if perr := a.get(ctx, "reading the bot's application", "/applications/@me", "/applications/@me", &app); perr != nil {
		return perr
	}
	path := "/applications/" + url.PathEscape(app.ID) + "/commands"
	var have []command
	if perr := a.get(ctx, "reading the commands", path, path, &have); perr != nil {
		return perr
	}
	byName := func(x, y command) int { return strings.Compare(x.Name, y.Name) }
	slices.SortFunc(want, byName)
	slices.SortFunc(have, byName)
	x, _ := json.Marshal(want) // structs of strings cannot fail
	y, _ := json.Marshal(have)
	if bytes.Equal(x, y) {
		return nil
	}
	_, _, perr := a.do(ctx, request{what: "registering the commands", method: http.MethodPut, route: path, path: path, body: want})
	return orNil(perr)
}
