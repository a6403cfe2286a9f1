package cli

import (
	"context"
	"time"

	"hermes/internal/domain"
	"hermes/internal/model/openai"
	"hermes/internal/model/transcribe"
)

// speechLimit is how long the transcription service may take to answer.
const speechLimit = 15 * time.Second

// proveSpeech asks the service that transcribes voice messages, where one is set,
// whether it would. It is asked for by nobody, so that a service that does not
// answer is told of and hinders nothing.
func (w *wizard) proveSpeech(ctx context.Context) error {
	cfg, err := w.config()
	if err != nil || !cfg.STT.IsSet() || w.f.noCheck {
		return err
	}
	transport := openai.NewTransport()
	defer transport.CloseIdleConnections()
	asked, cancel := context.WithTimeout(ctx, speechLimit)
	defer cancel()
	s := cfg.STT
	c := transcribe.New(transcribe.Config{BaseURL: s.BaseURL, Key: s.Key, Model: s.Model}, transport)
	err = c.Check(asked)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		wrap(w.Err, "✗ ", "Voice messages will come without their words: "+domain.MessageOf(err)+".")
		return nil
	}
	wrap(w.Out, "✓ ", "Voice messages are written down by "+c.Where()+".")
	return nil
}
