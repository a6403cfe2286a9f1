package sqlite

import (
	"context"
	"strings"
	"sync"
	"time"
	"unicode"

	"hermes/internal/ledger"
)

const (
	// indexBatch and indexBytes bound one step of the indexer, which holds the
	// writer while it runs.
	indexBatch = 32
	indexBytes = 128 << 10
	// indexedPrefix is how much of one message can be found, in bytes. The
	// tail of a huge tool result is not worth its weight.
	indexedPrefix = 64 << 10
	// indexDelay lets a conversation go on before its words are indexed.
	indexDelay = time.Second
	// scanMessages bounds the search for words that are too short for the
	// index of trigrams.
	scanMessages = 5000
)

// indexer keeps the word indexes up to date outside of anybody's way: some time
// after a commit, and before a search.
type indexer struct {
	s      *Store
	signal chan struct{}
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newIndexer(s *Store) *indexer { return &indexer{s: s, signal: make(chan struct{}, 1)} }

func (x *indexer) start() {
	ctx, cancel := context.WithCancel(context.Background())
	x.cancel = cancel
	x.wg.Go(func() { x.run(ctx) })
	x.wake() // for what a process before left
}

func (x *indexer) stop() {
	if x.cancel == nil {
		return // never started
	}
	x.cancel()
	x.wg.Wait()
}

// wake says that there are new messages. It never blocks.
func (x *indexer) wake() {
	select {
	case x.signal <- struct{}{}:
	default:
	}
}

func (x *indexer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-x.signal:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(indexDelay):
		}
		if err := x.catchUp(ctx); err != nil && ctx.Err() == nil {
			x.s.log.Warn("messages could not be indexed for the search; it is tried again with the next ones", "error", err)
		}
	}
}

// catchUp indexes all that is there.
func (x *indexer) catchUp(ctx context.Context) error {
	for {
		behind := false
		err := x.s.read(ctx, func(c *conn) (err error) {
			behind, err = c.one(`SELECT 1 FROM message WHERE id > (`+indexedTo+`) LIMIT 1`, nil, new(int64))
			return err
		})
		if err != nil || !behind {
			return err
		}
		if err := writeOnly(ctx, x.s, ordinary, indexStep); err != nil {
			return err
		}
	}
}

const indexedTo = `SELECT cast(value AS INTEGER) FROM meta WHERE key = 'indexed_to'`

// indexStep indexes the next messages. The mark moves in the same transaction,
// so that two processes never index a message twice.
func indexStep(c *conn) error {
	var last int64
	type text struct {
		id int64
		s  string
	}
	var batch []text
	size := 0
	err := c.each(`SELECT id, substr(content, 1, ?) FROM message WHERE id > (`+indexedTo+`) ORDER BY id LIMIT ?`,
		[]any{indexedPrefix, indexBatch}, func(r row) error {
			if size > indexBytes {
				return nil
			}
			var t text
			err := r.scan(&t.id, &t.s)
			batch, last, size = append(batch, t), t.id, size+len(t.s)
			return err
		})
	if err != nil || len(batch) == 0 {
		return err
	}
	for _, t := range batch {
		clean := strings.ReplaceAll(strings.ToValidUTF8(t.s, " "), "\x00", " ")
		if _, err := c.exec(`INSERT INTO message_words (rowid, content) VALUES (?, ?)`, t.id, clean); err != nil {
			return err
		}
		if !hasUnspaced(clean) {
			continue
		}
		if _, err := c.exec(`INSERT INTO message_trigrams (rowid, content) VALUES (?, ?)`, t.id, clean); err != nil {
			return err
		}
	}
	_, err = c.exec(`UPDATE meta SET value = ? WHERE key = 'indexed_to'`, formatID(last))
	return err
}

func unindexSession(c *conn, session int64) error {
	for _, q := range []string{
		`DELETE FROM message_words WHERE rowid IN (SELECT id FROM message WHERE session = ? AND id <= (` + indexedTo + `))`,
		`DELETE FROM message_trigrams WHERE rowid IN (SELECT id FROM message WHERE session = ? AND id <= (` + indexedTo + `))`,
	} {
		if _, err := c.exec(q, session); err != nil {
			return err
		}
	}
	return nil
}

// unspaced are the scripts that put no spaces between words, where the
// tokenizer of words would take a sentence for one.
var unspaced = []*unicode.RangeTable{
	unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul,
	unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar, unicode.Tibetan,
}

func hasUnspaced(s string) bool {
	for _, r := range s {
		if r >= 0xE00 && unicode.IsOneOf(unspaced, r) { // Thai is the first of them
			return true
		}
	}
	return false
}

// Search finds messages by words.
func (s *Store) Search(ctx context.Context, query string, limit int) ([]ledger.Hit, error) {
	if limit <= 0 {
		limit = 20
	}
	terms := parseQuery(query)
	if len(terms) == 0 {
		return nil, nil
	}
	if err := s.indexer.catchUp(ctx); err != nil {
		s.log.Warn("the search works on an index that is behind", "error", err)
	}
	q, args := searchStatement(terms, limit)
	var out []ledger.Hit
	err := s.readAll(ctx, func(c *conn) error {
		return c.each(q, args, func(r row) error {
			var h ledger.Hit
			if err := r[:2].scan(&h.Session, &h.Title); err != nil {
				return err
			}
			m, err := scanMessage(r[2:])
			h.Message = m.Message
			h.Snippet = snippet(m.Content, terms)
			out = append(out, h)
			return err
		})
	})
	return out, err
}

const hitColumns = `SELECT session.id, session.title, ` + messageColumns

// searchStatement chooses the index. Messages that were taken back (status 0)
// are not found.
func searchStatement(terms []term, limit int) (string, []any) {
	table, match := "message_words", terms
	if anyUnspaced(terms) {
		table, match = "message_trigrams", longTerms(terms)
	}
	if len(match) == 0 {
		q := hitColumns + ` FROM (SELECT * FROM message ORDER BY id DESC LIMIT ?) AS message
			JOIN session ON session.n = message.session WHERE message.status <> 0`
		args := []any{scanMessages}
		for _, t := range terms {
			q, args = q+` AND instr(message.content, ?) > 0`, append(args, t.text)
		}
		return q + ` ORDER BY message.id DESC LIMIT ?`, append(args, limit)
	}
	q := hitColumns + ` FROM ` + table + ` AS found JOIN message ON message.id = found.rowid
		JOIN session ON session.n = message.session WHERE found.` + table + ` MATCH ? AND message.status <> 0`
	args := []any{matchExpression(match)}
	if len(match) < len(terms) {
		for _, t := range terms {
			q, args = q+` AND instr(message.content, ?) > 0`, append(args, t.text)
		}
	}
	return q + ` ORDER BY found.rank, message.id DESC LIMIT ?`, append(args, limit)
}
