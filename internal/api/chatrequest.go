package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
	"unicode/utf8"

	"hermes/internal/domain"
)

// chatBody is what we read of a chat completion request; everything else is
// the model's business or has no meaning for an agent, and is ignored.
type chatBody struct {
	Model    string            `json:"model"`
	Messages []json.RawMessage `json:"messages"`
	Stream   bool              `json:"stream"`
}

// chatMessage is one element of messages.
type chatMessage struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// contentPart is one element of a content list, in the spelling of chat
// completions or of responses.
type contentPart struct {
	Type     string          `json:"type"`
	Text     string          `json:"text"`
	ImageURL json.RawMessage `json:"image_url"`
}

// readBody reads the request's body within its limit and its deadline.
func readBody(r *http.Request) ([]byte, *apiError) {
	var b bytes.Buffer
	if n := r.ContentLength; n > 0 && n <= 64<<10 {
		b.Grow(int(n) + 1)
	}
	_, err := io.Copy(&b, r.Body)
	var over *http.MaxBytesError
	switch {
	case err == nil:
		return b.Bytes(), nil
	case errors.As(err, &over):
		return nil, tooLarge("body_too_large", "The request body is larger than 10 MB.")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &apiError{status: http.StatusRequestTimeout, kind: "invalid_request_error", code: "request_timeout",
			message: "The request body did not arrive in time."}
	}
	return nil, invalid("", "The request body could not be read to its end.")
}

// parseChat turns a body into a request, or says what is wrong with it.
func parseChat(raw []byte) (*ChatRequest, *apiError) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, invalid("", "Invalid JSON in request body")
	}
	var body chatBody
	if err := json.Unmarshal(fields["messages"], &body.Messages); err != nil || len(body.Messages) == 0 {
		return nil, invalid("messages", "Missing or invalid 'messages' field")
	}
	// A wrong type of these is not worth refusing: the defaults hold.
	_ = json.Unmarshal(fields["model"], &body.Model)
	_ = json.Unmarshal(fields["stream"], &body.Stream)

	c := conversation{}
	for _, m := range body.Messages {
		if e := c.add(m); e != nil {
			return nil, e
		}
	}
	return c.request(body)
}

// conversation collects the messages of a request.
type conversation struct {
	system    []string
	messages  []domain.Message
	firstUser string
	lastUser  int // index in messages + 1
}

func (c *conversation) add(raw json.RawMessage) *apiError {
	var m chatMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		return invalid("messages", "Missing or invalid 'messages' field")
	}
	text, images, e := readContent(m.Content)
	if e != nil {
		return e
	}
	switch m.Role {
	case "system", "developer":
		if text != "" {
			c.system = append(c.system, text)
		}
	case "user":
		if text == "" && len(images) == 0 {
			return nil
		}
		c.messages = append(c.messages, domain.Message{Role: domain.RoleUser, Content: text, Images: images})
		c.lastUser = len(c.messages)
		if c.firstUser == "" {
			c.firstUser = text
		}
	case "assistant":
		// Calls of the client's own tools mean nothing here; what was said does.
		if text != "" {
			c.messages = append(c.messages, domain.Message{Role: domain.RoleAssistant, Content: text})
		}
	}
	return nil
}

// request makes the turn's request: the last user message is the input, what
// stands before it is history.
func (c *conversation) request(body chatBody) (*ChatRequest, *apiError) {
	if c.lastUser == 0 {
		return nil, invalid("messages", "No user message found in messages")
	}
	input := c.messages[c.lastUser-1]
	if utf8.RuneCountInString(input.Content) > maxText {
		return nil, tooLarge("text_too_long", "The last user message is longer than 65,536 characters. Put long text into a file that the agent can read, or send it in parts.")
	}
	req := &ChatRequest{
		System:  strings.Join(c.system, "\n\n"),
		History: c.messages[:c.lastUser-1],
		Input:   input,
		Model:   clip(body.Model, 200),
		Stream:  body.Stream,
	}
	// The same beginning is the same conversation, for clients that name none.
	sum := sha256.Sum256([]byte(req.System + "\n" + c.firstUser))
	req.SessionID = "api-" + hex.EncodeToString(sum[:])[:16]
	return req, nil
}

// readContent reads a content field: null, a string, or a list of parts.
func readContent(raw json.RawMessage) (string, []domain.Attachment, *apiError) {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return "", nil, nil
	}
	var text string
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return "", nil, invalid("messages", "Missing or invalid 'messages' field")
		}
		return clean(text), nil, nil
	}
	var parts []json.RawMessage
	if err := json.Unmarshal(raw, &parts); err != nil {
		return "", nil, invalid("messages", "A message's content must be a string or a list of parts.")
	}
	if len(parts) > maxParts {
		return "", nil, tooLarge("too_many_parts", "A message's content has more than 1,000 parts.")
	}
	var texts []string
	var images []domain.Attachment
	for _, p := range parts {
		t, image, e := readPart(p)
		if e != nil {
			return "", nil, e
		}
		if image.Ref != "" {
			images = append(images, image)
		} else if t != "" {
			texts = append(texts, t)
		}
	}
	return clean(strings.Join(texts, "\n")), images, nil
}

func readPart(raw json.RawMessage) (string, domain.Attachment, *apiError) {
	var none domain.Attachment
	if len(raw) > 0 && raw[0] == '"' {
		var t string
		if err := json.Unmarshal(raw, &t); err != nil {
			return "", none, invalid("messages", "Missing or invalid 'messages' field")
		}
		return t, none, nil
	}
	var p contentPart
	if err := json.Unmarshal(raw, &p); err != nil {
		return "", none, invalid("messages", "A part of a message's content is malformed.")
	}
	switch p.Type {
	case "text", "input_text", "output_text":
		return p.Text, none, nil
	case "image_url", "input_image":
		image, e := readImage(p.ImageURL)
		return "", image, e
	}
	return "", none, invalid("messages", "Content parts of type "+clip(p.Type, 40)+" are not supported. Send text and image_url parts.")
}

// readImage reads {"url": …} or the URL itself. Only the web and data URLs are
// taken: a file URL would read the gateway's own disk.
func readImage(raw json.RawMessage) (domain.Attachment, *apiError) {
	var link struct {
		URL string `json:"url"`
	}
	if len(raw) > 0 && raw[0] == '"' {
		// An error leaves the URL empty, which is refused below.
		_ = json.Unmarshal(raw, &link.URL)
	} else {
		_ = json.Unmarshal(raw, &link)
	}
	image := domain.Attachment{Kind: domain.Image, Ref: link.URL}
	if rest, ok := strings.CutPrefix(link.URL, "data:"); ok {
		header, data, ok := strings.Cut(rest, ",")
		kind, _, err := mime.ParseMediaType(strings.TrimSuffix(header, ";base64"))
		if !ok || err != nil || !strings.HasPrefix(kind, "image/") || !strings.HasSuffix(header, ";base64") {
			return image, invalid("messages", "An image's data URL must look like data:image/png;base64,…")
		}
		image.MIME, image.Size = kind, int64(len(data)/4*3)
		return image, nil
	}
	u, err := url.Parse(link.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return image, invalid("messages", "An image needs an http, https or data URL.")
	}
	return image, nil
}

// clean takes out what no store and no model can hold.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
