package delivery

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
)

var streams = platform.Capabilities{MaxText: 4096, Unit: platform.UTF16, Dialect: platform.DialectTelegramHTML, EditEvery: time.Second}

func delta(s string) domain.TurnEvent { return domain.TurnEvent{Kind: domain.EventDelta, Text: s} }

// preview begins a preview of chat 1.
func preview(t *testing.T, b *bench, onFirst func(string) error) *Preview {
	t.Helper()
	p := b.d.NewPreview(t.Context(), domain.Address{Platform: "p", ChatID: "1"}, "re", onFirst)
	if p == nil {
		t.Fatal("no preview")
	}
	return p
}

func TestPreviewStreams(t *testing.T) {
	a := &script{caps: streams}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		var first []string
		p := preview(t, b, func(id string) error { first = append(first, id); return nil })
		for range 50 { // ten letters each tenth of a second, for five seconds
			p.Event(delta("123456789 "))
			time.Sleep(100 * time.Millisecond)
		}
		id := p.Close()
		log := a.entries()
		if id != "id1" || !slices.Equal(first, []string{"id1"}) {
			t.Errorf("id %q, onFirst got %q", id, first)
		}
		if len(log) < 5 || len(log) > 7 {
			t.Fatalf("%d messages and edits in 5 s with one a second", len(log))
		}
		if log[0].edit != "" || log[0].part.ReplyTo != "re" || len(log[0].text) < firstRunes || !strings.HasSuffix(log[0].text, cursor) {
			t.Errorf("first message: %+v", log[0])
		}
		for i, c := range log[1:] {
			if c.edit != "id1" || c.at.Sub(log[i].at) < time.Second || len(c.text) <= len(log[i].text) {
				t.Errorf("edit %d: %+v", i+1, c)
			}
		}
		p.Event(delta("after the end")) // blocks nobody
		if again := p.Close(); again != id {
			t.Errorf("closed again: %q", again)
		}
	})
}

// TestPreviewWaitsItsTurn has an answer written while one that was accepted before
// cannot be sent: nothing of it is shown above that one.
func TestPreviewWaitsItsTurn(t *testing.T) {
	a := &script{caps: streams, do: func(_ context.Context, n int, _ sent) error {
		if n <= 3 {
			return retry(2 * time.Second)
		}
		return nil
	}}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		b.send("1", "accepted before")
		p := preview(t, b, nil)
		for range 10 {
			p.Event(delta("123456789 "))
			time.Sleep(time.Second)
		}
		if id := p.Close(); id != "id5" {
			t.Errorf("the preview is %q, want the message after the one that was accepted before", id)
		}
		if got := a.texts("1"); len(got) < 2 || got[0] != "accepted before" {
			t.Errorf("the chat shows %q", got)
		}
	})
}

func TestPreviewOfAShortAnswer(t *testing.T) {
	a := &script{caps: streams}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		p := preview(t, b, nil)
		p.Event(delta("short"))
		if id := p.Close(); id != "" || a.count() != 0 {
			t.Errorf("a preview of what is done at once: %q", id)
		}
		p = preview(t, b, nil)
		p.Event(delta("short"))
		time.Sleep(2 * time.Second)
		if id := p.Close(); id != "id1" {
			t.Errorf("no preview of a short text after a second: %q", id)
		}
	})
}

func TestPreviewShowsTools(t *testing.T) {
	events := []domain.TurnEvent{
		delta("I will look."),
		{Kind: domain.EventAnswerReset},
		{Kind: domain.EventToolStarted, CallID: "1", Tool: "terminal", Label: "ls *_x_*"},
		{Kind: domain.EventToolFinished, CallID: "1", Tool: "terminal"},
		{Kind: domain.EventToolStarted, CallID: "2", Tool: "terminal", Label: "cat <f>"},
		{Kind: domain.EventToolFinished, CallID: "2", Tool: "terminal", Failed: true},
		{Kind: domain.EventToolStarted, CallID: "3", Tool: "read_file"},
		delta("The answer"),
	}
	for mode, want := range map[string]string{
		"off":     "The answer ▉",
		"new":     "⚙️ terminal: cat &lt;f&gt;\n⚙️ read_file\n\nThe answer ▉",
		"all":     "⚙️ terminal: ls *_x_*\n⚙️ terminal: cat &lt;f&gt;\n⚙️ read_file\n\nThe answer ▉",
		"verbose": "⚙️ terminal: ls *_x_* ✓\n⚙️ terminal: cat &lt;f&gt; ✗\n⚙️ read_file\n\nThe answer ▉",
	} {
		a := &script{caps: streams}
		inBubble(t, func(o *Options) { o.ToolProgress = mode }, a, func(t *testing.T, b *bench) {
			p := preview(t, b, nil)
			for _, e := range events {
				p.Event(e)
			}
			time.Sleep(3 * time.Second)
			p.Close()
			wantTexts(t, a, "1", want)
		})
	}
}

// TestPreviewFailures shows when a preview goes on and when it ends.
func TestPreviewFailures(t *testing.T) {
	tests := []struct {
		name  string
		fail  func(n int, c sent) error
		calls int // over ten seconds with an event each
		id    string
	}{
		{"flood control ends it", func(n int, _ sent) error {
			if n == 3 {
				return &platform.Error{Kind: platform.Retry, RetryAfter: time.Second}
			}
			return nil
		}, 3, "id1"},
		{"a lost first message ends it", func(n int, _ sent) error { return errors.New("cut off") }, 1, ""},
		{"repeated failures end it", func(n int, _ sent) error {
			if n > 1 {
				return &platform.Error{Kind: platform.Retry, Reason: "busy"}
			}
			return nil
		}, 4, "id1"},
		{"a vanished message ends it", func(n int, _ sent) error {
			if n > 1 {
				return &platform.Error{Kind: platform.EditRefused}
			}
			return nil
		}, 2, "id1"},
		{"refused markup makes it plain", func(n int, c sent) error {
			if c.part.Markup {
				return &platform.Error{Kind: platform.MarkupRefused}
			}
			return nil
		}, 10, "id2"},
		{"a panic ends it only", func(n int, _ sent) error { panic("boom") }, 1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := &script{caps: streams, do: func(_ context.Context, n int, c sent) error { return tt.fail(n, c) }}
			inBubble(t, nil, a, func(t *testing.T, b *bench) {
				p := preview(t, b, nil)
				for range 10 {
					p.Event(delta("**some words** which are more than forty letters "))
					time.Sleep(time.Second)
				}
				id := p.Close()
				if n := a.count(); id != tt.id || n < tt.calls-1 || n > tt.calls+1 || (tt.calls < 5 && n != tt.calls) {
					t.Errorf("%d calls, id %q; want %d, %q", n, id, tt.calls, tt.id)
				}
			})
		})
	}
}

func TestPreviewThatCannotBeRecordedEnds(t *testing.T) {
	a := &script{caps: streams}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		p := preview(t, b, func(string) error { return domain.E(domain.Fenced, nil, "the turn is another's") })
		for range 5 {
			p.Event(delta("words which are more than forty letters in all "))
			time.Sleep(time.Second)
		}
		if id := p.Close(); id != "id1" || a.count() != 1 {
			t.Errorf("id %q, %d calls", id, a.count())
		}
	})
}

// TestPreviewNeverBlocks writes while the platform hangs, then closes: the
// newest state is what was sent after it.
func TestPreviewNeverBlocks(t *testing.T) {
	a := &script{caps: streams, do: func(ctx context.Context, n int, _ sent) error {
		if n == 2 {
			select {
			case <-time.After(8 * time.Second):
			case <-ctx.Done():
			}
		}
		return nil
	}}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		p := preview(t, b, nil)
		start := time.Now()
		for range 10_000 {
			p.Event(delta("words "))
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("events took %s", d)
		}
		time.Sleep(1500 * time.Millisecond)
		p.Event(delta("more"))
		time.Sleep(time.Second)
		p.Event(delta(" and the newest"))
		time.Sleep(10 * time.Second)
		p.Close()
		log := a.entries()
		if last := log[len(log)-1].text; !strings.HasSuffix(last, "the newest"+cursor) {
			t.Errorf("last edit ends with %q", last[max(0, len(last)-40):])
		}
	})
}

func TestPreviewEndsWithItsTurnAndWithStop(t *testing.T) {
	a := &script{caps: streams}
	inBubble(t, nil, a, func(t *testing.T, b *bench) {
		ctx, cancel := context.WithCancel(t.Context())
		p := b.d.NewPreview(ctx, domain.Address{Platform: "p", ChatID: "1"}, "", nil)
		cancel()
		synctest.Wait()
		if id := p.Close(); id != "" {
			t.Errorf("id %q", id)
		}
		preview(t, b, nil) // left open: Stop ends it
	})
}

func TestNoPreview(t *testing.T) {
	inBubble(t, nil, &script{}, func(t *testing.T, b *bench) { // EditEvery is 0
		p := b.d.NewPreview(t.Context(), domain.Address{Platform: "p", ChatID: "1"}, "", nil)
		p.Event(delta("x"))
		if p != nil || p.Close() != "" {
			t.Error("a preview where nothing can be edited")
		}
		if b.d.NewPreview(t.Context(), domain.Address{Platform: "other"}, "", nil) != nil {
			t.Error("a preview on a platform that is not attached")
		}
	})
}
