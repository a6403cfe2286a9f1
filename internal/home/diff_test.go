package home

import (
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	a := Files{Env: []byte("A=1\n# TELEGRAM_BOT_TOKEN=999:old-secret\nTELEGRAM_BOT_TOKEN=123:first-secret\nB=2\n"), Config: []byte("model:\n  default: a\n  api_key: sk-first\n")}
	b := Files{Env: []byte("A=1\n# TELEGRAM_BOT_TOKEN=999:old-secret\nTELEGRAM_BOT_TOKEN=123:other-secret\nB=3\n"), Config: []byte("model:\n  default: b\n  api_key: sk-first\n")}
	got := Diff("1", "now", a, b)
	want := `--- .env (1)
+++ .env (now)
@@ line 1 @@
 A=1
 # TELEGRAM_BOT_TOKEN=<secret>
-TELEGRAM_BOT_TOKEN=<secret>
-B=2
+TELEGRAM_BOT_TOKEN=<secret>
+B=3
--- config.yaml (1)
+++ config.yaml (now)
@@ line 1 @@
 model:
-  default: a
+  default: b
   api_key: <secret>
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if Diff("a", "b", a, a) != "" {
		t.Error("equal texts differ")
	}
	if got := Diff("1", "2", Files{}, Files{Env: []byte("A=1\n")}); !strings.Contains(got, ".env (1, absent)") || !strings.Contains(got, "+A=1") {
		t.Errorf("%s", got)
	}
}

// No way of writing a secret down shows it.
func TestDiffShowsNoSecret(t *testing.T) {
	for _, config := range []string{
		"api_key: S3CRET\n", "  \"api_key\": 'S3CRET'\n", "m: {name: x, api_key: S3CRET, other: y}\n", "token: |\n  S3CRET\n  S3CRET\n",
		"token:\n  S3CRET\n", "password: >-\n\n    S3CRET\n", "key: \"abc\n  S3CRET\"\n", "- token: S3CRET\n", "# api_key: S3CRET\n", "[broken\napi_key: S3CRET\n",
		"tokens:\n  - S3CRET\n  - S3CRET\nx: 1\n", "TELEGRAM_BOT_TOKEN = S3CRET\n", "client_secret:S3CRET\n", "api_key : S3CRET\n",
		"gateway:\n  heartbeat_url: https://hc.example/S3CRET\n", "email: {user: a, pass: S3CRET}\n", "headers:\n  x-auth: S3CRET\n",
		"api_keys:\n- S3CRET\n- S3CRET\n", "keys: [\nS3CRET,\n]\n",
	} {
		if got := Diff("a", "b", Files{}, Files{Config: []byte(config)}); strings.Contains(got, "S3CRET") {
			t.Errorf("%q is shown as\n%s", config, got)
		}
	}
	for _, env := range []string{
		"A_TOKEN=S3CRET\n", "export A_KEY='S3CRET'\n", "#A_SECRET=S3CRET\n", "A_PASSWORD=\"x\nS3CRET\"\n", "EMAIL_PASSWORD =S3CRET\n", "A_KEY=a\\\nS3CRET\n",
		"X=1 A_TOKEN=S3CRET\n", "EMAIL_PASS=S3CRET\n", "BASIC_AUTH=S3CRET\n",
	} {
		if got := Diff("a", "b", Files{}, Files{Env: []byte(env)}); strings.Contains(got, "S3CRET") {
			t.Errorf("%q is shown as\n%s", env, got)
		}
	}
}

// What follows a secret is shown again.
func TestDiffShowsWhatFollows(t *testing.T) {
	got := Diff("a", "b", Files{}, Files{Config: []byte("api_keys:\n- S3CRET\n- S3CRET\nmodel:\n  default: shown\nauthor: me\n")})
	if strings.Contains(got, "S3CRET") || !strings.Contains(got, "default: shown") || !strings.Contains(got, "author: me") {
		t.Errorf("%s", got)
	}
}

func FuzzDiff(f *testing.F) {
	f.Add("a\nb\nc\n", "a\nx\nc\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		got := Diff("a", "b", Files{Config: []byte(a)}, Files{Config: []byte(b)})
		if (got == "") != (a == b) {
			t.Errorf("%q and %q: %q", a, b, got)
		}
	})
}
