package agent

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// maxPromptFile bounds SOUL.md and each context file in the prompt, in bytes.
const maxPromptFile = 20_000

// contextFiles are read from a workdir that was set on purpose.
var contextFiles = []string{"AGENTS.md", "CLAUDE.md", ".hermes.md"}

// PromptParts is what a system prompt is made of. Empty fields leave no trace.
type PromptParts struct {
	Soul     string // SOUL.md, or the default persona
	Memory   string // the snapshot of MEMORY.md and USER.md
	Source   domain.Source
	Kind     domain.TurnKind
	Workdir  string
	Context  []string // context files, each with its heading
	Extra    string   // system text of an API call, hint of a job
	Markdown string   // what the platform shows: a hint on formatting
	Now      time.Time
}

// DefaultSoul is the persona of a profile without SOUL.md.
const DefaultSoul = "You are Hermes, an assistant that runs day and night on its owner's server. Be brief, exact and honest: say what you did, what you found and what you could not do. Use the tools rather than guess. Never claim that something was done which was not."

// BuildPrompt writes the system prompt. What changes least stands first, so
// that providers can cache it.
func BuildPrompt(p PromptParts) string {
	var b strings.Builder
	soul := p.Soul
	if strings.TrimSpace(soul) == "" {
		soul = DefaultSoul
	}
	b.WriteString(strings.TrimSpace(soul))
	section(&b, "Memory", p.Memory)
	for _, c := range p.Context {
		section(&b, "Project notes", c)
	}
	var here []string
	switch p.Kind {
	case domain.TurnCron:
		here = append(here, "This is a scheduled job. Nobody can answer questions. Your final answer is delivered by itself; do not send it with a tool. Answer exactly [SILENT] when there is nothing worth telling.")
	case domain.TurnAPI:
		here = append(here, "You are called by a program over HTTP.")
	default:
		where := string(p.Source.Platform)
		if p.Source.ChatType == domain.ChatGroup {
			where += ", in a group"
		}
		here = append(here, fmt.Sprintf("You are talking on %s.", where))
	}
	if p.Markdown != "" {
		here = append(here, p.Markdown)
	}
	if p.Workdir != "" {
		here = append(here, "Commands run in "+p.Workdir+".")
	}
	if !p.Now.IsZero() {
		here = append(here, "Today is "+p.Now.Format("Monday, 2006-01-02 (MST)")+".")
	}
	section(&b, "Here and now", strings.Join(here, " "))
	section(&b, "Instructions of the caller", p.Extra)
	return b.String()
}

func section(b *strings.Builder, heading, text string) {
	if text = strings.TrimSpace(text); text != "" {
		fmt.Fprintf(b, "\n\n## %s\n%s", heading, text)
	}
}

// ReadSoul reads SOUL.md of a profile; "" when there is none.
func ReadSoul(home string) string { return readBounded(filepath.Join(home, "SOUL.md")) }

// ReadContext reads the context files of a workdir.
func ReadContext(workdir string) []string {
	var out []string
	for _, name := range contextFiles {
		if text := readBounded(filepath.Join(workdir, name)); text != "" {
			out = append(out, name+":\n"+text)
		}
	}
	return out
}

func readBounded(path string) string {
	f, err := plain.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	// A fixed buffer would stand on the stack, and double that of every turn.
	b, _ := io.ReadAll(io.LimitReader(f, maxPromptFile))
	return strings.ToValidUTF8(string(b), "\uFFFD")
}
