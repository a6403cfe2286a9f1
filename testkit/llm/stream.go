package llm

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"
)

// stream writes one streamed answer. Its write methods tell whether the
// client is still there.
type stream struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	ctx  context.Context
	p    Reply
	req  Request
	head chunk
}

// run writes the whole stream, with the reply's fault.
func (s *stream) run() {
	if s.p.Fault == EndlessKeepalives {
		for s.raw(": still here\n\n") && s.pause(20*time.Millisecond) {
		}
		return
	}
	empty := ""
	if !s.delta(delta{Role: "assistant", Content: &empty}, nil) {
		return
	}
	if s.p.Reasoning != "" && !s.delta(delta{Reasoning: s.p.Reasoning}, nil) {
		return
	}
	if !s.text() || !s.toolCalls() {
		return
	}
	if s.p.Fault == NoEnd {
		return
	}
	finish := s.p.finish()
	if !s.delta(delta{}, &finish) {
		return
	}
	if s.req.StreamOptions != nil && s.req.StreamOptions.IncludeUsage {
		c := s.head
		c.Choices, c.Usage = []chunkChoice{}, s.p.usage(s.req)
		if !s.event(c) {
			return
		}
	}
	if s.p.Fault == NoDone {
		return
	}
	s.raw("data: [DONE]\n\n")
	if s.p.Fault == OpenAfterEnd {
		<-s.ctx.Done()
	}
}

// text writes the content; false ends the stream there.
func (s *stream) text() bool {
	switch s.p.Fault {
	case EmptyContent, EmptyChoices:
		return true
	case Endless, Huge:
		piece := strings.Repeat("all work and no play ", 1000)
		for sent := 0; s.p.Fault == Endless || sent < hugeBytes; sent += len(piece) {
			if !s.delta(delta{Content: &piece}, nil) {
				return false
			}
		}
		return true
	case HugeLine:
		piece := strings.Repeat("all work and no play ", hugeBytes/21)
		return s.delta(delta{Content: &piece}, nil)
	}
	pieces := s.p.Pieces
	if pieces == nil && s.p.Text != "" {
		pieces = words(s.p.Text)
	}
	for i, piece := range pieces {
		if i == (len(pieces)+1)/2 && !s.half() {
			return false
		}
		if s.p.BeforePiece != nil {
			s.p.BeforePiece(s.ctx, i)
		}
		if !s.delta(delta{Content: &piece}, nil) {
			return false
		}
	}
	if len(pieces) < 2 {
		return s.half()
	}
	return true
}

// half does what faults do in the middle of the text; false ends the stream.
func (s *stream) half() bool {
	switch s.p.Fault {
	case CutMidChunk:
		s.raw(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"and th`)
		panic(http.ErrAbortHandler)
	case BadChunk:
		return s.raw("data: {\"id\":\"chatcmpl-1\",\"choices\":[{]}\n\n")
	case ErrorChunk:
		s.raw("data: " + errorEvent + "\n\n")
		return false
	case Stall:
		<-s.ctx.Done()
		return false
	}
	return true
}

// toolCalls writes the tool calls, each split over several deltas.
func (s *stream) toolCalls() bool {
	for i, c := range s.p.ToolCalls {
		index := &i
		switch s.p.Fault {
		case DuplicateIndexes:
			zero := 0
			index = &zero
		case NoIndexes:
			index = nil
		}
		first := wireCall{Index: index, ID: c.ID, Type: "function", Extra: c.Extra}
		if s.p.Fault == NoCallIDs {
			first.ID = ""
		}
		first.Function.Name = c.Name
		if !s.delta(delta{ToolCalls: []wireCall{first}}, nil) {
			return false
		}
		pieces := fragments(c.Arguments, 7)
		if s.p.Fault == HugeArguments {
			pieces = fragments(`{"text":"`+strings.Repeat("x", hugeBytes)+`"}`, 1<<16)
		}
		for _, piece := range pieces {
			next := wireCall{Index: index}
			next.Function.Arguments = piece
			if !s.delta(delta{ToolCalls: []wireCall{next}}, nil) {
				return false
			}
		}
	}
	return true
}

func (s *stream) delta(d delta, finish *string) bool {
	c := s.head
	c.Choices = []chunkChoice{{Delta: d, Finish: finish}}
	if s.p.Fault == EmptyChoices {
		c.Choices = []chunkChoice{}
	}
	return s.event(c)
}

func (s *stream) event(c chunk) bool {
	if s.p.Drip > 0 && !s.pause(s.p.Drip) {
		return false
	}
	if s.p.Keepalive && !s.raw(": keepalive\n\n") {
		return false
	}
	b, err := json.Marshal(c)
	if err != nil {
		return false
	}
	return s.raw("data: " + string(b) + "\n\n")
}

func (s *stream) raw(text string) bool {
	if s.p.CRLF {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	if _, err := io.WriteString(s.w, text); err != nil {
		return false
	}
	return s.rc.Flush() == nil && s.ctx.Err() == nil
}

func (s *stream) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}
