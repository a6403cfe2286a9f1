package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"hermes/internal/api"
	"hermes/internal/control"
	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/plain"
	"hermes/internal/succession"
)

// Status is the truth about the gateway, from evidence.
func (g *Gateway) Status(ctx context.Context) control.Status {
	s := control.Status{
		Profile: g.Profile.Name, Home: g.Profile.Home, Version: g.Version, PID: os.Getpid(), State: g.currentPhase(),
		StartedAt: g.started, Uptime: g.Now().Sub(g.started).Seconds(),
		Model:    control.Model{Name: g.Config.Model.Model, Provider: g.Config.Model.Provider, Set: g.Config.Model.IsSet()},
		Parts:    g.health.Parts(),
		Warnings: append(append([]string{}, g.Warnings...), g.gate.Warnings()...),
		Memory:   residentBytes(),
		Mode:     supervision(g.processEnv),
		Problems: []string{},
	}
	s.Mode.Handover = string(succession.ModeOf(g.processEnv))
	if gone := g.programGone(); gone != "" {
		s.Warnings = append(s.Warnings, gone)
	}
	for _, e := range g.handing.living() {
		s.Elders = append(s.Elders, e.PID)
	}
	s.API.Enabled = g.Config.API.Enabled
	if g.api != nil {
		if a := g.api.Addr(); a != nil {
			s.API.Address = "http://" + a.String()
		}
	}
	s.Work.Lanes, s.Work.Running, s.Work.Finished = g.lanes.Counts()
	if info, err := g.store.Info(ctx); err == nil {
		s.Ledger = info
	} else {
		s.Problems = append(s.Problems, "ledger: "+err.Error())
	}
	if failing, err := g.jobs.Failing(ctx); err != nil {
		s.Problems = append(s.Problems, "cron: "+domain.MessageOf(err))
	} else if len(failing) > 0 { // the job's fault, not the gateway's
		s.Warnings = append(s.Warnings, fmt.Sprintf("the last run failed of: %s; `hermes%s cron runs JOB` says why", strings.Join(failing, ", "), g.flag()))
	}
	if !s.Model.Set {
		s.Problems = append(s.Problems, "model: none is set, so nothing can be answered. Set one with `hermes"+g.flag()+" model`.")
	}
	for _, p := range s.Parts {
		if p.Name == "model" && !s.Model.Set { // which has been said
			continue
		}
		if p.State == health.Down || p.State == health.Degraded {
			s.Problems = append(s.Problems, p.Name+": "+p.Message)
		}
	}
	if s.Ledger.Delivery["dead"] > 0 {
		if dead, err := delivery.UnseenDead(ctx, g.store); err != nil {
			s.Problems = append(s.Problems, "delivery: "+domain.MessageOf(err))
		} else if len(dead) > 0 {
			s.Problems = append(s.Problems, fmt.Sprintf("delivery: %d message(s) could not be delivered; `hermes%[2]s deliveries --dead` lists them, `hermes%[2]s deliveries ack` says that you have seen them.", len(dead), g.flag()))
		}
	}
	if s.Ledger.SetAside != "" {
		s.Problems = append(s.Problems, "ledger: the file was no database; it was kept as "+s.Ledger.SetAside+" and a new one begun.")
	}
	if damage := salvageProblem(s.Ledger.Salvaged, g.Now()); damage != "" {
		s.Problems = append(s.Problems, damage)
	}
	s.Safe = g.safeMode()
	s.Problems = append(g.safeProblems(s.Safe), s.Problems...)
	s.Healthy = len(s.Problems) == 0 && s.State == phaseRunning
	return s
}

func (g *Gateway) flag() string {
	if g.Profile.Name == "default" {
		return ""
	}
	return " -p " + g.Profile.Name
}

func (g *Gateway) currentPhase() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.phase
}

// statusLine is the gateway in one line, for /status in a chat.
func (g *Gateway) statusLine() string {
	s := g.Status(context.Background())
	line := fmt.Sprintf("Gateway %s, up %s, %d turns since.", s.Version, (time.Duration(s.Uptime) * time.Second).String(), s.Work.Finished)
	for _, p := range s.Problems {
		line += "\n⚠️ " + p
	}
	return line
}

// apiStatus is the status as the pages and the API show it.
func apiStatus(s control.Status) api.Status {
	out := api.Status{
		Profile: s.Profile, Version: s.Version, State: s.State, Healthy: s.Healthy, Summary: strings.Join(s.Problems, "\n"), Mode: s.Mode.Explain,
		PID: s.PID, StartedAt: s.StartedAt, UpdatedAt: s.StartedAt.Add(time.Duration(s.Uptime * float64(time.Second))),
		Model: s.Model.Name, Address: s.API.Address, Active: int(s.Work.Running), Parts: s.Parts,
		Queues: api.QueueStatus{
			Inbound: s.Ledger.Inbound["received"], Turns: s.Ledger.Turns["queued"], Waiting: s.Ledger.Turns["waiting"],
			Deliveries: s.Ledger.Delivery["pending"] + s.Ledger.Delivery["sending"], Retrying: s.Ledger.Delivery["retrying"], Dead: s.Ledger.Delivery["dead"],
		},
		Ledger: api.LedgerStatus{Kind: s.Ledger.Kind, Location: s.Ledger.Location, Bytes: s.Ledger.Bytes, Sessions: s.Ledger.Sessions, Messages: s.Ledger.Messages},
	}
	if s.Model.Provider == "offline" {
		out.Model = "offline stand-in"
	}
	return out
}

// residentBytes is the process's resident memory; see proc_pid_statm(5).
func residentBytes() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.Sys)
	}
	f := strings.Fields(string(text))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// supervision tells who would start the process again, and what holds when it
// is restarted or dies. getenv reads the environment of the process.
func supervision(getenv func(string) string) control.Mode {
	overlap := succession.ModeOf(getenv) == succession.Overlap
	switch {
	case succession.UnitMain(getenv) && overlap:
		return control.Mode{Supervisor: "systemd", Explain: "a unit that hands over: a restart fails no request and cuts no stream, and after a crash systemd keeps the API's socket and starts it again"}
	case succession.UnitMain(getenv):
		return control.Mode{Supervisor: "systemd", Explain: "a unit that goes on in place: a restart fails no request but cuts long streams, and after a crash connections are refused until systemd has started it again; `hermes gateway install --adopt` adds what is missing"}
	case os.Getpid() == 1:
		return control.Mode{Supervisor: "container", Explain: "it is PID 1 of a container: a restart goes on in place, and whatever runs the container starts it again after a crash"}
	}
	return control.Mode{Supervisor: "none", Explain: "nothing starts it again when it ends or after a reboot; `hermes gateway install` makes a service of it"}
}

// stateFile is gateway_state.json, for tools made for the other system. It is
// written only when its content, but for the time, has changed.
type stateFile struct {
	path string
	self succession.Record
	log  *slog.Logger

	mu   sync.Mutex
	last string
}

type stateRecord struct {
	succession.Record
	State     string                   `json:"gateway_state"`
	Exit      string                   `json:"exit_reason"`
	Restart   bool                     `json:"restart_requested"`
	Active    int64                    `json:"active_agents"`
	Platforms map[string]platformState `json:"platforms"`
	Updated   string                   `json:"updated_at"`
}

type platformState struct {
	State   string `json:"state"`
	Code    string `json:"error_code,omitempty"`
	Message string `json:"error_message,omitempty"`
	Updated string `json:"updated_at"`
}

func newStateFile(path string, self succession.Record, log *slog.Logger) *stateFile {
	return &stateFile{path: path, self: self, log: log}
}

// platformWords are the states that the other system's tools know.
var platformWords = map[health.State]string{
	health.Starting: "connecting", health.OK: "connected", health.Degraded: "retrying", health.Down: "fatal", health.Disabled: "paused",
}

// stateRecord is the state of now.
func (g *Gateway) stateRecord() stateRecord {
	phase := g.currentPhase()
	r := stateRecord{Record: g.record(), State: phase, Platforms: map[string]platformState{}}
	if g.lanes != nil {
		_, r.Active, _ = g.lanes.Counts()
	}
	if phase == phaseStopped {
		r.Exit = g.Reason()
	}
	for _, p := range g.health.Parts() {
		if name, ok := strings.CutPrefix(p.Name, "platform."); ok {
			r.Platforms[name] = platformState{State: platformWords[p.State], Code: p.Code, Message: p.Message, Updated: p.Since.UTC().Format(time.RFC3339)}
		}
	}
	return r
}

func (g *Gateway) record() succession.Record {
	return succession.Self(g.Profile.Home, g.Profile.Name)
}

// write replaces the file when the record has changed. now gives it; it is called
// alone, so that what was true later is written later. A disk that takes no file is
// told once in the log and changes nothing else.
func (f *stateFile) write(now func() stateRecord) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := now()
	text, err := json.Marshal(r)
	if err != nil || string(text) == f.last {
		return
	}
	last := string(text)
	r.Updated = time.Now().UTC().Format(time.RFC3339)
	if text, err = json.MarshalIndent(r, "", "  "); err == nil {
		tmp := filepath.Join(filepath.Dir(f.path), ".gateway_state.tmp")
		if err = plain.Write(tmp, append(text, '\n'), 0o600); err == nil {
			err = os.Rename(tmp, f.path)
		}
	}
	if err != nil {
		f.log.Debug("gateway_state.json was not written", "component", "gateway", "err", err)
		return
	}
	f.last = last
}
