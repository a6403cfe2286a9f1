package files

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"hermes/internal/domain"
	"hermes/internal/tool"
)

func itoa(n int) string { return strconv.Itoa(n) }

type readArgs struct {
	Path   string `json:"path"`
	Offset int    `json:"offset"`
	Limit  int    `json:"limit"`
}

func (f *files) readTool() tool.Tool {
	return tool.Tool{
		Name: "read_file", Toolset: "file", ReadOnly: true, Label: label("read"),
		Description: "Read a text file, with line numbers. Long files are read in pages: offset is the first line (from 1), limit the number of lines (500, at most 2000).",
		Schema: json.RawMessage(`{"type":"object","properties":{
			"path":{"type":"string","description":"Path; relative to the working folder, ~ is the user's home."},
			"offset":{"type":"integer","description":"First line, from 1."},
			"limit":{"type":"integer","description":"Number of lines."}},
			"required":["path"]}`),
		Run: func(_ context.Context, env tool.Env, raw json.RawMessage) (tool.Result, error) {
			var a readArgs
			if err := tool.Decode(raw, &a, "path"); err != nil {
				return tool.Result{}, err
			}
			path, err := f.absolute(env, a.Path)
			if err != nil {
				return tool.Result{}, err
			}
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				return f.listing(env, path)
			}
			b, err := f.readAll(env, path)
			if err != nil {
				return tool.Result{}, err
			}
			text, err := page(path, b, a.Offset, a.Limit)
			return tool.Result{Content: text}, err
		},
	}
}

// listing answers a read of a folder with what is in it.
func (f *files) listing(env tool.Env, path string) (tool.Result, error) {
	if err := f.refuse(env, path); err != nil {
		return tool.Result{}, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return tool.Result{}, pathError(err, path)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s is a folder with %d entries:\n", path, len(entries))
	for i, e := range entries {
		if i == 200 {
			b.WriteString("…\n")
			break
		}
		name := e.Name()
		if e.IsDir() {
			name += "/"
		}
		b.WriteString(name + "\n")
	}
	return tool.Result{Content: b.String()}, nil
}

// page gives some lines of a file, numbered. domain.Invalid for what is no text.
func page(path string, b []byte, offset, limit int) (string, error) {
	if what := binary(b); what != "" {
		if strings.HasPrefix(what, "image/") {
			return "", domain.E(domain.Invalid, nil, "%s is an image (%s), which this tool cannot show; send it to a model that sees, or look at its properties with the terminal", path, what)
		}
		return "", domain.E(domain.Invalid, nil, "%s is not text (%s, %d bytes); use the terminal (file, strings, xxd, unzip -l, pdftotext)", path, what, len(b))
	}
	if len(b) == 0 {
		return path + " is empty.", nil
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	from := max(offset-1, 0)
	if offset < 0 { // from the end
		from = max(0, len(lines)+offset)
	}
	if limit <= 0 {
		limit = pageLines
	}
	if from >= len(lines) {
		return "", domain.E(domain.Invalid, nil, "%s has %d lines, so there is no line %d", path, len(lines), from+1)
	}
	to := min(from+min(limit, maxLines), len(lines))
	var out strings.Builder
	for i := from; i < to; i++ {
		line := strings.TrimSuffix(lines[i], "\r")
		if utf8.RuneCountInString(line) > maxLine {
			line = string([]rune(line)[:maxLine]) + " […]"
		}
		if out.Len()+len(line) > maxShown {
			to = i
			break
		}
		fmt.Fprintf(&out, "%6d|%s\n", i+1, strings.ToValidUTF8(line, "\uFFFD"))
	}
	if from > 0 || to < len(lines) {
		fmt.Fprintf(&out, "[lines %d to %d of %d", from+1, to, len(lines))
		if to < len(lines) {
			fmt.Fprintf(&out, "; go on with offset %d", to+1)
		}
		out.WriteString("]\n")
	}
	return out.String(), nil
}

// binary names the type of what is no text, "" for text.
func binary(b []byte) string {
	head := b[:min(len(b), 8000)]
	kind := http.DetectContentType(head)
	if strings.HasPrefix(kind, "image/") && !strings.HasPrefix(kind, "image/svg") {
		return kind
	}
	if bytes.IndexByte(head, 0) >= 0 || strings.HasPrefix(kind, "application/pdf") || strings.HasPrefix(kind, "application/zip") || strings.HasPrefix(kind, "application/x-gzip") {
		return kind
	}
	return ""
}

type writeArgs struct {
	Path    string `json:"path"`
	Content string `json:"content"`
}

func (f *files) writeTool() tool.Tool {
	return tool.Tool{
		Name: "write_file", Toolset: "file", Label: label("write"), Guard: f.guard,
		Description: "Write a text file whole, making its folders. What it held is replaced; to change a part of a file use patch.",
		Schema: json.RawMessage(`{"type":"object","properties":{
			"path":{"type":"string","description":"Path; relative to the working folder, ~ is the user's home."},
			"content":{"type":"string","description":"The whole content."}},
			"required":["path","content"]}`),
		Run: func(_ context.Context, env tool.Env, raw json.RawMessage) (tool.Result, error) {
			var a writeArgs
			if err := tool.Decode(raw, &a, "path"); err != nil {
				return tool.Result{}, err
			}
			var given map[string]json.RawMessage
			if json.Unmarshal(raw, &given) == nil && given["content"] == nil {
				return tool.Result{}, domain.E(domain.Invalid, nil, "the parameter \"content\" is missing, so nothing was written")
			}
			path, err := f.absolute(env, a.Path)
			if err != nil {
				return tool.Result{}, err
			}
			_, statErr := os.Stat(path)
			if err := f.replace(env, path, []byte(a.Content)); err != nil {
				return tool.Result{}, err
			}
			verb := "Replaced"
			if statErr != nil {
				verb = "Made"
			}
			return tool.Result{Content: fmt.Sprintf("%s %s: %d bytes, %d lines.", verb, path, len(a.Content), lineCount(a.Content))}, nil
		},
	}
}

func lineCount(s string) int {
	if s == "" {
		return 0
	}
	return strings.Count(strings.TrimSuffix(s, "\n"), "\n") + 1
}

// skipped are folders that hold no work of the user's.
var skipped = []string{".git", "node_modules", ".hg", ".svn", "__pycache__", ".venv", "venv", ".cache", ".tox", ".mypy_cache"}

func isSkipped(name string) bool { return slices.Contains(skipped, filepath.Base(name)) }
