package directory

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hermes/internal/domain"
	"hermes/internal/plain"
	"hermes/internal/platform"
)

// maxFile bounds what is read, in bytes.
const maxFile = 32 << 20

// fileForm is channel_directory.json. listed_at is ours; other readers pass over
// it.
type fileForm struct {
	Updated   string                        `json:"updated_at"`
	Platforms map[domain.Platform][]Entry   `json:"platforms"`
	Listed    map[domain.Platform]time.Time `json:"listed_at,omitempty"`
}

// load reads the file.
func (d *Directory) load() error {
	f, err := plain.Open(d.o.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return err
	}
	var form fileForm
	if err := json.Unmarshal(text, &form); err != nil {
		return err
	}
	for p, entries := range form.Platforms {
		asked := form.Listed[p]
		if asked.After(d.o.Now()) { // a clock that was set back
			asked = time.Time{}
		}
		d.lists[p] = list{entries: entries[:min(len(entries), platform.MaxChannels)], asked: asked}
	}
	return nil
}

// save writes the file when what it says has changed, so that a reader sees the
// old one or the new one whole.
func (d *Directory) save(ctx context.Context) error {
	form := fileForm{Platforms: map[domain.Platform][]Entry{}, Listed: map[domain.Platform]time.Time{}}
	for _, e := range d.Places(ctx, "") {
		form.Platforms[e.To.Platform] = append(form.Platforms[e.To.Platform], e.Entry)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for p, l := range d.lists {
		if !l.asked.IsZero() {
			form.Listed[p] = l.asked.UTC().Truncate(time.Second)
			if form.Platforms[p] == nil {
				form.Platforms[p] = []Entry{}
			}
		}
	}
	form.Updated = d.o.Now().UTC().Format(time.RFC3339)
	text, err := json.MarshalIndent(form, "", "  ")
	if err != nil {
		return domain.E(domain.Internal, err, "the channel directory cannot be written")
	}
	if err := replace(d.o.Path, append(text, '\n')); err != nil {
		return domain.E(domain.Unavailable, err, "the channel directory %s was not written; names are known until this process ends", d.o.Path)
	}
	return nil
}

// replace puts a new file in the place of another.
func replace(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".channel_directory_*.tmp") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
