package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"strconv"
	"time"

	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/home"
	"hermes/internal/succession"
)

func itoa(n int) string { return strconv.Itoa(n) }

// Preflight is what `hermes gateway preflight` answers.
type Preflight struct {
	OK       bool     `json:"ok"`
	Version  string   `json:"version"`
	Problems []string `json:"problems,omitempty"`
}

// preflightLimit bounds the check of a program.
const preflightLimit = 20 * time.Second

// preflight asks a program as AskProgram does.
func (g *Gateway) preflight(ctx context.Context, program string) (string, error) {
	return AskProgram(ctx, g.Profile, program, succession.WithoutLegacy(g.Process))
}

// AskProgram lets a program check whether it could serve a profile, without
// taking anything over, and gives its version. Errors: Unavailable, when it gives
// no answer; Config, when it could not.
func AskProgram(ctx context.Context, p home.Profile, program string, environ []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, preflightLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--profile", p.Name, "gateway", "preflight")
	cmd.Env = environ
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	ran := cmd.Run()
	var said Preflight
	if err := json.Unmarshal(out.Bytes(), &said); err != nil {
		why := "it ended without a fault"
		if ran != nil {
			why = ran.Error()
		}
		if last := lastLine(errs.String()); last != "" {
			why += "; it said: " + last
		}
		return "", domain.E(domain.Unavailable, ran, "the program %s gave no answer when it was asked whether it could serve: %s", program, why)
	}
	if !said.OK {
		why := "it does not say why"
		if len(said.Problems) > 0 {
			why = said.Problems[0]
		}
		return said.Version, domain.E(domain.Config, nil, "the program %s could not serve: %s", program, why)
	}
	return said.Version, nil
}

func lastLine(s string) string {
	lines := bytes.Split(bytes.TrimSpace([]byte(s)), []byte("\n"))
	return string(lines[len(lines)-1])
}

// hold keeps what lives over an execve, and remembers the program.
func (g *Gateway) hold(program string) error {
	o, err := g.offer()
	if err != nil {
		return err
	}
	o.Elders = o.Elders[:len(o.Elders)-1] // we do not survive ourselves
	held, err := succession.Hold(o, g.controlListener())
	if err != nil {
		return err
	}
	g.handing.mu.Lock()
	defer g.handing.mu.Unlock()
	g.handing.program, g.handing.held = program, held
	return nil
}

// rest brings everything to rest before a restart in place: turns end, then
// requests, while new connections wait in the socket's queue.
func (g *Gateway) rest(ctx context.Context) {
	g.setPhase(phaseDraining)
	g.quietWatchdog()
	if g.control != nil {
		g.control.Passed()
	}
	limit := inPlaceLimit
	if d := g.Config.Agent.DrainTimeout; d > 0 {
		limit = d
	}
	turns, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	g.stopPolls()
	g.stopShared()
	runs := make(chan struct{})
	go func() {
		defer close(runs)
		if err := g.cron.Stop(turns); err != nil {
			g.Log.Warn("while restarting", "component", "cron", "err", err)
		}
	}()
	select {
	case <-g.lanes.Leave():
	case <-turns.Done():
	}
	<-runs
	if g.api == nil {
		return
	}
	g.api.CloseConnections()
	sleep(ctx, keptGrace)
	requests, cancelRequests := context.WithTimeout(ctx, settleLimit)
	defer cancelRequests()
	if err := g.api.Settle(requests); err != nil {
		g.Log.Warn("streams were still open at the limit; they are cut", "component", "api")
	}
	failpoint.Hit(failpoint.InPlaceDrained)
}

// Become makes this process go on as the program that a restart in place asked
// for. It returns nil when there was no such restart, and an error when neither
// that program nor this one could be executed. Run must have returned, and
// everything be closed.
func (g *Gateway) Become() error {
	g.handing.mu.Lock()
	held, program := g.handing.held, g.handing.program
	g.handing.mu.Unlock()
	switch {
	case held == nil && program == "":
		return nil
	case held == nil:
		return succession.BeginAnew(program, g.Args, g.Process)
	}
	return held.Become(program, g.Args, g.Process)
}
