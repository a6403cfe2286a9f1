// Command release makes everything that a release consists of, in one folder
// that can be copied to a web server as it is:
//
//	hermes_1.2.3_linux_amd64.tar.gz   the program, its manual and completions
//	hermes_1.2.3_linux_arm64.tar.gz
//	hermes_1.2.3_amd64.deb            the same as Debian packages
//	hermes_1.2.3_arm64.deb
//	install.sh                        installs it for one user, without root
//	SHA256SUMS                        sums of all of these
//	index.json                        what `hermes update` reads
//	*.minisig                         a signature of each archive, SHA256SUMS and index.json
//
// It is run as `make release VERSION=1.2.3 MINISIGN_KEY=file`. The same commit,
// version, toolchain and SOURCE_DATE_EPOCH give the same bytes:
// https://reproducible-builds.org/specs/source-date-epoch/
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"aead.dev/minisign"

	"hermes/internal/update"
)

// arches are the processors that a release is built for. Go and Debian call
// them by the same names.
var arches = []string{"amd64", "arm64"}

// job is one release being made.
type job struct {
	version string
	channel string
	out     string
	made    time.Time
	key     minisign.PrivateKey
	public  string
	url     string // where the release will be; "" for an unknown place
	arches  []string
	files   []string // names in out that SHA256SUMS lists
}

func main() {
	j := job{arches: arches}
	var keyFile, previous string
	flag.StringVar(&j.version, "version", "", "version to make, such as 1.2.3 or 1.3.0-beta.1")
	flag.StringVar(&j.channel, "channel", "", "channel that it becomes the newest of (default: stable, or beta for a version with a - in it)")
	flag.StringVar(&j.out, "out", "build/release", "folder to fill; an index.json in it is added to")
	flag.StringVar(&keyFile, "key", "", "minisign's secret key; its password is taken from MINISIGN_PASSWORD")
	flag.StringVar(&previous, "previous", "", "index.json of the releases before (default: the one in -out)")
	flag.StringVar(&j.url, "url", "", "address under which -out will be served, for programs whose operator names none")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := j.run(ctx, keyFile, previous); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func (j *job) run(ctx context.Context, keyFile, previous string) error {
	if err := j.prepare(ctx, keyFile); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "hermes-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := j.describe(ctx, tmp); err != nil {
		return err
	}
	release := update.Release{Version: j.version, Made: j.made, Archives: map[string]update.Archive{}}
	for _, arch := range j.arches {
		a, err := j.buildArch(ctx, tmp, arch)
		if err != nil {
			return fmt.Errorf("%s: %w", arch, err)
		}
		release.Archives["linux/"+arch] = a
	}
	if err := j.installer(); err != nil {
		return err
	}
	if err := j.sums(); err != nil {
		return err
	}
	return j.index(release, previous)
}

// prepare checks what was given and reads the key.
func (j *job) prepare(ctx context.Context, keyFile string) error {
	j.version = strings.TrimPrefix(j.version, "v")
	if !update.ValidVersion(j.version) {
		return fmt.Errorf("%q is no version of a release; -version takes one such as 1.2.3", j.version)
	}
	if j.channel == "" {
		j.channel = "stable"
		if strings.Contains(j.version, "-") {
			j.channel = "beta"
		}
	}
	if keyFile == "" {
		return errors.New("a release must be signed, since `hermes update` takes nothing else; -key names the secret key that `minisign -G` made")
	}
	var err error
	if j.key, err = readKey(keyFile, os.Getenv("MINISIGN_PASSWORD")); err != nil {
		return err
	}
	public, err := j.key.Public().(minisign.PublicKey).MarshalText()
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(public)), "\n")
	j.public = strings.TrimSpace(lines[len(lines)-1])
	if j.made, err = madeAt(ctx, os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		return err
	}
	return os.MkdirAll(j.out, 0o755)
}

// readKey reads a secret key with or without a password.
func readKey(file, password string) (minisign.PrivateKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return minisign.PrivateKey{}, err
	}
	if minisign.IsEncrypted(text) {
		key, err := minisign.DecryptKey(password, text)
		if err != nil {
			return key, fmt.Errorf("the key %s cannot be opened with the password of MINISIGN_PASSWORD: %w", file, err)
		}
		return key, nil
	}
	var key minisign.PrivateKey
	if err := key.UnmarshalText(text); err != nil {
		return key, fmt.Errorf("%s is no secret key of minisign: %w", file, err)
	}
	return key, nil
}

// madeAt is the date of all files: SOURCE_DATE_EPOCH, else that of the commit.
func madeAt(ctx context.Context, epoch string) (time.Time, error) {
	if epoch == "" {
		out, err := exec.CommandContext(ctx, "git", "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("the date of the commit is unknown, and SOURCE_DATE_EPOCH is not set: %w", err)
		}
		epoch = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q; it takes seconds since 1970", epoch)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// buildArch builds the program for one processor and packs it. What is packed
// beside it lies in dir already.
func (j *job) buildArch(ctx context.Context, dir, arch string) (update.Archive, error) {
	program := filepath.Join(dir, "hermes-"+arch)
	ldflags := fmt.Sprintf("-s -w -X hermes/internal/cli.version=%s -X hermes/internal/update.builtinKeys=%s -X hermes/internal/update.builtinURL=%s", j.version, j.public, j.url)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", ldflags, "-o", program, "./cmd/hermes")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return update.Archive{}, fmt.Errorf("go build: %w", err)
	}
	name := update.ArchiveName(j.version, "linux", arch)
	if err := j.tarball(filepath.Join(j.out, name), dir, program); err != nil {
		return update.Archive{}, err
	}
	j.files = append(j.files, name)
	if err := j.sign(name); err != nil {
		return update.Archive{}, err
	}
	deb, err := j.debian(ctx, dir, program, arch)
	if err != nil {
		return update.Archive{}, err
	}
	j.files = append(j.files, deb)
	sum, size, err := j.sum(name)
	return update.Archive{File: name, Size: size, SHA256: sum}, err
}

func (j *job) sum(name string) (sum string, size int64, err error) {
	text, err := os.ReadFile(filepath.Join(j.out, name))
	if err != nil {
		return "", 0, err
	}
	digest := sha256.Sum256(text)
	return hex.EncodeToString(digest[:]), int64(len(text)), nil
}

// sums writes SHA256SUMS in the form that `sha256sum -c` reads.
func (j *job) sums() error {
	var b strings.Builder
	for _, name := range j.files {
		sum, _, err := j.sum(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s  %s\n", sum, name)
	}
	return j.writeSigned(update.SumsName, []byte(b.String()))
}

// index adds the release to those before.
func (j *job) index(release update.Release, previous string) error {
	if previous == "" {
		previous = filepath.Join(j.out, update.IndexName)
	}
	var before update.Index
	text, err := os.ReadFile(previous)
	switch {
	case err == nil:
		if err := json.Unmarshal(text, &before); err != nil {
			return fmt.Errorf("%s is no index of releases: %w", previous, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	text, err = json.MarshalIndent(before.With(j.channel, release), "", "  ")
	if err != nil {
		return err
	}
	return j.writeSigned(update.IndexName, append(text, '\n'))
}

func (j *job) writeSigned(name string, text []byte) error {
	if err := os.WriteFile(filepath.Join(j.out, name), text, 0o644); err != nil {
		return err
	}
	return j.sign(name)
}

// sign writes the signature of a file in out beside it.
func (j *job) sign(name string) error {
	text, err := os.ReadFile(filepath.Join(j.out, name))
	if err != nil {
		return err
	}
	sig := minisign.SignWithComments(j.key, text, update.TrustedComment(name), "signature of "+name)
	return os.WriteFile(filepath.Join(j.out, name+update.SignatureSuffix), sig, 0o644)
}
