// Package isolation lets one platform misbehave while people on all others talk
// to the real gateway, and measures how long those wait for their answers.
package isolation

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"hermes/internal/control"
	"hermes/internal/health"
	"hermes/testkit/faultproxy"
	"hermes/testkit/llm"
	"hermes/testkit/people"
	"hermes/testkit/rig"
)

// Cell is what one fault on one platform did to the others.
type Cell struct {
	Platform, Fault string
	Before, During  Times         // on the other platforms
	Worst           string        // the one that waited longest
	Shown           string        // how status showed the platform: its state and code
	Back            time.Duration // until it answered after the fault had ended; 0 where it was not waited for
}

// Times are waits for answers.
type Times struct {
	N        int
	P50, P99 time.Duration
	Lost     int // that did not come in time
}

func timesOf(waits []time.Duration, lost int) Times {
	if len(waits) == 0 {
		return Times{Lost: lost}
	}
	slices.Sort(waits)
	at := func(share float64) time.Duration { return waits[min(len(waits)-1, int(share*float64(len(waits))))] }
	return Times{N: len(waits), P50: at(0.5), P99: at(0.99), Lost: lost}
}

func (t Times) String() string {
	return fmt.Sprintf("%3d asked, p50 %4d ms, p99 %4d ms, %d lost", t.N+t.Lost, t.P50.Milliseconds(), t.P99.Milliseconds(), t.Lost)
}

func (c Cell) String() string {
	back := ""
	if c.Back > 0 {
		back = fmt.Sprintf(", answers again after %s", c.Back.Round(10*time.Millisecond))
	}
	return fmt.Sprintf("%-10s %-22s before: %s; during: %s (worst: %s); %s%s", c.Platform, c.Fault, c.Before, c.During, c.Worst, c.Shown, back)
}

// misbehaviour is one way for a platform to misbehave.
type misbehaviour struct {
	name string
	// settings are wrong from the start; nil for a fault that comes later.
	settings func(*people.Platform) people.Settings
	// begin lets it misbehave until ctx ends; undo, which may be nil, ends it.
	begin func(ctx context.Context, w *world, p *people.Platform) (undo func())
	last  bool          // nothing can follow it in the same life
	shows bool          // status must tell of it
	least time.Duration // of the measurement
}

func faults() []misbehaviour {
	return []misbehaviour{
		{name: "bad token", settings: (*people.Platform).WrongToken, shows: true},
		{name: "DNS failure", settings: (*people.Platform).NoSuchName, shows: true},
		{name: "TLS failure", settings: (*people.Platform).NoTLS, shows: true},
		{name: "cut every two seconds", begin: cutting, least: 2500 * time.Millisecond},
		{name: "slow reads", begin: func(_ context.Context, w *world, p *people.Platform) func() {
			w.each(p, func(l *faultproxy.Link) { l.Slow(400) })
			return func() { w.each(p, func(l *faultproxy.Link) { l.Slow(0) }) }
		}},
		{name: "black hole", last: true, begin: func(_ context.Context, w *world, p *people.Platform) func() {
			w.each(p, func(l *faultproxy.Link) { l.BlackHole(true) })
			return nil
		}},
		{name: "revoked token", last: true, shows: true, begin: func(_ context.Context, _ *world, p *people.Platform) func() {
			p.Revoke()
			return nil
		}},
		{name: "flood", last: true, begin: flooding},
	}
}

func cutting(ctx context.Context, w *world, p *people.Platform) func() {
	tick := time.NewTicker(2 * time.Second)
	w.work.Go(func() {
		defer tick.Stop()
		for {
			w.each(p, (*faultproxy.Link).Cut)
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return nil
}

// flooding has a hundred people say a thousand things a second.
func flooding(ctx context.Context, w *world, p *people.Platform) func() {
	crowd := make([]people.Person, 100)
	for i := range crowd {
		crowd[i] = p.Join()
	}
	const every = 10 * time.Millisecond
	tick := time.NewTicker(every)
	w.work.Go(func() {
		defer tick.Stop()
		began, said := time.Now(), 0
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				w.flood = float64(said) / time.Since(began).Seconds()
				return
			}
			var wave sync.WaitGroup
			for due := int(time.Since(began) / time.Millisecond); said < due && ctx.Err() == nil; said++ {
				n := said // which goes on while they speak
				wave.Go(func() { _ = crowd[n%len(crowd)].Say(ctx, fmt.Sprintf("flood f%d", n)) })
				if said%100 == 99 {
					wave.Wait()
				}
			}
			wave.Wait()
		}
	})
	return nil
}

// world is one home with all platforms, of which one is to misbehave.
type world struct {
	o         Options
	platforms []*people.Platform
	links     map[string][]*faultproxy.Link
	brain     *llm.Server
	home      *rig.Home
	flood     float64 // messages a second that a flood came to
	work      sync.WaitGroup
}

// Options bound a run.
type Options struct {
	Dir, Binary string
	Window      time.Duration // of each measurement
	Platforms   []string      // that misbehave, one after the other
	Logf        func(string, ...any)
}

// Run lets each platform misbehave in each way.
func Run(ctx context.Context, o Options) ([]Cell, error) {
	var out []Cell
	for _, victim := range o.Platforms {
		later := make([]misbehaviour, 0, len(faults()))
		for _, f := range faults() {
			if f.settings == nil {
				later = append(later, f)
				if !f.last {
					continue
				}
			} else {
				later = []misbehaviour{f}
			}
			cells, err := life(ctx, o, victim, later)
			out = append(out, cells...)
			if err != nil {
				return out, fmt.Errorf("%s, %s: %w", victim, f.name, err)
			}
			later = nil
		}
	}
	return out, nil
}

// life is one life of a gateway, with one fault after another.
func life(ctx context.Context, o Options, victim string, fs []misbehaviour) (cells []Cell, err error) {
	w, err := setUp(o, victim, fs[0].settings)
	if err != nil {
		return nil, err
	}
	defer w.close()
	p, err := w.home.Start()
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, p.Output())
		}
	}()
	if err := p.Ready(ctx); err != nil {
		return nil, err
	}
	sick := w.find(victim)
	wrong := fs[0].settings != nil
	if err := w.connected(ctx, victim, wrong); err != nil {
		return nil, err
	}
	for _, f := range fs {
		c := Cell{Platform: victim, Fault: f.name}
		if !wrong && len(cells) == 0 {
			c.Before, _ = w.measure(ctx, victim, o.Window)
		}
		during, end := context.WithCancel(ctx)
		var undo func()
		if f.begin != nil {
			undo = f.begin(during, w, sick)
		}
		if !wrong && f.name != "flood" {
			w.work.Go(func() { w.chatter(during, sick) })
		}
		c.During, c.Worst = w.measure(ctx, victim, max(o.Window, f.least))
		if f.shows && sick.OwnLife {
			if err := w.until(ctx, victim, func(p health.Part) bool { return p.State != health.OK }); err != nil {
				end()
				return cells, err
			}
		}
		c.Shown = w.part(ctx, victim)
		end()
		w.work.Wait()
		if f.name == "flood" {
			c.Shown += fmt.Sprintf(", %.0f messages a second", w.flood)
		}
		if undo != nil {
			undo()
		}
		if !f.last && !wrong {
			began := time.Now()
			if _, err := w.ask(ctx, sick, w.o.patience()); err != nil {
				return cells, fmt.Errorf("after %s it does not answer again: %w", f.name, err)
			}
			c.Back = time.Since(began)
		}
		o.Logf("%s", c)
		cells = append(cells, c)
	}
	return cells, nil
}

// patience bounds what must happen; nothing waits for it to pass.
func (o Options) patience() time.Duration { return 60*time.Second + o.Window }

func setUp(o Options, victim string, settings func(*people.Platform) people.Settings) (*world, error) {
	w := &world{o: o, links: map[string][]*faultproxy.Link{}}
	fail := func(err error) (*world, error) {
		w.close()
		return nil, err
	}
	var env, config strings.Builder
	for _, name := range people.Names() {
		p, err := people.New(name, people.Options{Through: func(addr string) (string, error) {
			l, err := faultproxy.NewLink(addr)
			if err != nil {
				return "", err
			}
			w.links[name] = append(w.links[name], l)
			return l.Addr(), nil
		}})
		if err != nil {
			return fail(err)
		}
		w.platforms = append(w.platforms, p)
		s := p.Settings
		if settings != nil && name == victim {
			s = settings(p)
		}
		env.WriteString(s.Env)
		if s.Config != "" {
			config.WriteString("  " + s.Config + "\n")
		}
	}
	var err error
	if w.brain, err = llm.Start(func(r llm.Request) llm.Reply { return llm.Reply{Text: "heard " + lastWord(r.LastUser())} }); err != nil {
		return fail(err)
	}
	w.home, err = rig.NewHome(filepath.Join(o.Dir, fmt.Sprintf("home-%d", time.Now().UnixNano())), o.Binary, fmt.Sprintf(
		"model: {default: fake, provider: custom, base_url: %q, api_key: key-of-the-model}\nstreaming: {enabled: false}\nsession_reset: {mode: none}\nplatforms:\n%s", w.brain.URL(), config.String()), env.String())
	if err != nil {
		return fail(err)
	}
	return w, nil
}

func lastWord(s string) string {
	f := strings.Fields(s)
	if len(f) == 0 {
		return ""
	}
	return f[len(f)-1]
}

func (w *world) close() {
	for _, links := range w.links {
		for _, l := range links {
			l.Close()
		}
	}
	for _, p := range w.platforms {
		p.Close()
	}
	if w.brain != nil {
		w.brain.Close()
	}
}

func (w *world) find(name string) *people.Platform {
	return w.platforms[slices.IndexFunc(w.platforms, func(p *people.Platform) bool { return p.Name == name })]
}

func (w *world) each(p *people.Platform, f func(*faultproxy.Link)) {
	for _, l := range w.links[p.Name] {
		f(l)
	}
}

// connected waits until every platform is well and has answered somebody, but
// one that cannot. What is said before the first connection is history to some
// platforms, and is not answered.
func (w *world) connected(ctx context.Context, victim string, sick bool) error {
	var well []*people.Platform
	for _, p := range w.platforms {
		if !sick || p.Name != victim {
			well = append(well, p)
		}
	}
	err := w.untilAll(ctx, func(parts map[string]health.Part) bool {
		return !slices.ContainsFunc(well, func(p *people.Platform) bool { return parts[p.Name].State != health.OK })
	})
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	errs := make([]error, len(well))
	for i, p := range well {
		all.Go(func() {
			if _, err := w.ask(ctx, p, w.o.patience()); err != nil {
				errs[i] = fmt.Errorf("%s never answers: %w", p.Name, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// ask has somebody new say something, and gives the wait for the answer.
func (w *world) ask(ctx context.Context, p *people.Platform, limit time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	who := p.Join()
	word := fmt.Sprintf("q%d", time.Now().UnixNano())
	began := time.Now()
	if err := who.Say(ctx, "tell me of "+word); err != nil {
		return 0, err
	}
	err := who.WaitFor(ctx, func(text string) bool { return strings.Contains(text, "heard "+word) })
	return time.Since(began), err
}

// pauseOf is the time between questions on a platform, so that its own rate
// limits do not count.
func pauseOf(name string) time.Duration {
	if name == "email" { // which sends two a second
		return 600 * time.Millisecond
	}
	return 200 * time.Millisecond
}

// chatter has people say things on a platform that misbehaves, and not wait.
func (w *world) chatter(ctx context.Context, p *people.Platform) {
	tick := time.NewTicker(pauseOf(p.Name))
	defer tick.Stop()
	for n := 0; ; n++ {
		_ = p.Join().Say(ctx, fmt.Sprintf("is anybody there? c%d", n)) // which may not arrive
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// measure asks on every platform but one for the length of a window.
func (w *world) measure(ctx context.Context, but string, window time.Duration) (Times, string) {
	var mu sync.Mutex
	var waits []time.Duration
	lost, worst, longest := 0, "", time.Duration(-1)
	var all sync.WaitGroup
	end := time.Now().Add(window)
	for _, p := range w.platforms {
		if p.Name == but {
			continue
		}
		tick := time.NewTicker(pauseOf(p.Name))
		defer tick.Stop()
		all.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				d, err := w.ask(ctx, p, w.o.patience())
				mu.Lock()
				if err != nil {
					w.o.Logf("%s: no answer within %s: %v", p.Name, w.o.patience(), err)
					lost++
				} else {
					waits = append(waits, d)
				}
				if d > longest {
					longest, worst = d, p.Name
				}
				mu.Unlock()
				<-tick.C
			}
		})
	}
	all.Wait()
	return timesOf(waits, lost), worst
}

// status is what the gateway says of each platform.
func (w *world) status(ctx context.Context) (map[string]health.Part, error) {
	out, _ := w.home.Command(ctx, "gateway", "status", "--json").Output() // whose exit code tells of the fault
	var s control.Status
	if err := json.Unmarshal(out, &s); err != nil {
		return nil, err
	}
	parts := map[string]health.Part{}
	for _, p := range s.Parts {
		if name, ok := strings.CutPrefix(p.Name, "platform."); ok {
			parts[name] = p
		}
	}
	return parts, nil
}

// until waits until status says something of a platform.
func (w *world) until(ctx context.Context, name string, ok func(health.Part) bool) error {
	return w.untilAll(ctx, func(parts map[string]health.Part) bool {
		part, known := parts[name]
		return known && ok(part)
	})
}

// untilAll waits until status says something of the platforms.
func (w *world) untilAll(ctx context.Context, ok func(map[string]health.Part) bool) error {
	ctx, cancel := context.WithTimeout(ctx, w.o.patience())
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		parts, err := w.status(ctx)
		if err == nil && ok(parts) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("status never says so: %+v, %w", parts, errors.Join(err, ctx.Err()))
		}
	}
}

func (w *world) part(ctx context.Context, name string) string {
	parts, err := w.status(ctx)
	if err != nil {
		return err.Error()
	}
	part := parts[name]
	return strings.TrimSpace("shown as " + string(part.State) + " " + part.Code)
}

// Sum gathers the waits of all cells by fault, for a short table.
func Sum(cells []Cell) string {
	var b strings.Builder
	worst := slices.MaxFunc(cells, func(x, y Cell) int { return cmp.Compare(x.During.P99, y.During.P99) })
	var before, during time.Duration
	n := 0
	for _, c := range cells {
		if c.Before.N > 0 {
			before = max(before, c.Before.P99)
		}
		during = max(during, c.During.P99)
		n += c.During.N
	}
	fmt.Fprintf(&b, "%d cells, %d answers while a platform misbehaved; worst p99 undisturbed %s, disturbed %s (%s, %s)", len(cells), n, before.Round(time.Millisecond), during.Round(time.Millisecond), worst.Platform, worst.Fault)
	return b.String()
}
