package conversation

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// speech turns voice messages of one turn into text. What came of a recording
// is journaled, words or failure, so that a turn that is resumed tells the model
// the same and does not pay for it again.
type speech struct {
	lanes *Lanes
	turn  ledger.TurnRef
	known map[string]string // by recordingID, from the journal
}

// speechOf is the speech of a claim.
func (l *Lanes) speechOf(c *ledger.Claim) speech {
	s := speech{lanes: l, turn: c.Ref(), known: map[string]string{}}
	for _, step := range c.Steps {
		if step.Kind == domain.StepHeard {
			s.known[step.CallID] = step.Message.Content
		}
	}
	return s
}

// recordingID names the n-th file of an event in a turn's journal.
func recordingID(in domain.Inbound, n int) string { return fmt.Sprintf("file-%d-%d", in.ID, n) }

// joinID names an event that joined a running turn in the turn's journal.
func joinID(inbound int64) string { return "inbound-" + strconv.FormatInt(inbound, 10) }

// note is the line on a fetched file for the model; that on a voice message has
// its words, or why there are none.
func (s speech) note(ctx context.Context, id string, a domain.Attachment) string {
	place := fmt.Sprintf("[%s %s is at %s", a.Kind, label(a), a.Path)
	if a.Kind != domain.Voice || s.lanes.Hooks.Transcribe == nil {
		return place + "]"
	}
	if heard, ok := s.known[id]; ok {
		return place + heard
	}
	heard, ok := s.hear(ctx, a.Path)
	if ok {
		step := domain.Step{Kind: domain.StepHeard, CallID: id, Message: domain.Message{Content: heard}, At: s.lanes.Now()}
		err := s.lanes.persist(ctx, "transcript", func(ctx context.Context) error {
			_, err := s.lanes.Store.AppendStep(ctx, s.turn, step)
			return err
		})
		if err != nil {
			s.lanes.Log.Warn("a transcript could not be journaled; a resumed turn asks for it again", "component", "conversation", "turn", s.turn.ID, "err", err)
		}
	}
	return place + heard
}

// hear ends the line on a voice message. It tells whether that is for good:
// a turn that is being stopped has learned nothing about the recording.
func (s speech) hear(ctx context.Context, path string) (line string, final bool) {
	var text string
	var err error
	if !s.lanes.contained("a transcription", func() { text, err = s.lanes.Hooks.Transcribe(ctx, path) }) {
		err = domain.E(domain.Internal, nil, "the transcription crashed; that is a defect, and it is in the log")
	}
	text = strings.TrimSpace(clean(text))
	switch {
	case ctx.Err() != nil && err != nil:
		return "; it was not transcribed, since the turn was stopped]", false
	case err != nil:
		s.lanes.Log.Warn("a voice message could not be transcribed; the agent has the file", "component", "conversation", "turn", s.turn.ID, "err", err)
		return "; it could not be transcribed: " + domain.MessageOf(err) + "]", true
	case text == "":
		return "; no speech was heard in it]", true
	}
	return "; what it says follows]\n" + text, true
}
