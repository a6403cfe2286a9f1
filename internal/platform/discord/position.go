package discord

import (
	"encoding/json"
	"strconv"
	"time"
)

const (
	maxPositions = 512 // channels whose last message is kept
	// maxIdentifies is how many sessions are begun in a day. Discord resets the
	// token of a bot that begins more than 1,000 in 24 hours
	// (https://discord.com/developers/docs/events/gateway#session-start-limit).
	maxIdentifies = 900
)

// position is the account's cursor: what was committed last, by channel, and
// how many sessions were begun today.
type position struct {
	Seen       string            `json:"seen"` // highest message id that was handled; what is older is not asked for
	Channels   map[string]string `json:"channels,omitempty"`
	Day        string            `json:"day,omitempty"` // of the count, UTC
	Identifies int               `json:"identifies,omitempty"`

	held bool // Seen does not move, since not every server has been looked at
}

// readPosition reads a cursor; what cannot be read begins anew.
func readPosition(cursor string) *position {
	p := &position{}
	if json.Unmarshal([]byte(cursor), p) != nil {
		p = &position{}
	}
	if snowflake(p.Seen) == 0 {
		p.Seen = ""
	}
	for id, last := range p.Channels {
		if snowflake(id) == 0 || snowflake(last) == 0 {
			delete(p.Channels, id)
		}
	}
	if p.Channels == nil {
		p.Channels = map[string]string{}
	}
	p.Identifies = max(p.Identifies, 0)
	for len(p.Channels) > maxPositions {
		p.forget()
	}
	return p
}

func (p *position) String() string {
	b, err := json.Marshal(p)
	if err != nil { // a struct of strings cannot fail
		return ""
	}
	return string(b)
}

// move notes that a channel's messages up to id are handled.
func (p *position) move(channel, id string) {
	if snowflake(channel) == 0 || snowflake(id) == 0 {
		return
	}
	if !p.held && later(id, p.Seen) {
		p.Seen = id
	}
	if !later(id, p.Channels[channel]) {
		return
	}
	if _, known := p.Channels[channel]; !known && len(p.Channels) >= maxPositions {
		p.forget()
	}
	p.Channels[channel] = id
}

// keep holds a channel's position that could not be moved, so that it does not
// pass with the others'.
func (p *position) keep(channel, after string) {
	if p.Channels[channel] == "" {
		p.move(channel, after)
	}
}

// release lets Seen move again, up to what has been handled meanwhile.
func (p *position) release() {
	p.held = false
	for _, last := range p.Channels {
		if later(last, p.Seen) {
			p.Seen = last
		}
	}
}

// forget drops the channel that was quiet for longest.
func (p *position) forget() {
	oldest := ""
	for id, last := range p.Channels {
		if oldest == "" || later(p.Channels[oldest], last) {
			oldest = id
		}
	}
	delete(p.Channels, oldest)
}

// begin counts a session that is about to be begun, or tells how long to wait
// because the day's number is used up.
func (p *position) begin(now time.Time) (wait time.Duration) {
	now = now.UTC()
	if day := now.Format(time.DateOnly); day != p.Day {
		p.Day, p.Identifies = day, 0
	}
	if p.Identifies >= maxIdentifies {
		return now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)
	}
	p.Identifies++
	if p.Seen == "" {
		p.Seen = strconv.FormatUint(snowflakeAt(now), 10) // nothing from before the first start
	}
	return 0
}
