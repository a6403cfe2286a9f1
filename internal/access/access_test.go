package access

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
)

const tg = domain.Platform("telegram")

type fixture struct {
	*Gate
	store *sqlite.Store
	cfg   *home.Config
	clock time.Time
	log   bytes.Buffer
}

func setUp(t *testing.T, p home.PlatformConfig) *fixture {
	t.Helper()
	f := &fixture{clock: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	now := func() time.Time { return f.clock }
	s, err := sqlite.Open(context.Background(), sqlite.Options{Path: filepath.Join(t.TempDir(), "ledger.db"), Now: now, NoBallast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	p.Enabled = true
	f.store = s
	f.cfg = &home.Config{Platforms: map[domain.Platform]home.PlatformConfig{tg: p}}
	f.Gate = New(s, home.Profile{Name: "liam"}, f.cfg, slog.New(slog.NewTextHandler(&f.log, nil)), now)
	return f
}

func dm(user string) domain.Inbound {
	return domain.Inbound{Source: domain.Source{Address: domain.Address{Platform: tg, ChatID: user}, ChatType: domain.ChatDM, UserID: user, UserName: "N" + user}}
}

func group(chat, user string) domain.Inbound {
	in := dm(user)
	in.ChatType, in.ChatID = domain.ChatGroup, chat
	return in
}

// listed is what an adapter makes of an event of a chat that it found on the list.
func listed(in domain.Inbound) domain.Inbound {
	in.ChatListed = true
	return in
}

// withRole is what an adapter makes of an event whose writer holds an allowed role.
func withRole(in domain.Inbound) domain.Inbound {
	in.UserListed = true
	return in
}

// decide decides and stores what the decision brings, as the sink does.
func (f *fixture) decide(t *testing.T, in domain.Inbound) Verdict {
	t.Helper()
	v, err := f.Decide(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if v.Pairing != nil {
		if err := f.store.PutPairing(t.Context(), *v.Pairing); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func TestOrderOfAuthorization(t *testing.T) {
	for _, c := range []struct {
		name   string
		p      home.PlatformConfig
		global home.AccessConfig
		in     domain.Inbound
		want   bool
	}{
		{"nobody is let in by default", home.PlatformConfig{}, home.AccessConfig{}, dm("1"), false},
		{"everybody of the platform", home.PlatformConfig{AllowAll: true}, home.AccessConfig{}, dm("1"), true},
		{"the platform's list", home.PlatformConfig{AllowedUsers: []string{"1"}}, home.AccessConfig{}, dm("1"), true},
		{"not on the platform's list", home.PlatformConfig{AllowedUsers: []string{"2"}}, home.AccessConfig{}, dm("1"), false},
		{"a name is no identity", home.PlatformConfig{AllowedUsers: []string{"N1"}}, home.AccessConfig{}, dm("1"), false},
		{"a star is everybody", home.PlatformConfig{AllowedUsers: []string{"*"}}, home.AccessConfig{}, dm("1"), true},
		{"the gateway's list", home.PlatformConfig{}, home.AccessConfig{AllowedUsers: []string{"1"}}, dm("1"), true},
		{"everybody of the gateway", home.PlatformConfig{}, home.AccessConfig{AllowAll: true}, dm("1"), true},
		{"no user id is nobody", home.PlatformConfig{AllowedUsers: []string{""}}, home.AccessConfig{}, dm(""), false},
		{"a group by its id", home.PlatformConfig{GroupChats: []string{"-5"}}, home.AccessConfig{}, group("-5", "1"), true},
		{"a group's list is not for private chats", home.PlatformConfig{GroupUsers: []string{"1"}}, home.AccessConfig{}, dm("1"), false},
		{"a group's list in a group", home.PlatformConfig{GroupUsers: []string{"1"}}, home.AccessConfig{}, group("-5", "1"), true},
		{"allowed chats bind allowed users", home.PlatformConfig{AllowedUsers: []string{"1"}, AllowedChats: []string{"-6"}}, home.AccessConfig{}, group("-5", "1"), false},
		{"allowed chats may be called by name, which an adapter knows", home.PlatformConfig{AllowedUsers: []string{"1"}, AllowedChats: []string{"#town"}}, home.AccessConfig{}, listed(group("-5", "1")), true},
		{"a role lets its holder in", home.PlatformConfig{}, home.AccessConfig{}, withRole(group("-5", "2")), true},
		{"a role lets its holder in directly", home.PlatformConfig{AllowedChats: []string{"-5"}}, home.AccessConfig{}, withRole(dm("2")), true},
		{"a role opens no other chat", home.PlatformConfig{AllowedChats: []string{"-5"}}, home.AccessConfig{}, withRole(group("-6", "2")), false},
		{"a name lets no stranger in", home.PlatformConfig{AllowedUsers: []string{"1"}, AllowedChats: []string{"#town"}}, home.AccessConfig{}, listed(group("-5", "2")), false},
		{"allowed chats do not bind private chats", home.PlatformConfig{AllowedUsers: []string{"1"}, AllowedChats: []string{"-6"}}, home.AccessConfig{}, dm("1"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := setUp(t, c.p)
			f.cfg.Access = c.global
			if v := f.decide(t, c.in); v.Allowed != c.want {
				t.Errorf("allowed %v, want %v (%s)", v.Allowed, c.want, v.Reason)
			}
		})
	}
}

func TestSourcesWithTheirOwnAuthentication(t *testing.T) {
	f := setUp(t, home.PlatformConfig{})
	in := dm("x")
	in.Platform = domain.PlatformWebchat
	if v := f.decide(t, in); !v.Allowed {
		t.Error("the web chat has its own authentication")
	}
}

var codeIn = regexp.MustCompile("`([A-Z2-9]{8})`")

func TestPairing(t *testing.T) {
	f := setUp(t, home.PlatformConfig{PairDMs: true})
	v := f.decide(t, dm("7"))
	m := codeIn.FindStringSubmatch(v.Reply)
	if v.Allowed || m == nil {
		t.Fatalf("verdict %+v", v)
	}
	cmd := "hermes -p liam pairing approve telegram " + m[1]
	if !strings.Contains(f.log.String(), cmd) || !strings.Contains(v.Reply, cmd) {
		t.Errorf("the log and the reply must show %q\n%s", cmd, f.log.String())
	}
	if v := f.decide(t, dm("7")); v.Reply != "" {
		t.Errorf("a second code within ten minutes: %+v", v)
	}
	if _, err := f.Approve(t.Context(), tg, "WRONGONE"); !domain.IsCode(err, domain.NotFound) {
		t.Errorf("wrong code: %v", err)
	}
	p, err := f.Approve(t.Context(), tg, strings.ToLower(m[1]))
	if err != nil || p.UserID != "7" {
		t.Fatalf("approve: %+v %v", p, err)
	}
	if v := f.decide(t, dm("7")); !v.Allowed {
		t.Error("a paired user is let in")
	}
	if _, err := f.Approve(t.Context(), tg, m[1]); err == nil {
		t.Error("a code works once")
	}
	if err := f.Revoke(t.Context(), tg, "7"); err != nil {
		t.Fatal(err)
	}
	f.clock = f.clock.Add(RequestEvery)
	if v := f.decide(t, dm("7")); v.Allowed {
		t.Error("revoked")
	}
}

func TestPairingCodeExpires(t *testing.T) {
	f := setUp(t, home.PlatformConfig{PairDMs: true})
	code := codeIn.FindStringSubmatch(f.decide(t, dm("7")).Reply)[1]
	f.clock = f.clock.Add(CodeTTL + time.Second)
	if _, err := f.Approve(t.Context(), tg, code); !domain.IsCode(err, domain.NotFound) {
		t.Errorf("expired code: %v", err)
	}
	if l, err := f.List(t.Context(), tg); err != nil || len(l) != 0 {
		t.Errorf("expired requests are not listed: %v %v", l, err)
	}
	if v := f.decide(t, dm("7")); v.Reply == "" {
		t.Error("a new code after the old one expired")
	}
}

func TestAtMostThreeCodesWait(t *testing.T) {
	f := setUp(t, home.PlatformConfig{PairDMs: true})
	for i := range 5 {
		v := f.decide(t, dm(fmt.Sprint(i)))
		if got := v.Pairing != nil; got != (i < MaxPending) {
			t.Errorf("stranger %d: code %v", i, got)
		}
	}
	if n, err := f.ClearPending(t.Context()); n != MaxPending || err != nil {
		t.Errorf("cleared %d, %v", n, err)
	}
}

func TestWrongCodesLockApprovals(t *testing.T) {
	f := setUp(t, home.PlatformConfig{PairDMs: true})
	code := codeIn.FindStringSubmatch(f.decide(t, dm("7")).Reply)[1]
	for range MaxFailures {
		if _, err := f.Approve(t.Context(), tg, "AAAAAAAA"); !domain.IsCode(err, domain.NotFound) {
			t.Fatal(err)
		}
	}
	if _, err := f.Approve(t.Context(), tg, code); !domain.IsCode(err, domain.RateLimited) {
		t.Errorf("after %d wrong codes: %v", MaxFailures, err)
	}
	f.clock = f.clock.Add(LockFor + time.Second)
	code = codeIn.FindStringSubmatch(f.decide(t, dm("8")).Reply)[1]
	if _, err := f.Approve(t.Context(), tg, code); err != nil {
		t.Errorf("after the lock-out: %v", err)
	}
}

func TestGroupsAreNotPaired(t *testing.T) {
	f := setUp(t, home.PlatformConfig{PairDMs: true})
	if v := f.decide(t, group("-5", "7")); v.Allowed || v.Reply != "" || v.Pairing != nil {
		t.Errorf("%+v", v)
	}
}

func TestWarnings(t *testing.T) {
	f := setUp(t, home.PlatformConfig{})
	if w := f.Warnings(); len(w) != 1 || !strings.Contains(w[0], "TELEGRAM_ALLOWED_USERS") {
		t.Errorf("no allowlist: %q", w)
	}
	f = setUp(t, home.PlatformConfig{AllowAll: true})
	if w := f.Warnings(); len(w) != 1 || !strings.Contains(w[0], "everybody") {
		t.Errorf("open: %q", w)
	}
	f = setUp(t, home.PlatformConfig{AllowedUsers: []string{"1"}})
	if w := f.Warnings(); len(w) != 0 {
		t.Errorf("with an allowlist: %q", w)
	}
}

// What the other system stored as a hash must be found by the code.
func TestHashIsOfSaltAndCode(t *testing.T) {
	const want = "54258346f81de49669596fd96b62586666cbe586ffb9cde6a8bc525ec15c1814" // sha256(00 01 02 "ABCDEFGH")
	if got := hashCode("000102", "ABCDEFGH"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Who may talk because everybody may is not one whom the operator named.
func TestNamed(t *testing.T) {
	f := setUp(t, home.PlatformConfig{AllowAll: true, AllowedUsers: []string{"*", "7"}, GroupChats: []string{"-1"}, PairDMs: true})
	if err := f.store.PutPairing(t.Context(), ledger.Pairing{Platform: tg, UserID: "8", RequestedAt: f.clock, ApprovedAt: f.clock}); err != nil {
		t.Fatal(err)
	}
	webhook := dm("7")
	webhook.Platform = domain.PlatformWebhook
	page := dm("")
	page.Platform = domain.PlatformWebchat
	for _, c := range []struct {
		what string
		in   domain.Inbound
		want bool
	}{
		{"on the list", dm("7"), true}, {"everybody", dm("9"), false}, {"the star itself", dm("*"), false}, {"nobody", dm(""), false},
		{"of an open group", group("-1", "9"), false}, {"on the list, in a group", group("-1", "7"), true}, {"paired", dm("8"), true},
		{"a program", webhook, false}, {"the page", page, true},
	} {
		if got, err := f.Named(t.Context(), c.in.Source); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", c.what, got, err)
		}
	}
}
