package matrix_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/matrix"
	"hermes/internal/secret"
	"hermes/testkit/adapter"
	"hermes/testkit/fault"
	fake "hermes/testkit/matrix"
)

// idle is a rig whose account is in a room and does not listen.
func idle(t testing.TB, change func(*matrix.Config)) (r *rig, ann fake.User, room string) {
	t.Helper()
	r = newRig(t, change)
	ann = r.srv.AddUser("Ann")
	room = r.srv.Invite(ann, true)
	r.srv.Enter(room)
	return r, ann, room
}

func TestSend(t *testing.T) {
	r, ann, room := idle(t, nil)
	part := domain.Part{Text: "a <b>b</b>", Plain: "a b", Markup: true}
	id, err := r.Send(r.ctx, address(room), part, "n1")
	if err != nil {
		t.Fatal(err)
	}
	m := r.srv.Messages(room)[0]
	if m.ID != id || m.Text != "a b" || m.HTML != "a <b>b</b>" || m.Kind != "m.text" || m.Content["m.mentions"] == nil {
		t.Errorf("the room shows %+v", m)
	}
	if again, err := r.Send(r.ctx, address(room), part, "n1"); err != nil || again != id {
		t.Errorf("the second time: %q, %v", again, err)
	}
	if _, err := r.Send(r.ctx, address(room), domain.Part{Text: "a <b>", Silent: true, ReplyTo: id}, "n2"); err != nil {
		t.Fatal(err)
	}
	if m := r.srv.Messages(room)[1]; m.Text != "a <b>" || m.HTML != "" || m.Kind != "m.notice" || m.ReplyTo != id || m.Thread != "" {
		t.Errorf("the room shows %+v", m)
	}
	// To an alias, and to a person with whom there is a direct room.
	town := r.srv.Open(fake.Room{By: ann, Alias: "town"})
	r.srv.Enter(town)
	if _, err := r.Send(r.ctx, address("#town:"+fake.Domain), domain.Part{Text: "x"}, "n3"); err != nil || len(r.srv.Messages(town)) != 1 {
		t.Errorf("to an alias: %v", err)
	}
	_, err = r.Send(r.ctx, address(ann.ID), domain.Part{Text: "x"}, "n4")
	adapter.Fails(t, err, platform.GiveUp)
}

func TestAUserIsWrittenToDirectly(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("Ann")
	r.connect(t)
	dm := r.direct(t, ann)
	r.srv.Say(ann, dm, "hello")
	r.sink.Wait(t, r.ctx, 1)
	if _, err := r.Send(r.ctx, address(ann.ID), domain.Part{Text: "hi"}, "n1"); err != nil || len(r.srv.Replies(dm)) != 1 {
		t.Errorf("%v, %+v", err, r.srv.Replies(dm))
	}
}

func TestNothingIsSentTwice(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault fault.Fault
		kind  platform.Kind
		again bool // the outcome is uncertain
	}{
		{"cut before", fault.CutBefore(), platform.Retry, true},
		{"cut after", fault.CutAfter(), platform.Retry, true},
		{"bad gateway after", fault.Fault{Act: true, Status: 502, Body: "<html>"}, platform.Retry, true},
		{"limited", fake.TooMany(2500), platform.Retry, false},
	} {
		for _, forget := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				r, _, room := idle(t, nil)
				r.srv.Fail(fake.Send, tt.fault)
				_, err := r.Send(r.ctx, address(room), domain.Part{Text: "once"}, "n1")
				e := adapter.Fails(t, err, tt.kind)
				if e.Uncertain != tt.again {
					t.Errorf("uncertain is %v: %+v", e.Uncertain, e)
				}
				if !tt.again && (e.RetryAfter != 2500*time.Millisecond || !e.Global) {
					t.Errorf("the pause is %v, global %v", e.RetryAfter, e.Global)
				}
				if forget { // the homeserver remembers no transaction; it is looked for
					r.srv.ForgetTransactions()
				}
				r.Adapter = r.another(t)
				id, err := r.Send(r.ctx, address(room), domain.Part{Text: "once"}, "n1")
				if all := r.srv.Replies(room); err != nil || len(all) != 1 || all[0].ID != id {
					t.Errorf("the room shows %+v; %q, %v", all, id, err)
				}
			})
		}
	}
}

func TestAMessageIsFoundBehindOthers(t *testing.T) {
	r, ann, room := idle(t, nil)
	id, err := r.Send(r.ctx, address(room), domain.Part{Text: "once"}, "n1")
	if err != nil {
		t.Fatal(err)
	}
	for range 30 {
		if err := r.Edit(r.ctx, address(room), id, domain.Part{Text: "more"}); err != nil {
			t.Fatal(err)
		}
		r.srv.Say(ann, room, "chatter")
	}
	r.srv.ForgetTransactions()
	r.Adapter = r.another(t)
	if again, err := r.Send(r.ctx, address(room), domain.Part{Text: "once"}, "n1"); err != nil || again != id {
		t.Errorf("%q, %v", again, err)
	}
	// What cannot be looked for yet is not sent.
	r.Adapter = r.another(t)
	r.srv.Fail("GET /v3/rooms/{room}/messages", fault.Fault{Status: 502, Body: "<html>"})
	_, err = r.Send(r.ctx, address(room), domain.Part{Text: "once"}, "n1")
	if e := adapter.Fails(t, err, platform.Retry); e.Uncertain && e.Code != "matrix_502" {
		t.Errorf("%+v", e)
	}
}

func TestRefusals(t *testing.T) {
	r, ann, room := idle(t, nil)
	for _, tt := range []struct {
		fault fault.Fault
		kind  platform.Kind
		code  string
	}{
		{fault.Fault{Status: 403, Code: "M_FORBIDDEN"}, platform.GiveUp, "matrix_rights"},
		{fault.Fault{Status: 404, Code: "M_NOT_FOUND"}, platform.GiveUp, "matrix_absent"},
		{fault.Fault{Status: 413, Code: "M_TOO_LARGE"}, platform.MarkupRefused, "matrix_length"},
		{fault.Fault{Status: 413, Body: "<html>"}, platform.MarkupRefused, "matrix_length"},
		{fault.Fault{Status: 400, Code: "M_BAD_JSON"}, platform.GiveUp, "matrix_400"},
		{fault.Fault{Status: 403, Code: "M_CONSENT_NOT_GIVEN"}, platform.GiveUp, "matrix_consent"},
		{fault.Fault{Status: 403, Code: "M_RESOURCE_LIMIT_EXCEEDED"}, platform.Retry, "matrix_resources"},
		{fault.Fault{Status: 429, RetryAfter: 7, Body: "slow down"}, platform.Retry, "matrix_limit"},
		{fault.Redirect(302, "https://elsewhere.example/"), platform.Retry, "matrix_moved"},
		{fault.Fault{Status: 404, Body: "<html>"}, platform.Retry, "matrix_garbled"},
		{fault.Fault{Status: 401, Code: "M_UNKNOWN_TOKEN"}, platform.BadCredentials, "matrix_token"},
		{fault.Fault{Status: 500, Code: "M_UNKNOWN"}, platform.Retry, "matrix_500"},
	} {
		r.srv.Fail(fake.Send, tt.fault)
		_, err := r.Send(r.ctx, address(room), domain.Part{Text: "<b>x</b>", Plain: "x", Markup: true}, "")
		if e := adapter.Fails(t, err, tt.kind); e.Code != tt.code || e.Uncertain != (tt.fault.Status == 500) {
			t.Errorf("%+v gives %+v", tt.fault, e)
		} else if tt.fault.RetryAfter > 0 && e.RetryAfter != 7*time.Second {
			t.Errorf("the pause is %v", e.RetryAfter)
		}
	}
	for _, to := range []domain.Address{address("town"), address("C123"), {Platform: matrix.Name, ChatID: room, ThreadID: "123"}, address("!absent:" + fake.Domain)} {
		_, err := r.Send(r.ctx, to, domain.Part{Text: "x"}, "n1")
		adapter.Fails(t, err, platform.GiveUp)
	}
	_, err := r.Send(r.ctx, address(room), domain.Part{Text: " "}, "n2")
	adapter.Fails(t, err, platform.GiveUp)
	long := domain.Part{Text: `<a href="https://e.x/` + strings.Repeat("a", 70_000) + `">x</a>`, Plain: "x", Markup: true}
	_, err = r.Send(r.ctx, address(room), long, "n3")
	adapter.Fails(t, err, platform.MarkupRefused)
	// A room that was replaced sends the message to its successor.
	next := r.srv.Open(fake.Room{By: ann, Public: true, Uninvited: true})
	r.srv.Upgrade(ann, room, next)
	_, err = r.Send(r.ctx, address(room), domain.Part{Text: "x"}, "n4")
	if e := adapter.Fails(t, err, platform.Moved); e.NewChatID != next || r.srv.Membership(next) != "join" {
		t.Errorf("moved to %q", e.NewChatID)
	}
}

func TestEdit(t *testing.T) {
	r, _, room := idle(t, nil)
	id, err := r.Send(r.ctx, address(room), domain.Part{Text: "a"}, "n1")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"b", "a", "b"} {
		if err := r.Edit(r.ctx, address(room), id, domain.Part{Text: "<i>" + text + "</i>", Plain: text, Markup: true}); err != nil {
			t.Fatal(err)
		}
	}
	all := r.srv.Messages(room)
	if len(all) != 1 || all[0].Text != "b" || all[0].HTML != "<i>b</i>" || !slices.Equal(all[0].Edits, []string{"a", "b", "a"}) {
		t.Errorf("the room shows %+v", all)
	}
	for _, bad := range []string{"", "17", "$absent"} {
		adapter.Fails(t, r.Edit(r.ctx, address(room), bad, domain.Part{Text: "x"}), platform.EditRefused)
	}
	r.srv.Forbid(room, true)
	adapter.Fails(t, r.Edit(r.ctx, address(room), id, domain.Part{Text: "x"}), platform.EditRefused)
}

func TestTypingAndReactions(t *testing.T) {
	r := newRig(t, func(c *matrix.Config) { c.Reactions = true })
	ann := r.srv.AddUser("Ann")
	r.connect(t)
	dm := r.direct(t, ann)
	id := r.srv.Say(ann, dm, "hello")
	in := r.sink.Wait(t, r.ctx, 1)[0]
	if err := r.Typing(r.ctx, in.Address); err != nil {
		t.Fatal(err)
	}
	if now, n := r.srv.Typing(dm); !now || n != 1 {
		t.Error("it is not shown that the account writes")
	}
	if _, err := r.srv.WaitFor(r.ctx, dm, func(m fake.Message) bool { return m.ID == id && slices.Equal(m.Reactions, []string{"👀"}) }); err != nil {
		t.Error("the message was not acknowledged")
	}
	if _, err := r.Send(r.ctx, in.Address, domain.Part{Text: "hi"}, "n1"); err != nil {
		t.Fatal(err)
	}
	if err := r.srv.WaitStill(r.ctx, dm); err != nil {
		t.Error("the account seems to write still")
	}
	quiet := r.with(t, func(c *matrix.Config) { c.NoTyping = true })
	if err := quiet.Typing(r.ctx, in.Address); err != nil {
		t.Fatal(err)
	}
	if _, n := r.srv.Typing(dm); n != 1 {
		t.Error("it is shown although it is switched off")
	}
}

func TestFilesOut(t *testing.T) {
	r, _, room := idle(t, nil)
	dir := t.TempDir()
	file := func(name, data string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	p := domain.Part{Text: "two files", Attachments: []domain.Attachment{{Kind: domain.Image, Path: file("a.png", "picture")}, {Kind: domain.Voice, Path: file("v.ogg", "voice"), Name: "../voice.ogg", MIME: "audio/ogg"}}}
	if _, err := r.Send(r.ctx, address(room), p, "n1"); err != nil {
		t.Fatal(err)
	}
	all := r.srv.Messages(room)
	if len(all) != 3 || all[1].Kind != "m.image" || string(all[1].File.Data) != "picture" || all[1].File.MIME != "image/png" || all[2].Kind != "m.audio" || all[2].Text != "voice.ogg" || all[2].Content["org.matrix.msc3245.voice"] == nil {
		t.Fatalf("the room shows %+v", all)
	}
	// The next life repeats none of them.
	r.srv.ForgetTransactions()
	r.Adapter = r.another(t)
	if _, err := r.Send(r.ctx, address(room), p, "n1"); err != nil || len(r.srv.Messages(room)) != 3 {
		t.Errorf("%d messages, %v", len(r.srv.Messages(room)), err)
	}
	for _, at := range []domain.Attachment{{Path: filepath.Join(dir, "absent")}, {Path: dir}, {Path: file("empty", "")}, {Name: "nowhere"}} {
		_, err := r.Send(r.ctx, address(room), domain.Part{Attachments: []domain.Attachment{at}}, "")
		adapter.Fails(t, err, platform.GiveUp)
	}
	r.srv.Fail("POST /_matrix/media/v3/upload", fault.Fault{Status: 502, Body: "<html>"})
	_, err := r.Send(r.ctx, address(room), domain.Part{Attachments: []domain.Attachment{{Path: file("b.txt", "x")}}}, "n2")
	if e := adapter.Fails(t, err, platform.Retry); e.Uncertain {
		t.Error("an upload shows nothing to anybody")
	}
}

func TestAFileThatIsTooLarge(t *testing.T) {
	r := newRigWith(t, fake.Options{MaxFileSize: 4}, nil)
	room := r.srv.Invite(r.srv.AddUser("Ann"), true)
	r.srv.Enter(room)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("five!"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := r.Send(r.ctx, address(room), domain.Part{Attachments: []domain.Attachment{{Path: path}}}, "n1")
	adapter.Fails(t, err, platform.GiveUp)
}

func TestFilesIn(t *testing.T) {
	for _, old := range []bool{false, true} {
		r := newRigWith(t, fake.Options{Old: old}, nil)
		ann := r.srv.AddUser("Ann")
		r.connect(t)
		dm := r.direct(t, ann)
		r.srv.Post(fake.Post{From: ann, Room: dm, Kind: "m.image", Text: "look", File: &fake.File{Name: "../a\x07b.png", MIME: "image/png", Data: []byte("picture")}})
		r.srv.Post(fake.Post{From: ann, Room: dm, Kind: "m.audio", File: &fake.File{Name: "v.ogg", MIME: "audio/ogg", Data: []byte("voice")}, Content: map[string]any{"org.matrix.msc3245.voice": map[string]any{}}})
		r.srv.Post(fake.Post{From: ann, Room: dm, Kind: "m.file", Content: map[string]any{"url": "https://evil.example/x", "body": "x"}})
		events := r.sink.Wait(t, r.ctx, 2)
		if events[0].Text != "look" || len(events[0].Attachments) != 1 || events[0].Attachments[0].Name != "ab.png" || events[0].Attachments[0].Kind != domain.Image ||
			events[1].Text != "" || events[1].Attachments[0].Kind != domain.Voice {
			t.Fatalf("stored %+v", events)
		}
		var b bytes.Buffer
		at, err := r.Fetch(r.ctx, events[0].Attachments[0], 100, &b)
		if err != nil || b.String() != "picture" || at.Size != 7 || at.MIME != "image/png" {
			t.Errorf("fetched %q, %+v, %v", b.String(), at, err)
		}
		lie := events[0].Attachments[0]
		lie.Size = 0
		b.Reset()
		_, err = r.Fetch(r.ctx, lie, 6, &b)
		adapter.Fails(t, err, platform.GiveUp)
		if b.Len() > 6 {
			t.Errorf("%d bytes were written, at most 6 may be", b.Len())
		}
		for _, ref := range []string{"", "https://evil.example/x", "mxc://a/../b", "mxc://" + fake.Domain + "/absent", "mxc://x"} {
			_, err = r.Fetch(r.ctx, domain.Attachment{Ref: ref, Name: "x"}, 100, &b)
			adapter.Fails(t, err, platform.GiveUp)
		}
	}
}

var question = domain.Part{Text: "May I?", Buttons: []domain.Button{{Label: "Allow <once>", Command: "/approve 7"}, {Label: "Deny\n", Command: "/deny 7"}, {Label: "", Command: "x"}}}

func TestANumberIsAButton(t *testing.T) {
	r := newRig(t, nil)
	ann := r.srv.AddUser("Ann")
	stop := r.connect(t)
	town := r.room(t, ann, "Town")
	root := r.srv.Say(ann, town, "hello")
	to := address(town)
	to.ThreadID = root
	if _, err := r.Send(r.ctx, to, question, "n1"); err != nil {
		t.Fatal(err)
	}
	m, err := r.srv.WaitFor(r.ctx, town, func(m fake.Message) bool { return slices.Equal(m.Reactions, []string{"1️⃣", "2️⃣"}) })
	if err != nil {
		t.Fatalf("no numbers are offered: %+v", r.srv.Messages(town))
	}
	if want := "May I?\n\n1️⃣ Allow <once>: !approve 7\n2️⃣ Deny: !deny 7"; m.Text != want {
		t.Errorf("it says %q, want %q", m.Text, want)
	}
	if want := "May I?<br><br>1️⃣ Allow &lt;once&gt;: <code>!approve 7</code><br>2️⃣ Deny: <code>!deny 7</code>"; m.HTML != want {
		t.Errorf("it says %q, want %q", m.HTML, want)
	}
	r.srv.Press(ann, town, m.ID, "👍")
	r.srv.Press(ann, town, m.ID, "3️⃣")
	r.srv.Press(ann, town, root, "1️⃣")
	id := r.srv.Press(ann, town, m.ID, "2\u20e3") // as some clients write it
	in := r.sink.Wait(t, r.ctx, 1)[0]
	if !in.Button || in.Text != "/deny 7" || in.UserID != ann.ID || in.Address != to || in.ChatType != domain.ChatGroup || in.EventID != id || in.MessageID != m.ID || !in.Mentioned {
		t.Errorf("stored %+v", in)
	}
	// One that is pressed while nobody listens is heard by the next life.
	stop()
	r.srv.Press(ann, town, m.ID, "1️⃣")
	r.Adapter = r.another(t)
	r.connect(t)
	if in := r.sink.Wait(t, r.ctx, 2)[1]; in.Text != "/approve 7" || !in.Button {
		t.Errorf("stored %+v", in)
	}
}

func TestTheLegendKeepsWithinItsRoom(t *testing.T) {
	r, _, room := idle(t, nil)
	c := r.Capabilities()
	part := domain.Part{Text: strings.Repeat("ä", c.MaxText)}
	for range 20 {
		part.Buttons = append(part.Buttons, domain.Button{Label: strings.Repeat("L", 90), Command: "/" + strings.Repeat("c", 63)})
	}
	if _, err := r.Send(r.ctx, address(room), part, "n1"); err != nil {
		t.Fatal(err)
	}
	if n := len([]rune(r.srv.Messages(room)[0].Text)); n > 4000 || n < c.MaxText+100 {
		t.Errorf("the message has %d characters", n)
	}
	if c.MaxText != 3500 || c.Dialect != platform.DialectMatrixHTML || !c.Buttons || c.CommandSign != "!" {
		t.Errorf("capabilities %+v", c)
	}
}

func TestAPasswordIsExchangedOnce(t *testing.T) {
	r, _, room := idle(t, nil)
	const login = "POST /v3/login"
	change := func(c *matrix.Config) { c.Token, c.UserID, c.Password = "", "hermes", secret.Value(r.srv.Password()) }
	first := r.with(t, change)
	if err := first.Check(r.ctx); err != nil {
		t.Fatal(err)
	}
	// Another process of the same profile takes the token from the file.
	second := r.with(t, change)
	if _, err := second.Send(r.ctx, address(room), domain.Part{Text: "x"}, "n1"); err != nil {
		t.Fatal(err)
	}
	if n := r.srv.Calls(login); n != 1 {
		t.Errorf("%d logins", n)
	}
	if info, err := os.Stat(r.file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of the session: %v, %v", info, err)
	}
	// A token that the homeserver forgot is replaced, by one of them.
	r.srv.Revoke(true)
	if _, err := second.Send(r.ctx, address(room), domain.Part{Text: "y"}, "n2"); err != nil {
		t.Fatal(err)
	}
	if err := first.Check(r.ctx); err != nil {
		t.Fatal(err)
	}
	if n := r.srv.Calls(login); n != 2 {
		t.Errorf("%d logins", n)
	}
	// A check that knows no file disturbs none of them.
	had := r.srv.Devices()
	r.file = ""
	if err := r.with(t, change).Check(r.ctx); err != nil || r.srv.Devices() != had {
		t.Errorf("after a check there are %d sessions, before %d; %v", r.srv.Devices(), had, err)
	}
	if err := first.Check(r.ctx); err != nil || r.srv.Calls(login) != 3 {
		t.Errorf("%d logins, %v", r.srv.Calls(login), err)
	}
	wrong := r.with(t, func(c *matrix.Config) { c.Token, c.UserID, c.Password, c.DeviceID = "", "hermes", "wrong", "OTHER" })
	if e := adapter.Fails(t, wrong.Check(r.ctx), platform.BadCredentials); e.Code != "matrix_login" {
		t.Errorf("%+v", e)
	}
	r.srv.Fail(login, fault.Fault{Status: 502, Body: "<html>"})
	adapter.Fails(t, r.with(t, func(c *matrix.Config) { c.Token, c.UserID, c.Password, c.DeviceID = "", "hermes", "wrong", "OTHER" }).Check(r.ctx), platform.Retry)
}
