package email

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/intake"
	"hermes/internal/platform/reconnect"
)

const (
	batchSize  = 20     // mails that are read and committed at once
	maxBacklog = 10_000 // mails that are read after a time without a connection
	rereadBack = 3 * 24 * time.Hour
)

// position is how far a mailbox is read. UIDs ascend as long as the mailbox has
// the same UIDVALIDITY (https://www.rfc-editor.org/rfc/rfc9051#section-2.3.1.1);
// when it has another, all mail since a few days before the newest that was seen
// is read again, and the ledger knows by its Message-ID what it has had.
type position struct {
	Validity uint32   `json:"v"`
	UID      imap.UID `json:"uid"`
	From     int64    `json:"from"` // Unix seconds of the first connection: older mail is not ours to answer
	Seen     int64    `json:"seen"` // Unix seconds at which the newest mail that was read had arrived
	// Old is when the newest mail of before the first connection had arrived, in
	// Unix seconds of the server's clock.
	Old int64 `json:"old,omitempty"`
	// Again is the last UID of those that were there when the mailbox was found
	// numbered anew: of them, what arrived before From or Old is not ours to answer.
	Again imap.UID `json:"again,omitempty"`
}

func parsePosition(text string) (position, bool) {
	var p position
	err := json.Unmarshal([]byte(text), &p)
	return p, err == nil && p.Validity != 0
}

func (p position) String() string {
	b, _ := json.Marshal(p) // numbers only
	return string(b)
}

// receiver is one Run: it keeps a connection and commits what comes. It belongs
// to one goroutine.
type receiver struct {
	a      *Adapter
	sink   platform.Sink
	intake intake.Intake
	line   reconnect.Line

	at      position
	known   bool // at is the stored position
	skipped int
	spoiled map[spoiledMail]bool // mails at which we panicked
}

type spoiledMail struct {
	validity uint32
	uid      imap.UID
}

// session is one connection, from its login to its loss.
func (r *receiver) session(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	c, e := r.a.dialIMAP(ctx, changed)
	if e != nil {
		return e
	}
	defer c.end()
	box, err := c.open(r.a.cfg.Mailbox, false)
	if err != nil {
		return r.a.noMailbox(err)
	}
	if err := r.start(ctx, c, box); err != nil {
		return err
	}
	pushes := c.Caps().Has(imap.CapIdle)
	for first := true; ; first = false {
		if err := r.catchUp(ctx, c, box); err != nil {
			return err
		}
		if first {
			r.alive(pushes)
		} else {
			r.a.health.OK()
		}
		if err := r.await(ctx, c, pushes, changed); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (a *Adapter) noMailbox(err error) *platform.Error {
	var said *imap.Error
	if errors.As(err, &said) && said.Type == imap.StatusResponseTypeNo {
		return &platform.Error{Kind: platform.Retry, Code: "email_mailbox", Reason: "the mailbox " + a.cfg.Mailbox + " cannot be opened (" + a.scrub(clip(clean(said.Text), 200)) + "): check EMAIL_MAILBOX"}
	}
	return a.unreachable("IMAP", err)
}

// start finds out, once, how far the mailbox is read. What was there before the
// first connection ever is left alone.
func (r *receiver) start(ctx context.Context, c *imapConn, box *imap.SelectData) error {
	if box.UIDValidity == 0 {
		return &platform.Error{Kind: platform.Retry, Code: "email_uids", Reason: "the IMAP server keeps no UIDs in " + r.a.cfg.Mailbox + ", so mail could be answered twice: choose another mailbox (EMAIL_MAILBOX)"}
	}
	if r.known {
		return nil
	}
	text, err := r.sink.Cursor(ctx, r.a.cfg.Address)
	if err != nil {
		return err
	}
	at, ok := parsePosition(text)
	if !ok {
		now := r.a.now().Unix()
		at = position{Validity: box.UIDValidity, UID: max(box.UIDNext, 1) - 1, From: now, Seen: now}
		old, err := c.newest(box.NumMessages)
		if err != nil {
			return r.a.unreachable("IMAP", err)
		}
		at.Old = min(old, now+60) // some mails are of the future
		if err := r.accept(ctx, nil, at); err != nil {
			return err
		}
	}
	r.at, r.known = at, true
	return nil
}

// catchUp reads and commits what has come since the stored position.
func (r *receiver) catchUp(ctx context.Context, c *imapConn, box *imap.SelectData) error {
	after := r.at.UID
	criteria := &imap.SearchCriteria{}
	again := box.UIDValidity != r.at.Validity
	if again {
		r.a.log.Warn("the mailbox was numbered anew; its newest mail is read again, and what is known is not answered again", "mailbox", r.a.cfg.Mailbox)
		after = 0
		criteria.Since = time.Unix(max(r.at.From, r.at.Seen-int64(rereadBack/time.Second)), 0).Add(-24 * time.Hour) // dates without a zone
	}
	var fresh imap.UIDSet
	fresh.AddRange(after+1, 0)
	criteria.UID = []imap.UIDSet{fresh}
	uids, err := c.search(criteria, maxBacklog)
	if err != nil {
		return r.a.unreachable("IMAP", err)
	}
	// "5:*" has the last mail in it even when its UID is lower.
	uids = slices.DeleteFunc(uids, func(u imap.UID) bool { return u <= after })
	slices.Sort(uids)
	if again {
		r.at.UID, r.at.Again = 0, max(box.UIDNext, 1)-1
	}
	for batch := range slices.Chunk(uids, batchSize) {
		if err := r.batch(ctx, c, box.UIDValidity, batch); err != nil {
			return err
		}
	}
	if again && len(uids) == 0 {
		next := r.at
		next.Validity, next.UID = box.UIDValidity, max(box.UIDNext, 1)-1
		if err := r.accept(ctx, nil, next); err != nil {
			return err
		}
		r.at = next
	}
	return nil
}

// batch reads some mails and commits them with the position behind them.
func (r *receiver) batch(ctx context.Context, c *imapConn, validity uint32, uids []imap.UID) error {
	next := r.at
	next.Validity, next.UID = validity, uids[len(uids)-1]
	var events []domain.Inbound
	var taken []imap.UID
	var bounces []returned
	for _, uid := range uids {
		one, err := r.judge(c, validity, uid)
		if err != nil {
			return err
		}
		next.Seen = max(next.Seen, one.seen)
		switch {
		case one.event != nil:
			events, taken = append(events, *one.event), append(taken, uid)
		case one.bounce != nil:
			bounces = append(bounces, *one.bounce)
		}
	}
	bounces = r.takeBack(ctx, bounces)
	if err := r.accept(ctx, events, next); err != nil {
		return err
	}
	r.takeBack(ctx, bounces) // the ledger takes things again
	r.at = next
	if len(taken) > 0 && !r.a.cfg.KeepUnread {
		// A courtesy to people who look into the mailbox; nothing depends on it.
		if err := c.within(func() error {
			return c.Store(imap.UIDSetNum(taken...), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagSeen}}, nil).Close()
		}); err != nil {
			r.a.log.Debug("mail could not be marked as read", "err", err)
		}
	}
	return nil
}

// judged is what a mail comes to; the zero value of one that is none of ours.
type judged struct {
	seen   int64 // Unix seconds at which it arrived
	event  *domain.Inbound
	bounce *returned
}

// judge reads one mail. A mail at which a defect of ours panics is left out at the
// next attempt: it must not close the mailbox to others.
func (r *receiver) judge(c *imapConn, validity uint32, uid imap.UID) (j judged, err error) {
	if r.spoiled[spoiledMail{validity, uid}] {
		return j, nil
	}
	defer func() {
		if p := recover(); p != nil {
			r.spoiled[spoiledMail{validity, uid}] = true
			r.a.log.Error("a mail cannot be read, by a defect of ours; it is left out", "uid", uint32(uid), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			j, err = judged{}, &platform.Error{Kind: platform.Retry, Code: "panic", Reason: "a mail cannot be read, by a defect of ours; it is left out, and the log has the details"}
		}
	}()
	m, found, err := r.a.read(c, uid)
	if err != nil {
		return j, r.a.unreachable("IMAP", err)
	}
	if !found {
		return j, nil // deleted or moved meanwhile
	}
	if !m.arrived.IsZero() {
		arrived := m.arrived.Unix()
		j.seen = min(arrived, r.a.now().Unix())
		if uid <= r.at.Again && (arrived < r.at.From-60 || arrived <= r.at.Old) {
			return j, nil // it was there before the first connection
		}
	}
	if in, ok := r.a.mail(validity, m); ok {
		j.event = &in
		return j, nil
	}
	if b, back := r.a.comesBack(m); back {
		j.bounce = &b
	}
	r.skipped++
	r.a.health.Note("not_answered", strconv.Itoa(r.skipped))
	return j, nil
}

// await returns when there may be new mail. In the end the server has answered:
// a connection that only looks alive is an error.
func (r *receiver) await(ctx context.Context, c *imapConn, pushes bool, changed <-chan struct{}) error {
	wait := r.a.cfg.PollEvery
	var idle *imapclient.IdleCommand
	if pushes {
		wait = r.a.cfg.IdleEvery
		if err := c.within(func() (err error) { idle, err = c.Idle(); return err }); err != nil {
			return r.a.unreachable("IMAP", err)
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-c.Closed():
	case <-changed:
	case <-t.C:
	}
	err := c.within(func() error {
		if idle == nil {
			return c.Noop().Wait()
		}
		if err := idle.Close(); err != nil {
			return err
		}
		return idle.Wait()
	})
	if err != nil {
		return r.a.unreachable("IMAP", err)
	}
	return nil
}

// alive records that the connection is up to date.
func (r *receiver) alive(pushes bool) {
	how := "the server pushes"
	if !pushes {
		how = "asked every " + r.a.cfg.PollEvery.String()
	}
	r.a.log.Info("connected to the mailbox", "address", r.a.cfg.Address, "news", how)
	r.a.health.Note("bot", r.a.cfg.Address)
	r.a.health.Note("news", how)
	r.a.health.Note("senders", r.a.believed())
	r.line.Up()
}

// accept commits events with the position.
func (r *receiver) accept(ctx context.Context, events []domain.Inbound, at position) error {
	return r.intake.Accept(ctx, r.a.cfg.Address, events, at.String())
}
