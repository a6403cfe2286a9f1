package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/testkit/fault"
	"hermes/testkit/telegram"
)

// Without a ledger a message still gets to its platform, once, with a receipt.
func TestDirect(t *testing.T) {
	tg, err := telegram.New(telegram.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tg.Close)
	ann := tg.AddUser("Ann")
	tg.Say(ann, "hello") // a bot may not begin
	p := home.Profile{Name: home.DefaultProfile, Root: t.TempDir()}
	p.Home = p.Root
	env, cfg, _, err := home.LoadFiles(p, home.Files{Env: fmt.Appendf(nil, "TELEGRAM_BOT_TOKEN=%s\nTELEGRAM_BASE_URL=%s\n", tg.Token(), tg.URL())}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := NewSender(SenderOptions{Profile: p, Config: cfg, Env: env, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	to := domain.Address{Platform: "telegram", ChatID: strconv.FormatInt(ann.ID, 10)}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := s.Direct(ctx, to, "too early"); !domain.IsCode(err, domain.Unavailable) {
		t.Errorf("before Connect: %v", err)
	}
	if err := s.Connect(to); err != nil {
		t.Fatal(err)
	}
	receipt, err := s.Direct(ctx, to, "it is **down**")
	if err != nil || receipt == "" {
		t.Fatalf("receipt %q: %v", receipt, err)
	}
	if said := tg.Replies(ann.ID); len(said) != 1 || said[0].Text != "it is down" || strconv.Itoa(said[0].ID) != receipt {
		t.Errorf("receipt %s:\n%s", receipt, tg.Transcript(ann.ID))
	}
	tg.Fail("sendMessage", fault.Fault{Status: 403, Message: "Forbidden: bot was blocked by the user"})
	if _, err := s.Direct(ctx, to, "again"); !domain.IsCode(err, domain.Unavailable) {
		t.Errorf("a platform that refuses: %v", err)
	}
}
