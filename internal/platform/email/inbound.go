package email

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"mime"
	netmail "net/mail"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-message/charset"
	"github.com/emersion/go-message/textproto"

	"hermes/internal/domain"
	"hermes/internal/lazyregexp"
)

const (
	maxHeader  = 128 << 10 // bytes of one mail's header that are read
	maxID      = 200       // bytes of a Message-ID that are kept; a digest stands in for a longer one
	maxSubject = 300       // characters
)

var headerSection = &imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, Peek: true, Partial: &imap.SectionPartial{Size: maxHeader}}

// mail makes an event of a mail; ok is false when it is not to be answered.
func (a *Adapter) mail(validity uint32, m letter) (in domain.Inbound, ok bool) {
	in, why := a.envelope(m)
	if why != "" {
		a.log.Info("a mail is not answered: "+why, "uid", uint32(m.uid), "from", clip(in.UserID, 100))
		return in, false
	}
	subject := m.header.subject()
	in.Text = composed(subject, trimQuoted(m.text(a.cfg.MaxText)), isReply(m.header))
	in.Attachments = m.attachments(validity)
	if in.Text == "" && len(in.Attachments) == 0 {
		in.Text = "(an empty mail)"
	}
	a.threads.set(in.ThreadID, thread{subject: plainSubject(subject), last: in.MessageID})
	return in, true
}

// header is a mail's header; the zero value is empty.
type header struct{ textproto.Header }

// readHeader reads a header, or as much of it as can be understood.
func readHeader(raw []byte) header {
	h, err := textproto.ReadHeader(bufio.NewReader(bytes.NewReader(raw)))
	if err == nil {
		return header{h}
	}
	// It was cut, or has lines that are none: what does have a name counts.
	var lines []string
	for line := range strings.SplitSeq(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\n") {
		name, _, named := strings.Cut(line, ":")
		folded := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
		if folded && len(lines) > 0 {
			lines[len(lines)-1] += "\r\n" + line
		} else if named && name != "" && fieldName.MatchString(name) {
			lines = append(lines, line)
		}
	}
	h, err = textproto.ReadHeader(bufio.NewReader(strings.NewReader(strings.Join(lines, "\r\n") + "\r\n\r\n")))
	if err != nil {
		return header{}
	}
	return header{h}
}

var fieldName = lazyregexp.New(`^[!-9;-~]+$`)

var words = &mime.WordDecoder{CharsetReader: charset.Reader}

// subject is decoded (RFC 2047) and on one line.
func (h header) subject() string {
	v := h.Get("Subject")
	if decoded, err := words.DecodeHeader(v); err == nil {
		v = decoded
	}
	v = legible([]byte(v))
	return oneLine(v)
}

// sender is the one address of From.
func (h header) sender() (address, name string, ok bool) {
	if len(h.values("From")) != 1 {
		return "", "", false // two of them would be read differently by different programs
	}
	from, ok := oneAddress(h.Get("From"))
	if !ok || len(from.Address) > 254 || strings.ContainsFunc(from.Address, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return "", "", false
	}
	name = oneLine(clip(from.Name, 100))
	if strings.ContainsAny(name, ats) {
		name = "" // a name that looks like an address passes for it
	}
	return lower(from.Address), name, true
}

// ats is what looks like an @.
const ats = "@＠﹫"

// oneAddress reads a list of addresses that has one. Some programs write names
// with commas or brackets as they are: that has one meaning, too, where the list
// ends with an address in angle brackets and nothing else in it looks like one.
func oneAddress(v string) (*netmail.Address, bool) {
	v = strings.TrimSpace(legible([]byte(v)))
	p := netmail.AddressParser{WordDecoder: words}
	if list, err := p.ParseList(v); err == nil {
		if len(list) != 1 {
			return nil, false
		}
		return list[0], true
	}
	name, rest, _ := strings.Cut(v, "<")
	address, closed := strings.CutSuffix(rest, ">")
	if !closed || strings.ContainsAny(name, ats) {
		return nil, false
	}
	one, err := p.Parse("<" + address + ">")
	if err != nil {
		return nil, false
	}
	if decoded, err := words.DecodeHeader(name); err == nil {
		name = decoded
	}
	one.Name = strings.Trim(name, "\" ")
	return one, true
}

// lower makes the letters small that programs agree on: of others, two that are
// not the same have the same small one.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// oneLine makes a text of one line that shows what it is.
func oneLine(s string) string { return strings.Join(strings.Fields(visible(clean(s))), " ") }

func (h header) values(name string) []string {
	var out []string
	for f := h.FieldsByKey(name); f.Next(); {
		out = append(out, f.Value())
	}
	return out
}

var msgID = lazyregexp.New(`<([^<>\s]+)>`)

// ids are the Message-IDs of a field, plain.
func (h header) ids(name string) []string {
	var out []string
	for _, m := range msgID.FindAllStringSubmatch(h.Get(name), 200) {
		out = append(out, plainID(m[1]))
	}
	return out
}

// plainID keeps an id that can be kept.
func plainID(s string) string {
	if len(s) <= maxID && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0 {
		return s
	}
	return digest(s)
}

// envelope reads who wrote a mail and where it belongs; why is set when it is
// not to be answered.
func (a *Adapter) envelope(m letter) (in domain.Inbound, why string) {
	h := m.header
	if m.arrived.IsZero() {
		m.arrived = a.now() // a server that does not say it
	}
	from, name, ok := h.sender()
	if !ok {
		return in, "it has no sender, or several"
	}
	in.UserID, in.UserName = from, name
	if why := a.automatic(h, from); why != "" {
		return in, why
	}
	if why := a.forged(h, from); why != "" {
		return in, why
	}
	if !a.senders.allow(from, a.cfg.PerSender, a.cfg.SenderEvery, m.arrived) {
		return in, "its sender writes more than people do"
	}
	var id string
	if own := h.ids("Message-Id"); len(own) > 0 {
		id = own[0]
	} else {
		id = "none-" + digest(h.Get("Date"), h.Get("From"), h.Get("Subject"), strconv.FormatInt(m.size, 10), strings.Join(m.plain, "\n"), strings.Join(m.html, "\n"))
	}
	root := id
	if refs := h.ids("References"); len(refs) > 0 {
		root = refs[0]
	} else if to := h.ids("In-Reply-To"); len(to) > 0 {
		root = to[0]
	}
	in.Address = domain.Address{Platform: Name, ChatID: from, ThreadID: root}
	in.Account, in.ChatType, in.ChatName, in.MessageID, in.EventID = a.cfg.Address, domain.ChatDM, clip(h.subject(), maxSubject), id, id
	// Some programs write the same Message-ID into all their mails, and somebody
	// who knows one could be there first with it: a mail is known again by who
	// wrote it and when, too.
	in.EventID += "#" + digest(from, h.Get("Date"))
	in.SentAt = m.arrived
	return in, ""
}

// digest is a short sum of texts.
func digest(texts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(texts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// forged says why a mail is not taken to be from whom it says that it is; "" when
// it is, or when nobody can tell and it need not be shown.
func (a *Adapter) forged(h header, from string) string {
	if a.cfg.AuthServer == "" {
		return ""
	}
	switch verdict := dmarc(h.values("Authentication-Results"), a.cfg.AuthServer, domainOf(from)); {
	case verdict == dmarcFail:
		return "the provider's server (" + a.cfg.AuthServer + ") says that it is not from whom it says it is (dmarc=fail)"
	case a.cfg.RequireDMARC && verdict != dmarcPass:
		return "the provider's server (" + a.cfg.AuthServer + ") does not say that it is from whom it says it is (dmarc=pass)"
	}
	return ""
}

// automatic says why a mail must not be answered by a machine
// (https://www.rfc-editor.org/rfc/rfc3834#section-2); "" when it may.
func (a *Adapter) automatic(h header, from string) string {
	lower := func(name string) string { return strings.ToLower(strings.TrimSpace(h.Get(name))) }
	first, _, _ := strings.Cut(lower("Auto-Submitted"), ";")
	local, _, _ := strings.Cut(from, "@")
	kind := lower("Content-Type")
	switch {
	case a.ours(from):
		return "it is our own"
	case strings.TrimSpace(first) != "" && strings.TrimSpace(first) != "no":
		return "a machine wrote it (Auto-Submitted)"
	case h.Has("List-Id") || h.Has("List-Post") || h.Has("Mailing-List"):
		return "it came over a mailing list"
	case lower("Precedence") == "bulk" || lower("Precedence") == "junk" || lower("Precedence") == "list" || lower("Precedence") == "auto_reply":
		return "it is not one person's mail to another (Precedence)"
	case h.Has("X-Autoreply") || h.Has("X-Autorespond") || h.Has("X-Failed-Recipients") || h.Has("X-Loop") || lower("X-Autogenerated") != "":
		return "a machine wrote it"
	case strings.Contains(lower("X-Auto-Response-Suppress"), "all") || strings.Contains(lower("X-Auto-Response-Suppress"), "autoreply"):
		return "its sender wants no answer of a machine"
	case strings.HasPrefix(kind, "multipart/report") || strings.HasPrefix(kind, "message/delivery-status"):
		return "it is a report of a mail server"
	case h.Has("Return-Path") && strings.TrimSpace(h.Get("Return-Path")) == "<>":
		return "it is a report of a mail server"
	case local == "mailer-daemon" || local == "postmaster" || strings.HasPrefix(local, "noreply") || strings.HasPrefix(local, "no-reply") || strings.HasPrefix(local, "donotreply") || strings.HasSuffix(local, "-bounces"):
		return "nobody reads answers to its sender"
	}
	for _, id := range h.ids("Message-Id") {
		if a.isOurID(id) {
			return "it is our own"
		}
	}
	return ""
}

var replyMark = lazyregexp.New(`(?i)^\s*((re|aw|sv|antw|odp|vs|res|ref)(\[\d+\])?\s*:\s*)+`)

// plainSubject is a subject without its marks of an answer.
func plainSubject(s string) string {
	return strings.TrimSpace(clip(replyMark.ReplaceAllString(s, ""), maxSubject))
}

func isReply(h header) bool {
	return h.Has("In-Reply-To") || h.Has("References") || replyMark.MatchString(h.subject())
}

// composed is what is said by a mail: the subject belongs to the first of a
// thread, but not before a command.
func composed(subject, body string, reply bool) string {
	body = strings.TrimSpace(body)
	subject = clip(subject, maxSubject)
	if reply || subject == "" || strings.HasPrefix(body, "/") {
		return body
	}
	if body == "" {
		return strings.TrimLeft(subject, "/ ")
	}
	return "Subject: " + subject + "\n\n" + body
}
