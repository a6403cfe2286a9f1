package slack_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/slack-go/slack"
	"github.com/slack-go/slack/slackevents"
	"github.com/slack-go/slack/socketmode"

	"hermes/testkit/fault"
	"hermes/testkit/port"
	fake "hermes/testkit/slack"
)

const patience = 20 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, o fake.Options) (*fake.Server, *slack.Client, context.Context) {
	t.Helper()
	srv, err := fake.New(o)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(func() { cancel(); srv.Close() })
	return srv, slack.New(srv.Token(), slack.OptionAPIURL(srv.URL()+"/api/"), slack.OptionAppLevelToken(srv.AppToken())), ctx
}

// A connection whose pings are not answered is ended, so that its client opens
// another, and is not left without events.
func TestAConnectionThatAnswersNoPingIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &port.Network{}
		l, err := n.Listen()
		must(t, err)
		srv, err := fake.New(fake.Options{Listener: l, PingEvery: time.Second})
		must(t, err)
		defer srv.Close()
		var wire net.Conn // the last that was made
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			wire, err = n.Dial(ctx, network, addr)
			return wire, err
		}}}
		defer client.CloseIdleConnections()
		_, address, err := slack.New("", slack.OptionAPIURL(srv.URL()+"/api/"), slack.OptionAppLevelToken(srv.AppToken()), slack.OptionHTTPClient(client)).StartSocketModeContext(t.Context())
		must(t, err)
		conn, _, err := websocket.Dial(t.Context(), address, &websocket.DialOptions{HTTPClient: client})
		must(t, err)
		defer conn.CloseNow()
		if _, _, err := conn.Read(t.Context()); err != nil { // the hello; from here on everything is read, and nothing said
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, wire) }()
		time.Sleep(30 * time.Second)
		if open := srv.Sockets(); open != 0 {
			t.Errorf("%d connections are open", open)
		}
	})
}

// slack-go's own client of Socket Mode takes the fake for Slack.
func TestSocketModeOfTheRealClient(t *testing.T) {
	srv, api, ctx := start(t, fake.Options{RedeliverAfter: 50 * time.Millisecond})
	ann := srv.AddUser("Ann")
	dm := srv.Direct(ann)
	client := socketmode.New(api)
	runCtx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- client.RunContext(runCtx) }()
	defer func() { stop(); <-ended }()
	next := func(kind socketmode.EventType) socketmode.Event {
		t.Helper()
		for {
			select {
			case e := <-client.Events:
				if e.Type == kind {
					return e
				}
			case <-ctx.Done():
				t.Fatalf("no event of the kind %s came", kind)
			}
		}
	}
	message := func(e socketmode.Event) *slackevents.MessageEvent {
		t.Helper()
		m, ok := e.Data.(slackevents.EventsAPIEvent).InnerEvent.Data.(*slackevents.MessageEvent)
		if !ok {
			t.Fatalf("the event is %+v", e.Data)
		}
		return m
	}
	next(socketmode.EventTypeHello)
	said := srv.Say(ann, dm, "a < b")
	first := next(socketmode.EventTypeEventsAPI)
	if m := message(first); m.Text != "a &lt; b" || m.User != ann.ID || m.Channel != dm || m.TimeStamp != said.TS || m.ChannelType != "im" {
		t.Errorf("the message is %+v", m)
	}
	again := next(socketmode.EventTypeEventsAPI) // it was not acknowledged
	if m := message(again); m.TimeStamp != said.TS || again.Request.RetryAttempt == 0 {
		t.Errorf("it came again as %+v of %+v", m, again.Request)
	}
	must(t, client.Ack(*again.Request))
	must(t, srv.WaitAcked(ctx, 1))

	srv.Command(ann, dm, "/hermes", "status")
	e := next(socketmode.EventTypeSlashCommand)
	if c := e.Data.(slack.SlashCommand); c.Command != "/hermes" || c.Text != "status" || c.UserID != ann.ID || c.TriggerID == "" {
		t.Errorf("the command is %+v", c)
	}
	must(t, client.Ack(*e.Request))

	_, _, err := api.PostMessageContext(ctx, dm, slack.MsgOptionText("sure?", false), slack.MsgOptionAttachments(slack.Attachment{Blocks: slack.Blocks{BlockSet: []slack.Block{
		slack.NewActionBlock("b", slack.NewButtonBlockElement("yes", "/approve", slack.NewTextBlockObject("plain_text", "Yes", false, false)))}}}))
	must(t, err)
	asked, err := srv.Next(ctx, dm)
	must(t, err)
	srv.Press(ann, asked, 0)
	e = next(socketmode.EventTypeInteractive)
	if p := e.Data.(slack.InteractionCallback); p.Type != slack.InteractionTypeBlockActions || p.ActionCallback.BlockActions[0].Value != "/approve" || p.Container.MessageTs != asked.TS {
		t.Errorf("the press is %+v", p)
	}
	must(t, client.Ack(*e.Request))

	srv.Disconnect("refresh_requested")
	next(socketmode.EventTypeHello)
	srv.Say(ann, dm, "after it")
	for {
		e := next(socketmode.EventTypeEventsAPI)
		must(t, client.Ack(*e.Request))
		if message(e).Text == "after it" {
			break
		}
	}
}

// slack-go's Web API takes the fake for Slack.
func TestWebAPIOfTheRealClient(t *testing.T) {
	srv, api, ctx := start(t, fake.Options{})
	ann := srv.AddUser("Ann")
	general := srv.AddChannel("general", "public_channel")
	me, err := api.AuthTestContext(ctx)
	must(t, err)
	if me.UserID != srv.Bot().ID || me.BotID == "" || me.TeamID == "" {
		t.Errorf("auth.test gave %+v", me)
	}
	u, err := api.GetUserInfoContext(ctx, ann.ID)
	must(t, err)
	if u.Profile.DisplayName != "Ann" {
		t.Errorf("users.info gave %+v", u)
	}
	root := srv.Say(ann, general, "begin")
	_, ts, err := api.PostMessageContext(ctx, general, slack.MsgOptionText("answer", false), slack.MsgOptionTS(root.TS),
		slack.MsgOptionMetadata(slack.SlackMetadata{EventType: "mine", EventPayload: map[string]any{"id": "7"}}))
	must(t, err)
	_, _, _, err = api.UpdateMessageContext(ctx, general, ts, slack.MsgOptionText("better answer", false))
	must(t, err)
	must(t, api.AddReactionContext(ctx, "eyes", slack.NewRefToMessage(general, root.TS)))

	h, err := api.GetConversationHistoryContext(ctx, &slack.GetConversationHistoryParameters{ChannelID: general, Limit: 1})
	must(t, err)
	if len(h.Messages) != 1 || h.Messages[0].Text != "begin" || h.Messages[0].LatestReply != ts || h.HasMore {
		t.Errorf("the history is %+v", h.Messages)
	}
	replies, _, _, err := api.GetConversationRepliesContext(ctx, &slack.GetConversationRepliesParameters{ChannelID: general, Timestamp: root.TS, IncludeAllMetadata: true})
	must(t, err)
	if len(replies) != 2 || replies[1].Text != "better answer" || replies[1].Metadata.EventPayload["id"] != "7" {
		t.Errorf("the thread is %+v", replies)
	}
	list, _, err := api.GetConversationsForUserContext(ctx, &slack.GetConversationsForUserParameters{Types: []string{"public_channel"}})
	must(t, err)
	if len(list) != 1 || list[0].Name != "general" {
		t.Errorf("the channels are %+v", list)
	}
	data := []byte("some bytes")
	f, err := api.UploadFileContext(ctx, slack.UploadFileParameters{Reader: bytes.NewReader(data), FileSize: len(data), Filename: "a.txt", Channel: general})
	must(t, err)
	info, _, _, err := api.GetFileInfoContext(ctx, f.ID, 0, 0)
	must(t, err)
	var got bytes.Buffer
	must(t, api.GetFileContext(ctx, info.URLPrivateDownload, &got))
	if !bytes.Equal(got.Bytes(), data) {
		t.Errorf("the file came back as %q", got.String())
	}
	if _, err := api.PostEphemeralContext(ctx, general, ann.ID, slack.MsgOptionText("psst", false)); err != nil {
		t.Error(err)
	}
	ch, _, _, err := api.OpenConversationContext(ctx, &slack.OpenConversationParameters{Users: []string{ann.ID}})
	must(t, err)
	if ch.ID != srv.Direct(ann) {
		t.Errorf("the direct conversation is %s", ch.ID)
	}
}

// What it refuses, the real client understands.
func TestRefusals(t *testing.T) {
	srv, api, ctx := start(t, fake.Options{})
	refused := func(err error, name string) {
		t.Helper()
		var e slack.SlackErrorResponse
		if !errors.As(err, &e) || e.Err != name {
			t.Errorf("it was refused with %v, want %s", err, name)
		}
	}
	_, _, err := api.PostMessageContext(ctx, "C404", slack.MsgOptionText("x", false))
	refused(err, "channel_not_found")
	out := srv.AddChannel("out", "public_channel")
	srv.Outside(out, true)
	_, _, err = api.PostMessageContext(ctx, out, slack.MsgOptionText("x", false))
	refused(err, "not_in_channel")
	in := srv.AddChannel("in", "public_channel")
	_, _, err = api.PostMessageContext(ctx, in, slack.MsgOptionText("x", false), slack.MsgOptionTS("1.000001"))
	refused(err, "thread_not_found")
	_, _, _, err = api.UpdateMessageContext(ctx, in, "1.000001", slack.MsgOptionText("x", false))
	refused(err, "message_not_found")
	srv.Fail("chat.postMessage", fault.TooMany(7))
	_, _, err = api.PostMessageContext(ctx, in, slack.MsgOptionText("x", false))
	var limited *slack.RateLimitedError
	if !errors.As(err, &limited) || limited.RetryAfter != 7*time.Second {
		t.Errorf("it was refused with %v", err)
	}
	srv.DropScope("users:read")
	_, err = api.GetUserInfoContext(ctx, srv.Bot().ID)
	refused(err, "missing_scope")
	_, err = slack.New(srv.AppToken(), slack.OptionAPIURL(srv.URL()+"/api/")).AuthTestContext(ctx)
	refused(err, "not_allowed_token_type")
	srv.Revoke(true)
	_, err = api.AuthTestContext(ctx)
	refused(err, "invalid_auth")
}
