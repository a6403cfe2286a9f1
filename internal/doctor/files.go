package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"hermes/internal/home"
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
			c.redactor.Add(a.secrets...)
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

// authFile is what an auth.json says, without its tokens.
type authFile struct {
	Path    string
	Trouble error // it is not what was expected
	Entries []authEntry

	secrets []string
}

// authEntry is one login or key.
type authEntry struct {
	Provider string
	Label    string
	Type     string
	Expires  time.Time // zero when it does not expire, or does not say
	Refresh  bool      // it can be renewed
	Failure  string    // why it failed last
}

// readAuth reads the profile's auth.json and the root's.
func readAuth(p home.Profile) []authFile {
	var out []authFile
	for _, path := range home.AuthFiles(p) {
		data, err := plain.Read(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		f := authFile{Path: path, Trouble: err}
		if err == nil {
			f.Trouble = f.parse(data)
		}
		out = append(out, f)
	}
	return out
}

// parse reads both halves of the file: logins by provider, and pools of
// credentials.
func (f *authFile) parse(data []byte) error {
	type entry struct {
		Label     string  `json:"label"`
		Type      string  `json:"auth_type"`
		Access    string  `json:"access_token"`
		Refresh   string  `json:"refresh_token"`
		Expires   any     `json:"expires_at"`
		ExpiresMS float64 `json:"expires_at_ms"`
		Code      any     `json:"last_error_code"`
		Reason    string  `json:"last_error_reason"`
		Message   string  `json:"last_error_message"`
	}
	var auth struct {
		Providers map[string]json.RawMessage `json:"providers"`
		Pool      map[string][]entry         `json:"credential_pool"`
	}
	if err := json.Unmarshal(data, &auth); err != nil {
		return err
	}
	add := func(provider string, e entry) {
		f.secrets = append(f.secrets, e.Access, e.Refresh)
		one := authEntry{Provider: provider, Label: e.Label, Type: e.Type, Refresh: e.Refresh != "", Expires: instant(e.Expires)}
		if e.ExpiresMS > 0 {
			one.Expires = time.UnixMilli(int64(e.ExpiresMS))
		}
		for _, why := range []string{e.Reason, e.Message} {
			if why != "" && one.Failure == "" {
				one.Failure = why
			}
		}
		f.Entries = append(f.Entries, one)
	}
	for provider, raw := range auth.Providers {
		var e entry
		if json.Unmarshal(raw, &e) == nil {
			e.Type = "oauth"
			add(provider, e)
		}
	}
	for provider, pool := range auth.Pool {
		for _, e := range pool {
			add(provider, e)
		}
	}
	return nil
}

// instant reads a time as an ISO text or as seconds of the epoch.
func instant(v any) time.Time {
	switch v := v.(type) {
	case string:
		if t, err := time.Parse(time.RFC3339, v); err == nil {
			return t
		}
	case float64:
		if v > 0 {
			return time.Unix(int64(v), 0)
		}
	}
	return time.Time{}
}
