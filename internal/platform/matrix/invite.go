package matrix

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"hermes/internal/platform"
)

// invitations accepts invitations of people who may talk to the agent, of this
// sync and those that wait. The others stay open: they are looked at again now
// and then, since somebody may be let in later.
func (r *receiver) invitations(ctx context.Context, s *syncReply) error {
	self := r.a.self.Load()
	fresh := false
	for id, one := range s.Rooms.Invite {
		for _, ev := range one.State.Events {
			m, _ := membership(ev, self)
			if m != "invite" || !isRoom(id) || !isUser(ev.Sender) {
				continue
			}
			r.at.hold(invite{Room: id, By: ev.Sender, Direct: contentOf(ev).Direct})
			fresh = true
		}
	}
	now := r.a.now()
	if len(r.at.Invites) == 0 || !fresh && now.Before(r.tryAgain) {
		return nil
	}
	r.tryAgain = now.Add(r.a.pause.invite)
	waiting := ""
	for _, i := range r.at.Invites {
		may, err := r.a.admits(ctx, i.By)
		if err != nil {
			return err
		}
		if !may {
			r.a.log.Info("somebody who may not talk to the agent invites it into a room; the invitation stays open", "by", i.By, "room", i.Room)
			waiting = i.By
			continue
		}
		if e := r.a.join(ctx, i); e != nil {
			r.a.log.Warn("a room could not be joined", "room", i.Room, "by", i.By, "reason", e.Reason)
			if e.Kind == platform.BadCredentials {
				return e
			}
			if e.Kind == platform.GiveUp {
				r.at.forgetInvite(i.Room)
			}
			continue
		}
		r.a.log.Info("joined a room", "room", i.Room, "by", i.By)
		r.at.forgetInvite(i.Room)
	}
	note := ""
	if n := len(r.at.Invites); n > 0 && waiting != "" {
		note = strconv.Itoa(n) + " not accepted; the last by " + waiting + ", who is on no list (MATRIX_ALLOWED_USERS)"
	}
	r.a.health.Note("invitations", note)
	return nil
}

// join accepts an invitation,
// https://spec.matrix.org/v1.15/client-server-api/#post_matrixclientv3joinroomidoralias.
func (a *Adapter) join(ctx context.Context, i invite) *platform.Error {
	if e := a.enter(ctx, i.Room, serverOf(i.By)); e != nil {
		return e
	}
	a.rooms.drop(i.Room)
	if !i.Direct {
		return nil
	}
	if e := a.markDirect(ctx, i.By, i.Room); e != nil { // that there are two of them says it too
		a.log.Info("a room could not be marked as a direct one", "room", i.Room, "reason", e.Reason)
	}
	return nil
}

// enter joins a room; doing so again changes nothing.
func (a *Adapter) enter(ctx context.Context, room, via string) *platform.Error {
	q := url.Values{}
	if via != "" {
		q["via"], q["server_name"] = []string{via}, []string{via} // before version 1.12 it has the second name
	}
	_, e := a.call(ctx, request{method: http.MethodPost, path: "/v3/join/" + url.PathEscape(room), query: q, in: struct{}{}}, nil)
	return harmless(e, "the room could not be joined")
}
