package telegram

import (
	"regexp"
	"strings"
)

// chatState is a chat and what it shows. It is guarded by Server.mu.
type chatState struct {
	Chat
	shown     []*Message // a window of the latest, oldest first
	dropped   int        // how many were shown before shown[0]
	read      int        // position of Next, counted over all that were ever shown
	byID      map[int]*Message
	lastID    int
	topics    map[int]string
	forbidden string // why the bot may not write; "" when it may
	migrated  int64  // the supergroup that it has become
	sent      window
	actions   int
	reactions map[int]string
}

// show adds a message; the caller holds s.mu.
func (s *Server) show(c *chatState, m *Message) *Message {
	if m.ID == 0 {
		c.lastID++
		m.ID = c.lastID
	}
	m.Chat, m.At = c.ID, s.now()
	c.shown = append(c.shown, m)
	c.byID[m.ID] = m
	if len(c.shown) > s.keep+s.keep/4 {
		over := len(c.shown) - s.keep
		for _, old := range c.shown[:over] {
			delete(c.byID, old.ID)
		}
		c.shown = append([]*Message(nil), c.shown[over:]...)
		c.dropped += over
	}
	s.Touch()
	return m
}

// AddUser makes a person and the private chat with them, whose id is theirs.
// The user name is the name in lower case.
func (s *Server) AddUser(name string) User {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids++
	return s.addUser(s.ids, name)
}

// AddUserID makes a person with a chosen id.
func (s *Server) AddUserID(id int64, name string) User {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addUser(id, name)
}

func (s *Server) addUser(id int64, name string) User {
	u := &User{ID: id, FirstName: name, Username: strings.ToLower(strings.ReplaceAll(name, " ", "_"))}
	s.users[id] = u
	s.addChat(Chat{ID: id, Type: "private", FirstName: name, Username: u.Username})
	return *u
}

// AddGroup makes a basic group that the bot is in.
func (s *Server) AddGroup(title string) Chat {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids++
	return s.addChat(Chat{ID: -s.ids, Type: "group", Title: title})
}

// AddSupergroup makes a supergroup that the bot is in; a forum has topics.
func (s *Server) AddSupergroup(title string, forum bool) Chat {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids++
	return s.addChat(Chat{ID: -1_000_000_000_000 - s.ids, Type: "supergroup", Title: title, IsForum: forum})
}

// AddChannel makes a channel that the bot administers.
func (s *Server) AddChannel(title, username string) Chat {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids++
	return s.addChat(Chat{ID: -1_000_000_000_000 - s.ids, Type: "channel", Title: title, Username: username})
}

func (s *Server) addChat(c Chat) Chat {
	s.chats[c.ID] = &chatState{Chat: c, byID: map[int]*Message{}, topics: map[int]string{}, reactions: map[int]string{}}
	return c
}

// AddTopic makes a topic in a chat and gives its id.
func (s *Server) AddTopic(chat int64, name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.chats[chat]
	c.lastID++
	c.lastID = max(c.lastID, 2) // 1 is the topic "General"
	c.topics[c.lastID] = name
	return c.lastID
}

// DropTopic deletes a topic.
func (s *Server) DropTopic(chat int64, id int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.chats[chat].topics, id)
}

// Forbid makes a chat refuse the bot with a 403 that says why, e.g. "bot was
// blocked by the user"; "" lets it write again.
func (s *Server) Forbid(chat int64, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chats[chat].forbidden = why
}

// Migrate turns a group into a supergroup, which has another id.
func (s *Server) Migrate(group int64) Chat {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids++
	old := s.chats[group]
	c := s.addChat(Chat{ID: -1_000_000_000_000 - s.ids, Type: "supergroup", Title: old.Title})
	old.migrated = c.ID
	old.lastID++
	s.push("message", &message{ID: old.lastID, Chat: old.Chat, Date: s.now().Unix(), MigrateTo: c.ID})
	return c
}

// DeleteMessage makes a message disappear, as when somebody deletes it.
func (s *Server) DeleteMessage(chat int64, id int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.chats[chat].byID[id]; m != nil {
		m.Deleted = true
		delete(s.chats[chat].byID, id)
		s.Touch()
	}
}

// Post is what a person writes.
type Post struct {
	From      User
	Chat      int64 // 0: the private chat with From
	Text      string
	Entities  []Entity // beside the mentions and commands, which are found in Text
	Thread    int
	ReplyTo   int    // a message that the chat shows
	Album     string // messages with the same name are one album
	File      *Upload
	Anonymous bool // an administrator who writes as the group
}

// Upload is a file that a person sends.
type Upload struct {
	Kind string // photo, document, voice, audio, video
	Name string
	MIME string
	Data []byte
}

// Say lets a person write to the bot in private.
func (s *Server) Say(from User, text string) Message { return s.Post(Post{From: from, Text: text}) }

// Post lets a person write, and queues the update for the bot. A chat that
// does not exist, or a reply to nothing, is a mistake of the test and panics.
func (s *Server) Post(p Post) Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.Chat == 0 {
		p.Chat = p.From.ID
	}
	c := s.chats[p.Chat]
	if c == nil {
		panic("telegram fake: there is no such chat")
	}
	from := p.From
	shown := s.show(c, &Message{
		author: &from, From: p.From.FirstName, Thread: p.Thread, ReplyTo: p.ReplyTo, Text: p.Text, Source: p.Text,
		Entities: append(findEntities(p.Text), p.Entities...),
	})
	m := s.wireMessage(c, shown)
	m.MediaGroupID = p.Album
	switch {
	case c.Type == "channel":
		m.From, m.SenderChat = nil, &c.Chat
	case p.Anonymous:
		m.From, m.SenderChat = &User{ID: 1087968824, IsBot: true, FirstName: "Group", Username: "GroupAnonymousBot"}, &c.Chat
	}
	if p.File != nil {
		m.Caption, m.CaptionEntities, m.Text, m.Entities = m.Text, m.Entities, "", nil
		shown.File = s.attach(m, p.File.Kind, p.File.Name, p.File.MIME, p.File.Data)
	}
	kind := "message"
	if c.Type == "channel" {
		kind = "channel_post"
	}
	if !s.hidden || c.Type == "private" || c.Type == "channel" || s.addressed(m) {
		s.push(kind, m)
	}
	return *shown
}

// EditPost changes what a person wrote, and queues edited_message.
func (s *Server) EditPost(of Message, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.chats[of.Chat]
	shown := c.byID[of.ID]
	shown.Edits = append(shown.Edits, shown.Text)
	shown.Text, shown.Source, shown.Entities = text, text, findEntities(text)
	m := s.wireMessage(c, shown)
	m.EditDate = s.now().Unix()
	s.push("edited_message", m)
}

// addressed tells what a bot in privacy mode gets to see of a group.
func (s *Server) addressed(m *message) bool {
	if m.ReplyTo != nil && m.ReplyTo.From != nil && m.ReplyTo.From.ID == s.self.ID {
		return true
	}
	text := m.Text + m.Caption
	return strings.HasPrefix(text, "/") || strings.Contains(strings.ToLower(text), "@"+strings.ToLower(s.self.Username))
}

// query is a pressed button.
type query struct {
	answered bool
	text     string
}

// Press lets a person press a button under a message of the bot, and gives the
// query's id.
func (s *Server) Press(by User, under Message, data string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.chats[under.Chat]
	s.ids++
	q := &callbackQuery{ID: "91" + itoa(s.ids), From: by, ChatInstance: itoa(c.ID), Data: data}
	if m := c.byID[under.ID]; m != nil {
		q.Message = s.wireMessage(c, m)
	} else { // https://core.telegram.org/bots/api#inaccessiblemessage
		q.Message = &message{ID: under.ID, Chat: c.Chat}
	}
	s.queries[q.ID] = &query{}
	s.push("callback_query", q)
	return q.ID
}

// Answered tells whether the bot has answered a pressed button, and what it
// said.
func (s *Server) Answered(id string) (text string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queries[id]
	if q == nil {
		return "", false
	}
	return q.text, q.answered
}

// wireMessage is how the Bot API shows a message; the caller holds s.mu.
func (s *Server) wireMessage(c *chatState, m *Message) *message {
	w := &message{ID: m.ID, From: m.author, Chat: c.Chat, Date: m.At.Unix(), Text: m.Text, Entities: m.Entities}
	if m.FromBot {
		w.From = &s.self
	}
	if m.Thread != 0 {
		w.ThreadID = m.Thread
		_, w.IsTopicMessage = c.topics[m.Thread]
	}
	if m.Buttons != nil {
		w.ReplyMarkup = &keyboard{m.Buttons}
	}
	if f := m.File; f != nil {
		w.Caption, w.CaptionEntities, w.Text, w.Entities = w.Text, w.Entities, "", nil
		s.files[f.ID].describe(w)
	}
	if to := c.byID[m.ReplyTo]; to != nil {
		r := *s.wireMessage(c, to)
		r.ReplyTo = nil
		w.ReplyTo = &r
	} else if w.IsTopicMessage {
		// In a topic everything answers the message of its creation.
		w.ReplyTo = &message{ID: m.Thread, Chat: c.Chat, From: &s.self, Date: w.Date, TopicCreated: &topic{Name: c.topics[m.Thread]}}
	}
	return w
}

var wordEntity = regexp.MustCompile(`(^|[\s(])(@[A-Za-z][A-Za-z0-9_]{3,31}|/[A-Za-z0-9_]{1,32}(@[A-Za-z][A-Za-z0-9_]{3,31})?)`)

// findEntities finds mentions and commands, as Telegram's clients do.
func findEntities(text string) []Entity {
	var out []Entity
	for _, at := range wordEntity.FindAllStringSubmatchIndex(text, -1) {
		word := text[at[4]:at[5]]
		kind := "mention"
		if word[0] == '/' {
			kind = "bot_command"
		}
		out = append(out, Entity{Type: kind, Offset: utf16Len(text[:at[4]]), Length: utf16Len(word)})
	}
	return out
}
