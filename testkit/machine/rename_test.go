package machine

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"hermes/testkit/rig"
)

// unsynced are the functions that may give a file its name before it is on the
// disk, and why a power cut may empty that file.
var unsynced = map[string]string{
	"internal/gateway/status.go":        "it is written anew all the time, and tells of a life that is over",
	"internal/gateway/exit.go":          "evidence of an end: without it the end is unknown, as after any power cut",
	"internal/rescue/rescue.go":         "the worst that follows is a second message",
	"internal/starts/file.go":           "evidence of starts: without it the next start is an ordinary one",
	"internal/succession/instance.go":   "it tells of a process, and none outlives a power cut",
	"internal/control/takeover.go":      "a socket",
	"internal/logging/rotate.go":        "a log that moves aside is the same file",
	"internal/cron/output.go":           "a log that moves aside is the same file",
	"internal/update/journal.go":        "a log that moves aside is the same file",
	"internal/ledger/sqlite/file.go":    "files that SQLite has written move aside as they are",
	"internal/ledger/sqlite/salvage.go": "SQLite has written and synchronised it",
	"internal/ledger/sqlite/backup.go":  "synchronised by a function of its own",
	"internal/backup/restore.go":        "synchronised as it was unpacked; what it replaces moves aside as it is",
	"internal/home/profiles.go":         "folders",
	"internal/home/archive.go":          "a folder",
	"internal/home/history.go":          "a folder, whose files are each written by WriteAtomic",
	"internal/service/install.go/drop":  "a file moves aside as it is",
	"internal/update/stage.go":          "a folder, whose files are synchronised",
	"internal/versions/versions.go":     "a link",
}

// A file system may let a new name reach the disk before what is in the file: a
// power cut then leaves an empty file (rename(2), ext4(5) under auto_da_alloc). So
// a function that renames synchronises first, or stands above.
func TestRenamesAreDurable(t *testing.T) {
	root, err := rig.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	renames := 0
	err = filepath.WalkDir(filepath.Join(root, "internal"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Body == nil || !calls(f.Body, "os", "Rename") {
				continue
			}
			renames++
			if calls(f.Body, "", "Sync") {
				continue
			}
			why := unsynced[name]
			used[name] = true
			if why == "" {
				why = unsynced[name+"/"+f.Name.Name]
				used[name+"/"+f.Name.Name] = true
			}
			if why == "" {
				t.Errorf("%s: %s renames a file that it does not synchronise: a power cut may leave it empty", name, f.Name.Name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range unsynced {
		if !used[name] {
			t.Errorf("%s renames nothing unsynchronised any more; take it off the list", name)
		}
	}
	if renames < 10 {
		t.Errorf("only %d functions rename: this looks at the wrong files", renames)
	}
}

// calls tells whether a function names a function of a package so, or with of ""
// a method of anything.
func calls(body ast.Node, of, name string) bool {
	found := false
	ast.Inspect(body, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == name {
			x, ok := s.X.(*ast.Ident)
			found = found || of == "" || ok && x.Name == of
		}
		return !found
	})
	return found
}
