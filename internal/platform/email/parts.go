package email

import (
	"context"
	"fmt"
	"io"
	"mime"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-message"

	"hermes/internal/domain"
	"hermes/internal/platform"
)

// The bounds of a mail's parts.
const (
	maxParts = 100 // that are looked at
	maxTexts = 5   // that are joined
	maxFiles = 10
)

// part is one leaf of a mail.
type part struct {
	path        []int
	contentType string // with its character set
	encoding    string
	name        string
	size        int64 // encoded
	media       string
}

// partList is what a mail is made of.
type partList struct {
	plain, html []part
	files       []part
}

// parts sorts the leaves of a mail.
func parts(bs imap.BodyStructure) partList {
	var l partList
	if bs == nil {
		return l
	}
	n := 0
	bs.Walk(func(p []int, b imap.BodyStructure) bool {
		one, leaf := b.(*imap.BodyStructureSinglePart)
		if !leaf {
			return n < maxParts
		}
		if n++; n > maxParts {
			return false
		}
		l.add(p, one)
		return true
	})
	return l
}

func (l *partList) add(at []int, b *imap.BodyStructureSinglePart) {
	media := b.MediaType()
	params := map[string]string{}
	if cs := b.Params["charset"]; cs != "" {
		params["charset"] = cs
	}
	name := b.Filename()
	if decoded, err := words.DecodeHeader(name); err == nil {
		name = decoded
	}
	p := part{path: append([]int(nil), at...), contentType: mime.FormatMediaType(media, params), encoding: b.Encoding, name: safeName(name), size: int64(b.Size), media: media}
	attached := b.Disposition() != nil && strings.EqualFold(b.Disposition().Value, "attachment")
	switch {
	case media == "text/plain" && !attached && name == "":
		l.plain = append(l.plain, p)
	case media == "text/html" && !attached && name == "":
		l.html = append(l.html, p)
	case media == "application/pgp-signature" || media == "application/pkcs7-signature" || media == "application/x-pkcs7-signature":
	case name == "" && b.ID != "" && !attached:
		// a picture inside the page
	default:
		if p.name == "" {
			p.name = "file" + fileExt(media)
		}
		l.files = append(l.files, p)
	}
}

// safeName is a file's name without a path, and without what shells, terminals
// and people take for something else.
func safeName(s string) string {
	s = path.Base(strings.ReplaceAll(clean(s), "\\", "/"))
	s = strings.Map(func(r rune) rune {
		switch {
		case r < ' ' || strings.ContainsRune(`/\:*?"<>|`+"`$\n\t", r):
			return '_'
		case r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' || r == '\u200e' || r == '\u200f':
			return -1 // which show a name's end in its middle
		}
		return r
	}, s)
	s = strings.TrimLeft(strings.TrimSpace(s), ".-")
	if ext := path.Ext(s); len(s) > 120 {
		s = clip(strings.TrimSuffix(s, ext), 100) + clip(ext, 12)
	}
	if s == "_" {
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
func (l partList) attachments(validity uint32, uid imap.UID) []domain.Attachment {
	var out []domain.Attachment
	for _, p := range l.files {
		if len(out) == maxFiles {
			break
		}
		a := domain.Attachment{Kind: kindOf(p.media), Name: p.name, MIME: p.media, Size: p.size, Ref: fileRef{validity, uid, p.path, p.encoding}.String()}
		if strings.EqualFold(p.encoding, "base64") {
			a.Size = p.size / 78 * 57 // lines of 76 characters and their ends
		}
		out = append(out, a)
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

// text reads what a mail says: its plain text, else its page.
func (a *Adapter) text(c *imapConn, uid imap.UID, l partList) (string, error) {
	var b strings.Builder
	for i, p := range l.plain {
		if i == maxTexts || b.Len() >= a.cfg.MaxText {
			break
		}
		s, err := a.partText(c, uid, p)
		if err != nil {
			return "", err
		}
		b.WriteString(s + "\n")
	}
	if strings.TrimSpace(b.String()) != "" || len(l.html) == 0 {
		return b.String(), nil
	}
	page, err := a.partText(c, uid, l.html[0])
	return htmlText(page, a.cfg.MaxText), err
}

// partText reads the beginning of a part.
func (a *Adapter) partText(c *imapConn, uid imap.UID, p part) (string, error) {
	most := a.cfg.MaxText
	if strings.HasPrefix(p.contentType, "text/html") {
		most *= 4 // pages are mostly marks
	}
	section := &imap.FetchItemBodySection{Part: p.path, Peek: true, Partial: &imap.SectionPartial{Size: int64(most)}}
	got, err := c.fetch(imap.UIDSetNum(uid), &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{section}})
	if err != nil || len(got) == 0 || len(got[0].BodySection) == 0 {
		return "", err
	}
	return decodeText(got[0].BodySection[0].Bytes, p.contentType, p.encoding, most), nil
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
