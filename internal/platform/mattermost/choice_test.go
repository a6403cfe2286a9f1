package mattermost_test

import (
	"slices"
	"strings"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/testkit/adapter"
	"hermes/testkit/fault"
	fake "hermes/testkit/mattermost"
)

var question = domain.Part{Text: "May I?", Buttons: []domain.Button{{Label: "Allow once", Command: "/approve 7"}, {Label: "De`ny\n", Command: "/deny 7"}, {Label: "", Command: "x"}}}

// offered waits until a post carries the bot's numbers.
func (r *rig) offered(t *testing.T, channel string, want ...string) fake.Message {
	t.Helper()
	m, err := r.srv.WaitFor(r.ctx, channel, func(m fake.Message) bool { return m.FromBot && slices.Equal(m.Reactions, want) })
	if err != nil {
		t.Fatalf("no post offers %q: %+v", want, r.srv.Messages(channel))
	}
	return m
}

func TestANumberIsAButton(t *testing.T) {
	r := newRig(t, nil)
	alice, town := r.srv.AddUser("alice"), r.srv.AddChannel("Town", "O")
	root := r.srv.Post(fake.Post{From: alice, Channel: town.ID, Text: "hello"})
	stop := r.connect(t)
	to := address(town.ID)
	to.ThreadID = root.ID
	if _, err := r.Send(r.ctx, to, question, "n1"); err != nil {
		t.Fatal(err)
	}
	m := r.offered(t, town.ID, "one", "two")
	if want := "May I?\n\n:one: Allow once: `!approve 7`\n:two: De'ny: `!deny 7`"; m.Text != want {
		t.Errorf("it says %q, want %q", m.Text, want)
	}
	r.srv.Press(alice, m.ID, "thumbsup")
	r.srv.Press(alice, m.ID, "three")
	r.srv.Press(alice, root.ID, "one")
	r.srv.Press(alice, m.ID, "two")
	in := r.sink.Wait(t, r.ctx, 1)[0]
	if !in.Button || in.Text != "/deny 7" || in.UserID != alice.ID || in.UserName != "alice" || in.Address != to || in.ChatType != domain.ChatGroup || in.MessageID != m.ID || !in.Mentioned {
		t.Errorf("stored %+v", in)
	}
	// The next life of the process understands it as well.
	stop()
	r.Adapter = r.another(t)
	r.connect(t)
	r.srv.Press(alice, m.ID, "one")
	if in := r.sink.Wait(t, r.ctx, 2)[1]; in.Text != "/approve 7" || !in.Button {
		t.Errorf("stored %+v", in)
	}
}

func TestAPressThatCannotBeReadAtOnceIsTriedAgain(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("alice")
	dm := r.srv.Direct(alice)
	r.connect(t)
	if _, err := r.Send(r.ctx, address(dm), question, "n1"); err != nil {
		t.Fatal(err)
	}
	m := r.offered(t, dm, "one", "two")
	r.srv.Fail("GET /posts/{id}", fault.Fault{Times: 2, Status: 503})
	r.srv.Press(alice, m.ID, "one")
	in := r.sink.Wait(t, r.ctx, 1)[0]
	if in.Text != "/approve 7" || in.ChatName != "alice" || in.ChatType != domain.ChatDM {
		t.Errorf("stored %+v", in)
	}
}

func TestAPressUnderAPostThatIsGone(t *testing.T) {
	r := newRig(t, nil)
	alice := r.srv.AddUser("alice")
	dm := r.srv.Direct(alice)
	r.connect(t)
	if _, err := r.Send(r.ctx, address(dm), question, "n1"); err != nil {
		t.Fatal(err)
	}
	m := r.offered(t, dm, "one", "two")
	r.srv.Delete(m.ID)
	r.srv.Press(alice, m.ID, "one")
	r.srv.Say(alice, "the end")
	if got := adapter.Texts(r.sink.Wait(t, r.ctx, 1)); !slices.Equal(got, []string{"the end"}) {
		t.Errorf("heard %q", got)
	}
}

func TestTheLegendKeepsWithinItsRoom(t *testing.T) {
	r, dm := idle(t)
	c := r.Capabilities()
	part := domain.Part{Text: strings.Repeat("ä", c.MaxText)}
	for range 20 {
		part.Buttons = append(part.Buttons, domain.Button{Label: strings.Repeat("L", 90), Command: "/" + strings.Repeat("c", 63)})
	}
	if _, err := r.Send(r.ctx, address(dm), part, "n1"); err != nil {
		t.Fatal(err)
	}
	if n := len([]rune(r.srv.Messages(dm)[0].Text)); n > 4000 || n < c.MaxText+100 {
		t.Errorf("the post has %d characters", n)
	}
	// An edit says what can be typed; it gives the numbers no new meaning.
	id, err := r.Send(r.ctx, address(dm), domain.Part{Text: "x"}, "n2")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Edit(r.ctx, address(dm), id, question); err != nil {
		t.Fatal(err)
	}
	if got := r.srv.Messages(dm)[1].Text; !strings.HasSuffix(got, "\n- Allow once: `!approve 7`\n- De'ny: `!deny 7`") {
		t.Errorf("it says %q", got)
	}
	if c.MaxText+500 != 4000 || c.Dialect != platform.DialectMarkdown || !c.Buttons {
		t.Errorf("capabilities %+v", c)
	}
}
