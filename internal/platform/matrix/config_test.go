package matrix_test

import (
	"strings"
	"testing"

	"hermes/internal/platform/matrix"
)

func TestConfiguration(t *testing.T) {
	c, err := matrix.FromProfile(profile(map[string]string{"base_url": "https://m.example.org/_matrix/client/", "auto_thread": "false", "free_response_rooms": "#a, !b:c"}))
	if err != nil || c.OwnThreads || len(c.Free) != 2 || !c.RequireMention {
		t.Errorf("%+v, %v", c, err)
	}
	for scope, want := range map[string][2]bool{"": {true, false}, "auto": {true, false}, "room": {false, false}, "thread": {true, true}} {
		c, err := matrix.FromProfile(profile(map[string]string{"base_url": "https://m.example.org", "session_scope": scope}))
		if err != nil || c.OwnThreads != want[0] || c.DirectThreads != want[1] {
			t.Errorf("%q: %+v, %v", scope, c, err)
		}
	}
	p := profile(map[string]string{"base_url": "matrix.example.org", "user_id": "@hermes", "encryption": "maybe", "catch_up": "soon", "session_scope": "x", "proxy": "x"})
	p.MentionPatterns = []string{"("}
	_, err = matrix.FromProfile(p)
	for _, want := range []string{"MATRIX_HOMESERVER", "MATRIX_USER_ID", "MATRIX_ENCRYPTION", "catch_up", "MATRIX_SESSION_SCOPE", "proxy", "mention pattern"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing is said of %s: %v", want, err)
		}
	}
	p = profile(map[string]string{"base_url": "https://m.example.org"})
	p.Token = ""
	if _, err := matrix.FromProfile(p); err == nil || !strings.Contains(err.Error(), "MATRIX_PASSWORD") {
		t.Errorf("without credentials: %v", err)
	}
	p.Extra["user_id"], p.Extra["password"] = "hermes", "p"
	if _, err := matrix.FromProfile(p); err != nil {
		t.Errorf("with a password: %v", err)
	}
	if id := matrix.Identity(p); !strings.Contains(id, "hermes") || strings.Contains(id, "p ") {
		t.Errorf("the lock is about %q", id)
	}
	p.Token = "syt bad"
	if _, err := matrix.FromProfile(p); err == nil || strings.Contains(err.Error(), "syt bad") {
		t.Errorf("a bad token: %v", err)
	}
}
