package home

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

const (
	maxArchiveFiles = 200_000
	maxArchiveBytes = 4 << 30
)

// notExported tells whether a top-level name is that of a file with secrets, which
// an archive never holds.
func notExported(name string) bool {
	return name == ".env" || name == "auth.json" || olderCopy(name) || slices.Contains(channelFiles, name)
}

// Export writes a profile as tar.gz, without its secrets, its runtime state
// and its ledger; of config.yaml the secrets that stand in it are left out.
// Errors: Unavailable, StorageFull, Config when config.yaml cannot be read.
func Export(p Profile, w io.Writer) error {
	config, err := withoutSecrets(p)
	if err != nil {
		return err
	}
	zip := gzip.NewWriter(w)
	out := tar.NewWriter(zip)
	err = filepath.WalkDir(p.Home, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(p.Home, name)
		if err != nil || rel == "." {
			return err
		}
		if !strings.ContainsRune(rel, filepath.Separator) && (leftOut(rel) || notExported(rel)) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.IsDir() && !d.Type().IsRegular() {
			return nil
		}
		as := path.Join(p.Name, filepath.ToSlash(rel))
		if name == p.ConfigFile() {
			return exportText(out, as, config, d)
		}
		return exportOne(out, name, as, d)
	})
	if err == nil {
		err = out.Close()
	}
	if err == nil {
		err = zip.Close()
	}
	if err != nil {
		code := domain.Unavailable
		if isDiskFull(err) {
			code = domain.StorageFull
		}
		return domain.E(code, err, "the profile %s was not exported", p.Name)
	}
	return nil
}

// withoutSecrets is config.yaml without the secrets that stand in it. One that is
// taken from a variable is kept: the name is none.
func withoutSecrets(p Profile) ([]byte, error) {
	text, err := readBounded(p.ConfigFile())
	if err != nil {
		return nil, err
	}
	root, err := parseYAML(p.ConfigFile(), text)
	if err != nil {
		return nil, err
	}
	for _, found := range secretsOf(root, nil) {
		if found.onlyVariables {
			continue
		}
		if text, err = spliceUnset(text, found.path); err != nil {
			return nil, domain.E(domain.Config, err, "the profile %s was not exported: %s cannot be left out of its config.yaml; move it to .env", p.Name, strings.Join(found.path, "."))
		}
	}
	return text, nil
}

// exportText writes a file with another content.
func exportText(out *tar.Writer, as string, text []byte, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	header := &tar.Header{Name: as, ModTime: info.ModTime(), Mode: int64(info.Mode().Perm() & 0o700), Typeflag: tar.TypeReg, Size: int64(len(text))}
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

func exportOne(out *tar.Writer, name, as string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	header := &tar.Header{Name: as, ModTime: info.ModTime(), Mode: int64(info.Mode().Perm() & 0o700), Typeflag: tar.TypeReg, Size: info.Size()}
	if d.IsDir() {
		header.Name, header.Typeflag, header.Size = as+"/", tar.TypeDir, 0
		return out.WriteHeader(header)
	}
	f, err := plain.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	// A file that grows while it is read is taken as long as it was.
	_, err = io.CopyN(out, f, header.Size)
	return err
}

// Import makes a profile out of an archive. name "" takes the archive's own.
// Nothing is written outside the new profile's folder, links are passed over,
// and a broken archive leaves nothing behind. Errors: Invalid, Conflict,
// TooLarge, Unavailable.
func Import(root, name string, r io.Reader) (Profile, error) {
	zip, err := gzip.NewReader(r)
	if err != nil {
		return Profile{}, domain.E(domain.Invalid, err, "the archive is no tar.gz, so nothing was imported")
	}
	in := tar.NewReader(zip)
	var p, tmp Profile
	var dir *os.Root
	var total int64
	for files := 0; ; files++ {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Profile{}, domain.E(domain.Invalid, err, "the archive is damaged, so nothing was imported")
		}
		top, rel, err := archivePath(header.Name)
		if err != nil {
			return Profile{}, err
		}
		if dir == nil {
			if name == "" {
				name = top
			}
			if p, err = newProfile(root, name); err != nil {
				return Profile{}, err
			}
			if tmp, err = scratch(p); err != nil {
				return Profile{}, err
			}
			defer os.RemoveAll(tmp.Home)
			if dir, err = os.OpenRoot(tmp.Home); err != nil {
				return Profile{}, domain.E(domain.Unavailable, err, "the folder %s cannot be opened", tmp.Home)
			}
			defer dir.Close()
		}
		if total += max(header.Size, 0); total > maxArchiveBytes || files > maxArchiveFiles {
			return Profile{}, domain.E(domain.TooLarge, nil, "the archive holds more than %d GiB or %d files, so nothing was imported", maxArchiveBytes>>30, maxArchiveFiles)
		}
		if err := importOne(dir, rel, header, in); err != nil {
			return Profile{}, domain.E(domain.Unavailable, err, "the archive was not imported: %s cannot be written", rel)
		}
	}
	if dir == nil {
		return Profile{}, domain.E(domain.Invalid, nil, "the archive is empty, so nothing was imported")
	}
	if err := os.Rename(tmp.Home, p.Home); err != nil {
		return Profile{}, domain.E(domain.Unavailable, err, "the profile %s was not made: its folder cannot be moved into place", p.Name)
	}
	return p, nil
}

// archivePath splits a name into the profile's folder and the rest.
func archivePath(name string) (top, rel string, err error) {
	clean := path.Clean(strings.TrimPrefix(name, "./"))
	top, rel, _ = strings.Cut(clean, "/")
	if !filepath.IsLocal(filepath.FromSlash(clean)) || strings.Contains(name, "..") && slices.Contains(strings.Split(name, "/"), "..") {
		return "", "", domain.E(domain.Invalid, nil, "the archive holds %q, which lies outside of it, so nothing was imported", name)
	}
	return top, rel, nil
}

func importOne(dir *os.Root, rel string, header *tar.Header, content io.Reader) error {
	first, _, _ := strings.Cut(rel, "/")
	if rel == "" || leftOut(first) || notExported(first) {
		return nil
	}
	switch header.Typeflag {
	case tar.TypeDir:
		return dir.MkdirAll(rel, 0o700)
	case tar.TypeReg:
		if err := dir.MkdirAll(path.Dir(rel), 0o700); err != nil {
			return err
		}
		f, err := dir.OpenFile(rel, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fs.FileMode(0o600|header.Mode&0o100))
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Close())
	}
	return nil
}

func writeFrom(name string, content io.Reader, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

// Alias writes a script <dir>/<name> that stands for `hermes -p <profile>`.
// Errors: Invalid, Conflict when that name is taken by something else,
// Unavailable.
func Alias(p Profile, dir, name, program string) (string, error) {
	if !ValidName(name) || name == "hermes" {
		return "", domain.E(domain.Invalid, nil, "%q cannot be the name of an alias; use a-z, 0-9, - and _", name)
	}
	file := filepath.Join(dir, name)
	if old, err := plain.Read(file); err == nil && !isAlias(old) {
		return "", domain.E(domain.Conflict, nil, "%s exists and is no alias of hermes, so it was left alone; choose another by --name", file)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", domain.E(domain.Unavailable, err, "the folder %s cannot be made", dir)
	}
	if strings.Trim(program, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-") != "" {
		program = "'" + strings.ReplaceAll(program, "'", `'\''`) + "'"
	}
	return file, WriteAtomic(file, fmt.Appendf(nil, "#!/bin/sh\nexec %s -p %s \"$@\"\n", program, p.Name), 0o755)
}

// RemoveAlias removes an alias script. Errors: NotFound, Conflict.
func RemoveAlias(dir, name string) error {
	file := filepath.Join(dir, name)
	old, err := plain.Read(file)
	if err != nil || !ValidName(name) {
		return domain.E(domain.NotFound, nil, "there is no alias %s", file)
	}
	if !isAlias(old) {
		return domain.E(domain.Conflict, nil, "%s is no alias of hermes, so it was left alone", file)
	}
	if err := os.Remove(file); err != nil {
		return domain.E(domain.Unavailable, err, "%s cannot be removed", file)
	}
	return nil
}

func isAlias(script []byte) bool {
	s := string(script)
	return len(s) < 4096 && strings.HasPrefix(s, "#!/bin/sh\n") && strings.Contains(s, "exec ") && strings.Contains(s, " -p ") && strings.Contains(s, "\"$@\"")
}

// AliasOf gives the alias of a profile in dir by its usual name, "" if none.
func AliasOf(p Profile, dir string) string {
	file := filepath.Join(dir, p.Name)
	if old, err := plain.Read(file); err == nil && isAlias(old) && strings.Contains(string(old), " -p "+p.Name+" ") {
		return file
	}
	return ""
}
