package home

import (
	"os"
	"path/filepath"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// DefaultProfile is the profile whose folder is the root itself.
const DefaultProfile = "default"

// Request is what decides which profile is meant.
type Request struct {
	Flag     string // value of -p/--profile
	FlagSet  bool   // the flag was given; with "" it means the default profile
	Env      func(string) (string, bool)
	UserHome string // the user's home folder
}

// Resolve finds the profile. The flag wins over HERMES_HOME, and that over the
// sticky choice of `hermes profile use`. HERMES_HOME may name the root or a
// profile's folder; with a flag both give <root>/profiles/<flag>. Errors:
// Invalid for an impossible name, Config (exit 78) for a profile that does not
// exist.
func Resolve(r Request) (Profile, error) {
	root, name, dir := Locate(r)
	sticky := false
	switch {
	case r.FlagSet:
		name, dir = r.Flag, ""
	case dir == "":
		name = stickyName(root)
		sticky = name != ""
	}
	if name == "" {
		name = DefaultProfile
	}
	if dir != "" {
		return mustExist(Profile{Name: name, Root: root, Home: dir}, sticky)
	}
	p, err := Named(root, name)
	if err != nil && sticky {
		return Profile{}, domain.E(domain.Config, nil, "%s names no profile, so nothing was done; run `hermes profile use default`, or name the profile with -p", filepath.Join(root, "active_profile"))
	}
	if err != nil {
		return Profile{}, err
	}
	return mustExist(p, sticky)
}

// Locate gives the root, and the name and folder that HERMES_HOME names when
// that is set and not the root.
func Locate(r Request) (root, name, dir string) {
	suffix, _ := r.Env("HERMES_DATA_DIR_SUFFIX")
	standard := filepath.Join(r.UserHome, ".hermes"+suffix)
	set, _ := r.Env("HERMES_HOME")
	if set == "" {
		return standard, "", ""
	}
	if rest, ok := strings.CutPrefix(set, "~/"); ok {
		set = filepath.Join(r.UserHome, rest)
	}
	if abs, err := filepath.Abs(set); err == nil {
		set = abs
	}
	parent := filepath.Dir(set)
	switch {
	case filepath.Base(parent) == "profiles" && ValidName(filepath.Base(set)):
		return filepath.Dir(parent), filepath.Base(set), set
	case strings.HasPrefix(set, standard+string(filepath.Separator)):
		return standard, DefaultProfile, set
	}
	return set, DefaultProfile, set
}

// Named gives the profile of that name under root, existing or not. Errors:
// Invalid.
func Named(root, name string) (Profile, error) {
	if name == "" || name == DefaultProfile {
		return Profile{Name: DefaultProfile, Root: root, Home: root}, nil
	}
	if !ValidName(name) {
		return Profile{}, domain.E(domain.Invalid, nil,
			"%q cannot be a profile's name; use up to 64 of a-z, 0-9, - and _, beginning with a letter or digit", name)
	}
	return Profile{Name: name, Root: root, Home: filepath.Join(root, "profiles", name)}, nil
}

// ValidName tells whether a profile may be called so: up to 64 of a-z, 0-9, - and
// _, the first a letter or digit.
func ValidName(name string) bool {
	for i, c := range []byte(name) {
		plain := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !plain && (i == 0 || c != '-' && c != '_') {
			return false
		}
	}
	return name != "" && len(name) <= 64
}

func stickyName(root string) string {
	data, err := plain.Read(filepath.Join(root, "active_profile"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.TrimPrefix(string(data), string(utf8BOM)))
}

func mustExist(p Profile, sticky bool) (Profile, error) {
	if p.Name == DefaultProfile {
		return p, nil // its folder is made when something is first written
	}
	if info, err := os.Stat(p.Home); err == nil && info.IsDir() {
		return p, nil
	}
	if sticky {
		return Profile{}, domain.E(domain.Config, nil,
			"the active profile %q does not exist (%s is missing), so nothing was done; run `hermes profile use default`, or `hermes profile create %s`", p.Name, p.Home, p.Name)
	}
	return Profile{}, domain.E(domain.Config, nil,
		"the profile %q does not exist (%s is missing), so nothing was done; run `hermes profile create %s`, or `hermes profile list` to see which there are", p.Name, p.Home, p.Name)
}

// SplitProfileFlag takes -p NAME, --profile NAME and --profile=NAME out of a
// command line, wherever they stand before "--". The last one counts. Errors:
// Invalid, when the name is missing.
func SplitProfileFlag(args []string) (rest []string, name string, set bool, err error) {
	rest = make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--":
			return append(rest, args[i:]...), name, set, nil
		case a == "-p" || a == "--profile":
			if i+1 == len(args) {
				return nil, "", false, domain.E(domain.Invalid, nil, "%s needs the name of a profile behind it", a)
			}
			i++
			name, set = args[i], true
		case strings.HasPrefix(a, "--profile="):
			name, set = strings.TrimPrefix(a, "--profile="), true
		default:
			rest = append(rest, a)
		}
	}
	return rest, name, set, nil
}
