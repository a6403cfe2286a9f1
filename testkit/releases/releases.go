// Package releases makes folders of releases as scripts/release does, of
// programs that a test brings, signed by a key of its own.
package releases

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"aead.dev/minisign"

	"hermes/internal/update"
)

// Folder is a folder of releases that can be served as it is.
type Folder struct {
	Dir       string
	PublicKey string
	Index     update.Index

	key  minisign.PrivateKey
	made time.Time
}

// New makes an empty folder and a key. The folder is made where it is missing.
func New(dir string) (*Folder, error) {
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	return &Folder{Dir: dir, PublicKey: public.String(), key: private, made: time.Now().UTC().Truncate(time.Second)}, os.MkdirAll(dir, 0o755)
}

// Entry is one file of an archive; Type 0 is a plain file.
type Entry struct {
	Name string
	Text []byte
	Type byte
	Link string
}

// Add makes a program the newest release of a channel and gives the path of its
// archive.
func (f *Folder) Add(channel, version string, program []byte) (string, error) {
	return f.AddArchive(channel, version, Entry{Name: "hermes", Text: program}, Entry{Name: "LICENSE", Text: []byte("as is\n")})
}

// AddArchive is Add for an archive of any content.
func (f *Folder) AddArchive(channel, version string, entries ...Entry) (string, error) {
	var b bytes.Buffer
	zip, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return "", err
	}
	w := tar.NewWriter(zip)
	for _, e := range entries {
		h := &tar.Header{Name: e.Name, Typeflag: e.Type, Linkname: e.Link, Mode: 0o755, Size: int64(len(e.Text)), ModTime: f.made}
		if e.Type == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			return "", err
		}
		if _, err := w.Write(e.Text); err != nil {
			return "", err
		}
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	if err := zip.Close(); err != nil {
		return "", err
	}
	goos, arch, _ := strings.Cut(update.Platform(), "/")
	name := update.ArchiveName(version, goos, arch)
	if err := f.Write(name, b.Bytes()); err != nil {
		return "", err
	}
	sum := sha256.Sum256(b.Bytes())
	f.made = f.made.Add(time.Second)
	return filepath.Join(f.Dir, name), f.WriteIndex(f.Index.With(channel, update.Release{Version: version, Made: f.made, Archives: map[string]update.Archive{
		update.Platform(): {File: name, Size: int64(b.Len()), SHA256: hex.EncodeToString(sum[:])},
	}}))
}

// WriteIndex writes and signs an index.
func (f *Folder) WriteIndex(in update.Index) error {
	f.Index = in
	text, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return f.Write(update.IndexName, text)
}

// Write writes a file and its signature.
func (f *Folder) Write(name string, text []byte) error {
	if err := os.WriteFile(filepath.Join(f.Dir, name), text, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(f.Dir, name+update.SignatureSuffix), f.Sign(name, text), 0o644)
}

// Sign signs a text as that of a file.
func (f *Folder) Sign(name string, text []byte) []byte {
	return minisign.SignWithComments(f.key, text, update.TrustedComment(name), "signature of "+name)
}
