package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
	"hermes/internal/gateway"
	"hermes/internal/home"
	"hermes/internal/secret"
)

// The answers to what hermes is for, and to who may reach its API.
const (
	forMessaging = "messaging"
	forTasks     = "tasks"
	apiOff       = "off"
	apiLocal     = "local"
	apiRemote    = "remote"
)

// setupFlags are the answers that the command line gives.
type setupFlags struct {
	use               string
	provider, model   string
	baseURL           string
	keyStdin          bool
	keyFile           string
	platforms         []string
	secrets, settings []string
	api, apiHost      string
	apiPort           int
	also              []string

	nonInteractive, noCheck     bool
	noInstall, noLinger, noSend bool
	onlyPlatforms               bool // `gateway setup`
}

func newSetupCommand(app *App) *cobra.Command {
	var f setupFlags
	cmd := &cobra.Command{
		Use: "setup", Short: "Ask what is needed, check each answer, install the service and prove it", Args: cobra.NoArgs,
		Long: "Asks what this profile is for, which model answers, on which platforms it is reached and\n" +
			"whether other programs may reach it. Each answer is checked at once: the model is called,\n" +
			"the bot's @name is shown. Only when all are given the files are written, whole; Ctrl-C\n" +
			"before that changes nothing. Then the service is installed and `gateway verify` proves it.\n\n" +
			"Safe to run twice: what is set already is offered as the answer, and is kept.\n\n" +
			"Every question is a flag. Secrets never stand on the command line: --secret NAME=env:VAR,\n" +
			"NAME=file:PATH or NAME=- (standard input), --key-file, --key-stdin; a provider's or a\n" +
			"platform's own variable in the environment is taken over into .env.",
		Example: "  hermes setup\n" +
			"  OPENROUTER_API_KEY=… TELEGRAM_BOT_TOKEN=… hermes setup --non-interactive --use messaging \\\n" +
			"    --provider openrouter --model openai/gpt-5 --platform telegram --api local\n" +
			"  hermes -p liam setup --non-interactive --use tasks --provider custom --model qwen3 \\\n" +
			"    --base-url http://127.0.0.1:8000/v1 --api off",
		RunE: func(cmd *cobra.Command, _ []string) error { return app.setup(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.use, "use", "", "`messaging` by chat platforms day and night, or tasks only")
	fl.StringVar(&f.provider, "provider", "", "who serves the model; see: hermes model list")
	fl.StringVar(&f.model, "model", "", "the model, as the provider names it")
	fl.StringVar(&f.baseURL, "base-url", "", "address of an OpenAI-compatible service, up to /v1")
	fl.BoolVar(&f.keyStdin, "key-stdin", false, "read the model's key from standard input")
	fl.StringVar(&f.keyFile, "key-file", "", "read the model's key from a file")
	fl.StringVar(&f.api, "api", "", "who may reach the HTTP API and the dashboard: `off`, local or remote")
	fl.StringVar(&f.apiHost, "api-host", "", "address that the API listens on")
	fl.IntVar(&f.apiPort, "api-port", 0, "port that the API listens on")
	fl.StringSliceVar(&f.also, "also", nil, "make a further `profile` with the same model and a port of its own")
	fl.BoolVar(&f.noInstall, "no-install", false, "install no service")
	fl.BoolVar(&f.noLinger, "no-linger", false, "leave lingering as it is")
	fl.BoolVar(&f.noSend, "no-send", false, "send no message to prove the installation")
	platformFlags(cmd, &f)
	return cmd
}

// platformFlags are those that `gateway setup` has too.
func platformFlags(cmd *cobra.Command, f *setupFlags) {
	fl := cmd.Flags()
	fl.StringSliceVar(&f.platforms, "platform", nil, "a chat `platform` to set up; may be repeated")
	fl.StringArrayVar(&f.secrets, "secret", nil, "a secret variable: `NAME=env:VAR`, NAME=file:PATH or NAME=- for standard input")
	fl.StringArrayVar(&f.settings, "set", nil, "a variable that is no secret: `NAME=VALUE`, such as TELEGRAM_ALLOWED_USERS=1001")
	fl.BoolVar(&f.nonInteractive, "non-interactive", false, "ask nothing: keep what is set, take the rest from flags")
	fl.BoolVar(&f.noCheck, "no-check", false, "write without calling the model and the platforms")
}

func newGatewaySetupCommand(app *App) *cobra.Command {
	f := setupFlags{onlyPlatforms: true}
	cmd := &cobra.Command{
		Use: "setup", Short: "Set up chat platforms", Args: cobra.NoArgs,
		Long: "Asks for the credentials of chat platforms, proves each at once and writes them to .env. The\n" +
			"rest of the profile stays as it is; `hermes setup` asks for everything.",
		Example: "  hermes gateway setup\n  hermes gateway setup --non-interactive --platform telegram --secret TELEGRAM_BOT_TOKEN=file:token.txt",
		RunE:    func(cmd *cobra.Command, _ []string) error { return app.setup(cmd.Context(), f) },
	}
	platformFlags(cmd, &f)
	return cmd
}

// wizard is one run of set-up: the flags, the questions that they leave open,
// and the plan that grows out of both.
type wizard struct {
	*App
	f       setupFlags
	q       *asker // nil: nothing is asked
	p       home.Profile
	plan    home.Plan
	vars    map[string]string // given by --set and --secret
	key     secret.Value      // of the model, as flags gave it
	missing []string          // flags that would have answered
	use     string
	further []string // profiles to be made

	freshKey bool // the API's key is another profile's: make one
}

// setup runs the whole: answers, files, service, proof.
func (a *App) setup(ctx context.Context, f setupFlags) error {
	w := &wizard{App: a, f: f}
	if err := w.begin(); err != nil {
		return err
	}
	if err := w.answers(ctx); err != nil {
		if w.q != nil && w.q.ended {
			return domain.E(domain.Invalid, nil, "%s. Where nobody can answer, --non-interactive keeps what is set and takes the rest from flags; `hermes setup --help` lists them", domain.MessageOf(err))
		}
		return err
	}
	if len(w.missing) > 0 {
		return domain.E(domain.Invalid, nil, "nothing was written, since answers are missing; add\n%s", strings.Join(w.missing, "\n"))
	}
	changed, err := w.write(ctx)
	if err != nil {
		return err
	}
	// The files are written: from here on an interruption leaves a whole
	// configuration, and what is left to do is said.
	err = w.serve(ctx, changed)
	if domain.IsCode(err, domain.Cancelled) || ctx.Err() != nil {
		return domain.E(domain.Cancelled, nil, "stopped after the configuration was written; go on with `hermes%[1]s gateway install` and `hermes%[1]s gateway verify`", profileFlag(w.p))
	}
	return err
}

// begin reads flags and the configuration as it stands.
func (w *wizard) begin() error {
	env, err := w.Env()
	if err != nil {
		return err
	}
	w.p = *w.profile
	if w.plan, err = home.NewPlan(w.p, w.Environ); err != nil {
		return err
	}
	if w.vars, err = w.given(); err != nil {
		return err
	}
	// They are in the plan from the beginning: a platform is proved with them.
	changes := map[string]*string{}
	for name, value := range w.vars {
		changes[name] = &value
	}
	if w.plan, err = w.plan.SetEnv(changes); err != nil {
		return err
	}
	if err := w.readModelKey(env); err != nil {
		return err
	}
	if !w.f.nonInteractive && !w.readsStdin() {
		w.q = w.asker()
	}
	for _, one := range []struct {
		flag, value string
		words       []string
	}{{"--use", w.f.use, []string{forMessaging, forTasks}}, {"--api", w.f.api, []string{apiOff, apiLocal, apiRemote}}} {
		if one.value != "" && !slices.Contains(one.words, one.value) {
			return domain.E(domain.Invalid, nil, "%s is one of %s, not %q", one.flag, strings.Join(one.words, ", "), one.value)
		}
	}
	for _, name := range platformWords() { // one whose credentials are given is meant
		given := slices.ContainsFunc(home.Needs(domain.Platform(name)), func(need string) bool { return w.vars[need] != "" })
		if given && !slices.Contains(w.f.platforms, name) {
			w.f.platforms = append(w.f.platforms, name)
		}
	}
	for _, name := range w.f.also {
		if !home.ValidName(name) {
			return domain.E(domain.Invalid, nil, "--also %q is no name of a profile: small letters, digits, - and _, at most 64", name)
		}
	}
	for i, name := range w.f.platforms {
		w.f.platforms[i] = strings.ToLower(strings.TrimSpace(name))
		if _, known := describePlatform(domain.Platform(w.f.platforms[i])); !known {
			return domain.E(domain.Invalid, nil, "--platform %q is none that can be set up; these are %s", name, strings.Join(platformWords(), ", "))
		}
	}
	return nil
}

// readsStdin tells whether a flag has taken standard input for a secret.
func (w *wizard) readsStdin() bool {
	return w.f.keyStdin || slices.ContainsFunc(w.f.secrets, func(s string) bool { return strings.HasSuffix(s, "=-") })
}

// given reads --set and --secret.
func (w *wizard) given() (map[string]string, error) {
	out := map[string]string{}
	for _, s := range w.f.settings {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, domain.E(domain.Invalid, nil, "--set takes NAME=VALUE")
		}
		if home.IsSecretName(name) {
			return nil, domain.E(domain.Invalid, nil, "%s is a secret, and other users of this machine can read command lines: --secret %s=env:VAR, %s=file:PATH or %s=-", name, name, name, name)
		}
		out[name] = value
	}
	stdin := 0
	if w.f.keyStdin {
		stdin++
	}
	for _, s := range w.f.secrets {
		name, from, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, domain.E(domain.Invalid, nil, "--secret takes NAME=env:VAR, NAME=file:PATH or NAME=-")
		}
		if from == "-" {
			stdin++
		}
		if stdin > 1 {
			return nil, domain.E(domain.Invalid, nil, "only one secret can come by standard input; give the others as NAME=env:VAR or NAME=file:PATH")
		}
		value, err := w.secretFrom(name, from)
		if err != nil {
			return nil, err
		}
		out[name] = value.Reveal()
	}
	return out, nil
}

// secretFrom reads a secret from where a flag says that it is.
func (w *wizard) secretFrom(name, from string) (secret.Value, error) {
	kind, where, _ := strings.Cut(from, ":")
	switch {
	case from == "-":
		return readKey(w.In)
	case kind == "env" && where != "":
		v, _ := w.Lookup(where)
		if v = strings.TrimSpace(v); v != "" {
			return secret.Value(v), nil
		}
		return "", domain.E(domain.Invalid, nil, "the variable %s, which is to hold %s, is not set", where, name)
	case kind == "file" && where != "":
		return secretFile(where)
	}
	return "", domain.E(domain.Invalid, nil, "--secret %s=… takes env:VAR, file:PATH or - for standard input; the secret itself does not belong on a command line", name)
}

// secretFile reads a secret of one line from a file.
func secretFile(path string) (secret.Value, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", domain.E(domain.Invalid, err, "the file with the secret cannot be read")
	}
	defer f.Close()
	v, err := readKey(f)
	if err != nil {
		return "", domain.E(domain.Invalid, nil, "%s holds no secret of one line", path)
	}
	return v, nil
}

// readModelKey takes the model's key from where flags say, else from the
// provider's own variable in the environment, which a service would not have.
func (w *wizard) readModelKey(env *home.Env) (err error) {
	switch {
	case w.f.keyStdin:
		w.key, err = readKey(w.In)
	case w.f.keyFile != "":
		w.key, err = secretFile(w.f.keyFile)
	case w.f.provider != "":
		for _, p := range home.Providers() {
			if p.ID == w.f.provider || p.ID == "openai-api" && w.f.provider == "openai" {
				w.key = secret.Value(onlyInProcess(env, p.KeyNames...))
			}
		}
	}
	return err
}

// onlyInProcess gives the first of some variables that is set; "" when that one
// stands in .env already.
func onlyInProcess(env *home.Env, names ...string) string {
	for _, name := range names {
		if v, set := env.Lookup(name); set {
			if env.Origin(name).File != "" {
				return ""
			}
			return v
		}
	}
	return ""
}

// answers asks, or takes from flags, everything that is needed, and proves it.
func (w *wizard) answers(ctx context.Context) error {
	steps := []func(context.Context) error{w.askUse, w.askTheModel, w.askPlatforms, w.proveSpeech, w.askAPI, w.askFurther}
	if w.f.onlyPlatforms {
		w.use = forMessaging
		steps = []func(context.Context) error{w.askPlatforms}
	}
	if w.q != nil {
		wrap(w.Err, "", fmt.Sprintf("Setting up profile %s in %s. Enter keeps what stands in brackets; Ctrl-C changes nothing.", w.p.Name, w.p.Home))
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// heading begins a group of questions.
func (w *wizard) heading(text string) {
	if w.q != nil {
		fmt.Fprintf(w.Err, "\n%s\n", text)
	}
}

// config is the configuration as it will be.
func (w *wizard) config() (*home.Config, error) {
	_, cfg, _, err := w.plan.Load()
	return cfg, err
}

// askUse asks what the profile is for.
func (w *wizard) askUse(ctx context.Context) (err error) {
	cfg, err := w.config()
	if err != nil {
		return err
	}
	now := ""
	switch {
	case hasChats(cfg) || len(w.f.platforms) > 0:
		now = forMessaging
	case cfg.Model.IsSet():
		now = forTasks
	}
	switch {
	case w.f.use != "":
		w.use = w.f.use
	case w.q == nil && now == "":
		w.missing = append(w.missing, "--use messaging, or --use tasks")
	case w.q == nil:
		w.use = now
	default:
		if now == "" {
			now = forMessaging
		}
		w.heading("What is it for?")
		w.use, err = w.q.menu(ctx, "Number", []option{
			{forMessaging, "people talk to it on a chat platform, day and night"},
			{forTasks, "scheduled jobs, the API and the command line; no chat platform"},
		}, now)
	}
	return err
}

// askFurther asks for further profiles.
func (w *wizard) askFurther(ctx context.Context) error {
	names := w.f.also
	if w.q != nil && len(names) == 0 {
		w.heading("Further profiles? Each is an agent of its own: home, memory, bot and port.")
		text, err := w.q.line(ctx, "Names, with blanks between them; empty for none", "")
		if err != nil {
			return err
		}
		names = strings.Fields(strings.ReplaceAll(text, ",", " "))
	}
	for _, name := range names {
		if !home.ValidName(name) {
			return domain.E(domain.Invalid, nil, "%q is no name of a profile: small letters, digits, - and _, at most 64; nothing was changed", name)
		}
		if _, err := home.Existing(w.p.Root, name); err != nil {
			w.further = append(w.further, name)
		}
	}
	return nil
}

// platformWords are the platforms that can be set up by questions.
func platformWords() []string {
	var out []string
	for _, d := range platformGuides() {
		if gateway.Connectable(d.name) {
			out = append(out, string(d.name))
		}
	}
	return out
}
