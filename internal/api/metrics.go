package api

import (
	"bytes"
	"fmt"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"hermes/internal/health"
)

// counters is what /metrics counts. The text format is written by hand: the
// client library with its collectors costs three megabytes of binary and its
// own share of idle memory, for one page of text. See
// https://prometheus.io/docs/instrumenting/exposition_formats/.
type counters struct {
	turns, failed, active, gone                                 atomic.Int64
	panics, refusedKey, refusedPeer, refusedOrigin, refusedBusy atomic.Int64

	mu       sync.Mutex
	requests map[requestClass]int64 // bounded: routes and status codes are few
}

type requestClass struct {
	pattern string
	status  int
}

// request counts an answered request.
func (c *counters) request(pattern string, status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.requests == nil {
		c.requests = map[requestClass]int64{}
	}
	c.requests[requestClass{pattern, status}]++
}

// getMetrics serves GET /metrics.
func (s *Server) getMetrics(w http.ResponseWriter, r *http.Request) {
	var b bytes.Buffer
	c := &s.counts
	gauge(&b, "hermes_up", "gauge", "The gateway answers.", 1)
	gauge(&b, "hermes_start_time_seconds", "gauge", "When the API server was made, in unix seconds.", s.since.Unix())
	gauge(&b, "hermes_api_connections", "gauge", "Open connections.", int64(s.conns.count()))
	gauge(&b, "hermes_api_turns_active", "gauge", "Chat completions in progress.", c.active.Load())
	gauge(&b, "hermes_api_turns_total", "counter", "Chat completions begun.", c.turns.Load())
	gauge(&b, "hermes_api_turns_failed_total", "counter", "Chat completions that failed.", c.failed.Load())
	gauge(&b, "hermes_api_turns_abandoned_total", "counter", "Chat completions whose client went away.", c.gone.Load())
	gauge(&b, "hermes_api_panics_total", "counter", "Requests whose handler panicked.", c.panics.Load())
	head(&b, "hermes_api_refused_total", "counter", "Requests that were refused, by reason.")
	for _, l := range []struct {
		reason string
		n      int64
	}{{"key", c.refusedKey.Load()}, {"peer", c.refusedPeer.Load()}, {"origin", c.refusedOrigin.Load()}, {"busy", c.refusedBusy.Load()}} {
		fmt.Fprintf(&b, "hermes_api_refused_total{reason=%q} %d\n", l.reason, l.n)
	}
	c.writeRequests(&b)
	if st, err := s.o.Gateway.Status(r.Context()); err == nil {
		writeStatus(&b, st)
	}
	writeBody(w, http.StatusOK, "text/plain; version=0.0.4; charset=utf-8", b.Bytes())
}

func head(b *bytes.Buffer, name, kind, help string) {
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func gauge(b *bytes.Buffer, name, kind, help string, v int64) {
	head(b, name, kind, help)
	b.WriteString(name + " " + strconv.FormatInt(v, 10) + "\n")
}

func (c *counters) writeRequests(b *bytes.Buffer) {
	c.mu.Lock()
	lines := make([]string, 0, len(c.requests))
	for k, n := range c.requests {
		lines = append(lines, fmt.Sprintf("hermes_api_requests_total{route=\"%s\",status=\"%d\"} %d\n", escapeLabel(k.pattern), k.status, n))
	}
	c.mu.Unlock()
	sort.Strings(lines)
	head(b, "hermes_api_requests_total", "counter", "Answered requests by route and status.")
	b.WriteString(strings.Join(lines, ""))
}

// writeStatus exposes the parts and what waits.
func writeStatus(b *bytes.Buffer, st Status) {
	head(b, "hermes_part_up", "gauge", "1 when the part works, by part.")
	for _, p := range st.Parts {
		up := 0
		if p.State == health.OK {
			up = 1
		}
		fmt.Fprintf(b, "hermes_part_up{part=\"%s\",state=\"%s\"} %d\n", escapeLabel(p.Name), escapeLabel(string(p.State)), up)
	}
	gauge(b, "hermes_turns_running", "gauge", "Running turns.", int64(st.Active))
	gauge(b, "hermes_ledger_bytes", "gauge", "Size of the ledger on disk.", st.Ledger.Bytes)
	head(b, "hermes_queue_depth", "gauge", "What waits, by queue.")
	q := st.Queues
	for _, l := range []struct {
		queue string
		n     int64
	}{{"inbound", q.Inbound}, {"turns", q.Turns}, {"waiting", q.Waiting}, {"deliveries", q.Deliveries}, {"retrying", q.Retrying}, {"dead", q.Dead}} {
		fmt.Fprintf(b, "hermes_queue_depth{queue=%q} %d\n", l.queue, l.n)
	}
}

func escapeLabel(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s)
}
