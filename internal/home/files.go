package home

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// Files is the text of a profile's configuration as it stood at one instant:
// .env and config.yaml, which only together say how a profile is served. A nil
// text is a file that does not exist. It is read-only.
type Files struct{ Env, Config []byte }

// ReadFiles reads both files, after a change of both that is under way. Errors:
// Config.
func ReadFiles(p Profile) (Files, error) {
	settle(p)
	return readFiles(p)
}

// readFiles is ReadFiles for who holds the lock of edits.
func readFiles(p Profile) (Files, error) {
	env, err := readBounded(p.EnvFile())
	if err != nil {
		return Files{}, err
	}
	config, err := readBounded(p.ConfigFile())
	return Files{Env: env, Config: config}, err
}

// Fingerprint names the content: two configurations with the same one are the
// same, byte by byte. A missing file and an empty one mean the same.
func (f Files) Fingerprint() string {
	h := sha256.New()
	for _, text := range [][]byte{f.Env, f.Config} {
		_ = binary.Write(h, binary.BigEndian, uint64(len(text))) // a hash takes everything
		h.Write(text)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// LoadFiles is LoadEnv and Load of a given text in place of what the files hold
// now. Whatever is loaded with the environment that it gives, such as a job's
// own model, is read from that text too. Errors: Config.
func LoadFiles(p Profile, f Files, process []string) (*Env, *Config, Problems, error) {
	env, problems := parseEnviron(p, process, f.Env)
	env.files = &f
	cfg, more, err := Load(p, env)
	if err != nil {
		return nil, nil, nil, err
	}
	return env, cfg, append(append(more, problems...), checkMode(p)...), nil
}
