package home

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"hermes/internal/domain"
)

// nobody is a list that matches no chat; an empty one would match every one.
var nobody = []string{"(unreadable)"}

// Stricter gives the configuration good, narrowed by what stands on disk, which
// is not served because it does not work: whom the gateway hears, what it may do
// and where it listens come from whichever of the two is stricter, so that
// going back never opens anything. What of the disk cannot be read could be
// stricter than anything; what it governs is off, and untold says so in
// sentences. Everything else is good's. unreadable says that the files on disk
// could not be read at all.
func Stricter(p Profile, good *Config, goodFiles, disk Files, unreadable bool, process []string) (strict *Config, untold []string) {
	other, lost := readable(p, goodFiles, disk, process)
	if unreadable {
		lost.all = true
	}
	return Narrow(good, other, lost.governs)
}

// Narrow is the pure part of Stricter: good, narrowed by other. lost tells of a
// part of the configuration ("platform.NAME", "api", "approvals", "tools",
// "terminal", "security", "commands") whether other may hold more about it than
// could be read.
func Narrow(good, other *Config, lost func(part string) bool) (*Config, []string) {
	n := &narrowing{out: *good, other: other, lost: lost}
	n.platforms(good)
	n.api()
	n.rest()
	return &n.out, n.untold
}

type narrowing struct {
	out    Config
	other  *Config
	lost   func(string) bool
	untold []string
}

func (n *narrowing) say(format string, args ...any) {
	n.untold = append(n.untold, fmt.Sprintf(format, args...))
}

// platforms narrows who is heard. What holds for every platform is put into
// each, since only there two unions can be intersected.
func (n *narrowing) platforms(good *Config) {
	n.out.Platforms = map[domain.Platform]PlatformConfig{}
	n.out.Access = AccessConfig{}
	for _, name := range slices.Sorted(maps.Keys(good.Platforms)) {
		mine, theirs := good.Platforms[name], n.other.Platforms[name]
		deaf := n.lost("platform." + string(name))
		switch {
		case name == domain.PlatformWebchat: // which comes with the API
		case theirs.Disabled || !deaf && !theirs.Enabled:
			mine.Enabled = false
		case deaf:
			n.say("%s sends, but hears only who was paired: its settings on disk cannot be read", name)
			mine = deafened(mine)
		default:
			mine = n.platform(name, mine, theirs, good.Access)
		}
		n.out.Platforms[name] = mine
	}
}

// deafened is a platform that admits nobody by its lists.
func deafened(p PlatformConfig) PlatformConfig {
	p.AllowedUsers, p.GroupUsers, p.GroupChats, p.MentionPatterns = nil, nil, nil, nil
	p.AllowAll, p.PairDMs, p.RequireMention = false, false, true
	p.AllowedChats = nobody
	p.Extra = maps.Clone(p.Extra)
	for name := range p.Extra {
		if rule, known := extraRules[name]; known && rule != ours {
			delete(p.Extra, name)
		}
	}
	return p
}

func (n *narrowing) platform(name domain.Platform, a, b PlatformConfig, all AccessConfig) PlatformConfig {
	users := admitted(a.AllowedUsers, a.AllowAll, all).and(admitted(b.AllowedUsers, b.AllowAll, n.other.Access))
	group := admitted(slices.Concat(a.AllowedUsers, a.GroupUsers), a.AllowAll, all).and(
		admitted(slices.Concat(b.AllowedUsers, b.GroupUsers), b.AllowAll, n.other.Access))
	a.AllowedUsers, a.AllowAll = users.list, users.all
	a.GroupUsers = group.list
	if group.all && !users.all {
		a.GroupUsers = []string{"*"}
	}
	a.GroupChats = admitted(a.GroupChats, false, AccessConfig{}).and(admitted(b.GroupChats, false, AccessConfig{})).words()
	a.AllowedChats = bothLimits(a.AllowedChats, b.AllowedChats)
	a.RequireMention = a.RequireMention || b.RequireMention
	a.PairDMs = a.PairDMs && b.PairDMs
	a.MentionPatterns = common(a.MentionPatterns, b.MentionPatterns)
	a.IgnoredThreads = slices.Compact(slices.Sorted(slices.Values(slices.Concat(a.IgnoredThreads, b.IgnoredThreads))))
	a.Extra = maps.Clone(a.Extra)
	for _, key := range slices.Sorted(maps.Keys(merged(a.Extra, b.Extra))) {
		mine, theirs := a.Extra[key], b.Extra[key]
		if mine == theirs {
			continue
		}
		switch extraRules[key] {
		case ours:
			continue
		case dropped:
			delete(a.Extra, key)
		case shared:
			a.Extra[key] = strings.Join(common(commaList(mine), commaList(theirs)), ",")
		case joined:
			a.Extra[key] = strings.Join(slices.Concat(commaList(mine), commaList(theirs)), ",")
		case unknown:
			n.say("%s is off: it cannot be told whether %s is stricter on disk", name, key)
			a.Enabled = false
		}
	}
	return a
}

// extraRule says how two values of one of a platform's extra settings meet.
type extraRule int

const (
	unknown extraRule = iota // it may open something: where they differ the platform is off
	ours                     // it opens nothing, or it is a typed setting's twin
	dropped                  // without it less is open
	shared                   // a list that opens: what both hold
	joined                   // a list that closes: what either holds
)

var extraRules = map[string]extraRule{
	"base_url": ours, "url": ours, "homeserver": ours, "proxy": ours, "user_id": ours, "device_id": ours, "encryption": ours,
	"allowed_users": ours, "allow_all_users": ours, "group_allowed_users": ours, "group_allowed_chats": ours, "allowed_chats": ours,
	"allowed_channels": ours, "allowed_rooms": ours, "require_mention": ours, "mention_patterns": ours, "ignored_threads": ours,
	"reactions": ours, "reply_to_mode": ours, "reply_mode": ours, "cron_thread_id": ours, "home_channel": ours, "home_channel_name": ours,
	"home_channel_thread_id": ours, "home_room": ours, "home_address": ours, "auto_thread": ours, "no_thread_channels": ours,
	"catch_up": ours, "callback_url": ours, "command_sync_policy": ours, "max_attachment_bytes": ours, "session_scope": ours, "poll_interval": ours,
	"imap_host": ours, "imap_port": ours, "smtp_host": ours, "smtp_port": ours, "address": ours, "password": ours, "app_token": ours,
	"typing_indicator":       ours,
	"allow_bots":             dropped,
	"free_response_channels": shared, "free_response_chats": shared, "allowed_roles": shared,
	"ignored_channels": joined,
}

// set is a set of names, or everybody.
type set struct {
	all  bool
	list []string
}

func admitted(list []string, all bool, a AccessConfig) set {
	list = slices.Concat(list, a.AllowedUsers)
	return set{all: all || a.AllowAll || slices.Contains(list, "*"), list: list}
}

func (s set) and(o set) set {
	switch {
	case s.all && o.all:
		return set{all: true}
	case s.all:
		return set{list: o.list}
	case o.all:
		return set{list: s.list}
	}
	return set{list: common(s.list, o.list)}
}

func (s set) words() []string {
	if s.all {
		return []string{"*"}
	}
	return s.list
}

// common is what both lists hold.
func common(a, b []string) []string {
	var out []string
	for _, v := range a {
		if slices.Contains(b, v) && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// bothLimits are the chats that two limits allow, of which an empty one is none.
func bothLimits(a, b []string) []string {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	if both := common(a, b); len(both) > 0 {
		return both
	}
	return nobody
}

func merged(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, b)
	return out
}

func commaList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' })
}

// api narrows where the API listens and who may call it.
func (n *narrowing) api() {
	a, b := &n.out.API, n.other.API
	off := func(why string) {
		if a.Enabled {
			n.say("the API is off: %s", why)
		}
		a.Enabled = false
	}
	switch {
	case n.lost("api"):
		off("its settings on disk cannot be read")
	case !b.Enabled:
		a.Enabled = false
	case a.Key.IsSet() && b.Key.IsSet() && a.Key.Reveal() != b.Key.Reveal():
		off("its key on disk is another one, and neither opens less than the other")
	case !a.Key.IsSet():
		a.Key = b.Key
	}
	if a.Host != b.Host && !isLoopback(a.Host) {
		a.Host = "127.0.0.1"
		if isLoopback(b.Host) {
			a.Host = b.Host
		}
	}
	a.CORSOrigins = common(a.CORSOrigins, b.CORSOrigins)
	if !a.Enabled {
		delete(n.out.Platforms, domain.PlatformWebchat)
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// rest narrows what the agent may do.
func (n *narrowing) rest() {
	a, b := &n.out, n.other
	rank := func(order []string, x, y string) string { // the one that stands first is stricter
		i, j := slices.Index(order, x), slices.Index(order, y)
		if i < 0 || j < 0 {
			return order[0]
		}
		return order[min(i, j)]
	}
	a.Approvals.Mode = rank([]string{"manual", "smart", "off"}, a.Approvals.Mode, b.Approvals.Mode)
	a.Approvals.CronMode = rank([]string{"deny", "approve"}, a.Approvals.CronMode, b.Approvals.CronMode)
	a.Approvals.Allowlist = common(a.Approvals.Allowlist, b.Approvals.Allowlist)
	if n.lost("approvals") {
		a.Approvals.Mode, a.Approvals.CronMode, a.Approvals.Allowlist = "manual", "deny", nil
		n.say("every dangerous command is asked about, and denied in jobs: the approvals on disk cannot be read")
	}
	a.AllowPrivateURLs = a.AllowPrivateURLs && b.AllowPrivateURLs && !n.lost("security")
	if n.lost("terminal") || a.Terminal.Backend != b.Terminal.Backend && a.Terminal.Backend != "local" && b.Terminal.Backend != "local" {
		a.Terminal.Backend = "unreadable"
		n.say("the terminal is off: where commands run on disk cannot be read or is another place")
	} else if a.Terminal.Backend == "local" {
		a.Terminal.Backend = b.Terminal.Backend
	}
	if n.lost("commands") {
		a.QuickCommands = nil
	}
	a.QuickCommands = maps.Clone(a.QuickCommands)
	maps.DeleteFunc(a.QuickCommands, func(name string, c QuickCommand) bool { return b.QuickCommands[name] != c })
	n.tools()
}

// noTools names no toolset, so that none is chosen; an empty list means all.
var noTools = []string{"(none)"}

// tools narrows the toolsets of every platform that either names.
func (n *narrowing) tools() {
	a, b := &n.out, n.other
	names := map[string]bool{}
	for name := range a.PlatformToolsets {
		names[name] = true
	}
	for name := range b.PlatformToolsets {
		names[name] = true
	}
	chosen := func(c *Config, name string) []string {
		if list := c.PlatformToolsets[name]; len(list) > 0 {
			return list
		}
		return c.Toolsets
	}
	each := make(map[string][]string, len(names))
	for name := range names {
		each[name] = bothToolsets(chosen(a, name), chosen(b, name))
	}
	general := bothToolsets(a.Toolsets, b.Toolsets)
	if n.lost("tools") {
		general, each = noTools, nil
		n.say("there are no tools: which are allowed cannot be read on disk")
	}
	a.Toolsets, a.PlatformToolsets = general, each
}

func bothToolsets(a, b []string) []string {
	everything := func(list []string) bool {
		return len(list) == 0 || slices.ContainsFunc(list, func(s string) bool { return s == "all" || strings.HasPrefix(s, "hermes-") })
	}
	switch {
	case everything(a):
		return b
	case everything(b):
		return a
	}
	if both := common(a, b); len(both) > 0 {
		return both
	}
	return noTools
}
