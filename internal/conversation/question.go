package conversation

import (
	"fmt"
	"strings"
	"time"

	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/ledger"
)

// withExpiry sets until when a question may be answered.
func (l *Lanes) withExpiry(q domain.Question) domain.Question {
	ttl := l.Config.Approvals.Timeout
	if q.Kind == domain.AskClarify {
		ttl = l.Config.Agent.QuestionTTL
	}
	if ttl > 0 {
		q.ExpiresAt = l.Now().Add(ttl)
	}
	return q
}

// nudgeExpiry makes the slow loop look at the next expiry again.
func (l *Lanes) nudgeExpiry() {
	select {
	case l.expiry <- struct{}{}:
	default:
	}
}

// planQuestion words a question for its chat. A session has one open question
// at most, so the buttons need not name it.
func (l *Lanes) planQuestion(c ledger.Claim, q domain.Question, preview string) []domain.NewDelivery {
	o := delivery.PlanOptions{Edit: preview, Commands: l.spoken()}
	var b strings.Builder
	if q.Kind == domain.AskApproval {
		fmt.Fprintf(&b, "🔐 **%s**", q.Text)
		if q.Detail != "" {
			fmt.Fprintf(&b, "\n\n```\n%s\n```", strings.ReplaceAll(q.Detail, "```", "'''"))
		}
		b.WriteString("\n\nAnswer with /approve, /approve session, /approve always or /deny.")
		if t := l.Config.Approvals.Timeout; t > 0 {
			fmt.Fprintf(&b, " Without an answer it is refused after %s.", short(t))
		}
		o.Buttons = []domain.Button{
			{Label: "Once", Command: "/approve once"}, {Label: "This session", Command: "/approve session"},
			{Label: "Always", Command: "/approve always"}, {Label: "Deny", Command: "/deny"},
		}
	} else {
		fmt.Fprintf(&b, "❓ %s", q.Text)
		for i, choice := range q.Choices {
			fmt.Fprintf(&b, "\n%d. %s", i+1, choice)
			o.Buttons = append(o.Buttons, domain.Button{Label: cutLabel(choice), Command: fmt.Sprintf("/answer %d", i+1)})
		}
		if len(q.Choices) > 0 {
			b.WriteString("\n\nPress one, or answer in your own words.")
		}
	}
	return l.Outbox.Plan(c.Turn.Source.Address, "question", b.String(), o)
}

func cutLabel(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:39]) + "…"
	}
	return s
}

// short words a duration without its zero parts.
func short(d time.Duration) string {
	s := d.Round(time.Second).String()
	s = strings.TrimSuffix(s, "0s")
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	if s == "" {
		return "0s"
	}
	return s
}

// plainAnswer tells whether a message that is no command answers a question,
// and as what: any text answers a clarification, yes and no an approval.
func plainAnswer(q domain.Question, text string) (answer string, ok bool) {
	text = strings.TrimSpace(text)
	if q.Kind == domain.AskClarify {
		return pickChoice(q, text), true
	}
	switch strings.ToLower(strings.TrimRight(text, ".!")) {
	case "yes", "y", "ok", "okay", "approve", "approved", "go", "do it", "once", "ja", "oui", "si", "sí":
		return domain.ApproveOnce, true
	case "no", "n", "deny", "denied", "stop", "nein", "non":
		return domain.ApproveDeny, true
	case "always":
		return domain.ApproveAlways, true
	case "session":
		return domain.ApproveSession, true
	}
	return "", false
}

// pickChoice turns "2" into the second choice.
func pickChoice(q domain.Question, text string) string {
	var n int
	if _, err := fmt.Sscanf(text, "%d", &n); err == nil && fmt.Sprint(n) == text && n >= 1 && n <= len(q.Choices) {
		return q.Choices[n-1]
	}
	return text
}
