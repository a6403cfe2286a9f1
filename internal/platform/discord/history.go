package discord

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"

	"hermes/internal/platform"
)

const (
	historyPage = 100 // the most that Discord gives at once
	maxPages    = 20  // of a channel after one connect
	maxTries    = 3   // of one page
)

// since is the last message of a channel that was handled before this
// connection; for a channel without one, the last of all.
func (c *conn) since(channel string) string {
	if last := c.at.Channels[channel]; last != "" {
		return last
	}
	return c.floor
}

// catchUpKnown reads the history of each channel that has a position.
func (c *conn) catchUpKnown(ctx context.Context) error {
	known := make([]string, 0, len(c.at.Channels))
	for id := range c.at.Channels {
		known = append(known, id)
	}
	// The liveliest first: somebody is more likely to wait there.
	slices.SortFunc(known, func(x, y string) int {
		if later(c.at.Channels[x], c.at.Channels[y]) {
			return -1
		}
		return 1
	})
	for _, id := range known {
		if c.caught[id] {
			continue
		}
		if err := c.catchUp(ctx, id, "", c.since(id)); err != nil {
			return err
		}
	}
	return nil
}

// guild takes note of a server's channels and reads the history of those where
// something was said that this bot has not seen, known or not.
func (c *conn) guild(ctx context.Context, g guild) error {
	c.a.roles.see(g, c.a.cfg.Roles)
	for _, ch := range append(g.Channels, g.Threads...) {
		ch.GuildID = g.ID
		c.a.channels.put(ch)
	}
	for _, ch := range append(g.Channels, g.Threads...) {
		if c.caught[ch.ID] || !ch.holdsText() {
			continue
		}
		ch.GuildID = g.ID
		if !c.a.heard(ch) {
			continue
		}
		if !later(ch.LastMessage, c.since(ch.ID)) {
			c.caught[ch.ID] = true
			continue
		}
		if err := c.catchUp(ctx, ch.ID, g.ID, c.since(ch.ID)); err != nil {
			return err
		}
	}
	return nil
}

// catchUp reads and commits what was said in a channel after a message,
// https://discord.com/developers/docs/resources/message#get-channel-messages.
// Where Discord fails, the channel stays to be caught up with, and its position
// does not move; the connection goes on.
func (c *conn) catchUp(ctx context.Context, id, guildID, after string) error {
	if snowflake(id) == 0 || after == "" {
		c.caught[id] = true
		return nil
	}
	for range maxPages {
		page, full, err := c.a.history(ctx, id, after)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err.Kind == platform.BadCredentials {
				return err
			}
			if err.Kind != platform.Retry { // gone, or not to be seen
				c.caught[id] = true
				return nil
			}
			c.at.keep(id, after)
			c.a.log.Warn("a channel's history could not be read; it is tried again at its next message", "channel", id, "code", err.Code, "reason", err.Reason, "cause", err.Cause)
			return nil
		}
		if err := c.takePage(ctx, page, id, guildID); err != nil {
			return err
		}
		if !full || len(page) == 0 {
			c.caught[id] = true
			return nil
		}
		after = page[len(page)-1].ID
	}
	c.caught[id] = true
	c.a.log.Warn("more was said in a channel while hermes was away than is read again; the rest is passed over", "channel", id, "messages", maxPages*historyPage)
	return nil
}

// takePage commits a page, oldest first.
func (c *conn) takePage(ctx context.Context, page []message, id, guildID string) error {
	if guildID == "" {
		if ch, ok := c.a.channels.get(id); ok {
			guildID = ch.GuildID
		} else if len(page) > 0 {
			// Whether it is a direct message is told by the channel alone.
			ch, err := c.a.lookUp(ctx, id)
			if err != nil {
				return err
			}
			guildID = ch.GuildID
		}
	}
	b := &batch{}
	for i := range page {
		m := &page[i]
		m.ChannelID, m.GuildID = id, guildID
		if err := c.take(ctx, m, b); err != nil {
			return err
		}
		if len(c.done) < maxPages*historyPage {
			c.done[m.ID] = true
		}
		c.at.move(id, m.ID)
		b.moved = true
	}
	return c.commit(ctx, b)
}

// history reads one page, oldest first; full tells that there may be more. A
// message that cannot be read is left out.
func (a *Adapter) history(ctx context.Context, channel, after string) (page []message, full bool, _ *platform.Error) {
	path := "/channels/" + channel + "/messages"
	var raw []json.RawMessage
	for try := 1; ; try++ {
		perr := a.get(ctx, "reading a channel's history", path, path+"?limit="+strconv.Itoa(historyPage)+"&after="+after, &raw)
		if perr == nil {
			break
		}
		if perr.Kind != platform.Retry || try == maxTries || !platform.Sleep(ctx, min(max(perr.RetryAfter, a.pause.first), a.pause.most)) {
			return nil, false, perr
		}
	}
	out := make([]message, 0, len(raw))
	for _, r := range raw {
		var m message
		if err := json.Unmarshal(r, &m); err != nil || m.ID == "" {
			a.log.Warn("a message of a channel's history could not be read and was left out", "channel", channel, "error", a.scrub(err))
			continue
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(x, y message) int {
		if later(y.ID, x.ID) {
			return -1
		}
		return 1
	})
	return out, len(raw) >= historyPage, nil
}

// lookUp asks for a channel, or gives what is known of it.
func (a *Adapter) lookUp(ctx context.Context, id string) (channel, error) {
	if ch, ok := a.channels.get(id); ok {
		return ch, nil
	}
	var ch channel
	if perr := a.get(ctx, "reading a channel", "/channels/"+id, "/channels/"+id, &ch); perr != nil {
		if perr.Kind == platform.Retry || perr.Kind == platform.BadCredentials {
			return ch, perr
		}
		// One that cannot be seen is taken as a server's, where more is asked of a message.
		return channel{ID: id, GuildID: "0"}, nil
	}
	ch.ID = id
	a.channels.put(ch)
	return ch, nil
}
