package discord

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"hermes/internal/platform"
	"hermes/internal/secret"
)

func fuzzed(t testing.TB) *Adapter {
	a, err := New(Config{Token: secret.Value("MTEwMDAwMDAwMDAwMDAwMDAwMQ.b.c"), AutoThread: true}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Whatever a message holds, its event is within bounds and valid text.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"id":"5","channel_id":"7","author":{"id":"9"},"content":"<@1100000000000000001> hi <#7> <a:b_c:1>","attachments":[{"id":"1","filename":"../x","size":-1}]}`))
	f.Add([]byte(`{"id":"5","channel_id":"7","author":{"id":"9","username":"\u0000"},"content":"\ud800","referenced_message":{"content":"x"},"sticker_items":[{"name":"s"}]}`))
	f.Add([]byte(`{"id":"","message_snapshots":[{}]}`))
	a := fuzzed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		var m message
		if json.Unmarshal(data, &m) != nil {
			return
		}
		m.GuildID = "" // with one a channel is asked for
		in, ok, err := a.event(t.Context(), &m)
		if err != nil || !ok {
			return
		}
		for _, s := range []string{in.Text, in.ReplyText, in.UserName, in.ChatName} {
			if !utf8.ValidString(s) || strings.Contains(s, "\x00") || len(s) > maxInText {
				t.Errorf("%q", s)
			}
		}
		for _, at := range in.Attachments {
			if strings.ContainsAny(at.Name, "/\\\x00") || at.Name == ".." || at.Size < 0 {
				t.Errorf("%+v", at)
			}
		}
		if in.EventID == "" || in.Text == "" && len(in.Attachments) == 0 {
			t.Errorf("%+v", in)
		}
	})
}

func FuzzInteraction(f *testing.F) {
	f.Add([]byte(`{"id":"5","channel_id":"7","type":2,"user":{"id":"9"},"data":{"name":"status","options":[{"value":1.5},{"value":{}}]}}`))
	f.Add([]byte(`{"id":"5","channel_id":"7","type":3,"user":{"id":"9"},"data":{"custom_id":"/approve"}}`))
	a := fuzzed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		var i interaction
		if json.Unmarshal(data, &i) != nil {
			return
		}
		i.GuildID = ""
		in, ok, err := a.interaction(t.Context(), &i)
		if err == nil && ok && (in.Text == "" || !utf8.ValidString(in.Text) || !strings.HasPrefix(in.EventID, "i")) {
			t.Errorf("%+v", in)
		}
	})
}

// A cursor is read back as it was written, however broken it came.
func FuzzPosition(f *testing.F) {
	f.Add(`{"seen":"5","channels":{"1":"2"},"day":"2026-01-01","identifies":7}`, "12", "99")
	f.Add("0", "0", "1")
	f.Add(`{"seen":"x","channels":{"a":"2","3":"-1"},"identifies":-7}`, "1", "1")
	f.Fuzz(func(t *testing.T, cursor, channel, id string) {
		p := readPosition(cursor)
		before := p.Channels[channel]
		p.move(channel, id)
		if now := p.Channels[channel]; later(before, now) {
			t.Errorf("the position went back from %q to %q", before, now)
		}
		if text := p.String(); readPosition(text).String() != text {
			t.Errorf("%s is read back as %s", text, readPosition(text))
		}
	})
}

func TestPositionsAreBounded(t *testing.T) {
	p := readPosition("")
	for i := range maxPositions + 50 {
		p.move(strconv.Itoa(1000+i), strconv.Itoa(1+i))
	}
	if len(p.Channels) != maxPositions || p.Channels["1000"] != "" || p.Seen != strconv.Itoa(maxPositions+50) {
		t.Errorf("%d positions, seen %s", len(p.Channels), p.Seen)
	}
	p.held = true
	p.move("1", "99999")
	if p.Seen == "99999" {
		t.Error("it moved while it was held")
	}
	if p.release(); p.Seen != "99999" {
		t.Errorf("seen %s", p.Seen)
	}
}

// The count begins anew with the day, in UTC.
func TestTheDaysSessions(t *testing.T) {
	now := time.Date(2026, 3, 1, 23, 0, 0, 0, time.FixedZone("", 3600))
	p := readPosition("")
	for range maxIdentifies {
		if p.begin(now) != 0 {
			t.Fatal("too early")
		}
	}
	if wait := p.begin(now); wait != 2*time.Hour {
		t.Errorf("wait %s", wait)
	}
	if wait := p.begin(now.Add(2 * time.Hour)); wait != 0 || p.Identifies != 1 {
		t.Errorf("wait %s, %d", wait, p.Identifies)
	}
}

// The bounds of what is remembered hold, and a limit that has passed is forgotten.
func TestLimitsAreBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimits(func() time.Time { return now })
	for i := range maxBuckets + 10 {
		l.put(strconv.Itoa(i), bucket{0, now.Add(time.Second)}, now)
	}
	if len(l.m) != maxBuckets {
		t.Errorf("%d", len(l.m))
	}
	now = now.Add(2 * time.Second)
	if d, _ := l.wait("1"); d != 0 {
		t.Errorf("it waits %s", d)
	}
	l.put("new", bucket{0, now.Add(time.Second)}, now)
	if len(l.m) != 1 {
		t.Errorf("%d after the time", len(l.m))
	}
}

// Addresses that a service may not send us to.
func TestPrivateAddresses(t *testing.T) {
	for base, private := range map[string]bool{"http://127.0.0.1:8": true, "http://localhost": true, "http://[::1]:1": true, "http://10.1.2.3": true,
		"http://100.64.0.1": true, "https://discord.com": false, "http://8.8.8.8": false} {
		if privateHost(base) != private {
			t.Errorf("%s: %v", base, !private)
		}
	}
	// A client for the real service refuses to connect to this machine.
	a := fuzzed(t)
	_, err := a.download(t.Context(), "https://127.0.0.1:1/x", "x", 10, nil)
	if e := platform.AsError(err); e.Kind != platform.GiveUp || !strings.Contains(e.Reason, "private address") {
		t.Errorf("%+v", e)
	}
	_, err = a.download(t.Context(), "http://example.org/x", "x", 10, nil)
	if e := platform.AsError(err); e.Kind != platform.GiveUp {
		t.Errorf("%+v", e)
	}
}
