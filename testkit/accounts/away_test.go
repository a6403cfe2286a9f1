package accounts

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/testkit/adapter"
	discordfake "hermes/testkit/discord"
	emailfake "hermes/testkit/email"
	matrixfake "hermes/testkit/matrix"
	mattermostfake "hermes/testkit/mattermost"
	slackfake "hermes/testkit/slack"
	telegramfake "hermes/testkit/telegram"
)

// absence is what happens on a platform while nobody receives.
type absence struct {
	kept []string            // that must be heard, once, by whoever receives next
	lost map[string][]string // that must not be heard, by the clause of Capabilities.Away.Lost that says so
}

// arrange makes what must be there before nobody receives any more, and gives what
// happens then.
type arrange func(t *testing.T, l listening) func() absence

// absences are those of the platforms on which something can be heard later.
func absences() map[string]arrange {
	return map[string]arrange{
		"discord": discordAbsence, "email": emailAbsence, "matrix": matrixAbsence, "mattermost": mattermostAbsence, "slack": slackAbsence, "telegram": telegramAbsence,
	}
}

// triedElsewhere are the platforms whose senders keep what was not taken, and
// where that is tried.
var triedElsewhere = map[string]string{
	"webchat": "../../internal/platform/webchat/webchat_test.go TestNotAcceptedIsNotAcknowledged",
	"webhook": "../../internal/platform/webhook/receive_test.go TestAcceptedMeansStored",
}

// TestWhatIsHadBack stops receiving, lets everything happen that the table in
// docs/platforms.md speaks of, and receives again: what is said to be answered
// later is heard, once, and what is said not to be had back is not. A clause of
// "is not had back" that nothing here stands for fails.
func TestWhatIsHadBack(t *testing.T) {
	for name, arrange := range absences() {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { leaveAndReturn(t, name, arrange) }) })
	}
	for name, where := range triedElsewhere {
		file, test, _ := strings.Cut(where, " ")
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "func "+test+"(") {
			t.Errorf("%s: %s is not there: %v", name, where, err)
		}
	}
	for _, name := range Names() {
		if absences()[name] == nil && triedElsewhere[name] == "" {
			t.Errorf("nobody tries what %s gives back", name)
		}
	}
}

func leaveAndReturn(t *testing.T, name string, arrange arrange) {
	a, err := New(name)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	in := adapter.NewInbox()
	receive := func() (platform.Adapter, func() error) {
		one, err := a.Connect(log, nil)
		if err != nil {
			t.Fatal(err)
		}
		stop := adapter.Run(t, context.Background(), one, in)
		time.Sleep(settling)
		return one, stop
	}
	one, stop := receive()
	l := listening{Adapter: one, account: a, chat: a.Chat(), in: in}
	leave := arrange(t, l)
	time.Sleep(time.Minute)
	_ = stop() // it was told to end
	a.HangUp()
	before := len(in.Events())
	happened := leave()
	time.Sleep(time.Minute)
	_, stop = receive()
	time.Sleep(10 * time.Minute)
	_ = stop() // as above
	a.HangUp()

	// The mailbox of these tests keeps a copy of what was sent.
	if repeats := one.Capabilities().Away.Twice != ""; repeats != a.MayRepeat && name != "email" {
		t.Errorf("that an answer can be seen twice is said to be %v; TestOrder allows it: %v", repeats, a.MayRepeat)
	}
	said := strings.Split(one.Capabilities().Away.Lost, "; ")
	if clauses := slices.Sorted(maps.Keys(happened.lost)); !slices.Equal(clauses, slices.Sorted(slices.Values(said))) {
		t.Errorf("it is said that %q is not had back, and tried is %q", said, clauses)
	}
	heard := adapter.Texts(in.Events()[before:])
	count := func(word string) (n int) {
		for _, text := range heard {
			if strings.Contains(text, word) {
				n++
			}
		}
		return n
	}
	for _, word := range happened.kept {
		if count(word) != 1 {
			t.Errorf("%q is heard %d times afterwards, want once: %q", word, count(word), heard)
		}
	}
	for clause, words := range happened.lost {
		for _, word := range words {
			if count(word) != 0 {
				t.Errorf("%q is heard, and it is said that %s is not had back", word, clause)
			}
		}
	}
}

// offered are buttons for somebody to press.
var offered = domain.Part{Text: "May I?", Plain: "May I?", Buttons: []domain.Button{{Label: "Allow", Command: "/approve 7"}, {Label: "Deny", Command: "/deny 7"}}}

// offer sends a question with buttons into a chat.
func (l listening) offer(t *testing.T, to domain.Address) (id string) {
	t.Helper()
	id, err := l.Send(t.Context(), to, offered, "nonce-of-the-question")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func discordAbsence(t *testing.T, l listening) func() absence {
	srv := l.account.Server.(*discordfake.Server)
	ann, carl := srv.AddUser("Ann"), srv.AddUser("Carl")
	channel := srv.AddChannel(srv.AddGuild("another"), "general")
	srv.Say(ann, srv.DM(ann), "hello") // so that her direct messages are known
	l.offer(t, domain.Address{Platform: "discord", ChatID: channel})
	return func() absence {
		srv.Say(ann, channel, "in the channel")
		srv.Say(ann, srv.DM(ann), "directly")
		question := srv.Replies(channel)
		srv.Press(ann, question[len(question)-1], "/approve 7")
		srv.Slash(ann, channel, "status", "")
		srv.Say(carl, srv.DM(carl), "from a stranger")
		return absence{[]string{"in the channel", "directly"}, map[string][]string{
			"a button or slash command": {"/approve", "/status"}, "the first direct message of somebody unknown": {"from a stranger"},
		}}
	}
}

func emailAbsence(t *testing.T, l listening) func() absence {
	srv := l.account.Server.(*emailfake.Server)
	return func() absence {
		srv.Write(emailfake.Letter{From: "ann@people.test", Subject: "first", Text: "taken away"})
		srv.Write(emailfake.Letter{From: "ann@people.test", Subject: "second", Text: "left there"})
		c, err := l.account.Network().Dial(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", srv.IMAPPort()))
		if err != nil {
			t.Fatal(err)
		}
		box := imapclient.New(c, nil)
		defer box.Close()
		search := func() error {
			if err := box.Login(srv.Address(), srv.Password()).Wait(); err != nil {
				return err
			}
			if _, err := box.Select("INBOX", nil).Wait(); err != nil {
				return err
			}
			if err := box.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
				return err
			}
			return box.Expunge().Close()
		}
		if err := search(); err != nil {
			t.Fatal(err)
		}
		return absence{[]string{"left there"}, map[string][]string{"mail that somebody deletes or moves before it is read": {"taken away"}}}
	}
}

func matrixAbsence(t *testing.T, l listening) func() absence {
	srv := l.account.Server.(*matrixfake.Server)
	ann, bob := srv.AddUser("Ann"), srv.AddUser("Bob")
	room := srv.Invite(ann, true)
	secret := srv.Open(matrixfake.Room{By: ann, Direct: true, Encrypted: true})
	time.Sleep(time.Minute) // until it has joined
	question := l.offer(t, domain.Address{Platform: "matrix", ChatID: room})
	return func() absence {
		srv.Say(ann, room, "in the room")
		srv.Press(ann, room, question, "1️⃣")
		srv.Say(bob, srv.Invite(bob, true), "with an invitation")
		srv.Redact(ann, room, srv.Say(ann, room, "taken back"))
		srv.Whisper(ann, secret)
		return absence{[]string{"in the room", "/approve 7", "with an invitation"}, map[string][]string{
			"what was deleted meanwhile": {"taken back"}, "what is encrypted": {"AwgAEnACgAkLmt6qF84IK"},
		}}
	}
}

func mattermostAbsence(t *testing.T, l listening) func() absence {
	srv := l.account.Server.(*mattermostfake.Server)
	ann := srv.AddUser("Ann")
	question := l.offer(t, domain.Address{Platform: "mattermost", ChatID: srv.Direct(ann)})
	return func() absence {
		srv.Say(ann, "directly")
		srv.Press(ann, question, "one")
		srv.Delete(srv.Say(ann, "taken back").ID)
		return absence{[]string{"directly"}, map[string][]string{"a number that was pressed": {"/approve"}, "what was deleted meanwhile": {"taken back"}}}
	}
}

func slackAbsence(t *testing.T, l listening) func() absence {
	srv := l.account.Server.(*slackfake.Server)
	ann := srv.AddUser("Ann")
	dm := srv.Direct(ann)
	l.offer(t, domain.Address{Platform: "slack", ChatID: dm})
	return func() absence {
		srv.Say(ann, dm, "directly")
		question := srv.Replies(dm)
		srv.Press(ann, question[len(question)-1], 0)
		srv.Command(ann, dm, "/hermes", "status")
		srv.Delete(dm, srv.Say(ann, dm, "taken back").TS)
		return absence{[]string{"directly"}, map[string][]string{"a button or command": {"/approve", "status"}, "what was deleted meanwhile": {"taken back"}}}
	}
}

func telegramAbsence(t *testing.T, l listening) func() absence {
	srv := l.account.Server.(*telegramfake.Server)
	ann := srv.AddUser("Ann")
	l.offer(t, domain.Address{Platform: "telegram", ChatID: fmt.Sprint(ann.ID)})
	return func() absence {
		srv.Say(ann, "too long ago")
		time.Sleep(2 * time.Hour)
		srv.Say(ann, "within a day")
		question := srv.Replies(ann.ID)
		srv.Press(ann, question[len(question)-1], "/approve 7")
		time.Sleep(23 * time.Hour)
		return absence{[]string{"within a day", "/approve 7"}, map[string][]string{"what is older, which Telegram drops": {"too long ago"}}}
	}
}

// mostKept are how many messages of one chat are had back, which of them, and how
// old they may be; the words stand in Capabilities.Away.Kept.
var mostKept = map[string]struct {
	most   int
	latest bool // else the oldest
	beside int  // that come with the first answer of all, before a history is asked for
	words  string
	since  time.Duration // 0: however old
}{
	"discord":    {most: 2000, words: "of one channel at most the oldest 2000 messages"},
	"matrix":     {most: 2000, latest: true, beside: 50, words: "of one room at most the latest 2000 messages"},
	"mattermost": {most: 5000, latest: true, words: "in the last seven days, of one channel at most the latest 5000 posts", since: 7 * 24 * time.Hour},
	"slack":      {most: 2000, latest: true, words: "in the last seven days, of one channel at most the latest 2000 messages", since: 7 * 24 * time.Hour},
}

// TestHowMuchIsHadBack says more in one chat than is had back, and something longer
// ago than is looked for, while nobody receives: what is heard afterwards is what
// the documentation says.
func TestHowMuchIsHadBack(t *testing.T) {
	for name, kept := range mostKept {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, err := New(name)
				if err != nil {
					t.Fatal(err)
				}
				defer a.Close()
				in := adapter.NewInbox()
				chat := a.Chat()
				var caps platform.Capabilities
				receive := func(d time.Duration) {
					one, err := a.Connect(nil, nil)
					if err != nil {
						t.Fatal(err)
					}
					caps = one.Capabilities()
					stop := adapter.Run(t, context.Background(), one, in)
					time.Sleep(d)
					_ = stop() // it was told to end
					a.HangUp()
				}
				go func() { // so that the chat is known
					time.Sleep(settling)
					chat.Say("hello")
				}()
				receive(2 * settling)
				before := len(in.Events())
				if before != 1 {
					t.Fatalf("%d messages were heard before", before)
				}
				if kept.since > 0 {
					chat.Say("too long ago")
					time.Sleep(kept.since + time.Hour)
				}
				const more = 100
				for i := range kept.most + more {
					chat.Say(fmt.Sprintf("number %d.", i))
					time.Sleep(10 * time.Millisecond)
				}
				receive(time.Hour)
				heard := adapter.Texts(in.Events()[before:])
				first, all := 0, kept.most+kept.beside
				if kept.latest {
					first = kept.most + more - all
				}
				if len(heard) != all || heard[0] != fmt.Sprintf("number %d.", first) || heard[len(heard)-1] != fmt.Sprintf("number %d.", first+all-1) {
					t.Errorf("%d are heard, from %q to %q; want %d from number %d on", len(heard), heard[:min(1, len(heard))], heard[max(0, len(heard)-1):], all, first)
				}
				if !strings.Contains(caps.Away.Kept, kept.words) {
					t.Errorf("it is said that %q is had back, and tried is %q", caps.Away.Kept, kept.words)
				}
			})
		})
	}
}
