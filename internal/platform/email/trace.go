package email

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"hermes/internal/domain"
	"hermes/internal/platform"
)

const (
	// lookTime bounds the look into the mailbox before a mail goes.
	lookTime = 20 * time.Second
	// copyLooks is how often a copy is looked for that may still be on its way
	// into the mailbox of sent mail.
	copyLooks = 6
)

// Trace looks for a mail in the mailbox. It was sent if the provider keeps a copy
// of it among the sent ones, or if somebody answers it, since nobody else knows
// its Message-ID. It was not if there is a copy of the mail before it and, for
// some seconds, none of this one: this provider does keep copies.
func (a *Adapter) Trace(ctx context.Context, _ domain.Address, nonce, last string) (string, error) {
	if receipt, ok := a.sends.get(nonce); ok {
		return receipt, nil
	}
	id := a.messageID(nonce)
	c, e := a.dialIMAP(ctx, nil)
	if e != nil {
		return "", e
	}
	defer c.end()
	sent, keeps, err := a.look(ctx, c, id, last)
	switch {
	case err != nil:
		return "", a.unreachable("IMAP", err)
	case sent:
		return id, nil
	case keeps:
		return "", platform.ErrNotTaken
	}
	return "", platform.ErrNoTrace
}

// look tells whether a mail was sent, and whether this provider keeps copies of
// what is.
func (a *Adapter) look(ctx context.Context, c *imapConn, id, last string) (sent, keeps bool, err error) {
	if _, err = c.open(a.cfg.Mailbox, true); err != nil {
		return false, false, err
	}
	if sent, err = c.has(id, "References", "In-Reply-To"); err != nil || sent {
		return sent, false, err
	}
	name := a.cfg.SentMailbox
	if name == "" {
		name = c.sentMailbox()
	}
	if name == "" {
		return false, false, nil
	}
	var no *imap.Error
	if _, err = c.open(name, true); errors.As(err, &no) && no.Type == imap.StatusResponseTypeNo {
		return false, false, nil // there is none
	}
	for n := 1; err == nil; n++ {
		if sent, err = c.has(id, "Message-ID"); err != nil || sent {
			break
		}
		if n == 1 {
			if keeps, err = c.has(last, "Message-ID"); !keeps {
				break
			}
		}
		if n == copyLooks {
			break
		}
		if !platform.Sleep(ctx, a.pause.copies) {
			err = ctx.Err()
			break
		}
		err = c.within(func() error { return c.Noop().Wait() }) // with which a server tells what is new
	}
	return sent, keeps, err
}

// has tells whether the open mailbox has a mail that names an id in one of the
// fields. A value is found within longer ones too
// (https://www.rfc-editor.org/rfc/rfc9051#section-6.4.4).
func (c *imapConn) has(id string, fields ...string) (bool, error) {
	if id == "" {
		return false, nil
	}
	uids, err := c.search(naming(id, fields...), 1)
	return len(uids) > 0, err
}

// naming is the search for mails that name an id in one of the fields.
func naming(id string, fields ...string) *imap.SearchCriteria {
	var all *imap.SearchCriteria
	for _, f := range fields {
		one := imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: f, Value: id}}}
		if all == nil {
			all = &one
		} else {
			all = &imap.SearchCriteria{Or: [][2]imap.SearchCriteria{{*all, one}}}
		}
	}
	return all
}

// lookUp asks the mailbox for a thread that this process does not know. What
// cannot be found out is left open: a mail with a poor subject is better than
// none.
func (a *Adapter) lookUp(ctx context.Context, root string) (th thread) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	c, e := a.dialIMAP(ctx, nil)
	if e != nil {
		a.log.Warn("the mailbox could not be asked for the thread that a mail answers", "reason", e.Reason)
		return th
	}
	defer c.end()
	return a.findThread(c, root)
}

// sentMailbox is the mailbox that the server marks as that of sent mail
// (https://www.rfc-editor.org/rfc/rfc6154), else one that is called so.
func (c *imapConn) sentMailbox() string {
	var list []*imap.ListData
	err := c.within(func() (err error) {
		list, err = c.List("", "*", nil).Collect()
		return err
	})
	if err != nil {
		return ""
	}
	named := ""
	for _, l := range list {
		for _, at := range l.Attrs {
			if at == imap.MailboxAttrSent {
				return l.Mailbox
			}
		}
		switch strings.ToLower(l.Mailbox) {
		case "sent", "sent items", "sent mail", "sent messages", "inbox.sent":
			named = l.Mailbox
		}
	}
	return named
}

// findThread reads the subject and the newest mail of a thread.
func (a *Adapter) findThread(c *imapConn, root string) (th thread) {
	if _, err := c.open(a.cfg.Mailbox, true); err != nil {
		return th
	}
	uids, err := c.search(naming(root, "Message-ID", "References"), 1)
	if err != nil || len(uids) == 0 {
		return th
	}
	got, err := c.fetch(imap.UIDSetNum(uids...), &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{headerSection}})
	if err != nil || len(got) == 0 || len(got[0].BodySection) == 0 {
		return th
	}
	h := readHeader(got[0].BodySection[0].Bytes)
	th.subject = plainSubject(h.subject())
	if ids := h.ids("Message-Id"); len(ids) > 0 {
		th.last = ids[0]
	}
	return th
}
