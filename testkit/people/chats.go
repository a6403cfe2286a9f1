package people

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"hermes/testkit/discord"
	"hermes/testkit/fault"
	"hermes/testkit/matrix"
	"hermes/testkit/mattermost"
	"hermes/testkit/slack"
	"hermes/testkit/telegram"
)

// chat is somebody in a chat of a fake whose messages are of the type M.
type chat[M any] struct {
	say  func(text string)
	wait func(context.Context, func(M) bool) (M, error)
	all  func() []M
	text func(M) (text string, shown bool) // of the bot's messages
}

func (c *chat[M]) Say(_ context.Context, text string) error {
	c.say(text)
	return nil
}

func (c *chat[M]) Heard() (out []string) {
	for _, m := range c.all() {
		if text, shown := c.text(m); shown {
			out = append(out, text)
		}
	}
	return out
}

func (c *chat[M]) WaitFor(ctx context.Context, ok func(string) bool) error {
	_, err := c.wait(ctx, func(m M) bool {
		text, shown := c.text(m)
		return shown && ok(text)
	})
	return err
}

// counter gives names to people.
type counter struct{ n atomic.Int64 }

func (c *counter) next() string { return fmt.Sprintf("person%d", c.n.Add(1)) }

func newTelegram(o Options) (*Platform, error) {
	srv, err := telegram.New(telegram.Options{})
	if err != nil {
		return nil, err
	}
	p := &Platform{MayRepeat: true, OwnLife: true, secret: srv.Token(), closing: []func(){srv.Close}}
	addr, err := p.front(o, srv.URL(), func(r *http.Request) string {
		switch r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:] {
		case "sendMessage":
			return "send"
		case "getUpdates":
			return "poll"
		}
		return ""
	})
	if o.Watched {
		p.points = append(p.points, PollBefore, PollAfter)
	}
	p.Env = fmt.Sprintf("TELEGRAM_BOT_TOKEN=%s\nTELEGRAM_BASE_URL=http://%s\nTELEGRAM_ALLOW_ALL_USERS=true\n", srv.Token(), addr)
	p.Revoke = func() {
		srv.Fail("", fault.Fault{Times: -1, Status: http.StatusUnauthorized, Message: "Unauthorized"})
	}
	var names counter
	p.Join = func() Person {
		who := srv.AddUser(names.next())
		return &chat[telegram.Message]{
			say: func(text string) { srv.Say(who, text) },
			wait: func(ctx context.Context, ok func(telegram.Message) bool) (telegram.Message, error) {
				return srv.WaitFor(ctx, who.ID, ok)
			},
			all:  func() []telegram.Message { return srv.Messages(who.ID) },
			text: func(m telegram.Message) (string, bool) { return m.Text, m.FromBot && !m.Deleted },
		}
	}
	return p.build(err)
}

// newDiscord has each person in a channel of their own, since the first direct
// message to a bot that is away is lost.
func newDiscord(o Options) (*Platform, error) {
	srv, err := discord.New(discord.Options{})
	if err != nil {
		return nil, err
	}
	p := &Platform{OwnLife: true, secret: srv.Token(), closing: []func(){srv.Close}}
	addr, err := p.front(o, srv.URL(), sends("/messages"))
	srv.Behind(addr)
	p.Env = fmt.Sprintf("DISCORD_BOT_TOKEN=%s\nDISCORD_BASE_URL=http://%s\nDISCORD_ALLOW_ALL_USERS=true\nDISCORD_REQUIRE_MENTION=false\nDISCORD_AUTO_THREAD=false\n", srv.Token(), addr)
	p.Revoke = func() {
		srv.ResetToken(discord.Token(srv.Bot().ID, "Gfake1.another_secret_of_the_server_000000000000"))
		srv.CutGateway()
	}
	guild := srv.AddGuild("guild")
	var names counter
	p.Join = func() Person {
		name := names.next()
		who := srv.AddUser(name)
		channel := srv.AddChannel(guild, name)
		return &chat[discord.Message]{
			say: func(text string) { srv.Say(who, channel, text) },
			wait: func(ctx context.Context, ok func(discord.Message) bool) (discord.Message, error) {
				return srv.WaitFor(ctx, channel, ok)
			},
			all:  func() []discord.Message { return srv.Messages(channel) },
			text: func(m discord.Message) (string, bool) { return m.Content, m.FromBot && !m.Deleted },
		}
	}
	return p.build(err)
}

func newMattermost(o Options) (*Platform, error) {
	srv, err := mattermost.New(mattermost.Options{})
	if err != nil {
		return nil, err
	}
	p := &Platform{OwnLife: true, secret: srv.Token(), closing: []func(){srv.Close}}
	addr, err := p.front(o, srv.URL(), sends("/api/v4/posts"))
	p.Env = fmt.Sprintf("MATTERMOST_URL=http://%s\nMATTERMOST_TOKEN=%s\nMATTERMOST_ALLOW_ALL_USERS=true\n", addr, srv.Token())
	p.Revoke = func() {
		srv.Revoke(true)
		srv.CutSockets()
	}
	var names counter
	p.Join = func() Person {
		who := srv.AddUser(names.next())
		channel := srv.Direct(who)
		return &chat[mattermost.Message]{
			say: func(text string) { srv.Say(who, text) },
			wait: func(ctx context.Context, ok func(mattermost.Message) bool) (mattermost.Message, error) {
				return srv.WaitFor(ctx, channel, ok)
			},
			all:  func() []mattermost.Message { return srv.Messages(channel) },
			text: func(m mattermost.Message) (string, bool) { return m.Text, m.FromBot && !m.Deleted },
		}
	}
	return p.build(err)
}

// regulars is how many people there are where histories are read slowly.
const regulars = 24

func newSlack(o Options) (*Platform, error) {
	srv, err := slack.New(slack.Options{})
	if err != nil {
		return nil, err
	}
	p := &Platform{OwnLife: true, secret: srv.AppToken(), closing: []func(){srv.Close}}
	addr, err := p.front(o, srv.URL(), sends("/api/chat.postMessage"))
	srv.Behind(addr)
	p.Env = fmt.Sprintf("SLACK_BOT_TOKEN=%s\nSLACK_APP_TOKEN=%s\nSLACK_BASE_URL=http://%s\nSLACK_ALLOW_ALL_USERS=true\n", srv.Token(), srv.AppToken(), addr)
	p.Revoke = func() {
		srv.Revoke(true)
		srv.CutSockets()
	}
	var names counter
	var mu sync.Mutex
	known := map[string]Person{}
	p.Join = func() Person {
		mu.Lock()
		defer mu.Unlock()
		name := fmt.Sprintf("regular%d", names.n.Add(1)%regulars)
		if who, ok := known[name]; ok {
			return who
		}
		who := srv.AddUser(name)
		channel := srv.Direct(who)
		known[name] = &chat[slack.Message]{
			say: func(text string) { srv.Say(who, channel, text) },
			wait: func(ctx context.Context, ok func(slack.Message) bool) (slack.Message, error) {
				return srv.WaitFor(ctx, channel, ok)
			},
			all:  func() []slack.Message { return srv.Messages(channel) },
			text: func(m slack.Message) (string, bool) { return m.Text, m.FromBot },
		}
		return known[name]
	}
	return p.build(err)
}

func newMatrix(o Options) (*Platform, error) {
	srv, err := matrix.New(matrix.Options{})
	if err != nil {
		return nil, err
	}
	p := &Platform{OwnLife: true, secret: srv.Token(), closing: []func(){srv.Close}}
	addr, err := p.front(o, srv.URL(), func(r *http.Request) string {
		switch {
		case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/send/m.room.message/"):
			return "send"
		case strings.HasSuffix(r.URL.Path, "/sync"):
			return "poll"
		}
		return ""
	})
	if o.Watched {
		p.points = append(p.points, PollBefore, PollAfter)
	}
	p.Env = fmt.Sprintf("MATRIX_HOMESERVER=http://%s\nMATRIX_ACCESS_TOKEN=%s\nMATRIX_ALLOW_ALL_USERS=true\n", addr, srv.Token())
	p.Revoke = func() { srv.Revoke(false) }
	var names counter
	p.Join = func() Person {
		who := srv.AddUser(names.next())
		room := srv.Invite(who, true)
		return &chat[matrix.Message]{
			say: func(text string) { srv.Say(who, room, text) },
			wait: func(ctx context.Context, ok func(matrix.Message) bool) (matrix.Message, error) {
				return srv.WaitFor(ctx, room, ok)
			},
			all:  func() []matrix.Message { return srv.Messages(room) },
			text: func(m matrix.Message) (string, bool) { return m.Text, m.FromBot },
		}
	}
	return p.build(err)
}
