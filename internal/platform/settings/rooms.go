package settings

import (
	"regexp"
	"slices"
)

// Rooms says what is heard where several people talk, and how it is shown that it
// was. Direct messages are not bound by the first five.
type Rooms struct {
	Allowed         []string         // the only rooms that are heard; empty: any
	Free            []string         // rooms where no mention is needed
	IgnoredThreads  []string         // threads that are not heard, by id, or room:thread
	RequireMention  bool             // only what is addressed to the account is heard
	MentionPatterns []*regexp.Regexp // text that counts as a mention

	Reactions bool // a message that is being worked on is marked
	NoTyping  bool // it is not shown that an answer is being written
}

// Ignores tells whether a thread of a room is not heard; "" is none.
func (r Rooms) Ignores(room, thread string) bool {
	return thread != "" && (slices.Contains(r.IgnoredThreads, thread) || slices.Contains(r.IgnoredThreads, room+":"+thread))
}

// Addressed tells whether a text counts as a mention by what it says.
func (r Rooms) Addressed(text string) bool {
	return slices.ContainsFunc(r.MentionPatterns, func(p *regexp.Regexp) bool { return p.MatchString(text) })
}
