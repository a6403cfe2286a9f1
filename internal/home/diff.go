package home

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"hermes/internal/lazyregexp"
	"hermes/internal/secret"
)

// Diff shows how two configurations differ, line by line as diff(1) -u does,
// .env first, without a secret: a value that may be one is masked, so that of a
// changed key only the change is seen. "" where they are equal. from and to name
// the two.
func Diff(from, to string, a, b Files) string {
	var out strings.Builder
	for _, f := range []struct {
		name             string
		old, now         []byte
		oldMask, nowMask [][]byte
	}{
		{".env", a.Env, b.Env, maskEnv(a.Env), maskEnv(b.Env)},
		{"config.yaml", a.Config, b.Config, maskYAML(a.Config), maskYAML(b.Config)},
	} {
		if bytes.Equal(f.old, f.now) {
			continue
		}
		fmt.Fprintf(&out, "--- %s (%s)\n+++ %s (%s)\n", f.name, nameOf(from, f.old), f.name, nameOf(to, f.now))
		writeHunks(&out, lines(f.old), lines(f.now), f.oldMask, f.nowMask)
	}
	return out.String()
}

func nameOf(name string, data []byte) string {
	if data == nil {
		return name + ", absent"
	}
	return name
}

// lines are those of a text, the last one without a newline too.
func lines(data []byte) [][]byte {
	if len(data) == 0 {
		return nil
	}
	return bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
}

const secretWord = `(?:token|secret|pass|passw(?:or)?d|passphrase|credential|key|auth|heartbeat_url)s?`

var (
	// assigned is a name that says that it is secret, and its value up to the
	// end of the line, also in a comment.
	assigned = lazyregexp.New(`(?i)^(.*?[\w."'-]*` + secretWord + `["']?\s*[:=]\s*)(\S.*)$`)
	// opens is such a name whose value stands on the lines that follow.
	opens = lazyregexp.New(`(?i)^(\s*(?:- )?["']?[\w.-]*` + secretWord + `["']?\s*:)\s*(?:[|>][-+0-9]*)?\s*$`)
	// named is a line that begins something else than what goes on.
	named   = lazyregexp.New(`^\s*(?:- +)?(?:[\w.-]+|"[^"]*"|'[^']*')\s*:(?:\s|$)`)
	anyName = lazyregexp.New(`^(\s*#?\s*(?:export\s+)?[A-Za-z_][A-Za-z0-9_]*\s*=)(.*)$`)
)

// maskEnv masks the values of a .env. A line that belongs to no plain
// assignment may continue a secret, and is masked as a whole.
func maskEnv(data []byte) [][]byte {
	redact := secret.NewRedactor()
	var out [][]byte
	for _, line := range lines(data) {
		text := string(line)
		m := anyName.FindStringSubmatch(text)
		switch {
		case m != nil && m[2] != "" && IsSecretName(strings.TrimSuffix(strings.TrimSpace(strings.TrimPrefix(strings.TrimLeft(m[1], " #"), "export ")), "=")),
			m != nil && assigned.MatchString(text):
			text = m[1] + secret.Mask
		case m == nil && strings.TrimSpace(text) != "" && !strings.HasPrefix(strings.TrimSpace(text), "#"):
			text = secret.Mask
		}
		out = append(out, []byte(redact.Redact(text)))
	}
	return out
}

// maskYAML masks the values of a config.yaml, well formed or not, whose names
// say that they are secret, with the lines that such a value goes on over.
func maskYAML(data []byte) [][]byte {
	redact := secret.NewRedactor()
	var out [][]byte
	under := -1 // indentation of a secret name whose value stands below it
	for _, line := range lines(data) {
		text := string(line)
		indent := len(text) - len(strings.TrimLeft(text, " \t"))
		blank := strings.TrimSpace(text) == ""
		switch {
		case under >= 0 && (blank || indent > under || !named.MatchString(text)):
			if !blank {
				text = text[:indent] + secret.Mask
			}
		case opens.MatchString(text):
			under = indent
		default:
			under = -1
			if m := assigned.FindStringSubmatch(text); m != nil {
				text = m[1] + secret.Mask
				under = indent // a value in quotes may go on
			}
		}
		out = append(out, []byte(redact.Redact(text)))
	}
	return out
}

// around is how many equal lines are shown on both sides of a change.
const around = 2

// writeHunks writes the changes between a and b, showing the masked twins.
func writeHunks(out *strings.Builder, a, b, shownA, shownB [][]byte) {
	type step struct {
		sign byte
		i, j int // lines of a and of b before it
	}
	var steps []step
	i, j := 0, 0
	for _, c := range match(a, b) {
		for ; i < c[0]; i++ {
			steps = append(steps, step{'-', i, j})
		}
		for ; j < c[1]; j++ {
			steps = append(steps, step{'+', i, j})
		}
		if i < len(a) && j < len(b) {
			steps = append(steps, step{' ', i, j})
			i, j = i+1, j+1
		}
	}
	show := make([]bool, len(steps))
	for n, s := range steps {
		if s.sign != ' ' {
			for k := max(0, n-around); k <= min(len(steps)-1, n+around); k++ {
				show[k] = true
			}
		}
	}
	for n, s := range steps {
		if !show[n] {
			continue
		}
		if n == 0 || !show[n-1] {
			fmt.Fprintf(out, "@@ line %d @@\n", s.j+1)
		}
		text := shownB
		at := s.j
		if s.sign != '+' {
			text, at = shownA, s.i
		}
		fmt.Fprintf(out, "%c%s\n", s.sign, text[at])
	}
}

// maxTable bounds the work of match; larger texts are compared less well.
const maxTable = 4 << 20

// match gives the pairs of lines that a and b have in common, in order, closed
// by their lengths: a longest common subsequence.
func match(a, b [][]byte) [][2]int {
	var out [][2]int
	head := 0
	for head < len(a) && head < len(b) && bytes.Equal(a[head], b[head]) {
		out = append(out, [2]int{head, head})
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && bytes.Equal(a[len(a)-1-tail], b[len(b)-1-tail]) {
		tail++
	}
	x, y := a[head:len(a)-tail], b[head:len(b)-tail]
	if len(x) > 0 && len(y) > 0 && len(x) <= maxTable/len(y) {
		for _, c := range longest(x, y) {
			out = append(out, [2]int{c[0] + head, c[1] + head})
		}
	}
	for ; tail > 0; tail-- {
		out = append(out, [2]int{len(a) - tail, len(b) - tail})
	}
	return append(out, [2]int{len(a), len(b)})
}

func longest(x, y [][]byte) [][2]int {
	width := len(y) + 1
	table := make([]int32, (len(x)+1)*width)
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if bytes.Equal(x[i], y[j]) {
				table[i*width+j] = table[(i+1)*width+j+1] + 1
			} else {
				table[i*width+j] = max(table[(i+1)*width+j], table[i*width+j+1])
			}
		}
	}
	var out [][2]int
	for i, j := 0, 0; i < len(x) && j < len(y); {
		switch {
		case bytes.Equal(x[i], y[j]):
			out = append(out, [2]int{i, j})
			i, j = i+1, j+1
		case table[(i+1)*width+j] >= table[i*width+j+1]:
			i++
		default:
			j++
		}
	}
	return slices.Clip(out)
}
