package logging

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// consoleLines bounds the lines that wait for a slow stderr.
	consoleLines = 4096
	// consoleWait bounds how long close waits for a stderr that is stuck.
	consoleWait = time.Second
)

// console writes to stderr from a goroutine of its own: a terminal that is
// halted by Ctrl-S, or a pipe that nobody reads, must not hold up the program.
// Lines that find no room are dropped and counted.
type console struct {
	next  io.Writer
	lines chan string
	done  chan struct{}

	mu      sync.Mutex
	closed  bool
	dropped int
}

func newConsole(next io.Writer) *console {
	c := &console{next: next, lines: make(chan string, consoleLines), done: make(chan struct{})}
	go c.run()
	return c
}

func (c *console) run() {
	defer close(c.done)
	for line := range c.lines {
		_, _ = io.WriteString(c.next, line)
	}
}

func (c *console) write(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	if c.dropped > 0 {
		select {
		case c.lines <- fmt.Sprintf("logging: %d lines were dropped here, because nobody read them\n", c.dropped):
			c.dropped = 0
		default:
		}
	}
	select {
	case c.lines <- line:
	default:
		c.dropped++
	}
}

// close waits until the lines are written, or until stderr is seen to be stuck.
func (c *console) close() {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.lines)
	}
	c.mu.Unlock()
	select {
	case <-c.done:
	case <-time.After(consoleWait):
	}
}
