package email

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-message"

	"hermes/internal/domain"
	"hermes/internal/platform"
	chat "hermes/internal/platform/clean"
)

// The bounds of a mail's parts.
const (
	maxMail  = 64 << 20 // bytes of a mail that are looked at
	maxParts = 100
	maxTexts = 5 // that are joined
	maxFiles = 10
)

// letter is a mail as far as it is needed. The server's own idea of its parts
// (BODYSTRUCTURE) is not asked for: programs disagree on that grammar, and one
// mail that cannot be read must not close the mailbox.
type letter struct {
	uid     imap.UID
	arrived time.Time
	size    int64 // bytes
	header  header
	plain   []string
	html    []string
	files   []part

	// Of a report: what it says, and the header of the mail that it is about.
	status, original string
}

// part is one file of a mail.
type part struct {
	path     []int // as IMAP numbers it
	encoding string
	name     string
	media    string
	size     int64 // bytes, decoded
}

// read reads a mail; found is false when it is not there any more. What is not
// text runs through without being kept.
func (a *Adapter) read(c *imapConn, uid imap.UID) (m letter, found bool, err error) {
	m.uid = uid
	late := time.AfterFunc(a.cfg.Timeout, func() { _ = c.raw.Close() })
	defer late.Stop()
	cmd := c.Client.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{UID: true, InternalDate: true, RFC822Size: true, BodySection: []*imap.FetchItemBodySection{{Peek: true}}})
	for one := cmd.Next(); one != nil; one = cmd.Next() {
		for item := one.Next(); item != nil; item = one.Next() {
			switch item := item.(type) {
			case imapclient.FetchItemDataInternalDate:
				m.arrived = item.Time
			case imapclient.FetchItemDataRFC822Size:
				m.size = item.Size
			case imapclient.FetchItemDataBodySection:
				if item.Literal != nil && !found {
					found = true
					m.take(onRead{item.Literal, func() { late.Reset(a.cfg.Timeout) }}, a.cfg.MaxText)
				}
			}
		}
	}
	return m, found, cmd.Close()
}

// take reads the text of a mail, as well as it can be read.
func (m *letter) take(r io.Reader, maxText int) {
	in := bufio.NewReaderSize(io.LimitReader(r, maxMail), maxHeader)
	head, _ := in.Peek(maxHeader)
	if i := bytes.Index(head, []byte("\r\n\r\n")); i >= 0 {
		head = head[:i+4]
	}
	m.header = readHeader(bytes.Clone(head))
	e, err := message.Read(in)
	if e != nil {
		if media, params, _ := e.Header.ContentType(); strings.HasPrefix(media, "multipart/") && params["boundary"] == "" {
			// Nobody knows where its parts begin.
			rest, _ := io.ReadAll(io.LimitReader(e.Body, int64(maxText)))
			m.plain = append(m.plain, clean(legible(rest)))
			return
		}
	}
	if e == nil || err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err) {
		rest, _ := io.ReadAll(io.LimitReader(in, int64(maxText)))
		m.plain = append(m.plain, clean(legible(rest)))
		return
	}
	n := 0
	// A mail that breaks off in the middle is read as far as it goes.
	_ = e.Walk(func(path []int, e *message.Entity, err error) error {
		if err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err) {
			return err
		}
		if n++; n > maxParts {
			return io.EOF
		}
		if media, _, _ := e.Header.ContentType(); !strings.HasPrefix(media, "multipart/") {
			m.leaf(path, e, maxText)
		}
		return nil
	})
}

// leaf sorts one part.
func (m *letter) leaf(path []int, e *message.Entity, maxText int) {
	media, params := contentType(e.Header)
	disposition, more, _ := e.Header.ContentDisposition()
	name := more["filename"]
	if name == "" {
		name = params["name"]
	}
	if decoded, err := words.DecodeHeader(name); err == nil {
		name = decoded
	}
	attached := strings.EqualFold(disposition, "attachment")
	text := func(most int) string {
		b, _ := io.ReadAll(io.LimitReader(e.Body, int64(most))) // a cut part ends too early
		return clean(legible(b))
	}
	switch {
	case m.isReport() && (media == "message/delivery-status" || media == "message/global-delivery-status"):
		m.status = text(maxReport)
	case m.isReport() && (media == "message/rfc822" || media == "text/rfc822-headers" || media == "message/global" || media == "message/global-headers"):
		m.original, _, _ = strings.Cut(text(maxReport), "\n\n")
		m.original += "\n\n"
	case media == "text/plain" && !attached && name == "":
		s := text(maxText)
		if strings.EqualFold(params["format"], "flowed") {
			s = unflow(s, strings.EqualFold(params["delsp"], "yes"))
		}
		m.plain = append(m.plain, s)
	case media == "text/html" && !attached && name == "":
		m.html = append(m.html, text(4*maxText)) // pages are mostly marks
	case media == "application/pgp-signature" || media == "application/pkcs7-signature" || media == "application/x-pkcs7-signature":
	case name == "" && e.Header.Has("Content-Id") && !attached:
		// a picture inside the page
	case len(m.files) < maxFiles:
		p := part{encoding: e.Header.Get("Content-Transfer-Encoding"), media: media}
		if name != "" {
			p.name = safeName(name)
		}
		for _, i := range path {
			p.path = append(p.path, i+1)
		}
		if len(p.path) == 0 {
			p.path = []int{1}
		}
		if p.name == "" {
			p.name = "file" + fileExt(media)
		}
		p.size, _ = io.Copy(io.Discard, e.Body)
		m.files = append(m.files, p)
	}
}

// contentType is a part's type; where it is written wrongly, what can be read of
// it.
func contentType(h message.Header) (media string, params map[string]string) {
	media, params, err := h.ContentType()
	if err != nil {
		media, _, _ = strings.Cut(h.Get("Content-Type"), ";")
		media = strings.ToLower(strings.TrimSpace(media))
	}
	if !strings.Contains(media, "/") {
		media = "text/plain" // https://www.rfc-editor.org/rfc/rfc2045#section-5.2
	}
	return media, params
}

// text is what the mail says: its plain text, else its page.
func (m *letter) text(most int) string {
	plain := strings.Join(m.plain[:min(len(m.plain), maxTexts)], "\n")
	if strings.TrimSpace(plain) != "" || len(m.html) == 0 {
		if len(plain) > most {
			plain = strings.ToValidUTF8(plain[:most], "")
		}
		return plain
	}
	return htmlText(m.html[0], most)
}

// safeName is a file's name without a path, and without what shells, terminals
// and people take for something else; "" when nothing is left of it.
func safeName(s string) string {
	s = strings.Map(func(r rune) rune {
		if strings.ContainsRune(`:*?"<>|$`+"`", r) {
			return '_'
		}
		return r
	}, chat.FileName(s))
	if s = strings.TrimLeft(s, ".- "); s == "_" {
		return ""
	}
	return s
}

func fileExt(media string) string {
	if media == "message/rfc822" {
		return ".eml"
	}
	if list, err := mime.ExtensionsByType(media); err == nil && len(list) > 0 {
		return list[0]
	}
	return ".bin"
}

// attachments are the files of a mail, to be fetched when they are needed.
func (m *letter) attachments(validity uint32) []domain.Attachment {
	var out []domain.Attachment
	for _, p := range m.files {
		out = append(out, domain.Attachment{Kind: kindOf(p.media), Name: p.name, MIME: p.media, Size: p.size, Ref: fileRef{validity, m.uid, p.path, p.encoding}.String()})
	}
	return out
}

func kindOf(media string) domain.AttachmentKind {
	switch {
	case strings.HasPrefix(media, "image/"):
		return domain.Image
	case strings.HasPrefix(media, "audio/"):
		return domain.Audio
	case strings.HasPrefix(media, "video/"):
		return domain.Video
	}
	return domain.Document
}

// fileRef finds a file again.
type fileRef struct {
	validity uint32
	uid      imap.UID
	path     []int
	encoding string
}

func (r fileRef) String() string {
	var at []string
	for _, n := range r.path {
		at = append(at, strconv.Itoa(n))
	}
	return fmt.Sprintf("%d/%d/%s/%s", r.validity, r.uid, strings.Join(at, "."), clip(r.encoding, 20))
}

func parseRef(s string) (r fileRef, ok bool) {
	f := strings.SplitN(s, "/", 4)
	if len(f) != 4 {
		return r, false
	}
	v, err1 := strconv.ParseUint(f[0], 10, 32)
	u, err2 := strconv.ParseUint(f[1], 10, 32)
	if err1 != nil || err2 != nil || v == 0 || u == 0 {
		return r, false
	}
	r = fileRef{validity: uint32(v), uid: imap.UID(u), encoding: f[3]}
	for one := range strings.SplitSeq(f[2], ".") {
		n, err := strconv.Atoi(one)
		if err != nil || n < 1 || len(r.path) == 50 {
			return r, false
		}
		r.path = append(r.path, n)
	}
	return r, true
}

// Fetch downloads an attachment over a connection of its own.
func (a *Adapter) Fetch(ctx context.Context, at domain.Attachment, most int64, w io.Writer) (domain.Attachment, error) {
	gone := &platform.Error{Kind: platform.GiveUp, Code: "email_file", Reason: "the mail with the file is not in the mailbox any more"}
	ref, ok := parseRef(at.Ref)
	if !ok {
		return at, gone
	}
	large := &platform.Error{Kind: platform.GiveUp, Code: "email_file", Reason: fmt.Sprintf("the file is larger than %d MB", most>>20)}
	if at.Size > most {
		return at, large
	}
	c, e := a.dialIMAP(ctx, nil)
	if e != nil {
		return at, e
	}
	defer c.end()
	box, err := c.open(a.cfg.Mailbox, true)
	if err != nil {
		return at, a.noMailbox(err)
	}
	if box.UIDValidity != ref.validity {
		return at, gone
	}
	section := &imap.FetchItemBodySection{Part: ref.path, Peek: true}
	cmd := c.Client.Fetch(imap.UIDSetNum(ref.uid), &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{section}})
	n, err := a.copyPart(c, cmd, ref, most, w)
	switch {
	case err != nil:
		return at, a.unreachable("IMAP", err)
	case n < 0:
		return at, gone
	case n > most:
		return at, large
	}
	at.Size = n
	return at, nil
}

// copyPart writes the decoded part of a fetch; -1 when there was none.
func (a *Adapter) copyPart(c *imapConn, cmd *imapclient.FetchCommand, ref fileRef, most int64, w io.Writer) (n int64, err error) {
	// A server that stops in the middle must not hold us: each read is bounded.
	late := time.AfterFunc(a.cfg.Timeout, func() { _ = c.raw.Close() })
	defer late.Stop()
	defer func() {
		if err != nil || n > most {
			_ = c.raw.Close() // with the rest in it
		}
		if end := cmd.Close(); err == nil && n <= most {
			err = end
		}
	}()
	n = -1
	for m := cmd.Next(); m != nil; m = cmd.Next() {
		for item := m.Next(); item != nil; item = m.Next() {
			body, ok := item.(imapclient.FetchItemDataBodySection)
			if !ok || body.Literal == nil || n >= 0 {
				continue
			}
			var h message.Header
			h.Set("Content-Type", "application/octet-stream")
			h.Set("Content-Transfer-Encoding", ref.encoding)
			e, err := message.New(h, onRead{body.Literal, func() { late.Reset(a.cfg.Timeout) }})
			if e == nil {
				return 0, err
			}
			if n, err = io.Copy(w, io.LimitReader(e.Body, most+1)); err != nil || n > most {
				return n, err
			}
		}
	}
	return n, nil
}

// onRead calls a function at each read.
type onRead struct {
	io.Reader
	f func()
}

func (r onRead) Read(p []byte) (int, error) {
	r.f()
	return r.Reader.Read(p)
}
