package mattermost_test

import (
	"slices"
	"testing"

	"hermes/internal/platform"
	"hermes/internal/platform/mattermost"
)

func TestChannelsAreListedWithBothNames(t *testing.T) {
	r := newRig(t, nil)
	r.srv.AddUser("ann") // with a direct channel, which has no name
	open, private := r.srv.AddChannel("Engineering", "O"), r.srv.AddChannel("Board", "P")
	group := r.srv.AddChannel("ann, bob", "G")
	got, err := r.Channels(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := []platform.Channel{
		{ID: open.ID, Name: "engineering", Title: "Engineering", Space: "acme", Type: "channel"},
		{ID: private.ID, Name: "board", Title: "Board", Space: "acme", Type: "private"},
		{ID: group.ID, Name: "ann, bob", Type: "group"},
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("%+v is missing in %+v", w, got)
		}
	}
	for _, g := range got {
		if g.Name == "" || g.Type == "" {
			t.Errorf("%+v has no name", g)
		}
	}
}

func TestARenamedChannelIsTold(t *testing.T) {
	r := newRig(t, nil)
	ch := r.srv.AddChannel("Engineering", "O")
	changed := make(chan struct{}, 8)
	a, err := mattermost.New(r.config, platform.Deps{Log: r.logger(), Changed: func() { changed <- struct{}{} }})
	if err != nil {
		t.Fatal(err)
	}
	a.Hasten()
	t.Cleanup(a.CloseIdle)
	r.Adapter = a
	defer r.connect(t)()
	r.srv.RenameChannel(ch.ID, "Platform")
	select {
	case <-changed:
	case <-r.ctx.Done():
		t.Fatal("the new name was not told")
	}
}
