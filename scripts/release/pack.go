package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"hermes/internal/cli"
)

//go:embed install.sh
var installScript string

// describe writes what every processor's package holds: man/*.1, completions/*,
// LICENSE, CHANGELOG.md.
func (j *job) describe(ctx context.Context, dir string) error {
	man := exec.CommandContext(ctx, "go", "run", "./testkit/man", "-out", filepath.Join(dir, "man"), "-version", j.version)
	man.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", j.made.Unix()))
	man.Stderr = os.Stderr
	if err := man.Run(); err != nil {
		return fmt.Errorf("manual pages: %w", err)
	}
	shells := map[string]func(*cobra.Command, io.Writer) error{
		"hermes.bash": func(c *cobra.Command, w io.Writer) error { return c.GenBashCompletionV2(w, true) },
		"_hermes":     func(c *cobra.Command, w io.Writer) error { return c.GenZshCompletion(w) },
		"hermes.fish": func(c *cobra.Command, w io.Writer) error { return c.GenFishCompletion(w, true) },
	}
	if err := os.MkdirAll(filepath.Join(dir, "completions"), 0o755); err != nil {
		return err
	}
	for name, generate := range shells {
		var b bytes.Buffer
		if err := generate(cli.Tree(), &b); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "completions", name), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"LICENSE", "CHANGELOG.md"} {
		if err := copyFile(filepath.Join(dir, name), name, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// tarball packs the program and what describe wrote. Nothing in it depends on
// who packs and when.
func (j *job) tarball(to, dir, program string) error {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	zip, err := gzip.NewWriterLevel(out, gzip.BestCompression)
	if err != nil {
		return err
	}
	w := tar.NewWriter(zip)
	add := func(name, file string, mode int64) error {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(text)), ModTime: j.made, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	err = add("hermes", program, 0o755)
	if err == nil {
		err = eachDescribed(dir, func(name, file string) error { return add(name, file, 0o644) })
	}
	return errors.Join(err, w.Close(), zip.Close(), out.Close())
}

// eachDescribed calls f for what describe wrote, in the order of names.
func eachDescribed(dir string, f func(name, file string) error) error {
	return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.IsDir() && strings.HasPrefix(d.Name(), "deb-") {
				return fs.SkipDir
			}
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil || strings.HasPrefix(name, "hermes-") {
			return err
		}
		return f(name, file)
	})
}

// debian makes the package for one processor and gives its name. It holds no
// unit: `hermes gateway install` writes the one that the user's profile needs.
// The layout: https://www.debian.org/doc/debian-policy/ch-opersys.html
func (j *job) debian(ctx context.Context, dir, program, arch string) (string, error) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		return "", errors.New("dpkg-deb is not here, so the Debian package cannot be made (Debian's dpkg has it)")
	}
	root := filepath.Join(dir, "deb-"+arch)
	if err := j.debianTree(root, dir, program, arch); err != nil {
		return "", err
	}
	// A tilde sorts before the end of a version, a hyphen would begin a revision.
	name := fmt.Sprintf("hermes_%s_%s.deb", j.version, arch)
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--root-owner-group", "-Zgzip", "--build", root, filepath.Join(j.out, name))
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", j.made.Unix()))
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("dpkg-deb: %w\n%s", err, text)
	}
	return name, nil
}

// debianTree lays out what the package installs.
func (j *job) debianTree(root, dir, program, arch string) error {
	if err := copyFile(filepath.Join(root, "usr/bin/hermes"), program, 0o755); err != nil {
		return err
	}
	places := map[string]string{
		"completions/hermes.bash": "usr/share/bash-completion/completions/hermes",
		"completions/_hermes":     "usr/share/zsh/vendor-completions/_hermes",
		"completions/hermes.fish": "usr/share/fish/vendor_completions.d/hermes.fish",
		"LICENSE":                 "usr/share/doc/hermes/copyright",
	}
	err := eachDescribed(dir, func(name, file string) error {
		switch {
		case strings.HasPrefix(name, "man/"):
			return j.zipFile(filepath.Join(root, "usr/share/man/man1", path.Base(name)+".gz"), file)
		case name == "CHANGELOG.md":
			return j.zipFile(filepath.Join(root, "usr/share/doc/hermes/changelog.gz"), file)
		}
		return copyFile(filepath.Join(root, places[name]), file, 0o644)
	})
	if err != nil {
		return err
	}
	size, err := treeSize(root)
	if err != nil {
		return err
	}
	control := fmt.Sprintf(`Package: hermes
Version: %s
Architecture: %s
Maintainer: The hermes authors <hermes@localhost>
Installed-Size: %d
Section: net
Priority: optional
Recommends: ca-certificates
Suggests: bubblewrap
Description: always-on agent gateway
 Connects chat platforms to an agent with tools, runs scheduled jobs and
 serves an OpenAI-compatible API, as one program that survives logouts,
 crashes and updates. Each user runs "hermes setup" for a service of
 their own.
`, strings.Replace(j.version, "-", "~", 1), arch, (size+1023)/1024)
	if err := writeFile(filepath.Join(root, "DEBIAN/control"), []byte(control), 0o644); err != nil {
		return err
	}
	return filepath.WalkDir(root, func(file string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(file, j.made, j.made)
	})
}

func treeSize(root string) (size int64, err error) {
	err = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}

// installer writes install.sh with the version and key of this release.
func (j *job) installer() error {
	const name = "install.sh"
	text := strings.NewReplacer("@VERSION@", j.version, "@PUBLIC_KEY@", j.public).Replace(installScript)
	if strings.Contains(text, "@VERSION@") || !strings.Contains(text, j.public) {
		return errors.New("install.sh has lost its placeholders")
	}
	j.files = append(j.files, name)
	return os.WriteFile(filepath.Join(j.out, name), []byte(text), 0o755)
}

func (j *job) zipFile(to, from string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	zip, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return err
	}
	_, err = zip.Write(text)
	if err := errors.Join(err, zip.Close()); err != nil {
		return err
	}
	return writeFile(to, b.Bytes(), 0o644)
}

func copyFile(to, from string, mode fs.FileMode) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return writeFile(to, text, mode)
}

// writeFile writes a file with its folders; the mode holds whatever the umask.
func writeFile(to string, text []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(to, text, mode); err != nil {
		return err
	}
	return os.Chmod(to, mode)
}
