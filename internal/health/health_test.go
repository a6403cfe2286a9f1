package health

import (
	"testing"
	"time"
)

func TestPartsTellWhatWasReported(t *testing.T) {
	now := time.Unix(1000, 0)
	r := New(func() time.Time { return now })
	p := r.Part("platform.telegram")
	r.Part("api")
	if got := r.Parts(); len(got) != 2 || got[0].Name != "api" || got[1].State != Starting {
		t.Fatalf("%+v", got)
	}
	p.OK()
	p.Note("bot", "@hermes")
	now = now.Add(time.Minute)
	p.OK()
	got := r.Parts()[1]
	if got.State != OK || got.Since != time.Unix(1000, 0) || !got.LastOK.Equal(now) || got.Evidence["bot"] != "@hermes" {
		t.Errorf("%+v", got)
	}
	now = now.Add(time.Minute)
	p.Down("telegram_401", "the token is refused")
	got = r.Parts()[1]
	if got.State != Down || got.Since != now || got.Code != "telegram_401" || got.LastOK.Equal(now) {
		t.Errorf("a fault is no proof of life: %+v", got)
	}
	p.OK()
	if got = r.Parts()[1]; got.Code != "" || got.Message != "" {
		t.Errorf("a fault that passed is still told: %+v", got)
	}
	p.Note("bot", "")
	got.Evidence["x"] = "y"
	if e := r.Parts()[1].Evidence; len(e) != 0 {
		t.Errorf("evidence %v", e)
	}
	r.Remove("api")
	r.Part("platform.telegram").Disabled("off")
	if all := r.Parts(); len(all) != 1 || all[0].State != Disabled {
		t.Errorf("%+v", all)
	}
}

func TestNobodyReports(t *testing.T) {
	var p *Reporter
	p.OK()
	p.Down("x", "y")
	p.Note("a", "b")
	r := New(time.Now)
	gone := r.Part("x")
	r.Remove("x")
	gone.Degraded("a", "b")
	gone.Note("a", "b")
	if len(r.Parts()) != 0 {
		t.Error("a removed part came back")
	}
}
