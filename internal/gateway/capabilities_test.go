package gateway

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/discord"
	"hermes/internal/platform/email"
	"hermes/internal/platform/matrix"
	"hermes/internal/platform/mattermost"
	"hermes/internal/platform/slack"
	"hermes/internal/platform/telegram"
	"hermes/internal/platform/webchat"
	"hermes/internal/platform/webhook"
)

var rewrite = flag.Bool("update", false, "write the table of capabilities into docs/platforms.md")

// adapters are never connected; what they can do is known all the same.
func adapters() map[domain.Platform]platform.Adapter {
	return map[domain.Platform]platform.Adapter{
		discord.Name: new(discord.Adapter), email.Name: new(email.Adapter), matrix.Name: new(matrix.Adapter), mattermost.Name: new(mattermost.Adapter),
		slack.Name: new(slack.Adapter), telegram.Name: new(telegram.Adapter), webhook.Name: new(webhook.Adapter),
		domain.PlatformWebchat: new(webchat.Adapter),
	}
}

func TestTheDocumentedCapabilitiesAreThoseOfTheCode(t *testing.T) {
	all := adapters()
	for name := range kinds {
		if all[name] == nil {
			t.Errorf("%s stands in no table: name it in adapters above and run this test with -update", name)
		}
	}
	for name, a := range all {
		c := a.Capabilities()
		if got, ok := capabilities(name); !ok || got != c {
			t.Errorf("%s: the gateway knows it as %+v, %t", name, got, ok)
		}
		if c.Away.Kept == "" || c.Away.Lost == "" {
			t.Errorf("%s does not say what becomes of what happens while nobody receives (Capabilities.Away)", name)
		}
		if c.MaxText <= 0 || c.Dialect == "" {
			t.Errorf("%s does not say how long a message may be, or in what markup", name)
		}
		if _, edits := a.(platform.Editor); edits != (c.EditEvery > 0) {
			t.Errorf("%s: EditEvery is %s, and it edits: %t", name, c.EditEvery, edits)
		}
		if _, types := a.(platform.Typer); types != (c.TypingEvery > 0) {
			t.Errorf("%s: TypingEvery is %s, and it shows typing: %t", name, c.TypingEvery, types)
		}
	}
	const file, begin, end = "../../docs/platforms.md", "<!-- capabilities: written by a test, not by hand -->\n", "<!-- end of capabilities -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	old, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table, between %q and %q", file, begin, end)
	}
	table := capabilityTable(all)
	if table == old {
		return
	}
	if !*rewrite {
		t.Fatalf("the table in docs/platforms.md is not what the code can do: run `go test ./internal/gateway -run Capabilities -update`\n%s", table)
	}
	if err := os.WriteFile(file, []byte(head+begin+table+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

// capabilityTable is the Markdown of two tables.
func capabilityTable(all map[domain.Platform]platform.Adapter) string {
	names := slices.Sorted(maps.Keys(all))
	var b strings.Builder
	row := func(first string, cell func(platform.Adapter, platform.Capabilities) string) {
		b.WriteString("| " + first + " |")
		for _, n := range names {
			b.WriteString(" " + cell(all[n], all[n].Capabilities()) + " |")
		}
		b.WriteByte('\n')
	}
	b.WriteString("\n|  |")
	for _, n := range names {
		b.WriteString(" " + string(n) + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(names)) + "\n")
	row("length of a message", func(_ platform.Adapter, c platform.Capabilities) string { return lengthOf(c) })
	row("markup", func(_ platform.Adapter, c platform.Capabilities) string {
		return strings.ReplaceAll(string(c.Dialect), "_", " ")
	})
	row("streamed answers", func(a platform.Adapter, c platform.Capabilities) string {
		if _, live := a.(platform.Live); live {
			return "live"
		}
		return every("edits, every ", c.EditEvery)
	})
	row("shows that it writes", func(_ platform.Adapter, c platform.Capabilities) string { return yes(c.TypingEvery > 0) })
	row("reactions", func(_ platform.Adapter, c platform.Capabilities) string { return yes(c.Reacts) })
	row("buttons", func(_ platform.Adapter, c platform.Capabilities) string { return yes(c.Buttons) })
	row("threads", func(_ platform.Adapter, c platform.Capabilities) string { return yes(c.Threads) })
	row("files in", func(a platform.Adapter, c platform.Capabilities) string {
		if _, fetches := a.(platform.Fetcher); !fetches {
			return "–"
		}
		if c.MaxDownload == 0 {
			return size(mostInbound)
		}
		return size(min(c.MaxDownload, mostInbound))
	})
	row("files out", func(_ platform.Adapter, c platform.Capabilities) string {
		if c.MaxUpload == 0 {
			return "–"
		}
		return size(c.MaxUpload)
	})
	row("native list of commands", func(a platform.Adapter, c platform.Capabilities) string {
		_, menu := a.(platform.Menu)
		return yes(menu && c.CommandSign == "")
	})
	row("chats by name", func(a platform.Adapter, _ platform.Capabilities) string {
		_, lists := a.(platform.Directory)
		return yes(lists)
	})
	row("messages a second", func(_ platform.Adapter, c platform.Capabilities) string {
		if c.PerSecond == 0 {
			return "no limit"
		}
		return strconv.Itoa(c.PerSecond)
	})
	row("knows a repetition", func(_ platform.Adapter, c platform.Capabilities) string {
		switch c.Idempotency {
		case platform.IdempotencyAlways:
			return "yes"
		case platform.IdempotencyWindow:
			return "for " + span(c.IdempotencyFor)
		}
		return "–"
	})
	b.WriteString("\n|  | while hermes is down, is answered later | is not had back | an answer is seen twice |\n|---|---|---|---|\n")
	for _, n := range names {
		away := all[n].Capabilities().Away
		twice := away.Twice
		if twice == "" {
			twice = "never"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", n, away.Kept, away.Lost, twice)
	}
	return b.String() + "\n"
}

// mostInbound is what the centre takes of one file, on every platform.
const mostInbound = 128 << 20

func lengthOf(c platform.Capabilities) string {
	unit := map[platform.LengthUnit]string{platform.Runes: "characters", platform.UTF16: "UTF-16 units", platform.Bytes: "bytes"}[c.Unit]
	return strconv.Itoa(c.MaxText) + " " + unit
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "–"
}

func every(what string, d time.Duration) string {
	if d == 0 {
		return "–"
	}
	return what + span(d)
}

func span(d time.Duration) string {
	if d >= time.Minute && d%time.Minute == 0 {
		return strconv.Itoa(int(d/time.Minute)) + " min"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + " s"
}

func size(n int64) string {
	if n >= 1<<30 && n%(1<<30) == 0 {
		return strconv.FormatInt(n>>30, 10) + " GiB"
	}
	return strconv.FormatInt(n>>20, 10) + " MiB"
}
