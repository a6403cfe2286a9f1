// Package agent is what a test asks of the machine that it boots, and how that
// machine answers: commands, one long-running process (the gateway), files, the
// clock, sleep. The orders travel as JSON over HTTP through a link.Link.
package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Port is where the agent listens on the machine's loopback.
const Port = 1

// Home is where the machine's disk is mounted.
const Home = "/home"

// Command is a program to run. Args[0] is its path.
type Command struct {
	Args []string      `json:"args"`
	Env  []string      `json:"env"` // beside a bare environment
	Most time.Duration `json:"most"`
}

// Result is how a command ended, or how the gateway stands.
type Result struct {
	Output  string `json:"output"`
	Code    int    `json:"code"`
	Running bool   `json:"running"`
}

// Clock says what to do with the machine's clock. Zero fields change nothing.
type Clock struct {
	Set  time.Time     `json:"set"`  // settimeofday(2)
	Step time.Duration `json:"step"` // the same, from what it shows
	Tick int64         `json:"tick"` // microseconds by which it moves in 10 ms, 10,000 by default; adjtimex(2), ADJ_TICK
}

// Times are what the clocks show.
type Times struct {
	Wall time.Time     `json:"wall"`
	Mono time.Duration `json:"mono"` // CLOCK_MONOTONIC: stands still in a suspend
	Boot time.Duration `json:"boot"` // CLOCK_BOOTTIME: does not
}

// Client asks the agent of a machine.
type Client struct{ http *http.Client }

// NewClient makes a client that reaches the agent by dial.
func NewClient(dial func(ctx context.Context) (net.Conn, error)) *Client {
	return &Client{&http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}}}
}

// call asks for one thing; in may be nil, a reader, or what is sent as JSON.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	switch in := in.(type) {
	case nil:
	case io.Reader:
		body = in
	default:
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://machine"+path, body)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("the machine does not answer: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s: %w", strings.TrimSpace(string(text)), errNotFound)
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("the machine refuses %s: %s", path, strings.TrimSpace(string(text)))
	}
	switch out := out.(type) {
	case nil:
		return nil
	case *[]byte:
		*out = text
		return nil
	}
	return json.Unmarshal(text, out)
}

var errNotFound = errors.New("no such file on the machine")

// NotFound tells whether File found none.
func NotFound(err error) bool { return errors.Is(err, errNotFound) }

// Run runs a command to its end.
func (c *Client) Run(ctx context.Context, cmd Command) (r Result, err error) {
	return r, c.call(ctx, http.MethodPost, "/run", cmd, &r)
}

// Start starts the gateway.
func (c *Client) Start(ctx context.Context, cmd Command) error {
	return c.call(ctx, http.MethodPost, "/gateway", cmd, nil)
}

// Gateway tells how it stands and what it printed.
func (c *Client) Gateway(ctx context.Context) (r Result, err error) {
	return r, c.call(ctx, http.MethodGet, "/gateway", nil, &r)
}

// Stop sends it SIGTERM and waits for its end.
func (c *Client) Stop(ctx context.Context) (r Result, err error) {
	return r, c.call(ctx, http.MethodDelete, "/gateway", nil, &r)
}

// Clock changes the clock and tells what the clocks show after that.
func (c *Client) Clock(ctx context.Context, change Clock) (t Times, err error) {
	return t, c.call(ctx, http.MethodPost, "/clock", change, &t)
}

// Sleep suspends the machine: "mem" or "freeze", as in /sys/power/state. It
// returns before the machine sleeps.
func (c *Client) Sleep(ctx context.Context, state string) error {
	return c.call(ctx, http.MethodPost, "/sleep", state, nil)
}

// File reads a file.
func (c *Client) File(ctx context.Context, path string) (text []byte, err error) {
	return text, c.call(ctx, http.MethodGet, "/file?path="+url.QueryEscape(path), nil, &text)
}

// Write writes a file, and returns once it is on the disk where sync is set.
func (c *Client) Write(ctx context.Context, path string, text []byte, sync bool) error {
	return c.call(ctx, http.MethodPut, fmt.Sprintf("/file?path=%s&sync=%t", url.QueryEscape(path), sync), bytes.NewReader(text), nil)
}
