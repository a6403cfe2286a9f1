package recall_test

import (
	"strconv"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/platform/recall"
)

func TestATableForgetsItsOlderHalf(t *testing.T) {
	var tab recall.Table[int]
	for i := range 10_000 {
		tab.Set(strconv.Itoa(i), i)
	}
	if v, ok := tab.Get("9999"); !ok || v != 9999 {
		t.Errorf("the newest gave %d, %v", v, ok)
	}
	if _, ok := tab.Get("0"); ok {
		t.Error("the oldest is still there, so that it grows without end")
	}
	tab.Drop("9999")
	if _, ok := tab.Get("9999"); ok {
		t.Error("what was dropped is still there")
	}
}

func TestWhatIsLookedFor(t *testing.T) {
	var s recall.Sends
	look := func(to, nonce string, want bool) {
		t.Helper()
		if _, got := s.Begin(to, nonce); got != want {
			t.Errorf("Begin(%s, %s) wants a look: %v", to, nonce, got)
		}
	}
	look("a", "1", true) // the predecessor may have sent it
	s.Done("a", "1", "receipt")
	if r, _ := s.Begin("a", "1"); r != "receipt" {
		t.Errorf("the receipt is %q", r)
	}
	look("a", "2", false)
	s.Unknown("2")
	look("a", "2", true)
	look("b", "3", true)
	look("b", "", false)
}

func TestTheLatestIsTakenOnce(t *testing.T) {
	var l recall.Latest
	at := func(i int) domain.Address { return domain.Address{Platform: "p", ChatID: strconv.Itoa(i)} }
	for i := range 3000 {
		l.Set(at(i), "a")
		l.Set(at(i), "b")
	}
	if got := l.Take(at(2999)); got != "b" {
		t.Errorf("the latest is %q", got)
	}
	if got := l.Take(at(2999)); got != "" {
		t.Errorf("it was taken twice: %q", got)
	}
	if got := l.Take(at(0)); got != "" {
		t.Errorf("the oldest is still there, so that it grows without end: %q", got)
	}
}
