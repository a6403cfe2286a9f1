package matrix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// File is a file under a message.
type File struct {
	URI, Name, MIME string
	Data            []byte
}

// Message is what a room shows at one place: what was said, as it reads now.
type Message struct {
	ID        string
	Room      string
	From      string // user id
	FromBot   bool
	Thread    string // first event of its thread, or ""
	ReplyTo   string // event that it answers, or ""; in a thread also what it falls back to
	Kind      string // msgtype
	Text      string
	HTML      string
	File      *File
	Content   map[string]any
	At        time.Time
	Edits     []string // what Text was before, oldest first
	Reactions []string // the account's
}

// AddUser makes a person.
func (s *Server) AddUser(name string) User {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &User{ID: "@" + strings.ToLower(name) + ":" + Domain, Name: name}
	s.users[u.ID] = u
	return *u
}

// Room is how a room is made.
type Room struct {
	By        User   // who makes it
	Name      string // "" has none
	Alias     string // its local part; "" has none
	Direct    bool   // the invitation says that it is a direct one
	Encrypted bool
	Public    bool // anybody may join
	Uninvited bool // the account is not invited
}

// Open makes a room and invites the account into it.
func (s *Server) Open(o Room) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &room{id: "!room" + s.newID() + ":" + Domain, state: map[string]*event{}}
	s.rooms[r.id] = r
	s.order = append(s.order, r.id)
	s.setState(r, o.By, "m.room.create", "", map[string]any{"room_version": "10"})
	s.member(r, o.By, o.By, "join", nil)
	rule := "invite"
	if o.Public {
		rule = "public"
	}
	s.setState(r, o.By, "m.room.join_rules", "", map[string]any{"join_rule": rule})
	if o.Name != "" {
		s.setState(r, o.By, "m.room.name", "", map[string]any{"name": o.Name})
	}
	if o.Alias != "" {
		alias := "#" + o.Alias + ":" + Domain
		s.aliases[alias] = r.id
		s.setState(r, o.By, "m.room.canonical_alias", "", map[string]any{"alias": alias})
	}
	if o.Encrypted {
		s.setState(r, o.By, "m.room.encryption", "", map[string]any{"algorithm": "m.megolm.v1.aes-sha2"})
	}
	if !o.Uninvited {
		s.member(r, o.By, s.self, "invite", map[string]any{"is_direct": o.Direct})
	}
	return r.id
}

// Invite lets a person make a room without a name for themselves and the account.
func (s *Server) Invite(by User, direct bool) string { return s.Open(Room{By: by, Direct: direct}) }

// Enter makes the account a member of a room that it was invited into.
func (s *Server) Enter(room string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.member(s.rooms[room], s.self, s.self, "join", nil)
}

// Join makes a person a member of a room.
func (s *Server) Join(u User, room string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.member(s.rooms[room], u, u, "join", nil)
}

// Kick removes the account from a room.
func (s *Server) Kick(by User, room string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.member(s.rooms[room], by, s.self, "leave", nil)
}

// Rename gives a room another name.
func (s *Server) Rename(by User, room, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setState(s.rooms[room], by, "m.room.name", "", map[string]any{"name": name})
}

// Encrypt switches the encryption of a room on, for ever.
func (s *Server) Encrypt(by User, room string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setState(s.rooms[room], by, "m.room.encryption", "", map[string]any{"algorithm": "m.megolm.v1.aes-sha2"})
}

// Upgrade replaces a room by another,
// https://spec.matrix.org/v1.15/client-server-api/#room-upgrades.
func (s *Server) Upgrade(by User, room, to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setState(s.rooms[room], by, "m.room.tombstone", "", map[string]any{"body": "This room has been replaced", "replacement_room": to})
}

// Forbid takes the account's right to write in a room, or gives it back.
func (s *Server) Forbid(room string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rooms[room].forbidden = on
}

// Revoke makes every token of the account invalid; softly means that the device
// stays and may log in again.
func (s *Server) Revoke(soft bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.devices)
	s.soft = soft
	s.Touch()
}

// ForgetTransactions empties what is remembered of transaction ids.
func (s *Server) ForgetTransactions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.txns)
}

// ForgetTokens makes every token of a sync invalid, as a server that was put
// back to an older state does.
func (s *Server) ForgetTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	s.Touch()
}

// member sets a membership; the caller holds s.mu.
func (s *Server) member(r *room, by, who User, membership string, more map[string]any) {
	content := map[string]any{"membership": membership, "displayname": who.Name}
	for k, v := range more {
		content[k] = v
	}
	s.setState(r, by, "m.room.member", who.ID, content)
}

func (s *Server) setState(r *room, by User, kind, key string, content map[string]any) {
	e := &event{Type: kind, Sender: by.ID, StateKey: &key, Content: content}
	if was := r.get(kind, key); was != nil {
		e.Unsigned = map[string]any{"prev_content": was}
	}
	s.add(r, e)
	r.state[stateKey(kind, key)] = e
}

// add appends an event; the caller holds s.mu.
func (s *Server) add(r *room, e *event) {
	s.stream++
	e.at, e.ID, e.TS = s.stream, "$event"+s.newID(), s.stamp()
	r.events = append(r.events, e)
	s.Touch()
}

// Say lets a person write in a room, as a client of today does.
func (s *Server) Say(from User, room, text string) string {
	return s.Post(Post{From: from, Room: room, Text: text})
}

// Post is what a person writes.
type Post struct {
	From     User
	Room     string
	Text     string
	HTML     string
	Kind     string // msgtype; "" means m.text, or what File is
	Thread   string
	ReplyTo  string
	Mentions []string // user ids
	Legacy   bool     // by a client that knows no m.mentions
	File     *File
	Type     string         // of the event; "" means m.room.message
	Content  map[string]any // added to the content
}

// Post lets a person write, and gives the event's id. A room that does not exist
// is a mistake of the test and panics.
func (s *Server) Post(p Post) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := map[string]any{"msgtype": p.Kind, "body": p.Text}
	if p.Kind == "" {
		c["msgtype"] = "m.text"
	}
	if p.HTML != "" {
		c["format"], c["formatted_body"] = "org.matrix.custom.html", p.HTML
	}
	if !p.Legacy {
		mentions := map[string]any{}
		if p.Mentions != nil {
			mentions["user_ids"] = p.Mentions
		}
		c["m.mentions"] = mentions
	}
	rel := map[string]any{}
	if p.Thread != "" {
		rel["rel_type"], rel["event_id"], rel["is_falling_back"] = "m.thread", p.Thread, p.ReplyTo == ""
		rel["m.in_reply_to"] = map[string]any{"event_id": p.Thread}
	}
	if p.ReplyTo != "" {
		rel["m.in_reply_to"] = map[string]any{"event_id": p.ReplyTo}
	}
	if len(rel) > 0 {
		c["m.relates_to"] = rel
	}
	if f := p.File; f != nil {
		c["url"], c["filename"] = s.keep(*f), f.Name
		c["info"] = map[string]any{"mimetype": f.MIME, "size": len(f.Data)}
		if p.Text == "" {
			c["body"] = f.Name
		}
	}
	for k, v := range p.Content {
		c[k] = v
	}
	// As it would come over the wire.
	b, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	e := &event{Type: p.Type, Sender: p.From.ID}
	if e.Type == "" {
		e.Type = "m.room.message"
	}
	if err := json.Unmarshal(b, &e.Content); err != nil {
		panic(err)
	}
	r := s.rooms[p.Room]
	if r == nil {
		panic("matrix fake: there is no such room")
	}
	s.add(r, e)
	return e.ID
}

// Whisper lets a person write what is encrypted.
func (s *Server) Whisper(from User, room string) string {
	return s.Post(Post{From: from, Room: room, Type: "m.room.encrypted", Content: map[string]any{"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AwgAEnACgAkLmt6qF84IK"}})
}

// Press lets a person react to a message.
func (s *Server) Press(by User, room, id, key string) string {
	return s.Post(Post{From: by, Room: room, Type: "m.reaction", Content: map[string]any{"m.relates_to": map[string]any{"rel_type": "m.annotation", "event_id": id, "key": key}}})
}

// Redact lets a person take back what they wrote,
// https://spec.matrix.org/v1.15/client-server-api/#redactions.
func (s *Server) Redact(by User, room, id string) {
	s.mu.Lock()
	for _, e := range s.rooms[room].events {
		if e.ID == id {
			e.Content = map[string]any{}
		}
	}
	s.mu.Unlock()
	s.Post(Post{From: by, Room: room, Type: "m.room.redaction", Content: map[string]any{"redacts": id}})
}

// Edit lets a person change what they wrote.
func (s *Server) Edit(by User, room, id, text string) string {
	return s.Post(Post{From: by, Room: room, Text: "* " + text, Content: map[string]any{
		"m.new_content": map[string]any{"msgtype": "m.text", "body": text}, "m.relates_to": map[string]any{"rel_type": "m.replace", "event_id": id}}})
}

// Messages is what a room shows, oldest first.
func (s *Server) Messages(room string) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown(s.rooms[room])
}

// shown is what a room shows; the caller holds s.mu.
func (s *Server) shown(r *room) []Message {
	var out []Message
	for _, e := range r.events {
		if e.Type != "m.room.message" {
			continue
		}
		rel, _ := e.Content["m.relates_to"].(map[string]any)
		if rel["rel_type"] == "m.replace" {
			if i := slices.IndexFunc(out, func(m Message) bool { return m.ID == rel["event_id"] && m.From == e.Sender }); i >= 0 {
				out[i].Edits = append(out[i].Edits, out[i].Text)
				now, _ := e.Content["m.new_content"].(map[string]any)
				out[i].Text, _ = now["body"].(string)
				out[i].HTML, _ = now["formatted_body"].(string)
			}
			continue
		}
		out = append(out, s.message(r, e, rel))
	}
	return out
}

func (s *Server) message(r *room, e *event, rel map[string]any) Message {
	m := Message{ID: e.ID, Room: r.id, From: e.Sender, FromBot: e.Sender == s.self.ID, Content: e.Content, At: time.UnixMilli(e.TS)}
	m.Kind, _ = e.Content["msgtype"].(string)
	m.Text, _ = e.Content["body"].(string)
	m.HTML, _ = e.Content["formatted_body"].(string)
	if rel["rel_type"] == "m.thread" {
		m.Thread, _ = rel["event_id"].(string)
	}
	if to, ok := rel["m.in_reply_to"].(map[string]any); ok {
		m.ReplyTo, _ = to["event_id"].(string)
	}
	if uri, ok := e.Content["url"].(string); ok {
		m.File = s.files[uri[strings.LastIndex(uri, "/")+1:]]
	}
	for _, o := range r.events {
		if rel, _ := o.Content["m.relates_to"].(map[string]any); o.Type == "m.reaction" && o.Sender == s.self.ID && rel["event_id"] == e.ID {
			key, _ := rel["key"].(string)
			m.Reactions = append(m.Reactions, key)
		}
	}
	return m
}

// Replies is what the account wrote in a room, oldest first.
func (s *Server) Replies(room string) []Message {
	return slices.DeleteFunc(s.Messages(room), func(m Message) bool { return !m.FromBot })
}

// Next waits for the account's next message in a room: each call gives the one
// after the last that was given. Edits are no messages of their own.
func (s *Server) Next(ctx context.Context, room string) (Message, error) {
	var found Message
	err := s.Until(ctx, func() bool {
		r, n := s.rooms[room], 0
		for _, m := range s.shown(r) {
			if !m.FromBot {
				continue
			}
			if n++; n > r.read {
				r.read, found = n, m
				return true
			}
		}
		return false
	})
	if err != nil {
		return Message{}, fmt.Errorf("no message of the account in room %s: %w", room, err)
	}
	return found, nil
}

// WaitFor waits until a room shows a message, of anybody, that matches.
func (s *Server) WaitFor(ctx context.Context, room string, match func(Message) bool) (Message, error) {
	var found Message
	err := s.Until(ctx, func() bool {
		for _, m := range s.shown(s.rooms[room]) {
			if match(m) {
				found = m
				return true
			}
		}
		return false
	})
	return found, err
}

// WaitJoined waits until the account is in a room.
func (s *Server) WaitJoined(ctx context.Context, room string) error {
	return s.Until(ctx, func() bool { return s.rooms[room].membership(s.self.ID) == "join" })
}

// Membership is the account's in a room; "" when it has none.
func (s *Server) Membership(room string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rooms[room].membership(s.self.ID)
}

// WaitRead waits until the account has read up to an event.
func (s *Server) WaitRead(ctx context.Context, room, id string) error {
	return s.Until(ctx, func() bool { return s.rooms[room].receipt == id })
}

// Typing tells whether the account is shown as writing, and how often that was said.
func (s *Server) Typing(room string) (now bool, times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rooms[room].typing, s.rooms[room].typed
}

// WaitStill waits until the account is not shown as writing.
func (s *Server) WaitStill(ctx context.Context, room string) error {
	return s.Until(ctx, func() bool { return !s.rooms[room].typing })
}

// AccountData is what the account has stored under a type.
func (s *Server) AccountData(kind string, out any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.account[kind] == nil {
		return errors.New("nothing is stored")
	}
	return json.Unmarshal(s.account[kind], out)
}

// Devices counts the sessions of the account.
func (s *Server) Devices() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.devices)
}
