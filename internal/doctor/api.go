package doctor

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"hermes/internal/home"
)

// apiChecks are about the HTTP API: its port, its key, its origins.
func apiChecks() []check { return []check{checkBind, checkPort, checkOrigin} }

// checkBind says that the address may not be bound as it is configured, where
// the configuration's loader has not said so.
func checkBind(c *Case) []Finding {
	if c.API.Refusal == nil || slices.ContainsFunc(c.Problems, func(p home.Problem) bool { return strings.Contains(p.Message, "Refusing to start: binding") }) {
		return nil
	}
	return []Finding{{ID: "service.weak_key", Class: Service, Severity: Error, depth: ofSetting, explains: []string{"service.api_*", "service.part_api"},
		What: c.API.Refusal.Error(), Evidence: []string{c.Profile.EnvFile()}, Means: "The API stays off; chat platforms and cron run.",
		Fix: c.then(c.hermes(`config set API_SERVER_KEY "$(openssl rand -hex 32)"`))}}
}

// checkPort says that the API does not answer where it should, and who does.
func checkPort(c *Case) []Finding {
	a := c.API
	if !a.Asked || a.Refusal != nil {
		return nil
	}
	up := c.Gateway.Status != nil
	part := c.part("api")
	mine := up && strings.Contains(a.Holder, fmt.Sprintf("PID %d", c.Gateway.Status.PID))
	switch {
	case a.Holder != "" && !mine && !strings.HasPrefix(a.Holder, "systemd ") && // which keeps the socket between two lives
		(part.Code == "port_in_use" || !up && !c.Gateway.Held):
		return []Finding{{ID: "service.port_taken", Class: Service, Severity: Error, depth: ofPart, explains: []string{"service.part_api", "service.api_down"},
			What:     fmt.Sprintf("API_SERVER_PORT already in use: %d is held by %s", c.Config.API.Port, a.Holder),
			Evidence: append([]string{"/proc/net/tcp: " + a.Address + " is listened on by " + a.Holder}, c.Gateway.lineWith("already in use")...),
			Means:    "The API is off until the port is free; chat platforms and cron run.",
			Fix:      c.then(c.hermes(fmt.Sprintf("config set API_SERVER_PORT %d", c.freePort())))}}
	case up && c.Gateway.Status.API.Address == "" && c.Gateway.Status.API.Enabled && part.bad():
		f := Finding{ID: "service.api_down", Class: Service, Severity: Error, depth: ofPart, explains: []string{"service.part_api"},
			What: "the API is down", Evidence: []string{"status: " + part.Message}, Means: "Browsers say \"Failed to fetch\", programs \"connection refused\".", Fix: c.hermes("gateway restart")}
		if part.Code == "bind_failed" { // the address is not this machine's, or not yet
			f.Fix = c.then(c.hermes("config set API_SERVER_HOST 127.0.0.1"))
		}
		return []Finding{f}
	case up && a.Err != nil && c.Gateway.Status.API.Address != "" && strings.HasSuffix(c.Gateway.Status.API.Address, fmt.Sprintf(":%d", c.Config.API.Port)):
		return []Finding{{ID: "service.api_silent", Class: Service, Severity: Error, depth: ofPart, What: "the API does not answer at " + a.Address,
			Evidence: []string{a.Err.Error()}, Means: "Programs wait in vain.", Fix: c.hermes("gateway restart")}}
	case up && c.Gateway.Status.API.Address != "" && !strings.HasSuffix(c.Gateway.Status.API.Address, fmt.Sprintf(":%d", c.Config.API.Port)):
		return []Finding{{ID: "profile.not_loaded", Class: Scope, Severity: Warning, depth: ofProcess, What: "the files changed since the gateway read them",
			Evidence: []string{fmt.Sprintf("API_SERVER_PORT is %d, and the gateway listens at %s", c.Config.API.Port, c.Gateway.Status.API.Address)},
			Means:    "What was changed holds only from the next restart on.", Fix: c.hermes("gateway restart")}}
	}
	return nil
}

// checkOrigin says why a browser says "Failed to fetch" on a given page.
func checkOrigin(c *Case) []Finding {
	if c.Origin == "" || c.Config == nil {
		return nil
	}
	origins := c.Config.API.CORSOrigins
	switch {
	case !c.Config.API.Enabled:
		return []Finding{{ID: "service.api_off", Class: Service, Severity: Error, depth: ofSetting, What: "the API is switched off",
			Evidence: []string{"API_SERVER_ENABLED is not true in " + c.Profile.EnvFile()}, Means: "A page that calls it says \"Failed to fetch\".",
			Fix: c.then(c.hermes("config set API_SERVER_ENABLED true"))}}
	case !slices.Contains(origins, c.Origin) && !slices.Contains(origins, "*"), c.API.Origin == http.StatusForbidden:
		list := strings.Join(append(slices.Clone(origins), c.Origin), ",")
		if slices.Contains(origins, c.Origin) || slices.Contains(origins, "*") {
			list = strings.Join(origins, ",")
		}
		return []Finding{{ID: "service.cors", Class: Service, Severity: Error, depth: ofSetting, What: "the API refuses requests of the page " + c.Origin,
			Evidence: []string{"API_SERVER_CORS_ORIGINS is " + orNone(strings.Join(origins, ",")), fmt.Sprintf("a preflight with that Origin was answered with %d", c.API.Origin)},
			Means:    "A browser on that page says \"Failed to fetch\".",
			Fix:      c.then(c.hermes("config set API_SERVER_CORS_ORIGINS " + list))}}
	}
	return nil
}
