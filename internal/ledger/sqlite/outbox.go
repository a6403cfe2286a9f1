package sqlite

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/ledger"
)

const deliveryColumns = `id, platform, chat_id, thread_id, state, attempt, coalesce(turn_id, 0), coalesce(inbound_id, 0), coalesce(run_id, 0),
	kind, part, edit, nonce, receipt, reason, uncertain, not_before, next_at, created_at, sent_at, process`

// deliveryRow is a delivery with who sends it.
type deliveryRow struct {
	domain.Delivery
	process int64
}

func scanDelivery(r row) (d deliveryRow, err error) {
	err = r.scan(&d.ID, &d.To.Platform, &d.To.ChatID, &d.To.ThreadID, &d.State, &d.Attempt, &d.TurnID, &d.InboundID, &d.RunID,
		&d.Kind, asJSON{&d.Part}, &d.Edit, &d.Nonce, &d.Receipt, &d.Reason, &d.Uncertain, &d.NotBefore, &d.NextAt, &d.CreatedAt, &d.SentAt, &d.process)
	return d, err
}

func deliveryRows(c *conn, rest string, args ...any) (out []deliveryRow, err error) {
	err = c.each(`SELECT `+deliveryColumns+` FROM delivery `+rest, args, func(r row) error {
		d, err := scanDelivery(r)
		out = append(out, d)
		return err
	})
	return out, err
}

func deliveryByID(c *conn, id int64) (deliveryRow, error) {
	rows, err := deliveryRows(c, `WHERE id = ?`, id)
	if err == nil && len(rows) == 0 {
		err = notFound("delivery", id)
	}
	if err != nil {
		return deliveryRow{}, err
	}
	return rows[0], nil
}

// newDelivery is a message to be stored, with everything encoded.
type newDelivery struct {
	domain.NewDelivery
	part  []byte
	nonce string
}

func prepareDeliveries(ds []domain.NewDelivery) ([]newDelivery, error) {
	out := make([]newDelivery, len(ds))
	for i, d := range ds {
		if d.To.Platform == "" {
			return nil, domain.E(domain.Invalid, nil, "a message to be sent names no platform")
		}
		part, err := encode(d.Part)
		if err != nil {
			return nil, err
		}
		out[i] = newDelivery{d, part, newNonce()}
	}
	return out, nil
}

// newNonce fits the shortest nonce of the platforms: Discord takes 25 characters.
// https://discord.com/developers/docs/resources/message#create-message
func newNonce() string {
	var b [12]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// origin is what a delivery came from.
type origin struct{ turn, inbound, run int64 }

func insertDeliveries(c *conn, ds []newDelivery, o origin, now time.Time) ([]int64, error) {
	if len(ds) == 0 {
		return nil, nil
	}
	ids := make([]int64, len(ds))
	for i, d := range ds {
		run := o.run
		if d.RunID != 0 {
			run = d.RunID
		}
		var err error
		ids[i], err = c.insert(`INSERT INTO delivery (platform, chat_id, thread_id, state, turn_id, inbound_id, run_id, kind, part, edit, nonce, not_before, next_at, created_at)
			VALUES (?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			d.To.Platform, d.To.ChatID, d.To.ThreadID, nullID(o.turn), nullID(o.inbound), nullID(run),
			d.Kind, d.part, d.Edit, d.nonce, d.NotBefore, d.NotBefore, now)
		if err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// Enqueue commits messages that no turn made.
func (s *Store) Enqueue(ctx context.Context, d []domain.NewDelivery, now time.Time) ([]int64, error) {
	ds, err := prepareDeliveries(d)
	if err != nil || len(ds) == 0 {
		return nil, err
	}
	return write(ctx, s, essential, func(c *conn) ([]int64, error) { return insertDeliveries(c, ds, origin{}, now) })
}

const dueAddressesQuery = `SELECT platform, chat_id, thread_id, min(id), state, next_at, process
	FROM delivery INDEXED BY delivery_open WHERE ended_at IS NULL GROUP BY platform, chat_id, thread_id`

// DueAddresses lists where something waits; SQLite takes the other columns of a
// min() query from the row that has the minimum, which is the head.
// https://www.sqlite.org/lang_select.html#bareagg
func (s *Store) DueAddresses(ctx context.Context) (out []ledger.DueAddress, err error) {
	err = s.readAll(ctx, func(c *conn) error {
		type head struct {
			ledger.DueAddress
			process int64
		}
		var heads []head
		err := c.each(dueAddressesQuery, nil, func(r row) error {
			var h head
			var id int64
			var state domain.DeliveryState
			err := r.scan(&h.To.Platform, &h.To.ChatID, &h.To.ThreadID, &id, &state, &h.Next, &h.process)
			heads = append(heads, h)
			return err
		})
		if err != nil {
			return err
		}
		live := map[int64]bool{}
		for _, h := range heads {
			if _, known := live[h.process]; !known {
				if live[h.process], err = s.holderAlive(c, h.process); err != nil {
					return err
				}
			}
			if !live[h.process] {
				out = append(out, h.DueAddress)
			}
		}
		return nil
	})
	return out, err
}

// ClaimDelivery moves the head of an address to sending. One that a dead
// process was sending is claimed as uncertain.
func (s *Store) ClaimDelivery(ctx context.Context, to domain.Address, now time.Time) (domain.Delivery, bool, time.Time, error) {
	type result struct {
		d    domain.Delivery
		ok   bool
		next time.Time
	}
	res, err := write(ctx, s, essential, func(c *conn) (res result, err error) {
		if err := s.checkSelf(c); err != nil {
			return res, err
		}
		rows, err := deliveryRows(c, `WHERE platform = ? AND chat_id = ? AND thread_id = ? AND ended_at IS NULL ORDER BY id LIMIT 1`,
			to.Platform, to.ChatID, to.ThreadID)
		if err != nil || len(rows) == 0 {
			return res, err
		}
		d := rows[0]
		if d.State == domain.DeliverySending {
			live, err := s.holderAlive(c, d.process)
			if err != nil || live {
				return res, err
			}
			d.Uncertain = true
		} else if d.NextAt.After(now) {
			return result{next: d.NextAt}, nil
		}
		d.State, d.NextAt = domain.DeliverySending, time.Time{}
		d.Attempt++
		_, err = c.exec(`UPDATE delivery SET state = 'sending', attempt = ?, uncertain = ?, process = ?, next_at = NULL WHERE id = ?`,
			d.Attempt, d.Uncertain, s.self.ID, d.ID)
		return result{d: d.Delivery, ok: true}, err
	})
	return res.d, res.ok, res.next, err
}

// updateSending changes columns of a delivery that this attempt still holds.
func (s *Store) updateSending(ctx context.Context, d ledger.DeliveryRef, set string, args ...any) error {
	return writeOnly(ctx, s, essential, func(c *conn) error {
		n, err := c.exec(`UPDATE delivery SET process = NULL, `+set+` WHERE id = ? AND attempt = ? AND state = 'sending' AND process = ?`,
			append(slices.Clip(args), d.ID, d.Attempt, s.self.ID)...)
		if err == nil && n == 0 {
			err = fenced("delivery", d.ID)
		}
		return err
	})
}

// MarkSent records the receipt.
func (s *Store) MarkSent(ctx context.Context, d ledger.DeliveryRef, receipt string, now time.Time) error {
	return s.updateSending(ctx, d, `state = 'sent', receipt = ?, reason = '', sent_at = ?, ended_at = ?`, receipt, now, now)
}

// MarkRetry puts a delivery back. Once an attempt was uncertain, the delivery
// stays so: what may have arrived, may have arrived.
func (s *Store) MarkRetry(ctx context.Context, d ledger.DeliveryRef, next time.Time, reason string, uncertain bool, part *domain.Part, edit *string) error {
	set, args := `state = 'retrying', next_at = ?, reason = ?, uncertain = max(uncertain, ?)`, []any{next, reason, uncertain}
	if part != nil {
		b, err := encode(part)
		if err != nil {
			return err
		}
		set, args = set+`, part = ?`, append(args, b)
	}
	if edit != nil {
		set, args = set+`, edit = ?`, append(args, *edit)
	}
	return s.updateSending(ctx, d, set, args...)
}

// MarkDead gives a delivery up.
func (s *Store) MarkDead(ctx context.Context, d ledger.DeliveryRef, reason string, now time.Time) error {
	return s.updateSending(ctx, d, `state = 'dead', reason = ?, ended_at = ?`, reason, now)
}

// MarkReturned makes dead what came back after it was sent.
func (s *Store) MarkReturned(ctx context.Context, p domain.Platform, chatID, receipt, reason string, now time.Time) (bool, error) {
	return write(ctx, s, essential, func(c *conn) (bool, error) {
		n, err := c.exec(`UPDATE delivery INDEXED BY delivery_chat SET state = 'dead', reason = ?, ended_at = ?
			WHERE platform = ? AND chat_id = ? AND state = 'sent' AND receipt = ?`, reason, now, p, chatID, receipt)
		return n > 0, err
	})
}

// MoveAddress gives the unsent messages of one address to another. One that is
// being sent moves too: its claim holds on, and a retry goes to the new place.
func (s *Store) MoveAddress(ctx context.Context, from, to domain.Address) error {
	return writeOnly(ctx, s, essential, func(c *conn) error {
		_, err := c.exec(`UPDATE delivery SET platform = ?, chat_id = ?, thread_id = ?
			WHERE platform = ? AND chat_id = ? AND thread_id = ? AND ended_at IS NULL`,
			to.Platform, to.ChatID, to.ThreadID, from.Platform, from.ChatID, from.ThreadID)
		return err
	})
}

// deliveriesIn is how the deliveries in a state are found: by an index of their
// own, or, for the sent ones, which are nearly all, by walking back from the
// newest.
var deliveriesIn = map[domain.DeliveryState]string{
	domain.DeliveryPending:  `INDEXED BY delivery_open WHERE ended_at IS NULL AND state = 'pending'`,
	domain.DeliverySending:  `INDEXED BY delivery_open WHERE ended_at IS NULL AND state = 'sending'`,
	domain.DeliveryRetrying: `INDEXED BY delivery_open WHERE ended_at IS NULL AND state = 'retrying'`,
	domain.DeliveryDead:     `INDEXED BY delivery_dead WHERE state = 'dead'`,
	domain.DeliverySent:     `WHERE state = 'sent'`,
}

// Deliveries lists, newest first. Each state is asked by itself, so that its
// index is used, and the answers are merged.
func (s *Store) Deliveries(ctx context.Context, f ledger.DeliveryFilter) (out []domain.Delivery, err error) {
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	conds := []string{`WHERE 1`}
	if len(f.States) > 0 {
		conds = conds[:0]
		for _, st := range f.States {
			cond, known := deliveriesIn[st]
			if !known {
				return nil, domain.E(domain.Invalid, nil, "%q is no state of a delivery", st)
			}
			if !slices.Contains(conds, cond) {
				conds = append(conds, cond)
			}
		}
	}
	var rest strings.Builder
	var args []any
	for _, by := range []struct {
		column string
		value  any
		given  bool
	}{{` AND run_id = ?`, f.RunID, f.RunID != 0}, {` AND turn_id = ?`, f.TurnID, f.TurnID != 0}, {` AND id < ?`, f.Before, f.Before != 0},
		{` AND platform = ?`, f.Platform, f.Platform != ""}} {
		if by.given {
			rest.WriteString(by.column)
			args = append(args, by.value)
		}
	}
	args = append(args, limit)
	err = s.readAll(ctx, func(c *conn) error {
		for _, cond := range conds {
			rows, err := deliveryRows(c, cond+rest.String()+` ORDER BY id DESC LIMIT ?`, args...)
			if err != nil {
				return err
			}
			for _, d := range rows {
				out = append(out, d.Delivery)
			}
		}
		return nil
	})
	slices.SortFunc(out, func(a, b domain.Delivery) int { return int(b.ID - a.ID) })
	return out[:min(len(out), limit)], err
}

// RetryDelivery makes a dead or retrying delivery pending, due now.
func (s *Store) RetryDelivery(ctx context.Context, id int64, now time.Time) (domain.Delivery, error) {
	return write(ctx, s, essential, func(c *conn) (domain.Delivery, error) {
		d, err := deliveryByID(c, id)
		if err != nil {
			return domain.Delivery{}, err
		}
		if d.State != domain.DeliveryDead && d.State != domain.DeliveryRetrying {
			return domain.Delivery{}, domain.E(domain.Conflict, nil, "delivery %d is %s; only one that is dead or retrying can be tried again", id, d.State)
		}
		if _, err := c.exec(`UPDATE delivery SET state = 'pending', next_at = NULL, ended_at = NULL WHERE id = ?`, id); err != nil {
			return domain.Delivery{}, err
		}
		d.State, d.NextAt = domain.DeliveryPending, time.Time{}
		return d.Delivery, nil
	})
}

// DropDelivery makes an unsent delivery dead.
func (s *Store) DropDelivery(ctx context.Context, id int64, reason string, now time.Time) error {
	return writeOnly(ctx, s, essential, func(c *conn) error {
		d, err := deliveryByID(c, id)
		if err != nil {
			return err
		}
		if d.State != domain.DeliveryPending && d.State != domain.DeliveryRetrying {
			return domain.E(domain.Conflict, nil, "delivery %d is %s; only one that waits to be sent can be dropped", id, d.State)
		}
		_, err = c.exec(`UPDATE delivery SET state = 'dead', reason = ?, ended_at = ? WHERE id = ?`, reason, now, id)
		return err
	})
}

// deliveryOutcome sums up the deliveries of a run; 'run.id' is the run's.
const deliveryOutcome = `coalesce((SELECT CASE
	WHEN max(state = 'dead') THEN 'dead'
	WHEN max(state = 'retrying') THEN 'retrying'
	WHEN max(state IN ('pending', 'sending')) THEN 'pending'
	ELSE 'sent' END FROM delivery WHERE delivery.run_id = run.id HAVING count(*) > 0), '')`

// chatLogMargin is how much further back than its limit ChatLog looks, since
// some deliveries only edit others.
const chatLogMargin = 50

// ChatLog is the tail of a chat. A delivery that edited an earlier one stands
// in its place, as it did before the reader's eyes.
func (s *Store) ChatLog(ctx context.Context, at domain.Address, limit int) (out []ledger.ChatEntry, err error) {
	if limit <= 0 {
		limit = 100
	}
	args := []any{at.Platform, at.ChatID, at.ThreadID, limit + chatLogMargin}
	err = s.readAll(ctx, func(c *conn) error {
		ins, err := inbounds(c, `platform = ? AND chat_id = ? AND thread_id = ? AND state <> 'refused' ORDER BY id DESC LIMIT ?`, args...)
		if err != nil {
			return err
		}
		for _, in := range ins {
			out = append(out, ledger.ChatEntry{ID: fmt.Sprintf("i%d", in.ID), Role: string(domain.RoleUser), Ref: in.EventID, At: in.ReceivedAt,
				Part: domain.Part{Text: in.Text, Attachments: in.Attachments}})
		}
		ds, err := deliveryRows(c, `WHERE platform = ? AND chat_id = ? AND thread_id = ? AND state = 'sent' ORDER BY id DESC LIMIT ?`, args...)
		if err != nil {
			return err
		}
		slices.Reverse(ds)
		shown := map[string]int{} // receipt → place in out
		for _, d := range ds {
			if i, edits := shown[d.Edit]; edits && d.Edit != "" {
				out[i].Part, out[i].Ref = d.Part, d.Receipt
				continue
			}
			shown[d.Receipt] = len(out)
			out = append(out, ledger.ChatEntry{ID: fmt.Sprintf("d%d", d.ID), Role: string(domain.RoleAssistant), Kind: d.Kind, Ref: d.Receipt, Part: d.Part, At: d.SentAt})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(out, func(a, b ledger.ChatEntry) int { return a.At.Compare(b.At) })
	return out[max(0, len(out)-limit):], nil
}
