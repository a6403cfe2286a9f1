package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"hermes/internal/doctor"
)

// scopeFaults mix up, break and lose the files of profiles.
func scopeFaults() []fault {
	return []fault{
		{what: "nothing was ever set up", id: "profile.home_missing", class: doctor.Scope, shape: shape{empty: true, noBot: true, noAPI: true},
			inject: func(w *world) { w.fillModel() }},
		{what: "the profile that a command names does not exist", id: "profile.missing", class: doctor.Scope, ask: []string{"-p", "gone"}, shape: shape{noBot: true, noAPI: true, unstarted: true}, fixes: 2,
			inject: func(w *world) {
				w.noHome()
				w.fillModel()
			}},
		{what: "the sticky profile was deleted by hand", id: "profile.active_missing", class: doctor.Scope, shape: shape{},
			inject: func(w *world) {
				w.write("active_profile", "gone\n")
				w.noHome()
			}},
		{what: "the home folder's name is taken by a file", id: "profile.home_is_file", class: doctor.Scope, shape: shape{empty: true, noBot: true, noAPI: true},
			inject: func(w *world) {
				w.must(os.WriteFile(w.path(), []byte("x"), 0o600))
				w.fillModel()
			}},
		{what: ".env can be read by everybody", id: "profile.file_modes", class: doctor.Scope,
			inject: func(w *world) { w.must(os.Chmod(w.path(".env"), 0o644)) }},
		{what: "the home folder can be written by everybody", id: "profile.home_mode", class: doctor.Scope,
			inject: func(w *world) { w.must(os.Chmod(w.path(), 0o777)) }},
		{what: "a line of .env is no setting", id: "profile.env_line", class: doctor.Scope,
			inject: func(w *world) { w.add(".env", "this is no setting\n") }},
		{what: "a name in .env is misspelt", id: "profile.misspelt_key", class: doctor.Scope,
			inject: func(w *world) { w.edit(".env", "API_SERVER_PORT=", "API_SEVER_PORT="); w.restart() }},
		{what: "a key of config.yaml is misspelt", id: "profile.misspelt_key", class: doctor.Scope,
			inject: func(w *world) { w.add("config.yaml", "approvals:\n  timout: 60\n") }},
		{what: "config.yaml is broken, and the gateway down", id: "profile.config_yaml", class: doctor.Scope,
			inject: func(w *world) {
				w.stop()
				w.edit("config.yaml", "session_reset:\n", "session_reset: [\n")
				w.editor(`sed -i 's/session_reset: \[/session_reset:/' "$1"`)
			}},
		{what: "config.yaml is broken while the gateway serves", id: "profile.config_yaml", class: doctor.Scope,
			inject: func(w *world) {
				w.edit("config.yaml", "session_reset:\n", "session_reset: [\n")
				w.editor(`sed -i 's/session_reset: \[/session_reset:/' "$1"`)
			}},
		{what: "config.yaml was broken, and the last one that served is used in its place", id: "profile.config_yaml", class: doctor.Scope,
			inject: func(w *world) {
				w.until("the configuration to have served", func() bool { return strings.Contains(w.hermes("config", "history", "--json"), "healthy_at") })
				w.edit("config.yaml", "session_reset:\n", "session_reset: [\n")
				w.procs[0].Kill()
				w.start()
			}},
		{what: "a setting has a value that it cannot have", id: "profile.setting", class: doctor.Scope,
			inject: func(w *world) { w.add("config.yaml", "agent:\n  max_turns: many\n") }, fill: map[string]string{"value": "90"}},
		{what: "the bot's token stands in both files, and differs", id: "profile.two_places", class: doctor.Scope,
			inject: func(w *world) {
				w.add("config.yaml", "platforms:\n  telegram:\n    token: 7000000009:AAF-an_old_token_of_another_bot_\n")
			}},
		{what: "config.yaml names MCP servers, which this version does not use", id: "profile.mcp_unused", class: doctor.Scope,
			inject: func(w *world) { w.add("config.yaml", "mcp_servers:\n  files:\n    command: npx\n") }},
		{what: "two profiles have one bot", id: "profile.shared_token", class: doctor.Scope, shape: shape{profile: "liam", noAPI: true, unstarted: true},
			inject: func(w *world) {
				w.must(os.WriteFile(filepath.Join(w.home.Dir, ".env"), []byte("TELEGRAM_BOT_TOKEN="+w.tg.Token()+"\nTELEGRAM_BASE_URL="+w.tg.URL()+"\n"), 0o600))
				w.fill["token of a bot of its own"] = w.otherBot()
			}},
		{what: "the model was changed and the gateway not restarted", id: "profile.not_loaded", class: doctor.Scope,
			inject: func(w *world) {
				w.add("config.yaml", "fallback_providers: []\n")
				w.add(".env", "DISCORD_BOT_TOKEN=\n")
				w.edit("config.yaml", "provider: custom", "provider: offline")
			}},
		{what: "a gateway of the older system runs on the same home", id: "profile.other_system", class: doctor.Scope, shape: shape{unstarted: true},
			inject: func(w *world) {
				pid, started := w.olderSystem(w.path())
				w.write("gateway.pid", fmt.Sprintf(`{"pid":%d,"kind":"hermes-gateway","argv":["python3"],"start_time":%s}`, pid, started))
			}},
		{what: "a gateway of the older system was started on the home that this one serves", id: "profile.other_system", class: doctor.Scope,
			inject: func(w *world) { w.olderSystem(w.path()) }},
		{what: "a gateway of the older system on another home has the same bot", id: "profile.other_system_bot", class: doctor.Scope, shows: []string{"telegram bot"},
			inject: func(w *world) {
				at := filepath.Join(w.dir, "old", ".hermes")
				w.must(os.MkdirAll(at, 0o700))
				w.must(writeFile(filepath.Join(at, ".env"), "TELEGRAM_BOT_TOKEN="+w.tg.Token()+"\n"))
				w.olderSystem(at)
			}},
	}
}
