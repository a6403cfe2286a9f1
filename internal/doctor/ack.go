package doctor

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/plain"
)

// Acknowledged is an operator's word that a finding is known. It holds until its
// time is over, or the evidence is another.
type Acknowledged struct {
	At    time.Time `json:"at"`
	Until time.Time `json:"until"`
}

// ack is an acknowledgement as it is kept.
type ack struct {
	ID    string    `json:"id"`
	About string    `json:"about,omitempty"`
	At    time.Time `json:"at"`
	Until time.Time `json:"until"`
	Mark  string    `json:"mark"` // of the evidence that was seen
}

// The bounds of acknowledgements.
const (
	// MostAcknowledged is the longest that an acknowledgement may hold.
	MostAcknowledged = 365 * 24 * time.Hour
	maxAcks          = 200
)

func ackFile(profileHome string) string { return filepath.Join(profileHome, "doctor-acks.json") }

// readAcks gives what was acknowledged in a home. What cannot be read counts as
// nothing: a finding too many is better than one too few.
func readAcks(profileHome string) []ack {
	text, err := plain.Read(ackFile(profileHome))
	var out []ack
	if err != nil || json.Unmarshal(text, &out) != nil {
		return nil
	}
	return out[:min(len(out), maxAcks)]
}

// passing is what evidence tells anew each time it is gathered.
var passing = regexp.MustCompile(`^status since [0-9:]+: `)

// mark tells evidence from other evidence. It holds no secret, since it is of
// what is shown.
func (f Finding) mark() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00", f.ID, f.About, f.What)
	for _, e := range f.Evidence {
		fmt.Fprintf(h, "%s\x00", passing.ReplaceAllString(e, ""))
	}
	for _, s := range f.Symptoms {
		fmt.Fprintf(h, "%s\x01", s.ID)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// acknowledged marks the findings of a report that the operator knows of, and
// puts them behind the others.
func (r *Report) acknowledged(now time.Time) {
	acks := readAcks(r.Home)
	for i := range r.Findings {
		f := &r.Findings[i]
		for _, a := range acks {
			if a.ID == f.ID && a.About == f.About && a.Mark == f.mark() && now.Before(a.Until) && a.Until.Sub(now) <= MostAcknowledged {
				f.Acknowledged = &Acknowledged{At: a.At, Until: a.Until}
			}
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return onFirst(a.Acknowledged != nil) - onFirst(b.Acknowledged != nil) })
}

// meant tells whether a word of the operator's, an ID or an ID with what it is
// about behind a colon, means a finding.
func meant(word, id, about string) bool {
	wordID, wordAbout, narrow := strings.Cut(word, ":")
	return wordID == id && (!narrow || wordAbout == about)
}

// Acknowledge notes that the operator knows of the findings of a report that a
// word means (service.disk_full, transport.limited:telegram), and marks them in
// it. Errors: NotFound, when there is none; Invalid, when the time is not to
// come or too far off; Forbidden, in the home of another user, whose files would
// be this one's from then on; Unavailable, StorageFull.
func Acknowledge(r *Report, word string, until, now time.Time) error {
	if !until.After(now) || until.Sub(now) > MostAcknowledged {
		return domain.E(domain.Invalid, nil, "a finding can be acknowledged for up to %d days", int(MostAcknowledged.Hours()/24))
	}
	if err := own(r.Home); err != nil {
		return err
	}
	acks := slices.DeleteFunc(readAcks(r.Home), func(a ack) bool { return !now.Before(a.Until) })
	var names []string
	found := false
	for _, f := range r.Findings {
		names = append(names, f.ID)
		if !meant(word, f.ID, f.About) {
			continue
		}
		found = true
		acks = slices.DeleteFunc(acks, func(a ack) bool { return a.ID == f.ID && a.About == f.About })
		acks = append(acks, ack{ID: f.ID, About: f.About, At: now.UTC().Truncate(time.Second), Until: until.UTC().Truncate(time.Second), Mark: f.mark()})
	}
	if !found {
		return domain.E(domain.NotFound, nil, "doctor does not find %s in the profile %s just now, so there is nothing to acknowledge; it finds: %s", word, r.Profile, orNone(strings.Join(names, ", ")))
	}
	if err := writeAcks(r.Home, acks); err != nil {
		return err
	}
	r.acknowledged(now)
	r.Healthy = !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity != Advice && f.Acknowledged == nil })
	return nil
}

// Withdraw takes acknowledgements back that a word means, and says how many.
// Errors: Forbidden, Unavailable, StorageFull.
func Withdraw(profileHome, word string) (int, error) {
	all := readAcks(profileHome)
	rest := slices.DeleteFunc(slices.Clone(all), func(a ack) bool { return meant(word, a.ID, a.About) })
	if len(rest) == len(all) {
		return 0, nil
	}
	if err := own(profileHome); err != nil {
		return 0, err
	}
	return len(all) - len(rest), writeAcks(profileHome, rest)
}

func writeAcks(profileHome string, acks []ack) error {
	text, err := json.MarshalIndent(acks[max(0, len(acks)-maxAcks):], "", "  ")
	if err != nil {
		return err
	}
	return home.WriteAtomic(ackFile(profileHome), append(text, '\n'), 0o600)
}

// own holds that a home is this user's. Errors: NotFound, Forbidden.
func own(profileHome string) error {
	info, err := os.Stat(profileHome)
	if err != nil {
		return domain.E(domain.NotFound, err, "there is no home %s in which that could be noted", profileHome)
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Getuid() {
		return domain.E(domain.Forbidden, nil, "%s belongs to %s; run this as that user, so that no file of yours comes to lie there", profileHome, ownerName(int(sys.Uid)))
	}
	return nil
}
