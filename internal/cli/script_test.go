package cli

import (
	"context"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"hermes": func() {
			os.Exit(Execute(context.Background(), os.Args[1:], Streams{os.Stdin, os.Stdout, os.Stderr}, os.Environ()))
		},
	})
}

// TestScripts runs the command line's contract: each archive in
// testdata/script is one chapter of it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			home := e.WorkDir + "/home"
			e.Setenv("HOME", home)
			e.Setenv("TZ", "UTC")
			// Under the race detector every process sleeps a second before it
			// ends, unless it is told not to: https://go.dev/doc/articles/race_detector#Options
			e.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
			return os.MkdirAll(home, 0o700)
		},
	})
}
