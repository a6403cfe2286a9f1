package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/model"
	"hermes/internal/model/catalog"
	"hermes/internal/model/openai"
	"hermes/internal/secret"
)

// modelDeadline bounds the live check of a model.
const modelDeadline = 20 * time.Second

func newModelCommand(app *App) *cobra.Command {
	cmd := group("model", "Choose the provider, the model and its key", newModelShowCommand(app), newModelSetCommand(app), newModelListCommand(app), newModelCheckCommand(app))
	cmd.Long = "Asks for provider, model and key, calls the model once, and writes config.yaml and .env.\nThe key goes to .env and is never shown."
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return app.askModel(cmd.Context()) }
	return cmd
}

// modelView is what `hermes model show` tells.
type modelView struct {
	Set       bool        `json:"set"`
	Provider  string      `json:"provider,omitempty"`
	Model     string      `json:"model,omitempty"`
	BaseURL   string      `json:"base_url,omitempty"`
	HasKey    bool        `json:"has_key"`
	KeyOrigin string      `json:"key_origin,omitempty"`
	Offline   bool        `json:"offline"` // the stand-in, which is no model
	Fallbacks []modelView `json:"fallbacks,omitempty"`
}

func viewOf(m home.ModelConfig) modelView {
	if !m.IsSet() {
		return modelView{}
	}
	return modelView{Set: true, Provider: m.Provider, Model: m.Model, BaseURL: m.BaseURL, HasKey: m.Key.IsSet() || m.LoginFile != "", KeyOrigin: orText(m.KeyOrigin, m.LoginFile), Offline: m.Provider == home.OfflineProvider}
}

func newModelShowCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show", Short: "Show the model that is set, without its key", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, _, err := app.Config()
			if err != nil {
				return err
			}
			v := viewOf(cfg.Model)
			for _, m := range cfg.Fallbacks {
				v.Fallbacks = append(v.Fallbacks, viewOf(m))
			}
			if asJSON {
				return app.JSON(v)
			}
			app.printModel(v)
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *App) printModel(v modelView) {
	if !v.Set {
		fmt.Fprintf(a.Out, "No model is set. `hermes%s model` sets one.\n", a.profileFlag())
		return
	}
	if v.Offline {
		fmt.Fprintf(a.Out, "Offline stand-in: it answers by rules and is no real model. `hermes%s model` sets one.\n", a.profileFlag())
	} else {
		key := "none"
		if v.HasKey {
			key = "set, " + v.KeyOrigin
		}
		for _, row := range [][2]string{{"Provider", v.Provider}, {"Model", v.Model}, {"Address", v.BaseURL}, {"Key", key}} {
			fmt.Fprintf(a.Out, "%-9s %s\n", row[0]+":", row[1])
		}
	}
	for _, f := range v.Fallbacks {
		fmt.Fprintf(a.Out, "%-9s %s by %s\n", "Fallback:", f.Model, f.Provider)
	}
}

// profileFlag names the profile in force on a command line to be typed.
func (a *App) profileFlag() string {
	p, err := a.Profile()
	if err != nil {
		return ""
	}
	return profileFlag(p)
}

func newModelListCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the providers, and the variable that holds the key of each", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			env, err := app.Env()
			if err != nil {
				return err
			}
			type row struct {
				home.Provider
				HasKey bool `json:"has_key"`
			}
			var rows []row
			for _, p := range home.Providers() {
				rows = append(rows, row{p, keySet(p, env)})
			}
			if asJSON {
				return app.JSON(rows)
			}
			w := tabwriter.NewWriter(app.Out, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "PROVIDER\tKEY VARIABLE\tKEY\tADDRESS")
			for _, r := range rows {
				key := "-"
				if r.HasKey {
					key = "set"
				}
				address := r.BaseURL
				if r.NeedsURL {
					address = "(to be given)"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.ID, dash(strings.Join(r.KeyNames, " or ")), key, dash(address))
			}
			return w.Flush()
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// keySet tells whether one of a provider's variables is set.
func keySet(p home.Provider, env *home.Env) bool {
	return slices.ContainsFunc(p.KeyNames, func(name string) bool { _, set := env.Lookup(name); return set })
}

func newModelCheckCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "check", Short: "Call the model that is set, once", Args: cobra.NoArgs,
		Long: "Calls the model that is set, once, without fallbacks and retries. Exits 1 with the reason\nwhen it does not answer, and when only the offline stand-in is set.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := app.Config()
			if err != nil {
				return err
			}
			if asJSON {
				return app.checkModelJSON(cmd.Context(), cfg)
			}
			if err := app.realModel(cfg); err != nil {
				return err
			}
			return app.checkModel(cmd.Context(), cfg.Model)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// checkModelJSON is `model check --json`.
func (a *App) checkModelJSON(ctx context.Context, cfg *home.Config) error {
	said, err := "", a.realModel(cfg)
	if err == nil {
		said, err = a.callModel(ctx, cfg.Model)
	}
	view := struct {
		OK       bool      `json:"ok"`
		Model    modelView `json:"model"`
		Evidence string    `json:"evidence,omitempty"`
		Problem  string    `json:"problem,omitempty"`
	}{err == nil, viewOf(cfg.Model), said, ""}
	if err != nil {
		view.Problem = domain.MessageOf(err)
	}
	if jerr := a.JSON(view); jerr != nil {
		return jerr
	}
	if err != nil {
		return &ExitError{Code: exitFailed}
	}
	return nil
}

// realModel holds that a real model is set. Errors: Unavailable.
func (a *App) realModel(cfg *home.Config) error {
	if cfg.Model.Provider == home.OfflineProvider {
		return domain.E(domain.Unavailable, nil, "only the offline stand-in is set, which is no real model; `hermes%s model` sets one", a.profileFlag())
	}
	return nil
}

// checkModel calls a model once and prints what it said. domain.Unavailable
// with the reason when it did not answer.
func (a *App) checkModel(ctx context.Context, m home.ModelConfig) error {
	said, err := a.callModel(ctx, m)
	if err != nil {
		return err
	}
	if m.Provider == home.OfflineProvider {
		fmt.Fprintf(a.Out, "! The offline stand-in answers by rules; it is no real model.\n")
		return nil
	}
	fmt.Fprintf(a.Out, "✓ %s.\n", said)
	return nil
}

// callModel calls a model once, without fallbacks and retries, and says how it
// answered. domain.Unavailable with the reason when it did not; a *silence in the
// chain when it could not be reached.
func (a *App) callModel(ctx context.Context, m home.ModelConfig) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, modelDeadline)
	defer cancel()
	transport := openai.NewTransport()
	defer transport.CloseIdleConnections()
	began := a.Now()
	answer, err := catalog.Build(m, catalog.Deps{Transport: transport, Now: a.Now}).Complete(ctx, &model.Request{
		Messages: []domain.Message{{Role: domain.RoleUser, Content: "Answer with the one word ok.", At: began}},
	}, nil)
	took := a.Now().Sub(began).Round(10 * time.Millisecond)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "", &silence{domain.E(domain.Unavailable, nil, "%s did not answer within %s; the address is %s", modelTitle(m), modelDeadline, m.BaseURL)}
	case err != nil && unheard(err):
		return "", &silence{domain.E(domain.Unavailable, nil, "%s did not answer: %s", modelTitle(m), model.AsError(err).Message)}
	case err != nil:
		return "", domain.E(domain.Unavailable, nil, "%s did not answer: %s", modelTitle(m), model.AsError(err).Message)
	}
	said := secret.NewRedactor(m.Key.Reveal()).Redact(cut(strings.Join(strings.Fields(answer.Text), " "), 60))
	return fmt.Sprintf("%s answered %q in %s", modelTitle(m), said, took), nil
}

func modelTitle(m home.ModelConfig) string {
	if !m.IsSet() {
		return "the model"
	}
	return m.Model + " by " + m.Provider
}

func newModelSetCommand(app *App) *cobra.Command {
	var baseURL string
	var keyStdin, noCheck bool
	cmd := &cobra.Command{
		Use: "set PROVIDER MODEL", Short: "Set provider and model without questions", Args: cobra.RangeArgs(1, 2),
		Long: "Sets provider and model: calls the model once, then writes config.yaml and .env. When the\nmodel does not answer, nothing is written and the exit code is 1.",
		Example: "  hermes model set openrouter openai/gpt-5 --key-stdin < key.txt\n" +
			"  hermes model set custom qwen3 --base-url http://127.0.0.1:8000/v1\n" +
			"  hermes model set offline",
		RunE: func(cmd *cobra.Command, args []string) error {
			c := home.Choice{Provider: args[0], BaseURL: baseURL}
			if len(args) == 2 {
				c.Model = args[1]
			}
			if keyStdin {
				key, err := readKey(app.In)
				if err != nil {
					return err
				}
				c.Key = key
			}
			if err := app.tryModel(cmd.Context(), c, noCheck); err != nil {
				return domain.E(domain.CodeOf(err), err, "nothing was written")
			}
			return app.applyModel(cmd.Context(), c)
		},
	}
	cmd.Flags().StringVar(&baseURL, "base-url", "", "address of an OpenAI-compatible service, up to /v1")
	cmd.Flags().BoolVar(&keyStdin, "key-stdin", false, "read the key from standard input")
	cmd.Flags().BoolVar(&noCheck, "no-check", false, "write without calling the model")
	return cmd
}

// maxKey is how long a key may be, in bytes.
const maxKey = 16 << 10

// readKey reads a key that is piped in.
func readKey(from io.Reader) (secret.Value, error) {
	data, err := io.ReadAll(io.LimitReader(from, maxKey+1))
	if err != nil {
		return "", domain.E(domain.Unavailable, err, "the key could not be read from standard input")
	}
	key := strings.TrimSpace(string(data))
	if key == "" || len(key) > maxKey || strings.ContainsAny(key, "\r\n\x00") {
		return "", domain.E(domain.Invalid, nil, "standard input holds no key of one line; pipe it in, e.g. `--key-stdin < key.txt`")
	}
	return secret.Value(key), nil
}

// tryModel resolves a choice and calls the model. Nothing is written.
func (a *App) tryModel(ctx context.Context, c home.Choice, noCheck bool) error {
	env, err := a.Env()
	if err != nil {
		return err
	}
	m, problems, err := c.Resolve(*a.profile, env)
	if err != nil || noCheck {
		return err
	}
	for _, p := range problems {
		if p.Severity == home.Fault {
			return domain.E(domain.Unavailable, nil, "%s; %s", p.Message, p.Fix)
		}
	}
	return a.checkModel(ctx, m)
}

// applyModel writes a choice and says from when on it counts.
func (a *App) applyModel(ctx context.Context, c home.Choice) error {
	env, err := a.Env()
	if err != nil {
		return err
	}
	files, err := c.Apply(*a.profile, env, home.By{Command: "model", Version: Version()})
	if err != nil {
		return err
	}
	if len(files) == 0 {
		fmt.Fprintln(a.Out, "It was set already; nothing was changed.")
		return nil
	}
	fmt.Fprintf(a.Out, "✓ Written to %s.\n", strings.Join(files, " and "))
	client, _, err := a.controlClient()
	if err != nil {
		return err
	}
	if s, err := client.Status(ctx); err == nil {
		fmt.Fprintf(a.Out, "The gateway that runs (PID %d) uses the new model from its next start on.\n", s.PID)
	}
	return nil
}
