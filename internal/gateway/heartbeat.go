package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

// The pace of the heartbeat, for a watcher outside of the machine.
const (
	beatEvery = time.Minute
	beatLimit = 10 * time.Second
)

// heartbeat asks for an address once a minute while all is well: what the
// watcher misses is the alarm.
type heartbeat struct {
	address string
	client  *http.Client
	well    func(context.Context) bool
	log     *slog.Logger
}

// beat keeps the heartbeat up while this process serves. Where no address is set
// it costs nothing.
func (g *Gateway) beat(ctx context.Context) {
	if !g.Config.Heartbeat.IsSet() || g.CronOnly {
		return
	}
	heartbeat{
		address: g.Config.Heartbeat.Reveal(), log: g.Log,
		client: &http.Client{Timeout: beatLimit, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}},
		well:   func(ctx context.Context) bool { return g.owns() && g.Status(ctx).Healthy },
	}.run(ctx)
}

// run beats until ctx ends. A watcher that cannot be reached changes nothing
// here, and is told of once.
func (h heartbeat) run(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	told := false // that the watcher does not answer
	for {
		if h.well(ctx) {
			err := h.once(ctx)
			if err != nil && !told && ctx.Err() == nil {
				h.log.Warn("the heartbeat did not get through to HERMES_HEARTBEAT_URL; the watcher will raise an alarm", "component", "gateway", "err", err)
			} else if err == nil && told {
				h.log.Info("the heartbeat gets through again", "component", "gateway")
			}
			told = err != nil
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// once makes one request. Its errors do not name the address.
func (h heartbeat) once(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.address, nil)
	if err != nil {
		return errors.New("the address cannot be used")
	}
	res, err := h.client.Do(req)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err
		}
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)); err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("it answered %s", res.Status)
	}
	return nil
}
