package telegram_test

import (
	"bytes"
	"errors"
	"image"
	"image/png"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/platform"
	"hermes/internal/platform/telegram"
	"hermes/internal/secret"
	"hermes/testkit/adapter"
	"hermes/testkit/fault"
	fake "hermes/testkit/telegram"
)

func TestWhatAGroupSays(t *testing.T) {
	type c struct {
		name    string
		post    fake.Post // the chat is the group
		toBot   bool      // it answers a message of the bot
		change  func(*telegram.Config)
		want    string // text as stored; "" when it is not for us
		mention bool
	}
	required := func(c *telegram.Config) { c.RequireMention = true }
	text := func(s string) fake.Post { return fake.Post{Text: s} }
	for _, c := range []c{
		{"chatter", text("lunch?"), false, required, "", false},
		{"chatter where no mention is needed", text("lunch?"), false, nil, "lunch?", false},
		{"mention before", text("@hermes_test_bot lunch?"), false, required, "lunch?", true},
		{"mention in another case", text("@Hermes_Test_Bot lunch?"), false, required, "lunch?", true},
		{"mention in the middle", text("what does @hermes_test_bot say?"), false, required, "what does say?", true},
		{"mention behind", text("lunch, @hermes_test_bot"), false, required, "lunch,", true},
		{"mention behind an emoji", text("😀😀 @hermes_test_bot lunch"), false, required, "😀😀 lunch", true},
		{"nothing but a mention", text("@hermes_test_bot"), false, required, "@hermes_test_bot", true},
		{"mention of another", text("@other_bot lunch?"), false, required, "", false},
		{"longer name", text("@hermes_test_bot2 lunch?"), false, required, "", false},
		{"command for us", text("/status@hermes_test_bot now"), false, required, "/status now", true},
		{"command for another", text("/status@other_bot now"), false, nil, "", false},
		{"command for all, mention needed", text("/status"), false, required, "", false},
		{"command for all", text("/status"), false, nil, "/status", false},
		{"answer to the bot", text("and then?"), true, required, "and then?", true},
		{"pattern", text("hey Hermes, lunch?"), false, func(c *telegram.Config) {
			c.RequireMention, c.MentionPatterns = true, []*regexp.Regexp{regexp.MustCompile(`(?i)\bhermes\b`)}
		}, "hey Hermes, lunch?", true},
		{"named without an @", fake.Post{Text: "Hermes lunch?", Entities: []fake.Entity{{Type: "text_mention", Length: 6, User: &fake.User{ID: 7000000001}}}}, false, required, "lunch?", true},
		{"entity beyond the text", fake.Post{Text: "x", Entities: []fake.Entity{{Type: "mention", Offset: 1, Length: 99}}}, false, nil, "x", false},
		{"caption", fake.Post{Text: "@hermes_test_bot what is this?", File: &fake.Upload{Kind: "document", Name: "a.pdf"}}, false, required, "what is this?", true},
		{"file without a mention", fake.Post{File: &fake.Upload{Kind: "document", Name: "a.pdf"}}, false, required, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.change)
			group := r.srv.AddGroup("Team")
			alice := r.srv.AddUser("Alice")
			c.post.Chat, c.post.From = group.ID, alice
			if c.toBot {
				id, err := r.Send(r.ctx, address(group.ID), domain.Part{Text: "first this"}, "n")
				if err != nil {
					t.Fatal(err)
				}
				c.post.ReplyTo, _ = strconv.Atoi(id)
			}
			r.srv.Post(c.post)
			r.srv.Say(alice, "last") // private: always heard
			r.run(t)
			n := 2
			if c.want == "" {
				n = 1
			}
			got := r.sink.Wait(t, r.ctx, n)
			if len(got) != n {
				t.Fatalf("stored %q", adapter.Texts(got))
			}
			if c.want == "" {
				return
			}
			in := got[0]
			if in.Text != c.want || in.Mentioned != c.mention || in.ChatType != domain.ChatGroup || in.ChatName != "Team" || in.UserName != "Alice" {
				t.Errorf("stored as %+v", in)
			}
			if c.toBot && in.ReplyText != "first this" {
				t.Errorf("the answered text is %q", in.ReplyText)
			}
		})
	}
}

func TestChatterMovesTheOffset(t *testing.T) {
	r := newRig(t, func(c *telegram.Config) { c.RequireMention = true })
	group, alice := r.srv.AddGroup("Team"), r.srv.AddUser("Alice")
	for range 3 {
		r.srv.Post(fake.Post{From: alice, Chat: group.ID, Text: "chatter"})
	}
	r.run(t)
	if err := r.srv.WaitConfirmed(r.ctx, 700_000_003); err != nil {
		t.Fatal(err)
	}
	if r.sink.Commits() != 0 {
		t.Errorf("%d commits for what is not for us", r.sink.Commits())
	}
}

func TestWhereMessagesComeFrom(t *testing.T) {
	r := newRig(t, func(c *telegram.Config) {
		c.Allowed = []string{"-1000000001002", "@news"}
		c.IgnoredThreads = []string{"3"}
		c.ChannelPosts = true
	})
	alice := r.srv.AddUser("Alice")                    // 1001
	forum := r.srv.AddSupergroup("Forum", true)        // -1000000001002
	other := r.srv.AddSupergroup("Another", false)     // not allowed
	news := r.srv.AddChannel("News of today", "News")  // allowed by name
	topic := r.srv.AddTopic(forum.ID, "Plans")         // 2
	ignored := r.srv.AddTopic(forum.ID, "Not for you") // 3
	r.srv.Post(fake.Post{From: alice, Chat: other.ID, Text: "no"})
	r.srv.Post(fake.Post{From: alice, Chat: forum.ID, Thread: ignored, Text: "no"})
	r.srv.Post(fake.Post{From: alice, Chat: forum.ID, Thread: topic, Text: "in a topic"})
	r.srv.Post(fake.Post{From: alice, Chat: forum.ID, Text: "in general"})
	r.srv.Post(fake.Post{From: alice, Chat: forum.ID, Text: "anonymous", Anonymous: true})
	r.srv.Post(fake.Post{Chat: news.ID, Text: "a post"})
	first := r.srv.Say(alice, "private")
	r.srv.EditPost(first, "edited")
	robot := r.srv.AddUser("Robot")
	robot.IsBot = true
	r.srv.Post(fake.Post{From: robot, Chat: forum.ID, Text: "beep"})
	r.srv.Say(alice, "end")
	r.run(t)
	got := r.sink.Wait(t, r.ctx, 6)
	type place struct {
		text, chat, thread, user string
		kind                     domain.ChatType
	}
	var places []place
	for _, in := range got {
		places = append(places, place{in.Text, in.ChatID, in.ThreadID, in.UserID, in.ChatType})
	}
	f, u, n := itoa(forum.ID), itoa(alice.ID), itoa(news.ID)
	want := []place{
		{"in a topic", f, strconv.Itoa(topic), u, domain.ChatGroup},
		{"in general", f, "", u, domain.ChatGroup},
		{"anonymous", f, "", f, domain.ChatGroup},
		{"a post", n, "", n, domain.ChatChannel},
		{"private", u, "", u, domain.ChatDM},
		{"end", u, "", u, domain.ChatDM},
	}
	if !slices.Equal(places, want) {
		t.Errorf("stored %+v\nwant   %+v", places, want)
	}
	if got[0].ReplyText != "" || got[0].Mentioned {
		t.Errorf("the creation of the topic counts as answered: %+v", got[0])
	}
}

func TestButtons(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	id, err := r.Send(r.ctx, address(alice.ID), domain.Part{Text: "Run it?", Buttons: []domain.Button{{Label: "Yes", Command: "/approve"}}}, "n")
	if err != nil {
		t.Fatal(err)
	}
	m := r.srv.Messages(alice.ID)[0]
	entered := make(chan string, 1)
	var query string
	r.sink.SetAccept(func([]domain.Inbound) error {
		_, answered := r.srv.Answered(query)
		entered <- strconv.FormatBool(answered)
		return nil
	})
	query = r.srv.Press(alice, m, m.Buttons[0][0].Data)
	r.run(t)
	in := r.sink.Wait(t, r.ctx, 1)[0]
	if in.Text != "/approve" || !in.Button || !in.Mentioned || in.MessageID != id || in.UserID != itoa(alice.ID) || in.ChatID != itoa(alice.ID) {
		t.Errorf("stored as %+v", in)
	}
	if <-entered != "false" {
		t.Error("the press was answered before it was committed")
	}
	if err := r.srv.WaitAnswered(r.ctx, query); err != nil {
		t.Fatal(err)
	}
	r.sink.SetAccept(nil)
	r.srv.DeleteMessage(alice.ID, m.ID)
	query = r.srv.Press(alice, m, "/deny")
	if in := r.sink.Wait(t, r.ctx, 2)[1]; in.Text != "/deny" || in.ChatID != itoa(alice.ID) {
		t.Errorf("under a deleted message: %+v", in)
	}
	if err := r.srv.WaitAnswered(r.ctx, query); err != nil {
		t.Fatal(err)
	}
}

func picture(t testing.TB, w, h int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, w, h))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFilesIn(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	pic := picture(t, 640, 480)
	for _, u := range []fake.Upload{
		{Kind: "photo", Data: pic},
		{Kind: "document", Name: "../../etc/pass\x00wd.pdf", MIME: "application/pdf", Data: []byte("%PDF")},
		{Kind: "document", Name: "scan.png", MIME: "image/png", Data: pic},
		{Kind: "voice", MIME: "audio/ogg", Data: []byte("OggS")},
		{Kind: "audio", Name: "song.mp3", MIME: "audio/mpeg", Data: []byte("ID3")},
		{Kind: "video", Name: "film.mp4", MIME: "video/mp4", Data: []byte("ftyp")},
	} {
		r.srv.Post(fake.Post{From: alice, Text: "look", File: &u})
	}
	r.run(t)
	got := r.sink.Wait(t, r.ctx, 6)
	for i, want := range []domain.Attachment{
		{Kind: domain.Image, Name: "photo_1.jpg", MIME: "image/jpeg", Size: int64(len(pic))},
		{Kind: domain.Document, Name: "passwd.pdf", MIME: "application/pdf", Size: 4},
		{Kind: domain.Image, Name: "scan.png", MIME: "image/png", Size: int64(len(pic))},
		{Kind: domain.Voice, Name: "voice_4.ogg", MIME: "audio/ogg", Size: 4},
		{Kind: domain.Audio, Name: "song.mp3", MIME: "audio/mpeg", Size: 3},
		{Kind: domain.Video, Name: "film.mp4", MIME: "video/mp4", Size: 4},
	} {
		if got[i].Text != "look" || len(got[i].Attachments) != 1 {
			t.Fatalf("event %d is %+v", i, got[i])
		}
		a := got[i].Attachments[0]
		want.Ref = a.Ref
		if a != want || a.Ref == "" {
			t.Errorf("file %d is %+v, want %+v", i, a, want)
		}
	}
	var b bytes.Buffer
	a, err := r.Fetch(r.ctx, got[0].Attachments[0], 1<<20, &b)
	if err != nil || !bytes.Equal(b.Bytes(), pic) || a.Size != int64(len(pic)) {
		t.Errorf("fetched %d bytes as %+v: %v", b.Len(), a, err)
	}
}

func TestFetchRefuses(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	big := make([]byte, 20<<20+1)
	r.srv.Post(fake.Post{From: alice, File: &fake.Upload{Kind: "document", Name: "big.bin", Data: big}})
	r.srv.Post(fake.Post{From: alice, File: &fake.Upload{Kind: "document", Name: "small.bin", Data: []byte("12345")}})
	r.run(t)
	got := r.sink.Wait(t, r.ctx, 2)
	bigFile, small := got[0].Attachments[0], got[1].Attachments[0]
	var b bytes.Buffer
	_, err := r.Fetch(r.ctx, bigFile, 1<<30, &b)
	adapter.Fails(t, err, platform.GiveUp)
	bigFile.Size = 0 // when Telegram does not say
	_, err = r.Fetch(r.ctx, bigFile, 1<<30, &b)
	if e := adapter.Fails(t, err, platform.GiveUp); !strings.Contains(e.Reason, "20 MB") {
		t.Errorf("it says %q", e.Reason)
	}
	small.Size = 0
	_, err = r.Fetch(r.ctx, small, 4, &b)
	adapter.Fails(t, err, platform.GiveUp)
	if b.Len() != 0 {
		t.Errorf("%d bytes were written of files that are too large", b.Len())
	}
	back := r.srv.Fail("file", fault.Fault{Cut: true, Times: -1})
	_, err = r.Fetch(r.ctx, small, 5, &b)
	if e := adapter.Fails(t, err, platform.Retry); e.Uncertain {
		t.Errorf("a download is uncertain: %+v", e)
	}
	back()
	r.srv.DropFiles()
	_, err = r.Fetch(r.ctx, small, 5, &b)
	adapter.Fails(t, err, platform.GiveUp)
	_, err = r.Fetch(r.ctx, domain.Attachment{Ref: "none"}, 5, &b)
	adapter.Fails(t, err, platform.GiveUp)
}

func TestAnAlbumIsOneEvent(t *testing.T) {
	r := newRig(t, func(c *telegram.Config) { c.RequireMention = true })
	group, alice := r.srv.AddGroup("Team"), r.srv.AddUser("Alice")
	post := func(text string) {
		r.srv.Post(fake.Post{From: alice, Chat: group.ID, Text: text, Album: "a1", File: &fake.Upload{Kind: "photo", Data: picture(t, 100, 100)}})
	}
	post("")
	post("@hermes_test_bot which is best?")
	r.srv.Say(alice, "meanwhile")
	post("")
	r.run(t)
	got := r.sink.Wait(t, r.ctx, 2)
	if in := got[0]; in.Text != "which is best?" || len(in.Attachments) != 3 || in.EventID != "700000001" {
		t.Errorf("the album is %+v", in)
	}
	if got[1].Text != "meanwhile" {
		t.Errorf("beside it: %q", got[1].Text)
	}
}

func TestAnAlbumThatComesInBits(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	post := func(text string) {
		r.srv.Post(fake.Post{From: alice, Text: text, Album: "a1", File: &fake.Upload{Kind: "photo", Data: picture(t, 100, 100)}})
	}
	hold := make(chan struct{})
	post("look")
	r.srv.Fail("getUpdates", fault.Fault{})           // the first read passes,
	r.srv.Fail("getUpdates", fault.Fault{Hold: hold}) // the second waits until the second picture is there
	r.run(t)
	if err := r.srv.WaitCalls(r.ctx, "getUpdates", 2); err != nil {
		t.Fatal(err)
	}
	post("")
	close(hold)
	if in := r.sink.Wait(t, r.ctx, 1)[0]; len(in.Attachments) != 2 || in.Text != "look" {
		t.Errorf("the album is %+v", in)
	}
}

// TestAnAlbumAcrossARestart lets the process end while the pictures of an album
// come in. Nothing of it is lost: what was not committed comes again, as one turn
// with what came since, and what comes after a commit is a turn of its own.
func TestAnAlbumAcrossARestart(t *testing.T) {
	for _, committed := range []bool{false, true} {
		r := newRig(t, nil)
		alice := r.srv.AddUser("Alice")
		post := func(text string) {
			r.srv.Post(fake.Post{From: alice, Text: text, Album: "a1", File: &fake.Upload{Kind: "photo", Data: picture(t, 100, 100)}})
		}
		tried := make(chan struct{}, 64)
		r.sink.SetAccept(func([]domain.Inbound) error {
			select {
			case tried <- struct{}{}:
			default:
			}
			if committed {
				return nil
			}
			return errors.New("the disk is full")
		})
		post("look")
		post("")
		stop := r.run(t)
		receive(t, r.ctx, tried)
		if committed {
			r.sink.Wait(t, r.ctx, 1)
		}
		_ = stop() // it may say that nothing could be stored
		r.sink.SetAccept(nil)
		post("")
		r.run(t)
		want := []int{3}
		if committed {
			want = []int{2, 1}
		}
		var got []int
		for _, in := range r.sink.Wait(t, r.ctx, len(want)) {
			got = append(got, len(in.Attachments))
		}
		if !slices.Equal(got, want) {
			t.Errorf("committed before: %v; the turns have %v pictures, want %v", committed, got, want)
		}
	}
}

func TestMenuNamesAreTurnedBack(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	cmds := []platform.Command{{Name: "reload-mcp", Description: "Load the servers again"}, {Name: "new"}, {Name: "Bad Name"}, {Name: "new"}, {Name: strings.Repeat("x", 33)}, {Name: "reset", Unlisted: true}}
	for range 2 {
		if err := r.SetCommands(r.ctx, cmds); err != nil {
			t.Fatal(err)
		}
	}
	want := []fake.Command{{Command: "reload_mcp", Description: "Load the servers again"}, {Command: "new", Description: "new"}}
	if got := r.srv.Commands(); !slices.Equal(got, want) || r.srv.Calls("setMyCommands") != 1 {
		t.Errorf("the menu is %+v after %d calls", got, r.srv.Calls("setMyCommands"))
	}
	r.srv.Say(alice, "/reload_mcp now")
	r.srv.Say(alice, "/my_own")
	r.run(t)
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 2)); got[0] != "/reload-mcp now" || got[1] != "/my_own" {
		t.Errorf("stored %q", got)
	}
}

func TestFromProfile(t *testing.T) {
	c, err := telegram.FromProfile(home.PlatformConfig{
		Token: "123:abc", RequireMention: true, MentionPatterns: []string{"hey bot"}, Typing: true,
		Extra: map[string]string{"base_url": "http://127.0.0.1:1", "disable_link_previews": "yes", "free_response_chats": "-1, -2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !c.RequireMention || !c.MentionPatterns[0].MatchString("HEY BOT") || c.BaseURL != "http://127.0.0.1:1" ||
		!c.DisableLinkPreviews || c.NoTyping || !slices.Equal(c.Free, []string{"-1", "-2"}) {
		t.Errorf("read as %+v", c)
	}
	_, err = telegram.FromProfile(home.PlatformConfig{
		Token: secret.Value("nonsense"), MentionPatterns: []string{"("}, Extra: map[string]string{"delete_webhook": "perhaps"},
	})
	msg := domain.MessageOf(err)
	for _, part := range []string{"delete_webhook", `"("`, "token"} {
		if !strings.Contains(msg, part) {
			t.Errorf("%q does not name %s", msg, part)
		}
	}
	if !domain.IsCode(err, domain.Config) || strings.Contains(err.Error(), "nonsense") {
		t.Errorf("it says %v", err)
	}
}

func TestWhatHasNoText(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("Alice")
	for _, extra := range []map[string]any{
		{"venue": map[string]any{"title": "Café", "address": "High Street", "location": map[string]any{"latitude": 1.5, "longitude": 2}}},
		{"location": map[string]any{"latitude": 1.5, "longitude": 2}},
		{"contact": map[string]any{"first_name": "Bob", "phone_number": "+1"}},
		{"sticker": map[string]any{"file_id": "x", "emoji": "😀"}},
		{"poll": map[string]any{"question": "Lunch?", "options": []any{map[string]any{"text": "yes"}, map[string]any{"text": "no"}}}},
		{"video_note": map[string]any{"file_id": "v"}},
		{"animation": map[string]any{"file_id": "a", "file_name": strings.Repeat("é", 300) + ".mp4"}, "document": map[string]any{"file_id": "a"}},
		{"text": "yes", "quote": map[string]any{"text": "the part"}, "reply_to_message": map[string]any{"message_id": 1, "date": 1, "text": "the whole"}},
		{"text": "direct", "direct_messages_topic": map[string]any{"topic_id": 9}},
	} {
		m := map[string]any{"message_id": 7, "date": 1, "from": map[string]any{"id": alice.ID}, "chat": map[string]any{"id": alice.ID, "type": "private"}}
		for k, v := range extra {
			m[k] = v
		}
		r.srv.PushUpdate("message", m)
	}
	r.run(t)
	got := r.sink.Wait(t, r.ctx, 9)
	want := []string{"[venue: Café, High Street, 1.5, 2]", "[location: 1.5, 2]", "[contact: Bob, +1]", "[sticker 😀]", "[poll: Lunch? (yes, no)]", "", "", "yes", "direct"}
	if !slices.Equal(adapter.Texts(got), want) {
		t.Errorf("stored %q", adapter.Texts(got))
	}
	if a := got[5].Attachments; len(a) != 1 || a[0].Kind != domain.Video {
		t.Errorf("a round video is %+v", a)
	}
	if a := got[6].Attachments; len(a) != 1 || a[0].Kind != domain.Video || len(a[0].Name) > 200 || !strings.HasSuffix(a[0].Name, ".mp4") {
		t.Errorf("an animation is %+v", a)
	}
	if got[7].ReplyText != "the part" || got[8].ThreadID != "dm9" {
		t.Errorf("quoted %q, thread %q", got[7].ReplyText, got[8].ThreadID)
	}
}
