package secret

import (
	"bytes"
	"io"
	"sync"
)

// Writer redacts what passes through it, line by line: it holds back an
// unfinished line, so that a secret that two writes cut in half is seen whole.
// A line over 64 KiB is passed on in pieces. It is safe for concurrent use.
type Writer struct {
	mu   sync.Mutex
	r    *Redactor
	next io.Writer
	held []byte
}

// Writer gives a redacting writer in front of next. Call Flush at the end.
func (r *Redactor) Writer(next io.Writer) *Writer { return &Writer{r: r, next: next} }

// Write takes all of p, or gives the error of the writer behind.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = append(w.held, p...)
	end := bytes.LastIndexByte(w.held, '\n') + 1
	if end == 0 && len(w.held) > maxHeld {
		end = len(w.held)
	}
	if end == 0 {
		return len(p), nil
	}
	_, err := io.WriteString(w.next, w.r.Redact(string(w.held[:end])))
	w.held = append(w.held[:0], w.held[end:]...)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush writes out an unfinished last line.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.held) == 0 {
		return nil
	}
	_, err := io.WriteString(w.next, w.r.Redact(string(w.held)))
	w.held = w.held[:0]
	return err
}
