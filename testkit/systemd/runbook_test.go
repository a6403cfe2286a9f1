package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"hermes/testkit/rig"
	"hermes/testkit/telegram"
)

// typed is one thing that docs/runbook.md has an operator do: a command, a word
// in the chat, or a file to write.
type typed struct {
	words string // what is typed; of a file its path
	file  string // the file's text, "" for a command
}

var span = regexp.MustCompile("`([^`]+)`")

// readRunbook gives what is typed, in order: each line of the sh blocks, each ini
// and env block, and what stands in the first column of tables headed "type".
func readRunbook(text string) []typed {
	var out []typed
	fence, block, table := "", "", false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if lang, ok := strings.CutPrefix(line, "```"); ok {
			switch fence {
			case "ini":
				first, _, _ := strings.Cut(block, "\n")
				out = append(out, typed{words: strings.TrimPrefix(first, "# "), file: block})
			case "env":
				out = append(out, typed{words: ".env", file: block})
			}
			fence, block = lang, ""
			continue
		}
		switch {
		case fence == "sh":
			out = append(out, typed{words: line})
		case fence != "":
			block += line + "\n"
		case strings.HasPrefix(line, "| type |"):
			table = true
		case !strings.HasPrefix(line, "|"):
			table = false
		case table:
			first, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
			for _, m := range span.FindAllStringSubmatch(first, -1) {
				out = append(out, typed{words: m[1]})
			}
		}
	}
	return out
}

// operator is who follows the runbook.
type operator struct {
	*world
	t       *testing.T
	liam    *profile
	drj     *profile
	root    *profile // the default one
	ann     telegram.User
	code    string // of the pairing
	exports string // what the shell keeps
}

// step is what is held of one thing that is typed.
type step struct {
	words  string
	before func(*operator)
	do     func(*operator, typed) string // nil: a command that must succeed
	says   []string
	after  func(*operator)
}

// The runbook is followed from its first to its last line, in the machine of
// somebody who has just installed the program. What it has typed and what this
// file expects are the same list, so neither can go without the other.
func testRunbook(t *testing.T, w *world) {
	text, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	o := &operator{world: w, t: t}
	o.liam = w.newProfile(t, "liam", 8642)
	o.ann = o.liam.tg.AddUser("Ann")
	o.liam.onFailure()
	lines, runbook := readRunbook(string(text)), slices.Concat(runbook, unnamed)
	for i := range max(len(lines), len(runbook)) {
		if i >= len(lines) || i >= len(runbook) || lines[i].words != runbook[i].words {
			t.Fatalf("docs/runbook.md and its test part at step %d of %d and %d: %+v", i+1, len(lines), len(runbook), lines[min(i, len(lines)-1)])
		}
	}
	for i, s := range runbook {
		if s.before != nil {
			s.before(o)
		}
		do := s.do
		if do == nil {
			do = (*operator).run
		}
		out := do(o, lines[i])
		want(t, out, s.says...)
		if s.after != nil {
			s.after(o)
		}
		if t.Failed() {
			t.Fatalf("at %q", s.words)
		}
	}
	w.user.Run(t, "systemctl --user stop 'hermes-*'")
}

// shell runs a command line of the runbook as it stands, but for what stands in
// it for somebody's own.
func (o *operator) shell(words string) (string, error) {
	ctx, cancel := rig.Deadline(stepLimit)
	defer cancel()
	words = strings.NewReplacer(" TOKEN", " "+o.liam.tg.Token(), " CODE", " "+o.code).Replace(words)
	return o.user.Try(ctx, "export PATH=$HOME/.local/bin:$PATH\n"+o.exports+"\n"+words)
}

func (o *operator) run(c typed) string {
	o.t.Helper()
	out, err := o.shell(c.words)
	if err != nil {
		o.t.Fatalf("%s: %v\n%s", c.words, err, out)
	}
	if strings.HasPrefix(c.words, "export ") {
		o.exports += c.words + "\n"
	}
	return out
}

// fails makes a step that must end with a status.
func fails(code int) func(*operator, typed) string {
	return func(o *operator, c typed) string {
		o.t.Helper()
		out, err := o.shell(c.words)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != code {
			o.t.Fatalf("%s: %v, not status %d\n%s", c.words, err, code, out)
		}
		return out
	}
}

// either is a command whose status tells what it found.
func either(o *operator, c typed) string {
	o.t.Helper()
	out, err := o.shell(c.words)
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		o.t.Fatalf("%s: %v\n%s", c.words, err, out)
	}
	return out
}

// answering makes a step that asks, and is answered line by line.
func answering(lines ...string) func(*operator, typed) string {
	return func(o *operator, c typed) string {
		o.t.Helper()
		text := strings.ReplaceAll(strings.Join(lines, `\n`), "ADDRESS", o.brain.URL())
		return o.run(typed{words: "printf '" + text + `\n' | ` + c.words})
	}
}

// follow reads for two seconds what would go on for ever.
func follow(o *operator, c typed) string {
	o.t.Helper()
	return fails(124)(o, typed{words: "timeout 2 " + c.words})
}

// say is a word in the chat.
func say(o *operator, c typed) string {
	o.liam.tg.Say(o.ann, c.words)
	return ""
}

// writeFile is a file that the operator writes.
func writeFile(o *operator, c typed) string {
	o.user.Write(o.t, strings.Replace(c.words, "~", o.user.Home, 1), c.file)
	return ""
}

// foreground runs a gateway as a terminal does, waits for a sign of it, and ends
// it by Ctrl-C.
func foreground(ready string) func(*operator, typed) string {
	return func(o *operator, c typed) string {
		o.t.Helper()
		out, end := o.user.Home+"/front.log", o.user.Home+"/front.end"
		o.user.Run(o.t, fmt.Sprintf("rm -f %[1]s %[2]s; (%[3]s >%[1]s 2>&1; echo $? >%[2]s) >/dev/null 2>&1 </dev/null &", out, end, c.words))
		o.Until(o.t, stepLimit, c.words+" to be ready", func(context.Context) error {
			if text := o.Read(out); !strings.Contains(text, ready) {
				return fmt.Errorf("it says %s", text)
			}
			return nil
		})
		o.user.Run(o.t, "pkill -INT -x -f '"+c.words+"'")
		o.Until(o.t, stepLimit, c.words+" to end", func(context.Context) error {
			if got := strings.TrimSpace(o.Read(end)); got != "0" {
				return fmt.Errorf("status %q: %s", got, o.Read(out))
			}
			return nil
		})
		return o.Read(out)
	}
}

// healthy waits until a profile's own status says that all is well.
func (o *operator) healthy(name string) {
	o.t.Helper()
	o.Until(o.t, stepLimit, name+" to be well", func(ctx context.Context) error {
		out, err := o.user.Try(ctx, spare+" -p "+name+" gateway status")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// heard waits for a text in Ann's chat.
func (o *operator) heard(text string) {
	o.t.Helper()
	if err := o.liam.sees(o.ann, text); err != nil {
		o.t.Fatal(err)
	}
}
