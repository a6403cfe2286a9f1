package offline

import (
	"fmt"
	"regexp"
	"sort"
	"strings"
	"time"

	"hermes/internal/model"
)

// rule is one thing that the stand-in understands. act gets the match and
// gives false when the tool that it needs is not offered.
type rule struct {
	match *regexp.Regexp
	act   func(p *Provider, m []string, o offered) (model.Answer, bool)
}

const (
	whatIAm  = "I am the offline stand-in: a handful of fixed rules, not a language model. I need no key and no network, and I understand next to nothing."
	setModel = "Set a real model with `hermes model`."
)

// maxTail bounds what stands for a summary, in bytes.
const maxTail = 4000

// rules gives them in the order in which they are tried.
func rules() []rule {
	return []rule{
		// Only what is marked as a command is run, never plain prose.
		{re("^run(?::\\s*`?|\\s+`)([^`]+?)`?$"), func(_ *Provider, m []string, o offered) (model.Answer, bool) {
			return o.call("terminal", map[string]any{"command": m[1]})
		}},
		{re(`^(?:read|show|cat)\s+(?:the\s+)?(?:file\s+)?` + "[`\"']?([^`\"']+?)[`\"']?" + `$`), func(_ *Provider, m []string, o offered) (model.Answer, bool) {
			return o.call("read_file", map[string]any{"path": m[1], "file_path": m[1]})
		}},
		{re(`^(?:please\s+)?remember(?:\s+that)?[: ]\s*(.+)$`), func(_ *Provider, m []string, o offered) (model.Answer, bool) {
			return o.call("memory", map[string]any{"action": "add", "target": "memory", "content": m[1]})
		}},
		{re(`^(?:what(?:'s| is)?\s+)?(?:the\s+)?(?:date|time|day)(?:\s+(?:is\s+)?(?:it|today|now|please))*\W*$|^what\s+(?:time|day|date)\s+is\s+it\b.*$`), func(p *Provider, _ []string, o offered) (model.Answer, bool) {
			if a, ok := o.call("terminal", map[string]any{"command": "date"}); ok {
				return a, true
			}
			return model.Answer{Text: "By the clock of this machine it is " + p.now().Format(time.RFC1123Z) + "."}, true
		}},
		{re(`^(?:list|ls|show)\s+(?:the\s+|all\s+|my\s+)?files(?:\s+in\s+(\S+))?\W*$`), func(_ *Provider, m []string, o offered) (model.Answer, bool) {
			dir := "."
			if m[1] != "" {
				dir = m[1]
			}
			if a, ok := o.call("search_files", map[string]any{"pattern": "*", "target": "files", "path": dir}); ok {
				return a, true
			}
			return o.call("terminal", map[string]any{"command": "ls -la -- " + quote(dir)})
		}},
		{re(`^search\s+(?:my\s+|the\s+|past\s+|old\s+)*(?:sessions?|history|conversations?)\s+for\s+(.+?)\W*$`), func(_ *Provider, m []string, o offered) (model.Answer, bool) {
			return o.call("session_search", map[string]any{"query": m[1]})
		}},
		{re(`^(?:fetch|open|get)\s+<?(https?://[^\s>]+)>?\W*$`), func(_ *Provider, m []string, o offered) (model.Answer, bool) {
			for _, name := range []string{"web_fetch", "web_extract"} {
				if a, ok := o.call(name, map[string]any{"url": m[1], "urls": []string{m[1]}}); ok {
					return a, true
				}
			}
			return model.Answer{}, false
		}},
		{re(`^todo(?:\s+add)?[: ]\s*(.+)$`), func(_ *Provider, m []string, o offered) (model.Answer, bool) {
			item := map[string]any{"id": slug(m[1]), "content": m[1], "status": "pending"}
			return o.call("todo", map[string]any{"todos": []any{item}, "merge": true, "action": "add", "content": m[1], "text": m[1]})
		}},
		{re(`\b(?:who|what)\s+are\s+you\b|\bare\s+you\s+(?:an?\s+)?(?:ai|bot|real|human|model|llm|gpt|claude)\b|\bwhat\s+model\b|\bwhich\s+model\b`), func(_ *Provider, _ []string, o offered) (model.Answer, bool) {
			return model.Answer{Text: whatIAm + " " + setModel + "\n\n" + abilities(o)}, true
		}},
		{re(`^(?:/?help|what can you do)\W*$`), func(_ *Provider, _ []string, o offered) (model.Answer, bool) {
			return model.Answer{Text: whatIAm + " " + abilities(o) + " " + setModel}, true
		}},
		{re(`^(?:say|echo|reply with|answer with)[: ]\s*(.+)$`), func(_ *Provider, m []string, _ offered) (model.Answer, bool) {
			return model.Answer{Text: m[1]}, true
		}},
		// The agent asks for this when a history has grown too long.
		{re(`^summari[sz]e this conversation\.?[^\n]*\n(.+)$`), func(_ *Provider, m []string, _ offered) (model.Answer, bool) {
			return model.Answer{Text: "(The offline stand-in cannot summarise; these are the last lines.)\n" + tail(strings.TrimSpace(m[1]), maxTail)}, true
		}},
		{re(`^(?:thanks|thank you|thx)\b.*$`), func(*Provider, []string, offered) (model.Answer, bool) {
			return model.Answer{Text: "You are welcome. (Offline stand-in.)"}, true
		}},
		{re(`^ping\W*$`), func(*Provider, []string, offered) (model.Answer, bool) {
			return model.Answer{Text: "pong (from the offline stand-in)"}, true
		}},
	}
}

func re(pattern string) *regexp.Regexp { return regexp.MustCompile(`(?is)` + pattern) }

// abilities says what can be asked for, given the offered tools.
func abilities(o offered) string {
	var can []string
	for tool, example := range map[string]string{
		"terminal": "`run: ls -la`", "read_file": "`read notes.txt`", "memory": "`remember that …`", "search_files": "`list files`",
		"session_search": "`search sessions for …`", "web_fetch": "`fetch https://…`", "todo": "`todo add …`",
	} {
		if o.has(tool) {
			can = append(can, example)
		}
	}
	sort.Strings(can)
	can = append(can, "`what time is it`", "`say …`")
	return "Try " + strings.Join(can, ", ") + "."
}

// unknown answers what no rule fits. The first time it says what it is at
// length.
func unknown(text string, first bool, o offered) string {
	if text == "" {
		return whatIAm + " " + setModel
	}
	echo := fmt.Sprintf("I got your message (%d characters):\n\n> %s", len([]rune(text)), strings.ReplaceAll(head(text, 300), "\n", "\n> "))
	if first {
		return whatIAm + " " + setModel + "\n\n" + echo + "\n\n" + abilities(o)
	}
	return "(Offline stand-in, not a model.) " + echo + "\n\nI have no rule for it. " + abilities(o) + " " + setModel
}

// quote makes a word for the shell.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// slug makes a short id of a text.
func slug(text string) string {
	words := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	id := strings.Join(words, "-")
	if id == "" {
		return "todo"
	}
	return strings.Trim(id[:min(len(id), 32)], "-")
}
