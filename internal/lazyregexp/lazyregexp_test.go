package lazyregexp

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// TestEveryExpressionOfTheModuleCompiles reads the sources, since one that is
// wrong would be found only when it is used.
func TestEveryExpressionOfTheModuleCompiles(t *testing.T) {
	texts := 0
	for dir, files := range sources(t) {
		constants := map[string]ast.Expr{}
		for _, f := range files {
			for _, d := range f.Decls {
				collect(d, constants)
			}
		}
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || !isNew(call.Fun) || len(call.Args) != 1 {
					return true
				}
				text, ok := value(call.Args[0], constants)
				if !ok {
					t.Errorf("%s: an expression is no constant text", dir)
				} else if _, err := regexp.Compile(text); err != nil {
					t.Errorf("%s: %v", dir, err)
				}
				texts++
				return true
			})
		}
	}
	if texts < 40 {
		t.Errorf("%d expressions were found", texts)
	}
}

// sources parses the files of the module, tests left out, by folder.
func sources(t *testing.T) map[string][]*ast.File {
	out := map[string][]*ast.File{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		out[filepath.Dir(path)] = append(out[filepath.Dir(path)], f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// collect notes the constants that a declaration makes.
func collect(d ast.Decl, into map[string]ast.Expr) {
	decl, ok := d.(*ast.GenDecl)
	if !ok || decl.Tok != token.CONST {
		return
	}
	for _, s := range decl.Specs {
		spec, ok := s.(*ast.ValueSpec)
		for i, v := range spec.Values {
			if ok {
				into[spec.Names[i].Name] = v
			}
		}
	}
}

func isNew(fun ast.Expr) bool {
	sel, ok := fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != "New" {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	return ok && pkg.Name == "lazyregexp"
}

// value is the text of a constant expression.
func value(e ast.Expr, constants map[string]ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.Ident:
		if v, ok := constants[e.Name]; ok {
			return value(v, constants)
		}
	case *ast.BinaryExpr:
		x, ok := value(e.X, constants)
		y, ok2 := value(e.Y, constants)
		return x + y, ok && ok2 && e.Op == token.ADD
	}
	return "", false
}

// TestTogether uses one expression from many goroutines at once.
func TestTogether(t *testing.T) {
	re := New(`^(a+)b$`)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if m := re.FindStringSubmatch("aab"); len(m) != 2 || m[1] != "aa" || re.MatchString("b") {
				t.Errorf("%q", m)
			}
		})
	}
	all.Wait()
}
