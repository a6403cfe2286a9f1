package service

import (
	"testing"
	"time"

	"hermes/internal/starts"
)

func TestLimitOf(t *testing.T) {
	show := func(restart, burst, span, delay, prevent string) Unit {
		return parseShow("Id=x.service\nRestart=" + restart + "\nStartLimitBurst=" + burst + "\nStartLimitIntervalUSec=" + span + "\nRestartUSec=" + delay + "\nRestartPreventExitStatus=" + prevent + "\n")
	}
	for _, c := range []struct {
		name      string
		unit      Unit
		want      starts.Limit
		effective bool
	}{
		{"generated", show("always", "5", "10min", "1s", "78"), starts.Limit{Known: true, Managed: true, Burst: 5, Span: 10 * time.Minute, Delay: time.Second, Stops: true}, true},
		{"the template", show("always", "3", "1min", "10s", ""), starts.Limit{Known: true, Managed: true, Burst: 3, Span: time.Minute, Delay: 10 * time.Second}, true},
		{"guardrails", show("on-failure", "5", "10min", "10s", "78"), starts.Limit{Known: true, Managed: true, Burst: 5, Span: 10 * time.Minute, Delay: 10 * time.Second, Stops: true}, true},
		{"systemd's default with a long delay", show("always", "5", "10s", "30s", ""), starts.Limit{Known: true, Managed: true, Burst: 5, Span: 10 * time.Second, Delay: 30 * time.Second}, false},
		{"no limit", show("always", "0", "0", "1s", ""), starts.Limit{Known: true, Managed: true, Delay: time.Second}, false},
		{"never restarted", show("no", "5", "10s", "100ms", ""), starts.Limit{Known: true, Burst: 1, Span: time.Minute, Delay: 100 * time.Millisecond}, true},
	} {
		if got := LimitOf(c.unit); got != c.want || got.Effective() != c.effective {
			t.Errorf("%s: %+v, effective %v", c.name, got, got.Effective())
		}
	}
}

// What no unit runs has no limit, and nobody who starts it again.
func TestOwnLimitOutsideOfUnits(t *testing.T) {
	if l := OwnLimit(t.Context(), func(string) string { return "" }); !l.Known || l.Managed || l.Effective() {
		t.Errorf("%+v", l)
	}
}

// What a unit said in an earlier trouble is not quoted for the present one.
func TestTailSpan(t *testing.T) {
	for _, c := range []struct{ enter, up, want time.Duration }{
		{0, time.Hour, tailSpan},
		{time.Hour - time.Minute, time.Hour, time.Minute + time.Second},
		{time.Minute, time.Hour, tailSpan},
		{time.Hour, 0, tailSpan}, // nobody knows how long the machine is up
	} {
		if got := tailSpanOf(Unit{ActiveEnter: c.enter}, c.up); got != c.want {
			t.Errorf("active since %s, up %s: %s, not %s", c.enter, c.up, got, c.want)
		}
	}
}
