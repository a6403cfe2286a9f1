package delivery

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hermes/internal/delivery/markup"
	"hermes/internal/domain"
	"hermes/internal/platform"
)

// PlanOptions is what a message has beside its text.
type PlanOptions struct {
	Attachments []domain.Attachment // files on this host
	Buttons     []domain.Button     // under the last text
	ReplyTo     string              // platform id of the message that the first part answers
	Edit        string              // platform id of a message that the first text replaces
	RunID       int64
	Silent      bool // no notification sound
	// Commands are the names of the commands that a text of ours speaks of as
	// "/name": it is written as people type it there (Capabilities.CommandSign).
	Commands  []string
	NotBefore time.Time
}

// Plan renders a message for its platform: text within the platform's limits,
// files after it or with it as their caption. Lines MEDIA:/path of the text
// become files too. What the platform cannot take is said in the text. The
// deliveries are to be committed in the order in which they stand.
//
// What is addressed to a place that is no chat of its own (platform.Router) is
// planned for the chat that it is sent on to.
func (d *Dispatcher) Plan(to domain.Address, kind, md string, o PlanOptions) []domain.NewDelivery {
	if dest := d.route(to); dest != to {
		to, o.ReplyTo, o.Edit = dest, "", ""
	}
	caps := d.capabilities(to.Platform)
	text, paths := markup.ExtractMedia(typed(md, o.Commands, caps.CommandSign))
	files := append([]domain.Attachment(nil), o.Attachments...)
	for _, p := range paths {
		files = append(files, domain.Attachment{Path: p})
	}
	files, notes := d.checkFiles(files, caps)
	text += notes
	if !caps.Buttons {
		text += spelledOut(o.Buttons)
		o.Buttons = nil
	}
	parts := caption(text, files, o, caps)
	if parts == nil {
		parts = textParts(text, files, o, caps)
		for _, f := range files {
			parts = append(parts, domain.Part{Attachments: []domain.Attachment{f}})
		}
	}
	out := make([]domain.NewDelivery, len(parts))
	for i, p := range parts {
		p.Silent = o.Silent
		out[i] = domain.NewDelivery{To: to, Part: p, RunID: o.RunID, Kind: kind, NotBefore: o.NotBefore}
	}
	if len(out) > 0 {
		out[0].Part.ReplyTo, out[0].Edit = o.ReplyTo, o.Edit
	}
	return out
}

// route is where a message for an address goes.
func (d *Dispatcher) route(to domain.Address) domain.Address {
	a, _ := d.Adapter(to.Platform)
	if r, ok := a.(platform.Router); ok {
		return r.Route(to)
	}
	return to
}

// textParts renders the text, with the buttons under its end.
func textParts(text string, files []domain.Attachment, o PlanOptions, caps platform.Capabilities) []domain.Part {
	parts := markup.Render(text, roomForMark(caps))
	if len(parts) == 0 && (len(o.Buttons) > 0 || (o.Edit != "" && len(files) > 0)) {
		// Buttons need a text to stand under, and a preview one to end with.
		parts = markup.Render("📎", caps)
	}
	if len(parts) > 0 {
		parts[len(parts)-1].Buttons = o.Buttons
	}
	return parts
}

// caption joins one file and a short text into one message; nil when they do
// not fit together.
func caption(text string, files []domain.Attachment, o PlanOptions, caps platform.Capabilities) []domain.Part {
	if len(files) != 1 || caps.MaxCaption <= 0 || o.Edit != "" || len(text) > 8*caps.MaxCaption {
		return nil
	}
	caps.MaxText = caps.MaxCaption
	parts := markup.Render(text, roomForMark(caps))
	if len(parts) != 1 {
		return nil
	}
	parts[0].Attachments, parts[0].Buttons = files, o.Buttons
	return parts
}

// roomForMark leaves room in each part for the mark of a repetition, where the
// platform can make one necessary.
func roomForMark(caps platform.Capabilities) platform.Capabilities {
	if room := repeatRoom(caps); caps.Idempotency != platform.IdempotencyAlways && caps.MaxText > 8*room {
		caps.MaxText -= room
	}
	return caps
}

// capabilities gives those of the attached adapter, else those known by name,
// else of a platform that takes Markdown.
func (d *Dispatcher) capabilities(name domain.Platform) platform.Capabilities {
	if a, ok := d.Adapter(name); ok {
		return a.Capabilities()
	}
	if d.o.Capabilities != nil {
		if caps, ok := d.o.Capabilities(name); ok {
			return caps
		}
	}
	return platform.Capabilities{MaxText: markup.DefaultMaxText, Dialect: platform.DialectMarkdown}
}

// checkFiles completes what is known of the files, and says of each that
// cannot be sent why.
func (d *Dispatcher) checkFiles(files []domain.Attachment, caps platform.Capabilities) (ok []domain.Attachment, notes string) {
	for _, f := range files {
		why := ""
		if f.Path != "" {
			why = d.completeFile(&f)
		}
		switch {
		case why != "":
		case caps.MaxUpload == 0:
			why = "files cannot be sent here; it is at " + f.Path
		case f.Size > caps.MaxUpload:
			why = fmt.Sprintf("it has %d MB and at most %d MB can be sent here; it is at %s", f.Size>>20, caps.MaxUpload>>20, f.Path)
		default:
			ok = append(ok, f)
			continue
		}
		notes += "\n\n📎 " + markup.Escape(f.Name) + ": " + markup.Escape(why)
	}
	return ok, notes
}

// completeFile fills in name, size and kind of a file on this host; why says
// what forbids sending it.
func (d *Dispatcher) completeFile(f *domain.Attachment) (why string) {
	if f.Name == "" {
		f.Name = filepath.Base(f.Path)
	}
	if f.Kind == "" || f.Kind == domain.Document {
		f.Kind = kindOf(f.Name)
	}
	if d.o.AllowFile != nil {
		if err := d.o.AllowFile(f.Path); err != nil {
			return "not sent: " + domain.MessageOf(err)
		}
	}
	info, err := os.Stat(f.Path)
	switch {
	case err != nil:
		return "the file could not be read"
	case !info.Mode().IsRegular():
		return "it is not a file"
	case info.Size() == 0:
		return "the file is empty"
	}
	f.Size = info.Size()
	return ""
}

// kinds are how files are sent by their extension.
var kinds = map[string]domain.AttachmentKind{
	".jpg": domain.Image, ".jpeg": domain.Image, ".png": domain.Image, ".webp": domain.Image,
	".mp3": domain.Audio, ".m4a": domain.Audio, ".flac": domain.Audio, ".wav": domain.Audio,
	".ogg": domain.Voice, ".opus": domain.Voice, ".oga": domain.Voice,
	".mp4": domain.Video, ".mov": domain.Video, ".webm": domain.Video,
}

func kindOf(name string) domain.AttachmentKind {
	if k, ok := kinds[strings.ToLower(filepath.Ext(name))]; ok {
		return k
	}
	return domain.Document
}

// spelledOut lists the commands of buttons for a platform without them.
func spelledOut(buttons []domain.Button) string {
	var b strings.Builder
	for i, btn := range buttons {
		if i == 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "\n- %s: `%s`", markup.Escape(btn.Label), btn.Command)
	}
	return b.String()
}
