package home

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The zone under its name is the same zone.
func TestHostZone(t *testing.T) {
	zone := newHostZone(localtime).Zone()
	for _, month := range []time.Month{time.January, time.July} {
		at := time.Date(2026, month, 1, 12, 0, 0, 0, time.UTC)
		_, want := at.In(time.Local).Zone()
		if _, got := at.In(zone).Zone(); got != want {
			t.Errorf("%s is %d s from UTC in %s, the host's zone %d s", zone, got, month, want)
		}
	}
}

// A zone that is changed under a running program is followed, whether the file
// is a link, as timedatectl makes it, or holds the data itself.
func TestHostZoneIsFollowed(t *testing.T) {
	if time.Local.String() != "Local" {
		t.Logf("TZ names %s here, which nothing changes", time.Local)
		return
	}
	file := filepath.Join(t.TempDir(), "localtime")
	link := func(name string) {
		t.Helper()
		if err := os.Symlink("../usr/share/zoneinfo/"+name, file+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	link("Asia/Seoul")
	h := newHostZone(file)
	c := &Config{Timezone: time.UTC, Host: h}
	if h.Refresh() || c.Zone().String() != "Asia/Seoul" {
		t.Errorf("%s, and nothing was changed", c.Zone())
	}
	link("Europe/Berlin")
	if c.Zone().String() != "Asia/Seoul" || !h.Refresh() || h.Refresh() || c.Zone().String() != "Europe/Berlin" {
		t.Errorf("%s after the change", c.Zone())
	}
	link("Etc/UTC")
	if !h.Refresh() || c.Zone() != time.UTC {
		t.Errorf("%s after the change", c.Zone())
	}
	// The data themselves, and what is none.
	head := "TZif2" + strings.Repeat("\x00", 31) + "\x00\x00\x00\x01\x00\x00\x00\x04" // tzfile(5)
	korea := []byte(head + "\x00\x00\x7e\x90\x00\x00KST\x00" + head + "\x00\x00\x7e\x90\x00\x00KST\x00\nKST-9\n")
	for _, data := range [][]byte{korea, []byte("no zone")} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if !h.Refresh() || c.Zone().String() != "Local" {
			t.Errorf("%s after %q", c.Zone(), data[:7])
		}
		if _, offset := time.Now().In(c.Zone()).Zone(); string(data[:4]) == "TZif" && offset != 9*3600 {
			t.Errorf("%d s from UTC", offset)
		}
	}
	if (&Config{Timezone: time.UTC}).Zone() != time.UTC {
		t.Error("what is set counts")
	}
}
