package api_test

import (
	"encoding/json"
	"os"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hermes/internal/platform/webchat"
)

// The document describes what the web chat mounts, too.
func TestDocumentMatchesWebChat(t *testing.T) {
	raw, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct{ Tags []string }
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	var described, served []string
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if op.Tags[0] == "chat" {
				described = append(described, strings.ToUpper(method)+" "+path)
			}
		}
	}
	for _, r := range webchat.New(webchat.Options{}).Routes() {
		served = append(served, r.Pattern)
	}
	sort.Strings(described)
	sort.Strings(served)
	if diff := cmp.Diff(served, described); diff != "" {
		t.Error(diff)
	}
}
