package delivery

import (
	"slices"
	"strings"

	"hermes/internal/lazyregexp"
)

// commandWord is what may be a command in a text: a slash and a word, where one
// can begin.
var commandWord = lazyregexp.New("(^|[\\s(`])/([a-z][a-z0-9_-]*)")

// typed writes the commands of a text of ours as people type them on a platform
// whose clients keep what begins with a slash to themselves. Code blocks, and
// words that are no command of ours, stay as they are.
func typed(text string, names []string, sign string) string {
	if sign == "" || sign == "/" || len(names) == 0 {
		return text
	}
	pieces := strings.Split(text, "```")
	for i := 0; i < len(pieces); i += 2 { // every second one is code
		pieces[i] = typedIn(pieces[i], names, sign)
	}
	return strings.Join(pieces, "```")
}

func typedIn(text string, names []string, sign string) string {
	var b strings.Builder
	end := 0
	for _, at := range commandWord.FindAllStringSubmatchIndex(text, -1) {
		slash, after := at[4]-1, at[5]
		if !slices.Contains(names, text[at[4]:after]) || after < len(text) && text[after] == '/' {
			continue
		}
		b.WriteString(text[end:slash])
		b.WriteString(sign)
		end = slash + 1
	}
	b.WriteString(text[end:])
	return b.String()
}
