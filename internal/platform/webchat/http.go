package webchat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"hermes/internal/domain"
)

// Bounds of what a page may send.
const (
	maxBody     = 1 << 20 // bytes of a message's JSON
	maxClientID = 128
	maxRoom     = 64
	maxLog      = 500
)

// commitTime is how long the ledger may take to commit a message.
const commitTime = 15 * time.Second

// outgoing is a message as a page sends it.
type outgoing struct {
	Text     string `json:"text"`
	ClientID string `json:"client_id"` // the page's own id of the message, the same when it is sent again
	Room     string `json:"room"`
	Button   bool   `json:"button"`
}

// Route is one handler and the http.ServeMux pattern that it is for.
type Route struct {
	Pattern string
	Handler http.Handler
	Endless bool // it answers until the request's context ends
}

// Routes are all handlers of the page.
func (a *Adapter) Routes() []Route {
	return []Route{
		{Pattern: "POST /chat/api/messages", Handler: a.Messages()},
		{Pattern: "GET /chat/api/events", Handler: a.Events(), Endless: true},
		{Pattern: "GET /chat/api/log", Handler: a.History()},
	}
}

// Messages serves POST /chat/api/messages. It answers 202 once the message is
// committed; sending it again with the same client_id changes nothing.
func (a *Adapter) Messages() http.Handler { return http.HandlerFunc(a.postMessage) }

// Events serves GET /chat/api/events: what happens in a room, as server-sent
// events, until the request's context ends.
func (a *Adapter) Events() http.Handler { return http.HandlerFunc(a.getEvents) }

// History serves GET /chat/api/log: the tail of what was said.
func (a *Adapter) History() http.Handler { return http.HandlerFunc(a.getLog) }

func (a *Adapter) postMessage(w http.ResponseWriter, r *http.Request) {
	m, err := readMessage(r.Body)
	if err != nil {
		fail(w, err)
		return
	}
	sink := a.currentSink()
	if sink == nil {
		fail(w, domain.E(domain.Unavailable, nil, "The gateway is not taking messages at the moment. The message was not stored; send it again."))
		return
	}
	now := a.o.Now().UTC()
	// The page may go away now; whether its message was stored must not depend on it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commitTime)
	defer cancel()
	in := domain.Inbound{
		Source: domain.Source{
			Address: domain.Address{Platform: domain.PlatformWebchat, ChatID: m.Room},
			Account: Account, ChatType: domain.ChatDM, ChatName: "Web chat",
			UserID: "owner", UserName: "owner", MessageID: m.ClientID,
		},
		EventID: m.ClientID, Text: m.Text, Button: m.Button, Mentioned: true, SentAt: now, ReceivedAt: now,
	}
	if err := sink.Accept(ctx, Account, []domain.Inbound{in}, ""); err != nil {
		a.o.Logger.Warn("a web chat message could not be stored; the page keeps it and tries again", "error", err)
		fail(w, err)
		return
	}
	a.o.Health.OK()
	a.hub.said(m.Room, said{ClientID: m.ClientID, Text: m.Text, At: now})
	writeJSON(w, http.StatusAccepted, map[string]any{"accepted": true, "client_id": m.ClientID})
}

// readMessage reads and checks a message. domain.Invalid, domain.TooLarge.
func readMessage(body io.Reader) (outgoing, error) {
	raw, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	if err != nil {
		return outgoing{}, domain.E(domain.Invalid, err, "The message could not be read to its end.")
	}
	var m outgoing
	switch {
	case len(raw) > maxBody:
		return m, domain.E(domain.TooLarge, nil, "The message is too long: at most 65,536 characters.")
	case json.Unmarshal(raw, &m) != nil:
		return m, domain.E(domain.Invalid, nil, "The message is not valid JSON.")
	}
	m.Text = strings.ReplaceAll(strings.ToValidUTF8(m.Text, "\uFFFD"), "\x00", "\uFFFD")
	if m.Room == "" {
		m.Room = "main"
	}
	switch {
	case strings.TrimSpace(m.Text) == "":
		return m, domain.E(domain.Invalid, nil, "The message is empty.")
	case utf8.RuneCountInString(m.Text) > maxText:
		return m, domain.E(domain.TooLarge, nil, "The message is too long: at most 65,536 characters.")
	case !isName(m.ClientID, maxClientID):
		return m, domain.E(domain.Invalid, nil, "client_id must be 1 to 128 letters, digits, dots, dashes and underscores.")
	case !isName(m.Room, maxRoom):
		return m, domain.E(domain.Invalid, nil, "room must be 1 to 64 letters, digits, dots, dashes and underscores.")
	}
	return m, nil
}

// isName tells whether s may be an id or a room. A colon would be ambiguous in
// a session key.
func isName(s string, limit int) bool {
	return s != "" && len(s) <= limit && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	})
}

// roomOf reads the room parameter.
func roomOf(r *http.Request) (string, error) {
	name := r.URL.Query().Get("room")
	if name == "" {
		return "main", nil
	}
	if !isName(name, maxRoom) {
		return "", domain.E(domain.Invalid, nil, "room must be 1 to 64 letters, digits, dots, dashes and underscores.")
	}
	return name, nil
}

func (a *Adapter) getLog(w http.ResponseWriter, r *http.Request) {
	name, err := roomOf(r)
	if err != nil {
		fail(w, err)
		return
	}
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil || limit <= 0 {
		limit = 200
	}
	entries, err := a.o.Log.ChatLog(r.Context(), domain.Address{Platform: domain.PlatformWebchat, ChatID: name}, min(limit, maxLog))
	if err != nil {
		a.o.Logger.Warn("the web chat's log could not be read", "error", err)
		fail(w, err)
		return
	}
	if entries == nil {
		writeJSON(w, http.StatusOK, map[string]any{"entries": []any{}})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"entries": entries})
}

func (a *Adapter) getEvents(w http.ResponseWriter, r *http.Request) {
	name, err := roomOf(r)
	if err != nil {
		fail(w, err)
		return
	}
	p, first, ok := a.hub.join(name)
	if !ok {
		fail(w, domain.E(domain.RateLimited, nil, "Too many chat pages are open. Close some."))
		return
	}
	defer a.hub.leave(p)
	for _, c := range a.o.Commands {
		if !c.Unlisted {
			first.Commands = append(first.Commands, command{Name: c.Name, Description: c.Description})
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no")
	// A stream ends with its server's life; its connection is not worth keeping.
	h.Set("Connection", "close")
	w.WriteHeader(http.StatusOK)
	s := &eventWriter{w: w, control: http.NewResponseController(w)}
	if s.write(encode("hello", first)) != nil {
		return
	}
	alive := time.NewTicker(a.o.Keepalive)
	defer alive.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-alive.C:
			if s.comment() != nil {
				return
			}
		case e, open := <-p.events:
			if !open || s.write(e) != nil {
				return
			}
		}
	}
}

// eventWriter writes server-sent events, see
// https://html.spec.whatwg.org/multipage/server-sent-events.html.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	buf     bytes.Buffer
}

func (s *eventWriter) write(e event) error {
	s.buf.Reset()
	s.buf.WriteString("event: " + e.name + "\ndata: ")
	s.buf.Write(e.data)
	s.buf.WriteString("\n\n")
	return s.send()
}

func (s *eventWriter) comment() error {
	s.buf.Reset()
	s.buf.WriteString(": keepalive\n\n")
	return s.send()
}

func (s *eventWriter) send() error {
	// A page that does not read for this long is gone.
	err := s.control.SetWriteDeadline(time.Now().Add(30 * time.Second))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := s.w.Write(s.buf.Bytes()); err != nil {
		return err
	}
	return s.control.Flush()
}

// codeStatus maps what can go wrong to a status.
var codeStatus = map[domain.Code]int{
	domain.Invalid: http.StatusBadRequest, domain.TooLarge: http.StatusRequestEntityTooLarge,
	domain.RateLimited: http.StatusTooManyRequests, domain.Forbidden: http.StatusForbidden,
	domain.Internal: http.StatusInternalServerError,
}

// fail answers with the error's sentence; what passes is 503, and the page
// tries again by itself.
func fail(w http.ResponseWriter, err error) {
	code := domain.CodeOf(err)
	status, ok := codeStatus[code]
	if !ok {
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
	}
	kind := "server_error"
	if status < 500 {
		kind = "invalid_request_error"
	}
	writeJSON(w, status, map[string]any{"error": map[string]any{"message": domain.MessageOf(err), "type": kind, "code": code}})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types always encode
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// The page may be gone; there is nobody to tell.
	_, _ = w.Write(raw)
}
