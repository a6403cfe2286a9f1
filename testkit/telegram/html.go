package telegram

import (
	"fmt"
	"html"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// tagTypes are the tags of https://core.telegram.org/bots/api#html-style and
// the entities that they make.
var tagTypes = map[string]string{
	"b": "bold", "strong": "bold",
	"i": "italic", "em": "italic",
	"u": "underline", "ins": "underline",
	"s": "strikethrough", "strike": "strikethrough", "del": "strikethrough",
	"tg-spoiler": "spoiler", "span": "spoiler",
	"a": "text_link", "tg-emoji": "custom_emoji",
	"code": "code", "pre": "pre", "blockquote": "blockquote",
}

// openTag is a tag whose end has not come yet.
type openTag struct {
	name   string
	offset int // UTF-16 units of text before it
	entity Entity
}

// parseHTML takes the markup out of a text as Telegram does. The error is the
// rest of the description after "can't parse entities: ".
func parseHTML(s string) (text string, entities []Entity, err error) {
	var out strings.Builder
	var open []openTag
	units := 0
	put := func(t string) {
		out.WriteString(t)
		units += utf16Len(t)
	}
	for i := 0; i < len(s); {
		switch s[i] {
		case '&':
			t, n := reference(s[i:])
			put(t)
			i += n
		case '<':
			end := strings.IndexByte(s[i:], '>')
			if strings.HasPrefix(s[i:], "</") {
				if end < 0 {
					return "", nil, fmt.Errorf("Unclosed end tag at byte offset %d", i)
				}
				name := strings.ToLower(strings.TrimSpace(s[i+2 : i+end]))
				if len(open) == 0 {
					return "", nil, fmt.Errorf("Unexpected end tag at byte offset %d", i)
				}
				last := open[len(open)-1]
				if name != "" && name != last.name {
					return "", nil, fmt.Errorf("Unmatched end tag at byte offset %d, expected \"</%s>\", found \"</%s>\"", i, last.name, name)
				}
				open = open[:len(open)-1]
				if last.entity.Length = units - last.offset; last.entity.Length > 0 && last.entity.Type != "" {
					last.entity.Offset = last.offset
					entities = append(entities, last.entity)
				}
				i += end + 1
				break
			}
			tag, n, err := startTag(s[i:], i, open)
			if err != nil {
				return "", nil, err
			}
			tag.offset = units
			open = append(open, tag)
			i += n
		default:
			next := strings.IndexAny(s[i:], "<&")
			if next < 0 {
				next = len(s) - i
			}
			put(s[i : i+next])
			i += next
		}
	}
	if len(open) > 0 {
		return "", nil, fmt.Errorf("Can't find end tag corresponding to start tag \"%s\"", open[len(open)-1].name)
	}
	slices.SortStableFunc(entities, func(a, b Entity) int {
		if a.Offset != b.Offset {
			return a.Offset - b.Offset
		}
		return b.Length - a.Length
	})
	return out.String(), mergeCode(entities), nil
}

// startTag reads a start tag at the beginning of s, which stands at byte
// offset at, and gives its length.
func startTag(s string, at int, open []openTag) (t openTag, n int, err error) {
	n = 1
	for n < len(s) && s[n] != '>' && s[n] != ' ' && s[n] != '\n' && s[n] != '\t' && s[n] != '/' {
		n++
	}
	t.name = strings.ToLower(s[1:n])
	if n == len(s) {
		return t, 0, fmt.Errorf("Unclosed start tag at byte offset %d", at)
	}
	kind, known := tagTypes[t.name]
	if !known {
		return t, 0, fmt.Errorf("Unsupported start tag \"%s\" at byte offset %d", t.name, at)
	}
	attrs, used, err := attributes(s[n:], at+n)
	if err != nil {
		return t, 0, err
	}
	t.entity.Type = kind
	switch t.name {
	case "span":
		if attrs["class"] != "tg-spoiler" {
			return t, 0, fmt.Errorf("Tag \"span\" must have class \"tg-spoiler\" at byte offset %d", at)
		}
	case "a":
		if t.entity.URL = attrs["href"]; t.entity.URL == "" {
			t.entity.Type = "" // shown as plain text
		}
	case "tg-emoji":
		if attrs["emoji-id"] == "" {
			return t, 0, fmt.Errorf("Tag \"tg-emoji\" must have attribute \"emoji-id\" at byte offset %d", at)
		}
	case "blockquote":
		if _, ok := attrs["expandable"]; ok {
			t.entity.Type = "expandable_blockquote"
		}
	case "code":
		if lang, ok := strings.CutPrefix(attrs["class"], "language-"); ok && len(open) > 0 && open[len(open)-1].name == "pre" {
			t.entity.Language = lang
		}
	}
	return t, n + used, nil
}

// attributes reads up to and with the end of a tag.
func attributes(s string, at int) (map[string]string, int, error) {
	attrs := map[string]string{}
	for i := 0; i < len(s); {
		switch s[i] {
		case '>':
			return attrs, i + 1, nil
		case ' ', '\n', '\t', '/':
			i++
		default:
			j := i
			for j < len(s) && !strings.ContainsRune(" \n\t=>", rune(s[j])) {
				j++
			}
			name := strings.ToLower(s[i:j])
			if j == len(s) || s[j] != '=' {
				attrs[name], i = "", j
				continue
			}
			value, used, ok := attributeValue(s[j+1:])
			if !ok {
				return nil, 0, fmt.Errorf("Unclosed start tag at byte offset %d", at)
			}
			attrs[name] = html.UnescapeString(value)
			i = j + 1 + used
		}
	}
	return nil, 0, fmt.Errorf("Unclosed start tag at byte offset %d", at)
}

func attributeValue(s string) (value string, used int, ok bool) {
	if s == "" {
		return "", 0, false
	}
	if q := s[0]; q == '"' || q == '\'' {
		end := strings.IndexByte(s[1:], q)
		if end < 0 {
			return "", 0, false
		}
		return s[1 : 1+end], end + 2, true
	}
	end := strings.IndexAny(s, " \n\t>")
	if end < 0 {
		return "", 0, false
	}
	return s[:end], end, true
}

// reference reads a character reference; one that Telegram does not know
// stands for itself.
func reference(s string) (text string, n int) {
	for _, r := range []struct{ ref, text string }{{"&lt;", "<"}, {"&gt;", ">"}, {"&amp;", "&"}, {"&quot;", "\""}} {
		if strings.HasPrefix(s, r.ref) {
			return r.text, len(r.ref)
		}
	}
	end := strings.IndexByte(s, ';')
	if !strings.HasPrefix(s, "&#") || end < 3 || end > 10 {
		return "&", 1
	}
	digits, base := s[2:end], 10
	if digits[0] == 'x' || digits[0] == 'X' {
		digits, base = digits[1:], 16
	}
	r, err := strconv.ParseUint(digits, base, 32)
	if err != nil || r == 0 || !utf8.ValidRune(rune(r)) {
		return "&", 1
	}
	return string(rune(r)), end + 1
}

// mergeCode makes one entity of <pre><code class="language-x">.
func mergeCode(in []Entity) []Entity {
	var out []Entity
	for _, e := range in {
		if n := len(out); n > 0 && e.Type == "code" && out[n-1].Type == "pre" && out[n-1].Offset == e.Offset && out[n-1].Length == e.Length {
			out[n-1].Language = e.Language
			continue
		}
		out = append(out, e)
	}
	return out
}

// utf16Len counts UTF-16 code units, in which Telegram measures all text.
func utf16Len(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r > 0xFFFF {
			n++
		}
	}
	return n
}
