package home

import (
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/secret"
)

// defaults gives the configuration of a profile that sets nothing.
func defaults(p Profile, userHome string) *draft {
	d := &draft{platforms: map[domain.Platform]*PlatformConfig{}, compress: true, threshold: 0.5, userHome: userHome}
	d.Agent = AgentConfig{MaxSteps: 90, TurnTimeout: 30 * time.Minute, MaxConcurrent: 64, APIMaxRetries: 3, QuestionTTL: time.Hour}
	d.Terminal = TerminalConfig{Backend: "local", Cwd: userHome, Timeout: 3 * time.Minute}
	d.Approvals = ApprovalsConfig{Mode: "manual", Timeout: 5 * time.Minute, CronMode: "deny"}
	d.API = APIConfig{Host: "127.0.0.1", Port: 8642, ModelName: "hermes-agent"}
	if p.Name != DefaultProfile {
		d.API.ModelName = p.Name
	}
	d.Session = SessionConfig{PerUser: true, ResetMode: "both", ResetHour: 4, ResetIdle: 24 * time.Hour, ResetNotify: true}
	d.Display = DisplayConfig{BusyMode: "interrupt", BusyAck: true, ToolProgress: "all", StreamEvery: time.Second}
	d.Delivery = DeliveryConfig{OnUnknown: "resend", MaxAge: 24 * time.Hour}
	d.Cron = CronConfig{WrapResponse: true, ScriptTimeout: 2 * time.Minute, IdleTimeout: 10 * time.Minute, OutputKept: 50}
	d.Memory = MemoryConfig{Enabled: true, UserProfile: true, MemoryLimit: 2200, UserLimit: 1375}
	d.Update = UpdateConfig{Channel: "stable"}
	d.STT = STTConfig{Enabled: true, Model: "whisper-1"}
	d.Logging = LoggingConfig{Level: "info", MaxMB: 5, Backups: 3}
	return d
}

// settings lists everything but models and platforms.
func settings() []*setting {
	var all []*setting
	for _, group := range [][]*setting{agentSettings(), toolSettings(), apiSettings(), chatSettings(), speechSettings(), backgroundSettings()} {
		all = append(all, group...)
	}
	return all
}

func agentSettings() []*setting {
	return []*setting{
		intSetting("agent.max_turns", 1, 100_000, func(d *draft) *int { return &d.Agent.MaxSteps }).env("HERMES_MAX_ITERATIONS"),
		durationSetting("agent.gateway_timeout", time.Second, func(d *draft) *time.Duration { return &d.Agent.TurnTimeout }).env("HERMES_AGENT_TIMEOUT"),
		intSetting("agent.max_concurrent", 1, 100_000, func(d *draft) *int { return &d.Agent.MaxConcurrent }),
		intSetting("agent.api_max_retries", 0, 100, func(d *draft) *int { return &d.Agent.APIMaxRetries }),
		durationSetting("agent.restart_drain_timeout", time.Second, func(d *draft) *time.Duration { return &d.Agent.DrainTimeout }).env("HERMES_RESTART_DRAIN_TIMEOUT"),
		durationSetting("agent.clarify_timeout", time.Second, func(d *draft) *time.Duration { return &d.Agent.QuestionTTL }),
		boolSetting("compression.enabled", func(d *draft) *bool { return &d.compress }),
		{
			paths: []string{"compression.threshold"}, want: "a share of the context window over 0 and up to 1",
			read: func(d *draft, n *node) bool {
				v, ok := floatOf(n)
				if ok = ok && v > 0 && v <= 1; ok {
					d.threshold = v
				}
				return ok
			},
			show: func(d *draft) string { return jsonText(d.threshold) },
		},
		boolSetting("memory.memory_enabled", func(d *draft) *bool { return &d.Memory.Enabled }),
		boolSetting("memory.user_profile_enabled", func(d *draft) *bool { return &d.Memory.UserProfile }),
		intSetting("memory.memory_char_limit", 100, 100_000, func(d *draft) *int { return &d.Memory.MemoryLimit }),
		intSetting("memory.user_char_limit", 100, 100_000, func(d *draft) *int { return &d.Memory.UserLimit }),
	}
}

func toolSettings() []*setting {
	backends := []string{"local", "bubblewrap", "landlock", "docker", "ssh"}
	cwd := textSetting("terminal.cwd", func(d *draft) *string { return &d.Terminal.Cwd }).env("TERMINAL_CWD")
	cwd.want = "an absolute folder, or one under ~"
	cwd.read = func(d *draft, n *node) bool {
		dir := strings.TrimSpace(n.text)
		if n.kind != scalarNode || dir == "" || dir == "." {
			return n.kind == scalarNode // the user's home, as a service has no folder of its own
		}
		if rest, ok := strings.CutPrefix(dir, "~"); ok && (rest == "" || rest[0] == '/') {
			dir = filepath.Join(d.userHome, rest)
		}
		if !filepath.IsAbs(dir) {
			return false
		}
		d.Terminal.Cwd = filepath.Clean(dir)
		return true
	}
	return []*setting{
		choiceSetting("terminal.backend", func(d *draft) *string { return &d.Terminal.Backend }, backends...).env("TERMINAL_ENV").
			safe(func(d *draft) { d.Terminal.Backend = "unreadable" }), // never local by mistake: no back end has this name
		cwd,
		durationSetting("terminal.timeout", time.Second, func(d *draft) *time.Duration { return &d.Terminal.Timeout }).env("TERMINAL_TIMEOUT"),
		choiceSetting("approvals.mode", func(d *draft) *string { return &d.Approvals.Mode }, "manual", "smart", "off"),
		durationSetting("approvals.timeout", time.Second, func(d *draft) *time.Duration { return &d.Approvals.Timeout }),
		choiceSetting("approvals.cron_mode", func(d *draft) *string { return &d.Approvals.CronMode }, "deny", "approve"),
		listSetting("command_allowlist", func(d *draft) *[]string { return &d.Approvals.Allowlist }),
		boolSetting("security.allow_private_urls", func(d *draft) *bool { return &d.AllowPrivateURLs }).env("HERMES_ALLOW_PRIVATE_URLS"),
		listSetting("toolsets", func(d *draft) *[]string { return &d.Toolsets }),
		{
			paths: []string{"platform_toolsets"}, want: "a mapping of platforms to lists",
			read: func(d *draft, n *node) bool {
				out := map[string][]string{}
				for _, e := range n.entries {
					words, ok := listOf(e.value)
					if !ok {
						return false
					}
					out[e.key] = words
				}
				d.PlatformToolsets = out
				return n.kind == mapNode
			},
			show: func(d *draft) string { return jsonText(d.PlatformToolsets) },
		},
	}
}

func apiSettings() []*setting {
	const base = "platforms.api_server."
	off := func(d *draft) { d.apiOff = true }
	place := func(s *setting, name string) *setting {
		return s.also(base+name, "gateway."+base+name, "gateway.api_server."+name, "api_server."+name).env("API_SERVER_" + strings.ToUpper(name))
	}
	port := intSetting(base+"extra.port", 1, 65535, func(d *draft) *int { return &d.API.Port })
	port.want = "a port from 1 to 65535"
	host := textSetting(base+"extra.host", func(d *draft) *string { return &d.API.Host })
	host.want = "an address or a host name"
	host.read = func(d *draft, n *node) bool {
		h := strings.Trim(strings.TrimSpace(n.text), "[]")
		if n.kind != scalarNode || h == "" || strings.ContainsAny(h, " /") || (strings.Contains(h, ":") && net.ParseIP(h) == nil) {
			return false
		}
		d.API.Host = h
		return true
	}
	// The platform's `enabled: false` is final, and is read with the others'.
	return []*setting{
		place(port, "port").safe(off),
		place(host, "host").safe(off),
		place(secretSetting(base+"extra.key", func(d *draft) *secret.Value { return &d.API.Key }), "key").also(base + "api_key").safe(off),
		place(listSetting(base+"extra.cors_origins", func(d *draft) *[]string { return &d.API.CORSOrigins }), "cors_origins"),
		place(textSetting(base+"extra.model_name", func(d *draft) *string { return &d.API.ModelName }), "model_name"),
		intSetting("gateway.api_server.max_concurrent_runs", 0, 100_000, func(d *draft) *int { return &d.API.MaxRuns }),
	}
}

// heartbeatSetting is secret, since such an address is all that its holder needs
// to feign health.
func heartbeatSetting() *setting {
	s := secretSetting("gateway.heartbeat_url", func(d *draft) *secret.Value { return &d.Heartbeat }).env("HERMES_HEARTBEAT_URL")
	return webAddress(s, func(d *draft, text string) { d.Heartbeat = secret.Value(text) })
}

// webAddress lets a setting take nothing but an address of the web, or "".
func webAddress(s *setting, set func(d *draft, text string)) *setting {
	s.want = "an address that begins with https:// or http://"
	s.read = func(d *draft, n *node) bool {
		text := strings.TrimSpace(n.text)
		u, err := url.Parse(text)
		if n.kind != scalarNode || text != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			return false
		}
		set(d, text)
		return true
	}
	return s
}

// speechSettings are understood under the names of the service's own section as
// well (stt.openai.*), where homes of the other system have them.
func speechSettings() []*setting {
	base := textSetting("stt.base_url", func(d *draft) *string { return &d.STT.BaseURL }).also("stt.openai.base_url").env("STT_OPENAI_BASE_URL")
	return []*setting{
		boolSetting("stt.enabled", func(d *draft) *bool { return &d.STT.Enabled }),
		webAddress(base, func(d *draft, text string) { d.STT.BaseURL = text }),
		secretSetting("stt.api_key", func(d *draft) *secret.Value { return &d.STT.Key }).also("stt.openai.api_key").env("VOICE_TOOLS_OPENAI_KEY"),
		textSetting("stt.model", func(d *draft) *string { return &d.STT.Model }).also("stt.openai.model").env("STT_OPENAI_MODEL"),
		textSetting("stt.language", func(d *draft) *string { return &d.STT.Language }).also("stt.openai.language"),
	}
}

func chatSettings() []*setting {
	return []*setting{
		listSetting("gateway.allowed_users", func(d *draft) *[]string { return &d.Access.AllowedUsers }).env("GATEWAY_ALLOWED_USERS"),
		boolSetting("gateway.allow_all_users", func(d *draft) *bool { return &d.Access.AllowAll }).env("GATEWAY_ALLOW_ALL_USERS"),
		boolSetting("group_sessions_per_user", func(d *draft) *bool { return &d.Session.PerUser }),
		boolSetting("thread_sessions_per_user", func(d *draft) *bool { return &d.Session.PerUserInThreads }),
		choiceSetting("session_reset.mode", func(d *draft) *string { return &d.Session.ResetMode }, "daily", "idle", "both", "none"),
		intSetting("session_reset.at_hour", 0, 23, func(d *draft) *int { return &d.Session.ResetHour }).env("SESSION_RESET_HOUR"),
		durationSetting("session_reset.idle_minutes", time.Minute, func(d *draft) *time.Duration { return &d.Session.ResetIdle }).env("SESSION_IDLE_MINUTES"),
		boolSetting("session_reset.notify", func(d *draft) *bool { return &d.Session.ResetNotify }),
		choiceSetting("display.busy_input_mode", func(d *draft) *string { return &d.Display.BusyMode }, "interrupt", "queue", "steer").env("HERMES_GATEWAY_BUSY_INPUT_MODE"),
		boolSetting("display.busy_ack_enabled", func(d *draft) *bool { return &d.Display.BusyAck }),
		choiceSetting("display.tool_progress", func(d *draft) *string { return &d.Display.ToolProgress }, "all", "new", "verbose", "off"),
		boolSetting("streaming.enabled", func(d *draft) *bool { return &d.Display.Streaming }).also("display.streaming"),
		durationSetting("streaming.edit_interval", time.Second, func(d *draft) *time.Duration { return &d.Display.StreamEvery }),
		choiceSetting("delivery.on_unknown", func(d *draft) *string { return &d.Delivery.OnUnknown }, "resend", "drop"),
		durationSetting("delivery.max_age_hours", time.Hour, func(d *draft) *time.Duration { return &d.Delivery.MaxAge }),
		intSetting("delivery.max_attempts", 0, 100_000, func(d *draft) *int { return &d.Delivery.MaxAttempts }),
		boolSetting("delivery.unlimited", func(d *draft) *bool { return &d.Delivery.Unlimited }),
		{
			paths: []string{"quick_commands"}, want: "a mapping of names to {type: exec or alias, command or target}",
			read: readQuickCommands,
			show: func(d *draft) string { return jsonText(d.QuickCommands) },
		},
	}
}

func readQuickCommands(d *draft, n *node) bool {
	out := map[string]QuickCommand{}
	for _, e := range n.entries {
		kind, target := e.value.get("type"), e.value.get("command")
		if target == nil {
			target = e.value.get("target")
		}
		if kind == nil || target == nil || target.kind != scalarNode || (kind.text != "exec" && kind.text != "alias") {
			return false
		}
		out[strings.TrimPrefix(e.key, "/")] = QuickCommand{Type: kind.text, Target: target.text}
	}
	d.QuickCommands = out
	return n.kind == mapNode
}

func backgroundSettings() []*setting {
	return []*setting{
		boolSetting("cron.wrap_response", func(d *draft) *bool { return &d.Cron.WrapResponse }),
		intSetting("cron.max_parallel_jobs", 0, 100_000, func(d *draft) *int { return &d.Cron.MaxParallel }).env("HERMES_CRON_MAX_PARALLEL"),
		durationSetting("cron.timeout_seconds", time.Second, func(d *draft) *time.Duration { return &d.Cron.IdleTimeout }).env("HERMES_CRON_TIMEOUT"),
		durationSetting("cron.script_timeout_seconds", time.Second, func(d *draft) *time.Duration { return &d.Cron.ScriptTimeout }).env("HERMES_CRON_SCRIPT_TIMEOUT"),
		intSetting("cron.output_retention", 0, 100_000, func(d *draft) *int { return &d.Cron.OutputKept }),
		durationSetting("cron.misfire_grace_minutes", time.Minute, func(d *draft) *time.Duration { return &d.Cron.Grace }),
		choiceSetting("logging.level", func(d *draft) *string { return &d.Logging.Level }, "debug", "info", "warning", "warn", "error", "critical").env("HERMES_LOG_LEVEL"),
		heartbeatSetting(),
		textSetting("update.url", func(d *draft) *string { return &d.Update.URL }).env("HERMES_UPDATE_URL"),
		textSetting("update.public_key", func(d *draft) *string { return &d.Update.PublicKey }),
		choiceSetting("update.channel", func(d *draft) *string { return &d.Update.Channel }, "stable", "beta"),
		intSetting("logging.max_size_mb", 1, 10_000, func(d *draft) *int { return &d.Logging.MaxMB }),
		intSetting("logging.backup_count", 0, 100, func(d *draft) *int { return &d.Logging.Backups }),
		{
			paths: []string{"timezone"}, envs: []string{"HERMES_TIMEZONE"}, want: "a zone of the IANA database such as Europe/Berlin",
			read: func(d *draft, n *node) bool {
				if n.kind != scalarNode {
					return false
				}
				name := strings.TrimSpace(n.text)
				if name == "" {
					return true
				}
				loc, err := time.LoadLocation(name)
				if err != nil {
					return false
				}
				d.Timezone, d.zone = loc, name
				return true
			},
			show: func(d *draft) string { return d.zone },
		},
	}
}

// otherKeys are keys of config.yaml that other versions know and this one
// reads elsewhere or has no use for; they are kept and draw no comment. A
// trailing dot takes everything below.
var otherKeys = []string{
	"_config_version", "auxiliary.", "checkpoints.", "credential_pool_strategies.", "custom_providers", "delegation.",
	"discord.", "email.", "fallback_model", "fallback_providers", "gateway.platforms.", "gateway.write_sessions_json",
	"gateway.delivery_ledger", "gateway.platform_connect_timeout", "gateway.multiplex_profiles", "gateway.profile_routes",
	"gateway.loop_watchdog", "gateway.startup_watchdog", "gateway.restart_loop_guard", "gateway.respawn_storm",
	"gateway.max_inbound_media_bytes", "gateway.strict", "gateway.trust_env", "gateway.media_delivery_allow_dirs",
	"gateway.systemd_watchdog_seconds", "gateway.message_timestamps.", "gateway.signal_interrupt_grace_timeout",
	"gateway.bot_loop_guard", "agent.gateway_timeout_warning", "agent.gateway_notify_interval", "agent.cron_drain_timeout",
	"agent.restart_after_turn_timeout", "agent.session_stall_timeout", "agent.reconnect_attention_after",
	"agent.gateway_auto_continue_freshness", "agent.gateway_startup_restore_drain_timeout", "agent.build_wait_timeout",
	"agent.gateway_startup_warmup_timeout", "agent.gateway_turn_lease_timeout", "agent.agent_cache.", "agent.turn_liveness",
	"agent.personalities.", "agent.reasoning_effort", "agent.system_prompt", "agent.tool_use_enforcement", "agent.verbose",
	"compression.target_ratio", "compression.protect_last_n", "compression.protect_first_n", "compression.in_place",
	"cron.catch_up_missed", "cron.preflight", "cron.allow_agent_scheduling", "cron.mirror_delivery", "cron.delivery.",
	"cron.model", "cron.provider", "cron.failure_nudge_threshold", "cron.retry_unreachable", "cron.session_db_timeout_seconds",
	"cron.media_send_timeout_seconds", "cron.completed_retention_days", "cron.require_restart_safe_scope",
	"cron.cleanup_timeout_seconds", "display.", "hooks.", "hooks_auto_accept", "ledger", "matrix.", "mattermost.", "mcp_servers.", "model.",
	"model", "platforms.", "provider_routing.", "providers.", "reset_by_platform.", "reset_by_type.", "security.",
	"session_reset.notify_exclude_platforms", "skills.", "slack.", "streaming.", "stt.", "telegram.", "terminal.", "tts.",
	"unauthorized_dm_behavior", "updates.", "voice.", "web.", "webhook.", "whatsapp.", "memory.", "tools.", "browser.", "personalities.",
}
