// Package transcribe turns recorded speech into text at a service with OpenAI's
// endpoint for it, POST /audio/transcriptions.
//
// Source: https://platform.openai.com/docs/api-reference/audio/createTranscription
package transcribe

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"hermes/internal/domain"
	"hermes/internal/model"
	"hermes/internal/plain"
	"hermes/internal/secret"
)

// What holds where Config says nothing.
const (
	DefaultBaseURL = "https://api.openai.com/v1"
	DefaultModel   = "whisper-1"
	MaxFile        = 25 << 20 // bytes; the service's own limit
	MaxTime        = 90 * time.Second
	MaxAtOnce      = 4
)

const (
	maxAnswer = 1 << 20  // bytes of a response that are read
	maxText   = 32 << 10 // bytes of a transcript that are kept
	maxQuote  = 200      // bytes of the service's words in an error
)

// Config says where and how to transcribe. Zero values take the defaults above.
type Config struct {
	BaseURL  string // as a provider's: the part before /audio/transcriptions
	Key      secret.Value
	Model    string
	Language string // ISO 639-1, such as "de"; "" lets the service find out
	MaxFile  int64  // bytes
	MaxTime  time.Duration
	AtOnce   int // requests in flight; others wait, within MaxTime
}

// Client transcribes files. It is safe for concurrent use.
type Client struct {
	cfg   Config
	url   string
	where string // the service in messages
	http  *http.Client
	slots chan struct{}
}

// New makes a client over a transport. It connects to nothing yet.
func New(cfg Config, rt http.RoundTripper) *Client {
	cfg.BaseURL = strings.TrimRight(cmp.Or(cfg.BaseURL, DefaultBaseURL), "/")
	cfg.Model = cmp.Or(cfg.Model, DefaultModel)
	cfg.MaxFile, cfg.MaxTime, cfg.AtOnce = cmp.Or(cfg.MaxFile, MaxFile), cmp.Or(cfg.MaxTime, MaxTime), cmp.Or(cfg.AtOnce, MaxAtOnce)
	c := &Client{cfg: cfg, url: cfg.BaseURL + "/audio/transcriptions", where: "the transcription service", slots: make(chan struct{}, cfg.AtOnce)}
	if u, err := url.Parse(c.url); err == nil && u.Host != "" {
		c.where += " at " + u.Host
	}
	c.http = &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // a recording and a key go nowhere but where the operator said
	}}
	return c
}

// Transcribe gives the words of a sound file, "" where none are heard. Its
// errors are for people and hold no secret: domain.TooLarge for a file over the
// limit, domain.Unavailable for everything else but ctx's own end.
func (c *Client) Transcribe(ctx context.Context, path string) (string, error) {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, c.cfg.MaxTime)
	defer cancel()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return "", c.ended(caller, ctx.Err())
	}
	text, err := c.try(ctx, path)
	if err != nil && ctx.Err() != nil {
		return "", c.ended(caller, err)
	}
	return text, err
}

// Probe asks for a transcription of nothing, which costs nothing: a service that
// would take a recording refuses it as incomplete (HTTP 400, 415 or 422). It gives
// the status of the answer, or an error, for people and without secrets, when
// there is none.
func (c *Client) Probe(ctx context.Context) (status int, err error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if err := errors.Join(w.WriteField("model", c.cfg.Model), w.Close()); err != nil {
		return 0, domain.E(domain.Internal, err, "the request for a transcription cannot be built")
	}
	req, err := c.request(ctx, &b, int64(b.Len()), w.FormDataContentType())
	if err != nil {
		return 0, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, domain.E(domain.Unavailable, c.scrubbed(err), "%s cannot be reached", c.where)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	return resp.StatusCode, nil
}

// Check says what is wrong with the service, as far as Probe can find out: nil
// where it would take a recording. domain.Unavailable.
func (c *Client) Check(ctx context.Context) error {
	switch status, err := c.Probe(ctx); {
	case err != nil:
		return err
	case status == http.StatusMethodNotAllowed:
		return c.refusal(http.StatusNotFound, nil)
	case status >= 300 && status < 400, status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusNotFound, status >= 500:
		return c.refusal(status, nil)
	}
	return nil
}

// Where is the service in messages.
func (c *Client) Where() string { return c.where }

// request is one to the service.
func (c *Client) request(ctx context.Context, body io.Reader, size int64, kind string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, body)
	if err != nil {
		return nil, domain.E(domain.Unavailable, c.scrubbed(err), "stt.base_url is no address that can be asked")
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Accept", "application/json")
	if c.cfg.Key.IsSet() {
		req.Header.Set("Authorization", "Bearer "+c.cfg.Key.Reveal())
	}
	return req, nil
}

// ended tells the caller's own end from that of the time limit.
func (c *Client) ended(caller context.Context, err error) error {
	if caller.Err() != nil {
		return caller.Err()
	}
	return domain.E(domain.Unavailable, c.scrubbed(err), "%s did not answer within %s", c.where, c.cfg.MaxTime)
}

func (c *Client) try(ctx context.Context, path string) (string, error) {
	f, err := plain.Open(path)
	if err != nil {
		return "", domain.E(domain.Unavailable, err, "the recording cannot be read")
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return "", domain.E(domain.Unavailable, err, "the recording cannot be read")
	case st.Size() > c.cfg.MaxFile:
		return "", domain.E(domain.TooLarge, nil, "it is larger than the %d MB that may be transcribed", c.cfg.MaxFile>>20)
	}
	head, tail, kind, err := c.form(path)
	if err != nil {
		return "", domain.E(domain.Unavailable, err, "the request for a transcription cannot be built")
	}
	body := io.MultiReader(bytes.NewReader(head), io.LimitReader(f, st.Size()), bytes.NewReader(tail))
	req, err := c.request(ctx, body, int64(len(head))+st.Size()+int64(len(tail)), kind)
	if err != nil {
		return "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", domain.E(domain.Unavailable, c.scrubbed(err), "%s cannot be reached", c.where)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if resp.StatusCode != http.StatusOK {
		return "", c.refusal(resp.StatusCode, answer)
	}
	if err != nil || len(answer) > maxAnswer {
		return "", domain.E(domain.Unavailable, c.scrubbed(err), "the answer of %s broke off or is too long", c.where)
	}
	var said struct {
		Text *string `json:"text"`
	}
	if json.Unmarshal(answer, &said) != nil || said.Text == nil {
		return "", domain.E(domain.Unavailable, nil, "%s answered with something that is no transcript; see whether stt.base_url is the right address", c.where)
	}
	return cut(strings.TrimSpace(*said.Text)), nil
}

// form gives what stands before and after the file in the multipart body, and
// the body's content type.
func (c *Client) form(path string) (head, tail []byte, kind string, err error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	fields := [][2]string{{"model", c.cfg.Model}, {"response_format", "json"}}
	if c.cfg.Language != "" {
		fields = append(fields, [2]string{"language", c.cfg.Language})
	}
	for _, f := range fields {
		err = errors.Join(err, w.WriteField(f[0], f[1]))
	}
	_, ferr := w.CreateFormFile("file", "speech"+extension(path))
	at := b.Len()
	err = errors.Join(err, ferr, w.Close())
	return b.Bytes()[:at], b.Bytes()[at:], w.FormDataContentType(), err
}

// extension is by what the service tells the format. Ogg has names that not
// every server knows.
func extension(path string) string {
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".oga", ".opus", ".bin", "":
		return ".ogg"
	default:
		return ext
	}
}

// refusal says what a status means and what to do.
func (c *Client) refusal(status int, body []byte) error {
	var said struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	var cause error
	if json.Unmarshal(body, &said) == nil && said.Error.Message != "" {
		cause = errors.New(c.scrub(said.Error.Message))
	}
	what := fmt.Sprintf("refused it (HTTP %d)", status)
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		what = "does not accept the key; check VOICE_TOOLS_OPENAI_KEY"
	case status == http.StatusNotFound:
		what = "knows no such address or model; check stt.base_url and stt.model"
	case status == http.StatusRequestEntityTooLarge:
		return domain.E(domain.TooLarge, cause, "%s takes no file of that size", c.where)
	case status == http.StatusTooManyRequests:
		what = "is busy or out of credit (HTTP 429)"
	case status >= 500:
		what = fmt.Sprintf("has a fault (HTTP %d)", status)
	case status >= 300 && status < 400:
		what = fmt.Sprintf("points to another address (HTTP %d); set stt.base_url to that one", status)
	}
	return domain.E(domain.Unavailable, cause, "%s %s", c.where, what)
}

func (c *Client) scrub(text string) string {
	return model.Scrub(text, maxQuote, c.cfg.Key.Reveal())
}

func (c *Client) scrubbed(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(c.scrub(err.Error()))
}

// cut bounds a transcript, at a whole character.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxText {
		return s
	}
	s = s[:maxText]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + " … [the rest of the transcript was cut off]"
}
