package delivery

import "testing"

func TestCommandsAreWrittenAsTheyAreTyped(t *testing.T) {
	names := []string{"approve", "stop", "help"}
	for text, want := range map[string]string{
		"Answer with /approve, /approve session or (/stop).": "Answer with !approve, !approve session or (!stop).",
		"/help":                            "!help",
		"`/stop` ends it":                  "`!stop` ends it",
		"see /tmp and /stop/it and a/stop": "see /tmp and /stop/it and a/stop",
		"run\n```\necho /stop\n```\n/stop": "run\n```\necho /stop\n```\n!stop",
		"/stopping":                        "/stopping",
	} {
		if got := typed(text, names, "!"); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
		if got := typed(text, names, ""); got != text {
			t.Errorf("%q became %q where a slash is typed", text, got)
		}
	}
}
