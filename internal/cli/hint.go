package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"hermes/internal/lazyregexp"
)

// unknownCommand reads what cobra says of a word that is no command.
var unknownCommand = lazyregexp.New(`^unknown command "([^"]+)" for `)

// mostMeant bounds how many commands are proposed.
const mostMeant = 3

// hint says what could be typed in place of a line that is no command line.
func hint(cmd *cobra.Command, err error) string {
	help := "run `" + cmd.CommandPath() + " --help`"
	if m := unknownCommand.FindStringSubmatch(err.Error()); m != nil {
		if meant := meant(cmd, m[1]); len(meant) > 0 {
			return "did you mean " + strings.Join(meant, " or ") + "? Else " + help
		}
		return help
	}
	if _, arguments, takes := strings.Cut(cmd.Use, " "); takes && strings.Contains(err.Error(), "arg(s)") {
		return "it is typed `" + cmd.CommandPath() + " " + arguments + "`; " + help
	}
	return help
}

// meant finds the commands that a word may stand for: those of that name under
// another command, else those of nearly that name here.
func meant(cmd *cobra.Command, word string) (out []string) {
	var search func(*cobra.Command)
	search = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if !sub.Hidden && (sub.Name() == word || sub.HasAlias(word)) && len(out) < mostMeant {
				out = append(out, "`"+sub.CommandPath()+"`")
			}
			search(sub)
		}
	}
	search(cmd.Root())
	if len(out) > 0 {
		return out
	}
	cmd.SuggestionsMinimumDistance = 2 // letters that may be wrong
	for _, name := range cmd.SuggestionsFor(word) {
		if len(out) < mostMeant {
			out = append(out, "`"+cmd.CommandPath()+" "+name+"`")
		}
	}
	return out
}
