package slack

import (
	"cmp"
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"hermes/internal/platform"
	"hermes/internal/platform/clean"
	"hermes/internal/platform/recall"
)

const (
	listPage    = 200  // conversations of one page, as Slack advises
	maxChannels = 5000 // that the bot may be in and have its history read
)

// directory remembers names, conversations and threads, so that not every
// message costs a request. The zero value is usable; its methods are safe for
// concurrent use.
type directory struct {
	mu       sync.Mutex
	users    recall.Table[string]
	channels recall.Table[channel]
	threads  recall.Table[bool] // by channel and first message: the bot has written there
}

func (d *directory) user(id string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, _ := d.users.Get(id)
	return s
}

func (d *directory) setUser(id, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users.Set(id, name)
}

func (d *directory) channel(id string) (channel, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.channels.Get(id)
}

func (d *directory) setChannel(ch channel) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.channels.Set(ch.ID, ch)
}

func (d *directory) dropChannel(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.channels.Drop(id)
}

func (d *directory) thread(channel, root string) (joined, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.threads.Get(channel + "/" + root)
}

func (d *directory) setThread(channel, root string, joined bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := channel + "/" + root
	if was, _ := d.threads.Get(key); !was { // joined meanwhile stays joined
		d.threads.Set(key, joined)
	}
}

// conversationTypes are the kinds of conversations, each with a permission of
// its own.
var conversationTypes = []string{"im", "public_channel", "private_channel", "mpim"}

// conversations lists those of some kinds that the bot is in,
// https://docs.slack.dev/reference/methods/users.conversations. Each kind is
// asked for by itself: one whose permission is missing hides no other.
func (a *Adapter) conversations(ctx context.Context, kinds []string) (out []channel, c *call, missing []string, e *platform.Error) {
	for _, kind := range kinds {
		args := url.Values{"types": {kind}, "exclude_archived": {"true"}, "limit": {strconv.Itoa(listPage)}}
		for {
			var page struct {
				Channels []channel `json:"channels"`
			}
			if c, e = a.get(ctx, "users.conversations", args, &page); e != nil {
				break
			}
			for _, ch := range page.Channels {
				if isID(ch.ID) && !ch.Archived && len(out) < maxChannels {
					a.names.setChannel(ch)
					out = append(out, ch)
				}
			}
			next := c.reply.Metadata.NextCursor
			if next == "" || next == args.Get("cursor") || len(out) >= maxChannels {
				break
			}
			args.Set("cursor", next)
		}
		switch {
		case e == nil:
		case e.Code == codeScope:
			missing = append(missing, clean.Clip(clean.Text(c.reply.Needed), 100))
		default:
			return nil, c, nil, e
		}
	}
	return out, c, missing, nil
}

// Channels lists the channels and groups that the bot is in.
func (a *Adapter) Channels(ctx context.Context) ([]platform.Channel, error) {
	all, _, _, e := a.conversations(ctx, conversationTypes[1:])
	if e != nil {
		return nil, harmless(e, "Slack did not say which channels the bot is in")
	}
	out := []platform.Channel{}
	for _, ch := range all {
		one := platform.Channel{ID: ch.ID, Name: clean.Name(ch.Name), Type: "channel"}
		switch {
		case ch.IsMPIM:
			one.Type = "group"
		case ch.IsPrivate:
			one.Type = "private"
		}
		if one.Name != "" && len(out) < platform.MaxChannels {
			out = append(out, one)
		}
	}
	return out, nil
}

// channelOf finds out about a conversation,
// https://docs.slack.dev/reference/methods/conversations.info. One that cannot
// be seen is known by its id only; the first letter of it tells direct messages.
func (a *Adapter) channelOf(ctx context.Context, id, kind string) (channel, *platform.Error) {
	if ch, ok := a.names.channel(id); ok {
		return ch, nil
	}
	ch := channel{ID: id, IsIM: kind == "im" || kind == "" && id[0] == 'D', IsMPIM: kind == "mpim", IsPrivate: kind == "group"}
	if ch.IsIM {
		return ch, nil
	}
	var out struct {
		Channel channel `json:"channel"`
	}
	_, e := a.get(ctx, "conversations.info", url.Values{"channel": {id}}, &out)
	if e != nil && e.Kind != platform.GiveUp {
		return ch, harmless(e, "a channel's name could not be read")
	}
	if e == nil && out.Channel.ID == id {
		ch = out.Channel
	}
	a.names.setChannel(ch)
	return ch, nil
}

// userName gives the name of a user, https://docs.slack.dev/reference/methods/users.info;
// one that cannot be seen is called by its id.
func (a *Adapter) userName(ctx context.Context, id string) (string, *platform.Error) {
	if s := a.names.user(id); s != "" || !isID(id) {
		return cmp.Or(s, id), nil
	}
	var out struct {
		User struct {
			Name    string `json:"name"`
			Profile struct {
				Display string `json:"display_name"`
				Real    string `json:"real_name"`
			} `json:"profile"`
		} `json:"user"`
	}
	_, e := a.get(ctx, "users.info", url.Values{"user": {id}}, &out)
	if e != nil && e.Kind != platform.GiveUp {
		return "", harmless(e, "a user's name could not be read")
	}
	s := cmp.Or(clean.Name(out.User.Profile.Display, out.User.Profile.Real, out.User.Name), id)
	a.names.setUser(id, s)
	return s, nil
}

// inThread tells whether the bot has written in a thread: who goes on there
// need not name it again.
func (a *Adapter) inThread(ctx context.Context, self *identity, m *message, channel string) (bool, *platform.Error) {
	root := m.root()
	if joined, known := a.names.thread(channel, root); known {
		return joined, nil
	}
	if m.ParentUser == self.user {
		a.names.setThread(channel, root, true)
		return true, nil
	}
	page, e := a.page(ctx, "conversations.replies", url.Values{"channel": {channel}, "ts": {root}, "limit": {strconv.Itoa(historyPage)}})
	if e != nil && e.Kind != platform.GiveUp {
		return false, harmless(e, "a thread could not be read")
	}
	joined := slices.ContainsFunc(page.messages, self.wrote)
	a.names.setThread(channel, root, joined)
	return joined, nil
}

// wrote tells whether a message is the bot's own.
func (i *identity) wrote(m *message) bool {
	return m.User == i.user || m.BotID != "" && m.BotID == i.bot
}

// matches finds a channel in a list of ids and names.
func matches(list []string, ch channel) bool {
	return slices.ContainsFunc(list, func(s string) bool {
		s = strings.TrimPrefix(s, "#")
		return s == "*" || s == ch.ID || ch.Name != "" && strings.EqualFold(s, ch.Name)
	})
}
