// Command man writes the manual pages of hermes, one a command, from the same
// definitions that --help prints.
//
//	go run ./testkit/man -out build/man -version 1.2.3
//
// The date of the pages is that of SOURCE_DATE_EPOCH, where it is set, so that
// a release can be built again bit by bit:
// https://reproducible-builds.org/specs/source-date-epoch/
package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra/doc"

	"hermes/internal/cli"
)

func main() {
	out := flag.String("out", "build/man", "folder for the pages; it is made")
	version := flag.String("version", "dev", "version that the pages name")
	flag.Parse()
	date, err := buildDate(os.Getenv("SOURCE_DATE_EPOCH"), time.Now())
	if err == nil {
		err = write(*out, *version, date)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

// buildDate gives the instant of SOURCE_DATE_EPOCH, or now where it is empty.
func buildDate(epoch string, now time.Time) (time.Time, error) {
	if epoch == "" {
		return now, nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return now, fmt.Errorf("SOURCE_DATE_EPOCH is %q; it takes seconds since 1970", epoch)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// write makes dir and writes hermes.1, hermes-gateway.1, hermes-gateway-run.1 …
func write(dir, version string, date time.Time) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root := cli.Tree()
	root.DisableAutoGenTag = true
	return doc.GenManTree(root, &doc.GenManHeader{Title: "HERMES", Section: "1", Source: "hermes " + version, Manual: "hermes", Date: &date}, dir)
}
