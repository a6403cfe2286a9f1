package files

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/tool"
)

// Bounds of one search.
const (
	searchTime  = 20 * time.Second
	searchFiles = 200_000 // entries looked at
	maxHits     = 500
	hitWidth    = 300 // characters of a line that are shown
)

type searchArgs struct {
	Pattern    string `json:"pattern"`
	Target     string `json:"target"`
	Path       string `json:"path"`
	FileGlob   string `json:"file_glob"`
	Limit      int    `json:"limit"`
	IgnoreCase bool   `json:"ignore_case"`
	Context    int    `json:"context"`
}

func (f *files) searchTool() tool.Tool {
	return tool.Tool{
		Name: "search_files", Toolset: "file", ReadOnly: true, Label: label("search"),
		Description: "Search a folder: with target \"content\" (the default) for lines that match a regular expression (RE2), with target \"files\" for file names that match a glob (*.go, src/**/*.ts). Folders like .git and node_modules are left out.",
		Schema: json.RawMessage(`{"type":"object","properties":{
			"pattern":{"type":"string","description":"Regular expression, or glob with target files."},
			"target":{"type":"string","enum":["content","files"]},
			"path":{"type":"string","description":"Folder or file to search; the working folder when left out."},
			"file_glob":{"type":"string","description":"content: only in files with such names, e.g. *.py."},
			"ignore_case":{"type":"boolean"},
			"context":{"type":"integer","description":"content: lines to show around each hit, at most 5."},
			"limit":{"type":"integer","description":"Hits to show; 50 when left out, at most 500."}},
			"required":["pattern"]}`),
		Run: f.search,
	}
}

// search is one walk through a folder.
type search struct {
	searchArgs
	f     *files
	env   tool.Env
	root  string
	re    *regexp.Regexp
	out   strings.Builder
	hits  int
	seen  int
	bytes int64
	ctx   context.Context
	stop  string // why it ended early
}

var errEnough = errors.New("enough")

func (f *files) search(ctx context.Context, env tool.Env, raw json.RawMessage) (tool.Result, error) {
	s := &search{f: f, env: env}
	if err := tool.Decode(raw, &s.searchArgs, "pattern"); err != nil {
		return tool.Result{}, err
	}
	if s.Path == "" {
		s.Path = "."
	}
	var err error
	if s.root, err = f.absolute(env, s.Path); err != nil {
		return tool.Result{}, err
	}
	if err := f.refuse(env, s.root); err != nil {
		return tool.Result{}, err
	}
	if s.Limit <= 0 {
		s.Limit = 50
	}
	s.Limit, s.Context = min(s.Limit, maxHits), min(max(s.Context, 0), 5)
	if s.Target != "files" {
		expr := s.Pattern
		if s.IgnoreCase {
			expr = "(?i)" + expr
		}
		if s.re, err = regexp.Compile(expr); err != nil {
			return tool.Result{}, domain.E(domain.Invalid, err, "the pattern is not a regular expression that RE2 knows (no look-around, no back-references); put \\ before characters that are meant as they are")
		}
	}
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithTimeout(ctx, searchTime)
	defer cancel()
	if _, err := os.Stat(s.root); err != nil {
		return tool.Result{}, pathError(err, s.root)
	}
	err = filepath.WalkDir(s.root, s.visit)
	if ctx.Err() != nil {
		return tool.Result{}, context.Cause(ctx)
	}
	if err != nil && !errors.Is(err, errEnough) {
		return tool.Result{}, pathError(err, s.root)
	}
	return tool.Result{Content: s.summary()}, nil
}

func (s *search) summary() string {
	head := fmt.Sprintf("%d hits in %s", s.hits, s.root)
	if s.hits == 0 {
		head = "Nothing was found in " + s.root
	}
	if s.stop != "" {
		head += " (" + s.stop + ")"
	}
	return head + "\n" + s.out.String()
}

func (s *search) enough(why string) error {
	s.stop = why
	return errEnough
}

// visit looks at one entry of the walk.
func (s *search) visit(p string, d fs.DirEntry, err error) error {
	switch {
	case err != nil:
		return nil //nolint:nilerr // a folder that may not be read is left out
	case s.ctx.Err() != nil:
		return s.enough("ended after " + searchTime.String() + "; name a smaller folder")
	case d.IsDir() && p != s.root && (isSkipped(p) || s.f.isProtected(s.env, p)):
		return filepath.SkipDir
	case d.IsDir():
		return nil
	}
	if s.seen++; s.seen > searchFiles {
		return s.enough(fmt.Sprintf("ended after %d files; name a smaller folder", searchFiles))
	}
	if !d.Type().IsRegular() || s.f.isProtected(s.env, p) {
		return nil
	}
	rel, err := filepath.Rel(s.root, p)
	if err != nil || rel == "." {
		rel = filepath.Base(p)
	}
	if s.re == nil {
		if glob(s.Pattern, filepath.ToSlash(rel), s.IgnoreCase) {
			return s.hit(rel)
		}
		return nil
	}
	if s.FileGlob != "" && !glob(s.FileGlob, filepath.ToSlash(rel), false) {
		return nil
	}
	return s.grep(p, rel)
}

func (s *search) hit(line string) error {
	if s.hits++; s.out.Len() > maxShown {
		return s.enough("more than can be shown")
	}
	s.out.WriteString(line + "\n")
	if s.hits >= s.Limit {
		return s.enough("the first ones; raise limit or narrow the pattern for more")
	}
	return nil
}

// grep looks for matching lines in one file.
func (s *search) grep(p, rel string) error {
	file, info, err := s.f.openRegular(s.env, p)
	if err != nil {
		return nil
	}
	defer file.Close()
	if info.Size() > maxRead {
		return nil
	}
	if s.bytes += info.Size(); s.bytes > maxScanned {
		return s.enough(fmt.Sprintf("ended after %d MiB; name a smaller folder or a file_glob", maxScanned>>20))
	}
	r := bufio.NewReaderSize(file, 64<<10)
	if head, _ := r.Peek(8000); bytes.IndexByte(head, 0) >= 0 {
		return nil
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), maxRead)
	var before []string
	after, printed := 0, 0
	for n := 1; sc.Scan(); n++ {
		line := sc.Bytes()
		switch {
		case s.re.Match(line):
			for i, b := range before {
				if at := n - len(before) + i; at > printed {
					fmt.Fprintf(&s.out, "%s-%d-%s\n", rel, at, b)
				}
			}
			after, printed = s.Context, n
			if err := s.hit(fmt.Sprintf("%s:%d:%s", rel, n, cut(line))); err != nil {
				return err
			}
		case after > 0:
			after--
			printed = n
			fmt.Fprintf(&s.out, "%s-%d-%s\n", rel, n, cut(line))
		}
		if s.Context > 0 {
			if before = append(before, cut(line)); len(before) > s.Context {
				before = before[1:]
			}
		}
	}
	return nil
}

func cut(line []byte) string {
	text := strings.ToValidUTF8(strings.TrimRight(string(line[:min(len(line), 4*hitWidth)]), "\r"), "\uFFFD")
	if r := []rune(text); len(r) > hitWidth {
		return string(r[:hitWidth]) + " […]"
	}
	return text
}

// glob matches a slash-separated path: a pattern without a slash against its
// last element, any other against the whole, where ** stands for any folders.
func glob(pattern, name string, fold bool) bool {
	if fold {
		pattern, name = strings.ToLower(pattern), strings.ToLower(name)
	}
	if !strings.Contains(pattern, "/") {
		if ok, _ := path.Match(pattern, path.Base(name)); ok {
			return true
		}
		return !strings.ContainsAny(pattern, "*?[") && strings.Contains(path.Base(name), pattern)
	}
	return matchParts(strings.Split(strings.TrimPrefix(pattern, "./"), "/"), strings.Split(name, "/"), 0)
}

func matchParts(pattern, name []string, depth int) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			if depth > 8 {
				return false
			}
			for i := 0; i <= len(name); i++ {
				if matchParts(pattern[1:], name[i:], depth+1) {
					return true
				}
			}
			return false
		}
		if len(name) == 0 {
			return false
		}
		if ok, _ := path.Match(pattern[0], name[0]); !ok {
			return false
		}
		pattern, name = pattern[1:], name[1:]
	}
	return len(name) == 0
}
