package cron

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"hermes/internal/domain"
)

const (
	maxSkill      = 64 << 10 // bytes of one SKILL.md; what is longer is cut
	maxSkills     = 16       // of one job
	maxCategories = 1000     // folders of skills that are looked through
)

// readSkill reads <name>/SKILL.md in the folder of skills, or in one of the
// folders of categories there; "category/name" names which. What it holds before
// the text proper (front matter) is left out. Nothing outside the folder is read,
// by whatever way a symbolic link leads there. It fails with domain.Invalid,
// domain.NotFound or domain.Forbidden.
func readSkill(dir, name string) (string, error) {
	parts := strings.Split(name, "/")
	if len(parts) > 2 || slices.ContainsFunc(parts, func(p string) bool { return p == "" || p[0] == '.' || strings.ContainsAny(p, "\\\x00") }) {
		return "", domain.E(domain.Invalid, nil, "%q is no name of a skill; it is that of a folder below %s", name, dir)
	}
	missing := func(err error) error {
		return domain.E(domain.NotFound, err, "there is no %s, neither there nor one folder below", filepath.Join(dir, name, "SKILL.md"))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", missing(err)
	}
	defer root.Close()
	places := []string{name}
	if len(parts) == 1 {
		places = append(places, categories(root, name)...)
	}
	for _, place := range places {
		text, err := readRegular(root, filepath.Join(place, "SKILL.md"))
		switch {
		case err == nil:
			return withoutFrontMatter(cleanText(text)), nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", domain.E(domain.Forbidden, err, "%s cannot be read: it must be a file inside %s", filepath.Join(dir, place, "SKILL.md"), dir)
		}
	}
	return "", missing(fs.ErrNotExist)
}

// categories lists where a skill may lie one folder down, in order.
func categories(root *os.Root, name string) []string {
	f, err := root.Open(".")
	if err != nil {
		return nil
	}
	defer f.Close()
	entries, _ := f.ReadDir(maxCategories) // what was read before an error counts
	var out []string
	for _, e := range entries {
		if e.IsDir() || e.Type()&fs.ModeSymlink != 0 {
			out = append(out, filepath.Join(e.Name(), name))
		}
	}
	slices.Sort(out)
	// A link of a category that leads out concerns no skill of another.
	return slices.DeleteFunc(out, func(place string) bool { _, err := root.Lstat(place); return err != nil })
}

// readRegular reads the beginning of a regular file. It does not wait for the
// writer of a pipe.
func readRegular(root *os.Root, path string) (string, error) {
	f, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no regular file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSkill+1))
	return headOf(string(text), maxSkill), err
}

// withoutFrontMatter takes off the YAML between two lines of dashes with which a
// skill may begin. Without its end there is none.
func withoutFrontMatter(text string) string {
	text = strings.ReplaceAll(strings.TrimPrefix(text, "\uFEFF"), "\r\n", "\n")
	rest, begins := strings.CutPrefix(text, "---\n")
	if !begins {
		return strings.TrimSpace(text)
	}
	for from := 0; ; {
		line, _, more := strings.Cut(rest[from:], "\n")
		if strings.TrimRight(line, " \t") == "---" {
			return strings.TrimSpace(rest[min(from+len(line)+1, len(rest)):])
		}
		if !more {
			return strings.TrimSpace(text)
		}
		from += len(line) + 1
	}
}
