package doctor

import (
	"cmp"
	"context"
	"fmt"
	"net/http"

	"hermes/internal/domain"
	"hermes/internal/model/openai"
	"hermes/internal/model/transcribe"
)

// speechProbe is how the transcription service answered a question that costs
// nothing.
type speechProbe struct {
	Asked   bool
	Address string
	Status  int
	Err     error // it could not be reached
}

// askSpeech asks the service for a transcription of nothing.
func askSpeech(ctx context.Context, c *Case) func(*Case) {
	s := c.Config.STT
	if !s.IsSet() {
		return func(*Case) {}
	}
	transport := openai.NewTransport()
	defer transport.CloseIdleConnections()
	p := speechProbe{Asked: true, Address: cmp.Or(s.BaseURL, transcribe.DefaultBaseURL)}
	p.Status, p.Err = transcribe.New(transcribe.Config{BaseURL: s.BaseURL, Key: s.Key, Model: s.Model}, transport).Probe(ctx)
	return func(c *Case) { c.Speech = p }
}

// checkSpeech says why voice messages come without their words.
func checkSpeech(c *Case) []Finding {
	p := c.Speech
	if !p.Asked {
		return nil
	}
	f := Finding{Class: Provider, Severity: Warning, depth: ofSetting, about: "speech", Means: "Voice messages reach the agent as files, without their words.",
		Evidence: []string{fmt.Sprintf("%s/audio/transcriptions answered %d", p.Address, p.Status)}}
	f.Fix = c.then(c.hermes("config set " + c.speechPlace("STT_OPENAI_BASE_URL", "stt.base_url", true) + " <address>"))
	switch {
	case p.Err != nil:
		f.ID, f.What = "provider.speech_unreachable", "the transcription service could not be reached from here"
		f.Evidence = []string{p.Address + ": " + c.redact(domain.MessageOf(p.Err))}
	case p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden:
		f.ID, f.What = "provider.speech_key_refused", "the transcription service refuses the key"
		if !c.Config.STT.Key.IsSet() {
			f.ID, f.What = "provider.speech_key_missing", "the transcription service asks for a key, and none is set"
		}
		f.Fix = c.then(c.hermes("config set " + c.speechPlace("VOICE_TOOLS_OPENAI_KEY", "stt.api_key", c.Config.STT.Key.IsSet()) + " <key>"))
	case p.Status == http.StatusNotFound || p.Status == http.StatusMethodNotAllowed || p.Status >= 300 && p.Status < 400:
		f.ID, f.What = "provider.speech_address", "the address of the transcription service is that of something else"
	default:
		return c.lastSpeech()
	}
	return []Finding{f}
}

// speechPlace is what to set for another value: the variable where that is set,
// since it wins, or where nothing is set yet; else the key of config.yaml.
func (c *Case) speechPlace(variable, key string, isSet bool) string {
	if c.Env != nil {
		if _, set := c.Env.Lookup(variable); set || !isSet {
			return variable
		}
	}
	return key
}

// lastSpeech tells what the running gateway found out by sending a recording,
// where the service is well as far as can be asked.
func (c *Case) lastSpeech() []Finding {
	p := c.part("speech")
	if !p.bad() {
		return nil
	}
	return []Finding{{ID: "provider.speech_failed", Class: Provider, Severity: Advice, depth: ofPart, about: "speech", What: "the last voice message could not be transcribed",
		Evidence: []string{"status since " + p.Since.Local().Format("15:04:05") + ": " + p.Message}, Means: "It reached the agent as a file, without its words.",
		Fix: c.then(c.hermes("config set stt.model <model>"))}}
}
