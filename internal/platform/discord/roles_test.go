package discord_test

import (
	"testing"

	"hermes/internal/domain"
	"hermes/internal/platform/discord"
	"hermes/testkit/adapter"
	"hermes/testkit/fault"
)

// listed tells of each text that was heard whether its writer was found on the
// list of roles.
func listed(events []domain.Inbound) map[string]bool {
	out := map[string]bool{}
	for _, e := range events {
		out[e.Text] = e.UserListed
	}
	return out
}

// TestRolesLetPeopleIn has people with and without an allowed role talk in the
// server and directly, also while nobody listens: who holds the role is found on
// the list, everywhere, and nobody else is.
func TestRolesLetPeopleIn(t *testing.T) {
	w := newWorld(t, nil)
	other := w.srv.AddGuild("other")
	role, another := w.srv.AddRole(w.guild), w.srv.AddRole(other)
	bob, carl := w.srv.AddUser("Bob"), w.srv.AddUser("Carl")
	w.srv.Grant(w.ann, w.guild, role)
	w.srv.Grant(bob, w.guild)
	w.srv.Grant(bob, other, another)
	elsewhere := w.srv.AddChannel(other, "elsewhere")
	a := adapterFor(t, w.rig, discord.Config{Roles: []string{role}})
	stop := adapter.Run(t, w.ctx, a, w.sink)
	must(t, w.srv.WaitConnected(w.ctx))
	w.srv.Say(w.ann, w.channel, "ann in the server")
	w.srv.Say(bob, w.channel, "bob in the server")
	w.srv.Say(carl, w.channel, "carl in the server")
	w.srv.Say(bob, elsewhere, "bob elsewhere")
	w.srv.Say(w.ann, w.srv.DM(w.ann), "ann directly")
	w.srv.Say(bob, w.srv.DM(bob), "bob directly")
	w.srv.Say(carl, w.srv.DM(carl), "carl directly")
	w.srv.Slash(w.ann, w.channel, "status", "")
	w.srv.Slash(bob, w.channel, "stop", "")
	w.sink.Wait(t, w.ctx, 9)
	must(t, stop())
	w.srv.Say(w.ann, w.channel, "ann while it is away")
	w.srv.Say(bob, w.channel, "bob while it is away")
	w.srv.Say(w.ann, w.srv.DM(w.ann), "ann directly while it is away")
	next := adapterFor(t, w.rig, discord.Config{Roles: []string{role}})
	w.srv.Fail("guild_member", fault.BadGateway()) // which loses nothing
	stop = adapter.Run(t, w.ctx, next, w.sink)
	w.sink.Wait(t, w.ctx, 12)
	w.srv.Grant(w.ann, w.guild)
	w.srv.Say(w.ann, w.channel, "ann without the role")
	w.sink.Wait(t, w.ctx, 13)
	must(t, stop())
	got := listed(w.sink.Events())
	for text, want := range map[string]bool{
		"ann in the server": true, "bob in the server": false, "carl in the server": false, "bob elsewhere": false,
		"ann directly": true, "bob directly": false, "carl directly": false, "/status": true, "/stop": false,
		"ann while it is away": true, "bob while it is away": false, "ann directly while it is away": true, "ann without the role": false,
	} {
		if yes, heard := got[text]; !heard || yes != want {
			t.Errorf("%s: heard %v, listed %v, want %v", text, heard, yes, want)
		}
	}
}

// TestEverybodyOfAServer allows the role that everybody of a server has, which is
// called as the server.
func TestEverybodyOfAServer(t *testing.T) {
	w := newWorld(t, nil)
	carl := w.srv.AddUser("Carl")
	w.srv.Grant(w.ann, w.guild)
	a := adapterFor(t, w.rig, discord.Config{Roles: []string{w.guild}})
	stop := adapter.Run(t, w.ctx, a, w.sink)
	must(t, w.srv.WaitConnected(w.ctx))
	w.srv.Say(w.ann, w.channel, "in the server")
	w.srv.Say(w.ann, w.srv.DM(w.ann), "directly")
	w.srv.Say(carl, w.srv.DM(carl), "a stranger")
	w.sink.Wait(t, w.ctx, 3)
	must(t, stop())
	if got := listed(w.sink.Events()); !got["in the server"] || !got["directly"] || got["a stranger"] {
		t.Errorf("listed: %v", got)
	}
}
