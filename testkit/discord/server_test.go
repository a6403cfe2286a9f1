package discord_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bwmarrin/discordgo"
	"github.com/gorilla/websocket"

	fake "hermes/testkit/discord"
)

const patience = 20 * time.Second

// reroute sends discordgo's requests, which name Discord's own host, to the fake.
type reroute struct{ host string }

func (r reroute) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.URL.Scheme, req.URL.Host = "http", r.host
	return http.DefaultTransport.RoundTrip(req)
}

func newServer(t *testing.T, o fake.Options) (*fake.Server, context.Context) {
	t.Helper()
	srv, err := fake.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return srv, ctx
}

// library is the real client library, pointed at the fake.
func library(t *testing.T, srv *fake.Server, token string) *discordgo.Session {
	t.Helper()
	s, err := discordgo.New("Bot " + token)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(srv.URL())
	if err != nil {
		t.Fatal(err)
	}
	s.Client = &http.Client{Transport: reroute{u.Host}}
	s.Identify.Intents = discordgo.IntentsAllWithoutPrivileged | discordgo.IntentMessageContent
	s.ShouldReconnectOnError, s.ShouldRetryOnRateLimit, s.MaxRestRetries = false, false, 0
	s.SyncEvents, s.LogLevel = true, discordgo.LogError-1
	return s
}

// The client library that bots are written with gets on with the fake: over the
// gateway and REST, with every object decoded by its own types.
func TestTheRealLibraryIsServed(t *testing.T) {
	srv, ctx := newServer(t, fake.Options{Heartbeat: 20 * time.Millisecond})
	ann := srv.AddUser("Ann")
	dm := srv.DM(ann)
	guild := srv.AddGuild("guild")
	general := srv.AddChannel(guild, "general")
	s := library(t, srv, srv.Token())
	messages, presses, guilds := make(chan *discordgo.MessageCreate, 8), make(chan *discordgo.InteractionCreate, 8), make(chan *discordgo.GuildCreate, 8)
	s.AddHandler(func(_ *discordgo.Session, m *discordgo.MessageCreate) { messages <- m })
	s.AddHandler(func(_ *discordgo.Session, i *discordgo.InteractionCreate) { presses <- i })
	s.AddHandler(func(_ *discordgo.Session, g *discordgo.GuildCreate) { guilds <- g })
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if g := take(t, ctx, guilds); g.ID != guild || len(g.Channels) != 1 || g.Channels[0].Name != "general" {
		t.Errorf("%+v", g)
	}
	id := srv.Say(ann, dm, "hello <@"+srv.Bot().ID+">")
	if m := take(t, ctx, messages); m.ID != id || m.Content == "" || m.Author.ID != ann.ID || len(m.Mentions) != 1 || m.GuildID != "" {
		t.Errorf("%+v", m)
	}
	srv.Say(ann, general, "all")
	if m := take(t, ctx, messages); m.GuildID != guild || m.Member == nil {
		t.Errorf("%+v", m)
	}
	sent, err := s.ChannelMessageSendComplex(dm, &discordgo.MessageSend{Content: "choose", Components: []discordgo.MessageComponent{
		discordgo.ActionsRow{Components: []discordgo.MessageComponent{discordgo.Button{Label: "Yes", CustomID: "yes"}}}},
		Files: []*discordgo.File{{Name: "a.txt", Reader: strings.NewReader("text")}}})
	if err != nil || len(sent.Attachments) != 1 {
		t.Fatal(sent, err)
	}
	if m := take(t, ctx, messages); m.ID != sent.ID {
		t.Errorf("its own message came as %+v", m)
	}
	seen, err := srv.Next(ctx, dm)
	if err != nil || seen.Buttons[0] != (fake.Button{Label: "Yes", Data: "yes"}) {
		t.Fatal(seen, err)
	}
	press := srv.Press(ann, seen, "yes")
	i := take(t, ctx, presses)
	if i.MessageComponentData().CustomID != "yes" || i.User.ID != ann.ID {
		t.Errorf("%+v", i)
	}
	if err := s.InteractionRespond(i.Interaction, &discordgo.InteractionResponse{Type: discordgo.InteractionResponseDeferredMessageUpdate}); err != nil {
		t.Error(err)
	}
	if err := srv.WaitAnswered(ctx, press); err != nil {
		t.Error(err)
	}
	if _, err := s.ChannelMessageEdit(dm, sent.ID, "chosen"); err != nil {
		t.Error(err)
	}
	if history, err := s.ChannelMessages(dm, 10, "", id, ""); err != nil || len(history) != 1 || history[0].Content != "chosen" {
		t.Error(history, err)
	}
	if th, err := s.MessageThreadStart(general, srv.Say(ann, general, "topic"), "topic", 60); err != nil || th.ParentID != general {
		t.Error(th, err)
	}
	if _, err := s.ApplicationCommandBulkOverwrite(srv.Bot().ID, "", []*discordgo.ApplicationCommand{{Name: "status", Description: "shows it"}}); err != nil || len(srv.Commands()) != 1 {
		t.Error(err)
	}
	if err := s.MessageReactionAdd(dm, sent.ID, "👀"); err != nil {
		t.Error(err)
	}
	if err := s.ChannelTyping(dm); err != nil || srv.Typing(dm) != 1 {
		t.Error(err)
	}
	if err := srv.WaitBeats(ctx, 2); err != nil {
		t.Error(err)
	}
}

func TestTheRealLibraryIsRefused(t *testing.T) {
	srv, _ := newServer(t, fake.Options{Messages: 1})
	dm := srv.DM(srv.AddUser("Ann"))
	s := library(t, srv, fake.Token("1100000000000000001", "other.token"))
	var rest *discordgo.RESTError
	if _, err := s.User("@me"); !errors.As(err, &rest) || rest.Response.StatusCode != 401 {
		t.Error(err)
	}
	var ce *websocket.CloseError
	if err := s.Open(); !errors.As(err, &ce) || ce.Code != 4004 {
		t.Error(err)
	}
	srv.RefuseIntents(fake.IntentMessageContent)
	s = library(t, srv, srv.Token())
	if err := s.Open(); !errors.As(err, &ce) || ce.Code != 4014 {
		t.Error(err)
	}
	if _, err := s.ChannelMessageSend("1", "x"); !errors.As(err, &rest) || rest.Message.Code != discordgo.ErrCodeUnknownChannel {
		t.Error(err)
	}
	if _, err := s.ChannelMessageSend(dm, strings.Repeat("x", 2001)); !errors.As(err, &rest) || rest.Message.Code != discordgo.ErrCodeInvalidFormBody {
		t.Error(err)
	}
	srv.Fail("create_message", fake.TooMany(0.5, false))
	var limit *discordgo.RateLimitError
	other := srv.DM(srv.AddUser("Bob")) // in dm the limit is used up by the refused message
	if _, err := s.ChannelMessageSend(other, "x"); !errors.As(err, &limit) || limit.RetryAfter != 500*time.Millisecond {
		t.Error(err)
	}
}

func take[T any](t *testing.T, ctx context.Context, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-ctx.Done():
		t.Fatal("nothing came")
		panic("unreachable")
	}
}
