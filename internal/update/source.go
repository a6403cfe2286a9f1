package update

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// archiveEnding is how the name of a release's archive ends.
const archiveEnding = ".tar.gz"

// maxSignature bounds a signature, in bytes; one has about 300.
const maxSignature = 4 << 10

// Source is where releases come from: a folder or a URL that holds an index and
// what it names, or one archive with its signature beside it.
type Source struct {
	// Base is an absolute path, or an address that begins with http:// or https://.
	Base string
	// Keys are who may have signed.
	Keys Keys
	// Client fetches what Base's address leads to.
	Client *http.Client
	// Retry is the pause before an attempt at what was cut; each further one is
	// twice as long. Stall is how long no byte may come.
	Retry, Stall time.Duration
	// Progress is told how many bytes of an archive are there; nil for nobody.
	Progress func(done, total int64)
}

// Platform is the name of this machine's kind among a release's archives.
func Platform() string { return runtime.GOOS + "/" + runtime.GOARCH }

// NewSource reads what a person or the configuration named. Errors: Config, when
// nothing is named or no key is known; Invalid.
func NewSource(text string, keys Keys) (*Source, error) {
	text = strings.TrimSuffix(strings.TrimSpace(text), "/"+IndexName)
	if !strings.HasSuffix(text, "://") {
		text = strings.TrimSuffix(text, "/")
	}
	switch u, err := url.Parse(text); {
	case text == "":
		return nil, domain.E(domain.Config, nil, "nobody said where releases are: `hermes config set update.url https://…` names a place for good, HERMES_UPDATE_URL for a time, `--from FILE|URL` for once")
	case len(keys) == 0:
		return nil, domain.E(domain.Config, nil, "this program was built without a key that a release could be held to, so nothing can be trusted; `hermes config set update.public_key RW…` names the key of who makes your releases")
	case strings.Contains(text, "://") && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https"):
		return nil, domain.E(domain.Invalid, nil, "the place of releases begins with https://, http://, or is a file or folder of this machine")
	case !strings.Contains(text, "://"):
		if text, err = filepath.Abs(text); err != nil {
			return nil, domain.E(domain.Invalid, err, "the file or folder of the release cannot be found")
		}
	}
	return &Source{Base: text, Keys: keys, Client: newClient(), Retry: time.Second, Stall: 30 * time.Second}, nil
}

// remote tells whether the source is an address.
func (s *Source) remote() bool { return strings.Contains(s.Base, "://") }

// single tells whether the source is one archive.
func (s *Source) single() bool { return strings.HasSuffix(s.base().Path, archiveEnding) }

// base is the source's address; of a file only the path is set.
func (s *Source) base() *url.URL {
	if s.remote() {
		if u, err := url.Parse(s.Base); err == nil {
			return u
		}
	}
	return &url.URL{Path: s.Base}
}

// at is the place of a file beside the index.
func (s *Source) at(name string) string {
	if !s.remote() {
		return filepath.Join(s.Base, name)
	}
	u := s.base()
	u.Path = path.Join(u.Path, name)
	return u.String()
}

// Shown is the source fit to be shown: without a password and without a query,
// which may be one.
func (s *Source) Shown() string { return shown(s.Base) }

func shown(place string) string {
	u, err := url.Parse(place)
	if err != nil || u.Host == "" {
		return place
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// Index fetches and verifies the index. Errors: Unavailable, when it cannot be
// fetched; as ReadIndex.
func (s *Source) Index(ctx context.Context) (Index, error) {
	text, err := s.small(ctx, s.at(IndexName), maxIndexBytes)
	if err != nil {
		return Index{}, err
	}
	signature, err := s.small(ctx, s.at(IndexName+SignatureSuffix), maxSignature)
	if err != nil {
		return Index{}, err
	}
	return ReadIndex(text, signature, s.Keys)
}

// small reads a whole file of the source.
func (s *Source) small(ctx context.Context, place string, limit int64) ([]byte, error) {
	var text []byte
	var err error
	if s.remote() {
		text, err = s.get(ctx, place, limit)
	} else {
		text, err = readFile(place, limit)
	}
	if err != nil {
		return nil, err
	}
	return text, nil
}

func readFile(name string, limit int64) ([]byte, error) {
	f, err := plain.Open(name)
	if err != nil {
		return nil, domain.E(domain.NotFound, err, "%s cannot be read: %s", name, reason(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, domain.E(domain.Unavailable, err, "%s cannot be read", name)
	case int64(len(text)) > limit:
		return nil, domain.E(domain.Invalid, nil, "%s has more than %d bytes, so it is not what it should be", name, limit)
	}
	return text, nil
}

// reason is an error without the path that stands in the sentence already.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// Fetched is an archive that lies in a file of ours, verified.
type Fetched struct {
	File    string
	Version string
	SHA256  string
}

// Fetch brings the archive of a release into dir, continuing what an earlier
// attempt left there, and holds it to its size, sum and signature. Errors:
// Unauthenticated, Invalid, Unavailable, StorageFull, and ctx's.
func (s *Source) Fetch(ctx context.Context, dir string, r Release, platform string) (Fetched, error) {
	a, ok := r.Archives[platform]
	if !ok {
		return Fetched{}, domain.E(domain.NotFound, nil, "version %s was not made for %s", r.Version, platform)
	}
	signature, err := s.small(ctx, s.at(a.File+SignatureSuffix), maxSignature)
	if err != nil {
		return Fetched{}, err
	}
	file := filepath.Join(dir, partName(a.SHA256))
	if err := s.bring(ctx, s.at(a.File), file, a.Size, a.SHA256); err != nil {
		return Fetched{}, err
	}
	return Fetched{file, r.Version, a.SHA256}, s.verify(file, a.File, signature)
}

// FetchSingle brings the one archive that the source is. Its version is the one
// in its name, which is signed. Errors: as Fetch.
func (s *Source) FetchSingle(ctx context.Context, dir, platform string) (Fetched, error) {
	place := s.base()
	name := path.Base(place.Path)
	version, err := versionOf(name, platform)
	if err != nil {
		return Fetched{}, err
	}
	signed := *place
	signed.Path += SignatureSuffix
	signature, err := s.small(ctx, cmp.Or(map[bool]string{true: signed.String()}[s.remote()], signed.Path), maxSignature)
	if err != nil {
		return Fetched{}, err
	}
	sum := sha256.Sum256(signature) // names this very archive before its own sum is known
	file := filepath.Join(dir, partName(hex.EncodeToString(sum[:])))
	if err := s.bring(ctx, s.Base, file, 0, ""); err != nil {
		return Fetched{}, err
	}
	if err := s.verify(file, name, signature); err != nil {
		return Fetched{}, err
	}
	digest, err := sumOf(file)
	return Fetched{file, version, digest}, err
}

// versionOf reads the version from an archive's name.
func versionOf(name, platform string) (string, error) {
	goos, arch, _ := strings.Cut(platform, "/")
	version, ok := strings.CutPrefix(name, "hermes_")
	rest := strings.TrimSuffix(version, archiveEnding)
	version, _, _ = strings.Cut(rest, "_")
	switch {
	case !ok || !ValidVersion(version):
		return "", domain.E(domain.Invalid, nil, "%s is not named as the archive of a release is, such as %s", name, ArchiveName("1.2.3", goos, arch))
	case name != ArchiveName(version, goos, arch):
		return "", domain.E(domain.Invalid, nil, "%s was made for %s, and this machine is %s; take %s", name, strings.Replace(strings.TrimPrefix(rest, version+"_"), "_", "/", 1), platform, ArchiveName(version, goos, arch))
	}
	return version, nil
}

// partPrefix begins the name of an archive that is being fetched.
const partPrefix = ".fetch-"

func partName(sum string) string { return partPrefix + sum[:24] }

// bring makes file a copy of place. size 0 is unknown, sum "" is not held to.
func (s *Source) bring(ctx context.Context, place, file string, size int64, sum string) error {
	if !s.remote() {
		if err := s.copy(ctx, place, file); err != nil {
			return err
		}
		return s.holdSum(file, place, size, sum)
	}
	resumed := exists(file)
	err := s.download(ctx, place, file, size)
	if err == nil {
		err = s.holdSum(file, place, size, sum)
	}
	if resumed && domain.IsCode(err, domain.Invalid) { // what was there already may be to blame
		_ = os.Remove(file)
		if err = s.download(ctx, place, file, size); err == nil {
			err = s.holdSum(file, place, size, sum)
		}
	}
	return err
}

// holdSum compares a file with what the index says of it, and removes one that
// differs.
func (s *Source) holdSum(file, place string, size int64, sum string) error {
	if sum == "" {
		return nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return storage(err, file)
	}
	digest, err := sumOf(file)
	if err != nil {
		return err
	}
	if digest == sum && info.Size() == size {
		return nil
	}
	_ = os.Remove(file)
	return domain.E(domain.Invalid, nil, "%s is not what the index says: %d bytes with the sum %s…, not %d with %s…; nothing was changed", shown(place), info.Size(), digest[:12], size, sum[:12])
}

// verify holds a file to its signature, and removes one that does not pass.
func (s *Source) verify(file, name string, signature []byte) error {
	text, err := readFile(file, maxArchive)
	if err != nil {
		return err
	}
	if err := s.Keys.Verify(name, text, signature); err != nil {
		_ = os.Remove(file)
		return err
	}
	return nil
}

func (s *Source) copy(ctx context.Context, from, to string) error {
	in, err := plain.Open(from)
	if err != nil {
		return domain.E(domain.NotFound, err, "%s cannot be read: %s", from, reason(err))
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxArchive {
		return domain.E(domain.Invalid, err, "%s is no archive of a release: no file, or larger than %d MiB", from, maxArchive>>20)
	}
	out, err := plain.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return storage(err, to)
	}
	_, err = io.Copy(out, readerCtx{ctx, io.LimitReader(in, maxArchive)})
	if err := errors.Join(err, out.Close()); err != nil {
		_ = os.Remove(to)
		return storage(err, to)
	}
	return nil
}

// readerCtx ends reading with its context.
type readerCtx struct {
	ctx context.Context
	r   io.Reader
}

func (r readerCtx) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func sumOf(file string) (string, error) {
	sum, err := plain.Sum(file)
	if err != nil {
		return "", storage(err, file)
	}
	return sum, nil
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// Choose picks a release: the version that is asked for, else the newest of the
// channel. Errors: NotFound.
func (in Index) Choose(version, channel string) (Release, error) {
	if version != "" {
		r, ok := in.Release(version)
		if !ok {
			return r, domain.E(domain.NotFound, nil, "there is no version %s; the newest are %s", strings.TrimPrefix(version, "v"), in.names(5))
		}
		return r, nil
	}
	r, ok := in.Release(in.Channels[channel])
	if !ok {
		return r, domain.E(domain.NotFound, nil, "nothing was released in the channel %q yet", channel)
	}
	if stable, ok := in.Release(in.Channels["stable"]); ok && channel == "beta" && Compare(stable.Version, r.Version) > 0 {
		return stable, nil // who tries what is new does not stay behind who does not
	}
	return r, nil
}

func (in Index) names(n int) string {
	var b bytes.Buffer
	for i, r := range in.Releases {
		if i == n {
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(r.Version)
	}
	if b.Len() == 0 {
		return "none"
	}
	return b.String()
}
