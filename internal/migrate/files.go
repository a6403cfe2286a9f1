package migrate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
)

// ownFiles are the files and folders of a profile that both systems read.
var ownFiles = []string{
	".env", "config.yaml", "auth.json", "SOUL.md", "memories", "skills", "skill-bundles", "scripts", "channel_directory.json",
	"webhook_subscriptions.json", "profile.yaml", ".no-bundled-skills",
}

// Bounds of what is copied from one home to another.
const (
	maxCopies   = 100_000
	maxCopyFile = 256 << 20 // bytes
)

// files brings over what both systems read: in the same home it serves where it
// is, and what is missing in another is copied.
func (m *move) files(ctx context.Context) error {
	same := m.sameHome()
	for _, name := range ownFiles {
		path := filepath.Join(m.From.Home, name)
		st, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			m.report.add(name, Failed, 0, "%s", unreadable(path, err))
			continue
		}
		if !same {
			if err := m.copyEntry(ctx, name); err != nil {
				return err
			}
			continue
		}
		if err := readable(path, st); err != nil {
			m.report.add(name, Failed, 0, "%s", unreadable(path, err))
			continue
		}
		m.report.add(name, Used, 0, "")
	}
	m.homeChannels()
	return nil
}

func readable(path string, st fs.FileInfo) error {
	if st.IsDir() {
		_, err := os.ReadDir(path)
		return err
	}
	f, err := plain.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// homeChannels counts the chats that the old profile reports to, which stand in
// its .env.
func (m *move) homeChannels() {
	env, _, err := home.LoadEnv(m.From, nil)
	if err != nil {
		return // told with .env
	}
	var names []string
	for _, n := range env.FileNames() {
		if strings.HasSuffix(n, "_HOME_CHANNEL") && env.Get(n) != "" {
			names = append(names, strings.ToLower(strings.TrimSuffix(n, "_HOME_CHANNEL")))
		}
	}
	if len(names) > 0 {
		slices.Sort(names)
		m.report.add("home channels", Used, int64(len(names)), "%s, as .env names them", strings.Join(names, ", "))
	}
}

// copyEntry copies a file or a folder into the new home, without replacing
// anything that is there.
func (m *move) copyEntry(ctx context.Context, name string) error {
	var plan []string
	var kept, strange int
	var failed error
	base := filepath.Join(m.From.Home, name)
	root, err := filepath.EvalSymlinks(base) // the entry itself may be a linked dotfile
	if err != nil {
		m.report.add(name, Failed, 0, "%s", unreadable(base, err))
		return nil
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return domain.E(domain.Cancelled, ctx.Err(), "stopped while files were looked at; nothing was changed")
		}
		if err != nil {
			failed = fmt.Errorf("%s", unreadable(path, err))
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(filepath.Join(name, rel))
		switch {
		case d.IsDir():
		case !d.Type().IsRegular():
			strange++
		default:
			if _, err := os.Lstat(m.To.Path(filepath.FromSlash(rel))); err == nil {
				if m.record.Files[rel] == "" {
					kept++
				}
				return nil
			}
			if plan = append(plan, rel); len(plan) > maxCopies {
				return domain.E(domain.TooLarge, nil, "%s holds more than %d files; bring it over by hand", base, maxCopies)
			}
		}
		return nil
	})
	if err != nil {
		if domain.IsCode(err, domain.Cancelled) {
			return err
		}
		m.report.add(name, Failed, 0, "%s", domain.MessageOf(err))
		return nil
	}
	copied := int64(len(plan))
	if !m.DryRun && len(plan) > 0 {
		if copied, err = m.copyPlan(ctx, name, root, plan); err != nil {
			failed = err
		}
	}
	m.tellCopied(name, copied, kept, strange, failed)
	return ctx.Err()
}

func (m *move) tellCopied(name string, copied int64, kept, strange int, failed error) {
	brought := int64(0)
	for rel := range m.record.Files {
		if rel == name || strings.HasPrefix(rel, name+"/") {
			brought++
		}
	}
	if m.DryRun {
		brought = copied
	}
	if brought > 0 {
		m.report.add(name, Taken, brought, "")
	}
	if kept > 0 {
		m.report.add(name, Left, int64(kept), "the new home has its own, which stays")
	}
	if strange > 0 {
		m.report.add(name, Left, int64(strange), "links and devices are not copied")
	}
	if failed != nil {
		m.report.add(name, Failed, 0, "%s", domain.MessageOf(failed))
	}
}

// copyPlan notes what it will write, then writes it.
func (m *move) copyPlan(ctx context.Context, name, root string, plan []string) (copied int64, err error) {
	var errs []error
	from := func(rel string) string { return filepath.Join(root, filepath.FromSlash(strings.TrimPrefix(rel, name))) }
	var ready []string
	for _, rel := range plan {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		sum, err := plain.Sum(from(rel))
		if err != nil {
			errs = append(errs, errors.New(unreadable(from(rel), err)))
			continue
		}
		m.record.Files[rel] = sum
		ready = append(ready, rel)
	}
	if err := m.save(); err != nil {
		return 0, err
	}
	for _, rel := range ready {
		if err := copyFile(from(rel), m.To.Path(filepath.FromSlash(rel)), m.record.Files[rel]); err != nil {
			delete(m.record.Files, rel)
			errs = append(errs, err)
			continue
		}
		copied++
	}
	return copied, errors.Join(errs...)
}

// copyFile makes a copy, whole or not at all, and never over another file.
func copyFile(from, to, sum string) error {
	fail := func(err error) error {
		return domain.E(domain.Unavailable, err, "%s was not copied", from)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fail(err)
	}
	in, err := plain.Open(from)
	if err != nil {
		return fail(err)
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return fail(err)
	}
	if st.Size() > maxCopyFile {
		return domain.E(domain.TooLarge, nil, "%s has %d MiB; bring it over by hand", from, st.Size()>>20)
	}
	tmp, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*.tmp") // 0600
	if err != nil {
		return fail(err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(tmp, h), io.LimitReader(in, maxCopyFile)); err != nil {
		return fail(err)
	}
	if hex.EncodeToString(h.Sum(nil)) != sum {
		return fail(errors.New("it changes while it is read"))
	}
	if err := errors.Join(tmp.Chmod(0o600|st.Mode().Perm()&0o100), tmp.Sync(), tmp.Close()); err != nil {
		return fail(err)
	}
	if err := os.Link(tmp.Name(), to); err != nil { // fails where there is something by now
		return fail(err)
	}
	return nil
}
