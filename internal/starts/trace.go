package starts

import (
	"strings"

	"hermes/internal/lazyregexp"
)

// owners maps packages to the part that they make up. Longer prefixes stand
// first. Only parts that a gateway can do without are here: nothing is gained by
// a suspicion against the ledger.
var owners = []struct{ pkg, part string }{
	{"hermes/internal/platform/webchat", "api"},
	{"hermes/internal/platform/", "platform."}, // and the name that follows
	{"hermes/internal/api", "api"},
	{"hermes/internal/dashboard", "api"},
	{"hermes/internal/cron", "cron"},
	{"github.com/bwmarrin/discordgo", "platform.discord"},
	{"github.com/go-telegram/bot", "platform.telegram"},
	{"github.com/slack-go/slack", "platform.slack"},
	{"github.com/emersion/go-imap", "platform.email"},
	{"github.com/emersion/go-message", "platform.email"},
	{"github.com/wneessen/go-mail", "platform.email"},
}

var frame = lazyregexp.New(`(?m)^(?:created by )?((?:hermes/internal|[a-z0-9.-]+\.[a-z]+)/[^\s(]+)`)

// Trace is what a dump of the runtime tells.
type Trace struct {
	Reason string // its first line
	Part   string // that the crashing goroutine worked for, "" when none is named
	Asked  bool   // somebody sent a signal that asks for a dump
}

// ReadTrace reads the dump of a crash, as debug.SetCrashOutput leaves it: the
// reason, then the goroutine that crashed, then the others.
func ReadTrace(dump string) Trace {
	t := Trace{}
	if dump == "" {
		return t
	}
	// Of a fatal error, unlike of a panic, the runtime leaves the stacks alone.
	head, rest, _ := strings.Cut("\n"+dump, "\ngoroutine ")
	if strings.TrimSpace(head) == "" {
		t.Reason = "fatal error of the runtime"
	}
	for line := range strings.SplitSeq(head, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			t.Reason = line
			break
		}
	}
	t.Asked = strings.HasPrefix(t.Reason, "SIGQUIT")
	if strings.HasPrefix(t.Reason, "SIG") {
		return t // the goroutine that got a signal is anybody's
	}
	stack, _, _ := strings.Cut(rest, "\n\n")
	for _, m := range frame.FindAllStringSubmatch(stack, -1) {
		if t.Part = ownerOf(m[1]); t.Part != "" {
			return t
		}
	}
	return t
}

// ownerOf gives the part that a function belongs to.
func ownerOf(function string) string {
	for _, o := range owners {
		rest, ok := strings.CutPrefix(function, o.pkg)
		if !ok {
			continue
		}
		if !strings.HasSuffix(o.part, ".") {
			return o.part
		}
		if name := strings.FieldsFunc(rest, func(r rune) bool { return r == '.' || r == '/' }); len(name) > 0 {
			return o.part + name[0]
		}
	}
	return ""
}
