package terminal

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"hermes/internal/lazyregexp"
)

// Bounds of what one command may say, in bytes.
const (
	keepHead = 10 << 10 // shown to the model
	keepTail = 18 << 10
	keepDisk = 32 << 20 // kept on disk of what is not shown
)

// collector keeps the head and the tail of a stream, and the whole of it on
// disk as soon as it is more than that. It is safe for concurrent use.
type collector struct {
	mu    sync.Mutex
	path  string // where the whole goes
	file  *os.File
	head  []byte
	tail  []byte // a ring of keepTail bytes, written at at
	at    int
	total int64
	lost  bool // the file could not be written, or is full
}

// Write takes all of p; it never fails, so that a command is never stopped by
// what becomes of its output.
func (c *collector) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(p)
	if c.total+int64(n) > keepHead+keepTail && c.file == nil && !c.lost {
		c.spill()
	}
	if c.file != nil && !c.lost {
		if c.total >= keepDisk {
			c.lost = true
		} else if _, err := c.file.Write(p); err != nil {
			c.lost = true
		}
	}
	c.total += int64(n)
	if room := keepHead - len(c.head); room > 0 {
		k := min(room, len(p))
		c.head = append(c.head, p[:k]...)
		p = p[k:]
	}
	if len(p) > keepTail {
		p = p[len(p)-keepTail:]
	}
	for len(p) > 0 {
		if len(c.tail) < keepTail {
			k := min(keepTail-len(c.tail), len(p))
			c.tail = append(c.tail, p[:k]...)
			p = p[k:]
			continue
		}
		k := copy(c.tail[c.at:], p)
		c.at = (c.at + k) % keepTail
		p = p[k:]
	}
	return n, nil
}

// spill begins the file with what was kept so far, which is all there was.
func (c *collector) spill() {
	if c.path == "" {
		c.lost = true
		return
	}
	err := os.MkdirAll(filepath.Dir(c.path), 0o700)
	if err == nil {
		c.file, err = os.OpenFile(c.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	}
	if err == nil {
		_, err = c.file.Write(append(bytes.Clone(c.head), c.tail...))
	}
	c.lost = err != nil
}

// close ends the file. text stays callable.
func (c *collector) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil {
		c.file.Close()
	}
	c.lost = c.lost || c.file == nil
}

// text is what is shown: everything, or head and tail with what lies between
// named.
func (c *collector) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	tail := append(bytes.Clone(c.tail[c.at:]), c.tail[:c.at]...)
	cut := c.total - int64(len(c.head)+len(tail))
	if cut <= 0 {
		return legible(append(bytes.Clone(c.head), tail...))
	}
	where := ""
	if c.file != nil {
		where = "; the output is in " + c.path
		if c.total > keepDisk {
			where += fmt.Sprintf(" up to %d MiB", keepDisk>>20)
		}
	}
	return legible(c.head) + fmt.Sprintf("\n[… %d bytes left out%s …]\n", cut, where) + legible(tail)
}

// escapes are the sequences that terminals interpret (ECMA-48 CSI, OSC).
var escapes = lazyregexp.New(`\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\-_])`)

// legible makes output into text that can be shown: valid, without escapes, a
// line that rewrites itself reduced to its last state.
func legible(b []byte) string {
	s := escapes.ReplaceAllString(strings.ToValidUTF8(string(b), "\uFFFD"), "")
	s = strings.ReplaceAll(s, "\r\n", "\n")
	if strings.Contains(s, "\r") {
		lines := strings.Split(s, "\n")
		for i, l := range lines {
			l = strings.TrimRight(l, "\r")
			lines[i] = l[strings.LastIndexByte(l, '\r')+1:]
		}
		s = strings.Join(lines, "\n")
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, s)
}
