// Package files gives the agent its file tools: read_file, write_file, patch
// and search_files. They read and write regular files only (a device or a pipe
// could hang the gateway), never the secrets and the ledger of the gateway's
// profiles, by whatever name a path leads there, and never more than is bounded.
package files

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"hermes/internal/approval"
	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
	"hermes/internal/tool"
)

// Bounds, in bytes unless said otherwise.
const (
	maxRead    = 8 << 20   // a file that is read or patched
	maxWrite   = 4 << 20   // a file that is written
	maxShown   = 28 << 10  // of one read
	maxLine    = 2000      // characters of a line that are shown
	pageLines  = 500       // lines shown when no limit is given
	maxLines   = 2000      // lines shown at most
	maxScanned = 256 << 20 // read by one search
)

// Options is what the file tools need.
type Options struct {
	UserHome string // what ~ means; "" takes it from the user database
	Root     string // the folder that owns the profiles; "" means that only Env.Home is protected
	// Approval is the profile's approval options; nil asks as the zero value does.
	Approval func() approval.Options
}

// New gives the file tools. They keep nothing between calls.
func New(o Options) []tool.Tool {
	if o.UserHome == "" {
		if dir, err := os.UserHomeDir(); err == nil {
			o.UserHome = dir
		}
	}
	f := &files{o}
	return []tool.Tool{f.readTool(), f.writeTool(), f.patchTool(), f.searchTool()}
}

type files struct{ o Options }

// absolute makes a path absolute and clean. domain.Invalid when it is empty or
// holds a zero byte.
func (f *files) absolute(env tool.Env, path string) (string, error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return "", domain.E(domain.Invalid, nil, "the path is empty or not a path; give the path of a file")
	}
	if path == "~" || strings.HasPrefix(path, "~/") {
		path = f.o.UserHome + path[1:]
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(env.Workdir, path)
	}
	return filepath.Clean(path), nil
}

// real follows the symbolic links of a path whose end need not exist.
func real(path string) string {
	rest := ""
	for p := path; ; {
		if target, err := filepath.EvalSymlinks(p); err == nil {
			return filepath.Join(target, rest)
		}
		// A link that leads nowhere yet would be followed by a write.
		if target, err := os.Readlink(p); err == nil {
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(p), target)
			}
			if dir, err := filepath.EvalSymlinks(filepath.Dir(target)); err == nil {
				return filepath.Join(dir, filepath.Base(target), rest)
			}
			return filepath.Join(target, rest)
		}
		parent := filepath.Dir(p)
		if parent == p {
			return path
		}
		rest = filepath.Join(filepath.Base(p), rest)
		p = parent
	}
}

// protected are the files of a profile that no tool touches. What stands in
// them are keys, or state that only the gateway may write.
var protected = []string{".env", ".env.bak", "auth.json", "webhook_subscriptions.json", "ledger.db", "ledger.db-wal", "ledger.db-shm", "gateway.sock", "gateway.lock", "gateway.pid", "gateway_state.json",
	"gateway-starts.json", "gateway-starts.journal", "binary.pin", "binaries.json"}

// refuse says why a path may not be touched, judging both the path as given and
// where its links lead. domain.Forbidden.
func (f *files) refuse(env tool.Env, path string) error {
	for _, p := range []string{path, real(path)} {
		if f.isProtected(env, p) && isKernel(p) {
			return domain.E(domain.Forbidden, nil, "%s is a device or a file of the kernel, which the file tools do not touch; use the terminal", p)
		}
		if f.isProtected(env, p) {
			return domain.E(domain.Forbidden, nil, "%s belongs to the gateway itself (its keys or its state), and tools may not touch it; an operator can use `hermes config`", filepath.Base(p))
		}
	}
	// Another name of the same file (a hard link, a bind mount) is the same file.
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		for _, name := range protected {
			for _, dir := range []string{env.Home, f.o.Root} {
				if dir == "" {
					continue
				}
				if own, err := os.Stat(filepath.Join(dir, name)); err == nil && os.SameFile(info, own) {
					return domain.E(domain.Forbidden, nil, "%s is another name of the gateway's %s, and tools may not touch it", path, name)
				}
			}
		}
	}
	return nil
}

// isKernel tells whether a path lies where devices and the kernel's files are.
func isKernel(p string) bool {
	return strings.HasPrefix(p, "/dev/") || strings.HasPrefix(p, "/sys/") || strings.HasPrefix(p, "/proc/")
}

func (f *files) isProtected(env tool.Env, p string) bool {
	if isKernel(p) {
		// /proc/PID/environ and mem show the gateway's secrets; the rest is of
		// no use to these tools, and some of it never ends.
		return !strings.HasPrefix(p, "/proc/") || strings.Count(p, "/") > 2
	}
	dir, base := filepath.Dir(p), filepath.Base(p)
	home := ""
	if env.Home != "" {
		home = real(env.Home)
	}
	profile := func(d string) bool {
		return d != "" && (d == env.Home || d == home || f.o.Root != "" && (d == f.o.Root || filepath.Dir(d) == filepath.Join(f.o.Root, "profiles")))
	}
	if profile(dir) && (slices.Contains(protected, base) || strings.HasPrefix(base, ".env") || strings.HasSuffix(base, ".pem")) {
		return true
	}
	for d := dir; len(d) > 1; d = filepath.Dir(d) {
		if profile(filepath.Dir(d)) && (filepath.Base(d) == "config-history" || filepath.Base(d) == "pairing" || filepath.Base(d) == "processes") {
			return filepath.Base(d) != "processes" || filepath.Ext(base) != ".out"
		}
	}
	return profile(filepath.Dir(p)) && base == "config-history"
}

// openRegular opens a regular file for reading. It never waits: a pipe is
// opened without blocking, looked at, and refused. domain.NotFound,
// domain.Invalid, domain.Forbidden.
func (f *files) openRegular(env tool.Env, path string) (*os.File, fs.FileInfo, error) {
	if err := f.refuse(env, path); err != nil {
		return nil, nil, err
	}
	file, err := plain.Open(path)
	if err != nil {
		if info, serr := os.Stat(path); serr == nil && errors.Is(err, plain.ErrNotPlain) {
			err = domain.E(domain.Invalid, err, "%s is %s, not a file", path, plain.Kind(info.Mode()))
			return nil, nil, err
		}
		return nil, nil, pathError(err, path)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	// What was opened is judged once more: the path may have been exchanged.
	if target, err := os.Readlink("/proc/self/fd/" + itoa(int(file.Fd()))); err == nil && f.isProtected(env, target) {
		file.Close()
		return nil, nil, domain.E(domain.Forbidden, nil, "%s belongs to the gateway itself, and tools may not touch it", filepath.Base(target))
	}
	return file, info, nil
}

// readAll reads a whole file of at most maxRead bytes. domain.TooLarge, and the
// codes of openRegular.
func (f *files) readAll(env tool.Env, path string) ([]byte, error) {
	file, info, err := f.openRegular(env, path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info.Size() > maxRead {
		return nil, domain.E(domain.TooLarge, nil, "%s has %d MiB, and at most %d are read; look at parts of it with the terminal (head, tail, grep)", path, info.Size()>>20, maxRead>>20)
	}
	b, err := io.ReadAll(io.LimitReader(file, maxRead))
	if err != nil {
		return nil, pathError(err, path)
	}
	return b, nil
}

func pathError(err error, path string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return domain.E(domain.NotFound, err, "%s does not exist; look with search_files or ls", path)
	case errors.Is(err, fs.ErrPermission):
		return domain.E(domain.Forbidden, err, "%s may not be opened by the gateway's user", path)
	case errors.Is(err, syscall.ENOSPC):
		return domain.E(domain.StorageFull, err, "%s was not written: the disk is full", path)
	case errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ELOOP):
		return domain.E(domain.Invalid, err, "%s is not a file", path)
	}
	return domain.E(domain.Unavailable, err, "%s could not be read or written", path)
}

// guard asks before a file is written that starts by itself, says who may log
// in, or belongs to the system; and refuses what keeps the gateway alive.
func (f *files) guard(_ context.Context, env tool.Env, raw json.RawMessage) (tool.Decision, error) {
	var a struct {
		Path string `json:"path"`
	}
	if err := tool.Decode(raw, &a, "path"); err != nil {
		return tool.Decision{}, err
	}
	path, err := f.absolute(env, a.Path)
	if err != nil {
		return tool.Decision{}, err
	}
	if err := f.refuse(env, path); err != nil {
		return tool.Decision{Action: tool.Refuse, Reason: domain.MessageOf(err)}, nil
	}
	var base approval.Options
	if f.o.Approval != nil {
		base = f.o.Approval()
	}
	o := tool.ApprovalFor(base, env)
	if o.UserHome == "" {
		o.UserHome = f.o.UserHome
	}
	v := approval.AnalyzeWrite(path, o)
	if target := real(path); v.Action != approval.Refuse && target != path {
		if through := approval.AnalyzeWrite(target, o); through.Action > v.Action {
			v = through
		}
	}
	return tool.Decide(v, "Writing "+path, path), nil
}

// replace writes a file whole, by another name first. A file keeps its mode.
func (f *files) replace(env tool.Env, path string, data []byte) error {
	if err := f.refuse(env, path); err != nil {
		return err
	}
	if len(data) > maxWrite {
		return domain.E(domain.TooLarge, nil, "the content has %d bytes, and at most %d are written at once; write it in parts with the terminal", len(data), maxWrite)
	}
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		if !info.Mode().IsRegular() {
			return domain.E(domain.Invalid, nil, "%s is %s, not a file, so it was not written", path, plain.Kind(info.Mode()))
		}
		mode = info.Mode().Perm()
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return pathError(err, filepath.Dir(path))
	}
	if err := home.WriteAtomic(path, data, mode); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return pathError(err, path)
		}
		return err
	}
	return nil
}

func label(name string) func(json.RawMessage) string {
	return func(raw json.RawMessage) string {
		var a struct {
			Path    string `json:"path"`
			Pattern string `json:"pattern"`
		}
		if tool.Decode(raw, &a) != nil {
			return name
		}
		return strings.TrimSpace(name + " " + a.Pattern + " " + a.Path)
	}
}
