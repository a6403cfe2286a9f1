package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hermes/internal/control"
	"hermes/internal/health"
	"hermes/testkit/llm"
	"hermes/testkit/telegram"
)

// withEars is a world whose model's server transcribes as well.
func withEars(t *testing.T, brain llm.Brain, config string, ears func(llm.Recording) llm.Heard) *world {
	w := setUp(t, options{brain: brain, config: config})
	w.brain.RequireKey("") // two keys, one fake
	w.brain.SetEars(ears)
	key := w.newSecret("the key for transcriptions", "sk-")
	env := w.env + fmt.Sprintf("STT_OPENAI_BASE_URL=%s\nVOICE_TOOLS_OPENAI_KEY=%s\n", w.brain.URL(), key)
	if err := os.WriteFile(filepath.Join(w.home.Dir, ".env"), []byte(env), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

func speak(w *world, u telegram.User) {
	w.tg.Post(telegram.Post{From: u, File: &telegram.Upload{Kind: "voice", MIME: "audio/ogg", Data: []byte("OggS sound")}})
}

// told is what the model was told last, and the recording's place in it.
func told(t *testing.T, w *world) string {
	t.Helper()
	all := w.brain.Requests()
	text := all[len(all)-1].LastUser()
	_, rest, _ := strings.Cut(text, " is at ")
	path := strings.FieldsFunc(rest, func(r rune) bool { return r == ';' || r == ']' })
	if len(path) == 0 {
		t.Fatalf("the model was not told of the file: %q", text)
	}
	if b, err := os.ReadFile(path[0]); err != nil || string(b) != "OggS sound" {
		t.Errorf("the recording was not kept: %q, %v", b, err)
	}
	return text
}

// What a person says into the microphone is what the model reads.
func TestAVoiceMessageIsHeard(t *testing.T) {
	t.Parallel()
	fault := llm.Fail(500)
	answers := make(chan llm.Heard, 1)
	w := withEars(t, llm.Echo, "stt:\n  language: en\n", func(llm.Recording) llm.Heard { return <-answers })
	p := w.start()
	ann := w.tg.AddUser("Ann")
	answers <- llm.Heard{Text: "/stop please buy milk"}
	speak(w, ann)
	w.sees(ann.ID, "buy milk")
	if text := told(t, w); !strings.Contains(text, "what it says follows]\n/stop please buy milk") {
		t.Errorf("the model was told %q", text)
	}
	speech := func(state health.State) func(control.Status) bool {
		return func(s control.Status) bool {
			return slices.ContainsFunc(s.Parts, func(p health.Part) bool { return p.Name == "speech" && p.State == state })
		}
	}
	w.waitStatus("the status to tell of speech", speech(health.OK))
	answers <- llm.Heard{Failure: &fault}
	speak(w, ann)
	w.sees(ann.ID, "could not be transcribed")
	w.waitStatus("the status to tell that it failed", speech(health.Degraded))
	if text := told(t, w); strings.Count(text, "\n") != 0 || !strings.Contains(text, "has a fault (HTTP 500)") {
		t.Errorf("the model was told %q", text)
	}
	if r := w.brain.Recordings(); len(r) != 2 || r[0].Language != "en" || r[0].Model != "whisper-1" || string(r[0].Data) != "OggS sound" {
		t.Errorf("the service was asked %+v", r)
	}
	w.stop(p)
}

// Where no service is set up, the agent has the file, and nobody is asked.
func TestAVoiceMessageWithoutEarsIsAFile(t *testing.T) {
	t.Parallel()
	w := withEars(t, llm.Echo, "stt:\n  enabled: false\n", nil)
	p := w.start()
	ann := w.tg.AddUser("Ann")
	speak(w, ann)
	w.sees(ann.ID, "[voice ")
	if text := told(t, w); strings.Contains(text, "transcribed") || len(w.brain.Recordings()) != 0 {
		t.Errorf("the model was told %q, and the service was asked %d times", text, len(w.brain.Recordings()))
	}
	w.stop(p)
}

// A turn that goes on after a kill knows what was said, and does not pay for it
// again; so does one that the voice message joined while it ran.
func TestAKillDoesNotTranscribeTwice(t *testing.T) {
	t.Parallel()
	for name, steered := range map[string]bool{"a turn of its own": false, "steered": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate := llm.NewGate()
			killed := make(chan struct{})
			brain := func(r llm.Request) llm.Reply {
				said := r.LastUser()
				switch {
				case !strings.Contains(said, "buy milk") && r.N == 1:
					return llm.Reply{Text: "at first", Before: gate.Pass}
				case strings.Contains(said, "buy milk"):
					select {
					case <-killed:
						return llm.Reply{Text: "bought"}
					default:
						return llm.Reply{Fault: llm.Never}
					}
				}
				return llm.Reply{Text: "what?"}
			}
			w := withEars(t, brain, "display:\n  busy_input_mode: steer\n", func(llm.Recording) llm.Heard { return llm.Heard{Text: "buy milk"} })
			p := w.start()
			ann := w.tg.AddUser("Ann")
			requests := int64(1)
			if steered {
				w.tg.Say(ann, "hello")
				<-gate.Arrived()
				speak(w, ann)
				w.sees(ann.ID, "next step")
				gate.Open()
				requests++
			} else {
				speak(w, ann)
			}
			if err := w.brain.Wait(w.deadline(), requests); err != nil {
				t.Fatal(err)
			}
			p.Kill()
			<-p.Done()
			close(killed)
			p = w.start()
			w.sees(ann.ID, "bought")
			w.settled()
			if text := told(t, w); strings.Count(text, "buy milk") != 1 {
				t.Errorf("the model was told %q", text)
			}
			last := w.brain.Requests()
			if n := strings.Count(string(last[len(last)-1].Raw), "buy milk"); n != 1 {
				t.Errorf("the words stand %d times in the request", n)
			}
			if n := len(w.brain.Recordings()); n != 1 {
				t.Errorf("the service was asked %d times", n)
			}
			if n := w.count(ann.ID, "bought"); n != 1 {
				t.Errorf("answered %d times", n)
			}
			w.stop(p)
		})
	}
}
