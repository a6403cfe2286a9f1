package backup

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
	"hermes/internal/plain"
	"hermes/internal/succession"
)

// RestoreOptions say how far a restore goes.
type RestoreOptions struct {
	Root   string
	Now    time.Time
	DryRun bool // only says what would happen
	Force  bool // replaces what is there, and keeps it beside
}

// Restored is what a restore did, or would do.
type Restored struct {
	Manifest Manifest                  `json:"manifest"`
	New      []string                  `json:"new"`      // paths under the root
	Replaced []string                  `json:"replaced"` // there before, with other content
	Same     int                       `json:"same"`     // there already
	Kept     string                    `json:"kept,omitempty"`
	Settled  map[string]ledger.Waiting `json:"settled,omitempty"` // by profile
}

const stagePrefix = ".import-"

// Reason is why what waited when the backup was made is not done any more.
const Reason = "it waited when the backup was made, and may have happened since; it was not repeated"

// Restore puts an archive's files under a root. It is read through first, so that
// a damaged one changes nothing; then each file takes its place whole, and what
// was there is kept beside. Cut off at any point, it is completed by being run
// again. What the ledger had accepted and not ended is settled (sqlite.Settle).
// Errors: Invalid for a bad archive; Conflict, when a gateway of it runs, or
// files would be replaced without Force; Unavailable; StorageFull; Cancelled.
func Restore(ctx context.Context, file string, o RestoreOptions) (r Restored, err error) {
	a, err := open(file)
	if err != nil {
		return r, err
	}
	defer func() { _ = a.Close() }() // it was only read
	r.Manifest = a.m
	for _, name := range a.m.Profiles {
		p, err := home.Named(o.Root, name)
		if err != nil {
			return r, err
		}
		if holder, ok := succession.Holder(p); ok && !o.DryRun {
			return r, domain.E(domain.Conflict, nil, "the gateway of profile %s runs (PID %d); stop it first: `hermes -p %s gateway stop`. Nothing was changed", name, holder.PID, name)
		}
	}
	if err := r.compare(ctx, a, o.Root); err != nil {
		return r, err
	}
	if o.DryRun {
		_, err := Verify(ctx, file)
		return r, err
	}
	if len(r.Replaced) > 0 && !o.Force {
		return r, domain.E(domain.Conflict, nil, "%d file(s) are there with other content, such as %s; --force replaces them and keeps what they were. Nothing was changed", len(r.Replaced), r.Replaced[0])
	}
	return r, r.put(ctx, a, o)
}

// compare says what of an archive is new.
func (r *Restored) compare(ctx context.Context, a *archive, root string) error {
	r.New, r.Replaced = []string{}, []string{}
	for _, name := range slices.Sorted(maps.Keys(a.m.Files)) {
		if ctx.Err() != nil {
			return domain.E(domain.Cancelled, ctx.Err(), "stopped; nothing was changed")
		}
		sum, err := plain.Sum(filepath.Join(root, filepath.FromSlash(name)))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			r.New = append(r.New, name)
		case err == nil && sum == a.m.Files[name].SHA256:
			r.Same++
		default:
			r.Replaced = append(r.Replaced, name)
		}
	}
	return nil
}

// put unpacks everything beside its place, then moves it there.
func (r *Restored) put(ctx context.Context, a *archive, o RestoreOptions) error {
	fail := func(err error) error {
		if domain.CodeOf(err) != domain.Internal {
			return err
		}
		return domain.E(domain.Unavailable, err, "the backup was not put back to its end; run it again to complete it")
	}
	if err := os.MkdirAll(o.Root, 0o700); err != nil {
		return fail(err)
	}
	old, _ := filepath.Glob(filepath.Join(o.Root, stagePrefix+"*"))
	for _, dir := range old {
		_ = os.RemoveAll(dir) // of one that was cut off; it costs space only
	}
	stage, err := os.MkdirTemp(o.Root, stagePrefix)
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(stage)
	want := slices.Concat(r.New, r.Replaced)
	for _, name := range want {
		if ctx.Err() != nil {
			return domain.E(domain.Cancelled, ctx.Err(), "stopped; nothing was changed")
		}
		if err := unpack(a, name, filepath.Join(stage, filepath.FromSlash(name))); err != nil {
			return err
		}
	}
	if err := r.settle(ctx, a, stage, want, o.Now); err != nil {
		return err
	}
	kept := filepath.Join(o.Root, Folder, "before-import-"+o.Now.UTC().Format("20060102T150405Z"))
	for _, name := range want {
		rel := filepath.FromSlash(name)
		to := filepath.Join(o.Root, rel)
		if slices.Contains(r.Replaced, name) {
			r.Kept = kept
			if err := keep(ctx, to, filepath.Join(kept, rel)); err != nil {
				return fail(err)
			}
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return fail(err)
		}
		if err := os.Rename(filepath.Join(stage, rel), to); err != nil {
			return fail(err)
		}
	}
	return nil
}

func unpack(a *archive, name, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return domain.E(domain.Unavailable, err, "%s cannot be unpacked; nothing was changed", name)
	}
	mode := fs.FileMode(0o600)
	if a.m.Files[name].Run {
		mode = 0o700
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return domain.E(domain.Unavailable, err, "%s cannot be unpacked; nothing was changed", name)
	}
	if err := a.extract(name, f); err != nil {
		f.Close()
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return domain.E(domain.Unavailable, err, "%s cannot be unpacked; nothing was changed", name)
	}
	return nil
}

// settle ends what the unpacked ledgers still had to do.
func (r *Restored) settle(ctx context.Context, a *archive, stage string, want []string, now time.Time) error {
	r.Settled = map[string]ledger.Waiting{}
	for _, name := range a.m.Profiles {
		p, err := home.Named(stage, name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(stage, p.LedgerFile())
		if err != nil || !slices.Contains(want, filepath.ToSlash(rel)) {
			continue
		}
		if r.Settled[name], err = sqlite.Settle(ctx, p.LedgerFile(), Reason, now); err != nil {
			return err
		}
	}
	return nil
}

// keep puts what is at path aside, so that path never is without content. A
// ledger is copied with its log, which must not lie beside another ledger.
func keep(ctx context.Context, path, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if filepath.Base(path) != "ledger.db" {
		return os.Link(path, to)
	}
	if err := sqlite.CopyTo(ctx, path, to); err != nil {
		if err := os.Link(path, to); err != nil { // a damaged one is kept as it is
			return err
		}
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Rename(path+suffix, to+suffix+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
