package people

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"hermes/testkit/fault"
	"hermes/testkit/port"
	"hermes/testkit/webhook"
)

// newWebhook has programs that call a route, and get its answers posted.
func newWebhook(o Options) (*Platform, error) {
	const secret = "whsec_dGhlIHNlY3JldCBvZiB0aGUgcHJvZ3JhbXMgb24gYWxsIHNpZGVz"
	rec, err := webhook.NewReceiver(secret, nil)
	if err != nil {
		return nil, err
	}
	p := &Platform{secret: secret, closing: []func(){rec.Close}}
	addr, err := p.front(o, strings.TrimSuffix(rec.URL(), "/in"), sends("/in"))
	if err != nil {
		return p.build(err)
	}
	at, err := port.Lend("127.0.0.1:0")
	if err != nil {
		return p.build(err)
	}
	p.closing = append(p.closing, at.Release)
	_, in, err := net.SplitHostPort(at.Addr())
	p.Env = fmt.Sprintf("WEBHOOK_ENABLED=true\nWEBHOOK_HOST=127.0.0.1\nWEBHOOK_PORT=%s\nWEBHOOK_RATE_LIMIT=-1\nWEBHOOK_SECRET=%s\n", in, secret)
	p.Config = fmt.Sprintf(`webhook: {extra: {routes: {ask: {prompt: "{text}", deliver: webhook, deliver_extra: {url: "http://%s/in"}}}}}`, addr)
	p.Revoke = func() {
		rec.Fail("post", fault.Fault{Times: -1, Status: http.StatusUnauthorized})
	}
	var names counter
	p.Join = func() Person {
		return &program{rec: rec, url: "http://127.0.0.1:" + in + "/webhooks/ask", secret: secret, name: names.next()}
	}
	return p.build(err)
}

// program calls a route and waits for the posts that answer its calls.
type program struct {
	rec               *webhook.Receiver
	url, secret, name string
	calls             atomic.Int64
}

// again is the pause of a program whose call was not taken.
const again = 50 * time.Millisecond

// Say calls until the call is taken, as senders of webhooks do, each time with
// the same id.
func (g *program) Say(ctx context.Context, text string) error {
	body, err := json.Marshal(map[string]string{"text": text})
	if err != nil {
		return err
	}
	call := webhook.GitHub(g.url, g.secret, "ask", g.name+"-"+strconv.FormatInt(g.calls.Add(1), 10)+"-end", string(body))
	for {
		a, err := call.Send(ctx)
		switch {
		case err == nil && a.Status/100 == 2:
			return nil
		case err == nil && a.Status/100 == 4 && a.Status != http.StatusTooManyRequests && a.Status != http.StatusNotFound:
			return fmt.Errorf("%w with %d: %v", errRefused, a.Status, a.Body)
		}
		t := time.NewTimer(again)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return errors.Join(ctx.Err(), err)
		}
	}
}

func (g *program) mine(p webhook.Post) bool {
	return strings.Contains(p.Event, g.name+"-") && p.Signed && !p.Dropped
}

func (g *program) Heard() (out []string) {
	for _, p := range g.rec.Posts() {
		if g.mine(p) {
			out = append(out, p.Text)
		}
	}
	return out
}

func (g *program) WaitFor(ctx context.Context, ok func(string) bool) error {
	_, err := g.rec.WaitFor(ctx, func(p webhook.Post) bool { return g.mine(p) && ok(p.Text) })
	return err
}
