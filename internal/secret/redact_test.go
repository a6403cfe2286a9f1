package secret

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

func TestRedactPatterns(t *testing.T) {
	const bot = "123456789:AAExampleExampleExampleExampleExampl"
	tests := []struct{ name, in, want string }{
		{"bearer", "Authorization: Bearer abcdef123456", "Authorization: Bearer <secret>"},
		{"basic", "authorization: basic dXNlcjpwYXNz", "authorization: basic <secret>"},
		{"openai", "key sk-proj-abcdefghijkl1234 used", "key <secret> used"},
		{"slack", "xoxb-1234-abcdefgh and xapp-1-A-123456", "<secret> and <secret>"},
		{"telegram", "token " + bot + " refused", "token <secret> refused"},
		{"telegram path", "GET https://api.telegram.org/bot" + bot + "/getMe: EOF", "GET https://api.telegram.org/bot<secret>/getMe: EOF"},
		{"github", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "<secret>"},
		{"jwt", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "<secret>"},
		{"userinfo", "postgres://hermes:hunter2@db/ledger", "postgres://hermes:<secret>@db/ledger"},
		{"query", "https://x/y?api_key=abcdef12&b=2", "https://x/y?api_key=<secret>&b=2"},
		{"assignment", "OPENROUTER_API_KEY=abcdef12 hermes", "OPENROUTER_API_KEY=<secret> hermes"},
		{"json", `{"access_token":"abcdef123","n":1}`, `{"access_token":"<secret>","n":1}`},
		{"json in a quoted value", `body="{\"api_key\":\"abcdef123\"}"`, `body="{\"api_key\":\"<secret>\"}"`},
		{"other cases", "apiKey=abcdef12 API_KEY=abcdef12 Password=abcdef12", "apiKey=<secret> API_KEY=<secret> Password=<secret>"},
		{"short bot token look-alike", "at 06:00:00 1234567:tooshort", "at 06:00:00 1234567:tooshort"},
		{"ordinary", "2026-11-22 06:00:00,123 INFO gateway: max_tokens=4096 at 12:30", "2026-11-22 06:00:00,123 INFO gateway: max_tokens=4096 at 12:30"},
		{"ordinary url", "http://127.0.0.1:8642/health?session=20261122_060000", "http://127.0.0.1:8642/health?session=20261122_060000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r *Redactor
			got := r.Redact(tt.in)
			if got != tt.want {
				t.Fatalf("Redact(%q)\n got %q\nwant %q", tt.in, got, tt.want)
			}
			if again := r.Redact(got); again != got {
				t.Errorf("a second pass changed it to %q", again)
			}
		})
	}
}

func TestRedactKnown(t *testing.T) {
	r := NewRedactor("hunter22", "hunter22-and-longer", "p@ss w/rd\n2", "abc")
	tests := []struct{ name, in, want string }{
		{"plain", "pw hunter22!", "pw <secret>!"},
		{"the longer of two wins", "pw hunter22-and-longer!", "pw <secret>!"},
		{"in a query", "u=p%40ss+w%2Frd%0A2", "u=<secret>"},
		{"quoted", `v="p@ss w/rd\n2"`, `v="<secret>"`},
		{"too short to be looked for", "abc", "abc"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := r.Redact(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRedactURL(t *testing.T) {
	r := NewRedactor()
	for in, want := range map[string]string{
		"https://u:pw@host/x":            "https://u:<secret>@host/x",
		"https://host/x?token=abcdefghi": "https://host/x?token=<secret>",
		"http://[::1":                    "http://[::1",
	} {
		if got := r.RedactURL(in); got != want {
			t.Errorf("RedactURL(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestAttrRedactsErrors(t *testing.T) {
	var out bytes.Buffer
	r := NewRedactor("hunter22")
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: r.Attr}))
	log.Info("login with hunter22", "err", errors.New("bad password hunter22"), "n", 3)
	if s := out.String(); strings.Contains(s, "hunter22") || strings.Count(s, Mask) != 2 || !strings.Contains(s, "n=3") {
		t.Errorf("logged %q", s)
	}
}

func TestWriterSeesASecretAcrossWrites(t *testing.T) {
	var out bytes.Buffer
	w := NewRedactor("hunter22").Writer(&out)
	for _, piece := range []string{"one hun", "ter22 two\nthree hunt", "er22"} {
		if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "one <secret> two\nthree <secret>"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWriterIsBounded(t *testing.T) {
	var out bytes.Buffer
	w := NewRedactor().Writer(&out)
	if _, err := w.Write(make([]byte, maxHeld+1)); err != nil {
		t.Fatal(err)
	}
	if len(w.held) != 0 || out.Len() != maxHeld+1 {
		t.Errorf("held %d bytes, passed on %d", len(w.held), out.Len())
	}
}

func TestConcurrentAdd(t *testing.T) {
	r := NewRedactor()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			s := "secret-number-" + string(rune('a'+i))
			r.Add(s)
			if got := r.Redact(s); got != Mask {
				t.Errorf("Redact right after Add gave %q", got)
			}
		})
	}
	wg.Wait()
}

func FuzzRedact(f *testing.F) {
	f.Add("a hunter22 b", "hunter22")
	f.Add("?token=abcdef", "tok\"en\n")
	f.Fuzz(func(t *testing.T, text, known string) {
		known = strings.TrimSpace(known)
		if len(known) < minKnown || strings.ContainsAny(known, "<>") || strings.Contains(Mask, known) {
			t.Skip()
		}
		if got := NewRedactor(known).Redact(text + known); strings.Contains(strings.ReplaceAll(got, Mask, "\x00"), known) {
			t.Errorf("%q is still in %q", known, got)
		}
	})
}

func BenchmarkRedactLine(b *testing.B) {
	r := NewRedactor("hunter22", "another-secret-value", "sk-abcdefghijklmnop")
	line := "2026-11-22 06:00:00,123 INFO [20261122_060000_abcdef01] conversation: turn finished duration=1.2s tokens=1234 url=https://openrouter.ai/api/v1"
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		r.Redact(line)
	}
}
