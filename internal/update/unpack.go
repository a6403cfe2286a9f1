package update

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// programName is the program's name within an archive and within the folder of
// its version.
const programName = "hermes"

// What an archive may hold.
const (
	maxEntries  = 2000
	maxUnpacked = 512 << 20 // bytes
)

// unpack writes what an archive holds into dir, which must be empty. Nothing
// leads out of it: only files and folders are taken, by local names. Errors:
// Invalid, StorageFull, Unavailable.
func unpack(ctx context.Context, archive, dir string) error {
	f, err := plain.Open(archive)
	if err != nil {
		return storage(err, archive)
	}
	defer f.Close()
	bad := func(err error) error {
		return domain.E(domain.Invalid, err, "the archive cannot be unpacked: %v; nothing was changed", err)
	}
	zip, err := gzip.NewReader(readerCtx{ctx, f})
	if err != nil {
		return bad(err)
	}
	left := int64(maxUnpacked)
	in := tar.NewReader(zip)
	for n := 0; ; n++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		switch {
		case err != nil:
			return bad(err)
		case n >= maxEntries:
			return bad(fmt.Errorf("it holds more than %d files", maxEntries))
		case h.Size < 0 || h.Size > left:
			return bad(fmt.Errorf("it holds more than %d MiB", maxUnpacked>>20))
		}
		left -= h.Size
		name := filepath.Clean(filepath.FromSlash(h.Name))
		if !filepath.IsLocal(name) {
			return bad(fmt.Errorf("the name %q leads out of its folder", h.Name))
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(filepath.Join(dir, name), 0o755)
		case tar.TypeReg:
			err = extract(in, filepath.Join(dir, name), name == programName)
		default:
			return bad(fmt.Errorf("%q is neither a file nor a folder", h.Name))
		}
		if err != nil {
			return err
		}
	}
	if info, err := os.Lstat(filepath.Join(dir, programName)); err != nil || !info.Mode().IsRegular() {
		return bad(errors.New("it holds no program hermes"))
	}
	return nil
}

// extract writes one file and makes it durable.
func extract(in io.Reader, to string, program bool) error {
	mode := fs.FileMode(0o644)
	if program {
		mode = 0o755
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return storage(err, to)
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return storage(err, to)
	}
	_, err = io.Copy(f, in)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return storage(err, to)
	}
	return nil
}

// machines are the processors by Go's names.
func machines() map[string]elf.Machine {
	return map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
}

// rightMachine tells a program for another kind of machine. Errors: Invalid.
func rightMachine(program, platform string) error {
	goos, arch, _ := strings.Cut(platform, "/")
	if goos != "linux" {
		return nil
	}
	f, err := elf.Open(program)
	if err != nil {
		return domain.E(domain.Invalid, err, "the program of the release is no program for Linux; nothing was changed")
	}
	defer func() { _ = f.Close() }() // it was read only
	if want := machines()[arch]; f.Machine != want {
		return domain.E(domain.Invalid, nil, "the program of the release is for %s, and this machine is %s; nothing was changed", f.Machine, platform)
	}
	return nil
}

// trialLimit bounds a first run of a program.
const trialLimit = 20 * time.Second

// runs holds that a program runs here and is the version that it is said to be.
// Errors: Invalid.
func runs(ctx context.Context, program, version string) error {
	ctx, cancel := context.WithTimeout(ctx, trialLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.WaitDelay = time.Second
	cmd.Env = []string{"HOME=/nonexistent"}
	out, err := cmd.CombinedOutput()
	text, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	if err != nil {
		return domain.E(domain.Invalid, err, "version %s does not run on this machine (%v): %q; nothing was changed", version, err, text)
	}
	if text != "hermes "+version {
		return domain.E(domain.Invalid, nil, "the program says that it is %q, and the release is %s; nothing was changed", text, version)
	}
	return nil
}
