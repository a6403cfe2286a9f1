// Package update brings another version of hermes to a running installation: it
// finds a release, fetches it, verifies it, puts it beside the version in use,
// and hands every profile over to it, or leaves all as it was.
package update

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"aead.dev/minisign"
	"golang.org/x/mod/semver"

	"hermes/internal/domain"
)

// The files of a release, beside each other in one folder or under one URL. To
// each but SHA256SUMS' own there is a signature of its name and SignatureSuffix.
const (
	IndexName       = "index.json"
	SumsName        = "SHA256SUMS"
	SignatureSuffix = ".minisig"
)

// indexFormat is the newest form of an index that this program reads. Unknown
// fields are passed over, so that it rises only when an old program must not
// read a new index.
const indexFormat = 1

const (
	maxIndexBytes = 1 << 20
	maxReleases   = 50
	maxArchive    = 256 << 20 // bytes; a release is about 25 MB
)

// Index says which releases there are. It is signed as a whole.
type Index struct {
	Format   int               `json:"format"`
	Made     time.Time         `json:"made"`     // rises with every index, so that an old one that is shown again is noticed
	Channels map[string]string `json:"channels"` // stable, beta → version
	Releases []Release         `json:"releases"` // newest first
}

// Release is one version.
type Release struct {
	Version  string             `json:"version"` // semantic, without a v
	Made     time.Time          `json:"made"`
	Archives map[string]Archive `json:"archives"` // by platform: linux/amd64, linux/arm64
}

// Archive is the file that holds a release for one platform.
type Archive struct {
	File   string `json:"file"` // name beside the index
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// ArchiveName is the name of a release's archive.
func ArchiveName(version, os, arch string) string {
	return fmt.Sprintf("hermes_%s_%s_%s.tar.gz", version, os, arch)
}

// ReadIndex verifies an index by its signature and reads it. Errors: Unauthenticated,
// when no key signed it; Invalid, when it is signed and yet no index that this
// program can use.
func ReadIndex(text, signature []byte, keys Keys) (Index, error) {
	if err := keys.Verify(IndexName, text, signature); err != nil {
		return Index{}, err
	}
	var in Index
	if err := json.Unmarshal(text, &in); err != nil {
		return Index{}, domain.E(domain.Invalid, err, "the release index is no JSON, though it is signed; its maker must make it again")
	}
	if err := in.check(); err != nil {
		return Index{}, domain.E(domain.Invalid, nil, "the release index cannot be used: %s", err)
	}
	return in, nil
}

func (in Index) check() error {
	switch {
	case in.Format != indexFormat:
		return fmt.Errorf("its format is %d, and this program reads %d; install the new version by hand", in.Format, indexFormat)
	case in.Made.IsZero():
		return fmt.Errorf("it does not say when it was made")
	case len(in.Releases) > maxReleases:
		return fmt.Errorf("it lists %d releases, more than %d", len(in.Releases), maxReleases)
	}
	for _, r := range in.Releases {
		if !ValidVersion(r.Version) {
			return fmt.Errorf("%q is no version", r.Version)
		}
		for platform, a := range r.Archives {
			sum, err := hex.DecodeString(a.SHA256)
			if err != nil || len(sum) != 32 || a.Size <= 0 || a.Size > maxArchive || a.File != path.Base(a.File) || strings.HasPrefix(a.File, ".") {
				return fmt.Errorf("the archive of %s for %s is described wrongly", r.Version, platform)
			}
		}
	}
	for channel, version := range in.Channels {
		if _, ok := in.Release(version); !ok {
			return fmt.Errorf("the channel %q names %q, which it does not list", channel, version)
		}
	}
	return nil
}

// Release finds a version, with or without a leading v.
func (in Index) Release(version string) (Release, bool) {
	version = strings.TrimPrefix(version, "v")
	i := slices.IndexFunc(in.Releases, func(r Release) bool { return r.Version == version })
	if i < 0 {
		return Release{}, false
	}
	return in.Releases[i], true
}

// With gives the index with a release added, or put in place of its like, as the
// newest of a channel. The oldest beyond what an index may hold are left out,
// those that a channel names excepted.
func (in Index) With(channel string, r Release) Index {
	out := Index{Format: indexFormat, Made: r.Made, Channels: map[string]string{}, Releases: []Release{r}}
	for name, version := range in.Channels {
		out.Channels[name] = version
	}
	out.Channels[channel] = r.Version
	for _, old := range in.Releases {
		if old.Version != r.Version {
			out.Releases = append(out.Releases, old)
		}
	}
	slices.SortStableFunc(out.Releases, func(a, b Release) int { return Compare(b.Version, a.Version) })
	named := func(r Release) bool {
		for _, version := range out.Channels {
			if version == r.Version {
				return true
			}
		}
		return false
	}
	for i := len(out.Releases) - 1; i >= 0 && len(out.Releases) > maxReleases; i-- {
		if !named(out.Releases[i]) {
			out.Releases = slices.Delete(out.Releases, i, i+1)
		}
	}
	return out
}

// ValidVersion tells whether a version is one that releases have: three numbers
// and perhaps more, as https://semver.org says, without a v.
func ValidVersion(v string) bool {
	return semver.IsValid("v"+v) && strings.Count(semver.Canonical("v" + v)[1:], ".") >= 2 && strings.HasPrefix("v"+v, semver.Canonical("v"+v))
}

// Compare orders versions by https://semver.org, -1 when a is older than b. What
// is no version, such as a build of a developer, is older than any.
func Compare(a, b string) int {
	return semver.Compare("v"+strings.TrimPrefix(a, "v"), "v"+strings.TrimPrefix(b, "v"))
}

// Keys are the public keys of which one must have signed. Two stand beside each
// other while one is replaced.
type Keys []minisign.PublicKey

// ParseKeys reads public keys as minisign prints them (RW…), separated by space
// or commas. Errors: Config.
func ParseKeys(text string) (Keys, error) {
	var keys Keys
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }) {
		var k minisign.PublicKey
		if err := k.UnmarshalText([]byte(word)); err != nil {
			return nil, domain.E(domain.Config, err, "%q is no public key of minisign; it looks like RW followed by 54 letters and digits", word)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Verify holds a file's signature to the keys, and the signed comment to the
// file's name, so that one signed file cannot be shown in place of another.
// Errors: Unauthenticated.
func (k Keys) Verify(name string, content, signature []byte) error {
	var sig minisign.Signature
	if err := sig.UnmarshalText(signature); err != nil {
		return domain.E(domain.Unauthenticated, err, "%s%s is no signature, so %[1]s was not trusted", name, SignatureSuffix)
	}
	if !slices.ContainsFunc(k, func(key minisign.PublicKey) bool { return minisign.Verify(key, content, signature) }) {
		return domain.E(domain.Unauthenticated, nil, "%s is not signed by a key that this installation trusts (it was signed by %016X), so nothing was changed", name, sig.KeyID)
	}
	if !slices.Contains(strings.Fields(sig.TrustedComment), TrustedComment(name)) {
		return domain.E(domain.Unauthenticated, nil, "the signature of %s was made for another file (%q), so nothing was changed", name, sig.TrustedComment)
	}
	return nil
}

// TrustedComment is what the signed comment of a file must hold as one of its
// words, as minisign itself writes it: https://jedisct1.github.io/minisign/
func TrustedComment(name string) string { return "file:" + name }
