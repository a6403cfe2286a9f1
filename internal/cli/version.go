package cli

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X hermes/internal/cli.version=1.2.3.
var version = "0.0.0-dev"

// Version gives the program's version.
func Version() string { return version }

func newVersionCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version and where the program stands", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			path, err := os.Executable()
			if err != nil {
				path = "unknown"
			}
			info := map[string]string{"version": Version(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH, "path": path, "commit": commit()}
			if asJSON {
				return app.JSON(info)
			}
			fmt.Fprintf(app.Out, "hermes %s\n", info["version"])
			for _, key := range []string{"commit", "go", "platform", "path"} {
				if info[key] != "" {
					fmt.Fprintf(app.Out, "  %-9s %s\n", key, info[key])
				}
			}
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// commit gives the revision that the toolchain stamped in, "" if none.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
