package discord

import (
	"context"
	"encoding/json"
	"strconv"

	"hermes/internal/platform"
	"hermes/internal/platform/clean"
)

// guildPage is how many servers Discord lists at once,
// https://discord.com/developers/docs/resources/user#get-current-user-guilds.
const guildPage = 200

// maxGuilds bounds the servers whose channels are listed: each costs a request.
const maxGuilds = 1000

// Channels lists the channels of the bot's servers in which people write. Threads
// are left out: there are very many, and their names repeat. Discord lists those
// too that the bot may not see; sending there says so.
func (a *Adapter) Channels(ctx context.Context) ([]platform.Channel, error) {
	out := []platform.Channel{}
	after := "0"
	for listed := 0; listed < maxGuilds; {
		var page []guild
		if err := a.get(ctx, "listing the bot's servers", "/users/@me/guilds", "/users/@me/guilds?limit="+strconv.Itoa(guildPage)+"&after="+after, &page); err != nil {
			return nil, err
		}
		for _, g := range page {
			more, err := a.guildChannels(ctx, g)
			if err != nil {
				return nil, err
			}
			if out = append(out, more...); len(out) >= platform.MaxChannels {
				return out[:platform.MaxChannels], nil
			}
			after = g.ID
		}
		if listed += len(page); len(page) < guildPage {
			break
		}
	}
	return out, nil
}

// guildChannels lists one server,
// https://discord.com/developers/docs/resources/guild#get-guild-channels. One
// that does not let the bot look is left out.
func (a *Adapter) guildChannels(ctx context.Context, g guild) ([]platform.Channel, error) {
	if snowflake(g.ID) == 0 {
		return nil, nil
	}
	var list []channel
	path := "/guilds/" + g.ID + "/channels"
	if err := a.get(ctx, "listing a server's channels", path, path, &list); err != nil {
		if err.Kind == platform.GiveUp {
			a.log.Info("the channels of a server cannot be listed, so they are known by their ids only", "server", g.ID, "error", err)
			return nil, nil
		}
		return nil, err
	}
	var out []platform.Channel
	for _, ch := range list {
		if ch.ID != "" && ch.Name != "" && ch.holdsText() && !ch.isThread() {
			out = append(out, platform.Channel{ID: ch.ID, Name: clean.Name(ch.Name), Space: clean.Name(g.Name), Type: "channel"})
		}
	}
	return out, nil
}

// rename tells that the list of channels is no longer what it was. An update of
// a channel comes for every topic and permission too; only its name counts.
func (c *conn) rename(f frame) {
	var ch channel
	if json.Unmarshal(f.Data, &ch) != nil || ch.isThread() {
		return
	}
	if known, ok := c.a.channels.get(ch.ID); !ok || known.Name != ch.Name || f.Type != "CHANNEL_UPDATE" {
		c.a.changed()
	}
}
