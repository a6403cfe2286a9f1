package telegram

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// updatesOf reads what the bot would get, confirming nothing.
func updatesOf(t *testing.T, s *Server) (out []struct {
	Message  *message       `json:"message"`
	Edited   *message       `json:"edited_message"`
	Post     *message       `json:"channel_post"`
	Callback *callbackQuery `json:"callback_query"`
}) {
	t.Helper()
	if err := json.Unmarshal(call(t, s, "getUpdates").Result, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPrivacyMode(t *testing.T) {
	s := start(t, Options{Privacy: true})
	g, u := s.AddGroup("G"), s.AddUser("Alice")
	call(t, s, "sendMessage", "chat_id", itoa(g.ID), "text", "mine")
	for _, text := range []string{"chatter", "@hermes_test_bot hello", "/status", "@other_bot hi"} {
		s.Post(Post{From: u, Chat: g.ID, Text: text})
	}
	s.Post(Post{From: u, Chat: g.ID, Text: "an answer", ReplyTo: 1})
	var got []string
	for _, up := range updatesOf(t, s) {
		got = append(got, up.Message.Text)
	}
	if strings.Join(got, "|") != "@hermes_test_bot hello|/status|an answer" {
		t.Errorf("the bot sees %q", got)
	}
}

func TestOnlyAllowedUpdatesAreQueued(t *testing.T) {
	s := start(t, Options{})
	u := s.AddUser("Alice")
	m := s.Say(u, "one")
	s.EditPost(m, "uno")
	call(t, s, "getUpdates", "allowed_updates", `["message"]`)
	s.EditPost(m, "eins")
	s.Say(u, "two")
	got := updatesOf(t, s)
	if len(got) != 3 || got[1].Edited == nil || got[1].Edited.Text != "uno" || got[1].Edited.From.ID != u.ID || got[2].Message.Text != "two" {
		t.Errorf("queued %+v", got)
	}
}

func TestTopicsAndEntitiesOnTheWire(t *testing.T) {
	s := start(t, Options{})
	f, u := s.AddSupergroup("F", true), s.AddUser("Alice")
	id := s.AddTopic(f.ID, "Plans")
	s.Post(Post{From: u, Chat: f.ID, Thread: id, Text: "😀 @hermes_test_bot /go@hermes_test_bot"})
	m := updatesOf(t, s)[0].Message
	if !m.IsTopicMessage || m.ThreadID != id || m.ReplyTo == nil || m.ReplyTo.TopicCreated == nil {
		t.Errorf("the message in a topic is %+v", m)
	}
	want := []Entity{{Type: "mention", Offset: 3, Length: 16}, {Type: "bot_command", Offset: 20, Length: 19}}
	if len(m.Entities) != 2 || m.Entities[0] != want[0] || m.Entities[1] != want[1] {
		t.Errorf("its entities are %+v", m.Entities)
	}
}

func TestReactionsDeletionsAndMenu(t *testing.T) {
	s := start(t, Options{})
	u := s.AddUser("Alice")
	m := s.Say(u, "hi")
	chat, id := itoa(u.ID), itoa(int64(m.ID))
	call(t, s, "setMessageReaction", "chat_id", chat, "message_id", id, "reaction", `[{"type":"emoji","emoji":"👀"}]`)
	if s.Reaction(u.ID, m.ID) != "👀" {
		t.Error("the reaction is not shown")
	}
	call(t, s, "setMessageReaction", "chat_id", chat, "message_id", id, "reaction", `[]`)
	if s.Reaction(u.ID, m.ID) != "" {
		t.Error("the reaction was not taken back")
	}
	if e := call(t, s, "setMessageReaction", "chat_id", chat, "message_id", "9", "reaction", `[]`); e.status != 400 {
		t.Errorf("a reaction to nothing: %+v", e)
	}
	call(t, s, "sendMessage", "chat_id", chat, "text", "oops")
	call(t, s, "deleteMessage", "chat_id", chat, "message_id", "2")
	if got := s.Transcript(u.ID); got != "Alice: hi\nHermes: oops (deleted)\n" {
		t.Errorf("the chat shows %q", got)
	}
	call(t, s, "setmycommands", "commands", `[{"command":"new","description":"Start anew"}]`)
	if c := s.Commands(); len(c) != 1 || c[0].Command != "new" {
		t.Errorf("the menu is %+v", c)
	}
	var commands []Command
	if err := json.Unmarshal(call(t, s, "getMyCommands").Result, &commands); err != nil || len(commands) != 1 {
		t.Errorf("getMyCommands gives %+v, %v", commands, err)
	}
}

func TestTheRecordIsBounded(t *testing.T) {
	s := start(t, Options{Keep: 8})
	u := s.AddUser("Alice")
	for i := range 100 {
		call(t, s, "sendMessage", "chat_id", itoa(u.ID), "text", itoa(int64(i)))
	}
	all := s.Messages(u.ID)
	if len(all) > 10 || all[len(all)-1].Text != "99" {
		t.Errorf("%d messages are kept, the last is %q", len(all), all[len(all)-1].Text)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	first, err := s.Next(ctx, u.ID)
	if err != nil || first.ID != all[0].ID {
		t.Errorf("the next message is %+v, %v", first, err)
	}
	if m, err := s.WaitFor(ctx, u.ID, func(m Message) bool { return m.Text == "99" }); err != nil || m.ID != 100 {
		t.Errorf("found %+v, %v", m, err)
	}
}

func TestWaitsEnd(t *testing.T) {
	s := start(t, Options{})
	u := s.AddUser("Alice")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Next(ctx, u.ID); err == nil {
		t.Error("a wait without a message succeeded")
	}
	done := make(chan error, 1)
	go func() { done <- s.WaitPolling(t.Context()) }()
	s.Close()
	if err := <-done; err == nil {
		t.Error("a wait outlived the server")
	}
}
