package telegram

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/go-telegram/bot/models"

	"hermes/internal/platform"
	"hermes/internal/platform/intake"
	"hermes/internal/platform/reconnect"
)

const (
	batchLimit  = 100             // the most that one getUpdates gives
	checkEvery  = time.Hour       // of checkOffset, while nothing comes
	undisturbed = 5 * time.Second // a poll this long shows that another poller is gone
)

// loop is one run of the poll loop. It belongs to one goroutine.
type loop struct {
	a       *Adapter
	sink    platform.Sink
	intake  intake.Intake
	line    reconnect.Line
	answers *answers

	connected bool
	offset    int64     // the first update that is not committed; 0 means whatever there is
	checkedAt time.Time // by checkOffset
	takenAt   time.Time // since when another poller disturbs this one
	takenLast time.Time // when it did so last; zero when it never did
}

// run connects and polls until ctx ends or the connection is to be given up.
func (l *loop) run(ctx context.Context) error {
	cursor, err := l.sink.Cursor(ctx, l.a.account)
	if err != nil {
		return err
	}
	if cursor != "" {
		// A cursor that is no number starts at the oldest update that Telegram
		// still has; the inbox drops what it knows.
		l.offset, _ = strconv.ParseInt(cursor, 10, 64)
		l.offset = max(l.offset, 0) // a negative one would make Telegram forget
	}
	for ctx.Err() == nil {
		updates, perr := l.step(ctx)
		if perr != nil {
			if err := l.failed(ctx, perr); err != nil {
				return err
			}
			continue
		}
		l.line.Up()
		if err := l.commit(ctx, updates); err != nil {
			return err
		}
	}
	return nil
}

// step connects where needed and reads the next batch.
func (l *loop) step(ctx context.Context) ([]models.Update, *platform.Error) {
	wait := l.a.cfg.PollTimeout
	if !l.connected {
		if err := l.a.connect(ctx); err != nil {
			return nil, err
		}
		l.connected = true
		l.a.log.Info("connected to Telegram", "bot", l.a.Capabilities().MentionName, "offset", l.offset)
	}
	switch {
	case l.line.IsUp():
	case l.takenLast.IsZero():
		wait = 0 // a proof at once, in place of half a minute of not knowing
	default:
		wait = min(wait, undisturbed) // another poller would cut it
	}
	began := time.Now()
	batch, err := l.a.getUpdates(ctx, l.offset, wait)
	if err != nil {
		return nil, err
	}
	if len(batch) == 0 && wait > 0 {
		if time.Since(began) < wait/10 {
			platform.Sleep(ctx, l.a.pause.first) // a server that does not wait must not make us spin
		}
		l.checkOffset(ctx)
	}
	return l.wholeAlbum(ctx, batch), nil
}

// checkOffset guards against waiting for ids that never come: after a week
// without updates Telegram goes on with an id chosen at random
// (https://core.telegram.org/bots/api#update), which may lie below ours. When
// updates are pending that a poll did not give, everything is read that there
// is; what was confirmed is gone, and the inbox drops what it knows.
func (l *loop) checkOffset(ctx context.Context) {
	if l.offset == 0 || time.Since(l.checkedAt) < checkEvery {
		return
	}
	l.checkedAt = time.Now()
	ctx, cancel := context.WithTimeout(ctx, l.a.cfg.SendTimeout)
	defer cancel()
	ctx, c := withCall(ctx, "getWebhookInfo")
	info, err := l.a.bot.GetWebhookInfo(ctx)
	switch {
	case err != nil:
		l.a.log.Debug("the number of pending updates is not known", "error", l.a.classify(c, err))
	case info.PendingUpdateCount > 0:
		l.a.log.Info("updates are pending that polling from the stored offset does not give; all are read", "pending", info.PendingUpdateCount, "offset", l.offset)
		l.offset = 0
	}
}

// wholeAlbum waits a moment for the rest of an album that a batch ends with:
// Telegram sends each of its pictures as an update, and they should be one
// turn. Reading again from the same offset confirms nothing.
func (l *loop) wholeAlbum(ctx context.Context, batch []models.Update) []models.Update {
	for range 3 {
		if len(batch) == 0 || len(batch) >= batchLimit || album(batch[len(batch)-1]) == "" {
			return batch
		}
		if !platform.Sleep(ctx, l.a.pause.album) {
			return batch
		}
		again, err := l.a.getUpdates(ctx, l.offset, 0)
		if err != nil || len(again) <= len(batch) {
			return batch
		}
		batch = again
	}
	return batch
}

// failed shows a failure and waits before the next attempt. It returns an
// error when Run is to end.
func (l *loop) failed(ctx context.Context, e *platform.Error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // Run sees that it is to end
	}
	l.line.Failed()
	wait := max(l.line.Backoff(), e.RetryAfter)
	switch e.Kind {
	case platform.BadCredentials:
		return e
	case platform.TakenOver:
		// At a hand-over the other poller is our own predecessor, which is gone
		// in a moment: so the first attempts follow soon.
		// Two that both stay cut each other by turns, so that a poll that came
		// back in between does not mean that the other is gone.
		now := l.a.now()
		if l.takenLast.IsZero() || now.Sub(l.takenLast) > 2*l.a.cfg.PollTimeout {
			l.takenAt = now
		}
		l.takenLast = now
		if now.Sub(l.takenAt) >= l.a.pause.takeover || !l.connected {
			return e
		}
		wait = min(wait, 3*time.Second)
	default:
		if l.line.Spent() {
			return e
		}
	}
	l.line.Wait(ctx, e, wait)
	return nil
}

// commit gives the batch to the sink and advances the offset once it is
// stored. The batch is kept while the sink fails, so nothing is acknowledged
// that is not stored.
func (l *loop) commit(ctx context.Context, batch []models.Update) error {
	if len(batch) == 0 {
		return nil
	}
	next := batch[len(batch)-1].ID + 1
	events, buttons := l.a.events(batch)
	for _, in := range events { // before the commit: the turn may begin at once
		if !in.Button {
			l.a.waiting.Set(in.Address, in.MessageID)
		}
	}
	if len(events) > 0 {
		if err := l.intake.Accept(ctx, l.a.account, events, strconv.FormatInt(next, 10)); err != nil {
			return err
		}
	}
	// With no event for us there is nothing to store: the next poll tells
	// Telegram, and a restart before it reads the same chatter again.
	l.offset = next
	l.answers.add(buttons)
	return nil
}

// album is the id of the media group that an update belongs to, or "".
func album(u models.Update) string {
	if u.Message == nil {
		return ""
	}
	return u.Message.MediaGroupID
}

// getUpdates reads a batch, https://core.telegram.org/bots/api#getupdates. A
// poll that is not back in twice its time is cut.
func (a *Adapter) getUpdates(ctx context.Context, offset int64, wait time.Duration) ([]models.Update, *platform.Error) {
	allowed := []string{models.AllowedUpdateMessage, models.AllowedUpdateCallbackQuery}
	if a.cfg.ChannelPosts {
		allowed = append(allowed, models.AllowedUpdateChannelPost)
	}
	body, _ := json.Marshal(map[string]any{
		"offset": offset, "limit": batchLimit, "timeout": int(wait / time.Second), "allowed_updates": allowed,
	})
	pctx, cancel := context.WithTimeout(ctx, 2*max(wait, a.cfg.PollTimeout))
	defer cancel()
	pctx, c := withCall(pctx, "getUpdates")
	req, err := http.NewRequestWithContext(pctx, http.MethodPost, a.cfg.BaseURL+"/bot"+a.cfg.Token.Reveal()+"/getUpdates", bytes.NewReader(body))
	if err != nil {
		return nil, a.classify(c, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.wire.Do(req)
	if err != nil {
		return nil, a.pollFailure(ctx, c, err)
	}
	defer resp.Body.Close()
	if c.Status != http.StatusOK {
		return nil, a.pollFailure(ctx, c, errors.New(resp.Status))
	}
	var reply struct {
		OK     bool              `json:"ok"`
		Result []json.RawMessage `json:"result"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxReply)).Decode(&reply); err != nil {
		return nil, a.pollFailure(ctx, c, err)
	}
	batch := a.decode(reply.Result)
	if len(batch) == 0 && len(reply.Result) > 0 {
		return nil, a.pollFailure(ctx, c, errors.New("it answered updates without ids"))
	}
	return batch, nil
}

// pollFailure says of a poll what classify says of a send: a poll repeats no
// harm, so its outcome is never uncertain.
func (a *Adapter) pollFailure(ctx context.Context, c *call, err error) *platform.Error {
	e := a.classify(c, err)
	switch {
	case c.Status == http.StatusOK:
		e.Code, e.Reason = "telegram_poll_garbled", "what a poll of Telegram brought could not be read (cut off, or from a proxy in between): it is made again"
	case !e.Uncertain || c.Status != 0:
	case ctx.Err() == nil && errors.Is(c.Err, context.DeadlineExceeded):
		e.Code, e.Reason = "telegram_poll_stuck", "a poll of Telegram did not come back in twice its time: it was cut and is made again"
	default:
		e.Code, e.Reason = "telegram_poll_cut", "the connection to Telegram broke while it was polled: it is made again"
	}
	e.Uncertain = false
	return e
}

// decode reads each update by itself, so that one which the library does not
// understand cannot stop those beside it.
func (a *Adapter) decode(raw []json.RawMessage) []models.Update {
	out := make([]models.Update, 0, len(raw))
	for _, r := range raw {
		var u models.Update
		err := json.Unmarshal(r, &u)
		if err != nil {
			u, err = decodeReduced(r)
		}
		if err != nil {
			a.log.Warn("an update of Telegram could not be read and was left out", "update", u.ID, "error", a.scrub(err))
		}
		if u.ID == 0 {
			continue // no update at all; the next poll shows what follows
		}
		out = append(out, u)
	}
	return out
}

// plainFields are the parts of a message that decodeReduced keeps.
var plainFields = []string{
	"message_id", "message_thread_id", "is_topic_message", "from", "sender_chat", "chat", "date", "text", "entities",
	"caption", "caption_entities", "photo", "document", "voice", "audio", "video", "media_group_id",
}

// decodeReduced reads a message of which the library does not know some part,
// such as a new kind of origin, by leaving out all but the plain parts. The
// update's id is given even when it fails.
func decodeReduced(raw []byte) (models.Update, error) {
	var u struct {
		ID      int64                      `json:"update_id"`
		Message map[string]json.RawMessage `json:"message"`
	}
	if err := json.Unmarshal(raw, &u); err != nil || u.Message == nil {
		return models.Update{ID: u.ID}, errors.Join(err, errors.New("it is of an unknown form"))
	}
	kept := make(map[string]json.RawMessage, len(plainFields))
	for _, f := range plainFields {
		if v, ok := u.Message[f]; ok {
			kept[f] = v
		}
	}
	b, err := json.Marshal(kept)
	if err != nil {
		return models.Update{ID: u.ID}, err
	}
	m := new(models.Message)
	if err := json.Unmarshal(b, m); err != nil {
		return models.Update{ID: u.ID}, err
	}
	return models.Update{ID: u.ID, Message: m}, nil
}
