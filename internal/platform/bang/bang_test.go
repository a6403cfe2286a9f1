package bang_test

import (
	"testing"

	"hermes/internal/platform"
	"hermes/internal/platform/bang"
)

func TestRead(t *testing.T) {
	var c bang.Commands
	if got := c.Read("!stop"); got != "!stop" || c.Has("stop") {
		t.Errorf("before there are commands: %q", got)
	}
	c.Set([]platform.Command{{Name: "Stop"}, {Name: "reload-mcp"}})
	for text, want := range map[string]string{
		"!stop": "/stop", "!STOP now": "/STOP now", "!stop\nand more": "/stop\nand more", "!reload-mcp": "/reload-mcp",
		"!stopped": "!stopped", "!": "!", "": "", "! stop": "! stop", "stop!": "stop!", " !stop": " !stop", "/stop": "/stop", "!!stop": "!!stop",
	} {
		if got := c.Read(text); got != want {
			t.Errorf("%q is read as %q, want %q", text, got, want)
		}
	}
	c.Set(nil)
	if c.Has("stop") {
		t.Error("a command that is gone is known")
	}
}
