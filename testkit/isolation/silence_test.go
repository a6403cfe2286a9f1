package isolation

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/discord"
	"hermes/internal/platform/email"
	"hermes/internal/platform/matrix"
	"hermes/internal/platform/mattermost"
	"hermes/internal/platform/slack"
	"hermes/internal/platform/telegram"
	"hermes/internal/secret"
	"hermes/testkit/adapter"
	discordfake "hermes/testkit/discord"
	emailfake "hermes/testkit/email"
	matrixfake "hermes/testkit/matrix"
	mattermostfake "hermes/testkit/mattermost"
	"hermes/testkit/port"
	slackfake "hermes/testkit/slack"
	telegramfake "hermes/testkit/telegram"
)

// account is one adapter and its fake on a network in memory.
type account struct {
	platform.Adapter
	say   func(text string)
	close func()
}

// connections make an account each. Whatever they wait for is as in production.
func connections() map[string]func(t *testing.T, n *port.Network, part *health.Reporter) account {
	listen := func(t *testing.T, n *port.Network) (net.Listener, *http.Client) {
		l, err := n.Listen()
		must(t, err)
		return l, &http.Client{Transport: &http.Transport{DialContext: n.Dial, DisableCompression: true}}
	}
	return map[string]func(*testing.T, *port.Network, *health.Reporter) account{
		"telegram": func(t *testing.T, n *port.Network, part *health.Reporter) account {
			l, client := listen(t, n)
			srv, err := telegramfake.New(telegramfake.Options{Listener: l})
			must(t, err)
			a, err := telegram.New(telegram.Config{Token: secret.Value(srv.Token()), BaseURL: srv.URL()}, platform.Deps{HTTP: client, Health: part})
			must(t, err)
			ann := srv.AddUser("ann")
			return account{a, func(text string) { srv.Say(ann, text) }, func() { client.CloseIdleConnections(); srv.Close() }}
		},
		"discord": func(t *testing.T, n *port.Network, part *health.Reporter) account {
			l, client := listen(t, n)
			srv, err := discordfake.New(discordfake.Options{Listener: l})
			must(t, err)
			a, err := discord.New(discord.Config{Token: secret.Value(srv.Token()), BaseURL: srv.URL()}, discord.Deps{Deps: platform.Deps{HTTP: client, Health: part}})
			must(t, err)
			ann := srv.AddUser("ann")
			channel := srv.AddChannel(srv.AddGuild("guild"), "general")
			return account{a, func(text string) { srv.Say(ann, channel, text) }, func() { client.CloseIdleConnections(); srv.Close() }}
		},
		"mattermost": func(t *testing.T, n *port.Network, part *health.Reporter) account {
			l, client := listen(t, n)
			srv, err := mattermostfake.New(mattermostfake.Options{Listener: l})
			must(t, err)
			a, err := mattermost.New(mattermost.Config{Token: secret.Value(srv.Token()), URL: srv.URL()}, platform.Deps{HTTP: client, Health: part})
			must(t, err)
			ann := srv.AddUser("ann")
			return account{a, func(text string) { srv.Say(ann, text) }, func() { client.CloseIdleConnections(); srv.Close() }}
		},
		"matrix": func(t *testing.T, n *port.Network, part *health.Reporter) account {
			l, client := listen(t, n)
			srv, err := matrixfake.New(matrixfake.Options{Listener: l})
			must(t, err)
			a, err := matrix.New(matrix.Config{Homeserver: srv.URL(), Token: secret.Value(srv.Token())}, matrix.Deps{Deps: platform.Deps{HTTP: client, Health: part},
				Admits: func(context.Context, string) (bool, error) { return true, nil }})
			must(t, err)
			ann := srv.AddUser("ann")
			dm := srv.Invite(ann, true)
			return account{a, func(text string) { srv.Say(ann, dm, text) }, func() { client.CloseIdleConnections(); srv.Close() }}
		},
		"slack": func(t *testing.T, n *port.Network, part *health.Reporter) account {
			l, client := listen(t, n)
			srv, err := slackfake.New(slackfake.Options{Listener: l, PingEvery: 10 * time.Second, RedeliverAfter: 3 * time.Second})
			must(t, err)
			a, err := slack.New(slack.Config{Token: secret.Value(srv.Token()), AppToken: secret.Value(srv.AppToken()), BaseURL: srv.URL()}, platform.Deps{HTTP: client, Health: part})
			must(t, err)
			ann := srv.AddUser("ann")
			dm := srv.Direct(ann)
			return account{a, func(text string) { srv.Say(ann, dm, text) }, func() { client.CloseIdleConnections(); srv.Close() }}
		},
		"email": func(t *testing.T, n *port.Network, part *health.Reporter) account {
			srv, err := emailfake.New(emailfake.Options{Listen: n.Listen})
			must(t, err)
			a, err := email.New(email.Config{Address: srv.Address(), Password: secret.Value(srv.Password()),
				IMAP: email.Server{Host: "127.0.0.1", Port: srv.IMAPPort(), Security: email.Plain}, SMTP: email.Server{Host: "127.0.0.1", Port: srv.SMTPPort(), Security: email.Plain},
			}, email.Deps{Dial: n.Dial, Health: part})
			must(t, err)
			return account{a, func(text string) {
				srv.Write(emailfake.Letter{From: "ann@people.test", Subject: "a question", Text: text})
			}, srv.Close}
		},
	}
}

// TestABlackHoleIsSeenAndLeft lets each connection be swallowed for ten minutes:
// status must show it, and what was said meanwhile is heard once packets come
// through again.
func TestABlackHoleIsSeenAndLeft(t *testing.T) {
	for name, connect := range connections() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { swallow(t, connect) })
		})
	}
}

// The bounds, in simulated time.
const (
	seenWithin = 6 * time.Minute // the mailbox is proved every four minutes, and an answer may take its time
	leftWithin = 6 * time.Minute // the longest back-off
)

func swallow(t *testing.T, connect func(*testing.T, *port.Network, *health.Reporter) account) {
	n := &port.Network{}
	registry := health.New(time.Now)
	part := registry.Part("platform")
	a := connect(t, n, part)
	in := adapter.NewInbox()
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { supervise(ctx, a, in, part) })
	defer func() {
		cancel()
		a.close()
		run.Wait()
	}()
	until := func(what string, limit time.Duration, ok func() bool) time.Duration {
		t.Helper()
		for began := time.Now(); ; time.Sleep(time.Second) { // simulated
			if ok() {
				return time.Since(began)
			}
			if time.Since(began) > limit {
				t.Fatalf("not within %s: %s\nstatus: %+v\nheard: %q", limit, what, registry.Parts(), adapter.Texts(in.Events()))
			}
		}
	}
	state := func() health.State { return registry.Parts()[0].State }
	until("it is connected", time.Minute, func() bool { return state() == health.OK })
	a.say("before")
	until("it hears", time.Minute, func() bool { return heard(in, "before") > 0 })
	time.Sleep(time.Minute) // of quiet, simulated

	n.BlackHole(true)
	began := time.Now()
	a.say("meanwhile")
	seen := until("status shows the black hole", seenWithin, func() bool { return state() != health.OK })
	shown := registry.Parts()[0]
	dials := n.Dials()
	time.Sleep(10*time.Minute - time.Since(began)) // simulated
	if state() == health.OK {
		t.Errorf("at the end of the black hole it is shown as well: %+v", registry.Parts())
	}
	if n.Dials() == dials {
		t.Error("after it was seen no new connection was tried")
	}
	if heard(in, "meanwhile") > 0 {
		t.Error("something came through the black hole")
	}
	n.BlackHole(false)
	left := until("what was said meanwhile is heard, and status shows it well", leftWithin, func() bool { return heard(in, "meanwhile") > 0 && state() == health.OK })
	a.say("after")
	until("it hears again", time.Minute, func() bool { return heard(in, "after") > 0 })
	for _, text := range []string{"before", "meanwhile", "after"} {
		if heard(in, text) != 1 {
			t.Errorf("%q was accepted %d times", text, heard(in, text))
		}
	}
	t.Logf("shown after %s as %s %s, heard again %s after it had ended", seen, shown.State, shown.Code, left)
}

// supervise runs the adapter again when it gives up, as the gateway does.
func supervise(ctx context.Context, a platform.Adapter, in *adapter.Inbox, part *health.Reporter) {
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 5*time.Minute) {
		err := a.Run(ctx, in)
		if ctx.Err() != nil || err == nil {
			return
		}
		e := platform.AsError(err)
		part.Degraded(e.Code, e.Reason)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// heard counts the events that say a text.
func heard(in *adapter.Inbox, text string) (n int) {
	for _, e := range in.Events() {
		if lastWord(e.Text) == text {
			n++
		}
	}
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
