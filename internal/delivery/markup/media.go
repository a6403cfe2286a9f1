package markup

import "strings"

// MaxMedia is how many files one text may name; further lines stay text.
const MaxMedia = 16

const mediaPrefix = "MEDIA:"

// ExtractMedia takes the lines of the form MEDIA:/absolute/path out of a text
// and gives their paths, each once, in order. Lines in code blocks stay.
func ExtractMedia(text string) (rest string, paths []string) {
	if !strings.Contains(text, mediaPrefix) {
		return text, nil
	}
	code := fences(text)
	seen := map[string]bool{}
	var b strings.Builder
	for pos := 0; pos < len(text); {
		end := pos + lineLen(text[pos:])
		for len(code) > 0 && code[0].end <= pos {
			code = code[1:]
		}
		path := ""
		if len(code) == 0 || code[0].start > pos {
			path = mediaPath(text[pos:end])
		}
		switch {
		case path == "" || (len(paths) == MaxMedia && !seen[path]):
			b.WriteString(text[pos:end])
		case !seen[path]:
			seen[path] = true
			paths = append(paths, path)
		}
		pos = end
	}
	return strings.TrimSpace(b.String()), paths
}

// mediaPath reads one line; "" when it names no file.
func mediaPath(line string) string {
	line = strings.Trim(strings.TrimSpace(line), "`")
	path, ok := strings.CutPrefix(line, mediaPrefix)
	if !ok {
		return ""
	}
	path = strings.Trim(strings.TrimSpace(path), "`\"'")
	if !strings.HasPrefix(path, "/") || strings.ContainsRune(path, 0) {
		return ""
	}
	return path
}
