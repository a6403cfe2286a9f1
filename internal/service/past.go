package service

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hermes/internal/home"
	"hermes/internal/plain"
	"hermes/internal/starts"
)

// Past is what is known of the lives before now, each fact from evidence. A fact
// that cannot be learned says why.
type Past struct {
	Boot    Fact `json:"last_boot"`     // did it come up by itself
	Logout  Fact `json:"last_logout"`   // did it survive
	Restart Fact `json:"last_restart"`  // how long nobody served
	Config  Fact `json:"configuration"` // is the one that is served the one on disk
}

// Fact is one thing that is known, or is not.
type Fact struct {
	Known bool `json:"known"`
	// Good is the answer that an operator hopes for.
	Good bool      `json:"good"`
	At   time.Time `json:"at,omitzero"`
	// Seconds is how long it took, where that is the question.
	Seconds float64 `json:"seconds,omitempty"`
	Text    string  `json:"text"` // for people; of what is not known the reason
}

func unknown(format string, args ...any) Fact { return Fact{Text: fmt.Sprintf(format, args...)} }

// Past looks at what the machine and the record of starts remember of a
// profile's gateway. r is what Report found.
func (h Host) Past(ctx context.Context, p home.Profile, r Report) Past {
	record := starts.Read(p)
	lives, m := record.Starts, machine()
	past := Past{Boot: lastBoot(record, r, m), Restart: lastRestart(lives, r, m), Config: servedConfig(p, lives)}
	past.Logout = lastLogout(lives, r, m, h.lastSession(ctx))
	return past
}

// boot is this boot of the machine.
type boot struct {
	id string
	at time.Time // when its first process began; zero where that cannot be told
	// began is the same by the clock of systemd's timestamps.
	began time.Duration
}

// machine reads when PID 1 began: in a container that is the boot that counts,
// and else it is a second after the kernel's; proc_pid_stat(5), proc_stat(5).
func machine() boot {
	b := boot{id: starts.BootID()}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return b
	}
	one, err := os.ReadFile("/proc/1/stat")
	if err != nil {
		return b
	}
	_, rest, _ := strings.Cut(string(text), "\nbtime ")
	first, _, _ := strings.Cut(rest, "\n")
	kernel, err := strconv.ParseInt(first, 10, 64)
	f := strings.Fields(string(one[strings.LastIndexByte(string(one), ')')+1:]))
	if err != nil || len(f) < 20 {
		return b
	}
	ticks, err := strconv.ParseInt(f[19], 10, 64)
	if err != nil {
		return b
	}
	b.began = time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100
	b.at = time.Unix(kernel, 0).Add(b.began)
	return b
}

// bySelf is how long after its manager's start a unit that nobody started by
// hand has begun.
const bySelf = 90 * time.Second

// lastBoot tells whether the gateway came up with the machine, without a hand.
func lastBoot(record starts.Record, r Report, m boot) Fact {
	lives := record.Starts
	i := slices.IndexFunc(lives, func(s starts.Start) bool { return s.Boot == m.id && !s.Served.IsZero() })
	switch {
	case m.id == "" || m.at.IsZero():
		return unknown("not known: /proc does not tell when the machine was booted")
	case i < 0:
		return unknown("not known: no start of this boot is on record")
	case i == 0 && record.Full():
		return unknown("not known: there were too many starts since to remember the first of this boot")
	}
	first := lives[i]
	f := Fact{Known: true, At: first.Served, Seconds: first.Served.Sub(m.at).Seconds()}
	after := wordSpan(first.Served.Sub(m.at))
	switch {
	case first.Unit == "":
		f.Text = "started by hand, " + after + " after boot"
	case i == 0 && first.At.Sub(m.at) > bySelf:
		f.Text = "installed or started " + after + " after boot; no boot since is on record"
	case first.At.Sub(m.at) > bySelf:
		f.Text = "not up before " + after + " after boot: somebody logged in or started it"
	case r.Unit != nil && !strings.HasPrefix(r.Enabled, "enabled"):
		f.Text = fmt.Sprintf("up %s after boot, but %s is %s now", after, r.Name, r.Enabled)
	default:
		f.Good, f.Text = true, "up by itself, "+after+" after boot"
	}
	return f
}

// lastRestart tells how long nobody served when the process of now took over.
func lastRestart(lives []starts.Start, r Report, m boot) Fact {
	if len(lives) == 0 {
		return unknown("not known: no start is on record")
	}
	now := lives[len(lives)-1]
	if len(lives) == 1 || lives[len(lives)-2].Boot != now.Boot {
		return Fact{Known: true, Good: true, Text: "none since boot"}
	}
	before := lives[len(lives)-2]
	f := Fact{Known: true, At: now.Served}
	down := time.Duration(-1)
	how := "a restart"
	switch end := before.End; {
	case now.Served.IsZero():
		return unknown("not known: the last start does not serve yet")
	case now.Planned:
		f.Good, f.Text = true, "none: a hand-over at "+now.Served.Local().Format("2006-01-02 15:04:05")
		return f
	case end != nil && !end.At.IsZero():
		down = now.Served.Sub(end.At)
		if end.Death() || end.Cause == starts.Outside {
			how = "the end of PID " + strconv.Itoa(before.Process.PID)
		}
	case r.Unit != nil && r.ActiveExit > m.began && r.ActiveEnter > r.ActiveExit:
		down, how = r.ActiveEnter-r.ActiveExit, "the end of PID "+strconv.Itoa(before.Process.PID)
	}
	if down < 0 {
		return unknown("not known: nobody saw when PID %d ended", before.Process.PID)
	}
	f.Seconds, f.Good = down.Seconds(), down < 5*time.Second
	f.Text = fmt.Sprintf("%s at %s, after %s", wordSpan(down), now.Served.Local().Format("2006-01-02 15:04:05"), how)
	if r.Unit != nil && r.Type == string(Notify) {
		f.Text += "; connections waited"
	}
	return f
}

// servedConfig tells whether what is served is what stands on disk.
func servedConfig(p home.Profile, lives []starts.Start) Fact {
	if len(lives) == 0 || lives[len(lives)-1].Config == "" {
		return unknown("not known: no start is on record")
	}
	now := lives[len(lives)-1]
	disk, err := home.ReadFiles(p)
	switch {
	case err != nil:
		return Fact{Known: true, Text: "the one on disk cannot be read; served is the one that served healthily last"}
	case disk.Fingerprint() == now.Config:
		return Fact{Known: true, Good: true, Text: "served = on disk"}
	case now.Config != now.Disk:
		return Fact{Known: true, Text: "served is the one that served healthily last, not the one on disk"}
	}
	return Fact{Known: true, Text: fmt.Sprintf("the one on disk was changed since; `hermes%s gateway restart` brings it in force", profileFlag(p))}
}

// session is what is known of the user's login sessions.
type session struct {
	ended  time.Time // when the last one that ended did; zero where that cannot be told
	oldest time.Time // when the oldest that is open began; zero for none
	open   int
	err    string // why nothing is known
}

// lastLogout tells whether a life went on when a session ended.
func lastLogout(lives []starts.Start, r Report, m boot, s session) Fact {
	if s.err != "" {
		return unknown("not known: %s", s.err)
	}
	if s.ended.IsZero() {
		return loggedIn(lives, r, s)
	}
	f := Fact{Known: true, At: s.ended}
	at := s.ended.Local().Format("2006-01-02 15:04:05")
	for _, l := range slices.Backward(lives) {
		if l.At.After(s.ended) || l.Boot != m.id {
			continue
		}
		switch end := l.End; {
		case end == nil && l.Process.Alive(), end != nil && end.At.Sub(s.ended) > bySelf, handedOn(lives, l):
			f.Good, f.Text = true, "survived, "+at
		case end == nil, end.At.IsZero():
			return unknown("not known: nobody saw when PID %d ended, which ran then", l.Process.PID)
		case end.At.Before(s.ended):
			return unknown("not known: it did not run at the last logout (%s)", at)
		default:
			f.Text = "not survived: PID " + strconv.Itoa(l.Process.PID) + " ended with the session, " + at
		}
		return f
	}
	return unknown("not known: no start before the last logout (%s) is on record", at)
}

// handedOn tells whether a hand-over led from a life to the next within the record.
func handedOn(lives []starts.Start, l starts.Start) bool {
	i := slices.IndexFunc(lives, func(s starts.Start) bool { return s.ID == l.ID })
	return i+1 < len(lives) && lives[i+1].Planned
}

// loggedIn judges by the sessions that are open, where no end of one is known.
func loggedIn(lives []starts.Start, r Report, s session) Fact {
	if len(lives) == 0 {
		return unknown("not known: no start is on record")
	}
	since := lives[len(lives)-1].At
	if r.Unit != nil && !r.Since.IsZero() && r.Active == "active" && r.Since.Before(since) {
		since = r.Since
	}
	switch {
	case s.open > 0 && since.Before(s.oldest):
		return Fact{Known: true, Good: true, At: s.oldest, Text: "survived, as far as can be seen: it has run since " + since.Local().Format("2006-01-02 15:04:05") + ", longer than any session that is open"}
	case s.open > 0:
		return unknown("not known: nobody has logged out since it started, as far as can be seen")
	}
	return Fact{Known: true, Good: true, Text: "nobody is logged in, and it runs"}
}

// sessionStopped is logind's word for the end of a session; sd-messages.h,
// SD_MESSAGE_SESSION_STOP.
const sessionStopped = "3354939424b4456d9802ca8333ed424a"

// lastSession asks logind's files and, where this user may read it, the journal.
func (h Host) lastSession(ctx context.Context) session {
	var s session
	files, err := filepath.Glob("/run/systemd/sessions/*")
	if _, serr := os.Stat("/run/systemd/sessions"); err != nil || serr != nil {
		return session{err: "logind does not run here"}
	}
	for _, path := range files {
		text, err := plain.Read(path)
		if err != nil {
			continue // a socket of a session, or gone meanwhile
		}
		v := map[string]string{}
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				v[key] = value
			}
		}
		if v["UID"] != strconv.Itoa(h.Account.UID) || v["CLASS"] == "manager" {
			continue
		}
		usec, err := strconv.ParseInt(v["REALTIME"], 10, 64)
		if err != nil {
			continue
		}
		s.open++
		if at := time.UnixMicro(usec); s.oldest.IsZero() || at.Before(s.oldest) {
			s.oldest = at
		}
	}
	s.ended = sessionEnd(ctx, h.Account.Name)
	return s
}

// sessionEnd is when a session of the user ended last, zero where the journal
// does not tell.
func sessionEnd(ctx context.Context, account string) time.Time {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "journalctl", "--quiet", "--no-pager", "--lines=1", "--output=json", "--boot", "MESSAGE_ID="+sessionStopped, "USER_ID="+account)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return time.Time{}
	}
	var e struct {
		At string `json:"__REALTIME_TIMESTAMP"` // microseconds
	}
	if json.Unmarshal(out, &e) != nil {
		return time.Time{}
	}
	usec, err := strconv.ParseInt(e.At, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMicro(usec)
}

// wordSpan words a duration for people.
func wordSpan(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}
