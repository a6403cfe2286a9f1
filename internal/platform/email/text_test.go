package email_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"hermes/internal/platform/email"
)

func TestHTMLText(t *testing.T) {
	for page, want := range map[string]string{
		"<html><head><title>x</title><style>p{}</style></head><body><p>Hello&nbsp;<b>you</b></p><p>a<br>b</p></body>": "Hello you\n\na\nb",
		"<ul><li>one<li>two</ul>": "- one\n- two",
		`<a href="https://example.com/x">here</a> <a href="javascript:x">no</a>`: "here (https://example.com/x) no",
		"text<script>alert(1)</script><blockquote>old<br>older</blockquote>":     "text\n> old\n> older",
		"<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>":        "a b\nc",
		"&lt;b&gt; 1 &lt; 2": "<b> 1 < 2",
	} {
		if got := email.HTMLText(page, 10_000); got != want {
			t.Errorf("%s\n got %q\nwant %q", page, got, want)
		}
	}
}

func TestTrimQuoted(t *testing.T) {
	for mail, want := range map[string]string{
		"Yes.\n\nOn Mon, 1 Jan 2026 at 10:00, Ann <a@b.c> wrote:\n> question\n> more\n":         "Yes.",
		"Yes.\n\nOn Mon, 1 Jan 2026 at 10:00, A Very Long Name\n<a@b.c> wrote:\n\n> question\n": "Yes.",
		"Ja.\n\nAm 1.1.2026 um 10:00 schrieb Ann:\n> frage\n":                                   "Ja.",
		"Yes.\n\n-----Original Message-----\nFrom: Ann\n":                                       "Yes.",
		"Yes.\n\nFrom: Ann <a@b.c>\nSent: Monday\nTo: x\nSubject: y\n\nquestion":                "Yes.",
		"Yes.\n-- \nAnn\nCEO":                                                    "Yes.",
		"> what is it?\nAn answer.\n> and this?\nAnother.":                       "> what is it?\nAn answer.\n> and this?\nAnother.",
		"> only a quotation":                                                     "> only a quotation",
		"See:\n\n---------- Forwarded message ---------\nFrom: x@y.z\n> a\n":     "See:\n\n---------- Forwarded message ---------\nFrom: x@y.z\n> a",
		"My list:\n> not said by a mail program":                                 "My list:",
		"Keep this line\nLe 1 janv. 2026 à 10:00, Ann a écrit :\n\n> question\n": "Keep this line",
	} {
		if got := email.TrimQuoted(mail); got != want {
			t.Errorf("%q\n got %q\nwant %q", mail, got, want)
		}
	}
}

func TestUnflow(t *testing.T) {
	for text, want := range map[string]string{
		"one \nline\nand another": "one line\nand another",
		"one \n> quoted \n> more": "one \n> quoted \n> more",
		" From here \non":         "From here on",
		"the end \n-- \nAnn":      "the end \n-- \nAnn",
		"last ":                   "last ",
		"":                        "",
	} {
		if got := email.Unflow(text, false); got != want {
			t.Errorf("%q\n got %q\nwant %q", text, got, want)
		}
	}
}

func TestPassedDMARC(t *testing.T) {
	for header, want := range map[string]bool{
		"mx.a.test; dmarc=pass header.from=b.test":                       true,
		"MX.A.TEST 1; dkim=fail; dmarc=pass (p=none) header.from=b.test": true,
		"mx.a.test; dmarc=pass header.from=sub.b.test":                   false,
		"mx.a.test; dmarc=pass header.from=test":                         false,
		"mx.a.test; dmarc=pass":                                          true,
		"mx.a.test; dmarc=fail":                                          false,
		"mx.a.test; x=\"; dmarc=pass\"":                                  false,
		"mx.a.test; (; dmarc=pass":                                       false,
		"other; dmarc=pass header.from=b.test":                           false,
		"":                                                               false,
	} {
		if got := email.PassedDMARC([]string{header}, "mx.a.test", "b.test"); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
	if !email.PassedDMARC([]string{"other; dmarc=fail", "mx.a.test; dmarc=pass header.from=b.test"}, "mx.a.test", "sub.b.test") {
		t.Error("the organisation's domain is not taken for its parts")
	}
}

// FuzzText feeds texts and pages: what comes out can be stored and is bounded.
func FuzzText(f *testing.F) {
	f.Add("<p>a<blockquote>b", "mx; dmarc=pass")
	f.Add("x\n> y\nOn 1:\n> z", "(((\"\\")
	f.Fuzz(func(t *testing.T, text, header string) {
		out := email.HTMLText(text, 1000)
		if !utf8.ValidString(out) || strings.ContainsRune(out, 0) || len(out) > 1000+24*len(text)+64 {
			t.Fatalf("%d bytes of %d: %q", len(out), len(text), out)
		}
		if got := email.TrimQuoted(text); len(got) > len(text) || strings.TrimSpace(text) != "" && got == "" {
			t.Fatalf("%q became %q", text, got)
		}
		if email.PassedDMARC([]string{header}, "a-server-that-nobody-writes", "b.test") {
			t.Fatalf("%q passed", header)
		}
	})
}
