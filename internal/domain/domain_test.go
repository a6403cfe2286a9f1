package domain

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestCodesAndMessages(t *testing.T) {
	inner := errors.New("dial tcp: refused")
	e := E(Unavailable, inner, "the provider %s does not answer", "x")
	wrapped := fmt.Errorf("turn 7: %w", e)
	for _, c := range []struct {
		err  error
		code Code
		text string
	}{
		{nil, "", ""},
		{e, Unavailable, "the provider x does not answer"},
		{wrapped, Unavailable, "the provider x does not answer"},
		{inner, Internal, "internal error"},
		{context.Canceled, Cancelled, "stopped"},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), Timeout, "it took too long"},
		{E(Config, context.Canceled, "outer"), Config, "outer"},
	} {
		if got := CodeOf(c.err); got != c.code {
			t.Errorf("%v: code %q, want %q", c.err, got, c.code)
		}
		if got := MessageOf(c.err); got != c.text {
			t.Errorf("%v: message %q, want %q", c.err, got, c.text)
		}
	}
	if IsCode(nil, "") || !IsCode(wrapped, Unavailable) || !errors.Is(e, inner) {
		t.Error("IsCode or Unwrap")
	}
	if e.Error() != "the provider x does not answer: dial tcp: refused" {
		t.Errorf("%q", e.Error())
	}
}

func TestSessionKeys(t *testing.T) {
	src := func(kind ChatType, chat, thread, user string) Source {
		return Source{Address: Address{Platform: "telegram", ChatID: chat, ThreadID: thread}, ChatType: kind, UserID: user}
	}
	for _, c := range []struct {
		src               Source
		perUser, inThread bool
		want              SessionKey
	}{
		{src(ChatDM, "7", "", "7"), true, false, "agent:main:telegram:dm:7"},
		{src(ChatDM, "7", "3", "7"), true, true, "agent:main:telegram:dm:7:3"},
		{src(ChatGroup, "-5", "", "7"), true, false, "agent:main:telegram:group:-5:7"},
		{src(ChatGroup, "-5", "", "7"), false, false, "agent:main:telegram:group:-5"},
		{src(ChatGroup, "-5", "9", "7"), true, false, "agent:main:telegram:group:-5:9"},
		{src(ChatGroup, "-5", "9", "7"), true, true, "agent:main:telegram:group:-5:9:7"},
		{src(ChatChannel, "-8", "", ""), true, true, "agent:main:telegram:channel:-8"},
	} {
		if got := KeyFor(c.src, c.perUser, c.inThread); got != c.want {
			t.Errorf("%+v: %q, want %q", c.src, got, c.want)
		}
	}
}

func TestWhatIsACommand(t *testing.T) {
	for text, want := range map[string]bool{"/new": true, "/": false, "//comment": false, "/ x": false, "new": false, " /new": false, "": false} {
		if got := (Inbound{Text: text}).IsCommand(); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestAddressAndUsage(t *testing.T) {
	if s := (Address{"telegram", "7", "3"}).String(); s != "telegram:7:3" {
		t.Error(s)
	}
	if !(Address{}).IsZero() || (Address{ChatID: "x"}).IsZero() {
		t.Error("IsZero")
	}
	if u := (Usage{1, 2, 3, 4}).Add(Usage{10, 20, 30, 40}); u != (Usage{11, 22, 33, 44}) {
		t.Errorf("%+v", u)
	}
	if RunDue.Ended() || RunRunning.Ended() || !RunMissed.Ended() {
		t.Error("Ended")
	}
}
