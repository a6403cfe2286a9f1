package webchat

import (
	"encoding/json"
	"sync"
	"time"

	"hermes/internal/domain"
)

// Bounds of what the hub holds. Whatever falls out of them is in the ledger.
const (
	maxRooms   = 64
	maxPages   = 128 // open event streams, all rooms
	pageBuffer = 256 // events that a slow page may lag behind
	maxRecent  = 64  // messages of a room that a new page is told again
	recentFor  = 2 * time.Minute
	maxLive    = 256 << 10 // bytes of a streamed answer that a new page is told
	maxTools   = 200       // tool calls of a turn that a new page is told
)

// delivered is a message as a page is told of it.
type delivered struct {
	ID   string      `json:"id"`
	Part domain.Part `json:"part"`
	At   time.Time   `json:"at"`
}

// said is a user's message that was accepted, for the other pages of the room.
type said struct {
	ClientID string    `json:"client_id"`
	Text     string    `json:"text"`
	At       time.Time `json:"at"`
}

// toolCall is a tool call of the running turn.
type toolCall struct {
	CallID string `json:"call_id"`
	Tool   string `json:"tool"`
	Label  string `json:"label,omitempty"`
	State  string `json:"state"` // running, done, failed
}

// liveTurn is the running turn as a page that comes later needs it.
type liveTurn struct {
	ID      int64      `json:"id"`
	Text    string     `json:"text"`
	Tools   []toolCall `json:"tools"`
	Waiting bool       `json:"waiting,omitempty"`

	text []byte // what Text will be
}

// hello is the first event of a stream: where the room stands.
type hello struct {
	Room string    `json:"room"`
	Turn *liveTurn `json:"turn"`
	// Recent are messages that the log may not show as sent yet.
	Recent   []delivered `json:"recent"`
	Commands []command   `json:"commands,omitempty"`
}

// command is a slash command that the page offers.
type command struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

// event is one server-sent event, encoded once for all pages.
type event struct {
	name string
	data []byte
}

func encode(name string, v any) event {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types always encode
	}
	return event{name, data}
}

// page is one open event stream. Its channel is closed by the hub when the
// page lags too far behind; it then connects again and starts from the log.
type page struct {
	room   string
	events chan event
}

// room is what is known of a room beyond the ledger.
type room struct {
	turn   *liveTurn
	recent []delivered
	pages  map[*page]struct{}
	used   time.Time
}

// hub knows the rooms and their pages.
type hub struct {
	now func() time.Time

	mu    sync.Mutex
	rooms map[string]*room
	pages int
}

// room gives the named room, making place for it. The lock is held.
func (h *hub) room(name string) *room {
	r := h.rooms[name]
	if r == nil {
		if len(h.rooms) >= maxRooms {
			h.forget()
		}
		r = &room{pages: map[*page]struct{}{}}
		h.rooms[name] = r
	}
	r.used = h.now()
	return r
}

// forget drops the room that was used longest ago, one that nobody looks at
// where there is one.
func (h *hub) forget() {
	var oldest string
	var found *room
	for name, r := range h.rooms {
		better := found == nil || len(r.pages) == 0 && len(found.pages) > 0 ||
			(len(r.pages) == 0) == (len(found.pages) == 0) && r.used.Before(found.used)
		if better {
			oldest, found = name, r
		}
	}
	for p := range found.pages {
		h.cut(found, p)
	}
	delete(h.rooms, oldest)
}

// join opens a stream on a room; ok is false when there are too many.
func (h *hub) join(name string) (p *page, first hello, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pages >= maxPages {
		return nil, hello{}, false
	}
	r := h.room(name)
	p = &page{room: name, events: make(chan event, pageBuffer)}
	r.pages[p] = struct{}{}
	h.pages++
	first = hello{Room: name, Recent: []delivered{}}
	if r.turn != nil {
		t := r.turn
		first.Turn = &liveTurn{ID: t.ID, Text: string(t.text), Tools: append([]toolCall{}, t.Tools...), Waiting: t.Waiting}
	}
	limit := h.now().Add(-recentFor)
	for _, d := range r.recent {
		if d.At.After(limit) {
			first.Recent = append(first.Recent, d)
		}
	}
	return p, first, true
}

// leave closes a stream.
func (h *hub) leave(p *page) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.rooms[p.room]; r != nil {
		h.cut(r, p)
	}
}

// cut takes a page out of its room. The lock is held.
func (h *hub) cut(r *room, p *page) {
	if _, in := r.pages[p]; in {
		delete(r.pages, p)
		h.pages--
		close(p.events)
	}
}

// tell gives an event to every page of a room. The lock is held.
func (h *hub) tell(r *room, e event) {
	for p := range r.pages {
		select {
		case p.events <- e:
		default:
			h.cut(r, p)
		}
	}
}

// deliver tells of a message, once for each id.
func (h *hub) deliver(name string, d delivered) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.room(name)
	for _, known := range r.recent {
		if known.ID == d.ID {
			return
		}
	}
	if len(r.recent) >= maxRecent {
		r.recent = append(r.recent[:0], r.recent[1:]...)
	}
	r.recent = append(r.recent, d)
	h.tell(r, encode("message", d))
}

// said tells the room's pages of an accepted message.
func (h *hub) said(name string, s said) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tell(h.room(name), encode("said", s))
}

// turn tells of a turn's event and keeps where the turn stands.
func (h *hub) turn(name string, e domain.TurnEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.room(name)
	if e.Kind == domain.EventEnded {
		if r.turn != nil && r.turn.ID == e.TurnID {
			r.turn = nil
		}
	} else {
		if r.turn == nil || r.turn.ID != e.TurnID {
			r.turn = &liveTurn{ID: e.TurnID, Tools: []toolCall{}}
		}
		r.turn.apply(e)
	}
	h.tell(r, encode("turn", e))
}

// apply keeps what a page that comes later must know of an event.
func (t *liveTurn) apply(e domain.TurnEvent) {
	switch e.Kind {
	case domain.EventStarted:
		t.Waiting = false
	case domain.EventDelta:
		if len(t.text)+len(e.Text) <= maxLive {
			t.text = append(t.text, e.Text...)
		}
	case domain.EventAnswerReset:
		t.text = t.text[:0]
	case domain.EventWaiting:
		t.Waiting = true
	case domain.EventToolStarted:
		if len(t.Tools) < maxTools {
			t.Tools = append(t.Tools, toolCall{CallID: e.CallID, Tool: e.Tool, Label: e.Label, State: "running"})
		}
	case domain.EventToolFinished:
		for i := range t.Tools {
			if t.Tools[i].CallID == e.CallID {
				t.Tools[i].State = "done"
				if e.Failed {
					t.Tools[i].State = "failed"
				}
			}
		}
	}
}
