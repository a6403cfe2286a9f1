package files

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/tool"
)

type edit struct {
	Old        string `json:"old_string"`
	New        string `json:"new_string"`
	ReplaceAll bool   `json:"replace_all"`
}

type patchArgs struct {
	Path string `json:"path"`
	edit
	Edits []edit `json:"edits"`
}

// maxEdits bounds the edits of one call.
const maxEdits = 100

func (f *files) patchTool() tool.Tool {
	return tool.Tool{
		Name: "patch", Toolset: "file", Label: label("patch"), Guard: f.guard,
		Description: "Change parts of a text file: replace old_string, which must occur exactly once (or set replace_all), by new_string. Several changes of one file go into edits; they are made in order, all or none. Differences of white space at the ends of lines and of indentation are forgiven where the place is still the only one.",
		Schema: json.RawMessage(`{"type":"object","properties":{
			"path":{"type":"string","description":"Path; relative to the working folder, ~ is the user's home."},
			"old_string":{"type":"string","description":"Text to be replaced, with enough around it to be the only one."},
			"new_string":{"type":"string","description":"Text to put there; empty deletes."},
			"replace_all":{"type":"boolean","description":"Replace every occurrence."},
			"edits":{"type":"array","description":"Several changes, in place of old_string and new_string.","items":{"type":"object","properties":{
				"old_string":{"type":"string"},"new_string":{"type":"string"},"replace_all":{"type":"boolean"}},"required":["old_string","new_string"]}}},
			"required":["path"]}`),
		Run: func(_ context.Context, env tool.Env, raw json.RawMessage) (tool.Result, error) {
			var a patchArgs
			if err := tool.Decode(raw, &a, "path"); err != nil {
				return tool.Result{}, err
			}
			if a.Old != "" {
				a.Edits = append([]edit{a.edit}, a.Edits...)
			}
			if len(a.Edits) == 0 || len(a.Edits) > maxEdits {
				return tool.Result{}, domain.E(domain.Invalid, nil, "the parameter \"old_string\" is missing (or edits, 1 to %d of them); nothing was changed", maxEdits)
			}
			path, err := f.absolute(env, a.Path)
			if err != nil {
				return tool.Result{}, err
			}
			b, err := f.readAll(env, path)
			if err != nil {
				return tool.Result{}, err
			}
			if what := binary(b); what != "" {
				return tool.Result{}, domain.E(domain.Invalid, nil, "%s is not text (%s), so it was not changed", path, what)
			}
			before := string(b)
			after, err := apply(before, a.Edits)
			if err != nil {
				return tool.Result{}, err
			}
			if before == after {
				return tool.Result{Content: path + " was left as it is: the new text is the same as the old."}, nil
			}
			if err := f.replace(env, path, []byte(after)); err != nil {
				return tool.Result{}, err
			}
			return tool.Result{Content: "Changed " + path + ":\n" + diff(before, after)}, nil
		},
	}
}

// apply makes edits in order. domain.Invalid, naming the edit that does not fit.
func apply(text string, edits []edit) (string, error) {
	for i, e := range edits {
		where := ""
		if len(edits) > 1 {
			where = fmt.Sprintf("edit %d of %d: ", i+1, len(edits))
		}
		if e.Old == "" {
			return "", domain.E(domain.Invalid, nil, "%sold_string is empty; nothing was changed", where)
		}
		n := strings.Count(text, e.Old)
		switch {
		case n == 1 || n > 1 && e.ReplaceAll:
			text = strings.ReplaceAll(text, e.Old, e.New)
		case n > 1:
			return "", domain.E(domain.Invalid, nil, "%sold_string occurs %d times (lines %s); give more of the text around it, or set replace_all; nothing was changed", where, n, linesOf(text, e.Old))
		default:
			changed, found := loosely(text, e)
			if found != 1 {
				why := "does not occur in the file; read the file again"
				if found > 1 {
					why = fmt.Sprintf("occurs %d times when white space is not counted; give more of the text around it", found)
				}
				return "", domain.E(domain.Invalid, nil, "%sold_string %s; nothing was changed", where, why)
			}
			text = changed
		}
		if len(text) > maxWrite {
			return "", domain.E(domain.TooLarge, nil, "%sthe file would become larger than %d MiB; nothing was changed", where, maxWrite>>20)
		}
	}
	return text, nil
}

func linesOf(text, old string) string {
	var at []string
	pos := 0
	for len(at) < 5 {
		i := strings.Index(text[pos:], old)
		if i < 0 {
			break
		}
		at = append(at, fmt.Sprint(1+strings.Count(text[:pos+i], "\n")))
		pos += i + len(old)
	}
	return strings.Join(at, ", ")
}

// loosely looks for whole lines that equal the old ones but for white space at
// their ends, and then but for indentation as well. The new lines get the
// indentation that the place has. found counts the places.
func loosely(text string, e edit) (changed string, found int) {
	lines := strings.Split(text, "\n")
	old := strings.Split(strings.Trim(e.Old, "\n"), "\n")
	if strings.TrimSpace(e.Old) == "" || len(old) > len(lines) {
		return "", 0
	}
	for _, same := range []func(a, b string) bool{
		func(a, b string) bool { return strings.TrimRight(a, " \t\r") == strings.TrimRight(b, " \t\r") },
		func(a, b string) bool { return strings.TrimSpace(a) == strings.TrimSpace(b) },
	} {
		var at []int
		for i := 0; i+len(old) <= len(lines); i++ {
			match := true
			for j := range old {
				if match = same(lines[i+j], old[j]); !match {
					break
				}
			}
			if match {
				at = append(at, i)
			}
		}
		if len(at) == 0 {
			continue
		}
		if len(at) > 1 {
			return "", len(at)
		}
		var put []string
		if e.New != "" {
			put = strings.Split(strings.Trim(e.New, "\n"), "\n")
		}
		have, given := indentOf(lines[at[0]:at[0]+len(old)]), indentOf(old)
		for i, l := range put {
			if rest, ok := strings.CutPrefix(l, given); ok && strings.TrimSpace(l) != "" {
				put[i] = have + rest
			}
		}
		out := append([]string{}, lines[:at[0]]...)
		out = append(append(out, put...), lines[at[0]+len(old):]...)
		return strings.Join(out, "\n"), 1
	}
	return "", 0
}

// indentOf is the white space before the first line that is not empty.
func indentOf(lines []string) string {
	for _, l := range lines {
		if t := strings.TrimLeft(l, " \t"); strings.TrimSpace(t) != "" {
			return l[:len(l)-len(t)]
		}
	}
	return ""
}

// diff shows what changed in the manner of diff -u: the lines between what is
// the same at the start and at the end, with some context.
func diff(before, after string) string {
	const around, most = 3, 120
	a, b := strings.Split(before, "\n"), strings.Split(after, "\n")
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	from := max(0, head-around)
	var out strings.Builder
	fmt.Fprintf(&out, "@@ -%d,%d +%d,%d @@\n", from+1, len(a)-tail-from, from+1, len(b)-tail-from)
	n := 0
	show := func(mark string, lines []string) {
		for _, l := range lines {
			if n++; n == most {
				out.WriteString("…\n")
			} else if n < most {
				out.WriteString(mark + l + "\n")
			}
		}
	}
	show(" ", a[from:head])
	show("-", a[head:len(a)-tail])
	n = min(n, most/2)
	show("+", b[head:len(b)-tail])
	show(" ", a[len(a)-tail:min(len(a), len(a)-tail+around)])
	return out.String()
}
