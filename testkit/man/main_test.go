package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/cli"
)

// TestManual holds that every command that help shows has a page that a
// manual reader renders without a complaint.
func TestManual(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("no groff here (Debian's groff-base has it), so the pages cannot be rendered")
	}
	dir := t.TempDir()
	if err := write(dir, "1.2.3", time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	pages := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if c.HasParent() && !c.IsAvailableCommand() {
			return
		}
		pages++
		page := filepath.Join(dir, strings.ReplaceAll(c.CommandPath(), " ", "-")+".1")
		cmd := exec.Command(groff, "-k", "-man", "-rHY=0", "-ww", "-Tutf8", "-P-cbou", page)
		var complaints strings.Builder
		cmd.Stderr = &complaints
		text, err := cmd.Output()
		if err != nil || complaints.Len() > 0 {
			t.Errorf("%s: %v\n%s", page, err, &complaints)
		}
		for _, want := range []string{"NAME", strings.ReplaceAll(c.Short, "`", ""), "hermes 1.2.3", "2023"} {
			if !strings.Contains(strings.Join(strings.Fields(string(text)), " "), strings.Join(strings.Fields(want), " ")) {
				t.Errorf("%s does not say %q", page, want)
			}
		}
	}
	walk(cli.Tree())
	if files, err := os.ReadDir(dir); err != nil || len(files) != pages || pages < 50 {
		t.Errorf("%d pages for %d commands (%v)", len(files), pages, err)
	}
}

func TestBuildDate(t *testing.T) {
	now := time.Unix(5, 0)
	for epoch, want := range map[string]time.Time{"": now, "1700000000": time.Unix(1_700_000_000, 0).UTC()} {
		if got, err := buildDate(epoch, now); err != nil || !got.Equal(want) {
			t.Errorf("buildDate(%q) = %v, %v; want %v", epoch, got, err, want)
		}
	}
	if _, err := buildDate("yesterday", now); err == nil {
		t.Error("a date that is no number was taken")
	}
}
