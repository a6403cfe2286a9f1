// Package accounts has an account on every chat platform: the real adapter of
// each against its fake, over a network in memory, so that whatever they wait for
// can be simulated (testing/synctest) with the waits of production. What holds for
// all platforms is tested once here, in a loop over Names.
package accounts

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/discord"
	"hermes/internal/platform/email"
	"hermes/internal/platform/matrix"
	"hermes/internal/platform/mattermost"
	"hermes/internal/platform/slack"
	"hermes/internal/platform/telegram"
	"hermes/internal/platform/webhook"
	"hermes/internal/secret"
	discordfake "hermes/testkit/discord"
	emailfake "hermes/testkit/email"
	"hermes/testkit/fault"
	matrixfake "hermes/testkit/matrix"
	mattermostfake "hermes/testkit/mattermost"
	"hermes/testkit/port"
	slackfake "hermes/testkit/slack"
	telegramfake "hermes/testkit/telegram"
	webhookfake "hermes/testkit/webhook"
)

// Account is one bot's account on a platform's fake.
type Account struct {
	Name string
	// Connect makes a new adapter for the account, as a process does that starts;
	// log and part may be nil.
	Connect func(log *slog.Logger, part *health.Reporter) (platform.Adapter, error)
	// Chat makes a chat of the bot with somebody new.
	Chat func() Chat
	// Upset makes the platform misbehave in one way, for some messages of the
	// bot or, where all is set, for whatever it asks next.
	Upset func(u Upset, times int, all bool)
	// MayRepeat tells of a platform on which a message whose fate is unknown can
	// be seen again, marked.
	MayRepeat bool
	// Server is the fake itself, for what only one platform has.
	Server any

	network *port.Network
	bend    atomic.Pointer[func(*http.Response)]
	clients []*http.Client
	closing []func()
}

// Chat is one chat with the bot.
type Chat struct {
	To    domain.Address
	Shown func() []string // what the bot said, as it stands there now, oldest first, with the names of files in brackets
	// Say has somebody say something in it, with files; nil where nobody can.
	Say func(text string, files ...File)
}

// File is one that somebody sends.
type File struct {
	Name, MIME string
	Data       []byte
}

// Upset is one way for a platform to misbehave.
type Upset string

// The ways.
const (
	TooMany     Upset = "too many"           // refused by a rate limit, for some seconds
	Unavailable Upset = "unavailable"        // refused by a front end whose server is away
	CutBefore   Upset = "cut before"         // the connection breaks, and nothing was done
	CutAfter    Upset = "cut after"          // the connection breaks, and it was done
	NoAnswer    Upset = "no answer"          // it was not done, and no answer comes
	LateAnswer  Upset = "done and no answer" // it was done, and no answer comes
)

// Upsets are all ways.
func Upsets() []Upset {
	return []Upset{TooMany, Unavailable, CutBefore, CutAfter, NoAnswer, LateAnswer}
}

var makers = map[string]func(*Account) error{
	"discord": newDiscord, "email": newEmail, "matrix": newMatrix, "mattermost": newMattermost,
	"slack": newSlack, "telegram": newTelegram, "webhook": newWebhook,
}

// Names are the platforms, in the order of the alphabet.
func Names() []string {
	return []string{"discord", "email", "matrix", "mattermost", "slack", "telegram", "webhook"}
}

// New makes an account.
func New(name string) (*Account, error) {
	make, ok := makers[name]
	if !ok {
		return nil, fmt.Errorf("nobody has an account on %s", name)
	}
	a := &Account{Name: name, network: &port.Network{}}
	if err := make(a); err != nil {
		a.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return a, nil
}

// HangUp closes the connections that nobody uses any more, as the end of a
// process does.
func (a *Account) HangUp() {
	for _, c := range a.clients {
		c.CloseIdleConnections()
	}
	a.clients = nil
}

// Close ends the fake. The adapters must have ended.
func (a *Account) Close() {
	a.HangUp()
	for _, c := range a.closing {
		c()
	}
}

// Network is what lies between the adapters and the fake.
func (a *Account) Network() *port.Network { return a.network }

// Bend sets a function that may change each answer of a platform that speaks
// HTTP before the adapter sees it; nil takes it away.
func (a *Account) Bend(f func(*http.Response)) {
	if f == nil {
		a.bend.Store(nil)
		return
	}
	a.bend.Store(&f)
}

// bending lets Account.Bend change what comes.
type bending struct {
	*http.Transport
	a *Account
}

// RoundTrip implements http.RoundTripper.
func (b bending) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.Transport.RoundTrip(r)
	if f := b.a.bend.Load(); f != nil && err == nil {
		(*f)(resp)
	}
	return resp, err
}

func (a *Account) client() *http.Client {
	c := &http.Client{Transport: bending{&http.Transport{DialContext: a.network.Dial, DisableCompression: true}, a}}
	a.clients = append(a.clients, c)
	return c
}

// listen gives a listener for a fake.
func (a *Account) listen(serve func(net.Listener) (close func(), err error)) error {
	l, err := a.network.Listen()
	if err != nil {
		return err
	}
	end, err := serve(l)
	if err == nil {
		a.closing = append(a.closing, end)
	}
	return err
}

// named gives names that are used once.
func named() func() string {
	n := 0
	return func() string {
		n++
		return fmt.Sprintf("person%d", n)
	}
}

// shown is what messages show to people.
func shown[M any](all []M, text func(M) (string, bool)) (out []string) {
	for _, m := range all {
		if s, ok := text(m); ok {
			out = append(out, s)
		}
	}
	return out
}

// withFiles is a message with the names of its files behind its text.
func withFiles(text string, files ...string) string {
	for _, name := range files {
		text += " [" + name + "]"
	}
	return text
}

func names[F any](files []F, name func(F) string) (out []string) {
	for _, f := range files {
		out = append(out, name(f))
	}
	return out
}

func chatOf(name domain.Platform, id string, shown func() []string, say func(string, ...File)) Chat {
	return Chat{To: domain.Address{Platform: name, ChatID: id}, Shown: shown, Say: say}
}

func newTelegram(a *Account) error {
	a.MayRepeat = true
	var srv *telegramfake.Server
	err := a.listen(func(l net.Listener) (func(), error) {
		var err error
		srv, err = telegramfake.New(telegramfake.Options{Listener: l})
		return func() { srv.Close() }, err
	})
	if err != nil {
		return err
	}
	a.Server = srv
	a.Connect = func(log *slog.Logger, part *health.Reporter) (platform.Adapter, error) {
		return telegram.New(telegram.Config{Token: secret.Value(srv.Token()), BaseURL: srv.URL()}, platform.Deps{HTTP: a.client(), Log: log, Health: part})
	}
	name := named()
	a.Chat = func() Chat {
		who := srv.AddUser(name())
		return chatOf(telegram.Name, fmt.Sprint(who.ID), func() []string {
			return shown(srv.Messages(who.ID), func(m telegramfake.Message) (string, bool) {
				if m.File != nil {
					return withFiles(m.Text, m.File.Name), m.FromBot && !m.Deleted
				}
				return m.Text, m.FromBot && !m.Deleted
			})
		}, func(text string, files ...File) {
			if len(files) == 0 {
				srv.Say(who, text)
			}
			album := ""
			if len(files) > 1 {
				album = text
			}
			for i, f := range files {
				srv.Post(telegramfake.Post{From: who, Text: text, Album: album, File: &telegramfake.Upload{Kind: "document", Name: f.Name, MIME: f.MIME, Data: f.Data}})
				if i == 0 {
					text = "" // an album has one caption
				}
			}
		})
	}
	a.Upset = func(u Upset, times int, all bool) {
		srv.Fail(only(all, "sendMessage"), u.fault(times, fault.TooMany(3)))
	}
	return nil
}

// fault is the way to be upset as a fault that so many requests meet; tooMany is
// how the platform says that there are too many.
func (u Upset) fault(times int, tooMany fault.Fault) fault.Fault {
	f := map[Upset]fault.Fault{
		TooMany: tooMany, Unavailable: fault.BadGateway(), CutBefore: fault.CutBefore(),
		CutAfter: fault.CutAfter(), NoAnswer: {BlackHole: true}, LateAnswer: fault.Lost(),
	}[u]
	f.Times = times
	return f
}

// only is the operation that is upset; "" means every one.
func only(all bool, send string) string {
	if all {
		return ""
	}
	return send
}

func newDiscord(a *Account) error {
	a.MayRepeat = true
	var srv *discordfake.Server
	err := a.listen(func(l net.Listener) (func(), error) {
		var err error
		srv, err = discordfake.New(discordfake.Options{Listener: l})
		return func() { srv.Close() }, err
	})
	if err != nil {
		return err
	}
	a.Server = srv
	a.Connect = func(log *slog.Logger, part *health.Reporter) (platform.Adapter, error) {
		return discord.New(discord.Config{Token: secret.Value(srv.Token()), BaseURL: srv.URL()}, discord.Deps{Deps: platform.Deps{HTTP: a.client(), Log: log, Health: part}, Files: a.client()})
	}
	name := named()
	a.Chat = func() Chat {
		who := srv.AddUser(name())
		channel := srv.DM(who)
		return chatOf(discord.Name, channel, func() []string {
			return shown(srv.Messages(channel), func(m discordfake.Message) (string, bool) {
				return withFiles(m.Content, names(m.Files, func(f discordfake.File) string { return f.Filename })...), m.FromBot && !m.Deleted
			})
		}, func(text string, files ...File) {
			p := discordfake.Post{Text: text, Files: map[string][]byte{}}
			for _, f := range files {
				p.Files[f.Name], p.Mime = f.Data, f.MIME
			}
			srv.Write(who, channel, p)
		})
	}
	a.Upset = func(u Upset, times int, all bool) {
		srv.Fail(only(all, "create_message"), u.fault(times, discordfake.TooMany(3, all)))
	}
	return nil
}

func newSlack(a *Account) error {
	var srv *slackfake.Server
	err := a.listen(func(l net.Listener) (func(), error) {
		var err error
		srv, err = slackfake.New(slackfake.Options{Listener: l, PingEvery: 10 * time.Second, RedeliverAfter: 3 * time.Second})
		return func() { srv.Close() }, err
	})
	if err != nil {
		return err
	}
	a.Server = srv
	a.Connect = func(log *slog.Logger, part *health.Reporter) (platform.Adapter, error) {
		return slack.New(slack.Config{Token: secret.Value(srv.Token()), AppToken: secret.Value(srv.AppToken()), BaseURL: srv.URL()}, platform.Deps{HTTP: a.client(), Log: log, Health: part})
	}
	name := named()
	a.Chat = func() Chat {
		who := srv.AddUser(name())
		channel := srv.Direct(who)
		return chatOf(slack.Name, channel, func() []string {
			return shown(srv.Messages(channel), func(m slackfake.Message) (string, bool) {
				text := m.Text
				if strings.HasPrefix(text, "📎 ") { // it stands before the files of a message without words
					text = ""
				}
				return withFiles(text, names(m.Files, func(f slackfake.File) string { return f.Name })...), m.FromBot
			})
		}, func(text string, files ...File) {
			p := slackfake.Post{From: who, Channel: channel, Text: text}
			for _, f := range files {
				p.Files = append(p.Files, slackfake.File{Name: f.Name, MIME: f.MIME, Data: f.Data})
			}
			srv.Post(p)
		})
	}
	a.Upset = func(u Upset, times int, all bool) {
		srv.Fail(only(all, "chat.postMessage"), u.fault(times, fault.TooMany(3)))
	}
	return nil
}

func newMattermost(a *Account) error {
	var srv *mattermostfake.Server
	err := a.listen(func(l net.Listener) (func(), error) {
		var err error
		srv, err = mattermostfake.New(mattermostfake.Options{Listener: l})
		return func() { srv.Close() }, err
	})
	if err != nil {
		return err
	}
	a.Server = srv
	a.Connect = func(log *slog.Logger, part *health.Reporter) (platform.Adapter, error) {
		return mattermost.New(mattermost.Config{Token: secret.Value(srv.Token()), URL: srv.URL()}, platform.Deps{HTTP: a.client(), Log: log, Health: part})
	}
	name := named()
	a.Chat = func() Chat {
		who := srv.AddUser(name())
		channel := srv.Direct(who)
		return chatOf(mattermost.Name, channel, func() []string {
			return shown(srv.Messages(channel), func(m mattermostfake.Message) (string, bool) {
				return withFiles(m.Text, names(m.Files, func(f mattermostfake.File) string { return f.Name })...), m.FromBot && !m.Deleted
			})
		}, func(text string, files ...File) {
			p := mattermostfake.Post{From: who, Text: text}
			for _, f := range files {
				p.Files = append(p.Files, mattermostfake.File{Name: f.Name, MIME: f.MIME, Data: f.Data})
			}
			srv.Post(p)
		})
	}
	a.Upset = func(u Upset, times int, all bool) {
		srv.Fail(only(all, "POST /posts"), u.fault(times, mattermostfake.TooMany(3)))
	}
	return nil
}

func newMatrix(a *Account) error {
	var srv *matrixfake.Server
	err := a.listen(func(l net.Listener) (func(), error) {
		var err error
		srv, err = matrixfake.New(matrixfake.Options{Listener: l})
		return func() { srv.Close() }, err
	})
	if err != nil {
		return err
	}
	a.Server = srv
	a.Connect = func(log *slog.Logger, part *health.Reporter) (platform.Adapter, error) {
		return matrix.New(matrix.Config{Homeserver: srv.URL(), Token: secret.Value(srv.Token())}, matrix.Deps{Deps: platform.Deps{HTTP: a.client(), Log: log, Health: part},
			Admits: func(context.Context, string) (bool, error) { return true, nil }})
	}
	name := named()
	a.Chat = func() Chat {
		who := srv.AddUser(name())
		room := srv.Invite(who, true)
		return chatOf(matrix.Name, room, func() []string {
			return shown(srv.Messages(room), func(m matrixfake.Message) (string, bool) {
				if m.File != nil && m.File.Name == m.Text { // which is its name then, for old clients
					return withFiles("", m.File.Name), m.FromBot
				}
				return m.Text, m.FromBot
			})
		}, func(text string, files ...File) {
			if len(files) == 0 {
				srv.Say(who, room, text)
			}
			for _, f := range files {
				srv.Post(matrixfake.Post{From: who, Room: room, Text: text, Kind: "m.file", File: &matrixfake.File{Name: f.Name, MIME: f.MIME, Data: f.Data}})
			}
		})
	}
	a.Upset = func(u Upset, times int, all bool) {
		srv.Fail(only(all, matrixfake.Send), u.fault(times, matrixfake.TooMany(3000)))
	}
	return nil
}

func newEmail(a *Account) error {
	srv, err := emailfake.New(emailfake.Options{Listen: a.network.Listen, SaveSent: true})
	if err != nil {
		return err
	}
	a.closing = append(a.closing, srv.Close)
	a.Server = srv
	a.Connect = func(log *slog.Logger, part *health.Reporter) (platform.Adapter, error) {
		return email.New(email.Config{Address: srv.Address(), Password: secret.Value(srv.Password()),
			IMAP: email.Server{Host: "127.0.0.1", Port: srv.IMAPPort(), Security: email.Plain}, SMTP: email.Server{Host: "127.0.0.1", Port: srv.SMTPPort(), Security: email.Plain},
		}, email.Deps{Dial: a.network.Dial, Log: log, Health: part})
	}
	name := named()
	a.Chat = func() Chat {
		address := name() + "@people.test"
		return chatOf(email.Name, address, func() []string {
			return shown(srv.Sent(), func(m emailfake.Mail) (string, bool) {
				return withFiles(m.Text, slices.Sorted(maps.Keys(m.Files))...), strings.EqualFold(m.To, address)
			})
		}, func(text string, files ...File) {
			l := emailfake.Letter{From: address, Subject: "a question", Text: text}
			if len(files) > 0 {
				l.Body = letterWith(text, files)
			}
			srv.Write(l)
		})
	}
	a.Upset = func(u Upset, times int, all bool) {
		stage := map[Upset]string{TooMany: "rcpt", Unavailable: "mail", CutBefore: "data", CutAfter: "end", NoAnswer: "mail", LateAnswer: "end"}[u]
		f := u.fault(times, fault.Fault{Status: 452, Message: "4.5.3 too many mails, try again later"})
		if u == Unavailable {
			f.Status, f.Message = 421, "4.3.2 shutting down"
		}
		srv.Fail(stage, f)
		if all {
			srv.Drop()
		}
	}
	return nil
}

// letterWith is the body of a mail with files.
func letterWith(text string, files []File) string {
	var b strings.Builder
	b.WriteString("Content-Type: multipart/mixed; boundary=parts\n\n--parts\nContent-Type: text/plain; charset=utf-8\n\n" + text + "\n")
	for _, f := range files {
		name := mime.FormatMediaType("attachment", map[string]string{"filename": f.Name})
		fmt.Fprintf(&b, "--parts\nContent-Type: %s\nContent-Disposition: %s\nContent-Transfer-Encoding: base64\n\n", f.MIME, name)
		for data := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(f.Data)), 76) {
			b.Write(append(data, '\n'))
		}
	}
	b.WriteString("--parts--\n")
	return b.String()
}

// targets is how many chats a webhook's account can have: each is an address
// that is configured.
const targets = 8

func newWebhook(a *Account) error {
	a.MayRepeat = true // by receivers that do not look at the id
	const key = "whsec_dGhlIHNlY3JldCBvZiBhbGwgdGhlc2UgcmVjZWl2ZXJz"
	var rec *webhookfake.Receiver
	err := a.listen(func(l net.Listener) (func(), error) {
		var err error
		rec, err = webhookfake.NewReceiver(key, l)
		return func() { rec.Close() }, err
	})
	if err != nil {
		return err
	}
	a.Server = rec
	c := webhook.Config{Host: "127.0.0.1", Port: -1, Targets: map[string]webhook.Target{}}
	for i := range targets {
		c.Targets[fmt.Sprintf("target%d", i+1)] = webhook.Target{URL: rec.URL(), Secrets: []secret.Value{key}}
	}
	a.Connect = func(log *slog.Logger, part *health.Reporter) (platform.Adapter, error) {
		l, err := a.network.Listen()
		if err != nil {
			return nil, err
		}
		return webhook.New(c, webhook.Deps{HTTP: a.client(), Log: log, Health: part, Listener: l})
	}
	n := 0
	a.Chat = func() Chat {
		n++
		name := fmt.Sprintf("target%d", n)
		return chatOf(webhook.Name, name, func() []string {
			return shown(rec.Posts(), func(p webhookfake.Post) (string, bool) { return p.Text, p.Route == name && p.Signed && !p.Dropped })
		}, nil)
	}
	a.Upset = func(u Upset, times int, _ bool) {
		rec.Fail("post", u.fault(times, fault.TooMany(3)))
	}
	return nil
}
