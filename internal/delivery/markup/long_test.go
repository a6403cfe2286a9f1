package markup

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"hermes/internal/platform"
)

// longText is a document that is parsed in several sections: paragraphs, a
// code block and a line that are each longer than one, and lists, every word
// of it numbered.
func longText() (md string, words int) {
	var b strings.Builder
	word := func(format string) {
		fmt.Fprintf(&b, format, fmt.Sprintf("w%06d", words))
		words++
	}
	for range 800 {
		word("A paragraph with **%s** in it. ")
		word("And `%s`.\n\n")
	}
	b.WriteString("```go\n")
	for i := range 1500 {
		word("\tcall(%s)\n")
		if i%40 == 0 {
			b.WriteString("\n")
		}
	}
	b.WriteString("```\n\n- a list\n")
	for range 300 {
		word("  - *%s*\n")
	}
	b.WriteString("\n")
	for range 6000 {
		word("%s ")
	}
	b.WriteString("\n\n> ~~~\n")
	for range 2000 {
		word("> %s\n")
	}
	b.WriteString("> ~~~\n\nThe end.\n")
	return b.String(), words
}

// TestLongText follows every word of a long document into the parts.
func TestLongText(t *testing.T) {
	md, words := longText()
	pattern := regexp.MustCompile(`w\d{6}`)
	for _, caps := range []platform.Capabilities{telegram, discord, slack, sms, limited(telegram, 150), limited(slack, 150), limited(discord, 150)} {
		checkParts(t, md, caps)
		next, open := 0, ""
		for i, p := range Render(md, caps) {
			for _, w := range pattern.FindAllString(p.Text, -1) {
				if want := fmt.Sprintf("w%06d", next); w != want {
					t.Fatalf("%s part %d has %s where %s should be", caps.Dialect, i, w, want)
				}
				next++
			}
			if caps.Dialect == platform.DialectMarkdown {
				open = unclosed(p.Text)
			}
			code := strings.Contains(p.Text, "call(")
			if open != "" || (code && caps.Dialect == platform.DialectMarkdown && !strings.Contains(p.Text, "```go\n")) ||
				(code && caps.Dialect == platform.DialectTelegramHTML && !strings.Contains(p.Text, "<pre>")) {
				t.Fatalf("%s part %d has code outside a block: %q", caps.Dialect, i, p.Text)
			}
		}
		if next != words {
			t.Errorf("%s: %d of %d words", caps.Dialect, next, words)
		}
	}
}

func TestTailOfALongText(t *testing.T) {
	md, words := longText()
	md = strings.TrimSuffix(md, "> ~~~\n\nThe end.\n")
	p := Tail(md, " ▉", telegram)
	if want := fmt.Sprintf("w%06d ▉", words-1); !strings.Contains(p.Text, want) {
		t.Errorf("the tail ends with %q", p.Text[max(0, len(p.Text)-60):])
	}
	if p := Tail(strings.Repeat("x", 1<<20), "", telegram); Len(p.Text, platform.UTF16) > 4096 || p.Text == "" {
		t.Errorf("a tail of %d units", Len(p.Text, platform.UTF16))
	}
}

// Where rendering fails, the text goes out as it stands, whole and in order.
func TestUnrenderedKeepsEverything(t *testing.T) {
	text := strings.Repeat("**Ünï** `code` 🧑\u200d🚀 <b>\n", 400)
	for _, unit := range []platform.LengthUnit{platform.Runes, platform.UTF16, platform.Bytes} {
		var all strings.Builder
		for _, p := range unrendered(text, minText, unit) {
			if Len(p.Text, unit) > minText || p.Markup || !utf8.ValidString(p.Text) {
				t.Fatalf("unit %v: %+v", unit, p)
			}
			all.WriteString(p.Text)
		}
		if all.String() != strings.TrimSpace(text) {
			t.Errorf("unit %v: the text is not whole", unit)
		}
	}
}
