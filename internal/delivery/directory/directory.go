// Package directory knows chats by their names, so that "discord:#engineering"
// can stand where an id would. What it knows comes from the platforms' own lists
// (platform.Directory) and from the conversations that were had; it is kept in
// channel_directory.json of the profile, which tools made for the other system
// read too, so that it is there before a connection is, and without a gateway.
package directory

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
)

// Options is what a directory is made of. Seen and List may be nil.
type Options struct {
	Path string // of channel_directory.json
	Now  func() time.Time
	Log  *slog.Logger
	// Seen gives the chats that conversations were had in: whoever may not talk
	// to the bot adds nothing to the directory.
	Seen func(ctx context.Context) ([]domain.Source, error)
	// List asks a platform for its channels. domain.NotFound when it has no list.
	List func(ctx context.Context, p domain.Platform) ([]platform.Channel, error)
	// Capabilities tells what a platform's ids look like.
	Capabilities func(p domain.Platform) (platform.Capabilities, bool)
}

// Entry is one chat, in the form of channel_directory.json.
type Entry struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Title    string `json:"title,omitempty"` // another name that people see
	Space    string `json:"guild,omitempty"` // server, team or workspace
	Type     string `json:"type,omitempty"`  // channel, private, group, dm, thread …
	ThreadID string `json:"thread_id,omitempty"`
}

// Label is the entry as people read it: "Acme/#engineering", "Ann".
func (e Entry) Label() string {
	name := e.Name
	if e.isChannel() {
		name = "#" + name
	}
	if e.Space != "" {
		name = e.Space + "/" + name
	}
	return name
}

func (e Entry) isChannel() bool { return e.Type == "channel" || e.Type == "private" }

// Place is an entry of a platform.
type Place struct {
	To domain.Address
	Entry
}

// Directory is the directory of one profile. Its methods are safe for
// concurrent use. None but Refresh and Run asks a platform.
type Directory struct {
	o    Options
	poke chan struct{}

	mu    sync.Mutex
	lists map[domain.Platform]list
	dirty map[domain.Platform]bool
}

// list is what is known of one platform.
type list struct {
	entries []Entry
	asked   time.Time // when the platform listed them; zero when it never did
	cost    time.Duration
}

// Open reads the file; one that is not there or broken is an empty directory,
// which is logged.
func Open(o Options) *Directory {
	d := &Directory{o: o, poke: make(chan struct{}, 1), lists: map[domain.Platform]list{}, dirty: map[domain.Platform]bool{}}
	if err := d.load(); err != nil {
		o.Log.Warn("the channel directory cannot be read; it is made anew", "component", "directory", "file", o.Path, "err", err)
	}
	return d
}

// Places lists the chats of a platform ("" for all), each once: those that it
// lists by space and name, then those that conversations were had in.
func (d *Directory) Places(ctx context.Context, p domain.Platform) []Place {
	var out []Place
	known := map[domain.Address]bool{}
	add := func(name domain.Platform, e Entry) {
		a := domain.Address{Platform: name, ChatID: e.ID, ThreadID: e.ThreadID}
		if (p == "" || p == name) && e.ID != "" && e.Name != "" && !known[a] {
			known[a] = true
			out = append(out, Place{a, e})
		}
	}
	seen := d.seen(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	row := slices.Sorted(maps.Keys(d.lists))
	for _, name := range row {
		if l := d.lists[name]; !l.asked.IsZero() {
			for _, e := range l.entries {
				add(name, e)
			}
		}
	}
	for _, s := range seen {
		add(s.Platform, seenEntry(s))
	}
	for _, name := range row { // what only the file knows, and may be out of date
		for _, e := range d.lists[name].entries {
			add(name, e)
		}
	}
	return out
}

// seen gives the chats of conversations; a ledger that does not answer hides
// them.
func (d *Directory) seen(ctx context.Context) []domain.Source {
	if d.o.Seen == nil {
		return nil
	}
	list, err := d.o.Seen(ctx)
	if err != nil {
		d.o.Log.Warn("the chats of conversations are not known now", "component", "directory", "err", err)
	}
	return list
}

// seenEntry is the entry of a chat that a conversation was had in.
func seenEntry(s domain.Source) Entry {
	name := s.ChatName
	if s.ChatType == domain.ChatDM && s.UserName != "" {
		name = s.UserName
	}
	return Entry{ID: s.ChatID, ThreadID: s.ThreadID, Name: strings.TrimPrefix(strings.TrimSpace(name), "#"), Type: string(s.ChatType)}
}

// Age tells how long ago a platform listed its channels; ok is false when it
// never did.
func (d *Directory) Age(p domain.Platform) (age time.Duration, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lists[p]
	return d.o.Now().Sub(l.asked), !l.asked.IsZero()
}

// Refresh asks a platform for its channels and keeps them. What is known stays
// when it fails. A platform without a list is no error.
func (d *Directory) Refresh(ctx context.Context, p domain.Platform) error {
	if d.o.List == nil {
		return nil
	}
	began := d.o.Now()
	channels, err := d.o.List(ctx, p)
	if domain.IsCode(err, domain.NotFound) {
		return d.save(ctx) // what conversations are known of
	}
	if err != nil {
		return err
	}
	entries := make([]Entry, 0, len(channels))
	for _, c := range channels[:min(len(channels), platform.MaxChannels)] {
		entries = append(entries, Entry{ID: c.ID, Name: strings.TrimPrefix(c.Name, "#"), Title: c.Title, Space: c.Space, Type: c.Type})
	}
	slices.SortStableFunc(entries, func(x, y Entry) int { return cmp.Or(cmp.Compare(x.Space, y.Space), cmp.Compare(x.Name, y.Name)) })
	d.mu.Lock()
	d.lists[p] = list{entries: entries, asked: d.o.Now(), cost: d.o.Now().Sub(began)}
	d.mu.Unlock()
	return d.save(ctx)
}

// Changed tells that the channels of a platform ("" for all) are not what they were, or that
// it has just been connected: Run asks for them soon. It does not block.
func (d *Directory) Changed(p domain.Platform) {
	d.mu.Lock()
	if p != "" {
		d.dirty[p] = true
	}
	for name := range d.lists {
		d.dirty[name] = d.dirty[name] || p == ""
	}
	d.mu.Unlock()
	select {
	case d.poke <- struct{}{}:
	default:
	}
}

// The pace of Run: changes come in bursts, and a server that changes all day
// must not cost a request for each. A list that took long, such as that of a bot
// on a thousand servers, is asked for the less often.
const (
	settle     = time.Second
	askEvery   = 5 * time.Second
	askShare   = 20 // of the time, one part is spent with asking
	askTimeout = 30 * time.Second
)

// Run asks the platforms for their channels after Changed, until ctx ends.
// Without a change it does nothing.
func (d *Directory) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.poke:
			timer.Reset(settle)
		case <-timer.C:
			if next := d.refreshDirty(ctx); next > 0 {
				timer.Reset(next)
			}
		}
	}
}

// refreshDirty asks the platforms that changed, and tells when to look again; 0
// for not before the next change.
func (d *Directory) refreshDirty(ctx context.Context) (again time.Duration) {
	d.mu.Lock()
	now := d.o.Now()
	var ask []domain.Platform
	for p, dirty := range d.dirty {
		if !dirty {
			continue
		}
		pause := max(askEvery, askShare*d.lists[p].cost)
		if wait := pause - now.Sub(d.lists[p].asked); wait > 0 && wait <= pause {
			if again == 0 || wait < again {
				again = wait
			}
			continue
		}
		delete(d.dirty, p)
		ask = append(ask, p)
	}
	d.mu.Unlock()
	slices.Sort(ask)
	for _, p := range ask {
		one, cancel := context.WithTimeout(ctx, askTimeout)
		if err := d.Refresh(one, p); err != nil && ctx.Err() == nil {
			d.o.Log.Info("the channels could not be listed; the names known before hold", "component", string(p), "err", err)
		}
		cancel()
	}
	return again
}
