package openai

import (
	"strings"

	"hermes/internal/model"
)

const (
	thinkOpen  = "<think>"
	thinkClose = "</think>"
)

// thinking takes apart what local servers send as one text: reasoning between
// <think> tags at the very start, then the answer. Tags anywhere else are
// text like any other.
type thinking struct {
	state thinkState
	hold  string // what may be the beginning of a tag, and is not given yet
}

type thinkState int

const (
	thinkStart thinkState = iota // nothing but white space came
	thinkInside
	thinkAfter // the tag is closed; the answer has not begun
	thinkText
)

// split takes a piece of text and gives what is known of it by now.
func (t *thinking) split(text string) (d model.Delta) {
	if t.state == thinkText {
		return model.Delta{Text: text}
	}
	text, t.hold = t.hold+text, ""
	if t.state == thinkStart {
		trimmed := strings.TrimLeft(text, " \t\r\n")
		switch {
		case strings.HasPrefix(trimmed, thinkOpen):
			t.state, text = thinkInside, trimmed[len(thinkOpen):]
		case strings.HasPrefix(thinkOpen, trimmed) && len(text) < 256:
			t.hold = text
			return d
		default:
			t.state = thinkText
			return model.Delta{Text: text}
		}
	}
	if t.state == thinkInside {
		before, after, closed := strings.Cut(text, thinkClose)
		if !closed {
			n := partial(text, thinkClose)
			d.Reasoning, t.hold = text[:len(text)-n], text[len(text)-n:]
			return d
		}
		d.Reasoning, text, t.state = before, after, thinkAfter
	}
	if d.Text = strings.TrimLeft(text, " \t\r\n"); d.Text != "" {
		t.state = thinkText
	}
	return d
}

// end gives what was held back when nothing more comes.
func (t *thinking) end() (d model.Delta) {
	if t.state == thinkInside {
		d.Reasoning = t.hold
	} else {
		d.Text = t.hold
	}
	t.hold, t.state = "", thinkText
	return d
}

// partial tells how many bytes at the end of text may begin the tag.
func partial(text, tag string) int {
	for n := min(len(tag)-1, len(text)); n > 0; n-- {
		if strings.HasSuffix(text, tag[:n]) {
			return n
		}
	}
	return 0
}
