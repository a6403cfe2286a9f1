package discord

import (
	"context"
	"slices"
	"sync"
	"time"

	"hermes/internal/platform"
)

// The bounds of what is known of people's roles.
const (
	roleFor   = time.Minute // how long an answer of Discord's counts
	maxAsked  = 4096        // answers that are kept
	maxRoleIn = 50          // servers that are asked about a writer of direct messages
)

// member is what events say of a writer as a member of the server,
// https://discord.com/developers/docs/resources/guild#guild-member-object.
type member struct {
	Nick  string   `json:"nick"`
	Roles []string `json:"roles"`
	User  user     `json:"user"` // not in messages
}

// roleBook knows in which servers an allowed role can be held, and who was found
// to hold one. It is safe for concurrent use.
type roleBook struct {
	mu      sync.Mutex
	servers []string        // that the bot is in
	has     map[string]bool // of those that were seen: whether an allowed role is one of theirs
	asked   map[string]held // by server and person
}

type held struct {
	yes bool
	at  time.Time
}

// begin takes the servers of a new session.
func (b *roleBook) begin(servers []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.servers = servers
}

// see takes the roles of a server.
func (b *roleBook) see(g guild, allowed []string) {
	if len(allowed) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.has == nil {
		b.has = map[string]bool{}
	}
	if !slices.Contains(b.servers, g.ID) {
		b.servers = append(b.servers, g.ID)
	}
	// The role that everybody has is called as the server.
	b.has[g.ID] = slices.Contains(allowed, g.ID) || slices.ContainsFunc(g.Roles, func(r role) bool { return slices.Contains(allowed, r.ID) })
}

// candidates are the servers in which an allowed role may be held: those that
// have one, and those that were not seen yet.
func (b *roleBook) candidates() (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range b.servers {
		if has, seen := b.has[id]; (has || !seen) && snowflake(id) != 0 && len(out) < maxRoleIn {
			out = append(out, id)
		}
	}
	return out
}

func (b *roleBook) known(key string, now time.Time) (yes, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, ok := b.asked[key]
	return h.yes, ok && now.Sub(h.at) < roleFor
}

func (b *roleBook) put(key string, yes bool, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked == nil || len(b.asked) >= maxAsked {
		b.asked = map[string]held{}
	}
	b.asked[key] = held{yes, now}
}

// permitted tells whether somebody holds one of the roles that may talk to the
// bot (DISCORD_ALLOWED_ROLES). An event in a server says which they have; of what
// is read from a history, and of direct messages, Discord is asked, in each of the
// bot's servers that can have such a role. The error says that this cannot be told
// now.
func (a *Adapter) permitted(ctx context.Context, guildID, user string, m *member) (bool, error) {
	if len(a.cfg.Roles) == 0 || snowflake(user) == 0 {
		return false, nil
	}
	if guildID != "" && m != nil && m.Roles != nil {
		return a.holds(guildID, m.Roles), nil
	}
	servers := []string{guildID}
	if guildID == "" {
		servers = a.roles.candidates()
	}
	for _, id := range servers {
		if yes, err := a.askRole(ctx, id, user); yes || err != nil {
			return yes, err
		}
	}
	return false, nil
}

func (a *Adapter) holds(guildID string, roles []string) bool {
	return slices.Contains(a.cfg.Roles, guildID) || slices.ContainsFunc(roles, func(id string) bool { return slices.Contains(a.cfg.Roles, id) })
}

// askRole asks for somebody's roles in a server,
// https://discord.com/developers/docs/resources/guild#get-guild-member. Whoever
// is no member of it has none.
func (a *Adapter) askRole(ctx context.Context, guildID, user string) (bool, error) {
	key := guildID + "/" + user
	if yes, ok := a.roles.known(key, a.now()); ok {
		return yes, nil
	}
	if snowflake(guildID) == 0 {
		return false, nil
	}
	var m member
	route := "/guilds/" + guildID + "/members/"
	perr := a.get(ctx, "reading somebody's roles", route, route+user, &m)
	if perr != nil && (perr.Kind == platform.Retry || perr.Kind == platform.BadCredentials) {
		return false, perr
	}
	yes := perr == nil && a.holds(guildID, m.Roles)
	a.roles.put(key, yes, a.now())
	return yes, nil
}
