package markup

import (
	"flag"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/rivo/uniseg"

	"hermes/internal/platform"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	slack    = platform.Capabilities{MaxText: 3500, Unit: platform.UTF16, Dialect: platform.DialectMrkdwn}
	matrix   = platform.Capabilities{MaxText: 3500, Unit: platform.Runes, Dialect: platform.DialectMatrixHTML}
	telegram = platform.Capabilities{MaxText: 4096, Unit: platform.UTF16, Dialect: platform.DialectTelegramHTML}
	discord  = platform.Capabilities{MaxText: 2000, Unit: platform.Runes, Dialect: platform.DialectMarkdown}
	sms      = platform.Capabilities{MaxText: 1600, Unit: platform.Runes, Dialect: platform.DialectPlain}
)

func limited(c platform.Capabilities, n int) platform.Capabilities {
	c.MaxText = n
	return c
}

// TestGolden renders each testdata/*.md for each dialect, at a limit that
// splits the longer ones.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	for _, file := range files {
		md, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".md")
		t.Run(name, func(t *testing.T) {
			var got strings.Builder
			for _, caps := range []platform.Capabilities{telegram, discord, slack, matrix, sms} {
				for i, p := range Render(string(md), limited(caps, 400)) {
					if i > 0 {
						got.WriteString("\n――――――――――――――――――――")
					} else {
						got.WriteString("\n════════ " + string(caps.Dialect))
					}
					got.WriteString("\n" + p.Text)
				}
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got.String()); d != "" {
				t.Errorf("%s differs (-want +got):\n%s", golden, d)
			}
		})
	}
}

// TestTelegram shows what becomes of each construct.
func TestTelegram(t *testing.T) {
	tests := []struct{ name, md, want string }{
		{"emphasis", "**b** *i* ***bi*** ~~s~~ <u>u</u>", "<b>b</b> <i>i</i> <i><b>bi</b></i> <s>s</s> <u>u</u>"},
		{"escapes", `a < b && c > d "q"`, `a &lt; b &amp;&amp; c &gt; d "q"`},
		{"references", `&lt;x&gt; \&lt; &copy; &nope;`, `&lt;x&gt; &amp;lt; © &amp;nope;`},
		{"inline code", "use `a < b`", "use <code>a &lt; b</code>"},
		{"heading", "# One\ntext", "<b>One</b>\ntext"},
		{"bold in heading", "# One **two**", "<b>One two</b>"},
		{"fence", "```go\nx := 1 < 2\n\n```", "<pre><code class=\"language-go\">x := 1 &lt; 2</code></pre>"},
		{"fence without language", "```\nx\n```\n\nafter", "<pre>x</pre>\n\nafter"},
		{"odd language", "```a\"b<c\nx\n```", "<pre><code class=\"language-a\">x</code></pre>"},
		{"unclosed fence", "see\n```py\nprint(1)", "see\n<pre><code class=\"language-py\">print(1)</code></pre>"},
		{"link", `[t](https://e.x/?a=1&amp;b="2")`, `<a href="https://e.x/?a=1&amp;b=&quot;2&quot;">t</a>`},
		{"link with parens", "[t](https://e.x/a_(b))", `<a href="https://e.x/a_(b)">t</a>`},
		{"relative link", "[t](./a.go#L1)", "t (./a.go#L1)"},
		{"script link", "[t](javascript:alert(1))", "t (javascript:alert(1))"},
		{"code in link", "[`t`](https://e.x)", `<a href="https://e.x">t</a>`},
		{"image", "![alt](https://e.x/i.png)", `<a href="https://e.x/i.png">alt</a>`},
		{"image without text", "![](https://e.x/i.png)", `<a href="https://e.x/i.png">image</a>`},
		{"bare link", "see https://e.x/a_b_c.", `see <a href="https://e.x/a_b_c">https://e.x/a_b_c</a>.`},
		{"mail", "me@e.x", "me@e.x"},
		{"reference link stays", "[t][1]\n\n[1]: https://e.x", "[t][1]\n\n[1]: <a href=\"https://e.x\">https://e.x</a>"},
		{"list", "- a\n- b\n  - c\n    - d\n\n3. x\n4. y", "• a\n• b\n  ◦ c\n    ▪ d\n\n3. x\n4. y"},
		{"empty item", "- a\n-\n- c", "• a\n• \n• c"},
		{"list in list", "- - a", "• ◦ a"},
		{"item with two paragraphs", "1. a\n\n   b", "1. a\n\n   b"},
		{"code in list", "- a\n  ```sh\n  ls\n    x\n  ```\n- b", "• a\n<pre><code class=\"language-sh\">ls\n  x</code></pre>\n• b"},
		{"code first in item", "- ```\n  ls\n  ```", "• \n<pre>ls</pre>"},
		{"tasks", "- [x] a\n- [ ] b", "• ☑ a\n• ☐ b"},
		{"quote", "> a\n> b\n\nc", "<blockquote>a\nb</blockquote>\n\nc"},
		{"nested quote", "> a\n> > b", "<blockquote>a\n&gt; b</blockquote>"},
		{"quote with code", "> ```\n> x\n> ```", "<blockquote><pre>x</pre></blockquote>"},
		{"rule", "a\n\n---\n\nb", "a\n\n──────────\n\nb"},
		{"html", "<div>x</div> <!-- c -->", "&lt;div&gt;x&lt;/div&gt; &lt;!-- c --&gt;"},
		{"generic type", "Vec<T> and Map<K, V>", "Vec&lt;T&gt; and Map&lt;K, V&gt;"},
		{"br", "a<br>b<br/>c", "a\nb\nc"},
		{"hard break", "a  \nb\\\nc", "a\nb\nc"},
		{"table", "| a | bb |\n|--|--:|\n| 日本 | 1 |\n| x | 22 |", "<pre>a    │ bb\n─────┼───\n日本 │  1\nx    │ 22</pre>"},
		{"pipe in table", "| a |\n|--|\n| `x\\|y` |", "<pre>a\n───\nx|y</pre>"},
		{"link in table", "| a |\n|--|\n| [t](https://e.x) |", "<pre>a\n───────────────\nt (https://e.x)</pre>"},
		{"partial bold", "so **far", "so **far"},
		{"partial link", "see [here](https://e.", "see [here](https://e."},
		{"control characters", "a\x00b\x1b[31mc\r\nd", "ab[31mc\nd"},
		{"bad UTF-8", "a\xffb", "a\uFFFDb"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parts := Render(tt.md, telegram)
			if len(parts) != 1 {
				t.Fatalf("%d parts: %+v", len(parts), parts)
			}
			if parts[0].Text != tt.want {
				t.Errorf("\n got %q\nwant %q", parts[0].Text, tt.want)
			}
			if !parts[0].Markup {
				t.Error("not said to be markup")
			}
		})
	}
}

func TestPlain(t *testing.T) {
	tests := []struct{ md, want string }{
		{"**b** [t](https://e.x) https://e.y", "b t (https://e.x) https://e.y"},
		{"> a\n> b", "> a\n> b"},
		{"# H\n\n- a\n  ```\n  x\n   y\n  ```", "H\n\n• a\n  x\n   y"},
	}
	for _, tt := range tests {
		parts := Render(tt.md, sms)
		if len(parts) != 1 || parts[0].Text != tt.want || parts[0].Plain != tt.want || parts[0].Markup {
			t.Errorf("%q: got %+v, want %q", tt.md, parts, tt.want)
		}
	}
	got := Render("**b** [t](https://e.x) and `c`", telegram)[0].Plain
	if want := "b t (https://e.x) and c"; got != want {
		t.Errorf("plain of a Telegram part: got %q, want %q", got, want)
	}
}

func TestNothingToShow(t *testing.T) {
	for _, md := range []string{"", " \n\t\n", "\u200b\u200d", "```\n```"} {
		for _, caps := range []platform.Capabilities{telegram, sms} {
			if parts := Render(md, caps); len(parts) != 0 {
				t.Errorf("%q in %s: %+v", md, caps.Dialect, parts)
			}
		}
	}
}

// TestCutPlaces shows where a text is cut, at a limit of 128.
func TestCutPlaces(t *testing.T) {
	words := strings.Repeat("word ", 20)
	tests := []struct {
		name, md string
		ends     []string // how the parts end
	}{
		{"paragraph", words + "end.\n\n" + words + "last", []string{"end.", "last"}},
		{"line", words + "end\n" + words + "last", []string{"end", "last"}},
		{"sentence", words + "An end. W" + words + "last", []string{"An end.", "last"}},
		{"word", strings.Repeat("word ", 40) + "last", []string{"word", "last"}},
		{"no space", strings.Repeat("x", 200), []string{"x", "x"}},
		{"not in a link", words + "[a link with quite some text in it](https://e.x) last", []string{"word", "last"}},
		{"not in code", words + "`some code with quite some text in it` last", []string{"word", "last"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var ends []string
			parts := Render(tt.md, limited(telegram, 128))
			for i, p := range parts {
				if i < len(tt.ends) && strings.HasSuffix(p.Plain, tt.ends[i]) {
					ends = append(ends, tt.ends[i])
				} else {
					ends = append(ends, p.Plain)
				}
			}
			if d := cmp.Diff(tt.ends, ends); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestFenceIsClosedAndReopened(t *testing.T) {
	code := strings.TrimSpace(strings.Repeat("\tx := 1 // a line\n", 30))
	for _, md := range []string{"```go\n" + code + "\n```", "intro\n\n~~~go\n" + code + "\n~~~\n\nend", "- a\n  ```go\n  " + code + "\n  ```\n"} {
		for i, p := range Render(md, limited(telegram, 200)) {
			if strings.Contains(p.Text, "x :=") && (!strings.Contains(p.Text, `<pre><code class="language-go">`) || !strings.Contains(p.Text, "</code></pre>")) {
				t.Errorf("telegram part %d: %q", i, p.Text)
			}
		}
		for i, p := range Render(md, limited(discord, 200)) {
			if n := len(fences(p.Text)); strings.Contains(p.Text, "x :=") && (n != 1 || unclosed(p.Text) != "" || fences(p.Text)[0].info != "go") {
				t.Errorf("markdown part %d of %q: %q", i, md[:10], p.Text)
			}
		}
	}
}

func TestMarkdownStaysAsItIs(t *testing.T) {
	md := "# H\n\n*x* [a](b)\n\n| a |\n|---|\n| 1 |\n\n```\ncode\n```"
	parts := Render(md, discord)
	if len(parts) != 1 || parts[0].Text != md || !parts[0].Markup {
		t.Errorf("got %+v", parts)
	}
	md = strings.Repeat("w ", 60) + "**bold words here** and [a link](https://e.x/y) " + strings.Repeat("w ", 60)
	for _, p := range Render(md, limited(discord, 150)) {
		if strings.Count(p.Text, "**")%2 != 0 || strings.Count(p.Text, "[") != strings.Count(p.Text, ")") {
			t.Errorf("cut within a construct: %q", p.Text)
		}
	}
}

func TestTail(t *testing.T) {
	md := strings.Repeat("A sentence of some length. ", 40) + "**the end"
	p := Tail(md, " ▉", limited(telegram, 300))
	if !strings.HasSuffix(p.Text, "**the end ▉") || Len(p.Plain, platform.UTF16) > 300 {
		t.Errorf("got %q", p.Text)
	}
	if p := Tail("```go\nx", " ▉", telegram); p.Text != "<pre><code class=\"language-go\">x ▉</code></pre>" {
		t.Errorf("in code: %q", p.Text)
	}
	if p := Tail("[a](https://e.x)", " ▉", telegram); p.Text != `<a href="https://e.x">a</a> ▉` {
		t.Errorf("after a link: %q", p.Text)
	}
}

func TestEscape(t *testing.T) {
	for _, s := range []string{"ls -la | grep `x` && rm *_*", "# no heading", "[a](b) <b> &lt; ~~x~~ \\"} {
		if got := Render(Escape(s), sms); len(got) != 1 || got[0].Text != s {
			t.Errorf("%q became %+v", s, got)
		}
	}
}

func TestExtractMedia(t *testing.T) {
	tests := []struct {
		text, rest string
		paths      []string
	}{
		{"hello", "hello", nil},
		{"MEDIA:/a/b.png", "", []string{"/a/b.png"}},
		{"Here:\nMEDIA:/a b.png\nMEDIA: `/c.ogg`\nMEDIA:/a b.png\nbye", "Here:\nbye", []string{"/a b.png", "/c.ogg"}},
		{"MEDIA:relative.png", "MEDIA:relative.png", nil},
		{"in a line MEDIA:/x", "in a line MEDIA:/x", nil},
		{"```\nMEDIA:/x\n```", "```\nMEDIA:/x\n```", nil},
	}
	for _, tt := range tests {
		rest, paths := ExtractMedia(tt.text)
		if rest != tt.rest || !slices.Equal(paths, tt.paths) {
			t.Errorf("%q: got %q %q", tt.text, rest, paths)
		}
	}
}

var tagPattern = regexp.MustCompile(`<(/?)(b|i|u|s|pre|code|a|blockquote)( href="[^"<>]*"| class="language-[^"<>]*")?>`)

// checkTelegram checks that a text is what Telegram's parser takes, and gives
// what a reader sees.
func checkTelegram(t *testing.T, s string) string {
	t.Helper()
	var open []string
	rest := tagPattern.ReplaceAllStringFunc(s, func(tag string) string {
		m := tagPattern.FindStringSubmatch(tag)
		switch {
		case m[1] == "":
			open = append(open, m[2])
		case len(open) == 0 || open[len(open)-1] != m[2]:
			t.Fatalf("%s closes %v in %q", tag, open, s)
		default:
			open = open[:len(open)-1]
		}
		return ""
	})
	if len(open) > 0 {
		t.Fatalf("%v are not closed in %q", open, s)
	}
	if strings.ContainsAny(rest, "<>") {
		t.Fatalf("unescaped < or > in %q", s)
	}
	return html.UnescapeString(rest)
}

func squeeze(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.In(r, unicode.Cf) {
			return -1
		}
		return r
	}, s)
}

// checkParts holds parts to every promise of the package.
func checkParts(t *testing.T, md string, caps platform.Capabilities) {
	t.Helper()
	parts := Render(md, caps)
	limit := max(caps.MaxText, minText)
	var seen strings.Builder
	for i, p := range parts {
		for _, s := range []string{p.Text, p.Plain} {
			if !utf8.ValidString(s) {
				t.Fatalf("part %d is no UTF-8: %q", i, s)
			}
		}
		text := p.Text
		if caps.Dialect == platform.DialectTelegramHTML {
			text = checkTelegram(t, p.Text)
		}
		if caps.Dialect == platform.DialectMatrixHTML {
			text = checkTelegram(t, matrixBreaks.Replace(p.Text))
		}
		mrkdwn := caps.Dialect == platform.DialectMrkdwn
		if mrkdwn { // whose marks cannot be told from text, so that they are not counted off
			text = checkMrkdwn(t, p.Text)
		}
		if n := Len(text, caps.Unit); n > limit && !mrkdwn {
			t.Fatalf("%s part %d has %d of %d: %q", caps.Dialect, i, n, limit, text)
		}
		if n := Len(p.Plain, caps.Unit); n > limit {
			t.Fatalf("plain part %d has %d of %d: %q", i, n, limit, p.Plain)
		}
		if !visible(text) {
			t.Fatalf("part %d shows nothing: %q", i, p.Text)
		}
		seen.WriteString(text)
	}
	if caps.Dialect == platform.DialectMarkdown {
		return // fences are closed and reopened there; see TestMarkdownLosesNothing
	}
	whole := flatten(clean(md), dialects[caps.Dialect])
	got, want := squeeze(seen.String()), squeeze(whole.text)
	if caps.Dialect == platform.DialectMrkdwn {
		got, want = signs.Replace(got), signs.Replace(want)
	}
	if got != want {
		t.Fatalf("%s: %d parts show %q, want %q", caps.Dialect, len(parts), got, want)
	}
	checkClusters(t, whole, caps, limit)
}

// matrixBreaks writes the line ends of Matrix' HTML as Telegram has them.
var matrixBreaks = strings.NewReplacer("<br>", "\n")

// TestMatrix shows what is other than in Telegram's HTML.
func TestMatrix(t *testing.T) {
	tests := []struct{ name, md, want string }{
		{"emphasis", "**b** *i* ~~s~~ `c`", "<b>b</b> <i>i</i> <s>s</s> <code>c</code>"},
		{"lines", "a\n\nb  \nc", "a<br><br>b<br>c"},
		{"list", "- a\n  - b", "• a<br>\u00a0 ◦ b"},
		{"fence", "see\n```go\na\n  b\n```\nafter\n\nend", "see<pre><code class=\"language-go\">a\n  b</code></pre><br>after<br><br>end"},
		{"quotation", "a\n\n> b\n> c\n\nd", "a<br><blockquote>b<br>c</blockquote><br>d"},
		{"nobody is called", "@room <a href='x'>", "@room &lt;a href='x'&gt;"},
		{"link", "[t](https://e.x/?a=1&b=2) [m](mailto:a@e.x) [s](javascript:x)", `<a href="https://e.x/?a=1&amp;b=2">t</a> <a href="mailto:a@e.x">m</a> s (javascript:x)`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parts := Render(tt.md, matrix)
			if len(parts) != 1 || parts[0].Text != tt.want {
				t.Errorf("got  %+v\nwant %q", parts, tt.want)
			}
		})
	}
}

// signs are those of which mrkdwn's marks are made.
var signs = strings.NewReplacer("*", "", "_", "", "~", "", "`", "")

var mrkdwnLink = regexp.MustCompile(`<([^<>|]*)\|([^<>]*)>`)

// checkMrkdwn gives what a message shows, marks included, and checks that only
// its links stand between angle brackets and that code blocks are closed.
func checkMrkdwn(t *testing.T, s string) string {
	t.Helper()
	s = mrkdwnLink.ReplaceAllString(s, "$2")
	if strings.ContainsAny(s, "<>") {
		t.Fatalf("a bracket is not escaped: %q", s)
	}
	if n := strings.Count(s, "```"); n%2 != 0 {
		t.Fatalf("%d ends of code blocks: %q", n, s)
	}
	return strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(s)
}

// TestMrkdwn shows what becomes of each construct.
func TestMrkdwn(t *testing.T) {
	const z = zeroWidth
	tests := []struct{ name, md, want string }{
		{"emphasis", "**b** *i* ***bi*** ~~s~~ <u>u</u>", "*b* _i_ _*bi*_ ~s~ u"},
		{"within words", "**un**happy a**b**c", "*un*" + z + "happy a" + z + "*b*" + z + "c"},
		{"escapes", `a < b && c > d`, `a &lt; b &amp;&amp; c &gt; d`},
		{"nobody is called", "<!channel> <@U012AB3CD>", "&lt;!channel&gt; &lt;@U012AB3CD&gt;"},
		{"signs as text", `\*no\* \_no\_ 2 * 3 * 4 snake_case_name ~/a ~/b`, "*" + z + "no* _" + z + "no_ 2 * 3 * 4 snake_case_name ~/a ~/b"},
		{"inline code", "use `a < *b*`", "use `a &lt; *b*`"},
		{"a sign of code in code", "use `` a`b ``", "use ```a`b```"},
		{"fence", "```go\nx := 1\n```", "```\nx := 1\n```"},
		{"fence in a fence", "````\n```\nx\n```\n````", "```\n``" + z + "`\nx\n``" + z + "`\n```"},
		{"heading", "# One", "*One*"},
		{"quotation", "> a\n> b", "&gt; a\n&gt; b"},
		{"link", "[a|b](https://e.x/?a=1&b=<2>|3)", "<https://e.x/?a=1&amp;b=%3C2%3E%7C3|a|b>"},
		{"bold link", "**[t](https://e.x/)**", "*<https://e.x/|t>*"},
		{"link elsewhere", "[t](ftp://e.x/)", "t (ftp://e.x/)"},
		{"list", "- a\n  - b", "• a\n  ◦ b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parts := Render(tt.md, slack)
			if len(parts) != 1 || parts[0].Text != tt.want {
				t.Errorf("got  %+v\nwant %q", parts, tt.want)
			}
		})
	}
}

// checkClusters checks that no cut is within a grapheme cluster that fits.
func checkClusters(t *testing.T, f *flow, caps platform.Capabilities, limit int) {
	t.Helper()
	ends := map[int]int{}
	for pos, rest, state := 0, f.text, -1; rest != ""; {
		var c string
		c, rest, _, state = uniseg.StepString(rest, state)
		pos += len(c)
		ends[pos] = Len(c, caps.Unit)
	}
	for pos := f.skipBlank(0); pos < len(f.text); {
		end := f.cut(pos, limit, caps.Unit)
		if _, ok := ends[end]; !ok && longestCluster(ends) <= limit {
			t.Fatalf("cut within a cluster at %d: %q|%q", end, f.text[max(0, end-20):end], f.text[end:min(len(f.text), end+20)])
		}
		pos = f.skipBlank(end)
	}
}

func longestCluster(ends map[int]int) int {
	n := 0
	for _, l := range ends {
		n = max(n, l)
	}
	return n
}

// nasty is Markdown that has broken renderers and splitters.
func nasty() []string {
	family := "👨‍👩‍👧‍👦"
	return []string{
		"```go\nunclosed " + strings.Repeat("x ", 300),
		"````\n```\ninner\n```\n````\nafter",
		strings.Repeat("x", 10_000),
		strings.Repeat(family, 700),
		strings.Repeat("שלום עולם ", 200) + "**مرحبا**",
		strings.Repeat("日本語の文章です。", 300),
		"e" + strings.Repeat("\u0301", 3000),
		strings.Repeat("🇩🇪🇫🇷", 500),
		strings.Repeat("- ", 200) + "deep",
		strings.Repeat("> ", 200) + "deep",
		strings.Repeat("*a **b ", 200),
		strings.Repeat("[", 500) + "a" + strings.Repeat("](x)", 500),
		strings.Repeat("<&>\"", 800),
		strings.Repeat("[text](https://e.x/a(b)c) ", 200),
		"[" + strings.Repeat("long link text ", 300) + "](https://e.x)",
		"`" + strings.Repeat("long code ", 400) + "`",
		"| " + strings.Repeat("a | ", 60) + "\n|" + strings.Repeat("--|", 60) + "\n" + strings.Repeat("| x ", 300),
		"<b>not <i>closed <script>alert(1)</script> </b>",
		"1. a\n   - b\n\n     ```\n     code\n     ```\n   > q\n2. c",
		"> ```\n> " + strings.Repeat("quoted code\n> ", 100),
		"a\n\n\n\n\n\n\nb" + strings.Repeat("\n", 500) + "c",
		strings.Repeat("**bold _and `code` ~~", 100),
		"\u200d\u200b\ufeff",
		"\ufeffa" + strings.Repeat(" ", 5000) + "b",
		"&#0;&#x1F600;&#99999999;&amp;amp;",
		"-\n\n  a\n-\n",
		strings.Repeat("https://example.org/"+strings.Repeat("path/", 50)+" ", 20),
	}
}

func TestPartsHold(t *testing.T) {
	for _, md := range nasty() {
		for _, caps := range []platform.Capabilities{telegram, discord, slack, matrix, sms} {
			for _, limit := range []int{0, 128, 333, caps.MaxText} {
				for _, unit := range []platform.LengthUnit{platform.Runes, platform.UTF16, platform.Bytes} {
					c := limited(caps, limit)
					c.Unit = unit
					if limit == 0 {
						c.MaxText = DefaultMaxText
					}
					checkParts(t, md, c)
				}
			}
		}
	}
}

// TestPrefixesHold renders what is seen while the corpus is streamed.
func TestPrefixesHold(t *testing.T) {
	for _, md := range nasty() {
		r := []rune(md)
		for n := 1; n < len(r); n += 1 + len(r)/40 {
			checkParts(t, string(r[:n]), limited(telegram, 300))
		}
	}
}

// TestMarkdownLosesNothing checks that every line of code and text of a split
// source is in one of the parts, in order.
func TestMarkdownLosesNothing(t *testing.T) {
	for _, md := range nasty() {
		var all strings.Builder
		for _, p := range Render(md, limited(discord, 200)) {
			all.WriteString(p.Text)
		}
		got := squeeze(strings.NewReplacer("`", "", "~", "", ">", "").Replace(all.String()))
		want := squeeze(strings.NewReplacer("`", "", "~", "", ">", "").Replace(clean(md)))
		got, want = strings.ReplaceAll(got, "go", ""), strings.ReplaceAll(want, "go", "")
		if got != want {
			t.Errorf("%.60q: %d bytes became %d", md, len(want), len(got))
		}
	}
}

// TestLargeTexts renders much of one construct, more than is parsed at once. The
// work is bounded by construction; where it is not, the test does not end.
func TestLargeTexts(t *testing.T) {
	if testing.Short() {
		t.Skip("renders large texts")
	}
	const size = 1 << 16
	for _, unit := range []string{
		"Some ordinary text with **bold** words.\n\n", "x", "[", "*a ", "> ", "- ", "`", "``` \n", "|a", "<", "![[", "_*~", "\\", "&", "1. a\n", "a\n", "[a](b", "e\u0301",
	} {
		md := strings.Repeat(unit, size/len(unit))
		n := 0
		for _, caps := range []platform.Capabilities{telegram, discord} {
			n += len(Render(md, caps))
		}
		if n == 0 {
			t.Errorf("%q gave nothing", unit)
		}
	}
	wide := strings.Repeat("|a", size/4) + "|\n" + strings.Repeat("|-", size/4) + "|\n" + strings.Repeat("|\n", size/4)
	if len(Render(wide, telegram)) == 0 {
		t.Error("the wide table gave nothing")
	}
}

func FuzzRender(f *testing.F) {
	for i, md := range nasty() {
		f.Add(md, uint16(128+i*40), uint8(i))
	}
	f.Fuzz(func(t *testing.T, md string, limit uint16, kind uint8) {
		caps := []platform.Capabilities{telegram, discord, sms, slack, matrix}[kind%5]
		caps.Unit = platform.LengthUnit(kind / 3 % 3)
		caps.MaxText = max(int(limit), minText)
		checkParts(t, md, caps)
		_ = Tail(md, " ▉", caps)
		ExtractMedia(md)
	})
}

func BenchmarkRender(b *testing.B) {
	paragraph := "Some ordinary text with **bold** words, `code` and [a link](https://e.x).\n\n"
	for name, md := range map[string]string{
		"answer": strings.Repeat(paragraph, 40), "megabyte": strings.Repeat(paragraph, 14_000), "megabyte in one line": strings.Repeat("x", 1<<20),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(md)))
			for b.Loop() {
				Render(md, telegram)
			}
		})
	}
}
