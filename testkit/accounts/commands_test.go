package accounts

import (
	"strings"
	"testing"
	"time"

	"hermes/internal/platform"
)

// TestEveryNameCanBeTyped types commands that stand in no menu, other names of
// commands and the operator's own, as people type commands on each platform: they
// come as commands.
func TestEveryNameCanBeTyped(t *testing.T) {
	for _, name := range senders() {
		t.Run(name, func(t *testing.T) {
			listen(t, name, func(t *testing.T, l listening) {
				names := []platform.Command{{Name: "new", Description: "begin anew"}, {Name: "reset", Unlisted: true}, {Name: "set-home", Unlisted: true}, {Name: "gs", Unlisted: true}}
				if m, ok := l.Adapter.(platform.Menu); ok {
					if err := m.SetCommands(t.Context(), names); err != nil {
						t.Fatal(err)
					}
				}
				sign := l.Capabilities().CommandSign
				if sign == "" {
					sign = "/"
				}
				for _, c := range names {
					before := len(l.in.Events())
					l.chat.Say(sign + c.Name + " now")
					time.Sleep(time.Minute)
					got := l.in.Events()[before:]
					if len(got) != 1 || !strings.HasPrefix(strings.TrimSpace(strings.TrimPrefix(got[0].Text, "Subject: a question")), "/"+c.Name+" now") {
						t.Errorf("%s%s came as %+v", sign, c.Name, got)
					}
				}
			})
		})
	}
}
