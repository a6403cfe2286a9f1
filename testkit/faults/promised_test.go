package faults

import (
	"slices"
	"testing"
)

// promised is what doctor was promised to find, item by item, and the findings
// that keep each promise. Each of them has a row in the corpus, or a test of its
// own; see TestEveryFindingHasARow.
var promised = map[string][]string{
	"binary and unit paths":                        {"service.exec", "service.current_link", "service.program_deleted", "service.program_replaced", "service.two_programs"},
	"failures of EXEC":                             {"service.exec"},
	"the start limit, with what the last exit was": {"service.start_limit", "service.crash_loop", "service.unit_failed", "service.unit_config"},
	"drop-ins":                                          {"service.bad_unit", "service.unit_no_restart", "service.unit_restart_slow"},
	"misplaced and unknown keys of units":               {"service.unit_misplaced_key", "service.unit_keys", "service.unit_limit_place"},
	"TimeoutStopSec against the time of the drain":      {"service.unit_stop_timeout"},
	"lingering":                                         {"service.linger"},
	"the user's bus":                                    {"service.user_bus", "service.manager_silent"},
	"the port and its holder":                           {"service.port_taken", "service.port_shared", "service.api_down"},
	"a bind without a key":                              {"service.bind_without_key"},
	"a weak key":                                        {"service.weak_key"},
	"CORS against an origin":                            {"service.cors"},
	"Failed to fetch":                                   {"service.api_off", "service.port_taken", "service.cors"},
	"modes of files":                                    {"profile.file_modes", "profile.home_mode", "profile.owner", "profile.unreadable", "service.version_open"},
	"space for bytes and for files":                     {"service.disk_full", "service.inodes", "service.disk_read_only"},
	"the clock":                                         {"service.clock"},
	"the ledger's integrity and size":                   {"service.ledger_damaged", "service.ledger_not_database", "service.ledger_unreadable", "service.ledger_newer", "service.ledger_busy", "service.ledger_large", "service.ledger_network"},
	"stale locks":                                       {"service.stale_lock"},
	"bots that several profiles have":                   {"profile.shared_token", "transport.bot_in_use"},
	"tokens in the wrong scope":                         {"profile.two_places", "profile.unit_env_file", "profile.unit_home"},
	"each platform's credentials and intents":           {"transport.token_refused", "transport.intents", "transport.incomplete", "transport.setting", "transport.two_apps"},
	"each provider's key, model and quota":              {"provider.key_refused", "provider.key_missing", "provider.key_forbidden", "provider.model_unknown", "provider.quota"},
	"logins: expired, used up elsewhere, not renewable": {"provider.login_expired", "provider.login_consumed", "provider.login_ends", "provider.login_uncertain"},
	"the scheduler's life":                              {"scheduler.not_running", "scheduler.stalled", "scheduler.behind"},
	"disabled, duplicate and never-firing jobs":         {"scheduler.job_paused", "scheduler.job_duplicate", "scheduler.job_never", "scheduler.job_unreadable"},
	"wrong timezones":                                   {"scheduler.timezone", "scheduler.job_timezone"},
	"missing scripts and workdirs":                      {"scheduler.script_missing", "scheduler.workdir_missing"},
	"dead deliveries":                                   {"delivery.dead", "delivery.home_gone", "delivery.no_home", "delivery.no_target", "delivery.waiting"},
	"MCP servers":                                       {"profile.mcp_unused"},
	"weak spots of hand-written units":                  {"service.unit_restart_slow", "service.unit_restart_fast", "service.unit_restart_steps", "service.unit_no_limit", "service.unit_no_restart", "service.unit_online_target"},
	"both names of a unit at once":                      {"service.two_units"},
	"a missing @":                                       {"service.missing_at"},
	"the other system beside this one":                  {"profile.other_system", "profile.other_system_bot", "service.legacy_unit"},
	"an update that was interrupted":                    {"service.update_partial", "service.update_interrupted", "service.update_leftovers"},
	"versions that differ":                              {"service.version_differs", "service.versions_differ", "service.pin_old", "service.pin", "service.two_programs"},
	"programs that nobody verified":                     {"service.version_changed", "service.version_unverified"},
}

// TestPromises holds that each promise is kept by findings that there are.
func TestPromises(t *testing.T) {
	ids := findings(t)
	for _, f := range unitFaults() {
		ids = append(ids, f.id) // those of flaws are put together of parts
	}
	for item, kept := range promised {
		for _, id := range kept {
			if !slices.Contains(ids, id) {
				t.Errorf("%s: doctor does not give %s", item, id)
			}
		}
	}
}
