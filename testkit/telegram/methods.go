package telegram

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of messages, in UTF-16 units of the visible text.
const (
	maxText    = 4096
	maxCaption = 1024
	maxData    = 64 // bytes of callback_data
)

// methods are what the fake knows, by name; getUpdates is apart, since it waits.
var methods = map[string]func(*Server, *params) (any, *apiError){
	"getMe":                  (*Server).getMe,
	"sendMessage":            (*Server).sendMessage,
	"sendPhoto":              sendMedia("photo"),
	"sendDocument":           sendMedia("document"),
	"sendVoice":              sendMedia("voice"),
	"sendAudio":              sendMedia("audio"),
	"sendVideo":              sendMedia("video"),
	"sendAnimation":          sendMedia("animation"),
	"editMessageText":        (*Server).editMessageText,
	"editMessageReplyMarkup": (*Server).editMessageReplyMarkup,
	"deleteMessage":          (*Server).deleteMessage,
	"sendChatAction":         (*Server).sendChatAction,
	"setMessageReaction":     (*Server).setMessageReaction,
	"answerCallbackQuery":    (*Server).answerCallbackQuery,
	"getFile":                (*Server).getFile,
	"setMyCommands":          (*Server).setMyCommands,
	"getMyCommands":          (*Server).getMyCommands,
	"setWebhook":             (*Server).setWebhook,
	"deleteWebhook":          (*Server).deleteWebhook,
	"getWebhookInfo":         (*Server).getWebhookInfo,
}

// canonical gives a method's usual spelling; Telegram ignores case.
func canonical(method string) string {
	if _, ok := methods[method]; ok || method == "getUpdates" {
		return method
	}
	for name := range methods {
		if strings.EqualFold(name, method) {
			return name
		}
	}
	if strings.EqualFold("getUpdates", method) {
		return "getUpdates"
	}
	return method
}

func (s *Server) call(ctx context.Context, method string, p *params) (any, *apiError) {
	if method == "getUpdates" {
		return s.getUpdates(ctx, p)
	}
	f := methods[method]
	if f == nil {
		return nil, &apiError{Code: http.StatusNotFound, Description: "Not Found: method not found"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return f(s, p)
}

func (s *Server) getMe(*params) (any, *apiError) {
	return struct {
		User
		CanJoinGroups bool `json:"can_join_groups"`
		CanReadAll    bool `json:"can_read_all_group_messages"`
	}{s.self, true, !s.hidden}, nil
}

// place finds the chat that a request names and whether the bot may write there.
func (s *Server) place(p *params) (*chatState, *apiError) {
	id := p.values["chat_id"]
	if id == "" {
		return nil, badRequest("chat_id is empty")
	}
	var c *chatState
	if name, ok := strings.CutPrefix(id, "@"); ok {
		for _, k := range s.chats {
			if k.Type != "private" && strings.EqualFold(k.Username, name) {
				c = k
			}
		}
	} else {
		c = s.chats[p.number("chat_id")]
	}
	switch {
	case c == nil:
		return nil, badRequest("chat not found")
	case c.migrated != 0:
		e := badRequest("group chat was upgraded to a supergroup chat")
		e.Parameters.MigrateTo = c.migrated
		return nil, e
	case c.forbidden != "":
		return nil, forbidden(c.forbidden)
	}
	return c, nil
}

// text reads a text or caption with its markup.
func (p *params) text(field string, limit int, tooLong string) (text string, entities []Entity, err *apiError) {
	text = p.values[field]
	switch p.values["parse_mode"] {
	case "":
		if err := p.object(strings.TrimPrefix(field+"_entities", "text_"), &entities); err != nil {
			return "", nil, err
		}
	case "HTML", "html":
		var perr error
		if text, entities, perr = parseHTML(text); perr != nil {
			return "", nil, badRequest("can't parse entities: " + perr.Error())
		}
	default:
		return "", nil, badRequest("unsupported parse_mode")
	}
	if utf16Len(text) > limit {
		return "", nil, badRequest(tooLong)
	}
	return text, entities, nil
}

// buttons reads an inline keyboard.
func (p *params) buttons() ([][]Button, *apiError) {
	var k keyboard
	if err := p.object("reply_markup", &k); err != nil {
		return nil, err
	}
	for _, row := range k.Rows {
		for _, b := range row {
			switch {
			case strings.TrimSpace(b.Text) == "":
				return nil, badRequest("inline keyboard button text is empty")
			case b.Data == "" && b.URL == "":
				return nil, badRequest("can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard")
			case len(b.Data) > maxData:
				return nil, badRequest("BUTTON_DATA_INVALID")
			}
		}
	}
	return k.Rows, nil
}

// compose reads what all sending methods share.
func (s *Server) compose(p *params, c *chatState) (*Message, *apiError) {
	m := &Message{FromBot: true, From: s.self.FirstName, Silent: p.yes("disable_notification"), HTML: p.values["parse_mode"] != ""}
	var err *apiError
	if m.Buttons, err = p.buttons(); err != nil {
		return nil, err
	}
	if m.Thread = int(p.number("message_thread_id")); m.Thread != 0 {
		if _, ok := c.topics[m.Thread]; !ok {
			return nil, badRequest("message thread not found")
		}
	}
	var reply struct {
		ID        int  `json:"message_id"`
		OrWithout bool `json:"allow_sending_without_reply"`
	}
	if err := p.object("reply_parameters", &reply); err != nil {
		return nil, err
	}
	if m.ReplyTo = reply.ID; reply.ID != 0 && c.byID[reply.ID] == nil {
		if !reply.OrWithout {
			return nil, badRequest("message to be replied not found")
		}
		m.ReplyTo = 0
	}
	return m, nil
}

func (s *Server) sendMessage(p *params) (any, *apiError) {
	c, err := s.place(p)
	if err != nil {
		return nil, err
	}
	text, entities, err := p.text("text", maxText, "message is too long")
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(text) == "" {
		return nil, badRequest("message text is empty")
	}
	m, err := s.compose(p, c)
	if err != nil {
		return nil, err
	}
	if err := s.flood(c); err != nil {
		return nil, err
	}
	m.Text, m.Source, m.Entities = text, p.values["text"], entities
	return s.wireMessage(c, s.show(c, m)), nil
}

// edited finds the bot's message that an edit names.
func (s *Server) edited(p *params) (*chatState, *Message, *apiError) {
	c, err := s.place(p)
	if err != nil {
		return nil, nil, err
	}
	m := c.byID[int(p.number("message_id"))]
	switch {
	case m == nil:
		return nil, nil, badRequest("message to edit not found")
	case !m.FromBot:
		return nil, nil, badRequest("message can't be edited")
	}
	return c, m, nil
}

const notModified = "message is not modified: specified new message content and reply markup are exactly the same as a current content and reply markup of the message"

func (s *Server) editMessageText(p *params) (any, *apiError) {
	c, m, err := s.edited(p)
	if err != nil {
		return nil, err
	}
	text, entities, err := p.text("text", maxText, "message is too long")
	if err != nil {
		return nil, err
	}
	buttons, err := p.buttons()
	switch {
	case err != nil:
		return nil, err
	case m.File != nil:
		return nil, badRequest("there is no text in the message to edit")
	case strings.TrimSpace(text) == "":
		return nil, badRequest("message text is empty")
	case text == m.Text && slices.Equal(entities, m.Entities) && slices.EqualFunc(buttons, m.Buttons, slices.Equal):
		return nil, badRequest(notModified)
	}
	if err := s.flood(c); err != nil {
		return nil, err
	}
	m.Edits = append(m.Edits, m.Text)
	m.Text, m.Source, m.Entities, m.Buttons, m.HTML = text, p.values["text"], entities, buttons, p.values["parse_mode"] != ""
	s.Touch()
	w := s.wireMessage(c, m)
	w.EditDate = s.now().Unix()
	return w, nil
}

func (s *Server) editMessageReplyMarkup(p *params) (any, *apiError) {
	c, m, err := s.edited(p)
	if err != nil {
		return nil, err
	}
	buttons, err := p.buttons()
	switch {
	case err != nil:
		return nil, err
	case slices.EqualFunc(buttons, m.Buttons, slices.Equal):
		return nil, badRequest(notModified)
	}
	m.Buttons = buttons
	s.Touch()
	return s.wireMessage(c, m), nil
}

func (s *Server) deleteMessage(p *params) (any, *apiError) {
	c, err := s.place(p)
	if err != nil {
		return nil, err
	}
	m := c.byID[int(p.number("message_id"))]
	if m == nil {
		return nil, badRequest("message to delete not found")
	}
	m.Deleted = true
	delete(c.byID, m.ID)
	s.Touch()
	return true, nil
}

// chatActions are those of https://core.telegram.org/bots/api#sendchataction.
var chatActions = []string{"typing", "upload_photo", "record_video", "upload_video", "record_voice", "upload_voice",
	"upload_document", "choose_sticker", "find_location", "record_video_note", "upload_video_note"}

func (s *Server) sendChatAction(p *params) (any, *apiError) {
	c, err := s.place(p)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(chatActions, p.values["action"]) {
		return nil, badRequest("wrong parameter action in request")
	}
	c.actions++
	s.Touch()
	return true, nil
}

func (s *Server) setMessageReaction(p *params) (any, *apiError) {
	c, err := s.place(p)
	if err != nil {
		return nil, err
	}
	var reactions []struct {
		Type  string `json:"type"`
		Emoji string `json:"emoji"`
	}
	if err := p.object("reaction", &reactions); err != nil {
		return nil, err
	}
	id := int(p.number("message_id"))
	switch {
	case c.byID[id] == nil:
		return nil, badRequest("message to react not found")
	case len(reactions) > 1:
		return nil, badRequest("REACTIONS_TOO_MANY")
	case len(reactions) == 0:
		delete(c.reactions, id)
	case reactions[0].Type != "emoji" || reactions[0].Emoji == "":
		return nil, badRequest("REACTION_INVALID")
	default:
		c.reactions[id] = reactions[0].Emoji
	}
	s.Touch()
	return true, nil
}

func (s *Server) answerCallbackQuery(p *params) (any, *apiError) {
	q := s.queries[p.values["callback_query_id"]]
	if q == nil || q.answered {
		return nil, badRequest("query is too old and response timeout expired or query ID is invalid")
	}
	if utf8.RuneCountInString(p.values["text"]) > 200 {
		return nil, badRequest("MESSAGE_TOO_LONG")
	}
	q.answered, q.text = true, p.values["text"]
	s.Touch()
	return true, nil
}

// Command is an entry of the bot's menu, https://core.telegram.org/bots/api#botcommand.
type Command struct {
	Command     string `json:"command"`
	Description string `json:"description"`
}

var commandName = regexp.MustCompile(`^[a-z0-9_]{1,32}$`)

func (s *Server) setMyCommands(p *params) (any, *apiError) {
	var cmds []Command
	if err := p.object("commands", &cmds); err != nil {
		return nil, err
	}
	if len(cmds) > 100 {
		return nil, badRequest("BOT_COMMANDS_TOO_MUCH")
	}
	for _, c := range cmds {
		if !commandName.MatchString(c.Command) {
			return nil, badRequest("BOT_COMMAND_INVALID")
		}
		if n := utf8.RuneCountInString(c.Description); n < 1 || n > 256 {
			return nil, badRequest("BOT_COMMAND_DESCRIPTION_INVALID")
		}
	}
	s.commands = cmds
	s.Touch()
	return true, nil
}

func (s *Server) getMyCommands(*params) (any, *apiError) {
	return append([]Command{}, s.commands...), nil
}

func (s *Server) setWebhook(p *params) (any, *apiError) {
	s.webhook = p.values["url"]
	s.Touch()
	return true, nil
}

func (s *Server) deleteWebhook(p *params) (any, *apiError) {
	s.webhook = ""
	if p.yes("drop_pending_updates") {
		s.queue = nil
	}
	s.Touch()
	return true, nil
}

func (s *Server) getWebhookInfo(*params) (any, *apiError) {
	return map[string]any{"url": s.webhook, "has_custom_certificate": false, "pending_update_count": len(s.queue)}, nil
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
