package machine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/testkit/llm"
	"hermes/testkit/machine/agent"
	"hermes/testkit/torture"
)

// Outage is what a run of power cuts found.
type Outage struct {
	torture.Counts
	Disk     DiskStats
	Jobs     int // that the program said it had taken
	Settings int // likewise
	Broken   []string
}

// String is the table of counts.
func (o Outage) String() string {
	return o.Counts.String() + fmt.Sprintf("jobs accepted %d, settings accepted %d\ndisk: %d writes, %d flushes; writes that the cuts took: %d whole, %d in part; let through unasked: %d\nbroken promises %d\n",
		o.Jobs, o.Settings, o.Disk.Writes, o.Disk.Flushes, o.Disk.Lost, o.Disk.Torn, o.Disk.Kept, len(o.Broken))
}

// The instants of a cut that are not the platform's.
const (
	atBoot  = "a write since the boot"
	atWork  = "a write while people talk"
	atModel = "model.before"
	atRest  = "everything answered"
)

// outage is one run.
type outage struct {
	*World
	witness *torture.Witness
	rng     *rand.Rand
	trap    trap
	ends    string // the instant at which this life ends
	said    []torture.Message
	born    map[string]int    // by message: the cuts before it
	jobs    map[string]string // accepted, by name: the instant at which it was made
	setting int               // the last that was asked for
	least   int               // the last that was accepted
	out     Outage
}

// CutPower lets people talk to the gateway, cuts the machine's power n times, and
// counts what was lost, done twice or repeated.
func (k *Kit) CutPower(ctx context.Context, dir string, n int, seed uint64) (Outage, error) {
	o := &outage{rng: rand.New(rand.NewPCG(seed, 1)), jobs: map[string]string{}, born: map[string]int{}, out: Outage{Counts: torture.Counts{ByPoint: map[string]int{}}}}
	o.witness = torture.NewWitness(func(id string) string { return o.Words.Leave(id) })
	think := func(r llm.Request) llm.Reply {
		o.trap.meet(atModel)
		return o.witness.Think(r)
	}
	var err error
	if o.World, err = k.NewWorld(ctx, think, seed, map[string]string{"hermes/scripts/README": "jobs of the test\n"}); err != nil {
		return o.out, err
	}
	defer o.Close()
	for i := range n {
		if err := o.live(ctx); err != nil {
			return o.out, fmt.Errorf("life %d (%s): %w", i+1, o.ends, err)
		}
	}
	err = o.last(ctx, dir)
	o.out.Disk = o.Disk.Stats()
	return o.out, err
}

// trap catches the instant at which a life ends.
type trap struct {
	mu     sync.Mutex
	point  string
	caught chan struct{} // has a value when the instant has come
	gone   chan struct{} // closed when the power is gone
}

// set arms the trap for one life; release must be called when the power is gone.
func (t *trap) set(point string) (caught <-chan struct{}, release func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.point, t.caught, t.gone = point, make(chan struct{}, 1), make(chan struct{})
	gone := t.gone
	return t.caught, sync.OnceFunc(func() { close(gone) })
}

// meet is told of every instant that the fakes see. At the one that this life
// ends at, what happens waits until the power is gone.
func (t *trap) meet(point string) {
	t.mu.Lock()
	met, caught, gone := point == t.point, t.caught, t.gone
	t.mu.Unlock()
	if !met {
		return
	}
	select {
	case caught <- struct{}{}:
		<-gone
	default: // it was met before in this life
	}
}

// live is one life of the machine: people talk, jobs and settings are made, and
// at an instant that chance picks the power goes.
func (o *outage) live(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	points := append([]string{atBoot, atWork, atWork, atWork, atModel, atRest}, o.Telegram.Points()...)
	o.ends = points[o.rng.IntN(len(points))]
	if o.worn() {
		o.ends = atRest
	}
	caught, release := o.trap.set(o.ends)
	defer release()
	fresh := o.speech()
	if o.rng.IntN(2) == 0 {
		if err := say(ctx, fresh); err != nil {
			return err
		}
		fresh = nil
	}
	l, err := o.Boot(ctx, time.Time{})
	if err != nil {
		return err
	}
	defer l.Cut()
	polled := make(chan struct{}, 1)
	o.Telegram.Watch(func(point string) {
		if point == "poll.before" {
			select {
			case polled <- struct{}{}:
			default:
			}
		}
		o.trap.meet(point)
	})
	defer o.Telegram.Watch(nil)
	var off <-chan struct{} // the disk's power is gone
	if o.ends == atBoot {
		off = o.Disk.Arm(1 + o.rng.IntN(120))
	}
	started := make(chan error, 1)
	go func() { started <- l.Serve(ctx) }()
	select {
	case <-polled:
		if err := <-started; err != nil {
			return err
		}
		return o.work(ctx, l, caught, off, fresh)
	case <-off:
	case <-caught:
	case <-ctx.Done():
		return fmt.Errorf("the gateway never polls: %w\n%s", ctx.Err(), l.Console())
	}
	o.end(l)
	return say(ctx, fresh) // to one who is gone
}

// work is the part of a life in which the gateway serves.
func (o *outage) work(ctx context.Context, l *Life, caught, off <-chan struct{}, fresh []torture.Message) error {
	if o.ends == atWork {
		off = o.Disk.Arm(1 + o.rng.IntN(60))
	}
	if err := say(ctx, fresh); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var aside sync.WaitGroup
	defer aside.Wait()
	defer stop()
	quiet := make(chan struct{}) // all is answered, and what was asked for is done
	asked := make(chan struct{})
	aside.Go(func() {
		defer close(asked)
		o.order(ctx, l)
	})
	aside.Go(func() {
		for _, m := range o.said {
			if m.From.WaitFor(ctx, m.Answered) != nil {
				return
			}
		}
		<-asked
		close(quiet)
	})
	select {
	case <-off:
	case <-caught:
	case <-quiet:
		o.ends = atRest
	case <-ctx.Done():
		o.unanswered()
		return fmt.Errorf("neither cut nor answered: %w\n%s", ctx.Err(), l.Console())
	}
	o.end(l)
	return nil
}

// end cuts the power and looks at what the machine had said before that.
func (o *outage) end(l *Life) {
	said := l.Complaint()
	if o.rng.IntN(2) == 0 {
		l.Cut()
	} else {
		// The other side learns nothing until a while after the next boot.
		bury := l.CutSilently()
		defer time.AfterFunc(5*time.Second, bury)
	}
	o.out.Kills++
	o.out.ByPoint[o.ends]++
	if said != "" {
		o.out.Broken = append(o.out.Broken, fmt.Sprintf("in life %d the machine complained: %s", o.out.Kills, said))
	}
}

// mostCuts is how many cuts a message may live through unanswered. A turn is given
// up, and that said, when the gateway died six times in it; here all must be answered.
const mostCuts = 4

// worn tells whether a message has seen so many cuts that the next must wait.
func (o *outage) worn() bool {
	return slices.ContainsFunc(o.said, func(m torture.Message) bool {
		return o.out.Kills-o.born[m.ID] >= mostCuts && !slices.ContainsFunc(m.From.Heard(), m.Answered)
	})
}

// unanswered counts what nobody answered in a life that was long enough.
func (o *outage) unanswered() {
	for _, m := range o.said {
		if !slices.ContainsFunc(m.From.Heard(), m.Answered) {
			o.out.Lost = append(o.out.Lost, m.ID)
		}
	}
}

// speech is what new people will say.
func (o *outage) speech() []torture.Message {
	var fresh []torture.Message
	for range 1 + o.rng.IntN(3) {
		fresh = append(fresh, torture.Message{ID: fmt.Sprintf("m%d", len(o.said)+len(fresh)+1), Tool: o.rng.IntN(4) > 0, From: o.Telegram.Join()})
	}
	for _, m := range fresh {
		o.born[m.ID] = o.out.Kills
	}
	o.said = append(o.said, fresh...)
	return fresh
}

func say(ctx context.Context, list []torture.Message) error {
	for _, m := range list {
		if err := m.From.Say(ctx, m.Text()); err != nil {
			return err
		}
	}
	return nil
}

// order makes a job and changes a setting by the command line. What the program
// said that it did must be there after every cut.
func (o *outage) order(ctx context.Context, l *Life) {
	o.setting++
	if _, err := l.Hermes(ctx, "config", "set", "agent.max_turns", fmt.Sprint(20+o.setting)); err == nil {
		o.least = o.setting
		o.out.Settings++
	}
	name := fmt.Sprintf("j%d", o.setting)
	script := "#!/bin/sh\n" + o.Words.Leave(name) + "\n"
	if l.Write(ctx, home+"/scripts/"+name+".sh", []byte(script), true) != nil {
		return
	}
	at := time.Now().UTC().Add(time.Duration(1+o.rng.IntN(3)) * time.Second).Truncate(time.Second).Format(time.RFC3339)
	if _, err := l.Hermes(ctx, "cron", "create", at, "--no-agent", "--script", name+".sh", "--deliver", "local", "--name", name); err == nil {
		o.jobs[name] = at
		o.out.Jobs++
	}
}

// last is the life that is not cut: everything must come to its end in it.
func (o *outage) last(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	o.ends = "the last life"
	l, err := o.Boot(ctx, time.Time{})
	if err != nil {
		return err
	}
	defer l.Cut()
	if err := l.Serve(ctx); err != nil {
		return err
	}
	for _, m := range o.said {
		if err := m.From.WaitFor(ctx, m.Answered); err != nil {
			o.unanswered()
			return fmt.Errorf("%s was not answered: %w\nheard: %q\n%s", m.ID, err, m.From.Heard(), l.Console())
		}
	}
	if _, err := l.Hermes(ctx, "cron", "status"); err != nil {
		o.out.Broken = append(o.out.Broken, err.Error())
	}
	if err := o.settings(ctx, l); err != nil {
		return err
	}
	if err := l.Leave(ctx); err != nil {
		return err
	}
	for _, m := range o.said {
		o.witness.Judge(&o.out.Counts, m, o.Words.Count(m.ID), "power cut", o.Telegram.MayRepeat)
	}
	if said := l.Complaint(); said != "" {
		o.out.Broken = append(o.out.Broken, "in the last life the machine complained: "+said)
	}
	return o.ledger(ctx, l, dir)
}

// settings checks that what was set is still set, and that the files are whole.
func (o *outage) settings(ctx context.Context, l *Life) error {
	if _, err := l.Hermes(ctx, "config", "check"); err != nil {
		o.out.Broken = append(o.out.Broken, err.Error())
	}
	text, err := l.File(ctx, home+"/config.yaml")
	if err != nil {
		return err
	}
	got := 0
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "max_turns: "); ok {
			if _, err := fmt.Sscan(v, &got); err != nil {
				return err
			}
			got -= 20
		}
	}
	if got < o.least || got > o.setting {
		o.out.Broken = append(o.out.Broken, fmt.Sprintf("the setting is that of life %d; those of %d to %d may be there", got, o.least, o.setting))
	}
	r, err := l.Run(ctx, agent.Command{Args: []string{"/bin/ls", home}, Most: time.Minute})
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(r.Output) {
		if strings.Contains(name, "damaged") || strings.Contains(name, ".salvage") || strings.Contains(name, "corrupt") {
			o.out.Broken = append(o.out.Broken, "there is "+name+" in the home")
		}
	}
	return nil
}

// ledger holds the ledger that the machine leaves to the promise about jobs.
func (o *outage) ledger(ctx context.Context, l *Life, dir string) error {
	store, err := l.Ledger(ctx, dir)
	if err != nil {
		return err
	}
	defer store.Close()
	jobs, err := store.ListJobs(ctx, ledger.JobFilter{Limit: 1000})
	if err != nil {
		return err
	}
	broken := func(format string, args ...any) { o.out.Broken = append(o.out.Broken, fmt.Sprintf(format, args...)) }
	for name, at := range o.jobs {
		i := slices.IndexFunc(jobs, func(j domain.Job) bool { return j.Name == name })
		if i < 0 {
			broken("the job %s was accepted and is not there", name)
			continue
		}
		runs, err := store.Runs(ctx, ledger.RunFilter{Job: jobs[i].ID, Limit: 10})
		if err != nil {
			return err
		}
		did := o.Words.Count(name)
		switch {
		case len(runs) != 1:
			broken("the job %s, due at %s, has %d runs", name, at, len(runs))
		case runs[0].State == domain.RunSilent && did != 1:
			broken("the job %s ran well, but its work was done %d times", name, did)
		case runs[0].State != domain.RunSilent && runs[0].State != domain.RunInterrupted || did > 1:
			broken("the run of the job %s is %s (%s), its work was done %d times", name, runs[0].State, runs[0].Error, did)
		}
	}
	return nil
}
