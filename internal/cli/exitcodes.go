package cli

import (
	_ "embed"

	"github.com/spf13/cobra"
)

// exitCodes is what docs/exit-codes.md says too.
//
//go:embed exitcodes.txt
var exitCodes string

// newExitCodesTopic is a page of the help, not a command.
func newExitCodesTopic(*App) *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodes}
}
