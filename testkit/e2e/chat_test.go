package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hermes/internal/control"
	"hermes/testkit/llm"
	"hermes/testkit/telegram"
)

// obedient is a model that does what a message says: "run CMD" calls the
// terminal and answers with its result, "gate …" waits at the gate, anything
// else is repeated.
func obedient(gate *llm.Gate) llm.Brain {
	return func(r llm.Request) llm.Reply {
		last := r.Messages[len(r.Messages)-1]
		said := r.LastUser()
		switch {
		case last.Role == "tool":
			return llm.Reply{Text: "result: " + last.Text()}
		case strings.HasPrefix(said, "run "):
			return llm.Reply{ToolCalls: []llm.ToolCall{{ID: fmt.Sprintf("call_%d", r.N), Name: "terminal", Arguments: fmt.Sprintf(`{"command":%q}`, said[4:])}}}
		case strings.HasPrefix(said, "gate "):
			return llm.Reply{Text: "answer to " + said, Before: gate.Pass}
		}
		return llm.Reply{Text: "you said: " + said}
	}
}

// One long conversation, as a person has it.
func TestAConversation(t *testing.T) {
	t.Parallel()
	gate := llm.NewGate()
	w := setUp(t, options{brain: obedient(gate)})
	p := w.start()
	ann := w.tg.AddUser("Ann")
	say := func(text, want string) telegram.Message {
		t.Helper()
		w.tg.Say(ann, text)
		return w.sees(ann.ID, want)
	}
	say("/start", "/help")
	say("hello", "you said: hello")
	say("run echo forty-$((40+2))", "forty-42")
	say("/status", "Session")
	before := len(w.brain.Requests())
	w.tg.Say(ann, "/retry")
	w.eventually("the command ran and was told again", func() bool { return w.count(ann.ID, "forty-42") == 2 })
	if r := w.brain.Requests()[before]; r.LastUser() != "run echo forty-$((40+2))" || len(r.Messages) != 4 {
		t.Errorf("/retry showed the model %d messages, the last of the user being %q", len(r.Messages), r.LastUser())
	}

	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.MkdirAll(filepath.Join(victim, "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.tg.Say(ann, "run rm -rf "+victim+" && echo removed-$((1+1))")
	asked, err := w.tg.WaitFor(w.deadline(), ann.ID, func(m telegram.Message) bool { return m.FromBot && len(m.Buttons) > 0 })
	if err != nil {
		t.Fatalf("no question with buttons: %v\n%s", err, w.tg.Transcript(ann.ID))
	}
	if _, err := os.Stat(victim); err != nil {
		t.Fatal("it ran before it was allowed")
	}
	query := w.tg.Press(ann, asked, asked.Buttons[0][0].Data)
	w.sees(ann.ID, "removed-2")
	if err := w.tg.WaitAnswered(w.deadline(), query); err != nil {
		t.Error("the pressed button shows its clock for ever")
	}
	if _, err := os.Stat(victim); err == nil {
		t.Error("it did not run though it was allowed")
	}

	w.tg.Say(ann, "gate one")
	<-gate.Arrived()
	say("/stop", "Stopped")
	say("/background gate two", "background")
	<-gate.Arrived()
	say("meanwhile", "you said: meanwhile")
	gate.Open()
	w.sees(ann.ID, "answer to gate two")
	say("/new", "new session")
	say("who am I?", "you said: who am I?")
	w.settled()
	if w.count(ann.ID, "answer to gate one") != 0 {
		t.Error("the stopped turn answered")
	}
	last := w.brain.Requests()
	if n := len(last[len(last)-1].Messages); n != 2 { // system and user
		t.Errorf("after /new the model was shown %d messages", n)
	}
	w.stop(p)
	t.Logf("the chat as Ann sees it:\n%s", w.tg.Transcript(ann.ID))
}

func TestBusyModes(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"interrupt", "queue", "steer"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			gate := llm.NewGate()
			w := setUp(t, options{brain: obedient(gate), config: "display:\n  busy_input_mode: " + mode + "\n"})
			p := w.start()
			ann := w.tg.AddUser("Ann")
			w.tg.Say(ann, "gate first")
			<-gate.Arrived()
			w.tg.Say(ann, "second")
			switch mode {
			case "interrupt":
				w.sees(ann.ID, "you said: ")
				if w.count(ann.ID, "answer to gate first") != 0 {
					t.Error("the interrupted turn answered")
				}
				gate.Open()
			case "queue":
				w.sees(ann.ID, "yours comes next")
				gate.Open()
				w.sees(ann.ID, "answer to gate first")
				w.sees(ann.ID, "you said: second")
			case "steer":
				w.sees(ann.ID, "next step")
				gate.Open()
				w.sees(ann.ID, "you said: second")
			}
			w.settled()
			if n := w.count(ann.ID, "second"); n != 1 {
				t.Errorf("the second message was answered %d times\n%s", n, w.tg.Transcript(ann.ID))
			}
			w.stop(p)
		})
	}
}

// A streamed answer grows by edits and ends as one message that says all.
func TestAStreamedAnswerIsOneMessage(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("word after word, ", 40) + "the end"
	halfway := llm.NewGate()
	w := setUp(t, options{config: "streaming:\n  enabled: true\n", brain: func(r llm.Request) llm.Reply {
		return llm.Reply{Text: long, BeforePiece: func(ctx context.Context, i int) {
			if i == 40 {
				halfway.Pass(ctx)
			}
		}}
	}})
	p := w.start()
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "tell me")
	w.sees(ann.ID, "word after word") // while the model still speaks
	halfway.Open()
	w.sees(ann.ID, "the end")
	w.settled()
	replies := w.tg.Replies(ann.ID)
	if len(replies) != 1 || replies[0].Text != long || len(replies[0].Edits) == 0 {
		t.Errorf("the answer was shown as\n%s", w.tg.Transcript(ann.ID))
	}
	w.stop(p)
}

// What is longer than a message is split, in order, and nothing is missing.
func TestALongAnswerIsSplit(t *testing.T) {
	t.Parallel()
	for _, streaming := range []bool{false, true} {
		t.Run(fmt.Sprintf("streaming %v", streaming), func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			for i := range 1500 {
				fmt.Fprintf(&b, "line-%d\n", i)
			}
			w := setUp(t, options{brain: llm.Say(b.String()), config: fmt.Sprintf("streaming:\n  enabled: %v\n", streaming)})
			p := w.start()
			ann := w.tg.AddUser("Ann")
			w.tg.Say(ann, "count")
			w.sees(ann.ID, "line-1499")
			w.settled()
			var all strings.Builder
			for _, m := range w.tg.Replies(ann.ID) {
				if !m.Deleted {
					all.WriteString(m.Text + "\n")
				}
			}
			got := strings.Fields(all.String())
			at := 0
			for _, word := range got {
				if word == fmt.Sprintf("line-%d", at) {
					at++
				}
			}
			if at != 1500 || strings.Count(all.String(), "line-7\n") != 1 {
				t.Errorf("lines stop being in order at %d of 1500, in %d messages", at, len(w.tg.Replies(ann.ID)))
			}
			w.stop(p)
		})
	}
}

// In a group the bot answers who addresses it, in the topic where it was said.
func TestGroupsAndTopics(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{env: "TELEGRAM_REQUIRE_MENTION=true\n"})
	p := w.start()
	ann := w.tg.AddUser("Ann")
	group := w.tg.AddSupergroup("Team", true)
	topic := w.tg.AddTopic(group.ID, "Deploys")
	w.tg.Post(telegram.Post{From: ann, Chat: group.ID, Thread: topic, Text: "not for the bot"})
	w.tg.Post(telegram.Post{From: ann, Chat: group.ID, Thread: topic, Text: "@" + w.tg.Bot().Username + " for the bot"})
	m := w.sees(group.ID, "for the bot")
	if m.Thread != topic {
		t.Errorf("it answered in thread %d, not %d", m.Thread, topic)
	}
	w.tg.Post(telegram.Post{From: ann, Chat: group.ID, Thread: topic, Text: "and this is a reply", ReplyTo: m.ID})
	w.sees(group.ID, "and this is a reply")
	w.settled()
	if n := w.count(group.ID, "not for the bot"); n != 0 {
		t.Error("it answered what was not for it")
	}
	w.tg.Say(ann, "in private")
	w.sees(ann.ID, "in private")
	for _, r := range w.brain.Requests() {
		if strings.Contains(r.LastUser(), "in private") && len(r.Messages) != 2 {
			t.Error("the private chat knows what was said in the group")
		}
	}
	w.stop(p)
}

func picture(t *testing.T) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 8, 8))
	img.Set(3, 3, color.RGBA{R: 200, A: 255})
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A photo reaches the model as an image, a document as a file that tools can
// read, and MEDIA: in an answer sends a file.
func TestFilesInAndOut(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{brain: obedient(nil)})
	p := w.start()
	ann := w.tg.AddUser("Ann")
	png := picture(t)
	w.tg.Post(telegram.Post{From: ann, Text: "what is this?", File: &telegram.Upload{Kind: "photo", Name: "p.png", Data: png}})
	w.sees(ann.ID, "what is this?")
	if raw := string(w.brain.Requests()[0].Raw); !strings.Contains(raw, base64.StdEncoding.EncodeToString(png)) {
		t.Errorf("the model did not get the picture: %.400s", raw)
	}
	w.tg.Post(telegram.Post{From: ann, Text: "read this", File: &telegram.Upload{Kind: "document", Name: "notes.txt", MIME: "text/plain", Data: []byte("the notes say 1729")}})
	doc := w.sees(ann.ID, "notes.txt")
	at := strings.Index(doc.Text, w.home.Dir)
	if at < 0 {
		t.Fatalf("the model was not told where the file is: %q", doc.Text)
	}
	path := strings.TrimRight(strings.Fields(doc.Text[at:])[0], "].")
	w.tg.Say(ann, "run cat "+path)
	w.sees(ann.ID, "1729")

	out := filepath.Join(filepath.Dir(w.home.Dir), "report.csv")
	if err := os.WriteFile(out, []byte("a,b\n1,2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.brain.SetBrain(llm.Say("Here it is.\nMEDIA:" + out))
	w.tg.Say(ann, "send me the report")
	sent, err := w.tg.WaitFor(w.deadline(), ann.ID, func(m telegram.Message) bool { return m.FromBot && m.File != nil })
	if err != nil || sent.File.Name != "report.csv" || sent.File.Size != 8 {
		t.Errorf("%+v %v\n%s", sent.File, err, w.tg.Transcript(ann.ID))
	}
	// What holds the profile's secrets is never sent, whatever the model says.
	w.brain.SetBrain(llm.Say("Take this.\nMEDIA:" + filepath.Join(w.home.Dir, ".env")))
	w.tg.Say(ann, "send me your secrets")
	w.sees(ann.ID, "Take this.")
	w.settled()
	for _, m := range w.tg.Replies(ann.ID) {
		if m.File != nil && m.File.Name != "report.csv" {
			t.Errorf("%s was sent", m.File.Name)
		}
	}
	w.stop(p)
}

// A message that came while the gateway was down is answered when it is up,
// once, also when the answer was lost on the way and the process died.
func TestDownAndUpAgain(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	ann := w.tg.AddUser("Ann")
	w.tg.Say(ann, "while you slept")
	p := w.start()
	w.sees(ann.ID, "while you slept")
	w.settled() // a death between a send and its receipt may repeat the message, and says so
	p.Kill()
	w.tg.Say(ann, "while you were dead")
	p = w.start()
	w.sees(ann.ID, "while you were dead")
	w.settled()
	for _, text := range []string{"while you slept", "while you were dead"} {
		if n := w.count(ann.ID, text); n != 1 {
			t.Errorf("%q was answered %d times", text, n)
		}
	}
	// Telegram goes dark for a while; nothing is lost.
	w.tg.GoDark()
	w.waitStatus("it notices", func(s control.Status) bool { return !s.Healthy && part(s, "platform.telegram").State != "ok" })
	if err := w.tg.ComeBack(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	w.tg.Say(ann, "back again")
	w.sees(ann.ID, "back again")
	t.Logf("answered %s after Telegram was back", time.Since(began).Round(time.Millisecond))
	w.waitStatus("it is healthy again", func(s control.Status) bool { return s.Healthy })
	w.stop(p)
}
