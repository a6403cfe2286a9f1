package transcribe

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hermes/internal/domain"
	"hermes/internal/secret"
	"hermes/testkit/llm"
)

const key = "sk-very-secret-key-0001"

// setUp gives a client of a fake service, and a recording.
func setUp(t *testing.T, cfg Config, ears func(llm.Recording) llm.Heard) (*Client, *llm.Server, string) {
	t.Helper()
	s, err := llm.Start(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.RequireKey(key)
	s.SetEars(ears)
	rt := &http.Transport{}
	t.Cleanup(func() {
		rt.CloseIdleConnections()
		s.Close()
		goleak.VerifyNone(t)
	})
	file := filepath.Join(t.TempDir(), "12-1.oga")
	if err := os.WriteFile(file, []byte("OggS sound"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.BaseURL = s.URL() + "/"
	if cfg.Key == "" {
		cfg.Key = secret.Value(key)
	}
	return New(cfg, rt), s, file
}

func TestARecordingBecomesText(t *testing.T) {
	c, s, file := setUp(t, Config{Language: "de"}, func(llm.Recording) llm.Heard { return llm.Heard{Text: " Guten Tag \n"} })
	text, err := c.Transcribe(t.Context(), file)
	if err != nil || text != "Guten Tag" {
		t.Fatalf("heard %q, %v", text, err)
	}
	r := s.Recordings()
	if len(r) != 1 || r[0].Model != DefaultModel || r[0].Language != "de" || r[0].Name != "speech.ogg" || string(r[0].Data) != "OggS sound" {
		t.Errorf("the service was asked %+v", r)
	}
}

// TestAProbeCostsNothing asks without a recording: a service that is well says
// that one is missing, and a wrong key or address is told apart.
func TestAProbeCostsNothing(t *testing.T) {
	c, s, _ := setUp(t, Config{}, nil)
	if status, err := c.Probe(t.Context()); err != nil || status != http.StatusBadRequest {
		t.Errorf("a service that is well: %d, %v", status, err)
	}
	for _, tt := range []struct {
		what string
		cfg  Config
		want int
	}{
		{"another key", Config{BaseURL: s.URL(), Key: "sk-another"}, http.StatusUnauthorized},
		{"another address", Config{BaseURL: strings.TrimSuffix(s.URL(), "/v1"), Key: key}, http.StatusNotFound},
	} {
		other := New(tt.cfg, &http.Transport{DisableKeepAlives: true})
		if status, err := other.Probe(t.Context()); err != nil || status != tt.want {
			t.Errorf("%s: %d, %v; want %d", tt.what, status, err, tt.want)
		}
	}
	nobody := New(Config{BaseURL: "http://127.0.0.1:1/v1", Key: key}, &http.Transport{DisableKeepAlives: true})
	if _, err := nobody.Probe(t.Context()); !domain.IsCode(err, domain.Unavailable) || strings.Contains(err.Error(), key) {
		t.Errorf("nobody there: %v", err)
	}
	if n := len(s.Recordings()); n > 0 {
		t.Errorf("%d recordings were sent", n)
	}
}

func TestFailuresAreSaidPlainly(t *testing.T) {
	fail := func(status int) *llm.Failure { f := llm.Fail(status); return &f }
	for name, c := range map[string]struct {
		heard llm.Heard
		cfg   Config
		file  string // "" for the recording
		code  domain.Code
		want  string
	}{
		"a fault of the service": {heard: llm.Heard{Failure: fail(500)}, code: domain.Unavailable, want: "has a fault (HTTP 500)"},
		"a proxy's page":         {heard: llm.Heard{Failure: &llm.Failure{Status: 502, HTML: true}}, code: domain.Unavailable, want: "has a fault (HTTP 502)"},
		"busy":                   {heard: llm.Heard{Failure: fail(429)}, code: domain.Unavailable, want: "busy or out of credit"},
		"refused":                {heard: llm.Heard{Failure: fail(400)}, code: domain.Unavailable, want: "refused it (HTTP 400)"},
		"no such model":          {heard: llm.Heard{Failure: fail(404)}, code: domain.Unavailable, want: "stt.model"},
		"too large for it":       {heard: llm.Heard{Failure: fail(413)}, code: domain.TooLarge, want: "no file of that size"},
		"elsewhere": {heard: llm.Heard{Failure: &llm.Failure{Status: 307, Header: map[string]string{"Location": "http://127.0.0.1:1/"}}},
			code: domain.Unavailable, want: "points to another address"},
		"not JSON":          {heard: llm.Heard{Body: "<html>welcome"}, code: domain.Unavailable, want: "no transcript"},
		"JSON without text": {heard: llm.Heard{Body: `{"id":1}`}, code: domain.Unavailable, want: "no transcript"},
		"endless":           {heard: llm.Heard{Body: strings.Repeat("x", maxAnswer+1)}, code: domain.Unavailable, want: "too long"},
		"a wrong key":       {cfg: Config{Key: "sk-some-other-key-0002"}, code: domain.Unavailable, want: "VOICE_TOOLS_OPENAI_KEY"},
		"too large for us":  {cfg: Config{MaxFile: 4}, code: domain.TooLarge, want: "larger than"},
		"no file":           {file: "/nowhere/x.ogg", code: domain.Unavailable, want: "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			cl, s, file := setUp(t, c.cfg, func(llm.Recording) llm.Heard { return c.heard })
			if c.file != "" {
				file = c.file
			}
			text, err := cl.Transcribe(t.Context(), file)
			if text != "" || !domain.IsCode(err, c.code) || !strings.Contains(domain.MessageOf(err), c.want) {
				t.Fatalf("gave %q, %v; want %s and %q", text, err, c.code, c.want)
			}
			all := err.Error()
			if cause := errors.Unwrap(err); cause != nil {
				all += cause.Error()
			}
			if strings.Contains(all, "sk-") {
				t.Errorf("the error shows a key: %s", all)
			}
			if (name == "too large for us") != (len(s.Recordings()) == 0) && c.file == "" {
				t.Errorf("the service was asked %d times", len(s.Recordings()))
			}
		})
	}
}

func TestASilentServiceIsGivenUp(t *testing.T) {
	c, _, file := setUp(t, Config{MaxTime: 50 * time.Millisecond}, func(llm.Recording) llm.Heard {
		return llm.Heard{Before: func(done <-chan struct{}) { <-done }}
	})
	if _, err := c.Transcribe(t.Context(), file); !domain.IsCode(err, domain.Unavailable) || !strings.Contains(err.Error(), "did not answer within") {
		t.Errorf("gave %v", err)
	}
}

func TestNoMoreAtOnceThanAllowed(t *testing.T) {
	arrived, free := make(chan struct{}, 8), make(chan struct{})
	c, s, file := setUp(t, Config{AtOnce: 1}, func(llm.Recording) llm.Heard {
		return llm.Heard{Text: "x", Before: func(<-chan struct{}) { arrived <- struct{}{}; <-free }}
	})
	first := make(chan error, 1)
	go func() { _, err := c.Transcribe(context.Background(), file); first <- err }()
	<-arrived
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Transcribe(ctx, file); !errors.Is(err, context.Canceled) {
		t.Errorf("the second gave %v", err)
	}
	close(free)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if n := len(s.Recordings()); n != 1 {
		t.Errorf("the service was asked %d times", n)
	}
}

func TestALongTranscriptIsCutAtACharacter(t *testing.T) {
	c, _, file := setUp(t, Config{}, func(llm.Recording) llm.Heard { return llm.Heard{Text: "a" + strings.Repeat("ä", maxText)} })
	text, err := c.Transcribe(t.Context(), file)
	if err != nil || len(text) > maxText+100 || !strings.Contains(text, "cut off") || strings.ContainsRune(text, '\uFFFD') {
		t.Errorf("gave %d bytes, %v", len(text), err)
	}
}
