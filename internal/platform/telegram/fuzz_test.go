package telegram

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"hermes/internal/platform"
	"hermes/internal/platform/settings"
)

// FuzzUpdates feeds whole updates: whatever Telegram may bring is read without
// a panic into events that the store can hold.
func FuzzUpdates(f *testing.F) {
	for _, s := range []string{
		`{"update_id":1,"message":{"message_id":1,"date":1,"chat":{"id":-5,"type":"group"},"from":{"id":2},"text":"/a@me 😀 @me","entities":[{"type":"bot_command","offset":0,"length":5},{"type":"mention","offset":9,"length":3}]}}`,
		`{"update_id":2,"message":{"message_id":1,"date":1,"chat":{"id":5,"type":"private"},"media_group_id":"g","caption":"\u0000\ud800","photo":[{"file_id":"x","width":1,"height":1}]}}`,
		`{"update_id":3,"callback_query":{"id":"q","from":{"id":2},"data":"x","message":{"date":0,"message_id":1,"chat":{"id":5,"type":"private"}}}}`,
		`{"update_id":4,"message":{"message_id":1,"chat":{"id":5,"type":"supergroup"},"forward_origin":{"type":"new"},"text":"x","sender_chat":{"id":-5,"title":"t"}}}`,
		`{"update_id":5,"message":{"chat":{"id":5,"type":"private"},"venue":{"title":"x"},"document":{"file_id":"d","file_name":"../\u0007a"},"reply_to_message":{"text":"y"}}}`,
		`{"update_id":6,"message":7}`, `{}`, `[]`,
	} {
		f.Add(s)
	}
	a, err := New(Config{Token: "1:abc", Rooms: settings.Rooms{RequireMention: true}, ChannelPosts: true}, platform.Deps{})
	if err != nil {
		f.Fatal(err)
	}
	a.self.Store(&identity{1, "me"})
	f.Fuzz(func(t *testing.T, s string) {
		if !json.Valid([]byte(s)) {
			t.Skip()
		}
		batch := a.decode([]json.RawMessage{[]byte(s), []byte(s)})
		events, _ := a.events(batch)
		for _, in := range events {
			if in.EventID == "" || in.EventID == "0" || in.Text == "" && len(in.Attachments) == 0 || len(in.Text) > maxInText || len(in.Attachments) > maxInFiles {
				t.Errorf("%q is stored as %+v", s, in)
			}
			all := in.Text + in.ReplyText + in.UserName + in.ChatName
			for _, at := range in.Attachments {
				all += at.Name + at.MIME
				if strings.ContainsAny(at.Name, "/\\") || at.Name == ".." {
					t.Errorf("%q has a file named %q", s, at.Name)
				}
			}
			if !utf8.ValidString(all) || strings.ContainsRune(all, 0) {
				t.Errorf("%q is stored with bytes that the store cannot hold: %q", s, all)
			}
		}
	})
}

// FuzzVisibleLength holds the count of visible text to what counting by
// Telegram's rules must give at least: never more than the text itself.
func FuzzVisibleLength(f *testing.F) {
	f.Add("<b>a&amp;b</b>😀")
	f.Fuzz(func(t *testing.T, s string) {
		plain, visible := visibleLength(s, false), visibleLength(s, true)
		if visible < 0 || visible > plain {
			t.Errorf("%q has %d units, %d of them visible", s, plain, visible)
		}
	})
}
