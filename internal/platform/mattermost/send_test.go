package mattermost_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/platform"
	"hermes/internal/platform/mattermost"
	"hermes/testkit/adapter"
	"hermes/testkit/fault"
	fake "hermes/testkit/mattermost"
)

// idle is a rig whose adapter is not connected: sending needs no connection.
func idle(t *testing.T) (r *rig, dm string) {
	r = newRig(t, nil)
	return r, r.srv.Direct(r.srv.AddUser("alice"))
}

func TestSendAndEdit(t *testing.T) {
	r, dm := idle(t)
	id, err := r.Send(r.ctx, address(dm), domain.Part{Text: "**hello** \xff", Markup: true}, "n1")
	if err != nil {
		t.Fatal(err)
	}
	m := r.srv.Messages(dm)[0]
	if m.ID != id || m.Text != "**hello** \uFFFD" || m.Root != "" || m.Props["hermes_nonce"] != "n1" {
		t.Errorf("it shows %+v", m)
	}
	if err := r.Edit(r.ctx, address(dm), id, domain.Part{Text: "bye"}); err != nil {
		t.Fatal(err)
	}
	if m := r.srv.Messages(dm)[0]; m.Text != "bye" || len(m.Edits) != 1 {
		t.Errorf("it shows %+v", m)
	}
	if err := r.Typing(r.ctx, address(dm)); err != nil || r.srv.Typing(dm) != 1 {
		t.Errorf("typing was shown %d times, %v", r.srv.Typing(dm), err)
	}
}

func TestEditsThatAreRefused(t *testing.T) {
	r, dm := idle(t)
	alice := r.srv.AddUser("bob")
	theirs := r.srv.Say(alice, "hers")
	gone, err := r.Send(r.ctx, address(dm), domain.Part{Text: "gone"}, "n1")
	if err != nil {
		t.Fatal(err)
	}
	r.srv.Delete(gone)
	for _, id := range []string{gone, theirs.ID, "../../users/me", ""} {
		adapter.Fails(t, r.Edit(r.ctx, address(dm), id, domain.Part{Text: "x"}), platform.EditRefused)
	}
	late, err := r.Send(r.ctx, address(dm), domain.Part{Text: "late"}, "n2")
	if err != nil {
		t.Fatal(err)
	}
	r.srv.Fail("PUT /posts/{id}/patch", fault.Fault{Status: http.StatusBadRequest, Code: "api.post.update_post.permissions_time_limit.app_error"})
	adapter.Fails(t, r.Edit(r.ctx, address(dm), late, domain.Part{Text: "x"}), platform.EditRefused)
	r.srv.Fail("PUT /posts/{id}/patch", fake.TooMany(2))
	adapter.Fails(t, r.Edit(r.ctx, address(dm), late, domain.Part{Text: "x"}), platform.Retry)
}

func TestAThreadThatIsGone(t *testing.T) {
	r, dm := idle(t)
	root, err := r.Send(r.ctx, address(dm), domain.Part{Text: "root"}, "n1")
	if err != nil {
		t.Fatal(err)
	}
	to := address(dm)
	to.ThreadID = root
	if _, err := r.Send(r.ctx, to, domain.Part{Text: "in it"}, "n2"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Send(r.ctx, address(dm), domain.Part{Text: "a reply", ReplyTo: root}, "n3"); err != nil {
		t.Fatal(err)
	}
	r.srv.Delete(root)
	if _, err := r.Send(r.ctx, to, domain.Part{Text: "beside it"}, "n4"); err != nil {
		t.Fatal(err)
	}
	var roots []string
	for _, m := range r.srv.Messages(dm)[1:] {
		roots = append(roots, m.Root)
	}
	if want := []string{root, root, ""}; strings.Join(roots, "|") != strings.Join(want, "|") {
		t.Errorf("threads %q, want %q", roots, want)
	}
}

func TestFilesOut(t *testing.T) {
	r, dm := idle(t)
	dir := t.TempDir()
	var files []domain.Attachment
	for i := range 7 {
		path := filepath.Join(dir, fmt.Sprintf("f%d.txt", i))
		if err := os.WriteFile(path, []byte{byte('a' + i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, domain.Attachment{Kind: domain.Document, Path: path})
	}
	files[0].Name = "dir/ä b.txt"
	// The second post fails once: what has arrived is not repeated.
	r.srv.Fail("POST /posts", fault.Fault{Hold: closed()})
	r.srv.Fail("POST /posts", fault.BadGateway())
	part := domain.Part{Text: "see", Attachments: files}
	_, err := r.Send(r.ctx, address(dm), part, "n1")
	adapter.Fails(t, err, platform.Retry)
	id, err := r.Send(r.ctx, address(dm), part, "n1")
	if err != nil {
		t.Fatal(err)
	}
	got := r.srv.Replies(dm)
	if len(got) != 2 || got[0].ID != id || got[0].Text != "see" || got[1].Text != "" || len(got[0].Files) != 5 || len(got[1].Files) != 2 {
		t.Fatalf("it shows %+v", got)
	}
	if f := got[0].Files[0]; f.Name != "ä b.txt" || string(f.Data) != "a" {
		t.Errorf("the first file is %q with %q", f.Name, f.Data)
	}
}

// The next life finds each of the posts that a message with many files is.
func TestFilesOutAreNotRepeatedByTheNextLife(t *testing.T) {
	r, dm := idle(t)
	part := domain.Part{Text: "see"}
	for i := range 7 {
		path := filepath.Join(t.TempDir(), fmt.Sprintf("f%d.txt", i))
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		part.Attachments = append(part.Attachments, domain.Attachment{Kind: domain.Document, Path: path})
	}
	for range 2 {
		if _, err := r.Send(r.ctx, address(dm), part, "n1"); err != nil {
			t.Fatal(err)
		}
		r.srv.ForgetPending()
		r.Adapter = r.another(t)
	}
	if n := len(r.srv.Replies(dm)); n != 2 {
		t.Errorf("%d posts are shown, want 2", n)
	}
}

func closed() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func TestFilesThatCannotGo(t *testing.T) {
	r := newRigWith(t, fake.Options{MaxFileSize: 10}, nil)
	dm := r.srv.Direct(r.srv.AddUser("alice"))
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	big := write("big", strings.Repeat("x", 11))
	for _, path := range []string{"", filepath.Join(dir, "absent"), dir, write("empty", ""), big} {
		_, err := r.Send(r.ctx, address(dm), domain.Part{Attachments: []domain.Attachment{{Path: path}}}, "n"+path)
		if e := adapter.Fails(t, err, platform.GiveUp); e.Code != "mattermost_file" {
			t.Errorf("%s: %v", path, e)
		}
	}
	r.connect(t) // now the limit is known beforehand
	before := r.srv.Calls("POST /files")
	_, err := r.Send(r.ctx, address(dm), domain.Part{Attachments: []domain.Attachment{{Path: big}}}, "n9")
	adapter.Fails(t, err, platform.GiveUp)
	if n := r.srv.Calls("POST /files"); n != before {
		t.Errorf("%d uploads were tried that could not succeed", n-before)
	}
}

func TestNothingIsSentTwice(t *testing.T) {
	part := domain.Part{Text: "once"}
	for _, tt := range []struct {
		name    string
		fault   fault.Fault
		between func(r *rig, t *testing.T)
	}{
		{name: "the answer is lost", fault: fault.CutAfter()},
		{name: "a front end gives up", fault: fault.Fault{Act: true, Status: http.StatusGatewayTimeout, Body: "<html>"}},
		{name: "the answer is garbled", fault: fault.Fault{Act: true, Status: http.StatusCreated, Body: "{"}},
		{name: "the server has forgotten it", fault: fault.CutAfter(), between: func(r *rig, _ *testing.T) { r.srv.ForgetPending() }},
		{name: "the process was killed", fault: fault.CutAfter(), between: func(r *rig, t *testing.T) { r.srv.ForgetPending(); r.Adapter = r.another(t) }},
		{name: "much was said since", fault: fault.CutAfter(), between: func(r *rig, t *testing.T) {
			r.srv.ForgetPending()
			r.Adapter = r.another(t)
			alice := r.srv.AddUser("bob")
			for i := range 450 {
				r.srv.Post(fake.Post{From: alice, Channel: r.srv.AddChannelOnce("Town"), Text: fmt.Sprint(i)})
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			town := r.srv.AddChannelOnce("Town")
			if _, err := r.Send(r.ctx, address(town), domain.Part{Text: "before"}, "n0"); err != nil {
				t.Fatal(err)
			}
			r.srv.Fail("POST /posts", tt.fault)
			_, err := r.Send(r.ctx, address(town), part, "n1")
			if e := adapter.Fails(t, err, platform.Retry); !e.Uncertain {
				t.Errorf("it is called certain: %v", e)
			}
			if tt.between != nil {
				tt.between(r, t)
			}
			id, err := r.Send(r.ctx, address(town), part, "n1")
			if err != nil {
				t.Fatal(err)
			}
			got := r.srv.Replies(town)
			if len(got) != 2 || got[1].ID != id || got[1].Text != "once" {
				t.Errorf("it shows %+v", got)
			}
			// The same text by another nonce is another message.
			if _, err := r.Send(r.ctx, address(town), part, "n2"); err != nil {
				t.Fatal(err)
			}
			if got := r.srv.Replies(town); len(got) != 3 {
				t.Errorf("it shows %+v", got)
			}
		})
	}
}

func TestWhetherItHasArrivedIsAskedUntilItIsKnown(t *testing.T) {
	r, dm := idle(t)
	r.srv.Fail("POST /posts", fault.CutAfter())
	_, err := r.Send(r.ctx, address(dm), domain.Part{Text: "once"}, "n1")
	adapter.Fails(t, err, platform.Retry)
	r.srv.ForgetPending()
	r.srv.Fail("GET /channels/{id}/posts", fault.BadGateway())
	_, err = r.Send(r.ctx, address(dm), domain.Part{Text: "once"}, "n1")
	adapter.Fails(t, err, platform.Retry)
	if _, err := r.Send(r.ctx, address(dm), domain.Part{Text: "once"}, "n1"); err != nil {
		t.Fatal(err)
	}
	if got := r.srv.Replies(dm); len(got) != 1 {
		t.Errorf("it shows %+v", got)
	}
}

func TestTheHistoryIsReadOnceForAnAddress(t *testing.T) {
	r, dm := idle(t)
	for i := range 5 {
		if _, err := r.Send(r.ctx, address(dm), domain.Part{Text: "x"}, fmt.Sprint("n", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.srv.Calls("GET /channels/{id}/posts"); n != 1 {
		t.Errorf("the history was read %d times", n)
	}
}

func TestHowASendFails(t *testing.T) {
	for _, tt := range []struct {
		name      string
		fault     fault.Fault
		kind      platform.Kind
		code      string
		uncertain bool
		after     time.Duration
		says      string
	}{
		{name: "the limiter", fault: fake.TooMany(7), kind: platform.Retry, code: "mattermost_429", after: 7 * time.Second},
		{name: "a proxy's limiter", fault: fault.Fault{Status: 429, RetryAfter: 3}, kind: platform.Retry, code: "mattermost_429", after: 3 * time.Second},
		{name: "no pause is given", fault: fault.Fault{Status: 429}, kind: platform.Retry, code: "mattermost_429", after: time.Second},
		{name: "502", fault: fault.BadGateway(), kind: platform.Retry, code: "mattermost_502", uncertain: true},
		{name: "500", fault: fault.Fault{Status: 500, Code: "api.post.deduplicate_create_post.pending"}, kind: platform.Retry, code: "mattermost_500", uncertain: true},
		{name: "501", fault: fault.Fault{Status: 501, Code: "api.plugin.disabled.app_error"}, kind: platform.GiveUp, code: "mattermost_501"},
		{name: "401", fault: fault.Fault{Status: 401}, kind: platform.BadCredentials, code: "mattermost_401", says: "MATTERMOST_TOKEN"},
		{name: "a second factor", fault: fault.Fault{Status: 401, Code: "api.context.mfa_required.app_error"}, kind: platform.BadCredentials, code: "mattermost_401", says: "bot account"},
		{name: "403", fault: fault.Fault{Status: 403}, kind: platform.GiveUp, code: "mattermost_rights", says: "add it to"},
		{name: "403 of a proxy", fault: fault.Fault{Status: 403, Body: "<html>"}, kind: platform.Retry, code: "mattermost_403", says: "MATTERMOST_URL"},
		{name: "404", fault: fault.Fault{Status: 404}, kind: platform.GiveUp, code: "mattermost_absent"},
		{name: "404 of something else", fault: fault.Fault{Status: 404, Body: "nothing here"}, kind: platform.Retry, code: "mattermost_404", says: "MATTERMOST_URL"},
		{name: "an archived channel", fault: fault.Fault{Status: 400, Code: "api.post.create_post.can_not_post_to_deleted.error"}, kind: platform.GiveUp, code: "mattermost_archived"},
		{name: "another 400", fault: fault.Fault{Status: 400, Code: "x", Message: "Invalid."}, kind: platform.GiveUp, code: "mattermost_400", says: "Invalid."},
		{name: "301", fault: fault.Redirect(301, "https://127.0.0.1/"), kind: platform.Retry, code: "mattermost_301", says: "MATTERMOST_URL"},
		{name: "cut before", fault: fault.CutBefore(), kind: platform.Retry, code: "mattermost_unknown", uncertain: true},
		{name: "no answer", fault: fault.Fault{BlackHole: true}, kind: platform.Retry, code: "mattermost_unknown", uncertain: true, says: "in time"},
		{name: "a page in place of the API", fault: fault.Fault{Status: 200, Body: "<html>"}, kind: platform.Retry, code: "mattermost_200", uncertain: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(c *mattermost.Config) {
				if tt.fault.BlackHole {
					c.SendTimeout = 200 * time.Millisecond
				}
			})
			dm := r.srv.Direct(r.srv.AddUser("alice"))
			defer r.srv.Fail("POST /posts", tt.fault)()
			_, err := r.Send(r.ctx, address(dm), domain.Part{Text: "x"}, "n1")
			e := adapter.Fails(t, err, tt.kind)
			if e.Code != tt.code || e.Uncertain != tt.uncertain || e.RetryAfter != tt.after || e.Global != (tt.after > 0) || !strings.Contains(e.Reason, tt.says) {
				t.Errorf("got %+v", e)
			}
			if strings.Contains(err.Error(), r.srv.Token()) {
				t.Error("the token stands in the error")
			}
		})
	}
}

func TestASendThatCannotReachTheServer(t *testing.T) {
	r, dm := idle(t)
	r.srv.GoDark()
	_, err := r.Send(r.ctx, address(dm), domain.Part{Text: "x"}, "n1")
	if e := adapter.Fails(t, err, platform.Retry); e.Uncertain || e.Code != "mattermost_unreachable" {
		t.Errorf("got %+v", e)
	}
}

func TestWhatIsNoMessageIsNotSent(t *testing.T) {
	r, dm := idle(t)
	thread := address(dm)
	thread.ThreadID = "x/../y"
	for _, tt := range []struct {
		to   domain.Address
		text string
	}{{address(dm), "  "}, {address("town"), "x"}, {address("../users/me"), "x"}, {thread, "x"}} {
		_, err := r.Send(r.ctx, tt.to, domain.Part{Text: tt.text}, "n1")
		adapter.Fails(t, err, platform.GiveUp)
	}
	if n := r.srv.Calls("POST /posts"); n != 0 {
		t.Errorf("%d posts were made", n)
	}
}

func TestTheServersOwnLimitIsObeyed(t *testing.T) {
	r := newRigWith(t, fake.Options{MaxPostSize: 50}, nil)
	dm := r.srv.Direct(r.srv.AddUser("alice"))
	long := domain.Part{Text: strings.Repeat("ä", 51)}
	_, err := r.Send(r.ctx, address(dm), long, "n1")
	if e := adapter.Fails(t, err, platform.GiveUp); e.Code != "mattermost_length" {
		t.Errorf("got %+v", e)
	}
	r.connect(t)
	calls := r.srv.Calls("POST /posts")
	_, err = r.Send(r.ctx, address(dm), long, "n2")
	if e := adapter.Fails(t, err, platform.GiveUp); e.Code != "mattermost_length" || r.srv.Calls("POST /posts") != calls {
		t.Errorf("got %+v", e)
	}
}

func TestConfig(t *testing.T) {
	good := home.PlatformConfig{Token: "abc", Extra: map[string]string{"base_url": "https://chat.example.com/sub/api/v4/", "reply_mode": "thread", "free_response_channels": "town, off-topic"}, Typing: true}
	c, err := mattermost.FromProfile(good)
	if err != nil || !c.Threads || len(c.Free) != 2 || c.NoTyping {
		t.Errorf("got %+v, %v", c, err)
	}
	bad := home.PlatformConfig{Token: "a b", TokenOrigin: ".env line 3", MentionPatterns: []string{"("},
		Extra: map[string]string{"base_url": "chat.example.com", "reply_mode": "maybe", "allow_bots": "some", "catch_up": "soon", "proxy": "x"}}
	_, err = mattermost.FromProfile(bad)
	if !domain.IsCode(err, domain.Config) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"MATTERMOST_URL", "REPLY_MODE", "ALLOW_BOTS", "catch_up", "proxy", "mention pattern", ".env line 3"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not said: %v", want, err)
		}
	}
	var de *domain.Error
	if _, err := mattermost.New(mattermost.Config{}, platform.Deps{}); !errors.As(err, &de) || !strings.Contains(err.Error(), "MATTERMOST_TOKEN") {
		t.Errorf("got %v", err)
	}
}
