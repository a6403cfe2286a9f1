package login

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/secret"
	"hermes/testkit/oauth"
)

// TestMain lets this program stand for another process that renews a login.
func TestMain(m *testing.M) {
	if file := os.Getenv("LOGIN_TEST_RENEW"); file != "" {
		s := Open(file, nil)
		all, err := s.List("p")
		if err == nil {
			_, err = s.Renew(context.Background(), http.DefaultClient, all[0], secret.Value(os.Getenv("LOGIN_TEST_STALE")))
		}
		if err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// another runs another process that renews the login in a file.
func another(t *testing.T, file, stale string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "LOGIN_TEST_RENEW="+file, "LOGIN_TEST_STALE="+stale, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = new(strings.Builder)
	return cmd
}

// world is a service, and a file with a login at it.
func world(t *testing.T, expires time.Time) (*oauth.Server, *Store, Credential) {
	t.Helper()
	service := oauth.Start(3600)
	t.Cleanup(service.Close)
	access, refresh := service.Login()
	s := Open(filepath.Join(t.TempDir(), "auth.json"), nil)
	c := Credential{Provider: "p", Type: OAuth, Label: "me", Access: secret.Value(access), Refresh: secret.Value(refresh), Expires: expires, TokenURL: service.TokenURL(), ClientID: "hermes"}
	if _, err := s.Add(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return service, s, only(t, s)
}

// only gives the one credential of a file.
func only(t *testing.T, s *Store) Credential {
	t.Helper()
	all, err := s.List("p")
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	return all[0]
}

// Processes that find the same login stale renew it once between them.
func TestProcessesNeverUseOneRefreshTokenTwice(t *testing.T) {
	service, s, c := world(t, time.Now().Add(-time.Minute))
	var wg sync.WaitGroup
	for range 4 {
		cmd := another(t, s.Path(), c.Access.Reveal())
		wg.Go(func() {
			if err := cmd.Run(); err != nil {
				t.Errorf("%v: %s", err, cmd.Stderr)
			}
		})
	}
	for range 4 {
		wg.Go(func() {
			if _, err := s.Renew(t.Context(), http.DefaultClient, c, c.Access); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if renewals, reuses := service.Counts(); renewals != 1 || reuses != 0 {
		t.Fatalf("%d renewals, %d uses of a token that was used up", renewals, reuses)
	}
	if now := only(t, s); now.Access == c.Access || now.Refresh == c.Refresh || now.Expired(time.Now()) {
		t.Fatal("the file does not hold the new tokens")
	}
}

// kill -9 between the service's answer and the file: the token is used up, and
// the next renewal says so.
func TestRenewalThatIsCutShortIsTold(t *testing.T) {
	service, s, c := world(t, time.Now().Add(-time.Minute))
	cmd := another(t, s.Path(), "")
	started := make(chan struct{})
	service.Hold(func() {
		<-started
		// The service has used the token up; the process has not the answer yet.
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	close(started)
	if err := cmd.Wait(); err == nil {
		t.Fatal("the process was not killed")
	}
	service.Hold(nil)
	if now := only(t, s); now.CutShort.IsZero() || now.Access != c.Access {
		t.Fatalf("the file does not tell that a renewal began: %v", now.CutShort)
	}
	_, err := s.Renew(t.Context(), http.DefaultClient, only(t, s), "")
	if !domain.IsCode(err, domain.Unauthenticated) || !strings.Contains(err.Error(), "was cut short") || !strings.Contains(err.Error(), "hermes auth add p --type oauth") {
		t.Fatalf("it says %v", err)
	}
	if now := only(t, s); !strings.Contains(now.Failure, "invalid_grant") || now.FailedAt.IsZero() {
		t.Fatalf("the file says %q", now.Failure)
	}
}

// A service that cannot be asked uses nothing up; one that refuses is final.
func TestFailedRenewals(t *testing.T) {
	service, s, c := world(t, time.Now().Add(time.Hour))
	service.Fail(http.StatusBadGateway)
	if _, err := s.Renew(t.Context(), http.DefaultClient, c, ""); !domain.IsCode(err, domain.Unavailable) {
		t.Fatalf("502: %v", err)
	}
	if now := only(t, s); now.Failure != "" || !now.CutShort.IsZero() {
		t.Fatalf("502 left %+v", now)
	}
	service.Fail(0)
	fresh, err := s.Renew(t.Context(), http.DefaultClient, c, c.Access)
	if err != nil || fresh.Access == c.Access {
		t.Fatalf("after the outage: %v", err)
	}
	service.Revoke()
	_, err = s.Renew(t.Context(), http.DefaultClient, fresh, "")
	if !domain.IsCode(err, domain.Unauthenticated) || !strings.Contains(err.Error(), "revoked") {
		t.Fatalf("revoked: %v", err)
	}
	for _, token := range []secret.Value{c.Access, c.Refresh, fresh.Access, fresh.Refresh} {
		if strings.Contains(err.Error(), token.Reveal()) {
			t.Fatalf("a secret stands in %q", err)
		}
	}
	service.Close()
	if _, err := s.Renew(t.Context(), http.DefaultClient, fresh, ""); !domain.IsCode(err, domain.Unavailable) || !strings.Contains(err.Error(), "could not be reached") {
		t.Fatalf("no service: %v", err)
	}
	if now := only(t, s); !now.CutShort.IsZero() {
		t.Fatal("a request that was never sent counts as one that may have used the token up")
	}
}

// What others keep in the file stays, in whatever form they wrote it.
func TestFileIsKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "auth.json")
	const text = `{"version": 1, "active_provider": "nous", "big": 12345678901234567890,
	"providers": {"nous": {"access_token": "a-1", "refresh_token": "r-1", "expires_at": "2026-05-01T10:00:00+00:00", "scope": "inference:invoke", "inference_base_url": "https://x.example/v1"}},
	"credential_pool": {"xai": [{"id": "aa", "label": "one", "auth_type": "api-key", "access_token": "k-2", "priority": 2, "expires_at_ms": 1800000000000}, {"id": "bb", "auth_type": "api_key", "access_token": "k-1", "priority": 1, "custom": [1, 2]}]}}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := Open(file, nil)
	all, err := s.List("")
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	nous, first, second := all[0], all[1], all[2]
	if nous.Type != OAuth || nous.ClientID != "hermes-cli" || nous.BaseURL != "https://x.example/v1" || nous.Expires.UTC().Hour() != 10 {
		t.Errorf("nous is %+v", nous)
	}
	if first.ID != "bb" || second.ID != "aa" || second.Type != APIKey || second.Expires.Unix() != 1800000000 {
		t.Errorf("the pool is %+v %+v", first, second)
	}
	if _, err := s.Add(t.Context(), Credential{Provider: "xai", Type: APIKey, Access: "k-3"}); err != nil {
		t.Fatal(err)
	}
	one, err := s.Match("xai", "one")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	data, _ := os.ReadFile(file)
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.UseNumber()
	if err := dec.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got["big"] != json.Number("12345678901234567890") || got["active_provider"] != "nous" || !strings.Contains(string(data), `"custom"`) || strings.Contains(string(data), "k-2") {
		t.Fatalf("the file holds\n%s", data)
	}
}

// A token is renewed before it ends, and once for all who use it; one that is
// good is used as it is.
func TestPool(t *testing.T) {
	service, s, _ := world(t, time.Now().Add(30*time.Second))
	var secrets []string
	pool := NewPool(s, "p", "", http.DefaultClient, func(told ...string) { secrets = append(secrets, told...) })
	c, err := pool.Pick(t.Context())
	if err != nil || c.Access == "access-token-0001" || secrets[0] != c.Access.Reveal() {
		t.Fatalf("%v, %v", c, err)
	}
	again, err := pool.Pick(t.Context())
	if renewals, _ := service.Counts(); err != nil || again.Access != c.Access || renewals != 1 {
		t.Fatalf("%d renewals, %v", renewals, err)
	}
	if _, err := s.Add(t.Context(), Credential{Provider: "p", Type: APIKey, Access: "key-2"}); err != nil {
		t.Fatal(err)
	}
	if !pool.Others(c) {
		t.Fatal("the second is not seen")
	}
	pool.Refuse(c, time.Hour)
	if next, err := pool.Pick(t.Context()); err != nil || next.Access != "key-2" {
		t.Fatalf("%v, %v", next, err)
	}
	pool.Refuse(Credential{ID: only2(t, s)}, time.Hour)
	if _, err := pool.Pick(t.Context()); !domain.IsCode(err, domain.RateLimited) {
		t.Fatalf("with all refused: %v", err)
	}
	empty := NewPool(s, "q", "", http.DefaultClient, nil)
	if _, err := empty.Pick(t.Context()); !domain.IsCode(err, domain.Unauthenticated) {
		t.Fatalf("with none: %v", err)
	}
}

// only2 is the id of the second credential.
func only2(t *testing.T, s *Store) string {
	t.Helper()
	all, err := s.List("p")
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	return all[1].ID
}

// The strategies spread calls as they say.
func TestStrategies(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "auth.json"), nil)
	for _, key := range []secret.Value{"k1", "k2", "k3"} {
		if _, err := s.Add(t.Context(), Credential{Provider: "p", Type: APIKey, Access: key}); err != nil {
			t.Fatal(err)
		}
	}
	for strategy, want := range map[string]string{"": "k1k1k1k1", RoundRobin: "k1k2k3k1", LeastUsed: "k1k2k3k1"} {
		pool, got := NewPool(s, "p", strategy, http.DefaultClient, nil), ""
		for range 4 {
			c, err := pool.Pick(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got += c.Access.Reveal()
		}
		if got != want {
			t.Errorf("%q gives %s, want %s", strategy, got, want)
		}
	}
}

// The device flow ends with tokens, or says why it did not.
func TestDeviceFlow(t *testing.T) {
	service := oauth.Start(60)
	defer service.Close()
	v := Service{DeviceURL: service.DeviceURL(), TokenURL: service.TokenURL(), ClientID: "hermes", PKCE: true}
	dev, err := v.Begin(t.Context(), http.DefaultClient, time.Now())
	if err != nil || dev.Code != "ABCD-1234" {
		t.Fatalf("%+v, %v", dev, err)
	}
	asked := 0
	c, err := v.Wait(t.Context(), http.DefaultClient, "p", dev, time.Now, func(context.Context, time.Duration) error {
		if asked++; asked == 3 {
			service.Confirm()
		}
		return nil
	})
	if err != nil || !c.Access.IsSet() || !c.Refresh.IsSet() || c.Expires.IsZero() || asked != 3 {
		t.Fatalf("%+v after %d questions, %v", c, asked, err)
	}
	stop := errors.New("stop")
	if _, err := v.Wait(t.Context(), http.DefaultClient, "p", dev, time.Now, func(context.Context, time.Duration) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("interrupted: %v", err)
	}
	late := func() time.Time { return dev.Ends }
	if _, err := v.Wait(t.Context(), http.DefaultClient, "p", dev, late, nil); !domain.IsCode(err, domain.Timeout) {
		t.Fatalf("too late: %v", err)
	}
	v.DeviceURL = "http://example.org/device"
	if _, err := v.Begin(t.Context(), http.DefaultClient, time.Now()); !domain.IsCode(err, domain.Invalid) {
		t.Fatalf("without TLS: %v", err)
	}
}
