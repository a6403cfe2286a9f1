package openai

import (
	"errors"
	"net/http"
	"strings"
	"sync"

	"hermes/internal/model"
)

// maxQuirks bounds for how many models quirks are remembered.
const maxQuirks = 64

// quirks are the options that a model of this service refuses.
type quirks struct {
	completionTokens bool // takes max_completion_tokens in place of max_tokens
	noStreamOptions  bool
	noTemperature    bool
	noImages         bool
}

// quirkBook remembers quirks by model, for the life of the client.
type quirkBook struct {
	first quirks // of a model that nothing is known about
	mu    sync.Mutex
	m     map[string]quirks
}

// newQuirkBook makes the book of a service. OpenAI's own newer models refuse
// max_tokens, and everybody else's may not know max_completion_tokens.
func newQuirkBook(host string) *quirkBook {
	return &quirkBook{first: quirks{completionTokens: host == "api.openai.com"}, m: map[string]quirks{}}
}

func (b *quirkBook) of(name string) quirks {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q, ok := b.m[name]; ok {
		return q
	}
	return b.first
}

func (b *quirkBook) set(name string, q quirks) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.m[name]; !ok && len(b.m) >= maxQuirks {
		clear(b.m) // they are learned again at the cost of a refused call
	}
	b.m[name] = q
}

// refusal is what a service said when it refused a request; it is the cause
// of a *model.Error.
type refusal struct {
	param, code, text string // text is scrubbed
}

func (r *refusal) Error() string { return r.text }

// learn gives the quirks with what a refusal taught, and the name of the
// option to leave out; "" when it taught nothing.
func (q quirks) learn(err error, r *model.Request) (quirks, string) {
	e := model.AsError(err)
	var said *refusal
	if !errors.As(e.Cause, &said) || (e.Status != http.StatusBadRequest && e.Status != http.StatusUnprocessableEntity && e.Status != http.StatusNotFound) {
		return q, ""
	}
	names := func(option string) bool {
		return said.param == option || strings.Contains(said.text, option)
	}
	hasImages := false
	for _, m := range r.Messages {
		hasImages = hasImages || len(m.Images) > 0
	}
	switch low := strings.ToLower(said.text); {
	case e.Kind == model.TooLarge:
	case names("stream_options") && !q.noStreamOptions:
		q.noStreamOptions = true
		return q, "stream_options"
	case names("max_completion_tokens") && !q.completionTokens && r.MaxTokens > 0:
		q.completionTokens = true
		return q, "max_tokens"
	case said.param == "max_completion_tokens" && q.completionTokens && r.MaxTokens > 0:
		q.completionTokens = false
		return q, "max_completion_tokens"
	case names("temperature") && !q.noTemperature && r.Temperature != nil:
		q.noTemperature = true
		return q, "temperature"
	case hasImages && !q.noImages && (strings.Contains(low, "image") || strings.Contains(low, "vision") || strings.Contains(low, "multimodal")):
		q.noImages = true
		return q, "images"
	}
	return q, ""
}
