package discord

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// refusal is an error answer, https://discord.com/developers/docs/reference#error-messages.
type refusal struct {
	status     int
	Message    string         `json:"message"`
	Code       int            `json:"code"`
	Errors     map[string]any `json:"errors,omitempty"`
	RetryAfter float64        `json:"retry_after,omitempty"`
	Global     bool           `json:"global,omitempty"`
}

var (
	unauthorized   = &refusal{status: 401, Message: "401: Unauthorized"}
	unknownChannel = &refusal{status: 404, Code: 10003, Message: "Unknown Channel"}
	unknownMessage = &refusal{status: 404, Code: 10008, Message: "Unknown Message"}
	missingAccess  = &refusal{status: 403, Code: 50001, Message: "Missing Access"}
	unknownMember  = &refusal{status: 404, Code: 10007, Message: "Unknown Member"}
	notAuthor      = &refusal{status: 403, Code: 50005, Message: "Cannot edit a message authored by another user"}
	emptyMessage   = &refusal{status: 400, Code: 50006, Message: "Cannot send an empty message"}
	threadExists   = &refusal{status: 400, Code: 160004, Message: "A thread has already been created for this message"}
)

func invalidForm(field, code, message string) *refusal {
	return &refusal{status: 400, Code: 50035, Message: "Invalid Form Body",
		Errors: map[string]any{field: map[string]any{"_errors": []any{map[string]any{"code": code, "message": message}}}}}
}

// tell writes an error, with the headers that a 429 has,
// https://discord.com/developers/docs/topics/rate-limits#exceeding-a-rate-limit.
func tell(w http.ResponseWriter, r refusal) {
	if r.Message == "" {
		r.Message = http.StatusText(r.status)
	}
	w.Header().Set("Content-Type", "application/json")
	if r.status == http.StatusTooManyRequests {
		after := strconv.FormatFloat(r.RetryAfter, 'f', -1, 64)
		w.Header().Set("Retry-After", after)
		w.Header().Set("X-RateLimit-Reset-After", after)
		w.Header().Set("X-RateLimit-Scope", "user")
		if r.Global {
			w.Header().Set("X-RateLimit-Global", "true")
			w.Header().Set("X-RateLimit-Scope", "global")
		}
	}
	w.WriteHeader(r.status)
	_ = json.NewEncoder(w).Encode(r) // the client may be gone
}

// method handles one call; the caller holds s.mu.
type method func(r *http.Request, body []byte) (any, *refusal)

// routes is the API, under the version that the bot uses and the one that
// discordgo uses.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/gateway/", s.upgrade)
	mux.HandleFunc("GET /attachments/{channel}/{id}/{name}", s.download)
	for _, v := range []string{"/api/v9", "/api/v10"} {
		for _, m := range []struct {
			pattern, name string
			f             method
		}{
			{"GET %/gateway", "gateway_url", s.getGateway},
			{"GET %/gateway/bot", "gateway", s.getGateway},
			{"GET %/users/@me", "user", func(*http.Request, []byte) (any, *refusal) { return s.self, nil }},
			{"POST %/users/@me/channels", "open_dm", s.openDM},
			{"GET %/users/@me/guilds", "guilds", s.getGuilds},
			{"GET %/guilds/{guild}/channels", "guild_channels", s.getGuildChannels},
			{"GET %/guilds/{guild}/members/{user}", "guild_member", s.getMember},
			{"GET %/applications/@me", "application", func(*http.Request, []byte) (any, *refusal) {
				return map[string]any{"id": s.self.ID, "name": s.self.Username}, nil
			}},
			{"GET %/applications/{app}/commands", "commands", s.getCommands},
			{"PUT %/applications/{app}/commands", "commands", s.putCommands},
			{"GET %/channels/{channel}", "get_channel", s.getChannel},
			{"GET %/channels/{channel}/messages", "get_messages", s.getMessages},
			{"GET %/channels/{channel}/messages/{message}", "get_message", s.getMessage},
			{"POST %/channels/{channel}/messages", "create_message", s.createMessage},
			{"PATCH %/channels/{channel}/messages/{message}", "edit_message", s.editMessage},
			{"POST %/channels/{channel}/messages/{message}/threads", "start_thread", s.startThread},
			{"PUT %/channels/{channel}/messages/{message}/reactions/{emoji}/@me", "reaction", s.react},
			{"POST %/channels/{channel}/typing", "typing", s.typing},
			{"POST %/interactions/{id}/{token}/callback", "callback", s.callback},
		} {
			mux.HandleFunc(strings.Replace(m.pattern, "%", v, 1), s.call(m.name, m.f))
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { tell(w, refusal{status: 404, Message: "404: Not Found"}) })
	return mux
}

// getMember, https://discord.com/developers/docs/resources/guild#get-guild-member.
// Somebody is a member of the servers in which they were granted something.
func (s *Server) getMember(r *http.Request, _ []byte) (any, *refusal) {
	for _, g := range s.guilds {
		if g.id == r.PathValue("guild") {
			if _, ok := g.members[r.PathValue("user")]; ok {
				return map[string]any{"user": s.users[r.PathValue("user")], "nick": nil, "roles": g.rolesOf(r.PathValue("user"))}, nil
			}
			return nil, unknownMember
		}
	}
	return nil, missingAccess
}

// call wraps a method with counting, faults, the token check and the limits.
func (s *Server) call(name string, f method) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<20))
		s.Serve(w, r, name, r.PathValue("channel"), func(w http.ResponseWriter) {
			v, ref := func() (any, *refusal) {
				if err != nil {
					return nil, &refusal{status: 413, Code: 40005, Message: "Request entity too large"}
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				if bare(r.Header.Get("Authorization")) != s.token && name != "callback" && name != "gateway_url" { // which need none
					return nil, unauthorized
				}
				if ref := s.limited(w, name, r.PathValue("channel")); ref != nil {
					return nil, ref
				}
				return f(r, body)
			}()
			switch {
			case ref != nil:
				tell(w, *ref)
			case v == nil:
				w.WriteHeader(http.StatusNoContent)
			default:
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(v) // the client may be gone
			}
		})
	}
}

// limited counts a message against its channel's limit and sets the headers,
// https://discord.com/developers/docs/topics/rate-limits#header-format.
func (s *Server) limited(w http.ResponseWriter, name, channel string) *refusal {
	if s.limit == 0 || name != "create_message" {
		return nil
	}
	const per = 5 * time.Second
	now := s.now()
	win := s.windows[channel]
	if now.Sub(win.began) >= per {
		win = window{began: now}
	}
	after := win.began.Add(per).Sub(now).Seconds()
	if win.used >= s.limit {
		return &refusal{status: 429, Message: "You are being rate limited.", RetryAfter: after}
	}
	win.used++
	s.windows[channel] = win
	h := w.Header()
	h.Set("X-RateLimit-Limit", strconv.Itoa(s.limit))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(s.limit-win.used))
	h.Set("X-RateLimit-Reset", strconv.FormatFloat(float64(win.began.Add(per).UnixMilli())/1000, 'f', 3, 64))
	h.Set("X-RateLimit-Reset-After", strconv.FormatFloat(after, 'f', 3, 64))
	h.Set("X-RateLimit-Bucket", "fake-messages")
	return nil
}

func (s *Server) getGateway(*http.Request, []byte) (any, *refusal) {
	return map[string]any{"url": "ws://" + s.Addr() + "/gateway", "shards": 1, "session_start_limit": map[string]any{
		"total": 1000, "remaining": max(s.gateway.remaining, 0), "reset_after": 3_600_000, "max_concurrency": 1}}, nil
}

func (s *Server) openDM(_ *http.Request, body []byte) (any, *refusal) {
	var p struct {
		Recipient string `json:"recipient_id"`
	}
	if json.Unmarshal(body, &p) != nil || s.users[p.Recipient] == nil {
		return nil, invalidForm("recipient_id", "NUMBER_TYPE_COERCE", "Value is not snowflake.")
	}
	return s.showChannel(s.dm(p.Recipient)), nil
}

func (s *Server) getCommands(*http.Request, []byte) (any, *refusal) {
	return append([]Command{}, s.commands...), nil
}

func (s *Server) putCommands(_ *http.Request, body []byte) (any, *refusal) {
	var c []Command
	if json.Unmarshal(body, &c) != nil || len(c) > 100 {
		return nil, invalidForm("commands", "BASE_TYPE_MAX_LENGTH", "Must be 100 or fewer in length.")
	}
	for _, one := range c {
		if n := utf8.RuneCountInString(one.Name); n < 1 || n > 32 || one.Name != strings.ToLower(one.Name) {
			return nil, invalidForm("name", "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid")
		}
		if n := utf8.RuneCountInString(one.Description); n < 1 || n > 100 {
			return nil, invalidForm("description", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 100 in length.")
		}
	}
	s.commands = c
	s.Touch()
	return c, nil
}

// place finds the channel of a call.
func (s *Server) place(r *http.Request) (*channelState, *refusal) {
	c := s.channels[r.PathValue("channel")]
	switch {
	case c == nil:
		return nil, unknownChannel
	case c.hidden:
		return nil, missingAccess
	}
	return c, nil
}

func (s *Server) getChannel(r *http.Request, _ []byte) (any, *refusal) {
	c, ref := s.place(r)
	if ref != nil {
		return nil, ref
	}
	return s.showChannel(c), nil
}

// getGuilds, https://discord.com/developers/docs/resources/user#get-current-user-guilds.
func (s *Server) getGuilds(r *http.Request, _ []byte) (any, *refusal) {
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil || limit < 1 || limit > 200 {
		limit = 200
	}
	out := []any{}
	for _, g := range s.guilds { // made in the order of their ids
		if number(g.id) > number(r.URL.Query().Get("after")) && len(out) < limit {
			out = append(out, map[string]any{"id": g.id, "name": g.name, "owner": false, "permissions": "0"})
		}
	}
	return out, nil
}

// getGuildChannels lists a server without its threads,
// https://discord.com/developers/docs/resources/guild#get-guild-channels.
func (s *Server) getGuildChannels(r *http.Request, _ []byte) (any, *refusal) {
	i := slices.IndexFunc(s.guilds, func(g *guildState) bool { return g.id == r.PathValue("guild") })
	if i < 0 {
		return nil, &refusal{status: http.StatusNotFound, Code: 10004, Message: "Unknown Guild"}
	}
	out := []any{}
	for _, c := range s.guilds[i].channels {
		if c.kind != typeThread {
			out = append(out, s.showChannel(c))
		}
	}
	return out, nil
}

func number(id string) uint64 {
	n, _ := strconv.ParseUint(id, 10, 64)
	return n
}

// getMessages gives messages newest first, as the real one does; after gives
// those that follow it, https://discord.com/developers/docs/resources/message#get-channel-messages.
func (s *Server) getMessages(r *http.Request, _ []byte) (any, *refusal) {
	c, ref := s.place(r)
	if ref != nil {
		return nil, ref
	}
	q := r.URL.Query()
	limit := 50
	if v := q.Get("limit"); v != "" {
		limit, _ = strconv.Atoi(v)
	}
	if limit < 1 || limit > 100 {
		return nil, invalidForm("limit", "NUMBER_TYPE_MAX", "int value should be between 1 and 100.")
	}
	var found []*Message
	for _, m := range c.messages {
		if !m.Deleted && number(m.ID) > number(q.Get("after")) {
			found = append(found, m)
		}
	}
	if q.Get("after") != "" {
		found = found[:min(limit, len(found))]
	} else {
		found = found[max(0, len(found)-limit):]
	}
	out := []any{}
	for _, m := range slices.Backward(found) {
		out = append(out, s.showMessage(c, m, true))
	}
	return out, nil
}

func (s *Server) getMessage(r *http.Request, _ []byte) (any, *refusal) {
	c, ref := s.place(r)
	if ref != nil {
		return nil, ref
	}
	m := s.find(c, r.PathValue("message"))
	if m == nil {
		return nil, unknownMessage
	}
	return s.showMessage(c, m, true), nil
}

// sent is the body of a message from the bot.
type sent struct {
	Content    *string `json:"content"`
	Nonce      any     `json:"nonce"`
	Enforce    bool    `json:"enforce_nonce"`
	Flags      int     `json:"flags"`
	Components *[]struct {
		Components []struct {
			Label string `json:"label"`
			ID    string `json:"custom_id"`
		} `json:"components"`
	} `json:"components"`
	Reference *struct {
		MessageID string `json:"message_id"`
		MustExist *bool  `json:"fail_if_not_exists"`
	} `json:"message_reference"`
}

// check holds the limits of a message.
func (p *sent) check() (buttons []Button, ref *refusal) {
	if p.Content != nil && utf8.RuneCountInString(*p.Content) > 2000 {
		return nil, invalidForm("content", "BASE_TYPE_MAX_LENGTH", "Must be 2000 or fewer in length.")
	}
	if n, ok := p.Nonce.(string); ok && len(n) > 25 {
		return nil, invalidForm("nonce", "NONCE_TYPE_TOO_LONG", "Nonce must be 25 or fewer in length.")
	}
	if p.Components == nil {
		return nil, nil
	}
	seen := map[string]bool{}
	for _, row := range *p.Components {
		if len(row.Components) < 1 || len(row.Components) > 5 {
			return nil, invalidForm("components", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.")
		}
		for _, b := range row.Components {
			switch {
			case utf8.RuneCountInString(b.Label) > 80 || utf8.RuneCountInString(b.ID) > 100:
				return nil, invalidForm("components", "BASE_TYPE_BAD_LENGTH", "Must be fewer in length.")
			case seen[b.ID]:
				return nil, invalidForm("components", "COMPONENT_CUSTOM_ID_DUPLICATED", "Component custom id cannot be duplicated")
			}
			seen[b.ID] = true
			buttons = append(buttons, Button{b.Label, b.ID})
		}
	}
	if len(*p.Components) > 5 {
		return nil, invalidForm("components", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.")
	}
	return buttons, nil
}

func (s *Server) createMessage(r *http.Request, body []byte) (any, *refusal) {
	c, ref := s.place(r)
	if ref != nil {
		return nil, ref
	}
	payload, files, err := parts(r, body)
	var p sent
	if err != nil || json.Unmarshal(payload, &p) != nil {
		return nil, &refusal{status: 400, Code: 50109, Message: "The request body contains invalid JSON."}
	}
	buttons, ref := p.check()
	if ref != nil {
		return nil, ref
	}
	nonce, _ := p.Nonce.(string)
	if mark, ok := s.nonces[c.id+"/"+nonce]; ok && nonce != "" && p.Enforce && s.now().Sub(mark.at) < nonceFor {
		if m := s.find(c, mark.message); m != nil {
			return s.showMessage(c, m, true), nil
		}
	}
	m := &Message{ID: s.newID(), ChannelID: c.id, Author: s.self, FromBot: true, Nonce: nonce, Flags: p.Flags, Buttons: buttons, At: s.now()}
	if p.Content != nil {
		m.Content = *p.Content
	}
	if strings.TrimSpace(m.Content) == "" && len(files) == 0 {
		return nil, emptyMessage
	}
	for _, f := range files {
		if len(f.data) > 10<<20 {
			return nil, &refusal{status: 413, Code: 40005, Message: "Request entity too large"}
		}
		m.Files = append(m.Files, s.store(c.id, f.name, "", f.data))
	}
	if p.Reference != nil {
		m.ReplyTo, m.Type = p.Reference.MessageID, 19
		if s.find(c, m.ReplyTo) == nil {
			if p.Reference.MustExist == nil || *p.Reference.MustExist {
				return nil, invalidForm("message_reference", "REPLIES_UNKNOWN_MESSAGE", "Unknown message")
			}
			m.ReplyTo, m.Type = "", 0
		}
	}
	if nonce != "" {
		s.nonces[c.id+"/"+nonce] = nonceMark{m.ID, s.now()}
	}
	s.add(c, m)
	return s.showMessage(c, m, true), nil
}

type part struct {
	name string
	data []byte
}

// parts reads a JSON body, or a form with files,
// https://discord.com/developers/docs/reference#uploading-files.
func parts(r *http.Request, body []byte) (payload []byte, files []part, err error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "multipart/form-data" {
		return body, nil, nil
	}
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	mr, err := r.MultipartReader()
	if err != nil {
		return nil, nil, err
	}
	for {
		p, err := mr.NextPart()
		if errors.Is(err, io.EOF) {
			return payload, files, nil
		}
		if err != nil {
			return nil, nil, err
		}
		data, err := io.ReadAll(p)
		if err != nil {
			return nil, nil, err
		}
		if p.FormName() == "payload_json" {
			payload = data
		} else {
			files = append(files, part{p.FileName(), data})
		}
	}
}

func (s *Server) editMessage(r *http.Request, body []byte) (any, *refusal) {
	c, ref := s.place(r)
	if ref != nil {
		return nil, ref
	}
	m := s.find(c, r.PathValue("message"))
	var p sent
	switch {
	case m == nil:
		return nil, unknownMessage
	case !m.FromBot:
		return nil, notAuthor
	case json.Unmarshal(body, &p) != nil:
		return nil, &refusal{status: 400, Code: 50109, Message: "The request body contains invalid JSON."}
	}
	buttons, ref := p.check()
	if ref != nil {
		return nil, ref
	}
	if p.Content != nil && *p.Content != m.Content {
		m.Edits = append(m.Edits, m.Content)
		m.Content = *p.Content
	}
	if p.Components != nil {
		m.Buttons = buttons
	}
	s.Touch()
	return s.showMessage(c, m, true), nil
}

// startThread opens a thread from a message, whose id it gets,
// https://discord.com/developers/docs/resources/channel#start-thread-from-message.
func (s *Server) startThread(r *http.Request, body []byte) (any, *refusal) {
	c, ref := s.place(r)
	if ref != nil {
		return nil, ref
	}
	var p struct {
		Name string `json:"name"`
	}
	id := r.PathValue("message")
	switch {
	case s.channels[id] != nil:
		return nil, threadExists
	case s.find(c, id) == nil:
		return nil, unknownMessage
	case json.Unmarshal(body, &p) != nil || p.Name == "" || utf8.RuneCountInString(p.Name) > 100:
		return nil, invalidForm("name", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 100 in length.")
	}
	t := &channelState{id: id, name: p.Name, kind: typeThread, parent: c.id, owner: s.self.ID, guild: c.guild}
	s.join(t)
	return s.showChannel(t), nil
}

func (s *Server) react(r *http.Request, _ []byte) (any, *refusal) {
	c, ref := s.place(r)
	if ref != nil {
		return nil, ref
	}
	m := s.find(c, r.PathValue("message"))
	if m == nil {
		return nil, unknownMessage
	}
	m.Reactions = append(m.Reactions, r.PathValue("emoji"))
	s.Touch()
	return nil, nil
}

func (s *Server) typing(r *http.Request, _ []byte) (any, *refusal) {
	c, ref := s.place(r)
	if ref != nil {
		return nil, ref
	}
	c.typing++
	s.Touch()
	return nil, nil
}

func (s *Server) callback(r *http.Request, body []byte) (any, *refusal) {
	id := r.PathValue("id")
	answered, known := s.presses[id]
	var p struct {
		Type int `json:"type"`
	}
	switch {
	case !known || r.PathValue("token") != "interaction-"+id:
		return nil, &refusal{status: 404, Code: 10062, Message: "Unknown interaction"}
	case answered:
		return nil, &refusal{status: 400, Code: 40060, Message: "Interaction has already been acknowledged."}
	case json.Unmarshal(body, &p) != nil || p.Type < 1:
		return nil, invalidForm("type", "BASE_TYPE_REQUIRED", "This field is required")
	}
	s.presses[id] = true
	s.Touch()
	return nil, nil
}

func (s *Server) download(w http.ResponseWriter, r *http.Request) {
	s.Serve(w, r, "file", r.PathValue("channel"), func(w http.ResponseWriter) {
		s.mu.Lock()
		data, ok := s.files[r.PathValue("id")]
		s.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data) // the client may be gone
	})
}
