package discord_test

import (
	"slices"
	"testing"

	"hermes/internal/platform"
	"hermes/internal/platform/discord"
	"hermes/internal/secret"
	fake "hermes/testkit/discord"
)

func TestChannelsAreListedWithTheirServers(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	var want []platform.Channel
	for _, server := range []string{"Acme", "Home"} {
		g := r.srv.AddGuild(server)
		want = append(want, platform.Channel{ID: r.srv.AddChannel(g, "engineering"), Name: "engineering", Space: server, Type: "channel"})
	}
	r.srv.AddThread(r.srv.AddUser("ann"), want[0].ID, "a thread")
	got, err := r.Channels(r.ctx)
	must(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestARenamedChannelIsTold(t *testing.T) {
	r := newRig(t, fake.Options{}, nil)
	g := r.srv.AddGuild("Acme")
	id := r.srv.AddChannel(g, "engineering")
	changed := make(chan struct{}, 64)
	a, err := discord.New(discord.Config{Token: secret.Value(r.srv.Token()), BaseURL: r.srv.URL()}, discord.Deps{Deps: platform.Deps{Changed: func() { changed <- struct{}{} }}})
	must(t, err)
	a.Hasten()
	t.Cleanup(a.CloseIdle)
	r.Adapter = a
	stop := r.run(t)
	defer stop()
	await := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-r.ctx.Done():
			t.Fatal(what)
		}
	}
	await("the server itself was not told")
	r.srv.RenameChannel(id, "engineering") // as a new topic would
	r.srv.RenameChannel(id, "platform")
	await("the new name was not told")
	r.srv.AddChannel(g, "new")
	await("the new channel was not told")
	if n := len(changed); n != 0 {
		t.Errorf("%d changes were told that are none", n)
	}
}
