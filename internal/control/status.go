// Package control is how commands talk to a running gateway: HTTP on a Unix
// socket in the profile's home, for its owner only. It also holds the words of
// the gateway's status, so that the command line, the pages and the API show
// one and the same.
package control

import (
	"net"
	"net/url"
	"time"

	"hermes/internal/health"
	"hermes/internal/ledger"
)

// Status is the truth about a running gateway, from evidence.
type Status struct {
	Profile   string        `json:"profile"`
	Home      string        `json:"home"`
	Version   string        `json:"version"`
	PID       int           `json:"pid"`
	State     string        `json:"gateway_state"` // starting, running, draining
	Healthy   bool          `json:"healthy"`
	Problems  []string      `json:"problems"` // why it is not healthy, and what to do
	Warnings  []string      `json:"warnings"`
	StartedAt time.Time     `json:"started_at"`
	Uptime    float64       `json:"uptime_seconds"`
	Model     Model         `json:"model"`
	API       API           `json:"api"`
	Parts     []health.Part `json:"parts"`
	Work      Work          `json:"work"`
	Ledger    ledger.Info   `json:"ledger"`
	Memory    int64         `json:"rss_bytes"`
	LastExit  string        `json:"last_exit,omitempty"`
	Mode      Mode          `json:"mode"`
	// Elders are the PIDs of processes that have handed over and still end their
	// turns and streams.
	Elders []int `json:"elders,omitempty"`
	// Parked says that the start came to nothing and waits; see Problems.
	Parked bool `json:"parked,omitempty"`
	// Safe is the care that is taken after deaths, or because the configuration
	// on disk cannot be served; nil for none.
	Safe *SafeMode `json:"safe_mode,omitempty"`
}

// SafeMode is how a careful life differs from an ordinary one.
type SafeMode struct {
	Why     []string `json:"why"`
	Deaths  int      `json:"deaths,omitempty"` // in a row, before this life
	Held    []Held   `json:"held_back,omitempty"`
	Config  string   `json:"config_served,omitempty"` // folder of the one that is served in place of the one on disk
	Broken  string   `json:"config_broken,omitempty"` // why that one is not
	NotTold []string `json:"off,omitempty"`           // what is off because nobody can say which configuration is stricter
}

// Held is a part that is not started before its time.
type Held struct {
	Part  string    `json:"part"`
	Until time.Time `json:"until"`
	Times int       `json:"deaths"` // that named it
	Why   string    `json:"why"`
}

// Model is the configured model.
type Model struct {
	Name     string `json:"name"`
	Provider string `json:"provider"`
	Set      bool   `json:"set"`
}

// API is the API server's address.
type API struct {
	Enabled bool   `json:"enabled"`
	Address string `json:"address,omitempty"` // http://host:port, when it is bound
}

// Reachable is the address at which this machine reaches the API, whose own may
// mean every interface.
func (a API) Reachable() (string, error) {
	u, err := url.Parse(a.Address)
	if err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.To4() == nil {
			host = "::1"
		}
	}
	return "http://" + net.JoinHostPort(host, port), nil
}

// Work counts what is under way.
type Work struct {
	Lanes    int64 `json:"lanes"`
	Running  int64 `json:"running_turns"`
	Finished int64 `json:"finished_turns"` // since the start
}

// Mode says who starts the process again when it ends.
type Mode struct {
	Supervisor string `json:"supervisor"` // systemd, container, none
	Unit       string `json:"unit,omitempty"`
	Explain    string `json:"explain"` // what holds in this mode, in a sentence
	// Handover is how a restart goes: overlap (beside each other) or exec (in place).
	Handover string `json:"handover"`
}
