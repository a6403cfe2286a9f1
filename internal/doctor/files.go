package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"hermes/internal/home"
	"hermes/internal/model/login"
	"hermes/internal/plain"
)

// homeFacts are about the profile's folder and the files in it.
type homeFacts struct {
	Missing  bool
	Trouble  error // it cannot be looked into
	NotDir   bool  // something else has its name
	ReadOnly bool  // nothing can be written into it
	Mode     fs.FileMode
	Files    []fileFacts
	Strange  []fileFacts // files that belong to somebody else
	Free     space
	Ahead    time.Duration // by which the newest file lies in the future
	AheadOf  string
}

// fileFacts are about one file.
type fileFacts struct {
	Path    string
	Mode    fs.FileMode
	UID     int
	Owner   string
	Trouble error // it cannot be read
	Secret  bool  // only its owner may read it
}

// space is what is left on the file system of the home.
type space struct {
	Known         bool
	Bytes, Inodes uint64
	AllInodes     uint64 // 0 where the file system does not count them
	ReadOnly      bool
}

// secretFiles hold secrets or what people said. Whether config.yaml does is
// known only when it is read.
var secretFiles = []string{".env", ".env.bak", "config.yaml", "auth.json", "ledger.db"}

// askFiles looks at the home folder and reads the configuration.
func askFiles(_ context.Context, c *Case) func(*Case) {
	h := lookAtHome(c.Profile, c.Now())
	var env *home.Env
	var cfg *home.Config
	var problems, more home.Problems
	var err error
	if env, problems, err = home.LoadEnv(c.Profile, c.Environ); err == nil {
		cfg, more, err = home.Load(c.Profile, env)
	}
	auth := readAuth(c.Profile)
	return func(c *Case) {
		c.Home, c.Env, c.Config, c.ConfigErr, c.Auth = h, env, cfg, err, auth
		c.Problems = append(problems, more...)
		if env != nil {
			c.redactor.Add(env.Secrets()...)
		}
		if cfg != nil {
			c.redactor.Add(cfg.Secrets()...)
		}
		for _, a := range auth {
			for _, e := range a.Entries {
				c.redactor.Add(e.Access.Reveal(), e.Refresh.Reveal())
			}
		}
	}
}

func lookAtHome(p home.Profile, now time.Time) homeFacts {
	var h homeFacts
	st, err := os.Stat(p.Home)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		h.Missing = true
		h.Free = spaceOf(filepath.Dir(p.Home))
		return h
	case err != nil:
		h.Trouble = err
		return h
	case !st.IsDir():
		h.NotDir = true
		return h
	}
	h.Mode, h.Free = st.Mode().Perm(), spaceOf(p.Home)
	entries, err := os.ReadDir(p.Home)
	if err != nil {
		h.Trouble = err
		return h
	}
	h.ReadOnly = syscall.Access(p.Home, 2) != nil // W_OK of access(2)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // it went away meanwhile
		}
		h.note(filepath.Join(p.Home, e.Name()), info)
		if ahead := info.ModTime().Sub(now); info.Mode().IsRegular() && ahead > h.Ahead {
			h.Ahead, h.AheadOf = ahead, e.Name()
		}
	}
	if info, err := os.Stat(p.LogDir()); err == nil {
		if syscall.Access(p.LogDir(), 2) != nil {
			h.Files = append(h.Files, fileFacts{Path: p.LogDir(), Mode: info.Mode(), Trouble: fs.ErrPermission})
		}
	}
	return h
}

// note looks at one thing in the home.
func (h *homeFacts) note(path string, info fs.FileInfo) {
	f := fileFacts{Path: path, Mode: info.Mode(), UID: -1}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		f.UID = int(sys.Uid)
	}
	name := filepath.Base(path)
	for _, s := range secretFiles {
		f.Secret = f.Secret || s == name
	}
	if me := os.Getuid(); f.UID >= 0 && f.UID != me {
		f.Owner = ownerName(f.UID)
		h.Strange = append(h.Strange, f)
	}
	if f.Secret && info.Mode().IsRegular() {
		if r, err := plain.Open(path); err != nil {
			f.Trouble = err
		} else {
			r.Close()
		}
	}
	h.Files = append(h.Files, f)
}

// spaceOf asks for what is left for this user; statfs(2).
func spaceOf(dir string) space {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return space{}
	}
	const readOnly = 1                                                                                                                             // ST_RDONLY of statvfs(3)
	return space{Known: true, Bytes: st.Bavail * uint64(st.Bsize), Inodes: st.Ffree, AllInodes: st.Files, ReadOnly: int64(st.Flags)&readOnly != 0} //nolint:unconvert // their types differ from system to system
}

func ownerName(uid int) string {
	if u, err := lookupID(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "UID " + strconv.Itoa(uid)
}

// authFile is what an auth.json says.
type authFile struct {
	Path    string
	Trouble error // it is not what was expected
	Entries []login.Credential
}

// readAuth reads the profile's auth.json and the root's.
func readAuth(p home.Profile) []authFile {
	var out []authFile
	for _, path := range home.AuthFiles(p) {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		f := authFile{Path: path}
		f.Entries, f.Trouble = login.Open(path, nil).List("")
		out = append(out, f)
	}
	return out
}
