package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/platform/webhook"
	"hermes/internal/secret"
)

func newWebhookCommand(app *App) *cobra.Command {
	return group("webhook", "Let other programs start the agent by an HTTP call",
		newWebhookSubscribeCommand(app), newWebhookListCommand(app), newWebhookRemoveCommand(app), newWebhookTestCommand(app))
}

// webhookConfig is the configuration of the profile's webhooks.
func (a *App) webhookConfig() (webhook.Config, home.PlatformConfig, error) {
	cfg, _, err := a.Config()
	if err != nil {
		return webhook.Config{}, home.PlatformConfig{}, err
	}
	p, err := a.Profile()
	if err != nil {
		return webhook.Config{}, home.PlatformConfig{}, err
	}
	c, err := webhook.FromProfile(cfg.Platforms[webhook.Name], p)
	return c, cfg.Platforms[webhook.Name], err
}

// webhookFlags are the flags of `hermes webhook subscribe`.
type webhookFlags struct {
	prompt, description, deliver, chatID, secret string
	events, skills                               []string
	deliverOnly, timestamp                       bool
}

func newWebhookSubscribeCommand(app *App) *cobra.Command {
	var f webhookFlags
	cmd := &cobra.Command{
		Use: "subscribe NAME", Aliases: []string{"add"}, Short: "Add a route, or change the one of that name", Args: cobra.ExactArgs(1),
		Long: "Adds POST /webhooks/NAME, at once, also to a running gateway. Calls must be signed with the\n" +
			"secret that is printed: as Standard Webhooks, by GitHub (X-Hub-Signature-256), by GitLab\n" +
			"(X-Gitlab-Token) or with X-Webhook-Signature: HEX(HMAC-SHA256(secret, body)).\n\n" +
			"In the prompt {a.b} is a value of the call's JSON and {__raw__} the whole of it.",
		Example: "  hermes webhook subscribe ci --events push --prompt 'Summarise the push to {ref} by {pusher.name}.' --deliver telegram",
		RunE:    func(_ *cobra.Command, args []string) error { return app.subscribe(args[0], f) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.prompt, "prompt", "", "what the agent is asked")
	fs.StringSliceVar(&f.events, "events", nil, "the only kinds of event that are heard, `CSV`")
	fs.StringVar(&f.description, "description", "", "what the route is for")
	fs.StringSliceVar(&f.skills, "skills", nil, "skills that the agent follows, `CSV`")
	fs.StringVar(&f.deliver, "deliver", "log", "where the answer goes: log, or a `PLATFORM`")
	fs.StringVar(&f.chatID, "deliver-chat-id", "", "the chat there; its home channel when it is left out")
	fs.StringVar(&f.secret, "secret", "", "the secret of the calls; one is made when it is left out")
	fs.BoolVar(&f.deliverOnly, "deliver-only", false, "send the filled-in prompt on, without asking the agent")
	fs.BoolVar(&f.timestamp, "require-timestamp", false, "take only signatures that cover a time and an id (Standard Webhooks)")
	return cmd
}

// subscribe adds a route. A secret that the route has is kept unless another is
// named, so that callers need not change theirs.
func (a *App) subscribe(name string, f webhookFlags) error {
	c, p, err := a.webhookConfig()
	if err != nil {
		return err
	}
	name = strings.ToLower(strings.TrimSpace(name))
	r := webhook.Route{
		Description: f.description, Events: f.events, Prompt: f.prompt, Skills: f.skills, Deliver: f.deliver,
		DeliverOnly: f.deliverOnly, Timestamp: f.timestamp, CreatedAt: a.Now().UTC().Truncate(time.Second),
	}
	if f.chatID != "" {
		r.Extra = map[string]string{"chat_id": f.chatID}
	}
	switch old, err := c.Find(name); {
	case f.secret != "":
		r.Secret = []string{f.secret}
	case err == nil && len(old.Secret) > 0:
		r.Secret = old.Secret
	case err != nil && !domain.IsCode(err, domain.NotFound):
		return err
	default:
		r.Secret = []string{newWebhookSecret()}
	}
	replaced, err := c.Subscribe(name, r)
	if err != nil {
		return err
	}
	verb := "Added"
	if replaced {
		verb = "Changed"
	}
	fmt.Fprintf(a.Out, "✓ %s the route %s.\n  URL:    %s\n  Secret: %s\n", verb, name, c.URL(name), r.Secret[0])
	fmt.Fprintf(a.Out, "\nTry it: hermes webhook test %s\n", name)
	if !p.Enabled {
		fmt.Fprintf(a.Err, "Webhooks are switched off: `hermes config set WEBHOOK_ENABLED true`, then restart the gateway.\n")
	}
	return nil
}

// newWebhookSecret makes a secret of Standard Webhooks: 32 random bytes.
func newWebhookSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return "whsec_" + base64.StdEncoding.EncodeToString(b)
}

// webhookView is a route as it is listed; never its secret.
type webhookView struct {
	Name        string   `json:"name"`
	URL         string   `json:"url"`
	From        string   `json:"from"` // config.yaml or subscription
	Description string   `json:"description,omitempty"`
	Events      []string `json:"events"`
	Deliver     string   `json:"deliver"`
	DeliverOnly bool     `json:"deliver_only,omitempty"`
	Prompt      string   `json:"prompt,omitempty"`
}

func newWebhookListCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the routes", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return app.listWebhooks(asJSON) },
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *App) listWebhooks(asJSON bool) error {
	c, _, err := a.webhookConfig()
	if err != nil {
		return err
	}
	subscribed, err := webhook.Subscriptions(c.Subscriptions)
	if err != nil {
		return err
	}
	rows := []webhookView{}
	add := func(from string, list map[string]webhook.Route) {
		for _, name := range slices.Sorted(maps.Keys(list)) {
			r := list[name]
			v := webhookView{Name: name, URL: c.URL(name), From: from, Description: r.Description, Events: append([]string{}, r.Events...), Deliver: r.Deliver, DeliverOnly: r.DeliverOnly, Prompt: r.Prompt}
			if v.Deliver == "" {
				v.Deliver = "log"
			}
			if chat := r.Extra["chat_id"]; chat != "" {
				v.Deliver += ":" + chat
			}
			rows = append(rows, v)
		}
	}
	add("config.yaml", c.Routes)
	for name := range c.Routes {
		delete(subscribed, name) // config.yaml wins
	}
	add("subscription", subscribed)
	if asJSON {
		return a.JSON(rows)
	}
	if len(rows) == 0 {
		fmt.Fprintln(a.Out, "There is no route yet. `hermes webhook subscribe NAME` adds one.")
		return nil
	}
	w := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tEVENTS\tANSWERS GO TO\tFROM\tURL")
	for _, r := range rows {
		events := strings.Join(r.Events, ",")
		if events == "" {
			events = "all"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Name, cut(events, 40), r.Deliver, r.From, r.URL)
	}
	return w.Flush()
}

func newWebhookRemoveCommand(app *App) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "Remove a route", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, _, err := app.webhookConfig()
			if err != nil {
				return err
			}
			if err := c.Unsubscribe(args[0]); err != nil {
				return err
			}
			fmt.Fprintf(app.Out, "✓ Removed the route %s.\n", args[0])
			return nil
		},
	}
}

func newWebhookTestCommand(app *App) *cobra.Command {
	var payload string
	cmd := &cobra.Command{
		Use: "test NAME", Short: "Call a route of the running gateway, signed, and show the answer", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.testWebhook(cmd.Context(), args[0], payload)
		},
	}
	cmd.Flags().StringVar(&payload, "payload", `{"event_type":"test","message":"a test of this webhook"}`, "the call's `JSON`")
	return cmd
}

// testCallTime bounds the call of `hermes webhook test`.
const testCallTime = 15 * time.Second

func (a *App) testWebhook(ctx context.Context, name, payload string) error {
	c, p, err := a.webhookConfig()
	if err != nil {
		return err
	}
	r, err := c.Find(name)
	if err != nil {
		return err
	}
	if !json.Valid([]byte(payload)) {
		return domain.E(domain.Invalid, nil, "the payload is not JSON")
	}
	ctx, cancel := context.WithTimeout(ctx, testCallTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL(name), bytes.NewReader([]byte(payload)))
	if err != nil {
		return domain.E(domain.Internal, err, "the call cannot be made")
	}
	req.Header.Set("Content-Type", "application/json")
	if len(r.Events) > 0 {
		req.Header.Set("X-Webhook-Event", r.Events[0])
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id)
	keys := c.Secrets
	if len(r.Secret) > 0 {
		keys = []secret.Value{secret.Value(r.Secret[0])}
	}
	webhook.Sign(req.Header, "test_"+hex.EncodeToString(id), a.Now(), []byte(payload), keys)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy: it is this machine
	res, err := client.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		why := "is the gateway running? (`hermes gateway status`)"
		if !p.Enabled {
			why = "webhooks are switched off: `hermes config set WEBHOOK_ENABLED true`, then restart the gateway"
		}
		return domain.E(domain.Unavailable, nil, "nobody takes calls at %s; %s", c.URL(name), why)
	}
	if err != nil {
		return domain.E(domain.Unavailable, err, "the call was not answered")
	}
	defer res.Body.Close()
	said, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return domain.E(domain.Unavailable, err, "the answer broke off")
	}
	fmt.Fprintf(a.Out, "%s\n%s\n", res.Status, strings.TrimSpace(string(said)))
	if res.StatusCode >= 300 {
		return &ExitError{Code: exitFailed}
	}
	return nil
}
