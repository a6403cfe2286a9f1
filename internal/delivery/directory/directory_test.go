package directory_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hermes/internal/delivery/directory"
	"hermes/internal/domain"
	"hermes/internal/platform"
)

// world is what a directory is asked over.
type world struct {
	path     string
	channels map[domain.Platform][]platform.Channel
	seen     []domain.Source
	asked    int
	fail     error
}

func newWorld(t *testing.T) *world {
	return &world{path: filepath.Join(t.TempDir(), "channel_directory.json"), channels: map[domain.Platform][]platform.Channel{
		"discord": {
			{ID: "1001", Name: "engineering", Space: "Acme", Type: "channel"},
			{ID: "1002", Name: "general", Space: "Acme", Type: "channel"},
			{ID: "1003", Name: "general", Space: "Home", Type: "channel"},
		},
		"mattermost": {{ID: "mm4", Name: "town-square", Title: "Town Square", Space: "acme", Type: "channel"}},
	}, seen: []domain.Source{
		{Address: domain.Address{Platform: "telegram", ChatID: "-100"}, ChatType: domain.ChatGroup, ChatName: "Family"},
		{Address: domain.Address{Platform: "telegram", ChatID: "7"}, ChatType: domain.ChatDM, UserName: "Ann"},
		{Address: domain.Address{Platform: "discord", ChatID: "1009"}, ChatType: domain.ChatDM, UserName: "engineering"},
	}}
}

func (w *world) open() *directory.Directory {
	return directory.Open(directory.Options{
		Path: w.path, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Seen: func(context.Context) ([]domain.Source, error) { return w.seen, nil },
		List: func(_ context.Context, p domain.Platform) ([]platform.Channel, error) {
			w.asked++
			if w.fail != nil {
				return nil, w.fail
			}
			if w.channels[p] == nil {
				return nil, domain.E(domain.NotFound, nil, "no list")
			}
			return w.channels[p], nil
		},
		Capabilities: func(p domain.Platform) (platform.Capabilities, bool) {
			return platform.Capabilities{DigitIDs: p != "matrix"}, p != "unheard"
		},
	})
}

func (w *world) listed(t *testing.T) *directory.Directory {
	t.Helper()
	d := w.open()
	for p := range w.channels {
		if err := d.Refresh(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestNamesFindChats(t *testing.T) {
	d := newWorld(t).listed(t)
	for _, c := range []struct {
		platform domain.Platform
		text     string
		want     string      // "" is an id
		code     domain.Code // in place of want
		says     string
	}{
		{platform: "discord", text: "#engineering", want: "discord:1001"},
		{platform: "discord", text: "Engineering", want: "discord:1001"}, // a person who calls himself so does not get it
		{platform: "discord", text: "acme/#engineering", want: "discord:1001"},
		{platform: "discord", text: "#engineering:55", want: "discord:1001:55"},
		{platform: "discord", text: "Home/general", want: "discord:1003"},
		{platform: "discord", text: "#general", code: domain.Conflict, says: "Acme/#general (discord:1002) or Home/#general (discord:1003)"},
		{platform: "discord", text: "#enginering", code: domain.NotFound, says: "is it Acme/#engineering (discord:1001)"},
		{platform: "discord", text: "engine", code: domain.NotFound, says: "Acme/#engineering"},
		{platform: "discord", text: "ops", code: domain.NotFound, says: "hermes send --list"},
		{platform: "discord", text: "1001"},
		{platform: "discord", text: "4242"},
		{platform: "discord", text: "4242:17"},
		{platform: "mattermost", text: "Town Square", want: "mattermost:mm4"},
		{platform: "mattermost", text: "#town-square", want: "mattermost:mm4"},
		{platform: "mattermost", text: "kq8r1zq8r1zq8r1zq8r1zq8r1z"},
		{platform: "telegram", text: "Family", want: "telegram:-100"},
		{platform: "telegram", text: "ann", want: "telegram:7"},
		{platform: "telegram", text: "#ann", code: domain.NotFound, says: "Ann (telegram:7)"}, // a person is no channel
		{platform: "telegram", text: "@channel"},
		{platform: "telegram", text: "-1001234"},
		{platform: "matrix", text: "#room:example.org"},
		{platform: "matrix", text: "!abc:example.org"},
		{platform: "unheard", text: "word"},
		{platform: "unheard", text: "#word", code: domain.NotFound, says: "unheard knows no chat"},
		{text: "#engineering", want: "discord:1001"},
		{text: "#town-square", want: "mattermost:mm4"},
		{text: "#nothing", code: domain.NotFound, says: "no platform knows a chat"},
	} {
		got, found, err := d.Find(t.Context(), c.platform, c.text)
		switch {
		case c.code != "":
			if !domain.IsCode(err, c.code) || !strings.Contains(domain.MessageOf(err), c.says) {
				t.Errorf("%s:%s: %v, want %s with %q", c.platform, c.text, err, c.code, c.says)
			}
		case err != nil || found != (c.want != "") || found && got.String() != c.want:
			t.Errorf("%s:%s: %v %v %v, want %q", c.platform, c.text, got, found, err, c.want)
		}
	}
}

// What was said in a thread of a chat makes the chat's name no less clear.
func TestAThreadIsNoSecondChat(t *testing.T) {
	w := newWorld(t)
	w.seen = append(w.seen, domain.Source{Address: domain.Address{Platform: "discord", ChatID: "1001", ThreadID: "55"}, ChatType: domain.ChatGroup, ChatName: "engineering"})
	if a, found, err := w.listed(t).Find(t.Context(), "discord", "#engineering"); !found || err != nil || a.String() != "discord:1001" {
		t.Errorf("%v %v %v", a, found, err)
	}
}

func TestTheFileServesTheNextLife(t *testing.T) {
	w := newWorld(t)
	w.listed(t)
	w.seen = nil
	d := w.open() // a life in which nothing was listed yet
	for text, want := range map[string]string{"#engineering": "discord:1001", "Town Square": "mattermost:mm4", "Family": "telegram:-100"} {
		if a, found, err := d.Find(t.Context(), "", text); !found || err != nil || a.String() != want {
			t.Errorf("%s: %v %v %v", text, a, found, err)
		}
	}
	if age, ok := d.Age("discord"); !ok || age > time.Minute {
		t.Errorf("the list is %v old, %v", age, ok)
	}
	info, err := os.Stat(w.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	var form struct {
		Updated   time.Time `json:"updated_at"`
		Platforms map[string][]struct {
			ID, Name, Guild, Type string
		}
	}
	text, err := os.ReadFile(w.path)
	if err := errors.Join(err, json.Unmarshal(text, &form)); err != nil {
		t.Fatal(err)
	}
	if e := form.Platforms["discord"][0]; e.ID != "1001" || e.Name != "engineering" || e.Guild != "Acme" || e.Type != "channel" || form.Updated.IsZero() {
		t.Errorf("other readers see %+v", form)
	}
}

// A renamed group must not be found by the name that only the file remembers.
func TestWhatIsSeenBeatsTheFile(t *testing.T) {
	w := newWorld(t)
	w.listed(t)
	w.seen[0].ChatName = "Relatives"
	d := w.open()
	if _, found, err := d.Find(t.Context(), "telegram", "Family"); found || err == nil {
		t.Error("the old name still names the group")
	}
	if a, found, err := d.Find(t.Context(), "telegram", "Relatives"); !found || err != nil || a.ChatID != "-100" {
		t.Errorf("%v %v %v", a, found, err)
	}
}

func TestAFileOfTheOtherSystemAndABrokenOne(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(w.path, []byte(`{"updated_at": null, "platforms": {"slack": [{"id": "C0ORCH", "name": "orchestration", "type": "private"}], "telegram": []}, "x": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if a, found, err := w.open().Find(t.Context(), "slack", "#orchestration"); !found || err != nil || a.ChatID != "C0ORCH" {
		t.Errorf("%v %v %v", a, found, err)
	}
	if err := os.WriteFile(w.path, []byte(`{"platforms": [`), 0o600); err != nil {
		t.Fatal(err)
	}
	d := w.open()
	if err := d.Refresh(t.Context(), "discord"); err != nil {
		t.Fatal(err)
	}
	if _, found, _ := d.Find(t.Context(), "discord", "#engineering"); !found {
		t.Error("a broken file keeps the directory from being made anew")
	}
}

func TestWhatIsKnownStaysWhenAPlatformDoesNotAnswer(t *testing.T) {
	w := newWorld(t)
	d := w.listed(t)
	w.fail = domain.E(domain.Unavailable, nil, "away")
	if err := d.Refresh(t.Context(), "discord"); !domain.IsCode(err, domain.Unavailable) {
		t.Errorf("%v", err)
	}
	if _, found, _ := d.Find(t.Context(), "discord", "#engineering"); !found {
		t.Error("the list is gone")
	}
}

// A storm of ten seconds costs three requests, and quiet costs none.
func TestChangesAreAskedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.open()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { d.Run(ctx); close(done) }()
		for range 100 {
			d.Changed("discord")
			time.Sleep(100 * time.Millisecond) // the bubble's clock
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if w.asked < 1 || w.asked > 3 {
			t.Errorf("asked %d times", w.asked)
		}
		asked := w.asked
		w.channels["discord"] = append(w.channels["discord"], platform.Channel{ID: "1004", Name: "new", Space: "Acme", Type: "channel"})
		if _, found, err := d.Find(ctx, "discord", "#new"); found || err == nil {
			t.Error("found before it was listed")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, found, err := d.Find(ctx, "discord", "#new"); !found || err != nil || w.asked != asked+1 {
			t.Errorf("a name that was missed is not asked for: %v %v, asked %d times more", found, err, w.asked-asked)
		}
		cancel()
		<-done
	})
}

func FuzzFind(f *testing.F) {
	for _, s := range []string{"#engineering", "Acme/#general", "#a:b:c", "12:34", ":", "#", "/#", " "} {
		f.Add(s)
	}
	dir := f.TempDir()
	w := &world{path: filepath.Join(dir, "d.json"), channels: map[domain.Platform][]platform.Channel{"discord": {{ID: "1001", Name: "engineering", Space: "Acme", Type: "channel"}}}}
	d := w.open()
	if err := d.Refresh(context.Background(), "discord"); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, found, err := d.Find(t.Context(), "discord", text)
		if found && (err != nil || a.ChatID != "1001") || !found && a != (domain.Address{}) {
			t.Errorf("%q: %v %v %v", text, a, found, err)
		}
	})
}
