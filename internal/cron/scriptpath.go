package cron

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// Scripts finds the scripts of a profile. They live in one folder, so that
// what a job can run is what the operator put there.
type Scripts struct {
	Dir     string // <profile>/scripts
	RootDir string // the root profile's scripts, for advice; may be the same
}

// Resolve gives the real path of a script named relative to the folder, or by
// an absolute or ~ path inside it. It fails with domain.NotFound, or with
// domain.Forbidden when it lies outside, by ".." or by a symbolic link.
func (s Scripts) Resolve(name string) (string, error) {
	if strings.ContainsRune(name, 0) || strings.TrimSpace(name) == "" {
		return "", domain.E(domain.Invalid, nil, "the script's name is empty or holds a NUL byte")
	}
	path := name
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", domain.E(domain.Invalid, err, "~ in the script's path cannot be resolved; write the name relative to %s", s.Dir)
		}
		path = filepath.Join(home, rest)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.Dir, path)
	}
	outside := func(p string) error {
		return domain.E(domain.Forbidden, nil, "script %s lies outside %s; jobs may only run what is in that folder, so copy it there", p, s.Dir)
	}
	if !within(s.Dir, path) && !s.withinReal(path) {
		return "", outside(name)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", s.missing(name, path, err)
	}
	if !s.withinReal(real) {
		return "", outside(name + " → " + real)
	}
	info, err := os.Stat(real)
	if err != nil {
		return "", s.missing(name, path, err)
	}
	if !info.Mode().IsRegular() {
		return "", domain.E(domain.Invalid, nil, "%s is no file that can be run", path)
	}
	return real, nil
}

// missing explains why there is no script, with the copy command where it
// lies in the root's folder.
func (s Scripts) missing(name, path string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return domain.E(domain.Invalid, err, "script %s cannot be reached", path)
	}
	if s.RootDir != "" && s.RootDir != s.Dir && !filepath.IsAbs(name) {
		other := filepath.Join(s.RootDir, name)
		if info, err := os.Stat(other); err == nil && info.Mode().IsRegular() && within(s.RootDir, other) {
			return domain.E(domain.NotFound, nil, "Script not found: %s. It lies in the root profile's folder only; copy it: mkdir -p %s && cp -p %s %s", path, shellQuote(filepath.Dir(path)), shellQuote(other), shellQuote(path))
		}
	}
	return domain.E(domain.NotFound, nil, "Script not found: %s", path)
}

func shellQuote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// within tells whether path lies below dir, by its letters.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) && rel != "."
}

// withinReal tells the same with the folder's own symbolic links resolved.
func (s Scripts) withinReal(path string) bool {
	dir, err := filepath.EvalSymlinks(s.Dir)
	return err == nil && within(dir, path)
}

// commandFor gives the command line of a script: bash and python3 by
// extension, else what its first line asks for, else the file itself.
func commandFor(path string) ([]string, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".sh", ".bash":
		return []string{"bash", path}, nil
	case ".py":
		return []string{"python3", path}, nil
	}
	f, err := plain.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open script: %w", err)
	}
	defer f.Close()
	head, _ := bufio.NewReaderSize(f, 512).Peek(256)
	if rest, ok := strings.CutPrefix(string(head), "#!"); ok {
		line, _, _ := strings.Cut(rest, "\n")
		// As the kernel does: one optional argument, the rest of the line.
		interpreter, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		if arg = strings.TrimSpace(arg); arg != "" {
			return []string{interpreter, arg, path}, nil
		}
		if interpreter != "" {
			return []string{interpreter, path}, nil
		}
	}
	info, err := f.Stat()
	if err == nil && info.Mode()&0o111 != 0 {
		return []string{path}, nil
	}
	return nil, domain.E(domain.Invalid, nil, "%s cannot be run: name it .sh, .bash or .py, give it a first line such as #!/usr/bin/env node, or make it executable", path)
}
