package email

import (
	"context"
	netmail "net/mail"
	"strings"

	"hermes/internal/platform"
)

// maxReport is how many bytes are read of each part of a mail server's report.
const maxReport = 16 << 10

// returned is a mail of ours that a server took and could not deliver after all.
type returned struct {
	id, to, reason string
}

// isReport tells whether a mail is a report of a mail server
// (https://www.rfc-editor.org/rfc/rfc6522).
func (m *letter) isReport() bool {
	return strings.HasPrefix(strings.ToLower(strings.TrimSpace(m.header.Get("Content-Type"))), "multipart/report")
}

// comesBack reads a report that a mail of ours could not be delivered
// (https://www.rfc-editor.org/rfc/rfc3464). Of a report only that counts: that the
// mail is late, or was read, is said by others.
func (a *Adapter) comesBack(m letter) (r returned, ok bool) {
	original := readHeader([]byte(m.original))
	ids := original.ids("Message-Id")
	to, err := netmail.ParseAddress(original.Get("To"))
	if !m.isReport() || len(ids) != 1 || !a.isOurID(ids[0]) || err != nil {
		return r, false
	}
	for group := range strings.SplitSeq(m.status, "\n\n") {
		h := readHeader([]byte(group + "\n\n"))
		if !strings.EqualFold(strings.TrimSpace(h.Get("Action")), "failed") {
			continue
		}
		why := h.Get("Diagnostic-Code")
		if kind, text, found := strings.Cut(why, ";"); found && strings.EqualFold(strings.TrimSpace(kind), "smtp") {
			why = text
		}
		if why = oneLine(why); why == "" {
			why = "status " + oneLine(h.Get("Status"))
		}
		return returned{ids[0], to.Address, "the mail came back: " + a.scrub(clip(why, 300))}, true
	}
	return r, false
}

// takeBack tells the sink of the mails that came back, and gives those of which
// it could not be told.
func (r *receiver) takeBack(ctx context.Context, list []returned) (left []returned) {
	sink, ok := r.intake.Sink.(platform.Returner)
	if !ok {
		return nil
	}
	for _, b := range list {
		r.a.sends.forget(b.id) // it may be sent again
		if err := sink.Returned(ctx, b.to, b.id, b.reason); err != nil {
			r.a.log.Error("it cannot be recorded that a mail came back", "to", b.to, "message_id", b.id, "reason", b.reason, "err", err)
			left = append(left, b)
		}
	}
	return left
}
