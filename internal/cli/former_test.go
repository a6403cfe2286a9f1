package cli

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"hermes/internal/home"
)

var rewrite = flag.Bool("update", false, "write docs/former-commands.md anew")

// Each line of testdata/compat.txt is a command line of the Python system. It is
// one of ours still, with all its flags; or it is answered with what stands in its
// place. None is unknown.
func TestNoFormerCommandIsUnknown(t *testing.T) {
	text, err := os.ReadFile("testdata/compat.txt")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		if line == "" {
			continue
		}
		verdict, words, _ := strings.Cut(strings.TrimSpace(line), " ")
		words = strings.TrimSpace(words)
		args, _, _, err := home.SplitProfileFlag(strings.Fields(words))
		if err != nil {
			t.Fatal(err)
		}
		seen++
		switch verdict {
		case "is":
			root := Tree()
			root.InitDefaultCompletionCmd()
			cmd, rest, err := root.Find(args)
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err == nil && cmd.Args != nil {
				err = cmd.Args(cmd, cmd.Flags().Args())
			}
			if err != nil || !cmd.Runnable() && !cmd.HasSubCommands() || cmd.DisableFlagParsing {
				t.Errorf("`hermes %s` is no command line any more: %v", words, err)
			}
		case "not":
			var out, complaint bytes.Buffer
			code := Execute(t.Context(), args, Streams{strings.NewReader(""), &out, &complaint}, []string{"HOME=" + t.TempDir()})
			if said := complaint.String(); code != exitUsage || strings.Contains(said, "unknown") || !strings.HasPrefix(said, "hermes: `hermes ") || out.Len() > 0 {
				t.Errorf("`hermes %s`: exit %d: %s%s", words, code, complaint.String(), out.String())
			}
		default:
			t.Errorf("%q: neither is nor not", line)
		}
	}
	if seen < 150 {
		t.Errorf("only %d lines", seen)
	}
}

// Every line of the list is in force: none is shadowed by a command or a flag that
// there is, none names a command that there is not, and the commands that it
// recommends exist.
func TestFormerListIsInForce(t *testing.T) {
	bare := Tree()
	for _, f := range formers() {
		words := strings.Fields(f.words)
		cmd, rest, err := bare.Find(words)
		last := words[len(words)-1]
		switch {
		case err != nil:
			t.Errorf("%s: %v", f.words, err)
		case strings.HasPrefix(last, "--"):
			have := cmd.Flags().Lookup(last[2:])
			if (have != nil) != strings.HasPrefix(f.say, noEffect) || have != nil && !have.Hidden {
				t.Errorf("%s: the flag exists: %v", f.words, have != nil)
			}
		case !strings.HasPrefix(last, "-") && (len(rest) > 0 || !cmd.Hidden || !cmd.DisableFlagParsing):
			t.Errorf("%s: a command of that name exists", f.words)
		}
		if f.say == "" || strings.Count(f.say, "`")%2 != 0 {
			t.Errorf("%s: %q", f.words, f.say)
		}
		for i, quoted := range strings.Split(f.say, "`") {
			line, isOurs := strings.CutPrefix(quoted, "hermes ")
			if i%2 == 0 || !isOurs {
				continue
			}
			args, _, _, err := home.SplitProfileFlag(strings.Fields(line))
			if err != nil {
				t.Fatal(err)
			}
			got, rest, err := Tree().Find(args)
			if err == nil {
				err = got.ParseFlags(rest)
			}
			if err != nil || got.DisableFlagParsing || !got.HasParent() {
				t.Errorf("%s recommends `%s`, which there is not: %v", f.words, quoted, err)
			}
		}
	}
}

// docs/former-commands.md is the list.
func TestFormerCommandsDoc(t *testing.T) {
	const file = "../../docs/former-commands.md"
	want := formerDoc()
	if *rewrite {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil { //nolint:gosec // a document
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(file); err != nil || string(have) != want {
		t.Errorf("%s is not what the list says; `go test ./internal/cli -run FormerCommandsDoc -update` writes it: %v", file, err)
	}
}

func formerDoc() string {
	var b strings.Builder
	b.WriteString("# Commands of the Python system that are no more\n\n" +
		"Its other commands, and their flags, are typed as before. Each of these says what stands\nin its place and exits 2; a flag that is \"without effect\" is taken. The list is that of\n`internal/cli/former.go`, from which a test writes this page.\n\n| typed | now |\n|---|---|\n")
	for _, f := range formers() {
		b.WriteString("| `hermes " + f.words + "` | " + strings.ReplaceAll(f.say, "|", "\\|") + " |\n")
	}
	return b.String()
}
