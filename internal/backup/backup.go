// Package backup writes profiles into one zip archive and puts them back. The
// archive holds the files of the profiles by their paths under the root, with the
// ledger as it stood at one instant, and manifest.json, which names each with
// its size and checksum.
package backup

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/plain"
)

// Bounds of an archive.
const (
	maxFiles    = 200_000
	maxBytes    = 64 << 30
	maxManifest = 64 << 20
)

const (
	manifestName = "manifest.json"
	format       = 1
	// Folder is where archives lie that no place was named for, under the root.
	Folder = "backups"
)

// File is a file of an archive.
type File struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	Secret bool   `json:"secret,omitempty"`
	Run    bool   `json:"executable,omitempty"`
}

// Manifest says what an archive holds.
type Manifest struct {
	Format   int             `json:"format"`
	Program  string          `json:"program"`
	At       time.Time       `json:"at"`
	Secrets  bool            `json:"secrets"` // whether they are part of it
	Profiles []string        `json:"profiles"`
	Files    map[string]File `json:"files"` // by path under the root, with slashes
}

// Options say what is written.
type Options struct {
	Profiles  []home.Profile // of one root
	Program   string         // the version that writes it
	NoSecrets bool
	Now       time.Time
}

// secretNames are files that hold secrets; the history of the configuration
// holds copies of them.
var secretNames = []string{".env", ".env.bak", "auth.json", "auth.json.bak", "webhook_subscriptions.json", "config-history"}

// leftOut are names at the top of a profile that an archive does not hold: what
// can be made again, and what belongs to running processes.
var leftOut = []string{"profiles", "logs", "cache", "image_cache", "audio_cache", "document_cache", "run", Folder, "state-snapshots", "checkpoints",
	"gateway.pid", "gateway.lock", "gateway.sock", "gateway_state.json", "versions", "state", "binary.pin", "binaries.json", "gateway-starts.json", "gateway-starts.journal", ".clean_shutdown", "ledger.db-wal", "ledger.db-shm", "ledger.db.ballast"}

func skipped(name string) bool {
	return slices.Contains(leftOut, name) || strings.HasSuffix(name, ".tmp") || strings.HasSuffix(name, ".lock") || strings.HasPrefix(name, ".import-") ||
		strings.HasPrefix(name, "ledger.db.") || strings.HasPrefix(name, "ledger.db-")
}

// Create writes an archive to path, whole or not at all, readable by this user
// only. The gateways may run. Errors: Conflict, when path exists; NotFound;
// TooLarge; StorageFull; Unavailable; Cancelled.
func Create(ctx context.Context, to string, o Options) (m Manifest, err error) {
	if _, err := os.Lstat(to); err == nil {
		return m, domain.E(domain.Conflict, nil, "%s exists and was left as it is; name another file", to)
	}
	fail := func(err error) (Manifest, error) {
		return m, domain.E(domain.Unavailable, err, "no backup was made: %s cannot be written", to)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fail(err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*.tmp") // 0600
	if err != nil {
		return fail(err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	w := &writer{ctx: ctx, zip: zip.NewWriter(tmp), o: o, dir: filepath.Dir(to),
		m: Manifest{Format: format, Program: o.Program, At: o.Now.UTC(), Secrets: !o.NoSecrets, Files: map[string]File{}}}
	for _, p := range o.Profiles {
		if err := w.profile(p); err != nil {
			return m, err
		}
	}
	body, err := json.MarshalIndent(w.m, "", "  ")
	if err != nil {
		return fail(err)
	}
	f, err := w.zip.CreateHeader(&zip.FileHeader{Name: manifestName, Method: zip.Deflate, Modified: o.Now})
	if err == nil {
		_, err = f.Write(body)
	}
	if err := errors.Join(err, w.zip.Close(), tmp.Sync(), tmp.Close()); err != nil {
		return fail(err)
	}
	if err := os.Link(tmp.Name(), to); err != nil {
		return fail(err)
	}
	return w.m, nil
}

type writer struct {
	ctx   context.Context
	zip   *zip.Writer
	o     Options
	dir   string // for a moment's files
	m     Manifest
	total int64
}

func (w *writer) profile(p home.Profile) error {
	st, err := os.Stat(p.Home)
	if err != nil || !st.IsDir() {
		return domain.E(domain.NotFound, err, "profile %s has no folder %s, so no backup was made", p.Name, p.Home)
	}
	w.m.Profiles = append(w.m.Profiles, p.Name)
	err = filepath.WalkDir(p.Home, func(name string, d fs.DirEntry, err error) error {
		if w.ctx.Err() != nil {
			return domain.E(domain.Cancelled, w.ctx.Err(), "stopped; no backup was made")
		}
		if err != nil {
			return domain.E(domain.Unavailable, err, "%s cannot be read, so no backup was made", name)
		}
		rel, err := filepath.Rel(p.Home, name)
		if err != nil || rel == "." {
			return err
		}
		top, rest, _ := strings.Cut(rel, string(filepath.Separator))
		switch {
		case skipped(top), top == "ledger.db" && rest == "":
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case !d.Type().IsRegular():
			return nil // links may lead anywhere
		}
		secret := slices.Contains(secretNames, top)
		if secret && w.o.NoSecrets {
			return nil
		}
		return w.file(p, name, rel, secret)
	})
	if err != nil {
		return err
	}
	return w.ledger(p)
}

// ledger adds the ledger as it stands now.
func (w *writer) ledger(p home.Profile) error {
	dir, err := os.MkdirTemp(w.dir, ".ledger-*.tmp")
	if err != nil {
		return domain.E(domain.Unavailable, err, "no backup was made: the ledger cannot be copied")
	}
	defer os.RemoveAll(dir)
	copied := filepath.Join(dir, "ledger.db")
	err = sqlite.CopyTo(w.ctx, p.LedgerFile(), copied)
	if domain.IsCode(err, domain.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return w.file(p, copied, "ledger.db", false)
}

func (w *writer) file(p home.Profile, from, rel string, secret bool) error {
	in, err := plain.Open(from)
	if err != nil {
		return domain.E(domain.Unavailable, err, "%s cannot be read, so no backup was made", from)
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return domain.E(domain.Unavailable, err, "%s cannot be read, so no backup was made", from)
	}
	name := filepath.ToSlash(rel)
	if p.Name != home.DefaultProfile {
		name = path.Join("profiles", p.Name, name)
	}
	out, err := w.zip.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: st.ModTime()})
	if err != nil {
		return domain.E(domain.Unavailable, err, "the archive cannot be written")
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), in)
	if err != nil {
		return domain.E(domain.Unavailable, err, "%s cannot be put into the archive", from)
	}
	if w.total += n; w.total > maxBytes || len(w.m.Files) >= maxFiles {
		return domain.E(domain.TooLarge, nil, "the profiles hold more than %d GiB or %d files, so no backup was made", maxBytes>>30, maxFiles)
	}
	w.m.Files[name] = File{Size: n, SHA256: hex.EncodeToString(h.Sum(nil)), Secret: secret, Run: st.Mode().Perm()&0o100 != 0}
	return nil
}

// archive is one that was opened, with every entry named by the manifest.
type archive struct {
	*zip.ReadCloser
	m     Manifest
	files map[string]*zip.File
}

// open reads the manifest and holds the entries to it: names that lead nowhere
// else, each once, and nothing beside them.
func open(file string) (a *archive, err error) {
	r, err := zip.OpenReader(file)
	if err != nil {
		return nil, domain.E(domain.Invalid, err, "%s is no whole zip archive, so nothing was done", file)
	}
	a = &archive{ReadCloser: r, files: map[string]*zip.File{}}
	defer func() {
		if err != nil {
			_ = r.Close() // it was only read
		}
	}()
	bad := func(why string, args ...any) error {
		return domain.E(domain.Invalid, nil, "%s is no backup that can be used: %s. Nothing was done", file, fmt.Sprintf(why, args...))
	}
	if len(r.File) > maxFiles+1 {
		return nil, bad("it holds more than %d files", maxFiles)
	}
	for _, f := range r.File {
		if a.files[f.Name] != nil || !fs.ValidPath(f.Name) || !filepath.IsLocal(filepath.FromSlash(f.Name)) || strings.ContainsAny(f.Name, "\\\x00") || !f.Mode().IsRegular() {
			return nil, bad("it holds %q, which is there twice, or leads outside, or is no file", f.Name)
		}
		a.files[f.Name] = f
	}
	head := a.files[manifestName]
	if head == nil && a.foreign() {
		return nil, domain.E(domain.Invalid, nil, "%[1]s is a backup of the Python system, so nothing was done. Unpack it into a folder of its own and move in from there: `mkdir -m 700 old-home && unzip -q %[1]s -d old-home && hermes migrate --from old-home`", file)
	}
	if head == nil {
		return nil, bad("it has no %s", manifestName)
	}
	in, err := head.Open()
	if err != nil {
		return nil, bad("its %s cannot be read: %v", manifestName, err)
	}
	defer in.Close()
	if err := json.NewDecoder(io.LimitReader(in, maxManifest)).Decode(&a.m); err != nil || a.m.Format != format {
		return nil, bad("its %s is broken, or of a later program", manifestName)
	}
	delete(a.files, manifestName)
	var total int64
	for name, want := range a.m.Files {
		if a.files[name] == nil || want.Size < 0 || name == manifestName {
			return nil, bad("%s is missing", name)
		}
		total += want.Size
	}
	if len(a.m.Files) != len(a.files) || total > maxBytes {
		return nil, bad("it holds other files than its %s says, or more than %d GiB", manifestName, maxBytes>>30)
	}
	return a, nil
}

// foreign tells whether the files are those of a home of the Python system, or
// of a folder that holds one: its store, or its configuration.
func (a *archive) foreign() bool {
	for name := range a.files {
		if base := path.Base(name); strings.Count(name, "/") <= 1 && (base == "state.db" || base == "config.yaml" || base == ".env") {
			return true
		}
	}
	return false
}

// extract writes an entry, which must be what the manifest says, to w.
func (a *archive) extract(name string, w io.Writer) error {
	want := a.m.Files[name]
	in, err := a.files[name].Open()
	if err != nil {
		return domain.E(domain.Invalid, err, "%s of the archive cannot be read", name)
	}
	defer in.Close()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(in, want.Size+1))
	if err != nil {
		return domain.E(domain.Unavailable, err, "%s of the archive cannot be unpacked", name)
	}
	if n != want.Size || hex.EncodeToString(h.Sum(nil)) != want.SHA256 {
		return domain.E(domain.Invalid, nil, "%s of the archive is not what was put into it: the archive is damaged", name)
	}
	return nil
}

// Verify reads an archive through and says what it holds. Errors: Invalid, with
// what is wrong; Cancelled.
func Verify(ctx context.Context, file string) (Manifest, error) {
	a, err := open(file)
	if err != nil {
		return Manifest{}, err
	}
	defer func() { _ = a.Close() }() // it was only read
	for name := range a.m.Files {
		if ctx.Err() != nil {
			return a.m, domain.E(domain.Cancelled, ctx.Err(), "stopped; the archive was not read to its end")
		}
		if err := a.extract(name, io.Discard); err != nil {
			return a.m, err
		}
	}
	return a.m, nil
}
