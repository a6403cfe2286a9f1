package directory

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/home"
)

// maxNear bounds how many names an error offers.
const maxNear = 5

// Find gives the chat that text names on a platform ("" for any): "#engineering",
// "Acme/#engineering", "Team", and behind any of them ":<thread>". found is false
// and err nil when text is an id and not a name. domain.NotFound when nothing is
// called so, with the names that are near; domain.Conflict when several are, with
// what tells them apart.
func (d *Directory) Find(ctx context.Context, p domain.Platform, text string) (a domain.Address, found bool, err error) {
	text = strings.TrimSpace(text)
	if text == "" || isNumber(text) {
		return a, false, nil
	}
	places := d.Places(ctx, p)
	if slices.ContainsFunc(places, func(e Place) bool { return e.To.ChatID == text }) {
		return a, false, nil
	}
	a, found, err = pick(places, text)
	if found || err != nil {
		return a, found, err
	}
	if name, thread, ok := cutLast(text, ":"); ok {
		if a, found, err = pick(places, name); found || err != nil {
			a.ThreadID = thread
			return a, found, err
		}
	}
	if !d.isName(p, text) {
		return a, false, nil
	}
	d.Changed(p)
	return a, false, unknown(places, p, text)
}

// pick finds the one place of that name. What a platform lists comes before what
// conversations are known of, whose names people give themselves.
func pick(places []Place, text string) (domain.Address, bool, error) {
	want := fold(text)
	onlyChannels := strings.HasPrefix(text, "#")
	for _, dm := range []bool{false, true} {
		if dm && onlyChannels {
			break
		}
		var hits []Place
		for _, e := range places {
			if (e.Type == string(domain.ChatDM)) == dm && e.called(want) {
				hits = append(hits, e)
			}
		}
		hits = withoutThreads(hits)
		if len(hits) == 1 {
			return hits[0].To, true, nil
		}
		if len(hits) > 1 {
			return domain.Address{}, false, domain.E(domain.Conflict, nil, "%q names %d chats: %s. Write the one that you mean", text, len(hits), labels(hits))
		}
	}
	return domain.Address{}, false, nil
}

// withoutThreads leaves out the threads of chats that are there themselves: on
// most platforms a thread has no name but its chat's.
func withoutThreads(hits []Place) []Place {
	return slices.DeleteFunc(slices.Clone(hits), func(e Place) bool {
		chat := e.To
		chat.ThreadID = ""
		return e.To.ThreadID != "" && slices.ContainsFunc(hits, func(o Place) bool { return o.To == chat })
	})
}

// called tells whether a folded name is one of the entry's.
func (e Entry) called(want string) bool {
	for _, name := range []string{e.Name, e.Title} {
		if name == "" {
			continue
		}
		if fold(name) == want || e.Space != "" && fold(e.Space+"/"+name) == want {
			return true
		}
	}
	return false
}

// fold makes names comparable: case and "#" do not count.
func fold(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	return strings.ReplaceAll(strings.TrimPrefix(name, "#"), "/#", "/")
}

// isName tells a name from an id that is not known. Where ids may be words
// ("#room:example.org"), everything is taken for one.
func (d *Directory) isName(p domain.Platform, text string) bool {
	marked := strings.HasPrefix(text, "#") || strings.Contains(text, " ") || strings.Contains(text, "/#")
	if d.o.Capabilities == nil || p == "" {
		return marked
	}
	caps, ok := d.o.Capabilities(p)
	if !ok {
		return marked
	}
	return caps.DigitIDs && (marked || !strings.ContainsAny(text, "0123456789@"))
}

// isNumber tells whether text can only be an id.
func isNumber(text string) bool {
	return strings.Trim(text, "-0123456789:") == ""
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i <= 0 || i == len(s)-1 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// unknown says that nothing is called so, and what is.
func unknown(places []Place, p domain.Platform, text string) error {
	where := string(p)
	if p == "" {
		where = "no platform"
	}
	var near []Place
	want, names := fold(text), map[string]Place{}
	for _, e := range places {
		name := fold(e.Name)
		if _, ok := names[name]; !ok {
			names[name] = e
		}
		if len(near) < maxNear && (strings.Contains(name, want) || len(name) > 2 && strings.Contains(want, name)) {
			near = append(near, e)
		}
	}
	known := make([]string, 0, len(names))
	for n := range names {
		known = append(known, n)
	}
	slices.Sort(known)
	if n := home.Nearest(want, known); n != "" && len(near) < maxNear && !slices.Contains(near, names[n]) {
		near = append([]Place{names[n]}, near...)
	}
	knows := where + " knows no chat"
	if p == "" {
		knows = where + " knows a chat"
	}
	hint := "`hermes send --list` shows those that are known"
	if len(near) > 0 {
		hint = "is it " + labels(near) + "? " + hint
	}
	return domain.E(domain.NotFound, nil, "%s named %q; %s", knows, text, hint)
}

// labels lists places, each with the target that means it and no other.
func labels(list []Place) string {
	var b strings.Builder
	for i, e := range list {
		switch {
		case i == maxNear:
			fmt.Fprintf(&b, " and %d more", len(list)-i)
			return b.String()
		case i > 0 && i == len(list)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s (%s)", e.Label(), e.To)
	}
	return b.String()
}
