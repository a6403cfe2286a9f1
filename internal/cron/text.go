package cron

import (
	"fmt"
	"strings"
	"time"

	"hermes/internal/cron/schedule"
)

// Text shows a job as a block of lines, for terminals and chats.
func (v View) Text() string {
	var b strings.Builder
	state := v.State
	if state == "scheduled" {
		state = "active"
	}
	fmt.Fprintf(&b, "%s [%s]\n", v.ID, state)
	line := func(label, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-10s %s\n", label+":", value)
		}
	}
	line("Name", v.Name)
	line("Schedule", v.ScheduleDisplay+" — "+v.ScheduleWords)
	line("Repeat", v.Repeat.text())
	line("Next run", v.nextText())
	if v.PausedReason != nil {
		line("Paused", *v.PausedReason)
	}
	line("Deliver", v.Deliver)
	line("Alerts", v.FailureDeliver)
	line("Skills", strings.Join(v.Skills, ", "))
	line("Script", deref(v.Script))
	if v.NoAgent {
		line("Mode", "no-agent")
	}
	line("Model", strings.Trim(deref(v.Provider)+" "+deref(v.Model), " "))
	line("Workdir", deref(v.Workdir))
	line("Archive", v.Archive)
	if v.LastRunAt != nil {
		last := *v.LastRunAt + " " + v.LastRunState
		if v.LastError != nil {
			first, _, _ := strings.Cut(*v.LastError, "\n")
			last += ": " + first
		}
		line("Last run", last)
		line("Delivery", v.deliveryText())
	}
	if v.LastDeliveryError != nil {
		line("⚠ Delivery failed", *v.LastDeliveryError)
	}
	if len(v.Duplicates) > 0 {
		line("⚠ Looks like", strings.Join(v.Duplicates, ", "))
	}
	return b.String()
}

func (r RepeatView) text() string {
	if r.Times == nil {
		return "∞"
	}
	return fmt.Sprintf("%d/%d", r.Completed, *r.Times)
}

// nextText is the next firing by both clocks.
func (v View) nextText() string {
	if v.NextRunAt == nil || v.NextRunUTC == nil {
		return "none"
	}
	next, err := time.Parse(time.RFC3339, *v.NextRunAt)
	if err != nil {
		return *v.NextRunAt
	}
	return bothClocks(next, v.Zone)
}

// bothClocks shows an instant in a zone and in UTC.
func bothClocks(t time.Time, zone string) string {
	local := t.Format("Mon 2006-01-02 15:04:05 -07:00")
	if zone == "UTC" {
		return t.UTC().Format("Mon 2006-01-02 15:04:05") + " UTC"
	}
	return local + " " + zone + " = " + t.UTC().Format("2006-01-02 15:04:05") + " UTC"
}

// deliveryText is the fate of the last run's messages.
func (v View) deliveryText() string {
	text := orDefault(v.LastDelivery, "nothing to deliver")
	if v.LastDelivered != nil {
		text += " " + *v.LastDelivered
	}
	if v.DeliveryLate != "" {
		text += " (late by " + v.DeliveryLate + ")"
	}
	return text
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// Text says what was created or changed, what it means, and when it fires.
func (e Explained) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Job '%s' (%s): %s.\n", e.Job.Name, e.Job.ID, e.Words)
	if e.Job.State == "paused" {
		b.WriteString("It is paused and does not fire until it is resumed. It would fire at:\n")
	} else {
		b.WriteString("It fires at:\n")
	}
	for _, t := range e.Next {
		fmt.Fprintf(&b, "  %s\n", bothClocks(t, e.Job.Zone))
	}
	if len(e.Next) == 0 {
		b.WriteString("  never again\n")
	}
	if e.Job.Schedule.Kind == string(schedule.Once) {
		fmt.Fprintf(&b, "This is once. To repeat it, write for example \"every 30m\" in place of %q.\n", e.Job.ScheduleText)
	}
	fmt.Fprintf(&b, "Result: delivered to %s.\n", e.Job.Deliver)
	if len(e.Advice) > 0 {
		b.WriteString("Advice (the job stands as it is):\n")
		for _, a := range e.Advice {
			fmt.Fprintf(&b, "  - %s\n", a)
		}
	}
	return b.String()
}

// Text says whether jobs fire.
func (st Status) Text(now time.Time) string {
	var b strings.Builder
	switch {
	case st.Stalled:
		fmt.Fprintf(&b, "✗ STALLED: a scheduler holds the lease, but it last looked %s ago. Restart the gateway: `hermes gateway restart`\n", now.Sub(st.Heartbeat).Round(time.Second))
	case st.Running:
		fmt.Fprintf(&b, "✓ A scheduler runs (%s); cron jobs will fire automatically.\n", st.Who)
	default:
		fmt.Fprintf(&b, "⚠ %s\n", st.Who)
	}
	if !st.Heartbeat.IsZero() {
		fmt.Fprintf(&b, "Last looked: %s ago\n", now.Sub(st.Heartbeat).Round(time.Second))
	}
	if st.Failure != "" {
		fmt.Fprintf(&b, "✗ The last look failed: %s\n", st.Failure)
	}
	if st.Behind > 0 {
		fmt.Fprintf(&b, "✗ Behind: '%s' was due %s ago and has not been fired\n", st.NextName, (time.Duration(st.Behind) * time.Second).String())
	}
	fmt.Fprintf(&b, "%d active job(s)\n", st.Active)
	if !st.Next.IsZero() {
		fmt.Fprintf(&b, "Next run: %s — %s\n", bothClocks(st.Next.UTC(), "UTC"), st.NextName)
	}
	if len(st.Failing) > 0 {
		fmt.Fprintf(&b, "⚠ The last run failed of: %s\n", strings.Join(st.Failing, ", "))
	}
	for _, u := range st.Undelivered {
		fmt.Fprintf(&b, "⚠ Not delivered: %s\n", u)
	}
	return b.String()
}
