package faults

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hermes/internal/doctor"
	"hermes/internal/service"
)

// notInjected are findings that no row brings about, and why. Each is held by a
// test of the package doctor.
var notInjected = map[string]string{
	"profile.bad_name":       "its fix is another name on the command line",
	"profile.wrong_user":     "TestFaultsInABox brings it about; its fix is a command of another user",
	"provider.auth_file":     "always a symptom of profile.auth_json, which has a row",
	"provider.speech_failed": "it takes a recording that a sound service cannot make words of",
	"scheduler.degraded":     "it takes more than a minute of jobs that run in each other's way",
	"service.api_silent":     "it takes a kernel that loses connections to this machine",
	"service.ledger_large":   "it takes 8 GiB",
	"service.ledger_network": "it takes a network file system",
	"service.start_waits":    "why the start waits is a finding of its own, as a row or two show",
}

// TestEveryFindingHasARow holds that each finding that doctor can give is
// brought about for real by a row of the corpus.
func TestEveryFindingHasARow(t *testing.T) {
	rows := map[string]bool{}
	for _, f := range slices.Concat(scopeFaults(), providerFaults(), transportFaults(), serviceFaults(), unitFaults(), schedulerFaults(), deliveryFaults(), updateFaults(), rootFaults(true)) {
		rows[f.id] = true
	}
	for _, f := range boxFaults() {
		rows[f.id] = true
	}
	ids := findings(t)
	if len(ids) < 100 {
		t.Fatalf("only %d findings were found in the sources: %v", len(ids), ids)
	}
	for _, id := range ids {
		family, dynamic := strings.CutSuffix(id, "*")
		has := rows[id] || dynamic && slices.ContainsFunc(slices.Collect(maps.Keys(rows)), func(r string) bool { return strings.HasPrefix(r, family) })
		_, excused := notInjected[id]
		switch {
		case !has && !excused:
			t.Errorf("%s: no row of the corpus brings it about", id)
		case has && excused:
			t.Errorf("%s: a row brings it about, so it is not to be excused", id)
		}
	}
	for id := range notInjected {
		if !slices.Contains(ids, id) {
			t.Errorf("%s is excused, and doctor does not give it", id)
		}
	}
	for _, code := range service.FlawCodes() {
		if id := "service.unit_" + string(code); code != service.FlawNoAt && !rows[id] {
			t.Errorf("%s: no row of the corpus brings it about", id)
		}
	}
}

// findings reads out of doctor's sources which IDs its findings can have: what
// stands behind ID: in a literal, and what is assigned to an ID. One that is put
// together of parts ends with a star.
func findings(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../internal/doctor/*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && key.Name == "ID" {
					note(seen, n.Value)
				}
			case *ast.AssignStmt:
				for i, left := range n.Lhs {
					if s, ok := left.(*ast.SelectorExpr); ok && s.Sel.Name == "ID" && i < len(n.Rhs) {
						note(seen, n.Rhs[i])
					}
				}
			}
			return true
		})
	}
	return slices.Sorted(maps.Keys(seen))
}

// note takes the ID out of an expression.
func note(seen map[string]bool, e ast.Expr) {
	star := ""
	if sum, ok := e.(*ast.BinaryExpr); ok && sum.Op == token.ADD {
		e, star = sum.X, "*"
	}
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return
	}
	if id, err := strconv.Unquote(lit.Value); err == nil && classOf(id) {
		seen[id+star] = true
	}
}

// classOf tells whether a text begins as the IDs of findings do.
func classOf(id string) bool {
	prefix, _, ok := strings.Cut(id, ".")
	return ok && slices.Contains([]string{"transport", "provider", "profile", "scheduler", "delivery", "service"}, prefix)
}

// TestClasses holds that the ID of a row and its class fit.
func TestClasses(t *testing.T) {
	known := []doctor.Class{doctor.Transport, doctor.Provider, doctor.Scope, doctor.Scheduler, doctor.Delivery, doctor.Service}
	for _, f := range slices.Concat(scopeFaults(), providerFaults(), transportFaults(), serviceFaults(), unitFaults(), schedulerFaults(), deliveryFaults(), updateFaults(), rootFaults(true)) {
		if !classOf(f.id) || !slices.Contains(known, f.class) {
			t.Errorf("%s: %q, class %q", f.what, f.id, f.class)
		}
	}
}
