// Package cli is the command line: one file a command, each of which parses,
// calls and prints. A command writes what was asked for to Out and everything
// else to Err, takes --json where it reads, and returns a domain.Error whose
// sentence is shown as it stands.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage, 78 unusable configuration; a
// command may ask for another by ExitError.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/update"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 78 // EX_CONFIG of sysexits.h; units do not restart on it
)

// Streams are where a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// App is what every command is given. It is used by one goroutine.
type App struct {
	Streams
	Now     func() time.Time
	Environ []string // the process's environment, as os.Environ gives it

	args        []string // as given, without the program's name
	profileName string
	profileSet  bool
	profile     *home.Profile
	env         *home.Env
	envProblems home.Problems
	served      *home.Config // stands for what is on disk; see standIn
	running     bool         // a command's own code has begun
}

// ExitError ends the program with a code of the command's choice. A nil Err
// prints nothing.
type ExitError struct {
	Code int
	Err  error
}

// Error gives the sentence behind it.
func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap gives the cause.
func (e *ExitError) Unwrap() error { return e.Err }

// commands lists every command in the order of the help. A new command adds
// its constructor here and nothing else.
func commands() []func(*App) *cobra.Command {
	return []func(*App) *cobra.Command{
		newSetupCommand,
		newGatewayCommand,
		newStatusCommand,
		newDoctorCommand,
		newModelCommand,
		newAuthCommand,
		newLoginCommand,
		newLogoutCommand,
		newSendCommand,
		newPlatformsCommand,
		newWebhookCommand,
		newSessionsCommand,
		newInsightsCommand,
		newPairingCommand,
		newDeliveriesCommand,
		newCronCommand,
		newProfileCommand,
		newMigrateCommand,
		newBackupCommand,
		newImportCommand,
		newUpdateCommand,
		newConfigCommand,
		newLogsCommand,
		newDumpCommand,
		newExitCodesTopic,
		newVersionCommand,
	}
}

// Execute runs a command line, args without the program's name, and gives the
// exit code. environ is the process's environment.
func Execute(ctx context.Context, args []string, s Streams, environ []string) int {
	app := &App{Streams: s, Now: time.Now, Environ: environ, args: args}
	rest, name, set, err := home.SplitProfileFlag(args)
	if err != nil {
		return app.fail(err)
	}
	app.profileName, app.profileSet = name, set
	if len(rest) == 1 && (rest[0] == "--version" || rest[0] == "-V") {
		fmt.Fprintln(s.Out, "hermes "+Version())
		return exitOK
	}
	root := newRoot(app)
	root.SetArgs(rest)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	if cmd, err := root.ExecuteContextC(ctx); err != nil {
		code := app.fail(err)
		if code == exitUsage && hints(err) {
			fmt.Fprintln(s.Err, "hint: "+hint(cmd, err))
		}
		return code
	}
	return exitOK
}

// Tree gives all commands as they are defined, to be described (manual pages),
// not to be run.
func Tree() *cobra.Command { return newRoot(&App{Now: time.Now}) }

func newRoot(app *App) *cobra.Command {
	root := &cobra.Command{
		Use:           "hermes",
		Short:         "An always-on agent gateway",
		Long:          "hermes connects chat platforms to an agent with tools, runs scheduled jobs and serves an\nOpenAI-compatible API, day and night.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			app.running = true
			update.Complete(app.UserHome(), app.Now())
			return nil
		},
	}
	// Execute has taken both out of the line already; they stand here for the
	// help and for shell completion.
	root.PersistentFlags().StringP("profile", "p", "", "profile to act on; may stand anywhere")
	root.Flags().BoolP("version", "V", false, "print the version")
	root.SetFlagErrorFunc(formerFlag)
	root.InitDefaultHelpCmd()
	for _, newCommand := range commands() {
		root.AddCommand(newCommand(app))
	}
	addExamples(root)
	addFormer(root)
	return root
}

// group makes a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(subs...)
	return cmd
}

// fail prints an error and gives its exit code.
func (a *App) fail(err error) int {
	var exit *ExitError
	if errors.As(err, &exit) {
		if exit.Err != nil {
			fmt.Fprintf(a.Err, "hermes: %s\n", exit.Err)
		}
		return exit.Code
	}
	fmt.Fprintf(a.Err, "hermes: %s\n", strings.ReplaceAll(err.Error(), "\n", "\n  "))
	switch code := domain.CodeOf(err); {
	case code == domain.Config:
		return exitConfig
	case code == domain.Invalid, !a.running:
		return exitUsage
	}
	return exitFailed
}

// Lookup gives a variable of the process's environment; .env is not asked.
func (a *App) Lookup(name string) (string, bool) {
	for i := len(a.Environ) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(a.Environ[i], name+"="); ok {
			return v, true
		}
	}
	return "", false
}

// UserHome gives the user's home folder.
func (a *App) UserHome() string {
	if dir, _ := a.Lookup("HOME"); dir != "" {
		return dir
	}
	if dir, err := os.UserHomeDir(); err == nil {
		return dir
	}
	return "/"
}

// request gives what decides which profile is meant.
func (a *App) request() home.Request {
	return home.Request{Flag: a.profileName, FlagSet: a.profileSet, Env: a.Lookup, UserHome: a.UserHome()}
}

// Root gives the folder that owns all profiles.
func (a *App) Root() string {
	root, _, _ := home.Locate(a.request())
	return root
}

// Profile resolves the profile that the command line means. Errors: Config
// when it does not exist, Invalid.
func (a *App) Profile() (home.Profile, error) {
	if a.profile == nil {
		p, err := home.Resolve(a.request())
		if err != nil {
			return home.Profile{}, err
		}
		a.profile = &p
	}
	return *a.profile, nil
}

// Env gives the profile's environment: the process's with .env over it.
// Errors: as Profile.
func (a *App) Env() (*home.Env, error) {
	if a.env == nil {
		p, err := a.Profile()
		if err != nil {
			return nil, err
		}
		if a.env, a.envProblems, err = home.LoadEnv(p, a.Environ); err != nil {
			return nil, err
		}
	}
	return a.env, nil
}

// Config loads the profile's configuration and every problem of it, those of
// .env included. Errors: as Profile.
func (a *App) Config() (*home.Config, home.Problems, error) {
	if a.served != nil {
		return a.served, nil, nil
	}
	env, err := a.Env()
	if err != nil {
		return nil, nil, err
	}
	cfg, problems, err := home.Load(*a.profile, env)
	if err != nil {
		return nil, nil, err
	}
	return cfg, append(problems, a.envProblems...), nil
}

// JSON prints a value to Out, indented.
func (a *App) JSON(v any) error {
	enc := json.NewEncoder(a.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// compactJSON prints a value to Out as one line.
func (a *App) compactJSON(v any) error {
	enc := json.NewEncoder(a.Out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// jsonFlag adds --json to a reading command.
func jsonFlag(cmd *cobra.Command, to *bool) {
	cmd.Flags().BoolVar(to, "json", false, "print JSON")
}
