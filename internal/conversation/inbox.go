package conversation

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"hermes/internal/delivery"
	"hermes/internal/domain"
	"hermes/internal/failpoint"
	"hermes/internal/ledger"
	"hermes/internal/platform"
)

// Sink gives the sink of a platform: what it accepts is committed before
// Accept returns.
func (l *Lanes) Sink(name domain.Platform) platform.Sink { return sink{l, name} }

type sink struct {
	*Lanes
	platform domain.Platform
}

// Cursor is the stored position.
func (s sink) Cursor(ctx context.Context, account string) (string, error) {
	return s.Store.Cursor(ctx, s.platform, account)
}

// Accept decides about each event, commits all of them with the cursor, and
// only then wakes their lanes.
func (s sink) Accept(ctx context.Context, account string, events []domain.Inbound, cursor string) error {
	b := ledger.Batch{Platform: s.platform, Account: account, Cursor: cursor}
	for _, in := range events {
		e, err := s.judge(ctx, account, in)
		if err != nil {
			return err
		}
		b.Events = append(b.Events, e)
	}
	if len(b.Events) == 0 && cursor == "" {
		return nil
	}
	failpoint.Hit(failpoint.InboundBeforeCommit)
	got, err := s.Store.AcceptInbound(ctx, b)
	part := s.Health.Part("ledger")
	if err != nil {
		part.Degraded(string(domain.CodeOf(err)), domain.MessageOf(err))
		return err
	}
	part.OK()
	failpoint.Hit(failpoint.InboundCommitted)
	for i, g := range got {
		e := b.Events[i]
		switch {
		case g.Duplicate:
			s.Log.Info("a known event came again and was dropped", "component", "conversation", "platform", string(s.platform), "event", e.Inbound.EventID)
		case e.Inbound.State == domain.InboundReceived:
			s.Wake(e.Inbound.SessionKey)
		}
		if len(g.Replies) > 0 {
			s.Outbox.Wake(e.Inbound.Address)
		}
	}
	return nil
}

// Returned records that a message came back after the platform had taken it.
func (s sink) Returned(ctx context.Context, chatID, receipt, reason string) error {
	ok, err := s.Store.MarkReturned(ctx, s.platform, chatID, receipt, reason, s.Now())
	if err == nil && ok {
		s.Log.Error("a message came back", "component", "delivery", "platform", string(s.platform), "chat", chatID, "receipt", receipt, "reason", reason)
	}
	return err
}

// judge cleans an event and asks the gate about it.
func (s sink) judge(ctx context.Context, account string, in domain.Inbound) (ledger.Event, error) {
	in.Platform, in.Account, in.ReceivedAt = s.platform, account, s.Now()
	if in.SentAt.IsZero() {
		in.SentAt = in.ReceivedAt
	}
	in.Text, in.ReplyText = clean(in.Text), clean(in.ReplyText)
	in.SessionKey = domain.KeyFor(in.Source, s.Config.Session.PerUser, s.Config.Session.PerUserInThreads)
	in.State = domain.InboundReceived
	v, err := s.Gate.Decide(ctx, in)
	if err != nil {
		return ledger.Event{}, err
	}
	e := ledger.Event{Inbound: in, Pairing: v.Pairing}
	if !v.Allowed {
		e.Inbound.State = domain.InboundRefused
		s.Log.Info("a message was refused", "component", "access", "platform", string(s.platform), "user", in.UserID, "chat", in.ChatID, "reason", v.Reason)
		if v.Reply != "" {
			e.Replies = s.Outbox.Plan(in.Address, "notice", v.Reply, delivery.PlanOptions{Commands: s.spoken()})
		}
	} else if in.Forward {
		e.Inbound.State = domain.InboundDone
		e.Replies = s.Outbox.Plan(in.Address, "forward", in.Text, delivery.PlanOptions{})
	}
	return e, nil
}

// clean makes text valid UTF-8 without NUL and other control characters.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || !unicode.IsControl(r) {
			return r
		}
		return -1
	}, s)
}

// The bounds of inbound files.
const (
	maxFile       = 128 << 20 // bytes of one file
	maxFiles      = 10        // of one turn
	mediaKept     = 30 * 24 * time.Hour
	maxCached     = 500     // files of a kind that are kept
	maxCacheSize  = 2 << 30 // their bytes
	fetchDeadline = 2 * time.Minute
)

// cacheFolder says where files of a kind are kept under cache/.
func cacheFolder(k domain.AttachmentKind) string {
	switch k {
	case domain.Image:
		return "images"
	case domain.Audio, domain.Voice:
		return "audio"
	case domain.Video:
		return "videos"
	}
	return "documents"
}

// fetchAttachments downloads the files of a turn's events into the profile's
// cache and tells the model where they are. A file that cannot be had is told
// as well; it never stops the turn.
func (l *Lanes) fetchAttachments(ctx context.Context, c *ledger.Claim) {
	joined := map[string]bool{} // later, with their files
	for _, s := range c.Steps {
		if s.Kind == domain.StepInput {
			joined[s.CallID] = true
		}
	}
	var events []domain.Inbound
	for _, in := range c.Inbound {
		if !joined[joinID(in.ID)] {
			events = append(events, in)
		}
	}
	if len(c.Turn.Input) == 0 {
		return
	}
	input := slices.Clone(c.Turn.Input)
	l.addFiles(ctx, &input[len(input)-1], events, l.speechOf(c))
	c.Turn.Input = input
}

// addFiles fetches the files of events and adds to a message what became of
// them.
func (l *Lanes) addFiles(ctx context.Context, m *domain.Message, events []domain.Inbound, s speech) {
	var notes []string
	var images []domain.Attachment
	n := 0
	for _, in := range events {
		for _, a := range in.Attachments {
			if n++; n > maxFiles {
				notes = append(notes, fmt.Sprintf("[%s was not fetched: at most %d files a message]", label(a), maxFiles))
				continue
			}
			got, err := l.fetch(ctx, in, a, n)
			if err != nil {
				notes = append(notes, fmt.Sprintf("[%s could not be fetched: %s]", label(a), domain.MessageOf(err)))
				continue
			}
			if got.Kind == domain.Image {
				images = append(images, got)
			}
			notes = append(notes, s.note(ctx, recordingID(in, n), got))
		}
	}
	if len(notes) == 0 {
		return
	}
	m.Content = strings.TrimSpace(m.Content + "\n" + strings.Join(notes, "\n"))
	m.Images = images
}

// label is how a file is spoken of.
func label(a domain.Attachment) string {
	if a.Name != "" {
		return "“" + clean(a.Name) + "”"
	}
	return "a " + string(a.Kind)
}

// fetch downloads one file, unless an earlier attempt of the turn did.
func (l *Lanes) fetch(ctx context.Context, in domain.Inbound, a domain.Attachment, n int) (domain.Attachment, error) {
	if a.Path != "" {
		return a, nil
	}
	f, ok := l.adapter(in.Platform).(platform.Fetcher)
	if !ok {
		return a, domain.E(domain.Unavailable, nil, "the platform cannot be asked for files now")
	}
	dir := filepath.Join(l.Profile.CacheDir(), cacheFolder(a.Kind))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return a, domain.E(domain.Unavailable, err, "the cache folder cannot be made")
	}
	path := filepath.Join(dir, fmt.Sprintf("%d-%d%s", in.ID, n, safeExt(a)))
	if st, err := os.Stat(path); err == nil {
		a.Path, a.Size = path, st.Size()
		return a, nil
	}
	l.pruneCache(dir)
	ctx, cancel := context.WithTimeout(ctx, fetchDeadline)
	defer cancel()
	tmp, err := os.CreateTemp(dir, ".part-*")
	if err != nil {
		return a, domain.E(domain.Unavailable, err, "the cache folder takes no file")
	}
	defer os.Remove(tmp.Name())
	var got domain.Attachment
	if !l.contained("an adapter's download", func() { got, err = f.Fetch(ctx, a, maxFile, tmp) }) {
		err = &platform.Error{Kind: platform.GiveUp, Code: "panic", Reason: "the download crashed; that is a defect, and it is in the log"}
	}
	// It is on the disk before it has its name: a later attempt takes what has the
	// name for whole, also after a power cut.
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return a, domain.E(domain.Unavailable, err, "%s", platform.AsError(err).Reason)
	}
	got.Path = path
	return got, nil
}

// safeExt keeps a short, plain extension of the name; the rest of a foreign
// name never becomes part of a path.
func safeExt(a domain.Attachment) string {
	ext := strings.ToLower(filepath.Ext(a.Name))
	if len(ext) > 1 && len(ext) <= 9 && strings.Trim(ext[1:], "abcdefghijklmnopqrstuvwxyz0123456789") == "" {
		return ext
	}
	switch a.Kind {
	case domain.Image:
		return ".jpg"
	case domain.Voice:
		return ".ogg"
	}
	return ".bin"
}

// pruneCache removes cached media that is older than mediaKept, and the oldest
// beyond a count or a size, so that the cache never grows without bound. What
// comes next has room.
func (l *Lanes) pruneCache(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	var files []os.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(a, b os.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	size := int64(maxFile)
	for i, f := range files { // the latest first
		size += f.Size()
		if i+1 >= maxCached || size > maxCacheSize || l.Now().Sub(f.ModTime()) > mediaKept {
			_ = os.Remove(filepath.Join(dir, f.Name()))
		}
	}
}
