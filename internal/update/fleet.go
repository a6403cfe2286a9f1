package update

import (
	"context"

	"hermes/internal/home"
)

// Member is one process that serves a profile, or a profile that nothing serves.
type Member struct {
	Profile   home.Profile
	Name      string // of its unit without the ending, else a word for people
	Scheduler bool   // a scheduler alone, without a gateway
	Running   bool
	PID       int
	Version   string // that runs
	Program   string // the file that runs, readable also after it was replaced
	Starts    string // the program that its unit or its command line names, "" where unknown
}

// Fleet is every process of a user's profiles, as an update needs it. One
// goroutine uses it.
type Fleet interface {
	// Members lists them, profile by profile, a gateway before a scheduler. A
	// profile that nothing serves is listed too. Errors: Unavailable.
	Members(ctx context.Context) ([]Member, error)
	// Look gives a member as it is now. It is asked after a switch that failed.
	Look(ctx context.Context, m Member) Member
	// Preflight lets a program check whether it could serve a profile. It changes
	// nothing. The error says why it could not.
	Preflight(ctx context.Context, p home.Profile, program string) error
	// Switch puts a process of another program in the member's place, and returns
	// when that serves, as well as the member did, and has done so for a moment.
	// A scheduler follows the profile's pin, which names the program already. The
	// error says what went wrong; which program serves then, Look tells.
	Switch(ctx context.Context, m Member, program, version string) (Member, error)
}
