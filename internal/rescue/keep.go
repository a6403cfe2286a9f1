package rescue

import (
	"io"
	"os"
	"path/filepath"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// Keep makes a copy of a program that has proved itself, in one step, so that a
// rescue has one whatever becomes of the installed one. A copy that is the same
// already is left. Errors: Unavailable.
func Keep(program, to string) error {
	if Same(program, to) {
		return nil
	}
	fail := func(err error) error {
		return domain.E(domain.Unavailable, err, "the copy of the program for a rescue cannot be kept as %s", to)
	}
	in, err := plain.Open(program)
	if err != nil {
		return fail(err)
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fail(err)
	}
	out, err := os.CreateTemp(filepath.Dir(to), ".hermes-*")
	if err != nil {
		return fail(err)
	}
	defer os.Remove(out.Name())
	_, err = io.Copy(out, in)
	for _, step := range []func() error{func() error { return out.Chmod(0o700) }, out.Sync, out.Close} {
		if serr := step(); err == nil {
			err = serr
		}
	}
	if err == nil {
		err = os.Rename(out.Name(), to)
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// Same tells whether two files hold the same program. One that is missing or
// cannot be read is the same as none.
func Same(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	two, err := os.Stat(b)
	if err != nil || one.Size() != two.Size() {
		return false
	}
	if os.SameFile(one, two) {
		return true
	}
	x, errX := plain.Sum(a)
	y, errY := plain.Sum(b)
	return errX == nil && errY == nil && x == y
}
