package api

import (
	"path/filepath"
	"strings"
)

// profileOf reads the profile from the command line of one of our gateways; ""
// when it is none.
func profileOf(args []string) string {
	if len(args) < 2 || filepath.Base(args[0]) != "hermes" {
		return ""
	}
	for i, a := range args[1:] {
		switch {
		case (a == "-p" || a == "--profile") && i+2 < len(args):
			return args[i+2]
		case strings.HasPrefix(a, "--profile="):
			return strings.TrimPrefix(a, "--profile=")
		}
	}
	return "default"
}
