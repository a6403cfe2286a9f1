package succession

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// CredentialLock is the machine-wide right to use one bot's credential, so that
// two profiles never poll the same bot. The file's form and place are those of
// the other system, which then respects it too.
type CredentialLock struct {
	file *os.File
	path string
}

type credentialRecord struct {
	Record
	Scope    string         `json:"scope"`
	Identity string         `json:"identity_hash"`
	Metadata map[string]any `json:"metadata"`
	Updated  time.Time      `json:"updated_at"`
}

// LockDir is where credential locks lie: HERMES_GATEWAY_LOCK_DIR, else
// hermes/gateway-locks under XDG_STATE_HOME or ~/.local/state.
func LockDir(getenv func(string) string) string {
	if d := getenv("HERMES_GATEWAY_LOCK_DIR"); d != "" {
		return d
	}
	state := getenv("XDG_STATE_HOME")
	if state == "" {
		state = filepath.Join(getenv("HOME"), ".local", "state")
	}
	return filepath.Join(state, "hermes", "gateway-locks")
}

// LockCredential takes the lock of a credential; scope is e.g.
// telegram-bot-token. domain.Conflict when a live process holds it; the message
// names its profile and PID. The credential itself is stored as a hash only.
func LockCredential(dir, scope, credential string, self Record, now time.Time) (*CredentialLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, domain.E(domain.Unavailable, err, "the lock folder %s cannot be made", dir)
	}
	sum := sha256.Sum256([]byte(credential))
	hash := hex.EncodeToString(sum[:])[:16]
	path := filepath.Join(dir, scope+"-"+hash+".lock")
	f, err := plain.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, domain.E(domain.Unavailable, err, "%s cannot be opened", path)
	}
	err = flock(f)
	holder := readRecord(path)
	if errors.Is(err, syscall.EWOULDBLOCK) || err == nil && holder.PID != self.PID && holder.Alive() && holder.isGateway() {
		f.Close()
		who := holder.Profile
		if who == "" {
			who = holder.Home
		}
		return nil, domain.E(domain.Conflict, nil, "%s already in use by profile %s (PID %d). Stop the other gateway first, or give this profile a bot of its own", words(scope), who, holder.PID)
	}
	if err != nil {
		f.Close()
		return nil, domain.E(domain.Unavailable, err, "%s cannot be locked", path)
	}
	text, err := json.Marshal(credentialRecord{Record: self, Scope: scope, Identity: hash, Metadata: map[string]any{}, Updated: now.UTC()})
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(append(text, '\n'), 0)
	}
	if err != nil {
		f.Close()
		return nil, domain.E(domain.Unavailable, err, "%s cannot be written", path)
	}
	return &CredentialLock{f, path}, nil
}

// words turns telegram-bot-token into Telegram bot token.
func words(scope string) string {
	s := strings.ReplaceAll(scope, "-", " ")
	if s == "" {
		return "Credential"
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// Release gives the lock back. The file stays, empty, so that nobody locks a
// file that is being removed.
func (l *CredentialLock) Release() {
	_ = l.file.Truncate(0)
	l.file.Close()
}
