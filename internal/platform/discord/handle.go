package discord

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
)

// batch collects what is committed together.
type batch struct {
	events  []domain.Inbound
	presses []*interaction
	moved   bool
}

// handle commits what comes, in order. The session's sequence advances only
// then, so that a resume brings again what was not stored.
func (c *conn) handle(ctx context.Context) error {
	saved := time.NewTicker(c.a.pause.save)
	defer saved.Stop()
	first := time.NewTimer(c.a.pause.hello)
	defer first.Stop()
	for {
		var f frame
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-first.C:
			if !c.ready {
				return &platform.Error{Kind: platform.Retry, Code: "discord_deaf", Reason: "Discord did not begin the session in time: the connection is made again"}
			}
			continue
		case <-saved.C:
			c.save(ctx)
			continue
		case f = <-c.queue:
		}
		b := &batch{}
		for n := 1; ; n++ {
			if err := c.dispatch(ctx, f, b); err != nil {
				return err
			}
			if n >= maxBatch || len(c.queue) == 0 {
				break
			}
			f = <-c.queue
		}
		if err := c.commit(ctx, b); err != nil {
			return err
		}
		c.a.session.seq = max(f.Seq, c.a.session.seq)
	}
}

// commit stores a batch with the position behind it, and confirms presses.
func (c *conn) commit(ctx context.Context, b *batch) error {
	c.dirty = c.dirty || b.moved
	if len(b.events) > 0 {
		if err := c.intake.Accept(ctx, c.a.account, b.events, c.at.String()); err != nil {
			return err
		}
		c.dirty = false
		c.alive()
	}
	c.answers.add(b.presses)
	*b = batch{}
	return nil
}

// dispatch takes one event of the gateway,
// https://discord.com/developers/docs/events/gateway-events#receive-events.
func (c *conn) dispatch(ctx context.Context, f frame, b *batch) error {
	var err error
	switch f.Type {
	case "READY":
		err = c.begun(ctx, f.Data)
	case "RESUMED":
		c.established("resumed")
		if err = c.commit(ctx, b); err == nil {
			err = c.catchUpKnown(ctx)
		}
	case "GUILD_CREATE":
		var g guild
		if json.Unmarshal(f.Data, &g) == nil && !g.Unavailable {
			if err = c.commit(ctx, b); err == nil {
				err = c.guild(ctx, g)
			}
			c.unseen(g.ID)
			c.a.changed()
		}
	case "GUILD_DELETE": // the bot was taken out, or the server is away
		var g guild
		if json.Unmarshal(f.Data, &g) == nil && !g.Unavailable {
			c.unseen(g.ID)
			c.a.changed()
		}
	case "CHANNEL_CREATE", "THREAD_CREATE":
		c.rename(f)
		c.channel(f.Data, true)
	case "CHANNEL_UPDATE", "THREAD_UPDATE":
		c.rename(f)
		c.channel(f.Data, false)
	case "CHANNEL_DELETE", "THREAD_DELETE":
		c.rename(f)
		var ch channel
		if json.Unmarshal(f.Data, &ch) == nil {
			c.a.channels.drop(ch.ID)
			delete(c.at.Channels, ch.ID)
		}
	case "MESSAGE_CREATE":
		err = c.message(ctx, f, b)
	case "INTERACTION_CREATE":
		var i interaction
		if jerr := json.Unmarshal(f.Data, &i); jerr != nil {
			c.unreadable(f, jerr)
			break
		}
		in, ok, ierr := c.a.interaction(ctx, &i)
		if ok {
			b.events = append(b.events, in)
			b.presses = append(b.presses, &i)
		}
		err = ierr
	}
	return err
}

func (c *conn) unreadable(f frame, err error) {
	c.a.log.Warn("an event of Discord could not be read and was left out", "type", clean.Clip(clean.Text(f.Type), 40), "seq", f.Seq, "error", c.a.scrub(err))
}

// begun takes READY.
func (c *conn) begun(ctx context.Context, data []byte) error {
	var r struct {
		User      user   `json:"user"`
		SessionID string `json:"session_id"`
		Resume    string `json:"resume_gateway_url"`
		Guilds    []struct {
			ID string `json:"id"`
		} `json:"guilds"`
	}
	if err := json.Unmarshal(data, &r); err != nil || r.SessionID == "" {
		return &platform.Error{Kind: platform.Retry, Code: "discord_garbled", Reason: "Discord's answer to the login could not be read: it is made again", Cause: c.a.scrub(err)}
	}
	n := clean.Name(r.User.Username)
	c.a.name.Store(&n)
	c.a.session = session{id: r.SessionID, url: r.Resume}
	c.servers = map[string]bool{}
	var all []string
	for _, g := range r.Guilds {
		c.servers[g.ID] = true
		all = append(all, g.ID)
	}
	c.a.roles.begin(all)
	c.at.held = len(c.servers) > 0
	c.a.health.Note("bot", "@"+n)
	c.established("connected")
	return c.catchUpKnown(ctx)
}

// unseen strikes a server off those that have not been looked at yet.
func (c *conn) unseen(id string) {
	delete(c.servers, id)
	if c.at.held && len(c.servers) == 0 {
		c.at.release()
	}
}

func (c *conn) established(how string) {
	c.ready = true
	c.failures = 0
	c.a.connects++
	c.a.health.Note("reconnects", strconv.Itoa(c.a.connects-1))
	c.a.log.Info("the session with Discord is "+how, "bot", c.a.ownName(), "sessions_today", c.at.Identifies)
	c.alive()
}

// channel takes note of a channel. One that has just been made has no history.
func (c *conn) channel(data []byte, isNew bool) {
	var ch channel
	var made struct {
		New bool `json:"newly_created"` // THREAD_CREATE comes also when the bot is added to an old one
	}
	if json.Unmarshal(data, &ch) != nil || ch.ID == "" {
		return
	}
	_ = json.Unmarshal(data, &made)
	c.a.channels.put(ch)
	if isNew && (made.New || !ch.isThread() && ch.GuildID != "") {
		c.caught[ch.ID] = true
	}
}

// message takes a message. The history of its channel comes first, so that the
// position never passes over something that was not read.
func (c *conn) message(ctx context.Context, f frame, b *batch) error {
	var m message
	if err := json.Unmarshal(f.Data, &m); err != nil {
		c.unreadable(f, err)
		return nil
	}
	if !c.caught[m.ChannelID] {
		if err := c.commit(ctx, b); err != nil {
			return err
		}
		if err := c.catchUp(ctx, m.ChannelID, m.GuildID, c.since(m.ChannelID)); err != nil {
			return err
		}
	}
	return c.take(ctx, &m, b)
}

// take adds a message to the batch and moves the position behind it.
func (c *conn) take(ctx context.Context, m *message, b *batch) error {
	if c.done[m.ID] {
		return nil
	}
	in, ok, err := c.a.event(ctx, m)
	if err != nil {
		return err
	}
	if ok {
		b.events = append(b.events, in)
		c.a.waiting.Set(in.Address, m.ChannelID+"/"+m.ID)
	}
	if c.caught[m.ChannelID] {
		c.at.move(m.ChannelID, m.ID)
		b.moved = true
	}
	return nil
}
