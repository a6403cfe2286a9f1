package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/testkit/llm"
)

// A model that never answers ends the check by its deadline, with the address.
func TestCheckModelThatNeverAnswers(t *testing.T) {
	s, err := llm.Start(llm.Always(llm.Reply{Fault: llm.Never}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var out bytes.Buffer
	app := &App{Streams: Streams{Out: &out, Err: &out}, Now: time.Now}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = app.checkModel(ctx, home.ModelConfig{Provider: "custom", Model: "m", BaseURL: s.URL(), APIMode: "chat_completions"})
	if !domain.IsCode(err, domain.Unavailable) || !strings.Contains(err.Error(), "did not answer within") || !strings.Contains(err.Error(), s.URL()) {
		t.Errorf("got %v", err)
	}
	if out.Len() > 0 {
		t.Errorf("printed %q", &out)
	}
}

// A model that repeats its key is not shown with it.
func TestCheckModelHidesTheKey(t *testing.T) {
	const key = "sk-0123456789abcdef"
	s, err := llm.Start(llm.Say("your key is " + key))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var out bytes.Buffer
	app := &App{Streams: Streams{Out: &out, Err: &out}, Now: time.Now}
	err = app.checkModel(t.Context(), home.ModelConfig{Provider: "custom", Model: "m", BaseURL: s.URL(), APIMode: "chat_completions", Key: key})
	if err != nil || strings.Contains(out.String(), key) || !strings.Contains(out.String(), "your key is") {
		t.Errorf("%q, %v", &out, err)
	}
}
