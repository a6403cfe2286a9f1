// Package people has people on every chat platform: each platform's fake behind
// one small interface, so that what holds for all platforms is tested once, in a
// loop over Names.
package people

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"hermes/testkit/faultproxy"
)

// Platform is one platform's fake, and what a gateway needs to connect to it.
type Platform struct {
	Name string
	Settings
	// Join gives somebody who can talk to the bot. Platforms on which a history
	// is read slowly give the same few people again and again.
	Join func() Person
	// Revoke makes the platform refuse the bot from now on.
	Revoke func()
	// MayRepeat tells of a platform on which an answer whose fate is unknown can
	// be seen again, marked. On all others the platform, its history or the
	// receiver knows the repetition.
	MayRepeat bool
	// OwnLife tells of a platform whose connection has a life of its own that
	// status shows; to a webhook's receiver there is none.
	OwnLife bool

	secret  string
	address string // host:port that the settings name
	watch   func(func(point string))
	points  []string
	closing []func()
}

// Settings are what a profile says about a platform.
type Settings struct {
	Env    string // lines of .env
	Config string // what stands under platforms in config.yaml, on one line; "" for nothing
}

// Person is one human in one chat with the bot. Its methods are safe for
// concurrent use.
type Person interface {
	// Say tells the bot something. It returns when the platform has it, however
	// often that had to be tried.
	Say(ctx context.Context, text string) error
	// Heard is what the bot said in the chat, without what was deleted and what
	// the platform let the receiver drop.
	Heard() []string
	// WaitFor waits until the bot has said something.
	WaitFor(ctx context.Context, ok func(text string) bool) error
}

// Options say what stands between the fakes and the gateway.
type Options struct {
	// Through gives the address of a proxy in front of an address of a fake; nil
	// means that there is none.
	Through func(addr string) (string, error)
	// Watched puts a proxy in front of the fake that sees each message that the
	// bot sends; see Watch.
	Watched bool
}

var makers = map[string]func(Options) (*Platform, error){
	"discord": newDiscord, "email": newEmail, "matrix": newMatrix, "mattermost": newMattermost,
	"slack": newSlack, "telegram": newTelegram, "webhook": newWebhook,
}

// Names are the platforms, in the order of the alphabet.
func Names() []string {
	return []string{"discord", "email", "matrix", "mattermost", "slack", "telegram", "webhook"}
}

// New starts a platform's fake.
func New(name string, o Options) (*Platform, error) {
	make, ok := makers[name]
	if !ok {
		return nil, fmt.Errorf("nobody is on %s", name)
	}
	p, err := make(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p.Name = name
	return p, nil
}

// Close ends the fake.
func (p *Platform) Close() {
	for i := len(p.closing) - 1; i >= 0; i-- {
		p.closing[i]()
	}
}

// The instants of a message that the bot sends.
const (
	SendBefore = "send.before" // it has arrived, and is not shown
	SendAfter  = "send.after"  // it is shown, and the bot does not know
)

// The instants of a question for news, on platforms that are asked for them.
const (
	PollBefore = "poll.before" // it has arrived
	PollAfter  = "poll.after"  // it was answered, and the bot does not know
)

// Points are the instants that Watch tells of.
func (p *Platform) Points() []string { return p.points }

// Watch sets a function that is called at each of the Points, while what happens
// waits for it; nil takes it away. The platform must have been made Watched.
func (p *Platform) Watch(f func(point string)) { p.watch(f) }

// WrongToken are the settings with a credential that the platform does not know.
func (p *Platform) WrongToken() Settings {
	b := []byte(p.secret)
	for i, n := len(b)-1, 0; i >= 0 && n < 6; i-- {
		if b[i] >= '0' && b[i] <= '9' || b[i] >= 'a' && b[i] <= 'z' {
			b[i] = '0' + (b[i]+1)%10
			n++
		}
	}
	return p.swap(p.secret, string(b))
}

// NoSuchName are the settings with a server whose name does not resolve
// (RFC 2606, section 2).
func (p *Platform) NoSuchName() Settings {
	host, _, _ := strings.Cut(p.address, ":")
	s := p.swap(p.address, strings.Replace(p.address, host, "chat.invalid", 1))
	s.Env = strings.NewReplacer("IMAP_HOST=127.0.0.1", "IMAP_HOST=chat.invalid", "SMTP_HOST=127.0.0.1", "SMTP_HOST=chat.invalid").Replace(s.Env)
	return s.encrypted()
}

// NoTLS are the settings with TLS, which the server does not speak.
func (p *Platform) NoTLS() Settings { return p.Settings.encrypted() }

func (s Settings) encrypted() Settings {
	s.Env = strings.ReplaceAll(strings.ReplaceAll(s.Env, "http://", "https://"), "_SECURITY=none", "_SECURITY=tls")
	s.Config = strings.ReplaceAll(s.Config, "http://", "https://")
	return s
}

func (p *Platform) swap(old, new string) Settings {
	return Settings{Env: strings.ReplaceAll(p.Env, old, new), Config: strings.ReplaceAll(p.Config, old, new)}
}

// front puts what the options ask for in front of a fake that speaks HTTP, and
// gives the address that the gateway is told. event names the requests that are
// watched, "" for all others.
func (p *Platform) front(o Options, url string, event func(*http.Request) string) (string, error) {
	addr := strings.TrimPrefix(url, "http://")
	if o.Watched {
		proxy, err := faultproxy.New("http://" + addr)
		if err != nil {
			return "", err
		}
		p.closing = append(p.closing, proxy.Close)
		p.watch = func(f func(string)) {
			if f == nil {
				proxy.Set(nil)
				return
			}
			proxy.Set(func(r *http.Request, w faultproxy.When) {
				if e := event(r); e != "" {
					f(e + "." + string(w))
				}
			})
		}
		p.points = []string{SendBefore, SendAfter}
		addr = strings.TrimPrefix(proxy.URL(), "http://")
	}
	return p.through(o, addr)
}

func (p *Platform) through(o Options, addr string) (string, error) {
	var err error
	if o.Through != nil {
		addr, err = o.Through(addr)
	}
	p.address = addr
	return addr, err
}

// sends tells whether a request is one to a path that ends so.
func sends(suffix string) func(*http.Request) string {
	return func(r *http.Request) string {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, suffix) {
			return "send"
		}
		return ""
	}
}

// build closes what was begun when the rest of it failed.
func (p *Platform) build(err error) (*Platform, error) {
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

var errRefused = errors.New("the call was refused")
