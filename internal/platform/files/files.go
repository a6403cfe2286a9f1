// Package files carries the attachments of messages between this machine and a
// platform: what is no plain file is not sent, and nothing is larger than it may.
package files

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"hermes/internal/domain"
	"hermes/internal/plain"
	"hermes/internal/platform"
)

// slowest is the rate at which a file is still waited for, bytes a second.
const slowest = 64 << 10

// Patience is how long a transfer of so many bytes is waited for beyond what any
// request is.
func Patience(size int64) time.Duration { return time.Duration(size/slowest) * time.Second }

// Service is where files go to.
type Service struct {
	Code string // of the errors, e.g. "slack_file"
	Name string // as people call it; "" where it takes empty files
	Most int64  // bytes of one file
	// TooLarge ends the sentence "the file x is larger than ...".
	TooLarge string
}

// Open opens a file that is to be sent under a name and gives its size in bytes.
// The error is of kind GiveUp and worded for people.
func (s Service) Open(at *domain.Attachment, name string) (*os.File, int64, *platform.Error) {
	give := func(reason string, cause error) (*os.File, int64, *platform.Error) {
		return nil, 0, &platform.Error{Kind: platform.GiveUp, Code: s.Code, Reason: reason, Cause: cause}
	}
	if at.Path == "" {
		return give("the file "+name+" is not on this machine", nil)
	}
	f, err := plain.Open(at.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return give("the file "+name+" is not there any more", nil)
	case errors.Is(err, plain.ErrNotPlain):
		return give(name+" is no file that could be sent", nil)
	case err != nil:
		return give("the file "+name+" cannot be read", err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		f.Close()
		return give("the file "+name+" cannot be read", err)
	case info.Size() == 0 && s.Name != "":
		f.Close()
		return give("the file "+name+" is empty, and "+s.Name+" takes no empty files", nil)
	case info.Size() > s.Most:
		f.Close()
		return give("the file "+name+" is larger than "+s.TooLarge, nil)
	}
	return f, info.Size(), nil
}

// ErrTooLarge is Copy's.
var ErrTooLarge = errors.New("the file is larger than is allowed here")

// Copy writes a file that comes in, of at most most bytes. ErrTooLarge, when
// there is more.
func Copy(w io.Writer, r io.Reader, most int64) (int64, error) {
	n, err := io.Copy(w, io.LimitReader(r, most))
	if err != nil {
		return n, err
	}
	if more, _ := io.CopyN(io.Discard, r, 1); more > 0 {
		return n, ErrTooLarge
	}
	return n, nil
}
