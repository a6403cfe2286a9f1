package openai

import (
	"bytes"
	"errors"
	"io"
)

const (
	firstBuffer = 1 << 9  // of a stream; grows with its longest event
	maxEvent    = 2 << 20 // bytes of one event
)

// events reads server-sent events and gives their data; names, ids and
// comments are passed over. Lines may end in LF, CRLF or CR.
//
// Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
type events struct {
	r          io.Reader
	buf        []byte
	start, end int  // of what was read and not yet used
	skipLF     bool // the line before ended in CR
	eof        bool
	data       []byte // of the event so far
	hasData    bool
}

func newEvents(r io.Reader) *events { return &events{r: r, buf: make([]byte, firstBuffer)} }

// next gives the data of the next event, valid until the next call. At a clean
// end it gives io.EOF; an event that the end cut off before its blank line is
// given first, since some servers leave the blank line out. An event over
// maxEvent gives errTooLong.
func (e *events) next() ([]byte, error) {
	e.data, e.hasData = e.data[:0], false
	for {
		line, err := e.line()
		if err != nil {
			if errors.Is(err, io.EOF) && e.hasData {
				return e.data, nil
			}
			return nil, err
		}
		if len(line) == 0 {
			if e.hasData {
				return e.data, nil
			}
			continue
		}
		value, ok := dataField(line)
		if !ok {
			continue
		}
		if e.hasData {
			e.data = append(e.data, '\n')
		}
		if len(e.data)+len(value) > maxEvent {
			return nil, errTooLong
		}
		e.data, e.hasData = append(e.data, value...), true
	}
}

// dataField gives the value of a data line.
func dataField(line []byte) ([]byte, bool) {
	if bytes.Equal(line, []byte("data")) {
		return nil, true
	}
	value, ok := bytes.CutPrefix(line, []byte("data:"))
	if !ok {
		return nil, false
	}
	return bytes.TrimPrefix(value, []byte(" ")), true
}

// line gives the next line without its end, valid until the next call. What
// stands after the last line end counts as a line.
func (e *events) line() ([]byte, error) {
	searched := 0
	for {
		if e.skipLF && e.start < e.end {
			e.skipLF = false
			if e.buf[e.start] == '\n' {
				e.start++
			}
		}
		have := e.buf[e.start:e.end]
		if i := bytes.IndexAny(have[searched:], "\r\n"); i >= 0 {
			i += searched
			e.skipLF = have[i] == '\r'
			e.start += i + 1
			return have[:i], nil
		}
		searched = len(have)
		if e.eof {
			if len(have) == 0 {
				return nil, io.EOF
			}
			e.start = e.end
			return have, nil
		}
		if err := e.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads more, making room first.
func (e *events) fill() error {
	if e.start > 0 {
		e.end = copy(e.buf, e.buf[e.start:e.end])
		e.start = 0
	}
	if e.end == len(e.buf) {
		if len(e.buf) >= maxEvent {
			return errTooLong
		}
		e.buf = append(e.buf, make([]byte, len(e.buf))...)
	}
	n, err := e.r.Read(e.buf[e.end:])
	e.end += n
	if err == io.EOF {
		e.eof = true
		return nil
	}
	return err
}
