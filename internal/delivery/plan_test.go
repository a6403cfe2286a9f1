package delivery

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hermes/internal/delivery/markup"
	"hermes/internal/domain"
	"hermes/internal/platform"
)

var telegramLike = platform.Capabilities{
	MaxText: 4096, MaxCaption: 1024, Unit: platform.UTF16, Dialect: platform.DialectTelegramHTML, Buttons: true, MaxUpload: 1 << 20,
}

// planned is a delivery in short: text, first letter of its file's kind, and
// what else it has.
func planned(ds []domain.NewDelivery) []string {
	var out []string
	for _, d := range ds {
		s := d.Part.Text
		for _, a := range d.Part.Attachments {
			s += " +" + string(a.Kind) + ":" + a.Name
		}
		for _, b := range d.Part.Buttons {
			s += " [" + b.Label + "]"
		}
		if d.Part.ReplyTo != "" {
			s += " re:" + d.Part.ReplyTo
		}
		if d.Edit != "" {
			s += " edit:" + d.Edit
		}
		out = append(out, s)
	}
	return out
}

func file(t *testing.T, name string, size int) domain.Attachment {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	return domain.Attachment{Kind: domain.Document, Path: path}
}

func TestPlan(t *testing.T) {
	image, doc, empty, large := file(t, "a.png", 9), file(t, "b.pdf", 9), file(t, "empty.txt", 0), file(t, "large.mp4", 2<<20)
	yes := []domain.Button{{Label: "Yes", Command: "/yes"}}
	long := strings.Repeat("A sentence of words. ", 250)
	plain := platform.Capabilities{MaxText: 300, Dialect: platform.DialectPlain}
	tests := []struct {
		name string
		caps platform.Capabilities
		md   string
		o    PlanOptions
		want []string
	}{
		{"text", telegramLike, "**hi**", PlanOptions{ReplyTo: "5", Edit: "7"}, []string{"<b>hi</b> re:5 edit:7"}},
		{"nothing", telegramLike, " ", PlanOptions{}, nil},
		{"buttons", telegramLike, "ok?", PlanOptions{Buttons: yes}, []string{"ok? [Yes]"}},
		{"buttons spelled out", plain, "ok?", PlanOptions{Buttons: yes}, []string{"ok?\n\n• Yes: /yes"}},
		{"caption", telegramLike, "look", PlanOptions{Attachments: []domain.Attachment{image}, ReplyTo: "5"}, []string{"look +image:a.png re:5"}},
		{"file alone", telegramLike, "", PlanOptions{Attachments: []domain.Attachment{doc}}, []string{" +document:b.pdf"}},
		{"two files", telegramLike, "look", PlanOptions{Attachments: []domain.Attachment{image, doc}}, []string{"look", " +image:a.png", " +document:b.pdf"}},
		{"file and edit", telegramLike, "look", PlanOptions{Attachments: []domain.Attachment{doc}, Edit: "7"}, []string{"look edit:7", " +document:b.pdf"}},
		{"file and edit without text", telegramLike, "", PlanOptions{Attachments: []domain.Attachment{doc}, Edit: "7"}, []string{"📎 edit:7", " +document:b.pdf"}},
		{"media line", telegramLike, "look\nMEDIA:" + image.Path, PlanOptions{}, []string{"look +image:a.png"}},
		{"missing", telegramLike, "MEDIA:/nowhere/x.png", PlanOptions{}, []string{"📎 x.png: the file could not be read"}},
		{"empty", telegramLike, "", PlanOptions{Attachments: []domain.Attachment{empty}}, []string{"📎 empty.txt: the file is empty"}},
		{"too large", telegramLike, "see", PlanOptions{Attachments: []domain.Attachment{large}}, []string{"see\n\n📎 large.mp4: it has 2 MB and at most 1 MB can be sent here; it is at " + large.Path}},
		{"no files there", plain, "see", PlanOptions{Attachments: []domain.Attachment{doc}}, []string{"see\n\n📎 b.pdf: files cannot be sent here; it is at " + doc.Path}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(nil)
			b.d.Attach(&script{name: "p", caps: tt.caps})
			got := b.d.Plan(domain.Address{Platform: "p", ChatID: "1"}, "reply", tt.md, tt.o)
			if d := cmp.Diff(tt.want, planned(got)); d != "" {
				t.Error(d)
			}
		})
	}

	b := newBench(nil)
	b.d.Attach(&script{name: "p", caps: telegramLike})
	got := b.d.Plan(domain.Address{Platform: "p", ChatID: "1"}, "reply", long, PlanOptions{ReplyTo: "5", Edit: "7", Buttons: yes, RunID: 3, Silent: true})
	if len(got) != 2 || got[0].Edit != "7" || got[0].Part.ReplyTo != "5" || got[0].Part.Buttons != nil ||
		got[1].Edit != "" || got[1].Part.ReplyTo != "" || len(got[1].Part.Buttons) != 1 || got[1].RunID != 3 || !got[1].Part.Silent {
		t.Errorf("long text: %+v", got)
	}
	for _, n := range got {
		if m := marked(n.Part, telegramLike); !strings.HasPrefix(m.Text, repeatMark) || markup.Len(m.Plain, platform.UTF16) > 4096 {
			t.Errorf("no room for the mark of a repetition in %d units", markup.Len(n.Part.Plain, platform.UTF16))
		}
	}
}

func TestPlanForAPlatformThatIsNotAttached(t *testing.T) {
	to := domain.Address{Platform: "later", ChatID: "1"}
	b := newBench(func(o *Options) {
		o.Capabilities = func(p domain.Platform) (platform.Capabilities, bool) { return telegramLike, p == "later" }
	})
	if got := planned(b.d.Plan(to, "reply", "**x**", PlanOptions{})); got[0] != "<b>x</b>" {
		t.Errorf("known by name: %q", got)
	}
	if got := planned(b.d.Plan(domain.Address{Platform: "unknown"}, "reply", "**x**", PlanOptions{})); got[0] != "**x**" {
		t.Errorf("unknown: %q", got)
	}
}

func TestPlanAsksBeforeAFileIsSent(t *testing.T) {
	secret := file(t, "secret.env", 9)
	b := newBench(func(o *Options) {
		o.AllowFile = func(string) error { return domain.E(domain.Forbidden, errors.New("cause"), "it holds secrets") }
	})
	b.d.Attach(&script{name: "p", caps: telegramLike})
	got := b.d.Plan(domain.Address{Platform: "p"}, "reply", "MEDIA:"+secret.Path, PlanOptions{})
	if s := planned(got); len(s) != 1 || s[0] != "📎 secret.env: not sent: it holds secrets" {
		t.Errorf("got %q", s)
	}
}
