package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// watched is an output that tells when it has come to hold a text.
type watched struct {
	mu   sync.Mutex
	text bytes.Buffer
	want string
	seen chan struct{}
}

func (o *watched) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.text.Write(p)
	if o.want != "" && strings.Contains(o.text.String(), o.want) {
		close(o.seen)
		o.want = ""
	}
	return n, err
}

func (o *watched) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Ctrl-C at any question leaves nothing half done.
func TestSetupInterrupted(t *testing.T) {
	answers := []struct{ question, answer string }{
		{"What is it for?", "2\n"},
		{"Provider, by number or name", "offline\n"},
		{"HTTP API", "1\n"},
		{"Names, with blanks", "drj\n"},
		{"Write this?", ""},
	}
	for i, at := range answers {
		t.Run(at.question, func(t *testing.T) {
			home := t.TempDir()
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			in, typed := io.Pipe()
			defer typed.Close()
			out := &watched{want: at.question, seen: make(chan struct{})}
			code := make(chan int, 1)
			go func() {
				code <- Execute(ctx, []string{"setup", "--no-install"}, Streams{In: in, Out: io.Discard, Err: out}, []string{"HOME=" + home})
			}()
			go func() {
				for _, before := range answers[:i] {
					_, _ = io.WriteString(typed, before.answer)
				}
			}()
			<-out.seen
			stop()
			if got := <-code; got != exitFailed || !strings.Contains(out.String(), "nothing was changed") {
				t.Fatalf("exit %d:\n%s", got, out)
			}
			if left, _ := os.ReadDir(filepath.Join(home, ".hermes")); len(left) != 0 {
				t.Fatalf("it left %v", left)
			}
		})
	}
}
