package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/model/login"
	"hermes/internal/model/openai"
	"hermes/internal/secret"
)

func newAuthCommand(app *App) *cobra.Command {
	cmd := group("auth", "Keys and logins of model providers, in auth.json",
		newAuthAddCommand(app), newAuthListCommand(app), newAuthStatusCommand(app), newAuthRefreshCommand(app), newAuthResetCommand(app), newAuthRemoveCommand(app), newAuthLogoutCommand(app, "logout"), newAuthPriorityCommand(app))
	cmd.Long = "Keeps several keys of a provider, of which the next is used when one is refused, and logins\nthat are renewed by themselves. A key in .env goes before both. A named profile uses the\nroot's where it has none of its own. No command shows a key."
	return cmd
}

// stores gives the files with logins that the profile reads, its own first.
func (a *App) stores() ([]*login.Store, error) {
	p, err := a.Profile()
	if err != nil {
		return nil, err
	}
	var out []*login.Store
	for _, path := range home.AuthFiles(p) {
		out = append(out, login.Open(path, a.Now))
	}
	return out, nil
}

// loginView is what is told of a credential.
type loginView struct {
	Provider string    `json:"provider"`
	Number   int       `json:"number"` // in its provider's list, from 1
	ID       string    `json:"id"`
	Label    string    `json:"label"`
	Type     string    `json:"type"`
	State    string    `json:"state"` // ok, expired, renews, refused, uncertain
	Expires  time.Time `json:"expires,omitzero"`
	Problem  string    `json:"problem,omitempty"`
	File     string    `json:"file"`
}

// viewLogin judges a credential by what is written about it.
func viewLogin(c login.Credential, number int, file string, now time.Time) loginView {
	v := loginView{Provider: c.Provider, Number: number, ID: c.ID, Label: c.Label, Type: c.Type, State: "ok", Expires: c.Expires, File: file}
	renews := c.Refresh.IsSet() && c.TokenURL != ""
	again := fmt.Sprintf("`hermes auth add %s --type oauth` logs in again", c.Provider)
	switch {
	case c.Failure != "":
		v.State, v.Problem = "refused", c.Failure+"; "+again
	case !c.CutShort.IsZero():
		v.State, v.Problem = "uncertain", fmt.Sprintf("a renewal that began %s did not end; `hermes auth refresh %s` tells whether the login still holds", c.CutShort.Local().Format("2006-01-02 15:04:05"), c.Provider)
	case c.Expired(now) && renews:
		v.State = "renews"
	case c.Expired(now):
		v.State, v.Problem = "expired", again
	}
	return v
}

// logins lists what the profile can use, or what there is for one provider.
func (a *App) logins(provider string) ([]loginView, error) {
	stores, err := a.stores()
	if err != nil {
		return nil, err
	}
	out := []loginView{}
	var broken []error
	for _, s := range stores {
		all, err := s.List(provider)
		if err != nil {
			broken = append(broken, err)
			continue
		}
		number := map[string]int{}
		for _, c := range all {
			number[c.Provider]++
			out = append(out, viewLogin(c, number[c.Provider], s.Path(), a.Now()))
		}
	}
	return out, errors.Join(broken...)
}

func newAuthListCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list [PROVIDER]", Aliases: []string{"ls"}, Short: "List keys and logins, without what is secret of them", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return app.listLogins(firstArg(args), asJSON, false) },
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newAuthStatusCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "status [PROVIDER]", Short: "Say of each login whether it can be used; exits 1 when one cannot", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return app.listLogins(firstArg(args), asJSON, true) },
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// listLogins prints the logins. judge makes one that cannot be used a failure.
func (a *App) listLogins(provider string, asJSON, judge bool) error {
	views, err := a.logins(provider)
	if err != nil && len(views) == 0 {
		return err
	}
	bad := err != nil || slices.ContainsFunc(views, func(v loginView) bool { return v.Problem != "" })
	switch {
	case asJSON:
		if jerr := a.JSON(map[string]any{"profile": a.profile.Name, "ok": !bad, "logins": views}); jerr != nil {
			return jerr
		}
	case len(views) == 0:
		fmt.Fprintf(a.Out, "No key or login is kept in auth.json. `hermes%s auth add PROVIDER` adds one.\n", a.profileFlag())
	default:
		w := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "PROVIDER\tN\tID\tTYPE\tSTATE\tGOOD UNTIL\tLABEL")
		for _, v := range views {
			until := "-"
			if !v.Expires.IsZero() {
				until = v.Expires.Local().Format("2006-01-02 15:04")
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", v.Provider, v.Number, v.ID, v.Type, v.State, until, v.Label)
		}
		if ferr := w.Flush(); ferr != nil {
			return ferr
		}
		for _, v := range views {
			if v.Problem != "" {
				wrap(a.Out, "✗ "+v.Provider+" "+v.Label+": ", v.Problem)
			}
		}
	}
	if err == nil && judge && bad {
		return &ExitError{Code: exitFailed}
	}
	return err
}

func newAuthAddCommand(app *App) *cobra.Command {
	var o addLogin
	cmd := &cobra.Command{
		Use: "add PROVIDER", Short: "Add a key to a provider's pool, or log in", Args: cobra.ExactArgs(1),
		Long: "Adds an API key, which is asked for and not shown, or logs in by a code that is confirmed in\n" +
			"a browser anywhere (--type oauth). Nothing is written before it is complete. A provider that\n" +
			"is not known here logs in with --device-url, --token-url and --client-id (RFC 8628).",
		Example: "  hermes auth add openrouter --label second --key-stdin < key.txt\n" +
			"  hermes auth add nous --type oauth",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.provider = args[0]
			return app.addLogin(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.kind, "type", "", "api-key or oauth; oauth where the provider has nothing else")
	f.StringVar(&o.label, "label", "", "what to call it")
	f.IntVar(&o.priority, "priority", 0, "the smallest is used first")
	f.BoolVar(&o.keyStdin, "key-stdin", false, "read the key from standard input")
	f.StringVar(&o.keyFile, "key-file", "", "read the key from a file")
	f.StringVar(&o.service.DeviceURL, "device-url", "", "where the service gives codes")
	f.StringVar(&o.service.TokenURL, "token-url", "", "where the service gives tokens")
	f.StringVar(&o.service.ClientID, "client-id", "", "the id that the service knows programs by")
	f.StringVar(&o.service.Scope, "scope", "", "what is asked for")
	return cmd
}

// addLogin is what `auth add` was told.
type addLogin struct {
	provider, kind, label string
	priority              int
	keyStdin              bool
	keyFile               string
	service               login.Service
}

// addLogin adds a key or a login to the profile's own file.
func (a *App) addLogin(ctx context.Context, o addLogin) error {
	stores, err := a.stores()
	if err != nil {
		return err
	}
	known, signsIn := login.ServiceOf(o.provider)
	kind := strings.ReplaceAll(o.kind, "-", "_")
	if kind == "" && (signsIn || o.service.TokenURL != "") && !o.keyStdin && o.keyFile == "" {
		kind = login.OAuth
	}
	c := login.Credential{Provider: o.provider, Type: login.APIKey}
	switch kind {
	case login.OAuth:
		if o.service.TokenURL == "" {
			o.service = known
		}
		if o.service.DeviceURL == "" || o.service.ClientID == "" {
			return domain.E(domain.Invalid, nil, "how to log in to %s is not known here; give --device-url, --token-url and --client-id, or add an API key", o.provider)
		}
		if c, err = a.signIn(ctx, o); err != nil {
			return err
		}
	case login.APIKey, "":
		if c.Access, err = a.poolKey(ctx, o); err != nil {
			return err
		}
	default:
		return domain.E(domain.Invalid, nil, "--type is api-key or oauth, not %q", o.kind)
	}
	c.Label, c.Priority = o.label, o.priority
	id, err := stores[0].Add(ctx, c)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "✓ Added %s to %s, in %s\n", id, o.provider, stores[0].Path())
	cfg, _, err := a.Config()
	if err != nil {
		return err
	}
	switch {
	case cfg.Model.Provider != o.provider:
		fmt.Fprintf(a.Out, "The model is not served by it yet: `hermes%s model set %s MODEL`\n", a.profileFlag(), o.provider)
	case cfg.Model.LoginFile == "":
		wrap(a.Out, "! ", "It is not used, since "+cfg.Model.KeyOrigin+" goes before it; remove that key to use the pool")
	}
	return nil
}

// poolKey reads an API key from where flags say, else asks for it.
func (a *App) poolKey(ctx context.Context, o addLogin) (secret.Value, error) {
	switch {
	case o.keyStdin:
		return readKey(a.In)
	case o.keyFile != "":
		return secretFile(o.keyFile)
	}
	text, err := a.asker().secret(ctx, "Key of "+o.provider)
	if err == nil && (text == "" || len(text) > maxKey) {
		err = domain.E(domain.Invalid, nil, "that is no key; nothing was changed. Without a terminal: --key-stdin or --key-file")
	}
	return secret.Value(text), err
}

// signIn shows a code and waits until a person has confirmed it.
func (a *App) signIn(ctx context.Context, o addLogin) (login.Credential, error) {
	client, done := loginClient()
	defer done()
	dev, err := o.service.Begin(ctx, client, a.Now())
	if err != nil {
		return login.Credential{}, err
	}
	fmt.Fprintf(a.Err, "Open %s\nand type the code %s\nWaiting until %s; Ctrl-C changes nothing.\n", dev.URL, dev.Code, dev.Ends.Local().Format("15:04"))
	c, err := o.service.Wait(ctx, client, o.provider, dev, a.Now, func(ctx context.Context, d time.Duration) error {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return domain.E(domain.Cancelled, nil, "nothing was changed")
		}
	})
	if ctx.Err() != nil {
		err = domain.E(domain.Cancelled, nil, "nothing was changed")
	}
	return c, err
}

// loginClient is the client for sign-in services.
func loginClient() (*http.Client, func()) {
	transport := openai.NewTransport()
	return &http.Client{Transport: transport}, transport.CloseIdleConnections
}

func newAuthRefreshCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "refresh [PROVIDER]", Short: "Renew logins now, and say of each whether it holds", Args: cobra.MaximumNArgs(1),
		Long: "Renews every login, or those of one provider. A refresh token is good for one use: a renewal\nholds a lock that every process of this machine respects, and writes what it was given\nbefore it is used.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.refreshLogins(cmd.Context(), firstArg(args), asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// renewal is what became of one login.
type renewal struct {
	Provider string    `json:"provider"`
	Label    string    `json:"label"`
	OK       bool      `json:"ok"`
	Expires  time.Time `json:"expires,omitzero"`
	Problem  string    `json:"problem,omitempty"`
}

// refreshLogins renews logins and says what became of each. One that could not
// be renewed makes the exit code 1.
func (a *App) refreshLogins(ctx context.Context, provider string, asJSON bool) error {
	all, err := a.renewLogins(ctx, provider, func(r renewal) {
		until := ""
		if !r.Expires.IsZero() {
			until = ", good until " + r.Expires.Local().Format("2006-01-02 15:04")
		}
		switch {
		case asJSON:
		case r.OK:
			fmt.Fprintf(a.Out, "✓ %s %s renewed%s\n", r.Provider, r.Label, until)
		default:
			wrap(a.Out, "✗ ", r.Problem)
		}
	})
	if err != nil {
		return err
	}
	ok := !slices.ContainsFunc(all, func(r renewal) bool { return !r.OK })
	if asJSON {
		if err := a.JSON(map[string]any{"profile": a.profile.Name, "ok": ok, "logins": all}); err != nil {
			return err
		}
	} else if len(all) == 0 {
		fmt.Fprintln(a.Out, "There is no login to renew.")
	}
	if !ok {
		return &ExitError{Code: exitFailed}
	}
	return nil
}

// renewLogins renews every login, or those of one provider, and tells of each as
// it is known.
func (a *App) renewLogins(ctx context.Context, provider string, tell func(renewal)) ([]renewal, error) {
	stores, err := a.stores()
	if err != nil {
		return nil, err
	}
	client, done := loginClient()
	defer done()
	out := []renewal{}
	for _, s := range stores {
		all, err := s.List(provider)
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			if c.Type != login.OAuth {
				continue
			}
			r := renewal{Provider: c.Provider, Label: c.Label}
			fresh, err := s.Renew(ctx, client, c, "")
			if r.OK = err == nil; r.OK {
				r.Expires = fresh.Expires
			} else {
				r.Problem = domain.MessageOf(err)
			}
			tell(r)
			out = append(out, r)
		}
	}
	return out, nil
}

func newAuthResetCommand(app *App) *cobra.Command {
	return &cobra.Command{
		Use: "reset PROVIDER", Short: "Forget why a provider's keys and logins were refused", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			stores, err := app.stores()
			if err != nil {
				return err
			}
			if err := stores[0].Reset(cmd.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(app.Out, "✓ The keys and logins of %s count as good again.\n", args[0])
			return nil
		},
	}
}

func newAuthRemoveCommand(app *App) *cobra.Command {
	return &cobra.Command{
		Use: "remove PROVIDER NUMBER|ID|LABEL", Aliases: []string{"rm"}, Short: "Remove a key or a login from the profile's own auth.json", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			stores, err := app.stores()
			if err != nil {
				return err
			}
			c, err := stores[0].Match(args[0], args[1])
			if err != nil {
				return err
			}
			if err := stores[0].Remove(cmd.Context(), c); err != nil {
				return err
			}
			fmt.Fprintf(app.Out, "✓ Removed %s (%s) of %s. The provider itself still knows it: revoke it there.\n", c.ID, c.Label, c.Provider)
			return nil
		},
	}
}
