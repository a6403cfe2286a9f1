package home

import (
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/secret"
)

// Config is a profile's configuration with every default filled in. It is
// read-only after Load and safe to share.
type Config struct {
	Model     ModelConfig
	Fallbacks []ModelConfig // tried in order when Model fails
	Providers []ProviderConfig
	Agent     AgentConfig
	Terminal  TerminalConfig
	Approvals ApprovalsConfig
	API       APIConfig
	Platforms map[domain.Platform]PlatformConfig
	Access    AccessConfig
	Session   SessionConfig
	Display   DisplayConfig
	Delivery  DeliveryConfig
	Cron      CronConfig
	Memory    MemoryConfig
	Logging   LoggingConfig
	Timezone  *time.Location // HERMES_TIMEZONE, timezone:, else the host's at the load
	Host      *HostZone      // nil where a time zone is set; see Zone
	Update    UpdateConfig
	STT       STTConfig
	// Heartbeat is an address that is asked for once a minute while all is well,
	// for a watcher outside; "" for none.
	Heartbeat secret.Value

	// CompressionThreshold is the share of the context window at which the
	// history is compressed; 0 switches compression off.
	CompressionThreshold float64
	AllowPrivateURLs     bool // web tools may reach private and link-local addresses
	Toolsets             []string
	PlatformToolsets     map[string][]string
	QuickCommands        map[string]QuickCommand
}

// QuickCommand is a user-defined slash command: a shell command (exec) or
// another slash command (alias).
type QuickCommand struct{ Type, Target string }

// ModelConfig names a model and how to reach it.
type ModelConfig struct {
	Model         string // id; "" means that none is set
	Provider      string // openrouter, openai-api, custom:<name>, custom, offline, auto …; resolved, never "auto" after Load
	BaseURL       string // resolved; "" only for offline
	Key           secret.Value
	KeyOrigin     string // where the key stands, e.g. ".env line 3 (OPENROUTER_API_KEY)"
	APIMode       string // chat_completions
	ContextLength int    // tokens; 0 means unknown
	MaxTokens     int    // 0 means the provider's default
	// LoginFile is the auth.json whose credentials for the provider are used;
	// "" where a key stands elsewhere. Key is then the first API key of it, if
	// there is one: a login's token changes, and is read when it is needed.
	LoginFile    string
	PoolStrategy string // how to choose among them; "" means one after the other
	OwnAddress   bool   // BaseURL was configured, so that a login does not change it
}

// IsSet tells whether a model is configured.
func (m ModelConfig) IsSet() bool { return m.Provider == "offline" || m.Model != "" }

// ProviderConfig is an entry of custom_providers.
type ProviderConfig struct {
	Name, BaseURL, APIMode string
	Key                    secret.Value
	Models                 []string
}

// AgentConfig bounds turns.
type AgentConfig struct {
	MaxSteps      int           // model calls a turn; 90
	TurnTimeout   time.Duration // without any activity; 30 min
	MaxConcurrent int           // turns at once in the process; 64
	APIMaxRetries int           // of one model call; 3
	DrainTimeout  time.Duration // agent.restart_drain_timeout; 0 means unset
	QuestionTTL   time.Duration // clarify_timeout; 1 h
}

// TerminalConfig is for the terminal tool.
type TerminalConfig struct {
	Backend string        // local
	Cwd     string        // absolute
	Timeout time.Duration // 180 s
}

// ApprovalsConfig is for dangerous commands.
type ApprovalsConfig struct {
	Mode      string        // manual, smart, off
	Timeout   time.Duration // 300 s
	CronMode  string        // deny, approve
	Allowlist []string      // command_allowlist: approval keys allowed for ever
}

// APIConfig is the API server.
type APIConfig struct {
	Enabled     bool
	Host        string // 127.0.0.1
	Port        int    // 8642
	Key         secret.Value
	CORSOrigins []string
	ModelName   string // as /v1/models shows it
	MaxRuns     int    // concurrent turns; 0 means Agent.MaxConcurrent
}

// PlatformConfig is one platform as config.yaml and the environment set it up.
type PlatformConfig struct {
	Enabled         bool // credentials present and not switched off
	Disabled        bool // enabled: false stands in config.yaml
	Token           secret.Value
	TokenOrigin     string // file and line where the token stands
	Home            domain.Address
	HomeName        string
	CronThread      string
	AllowedUsers    []string // "*" means everybody
	AllowAll        bool
	GroupUsers      []string
	GroupChats      []string
	AllowedChats    []string // only these chats are heard; empty: any
	RequireMention  bool
	MentionPatterns []string
	IgnoredThreads  []string
	Reactions       bool
	Typing          bool              // typing_indicator, true
	ReplyTo         string            // reply_to_mode: off, first, all
	PairDMs         bool              // unauthorized_dm_behavior: pair
	Extra           map[string]string // extra.*, with the environment's twin over it (TELEGRAM_BASE_URL → base_url)
}

// AccessConfig is what holds for every platform.
type AccessConfig struct {
	AllowedUsers []string // GATEWAY_ALLOWED_USERS
	AllowAll     bool     // GATEWAY_ALLOW_ALL_USERS
}

// SessionConfig is about keys and resets.
type SessionConfig struct {
	PerUser          bool          // group_sessions_per_user, true
	PerUserInThreads bool          // thread_sessions_per_user, false
	ResetMode        string        // daily, idle, both, none; both
	ResetHour        int           // 4, in the profile's zone
	ResetIdle        time.Duration // 1440 min
	ResetNotify      bool
}

// DisplayConfig is what users see while a turn runs.
type DisplayConfig struct {
	BusyMode     string // interrupt, queue, steer
	BusyAck      bool   // busy_ack_enabled
	ToolProgress string // all, new, verbose, off
	Streaming    bool
	StreamEvery  time.Duration // least time between edits; 1 s
}

// DeliveryConfig is the outbox.
type DeliveryConfig struct {
	OnUnknown   string        // resend (default) or drop
	MaxAge      time.Duration // after which a retrying delivery is dead; 24 h
	MaxAttempts int           // 0 means until MaxAge
	Unlimited   bool          // rate limiter off (benchmarks)
}

// CronConfig is the scheduler.
type CronConfig struct {
	WrapResponse  bool
	MaxParallel   int           // 0 means no bound
	ScriptTimeout time.Duration // 120 s
	IdleTimeout   time.Duration // longest silence of an agent's run, 600 s; 0 means no limit
	OutputKept    int           // files a job; 50
	Grace         time.Duration // misfire_grace_minutes; 0 means half of each job's period, from 2 minutes to 2 hours
}

// MemoryConfig is MEMORY.md and USER.md.
type MemoryConfig struct {
	Enabled, UserProfile   bool
	MemoryLimit, UserLimit int // characters; 2200, 1375
}

// UpdateConfig says where new versions come from.
type UpdateConfig struct {
	URL       string // of the folder that holds the index; "" for what the program was built with
	PublicKey string // of who signs them, as minisign prints it; beside those that the program was built with
	Channel   string // stable, beta
}

// STTConfig is the service that transcribes voice messages.
type STTConfig struct {
	Enabled  bool         // true
	Provider string       // openai, or "" for the same; with any other, nothing is sent
	BaseURL  string       // before /audio/transcriptions; "" means OpenAI's, where a key is set
	Key      secret.Value // may be unset for a server of one's own
	Model    string       // whisper-1
	Language string       // ISO 639-1; "" lets the service find out
}

// IsSet tells whether voice messages are to be transcribed. A home that names
// another provider, such as a local one, has chosen who hears its people: a key
// that lies beside it is for something else.
func (s STTConfig) IsSet() bool {
	ours := s.Provider == "" || strings.EqualFold(s.Provider, "openai")
	return s.Enabled && ours && (s.BaseURL != "" || s.Key.IsSet())
}

// LoggingConfig is the log files.
type LoggingConfig struct {
	Level   string // debug, info, warning, error
	MaxMB   int    // 5
	Backups int    // 3
}

// Secrets gives every secret of the configuration, for a Redactor.
func (c *Config) Secrets() []string {
	values := []secret.Value{c.Model.Key, c.API.Key, c.Heartbeat, c.STT.Key}
	for _, m := range c.Fallbacks {
		values = append(values, m.Key)
	}
	for _, p := range c.Providers {
		values = append(values, p.Key)
	}
	var out []string
	for _, p := range c.Platforms {
		values = append(values, p.Token)
		for name, v := range p.Extra {
			if IsSecretName(name) {
				out = append(out, v)
			}
		}
	}
	for _, v := range values {
		if v.IsSet() {
			out = append(out, v.Reveal())
		}
	}
	return out
}
