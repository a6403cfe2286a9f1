package telegram

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Next waits for the bot's next message in a chat: each call gives the one
// after the last that was given. Edits are no messages of their own.
func (s *Server) Next(ctx context.Context, chat int64) (Message, error) {
	var found Message
	err := s.Until(ctx, func() bool {
		c := s.chats[chat]
		if c == nil {
			return false
		}
		c.read = max(c.read, c.dropped)
		for ; c.read < c.dropped+len(c.shown); c.read++ {
			if m := c.shown[c.read-c.dropped]; m.FromBot {
				c.read++
				found = *m
				return true
			}
		}
		return false
	})
	if err != nil {
		return Message{}, fmt.Errorf("no message from the bot in chat %d: %w", chat, err)
	}
	return found, nil
}

// WaitFor waits until a chat shows a message, of anybody, that matches. match
// must not call the server.
func (s *Server) WaitFor(ctx context.Context, chat int64, match func(Message) bool) (Message, error) {
	var found Message
	err := s.Until(ctx, func() bool {
		c := s.chats[chat]
		if c == nil {
			return false
		}
		for _, m := range c.shown {
			if match(*m) {
				found = *m
				return true
			}
		}
		return false
	})
	return found, err
}

// Messages is what a chat shows, oldest first, the deleted ones included.
func (s *Server) Messages(chat int64) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.chats[chat]
	if c == nil {
		return nil
	}
	out := make([]Message, len(c.shown))
	for i, m := range c.shown {
		out[i] = *m
	}
	return out
}

// Replies is what the bot wrote in a chat, oldest first.
func (s *Server) Replies(chat int64) []Message {
	return slices.DeleteFunc(s.Messages(chat), func(m Message) bool { return !m.FromBot })
}

// WaitAnswered waits until the bot has answered a pressed button.
func (s *Server) WaitAnswered(ctx context.Context, query string) error {
	return s.Until(ctx, func() bool { return s.queries[query] != nil && s.queries[query].answered })
}

// Floods counts the requests that flood control refused.
func (s *Server) Floods() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.floods
}

// Typing counts the chat actions that a chat was shown.
func (s *Server) Typing(chat int64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.chats[chat]; c != nil {
		return c.actions
	}
	return 0
}

// Reaction is the bot's reaction to a message, or "".
func (s *Server) Reaction(chat int64, id int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.chats[chat]; c != nil {
		return c.reactions[id]
	}
	return ""
}

// Commands is the bot's menu.
func (s *Server) Commands() []Command {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.commands)
}

// Transcript is a chat as its people see it, for reading.
func (s *Server) Transcript(chat int64) string {
	var b strings.Builder
	for _, m := range s.Messages(chat) {
		fmt.Fprintf(&b, "%s:", m.From)
		if m.ReplyTo != 0 {
			fmt.Fprintf(&b, " (to %d)", m.ReplyTo)
		}
		if m.File != nil {
			fmt.Fprintf(&b, " [%s %s, %d bytes]", m.File.Kind, m.File.Name, m.File.Size)
		}
		if m.Text != "" {
			b.WriteString(" " + strings.ReplaceAll(m.Text, "\n", "\n    "))
		}
		if n := len(m.Edits); n > 0 {
			fmt.Fprintf(&b, " (edited %d×)", n)
		}
		if m.Deleted {
			b.WriteString(" (deleted)")
		}
		b.WriteByte('\n')
		for _, row := range m.Buttons {
			b.WriteString("   ")
			for _, k := range row {
				b.WriteString(" [" + k.Text + "]")
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}
