// Package discord connects one Discord bot
// (https://discord.com/developers/docs/intro).
//
// The gateway connection is a loop of its own (gateway.go, conn.go), because
// discordgo keeps session and sequence to itself, hides the close codes and
// waits where nothing can cancel it; here the sequence advances only when the
// sink has committed. After every connect the history since the last committed
// message of each channel is read (history.go). Requests go through discordgo's
// REST client over a transport of ours (wire.go, limits.go), which obeys the
// rate limits and notes whether a request was written, which is what decides if
// a failed send may have been carried out (errors.go).
package discord

import (
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bwmarrin/discordgo"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/platform"
	"hermes/internal/platform/httpcall"
	"hermes/internal/platform/recall"
	"hermes/internal/platform/settings"
)

// Name is the platform's name.
const Name domain.Platform = "discord"

// Limits of the API. Bytes unless said.
const (
	maxText      = 2000     // characters, https://discord.com/developers/docs/resources/message#create-message
	maxUpload    = 10 << 20 // one file of a bot, https://discord.com/developers/docs/reference#uploading-files
	maxFiles     = 10       // files of a message, as above
	maxLabel     = 80       // characters, https://discord.com/developers/docs/components/reference#button
	maxCustomID  = 100      // characters, as above
	maxNonce     = 25       // characters, https://discord.com/developers/docs/resources/message#create-message
	maxThread    = 100      // characters of a thread's name, https://discord.com/developers/docs/resources/channel
	nonceFor     = 2 * time.Minute
	apiPath      = "/api/v10"
	maxReconnect = 10 // failures in a row before Run gives the connection up
)

// Deps is what an adapter is given. Every field may be zero.
type Deps struct {
	platform.Deps
	Files *http.Client // as HTTP, for attachments; nil means one that connects to no private address
}

// Adapter is one bot account. Its methods are safe for concurrent use; Run may
// be called again once it has returned.
type Adapter struct {
	cfg     Config
	account string
	log     *slog.Logger
	health  *health.Reporter
	now     func() time.Time
	changed func()       // the channels are not those that were listed
	http    *http.Client // for the API and the gateway
	files   *http.Client // for attachments, never to private addresses
	rest    *discordgo.Session
	limits  *limits
	pause   pauses

	name     atomic.Pointer[string] // the bot's user name, once it connected
	channels channels
	roles    roleBook
	waiting  recall.Latest // what is being worked on, for the reactions

	// What outlives a Run, so that the next one can resume. Only Run uses it.
	session   session
	identify  time.Time // the last one
	noContent bool      // the Message Content intent was refused
	connects  int       // successful ones
}

// session is what resuming needs,
// https://discord.com/developers/docs/events/gateway#resuming.
type session struct {
	id, url string
	seq     int64 // of the last dispatch whose events are committed
}

// pauses are waits of the gateway loop; tests shorten them.
type pauses struct {
	first, most time.Duration // of the back-off after a failure
	hello       time.Duration // for hello and for ready
	invalid     time.Duration // before a new session after an invalid one, at most
	identify    time.Duration // between two identifies
	intent      time.Duration // until a refusal that only a person can lift is tried again
	inner       time.Duration // the longest that a request waits for its rate limit
	save        time.Duration // between two commits of a position that moved without an event
	steady      time.Duration // a connection that lived this long begins the back-off anew
}

// The adapter fulfils these contracts.
var (
	_ platform.Adapter = (*Adapter)(nil)
	_ platform.Editor  = (*Adapter)(nil)
	_ platform.Typer   = (*Adapter)(nil)
	_ platform.Fetcher = (*Adapter)(nil)
	_ platform.Menu    = (*Adapter)(nil)
	_ platform.Checker = (*Adapter)(nil)

	_ platform.Directory = (*Adapter)(nil)
)

// New makes an adapter; it does not connect. domain.Config.
func New(c Config, d Deps) (*Adapter, error) {
	if err := settings.Wrong(notSetUp, c.problems()); err != nil {
		return nil, err
	}
	c.setDefaults()
	d.Deps = d.Filled(Name, c.Proxy)
	if d.Files == nil {
		d.Files = newFileClient(c)
	}
	a := &Adapter{
		cfg: c, account: c.account(), log: d.Log, health: d.Health, now: d.Now, changed: d.Changed,
		files:  httpcall.Fixed(d.Files),
		limits: newLimits(time.Now),
		pause: pauses{first: time.Second, most: time.Minute, hello: 20 * time.Second, invalid: 5 * time.Second,
			identify: 5 * time.Second, intent: 5 * time.Minute, inner: 5 * time.Second, save: time.Minute, steady: time.Minute},
	}
	a.http = d.HTTP
	s, err := discordgo.New("Bot " + c.token())
	if err != nil {
		return nil, domain.E(domain.Internal, a.scrub(err), "the Discord client could not be made")
	}
	s.Client = &http.Client{Transport: &wire{next: d.HTTP}}
	s.MaxRestRetries, s.ShouldRetryOnRateLimit = 0, false // only delivery retries
	s.LogLevel = discordgo.LogError - 1                   // it would write to standard error; errors are returned as well
	a.rest = s
	return a, nil
}

// Name is "discord".
func (a *Adapter) Name() domain.Platform { return Name }

// Account is the bot's user id. It stands in the token, so that it is known
// before Run connected.
func (a *Adapter) Account() string { return a.account }

// Capabilities are the API's limits. Discord allows about five messages and
// five edits in five seconds to a channel and fifty requests a second in all,
// https://discord.com/developers/docs/topics/rate-limits; the nonce of a message
// is honoured for "the past few minutes",
// https://discord.com/developers/docs/resources/message#create-message.
func (a *Adapter) Capabilities() platform.Capabilities {
	c := platform.Capabilities{
		MaxText:        maxText,
		MaxCaption:     maxText,
		Unit:           platform.UTF16, // never less than the characters that Discord counts
		Dialect:        platform.DialectMarkdown,
		Buttons:        true,
		Threads:        true,
		MaxUpload:      maxUpload,
		EditEvery:      1500 * time.Millisecond,
		TypingEvery:    8 * time.Second, // a signal lasts ten, https://discord.com/developers/docs/resources/channel#trigger-typing-indicator
		PerChatEvery:   time.Second,
		PerSecond:      40,
		Burst:          4,
		Idempotency:    platform.IdempotencyWindow,
		IdempotencyFor: nonceFor,
		DigitIDs:       true,
		MaxDownload:    defaultMaxFile,
		Reacts:         true,
		Away: platform.Away{
			Kept:  "all that was said, of one channel at most the oldest 2000 messages, and in the 512 direct messages heard last",
			Lost:  "a button or slash command; the first direct message of somebody unknown",
			Twice: "when its fate stays unknown for more than two minutes",
		},
	}
	if name := a.name.Load(); name != nil {
		c.MentionName = "@" + *name
	}
	return c
}

// channels is what is known of channels and threads, bounded. What is not known
// is asked for.
type channels struct {
	mu sync.Mutex
	m  map[string]channel
}

const maxChannels = 8192

func (c *channels) put(ch channel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[string]channel{}
	}
	if _, known := c.m[ch.ID]; !known && len(c.m) >= maxChannels {
		for id := range c.m { // any one: it is asked for again when it is needed
			delete(c.m, id)
			break
		}
	}
	c.m[ch.ID] = ch
}

func (c *channels) get(id string) (channel, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch, ok := c.m[id]
	return ch, ok
}

func (c *channels) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.m, id)
}
