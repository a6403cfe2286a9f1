package service

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Entry is one assignment in a unit file.
type Entry struct {
	Section, Key, Value string
	Line                int // 1 is the first
}

// Parse reads a unit file or a drop-in: comments left out, continued lines
// joined; systemd.syntax(7). What is no assignment is left out too, as systemd
// ignores it.
func Parse(text string) []Entry {
	var out []Entry
	section, joined, began := "", "", 0
	for i, raw := range strings.Split(text, "\n") {
		line := strings.TrimSpace(raw)
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue // also between continued lines
		}
		if joined == "" {
			began = i + 1
		}
		if rest, ok := strings.CutSuffix(line, `\`); ok {
			joined += rest + " "
			continue
		}
		line, joined = strings.TrimSpace(joined+line), ""
		if name, ok := strings.CutPrefix(line, "["); ok && strings.HasSuffix(name, "]") {
			section = strings.TrimSuffix(name, "]")
			continue
		}
		if key, value, ok := strings.Cut(line, "="); ok {
			out = append(out, Entry{Section: section, Key: strings.TrimSpace(key), Value: strings.TrimSpace(value), Line: began})
		}
	}
	return out
}

// Value gives the last assignment of a key, "" when there is none.
func Value(entries []Entry, section, key string) string {
	value := ""
	for _, e := range entries {
		if e.Section == section && e.Key == key {
			value = e.Value
		}
	}
	return value
}

// Origin is who wrote a unit file.
type Origin string

// The origins.
const (
	Generated Origin = "generated"    // as install wrote it
	Edited    Origin = "hand-edited"  // install wrote it, somebody changed it
	Foreign   Origin = "hand-written" // install never wrote it
)

const (
	sealMark = "# hermes-unit sha256="
	sealHead = "# Written by `hermes gateway install`. What you want otherwise belongs in a\n# drop-in (`systemctl edit`): that is never touched, and this file is renewed.\n"
)

// seal puts a heading over a unit with a checksum, by which a later install
// knows whether somebody has edited it.
func seal(body string) string {
	return sealHead + sealMark + checksum(body) + "\n" + body
}

func checksum(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

// OriginOf tells who wrote a unit file.
func OriginOf(text string) Origin {
	_, rest, ok := strings.Cut(text, sealMark)
	if !ok {
		return Foreign
	}
	sum, body, _ := strings.Cut(rest, "\n")
	if checksum(body) == strings.TrimSpace(sum) && strings.HasPrefix(text, sealHead) {
		return Generated
	}
	return Edited
}

// Same tells whether two unit files say the same, whatever their spacing and
// comments.
func Same(a, b string) bool {
	one, two := Parse(a), Parse(b)
	if len(one) != len(two) {
		return false
	}
	for i := range one {
		one[i].Line, two[i].Line = 0, 0
		if one[i] != two[i] {
			return false
		}
	}
	return true
}

// maxDiff bounds the lines that Diff compares; a unit has some thirty.
const maxDiff = 400

// Diff shows what leads from one text to another: lines that go begin with "-",
// lines that come with "+", the others with a space.
func Diff(from, to string) string {
	a, b := lines(from), lines(to)
	// length[i][j] is that of the longest common row of a[i:] and b[j:].
	length := make([][]int, len(a)+1)
	for i := range length {
		length[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				length[i][j] = length[i+1][j+1] + 1
			} else {
				length[i][j] = max(length[i+1][j], length[i][j+1])
			}
		}
	}
	var out strings.Builder
	put := func(mark, line string) { out.WriteString(mark + line + "\n") }
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			put(" ", a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && length[i+1][j] >= length[i][j+1]:
			put("-", a[i])
			i++
		default:
			put("+", b[j])
			j++
		}
	}
	return out.String()
}

func lines(text string) []string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return all[:min(len(all), maxDiff)]
}
