package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"hermes/internal/domain"
	"hermes/internal/secret"
)

func TestKey(t *testing.T) {
	r := newRig(t, &fakeGateway{}, func(o *Options) { withKey(o); o.Profile = "liam" })
	for _, header := range []string{"", "Bearer ", "Bearer wrong", "Basic " + testKey, testKey, "Bearer " + testKey + "x"} {
		res, body := r.call(t, "POST", "/v1/chat/completions", ping, "Authorization", header)
		const want = `{"error":{"message":"Invalid API key","type":"invalid_request_error","code":"invalid_api_key"`
		if res.StatusCode != 401 || !strings.HasPrefix(body, want) {
			t.Errorf("%q: %d %s", header, res.StatusCode, body)
		}
		if !strings.Contains(body, "hermes -p liam config get API_SERVER_KEY --reveal") || strings.Contains(body, testKey) {
			t.Errorf("hint: %s", body)
		}
	}
	for _, header := range []string{"Bearer " + testKey, "bearer  " + testKey} {
		if res, body := r.call(t, "POST", "/v1/chat/completions", ping, "Authorization", header); res.StatusCode != 200 {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	}
	if len(r.gateway.requests()) != 2 {
		t.Errorf("%d turns ran", len(r.gateway.requests()))
	}
	res, body := r.call(t, "GET", "/health", "")
	if res.StatusCode != 200 || body != `{"status":"ok","platform":"hermes-agent"}` {
		t.Errorf("health needs a key: %d %s", res.StatusCode, body)
	}
	for _, path := range []string{"/health/detailed", "/v1/models", "/v1/capabilities", "/api/status", "/metrics"} {
		if res, _ := r.call(t, "GET", path, ""); res.StatusCode != 401 {
			t.Errorf("%s is open: %d", path, res.StatusCode)
		}
	}
}

func TestWebPages(t *testing.T) {
	allowed := func(o *Options) { o.Config.CORSOrigins = []string{"https://chat.example.org"} }
	star := func(o *Options) { o.Config.CORSOrigins = []string{"*"} }
	starKey := func(o *Options) { star(o); withKey(o) }
	auth := []string{"Authorization", "Bearer " + testKey}
	for _, c := range []struct {
		name   string
		change func(*Options)
		header []string
		want   int
	}{
		{"no origin", nil, nil, 200},
		{"foreign origin", nil, []string{"Origin", "https://evil.example"}, 403},
		{"null origin", nil, []string{"Origin", "null"}, 403},
		{"our own page", nil, []string{"Origin", "self"}, 200},
		{"our own host, another port", nil, []string{"Origin", "http://127.0.0.1:1"}, 403},
		{"rebound name", nil, []string{"Host", "evil.example", "Origin", "http://evil.example"}, 403},
		{"foreign host without origin", nil, []string{"Host", "evil.example:8642"}, 403},
		{"localhost", nil, []string{"Host", "localhost:8642"}, 200},
		{"IPv6 loopback", nil, []string{"Host", "[::1]:8642"}, 200},
		{"a name that looks like loopback", nil, []string{"Host", "127.0.0.1.evil.example"}, 403},
		{"localhost as a subdomain", nil, []string{"Host", "localhost.evil.example"}, 403},
		{"image of another site", nil, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		{"allowed origin", allowed, []string{"Origin", "https://chat.example.org"}, 200},
		{"origin that begins like an allowed one", allowed, []string{"Origin", "https://chat.example.org.evil.example"}, 403},
		{"other scheme", allowed, []string{"Origin", "http://chat.example.org"}, 403},
		{"any origin without a key", star, []string{"Origin", "https://evil.example"}, 403},
		{"any origin with a key", starKey, append([]string{"Origin", "https://anything.example"}, auth...), 200},
		{"any host with a key", withKey, append([]string{"Host", "hermes.lan"}, auth...), 200},
		{"foreign origin with the key", withKey, append([]string{"Origin", "https://evil.example"}, auth...), 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, &fakeGateway{}, c.change)
			for i, h := range c.header {
				if h == "self" {
					c.header[i] = r.url
				}
			}
			res, body := r.call(t, "POST", "/v1/chat/completions", ping, c.header...)
			if res.StatusCode != c.want {
				t.Fatalf("%d %s", res.StatusCode, body)
			}
			if ran := len(r.gateway.requests()); (ran == 1) != (c.want == 200) {
				t.Errorf("%d turns ran", ran)
			}
			if res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("headers %v", res.Header)
			}
		})
	}
}

func TestPreflight(t *testing.T) {
	r := newRig(t, &fakeGateway{}, func(o *Options) {
		withKey(o)
		o.Config.CORSOrigins = []string{"https://chat.example.org"}
	})
	ask := []string{"Origin", "https://chat.example.org", "Access-Control-Request-Method", "POST"}
	res, _ := r.call(t, "OPTIONS", "/v1/chat/completions", "", ask...)
	h := res.Header
	if res.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != ask[1] || h.Get("Access-Control-Max-Age") != "600" ||
		h.Get("Access-Control-Allow-Methods") != "GET, POST, PATCH, DELETE, OPTIONS" || !strings.HasPrefix(h.Get("Access-Control-Allow-Headers"), "Authorization, Content-Type, Idempotency-Key") ||
		h.Get("Vary") != "Origin" {
		t.Errorf("%d %v", res.StatusCode, h)
	}
	ask[1] = "https://evil.example"
	res, body := r.call(t, "OPTIONS", "/v1/chat/completions", "", ask...)
	wantError(t, res, body, 403, "origin_not_allowed")
	r.call(t, "OPTIONS", "/v1/chat/completions", "", ask...)
	if n := strings.Count(r.log.String(), "a web page was refused"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
	if !strings.Contains(body, "API_SERVER_CORS_ORIGINS") || res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%v %s", res.Header, body)
	}
}

func TestSessionHeaders(t *testing.T) {
	r := newRig(t, &fakeGateway{}, nil)
	res, body := r.call(t, "POST", "/v1/chat/completions", ping, "X-Hermes-Session-Id", "20260101_000000_abcdef12")
	wantError(t, res, body, 403, "session_needs_key")
	res, body = r.call(t, "POST", "/v1/chat/completions", ping, "X-Hermes-Session-Key", strings.Repeat("k", 257))
	wantError(t, res, body, 400, "invalid_request")

	r = newRig(t, &fakeGateway{}, withKey)
	res, _ = r.call(t, "POST", "/v1/chat/completions", ping, "Authorization", "Bearer "+testKey,
		"X-Hermes-Session-Id", "20260101_000000_abcdef12", "X-Hermes-Session-Key", "family")
	got := r.gateway.requests()[0]
	if !got.Stored || got.SessionID != "20260101_000000_abcdef12" || got.SessionKey != "family" || res.Header.Get("X-Hermes-Session-Id") != got.SessionID {
		t.Errorf("%+v %v", got, res.Header)
	}
	res, body = r.call(t, "POST", "/v1/chat/completions", ping, "Authorization", "Bearer "+testKey, "X-Hermes-Session-Id", "../../etc")
	wantError(t, res, body, 400, "invalid_request")
}

func TestOtherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to act as another user")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("setpriv is not installed")
	}
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	r := newRig(t, &fakeGateway{}, nil)
	run := func(uid string) string {
		out, err := exec.Command(setpriv, "--reuid", uid, "--regid", uid, "--clear-groups", curl, "-s", "-m", "20", "-d", ping, r.url+"/v1/chat/completions").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if out := run("65534"); !strings.Contains(out, `"peer_not_allowed"`) || !strings.Contains(out, "uid 65534") {
		t.Errorf("another user got %s", out)
	}
	if out := run("0"); !strings.Contains(out, "pong") {
		t.Errorf("the own user got %s", out)
	}
	if len(r.gateway.requests()) != 1 {
		t.Errorf("%d turns ran", len(r.gateway.requests()))
	}
}

// Both ways of telling a peer's user must agree on a real connection.
func TestPeerUID(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Skip("this address is not on this host: ", err)
			}
			defer l.Close()
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if uid, err := peerUID(s.RemoteAddr(), s.LocalAddr()); err != nil || uid != os.Geteuid() {
				t.Errorf("peerUID: %d %v", uid, err)
			}
			if uid, err := peerUID(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, s.LocalAddr()); err == nil {
				t.Errorf("an unknown peer has user %d", uid)
			}
		})
	}
}

func TestUnidentifiedPeerIsRefused(t *testing.T) {
	for name, peer := range map[string]func(net.Addr, net.Addr) (int, error){
		"unknown": func(net.Addr, net.Addr) (int, error) { return 0, io.EOF },
		"other":   func(net.Addr, net.Addr) (int, error) { return os.Geteuid() + 1, nil },
	} {
		t.Run(name, func(t *testing.T) {
			r := unstarted(&fakeGateway{}, nil)
			asked := 0
			r.peerUID = func(a, b net.Addr) (int, error) { asked++; return peer(a, b) }
			if err := r.Start(); err != nil {
				t.Fatal(err)
			}
			r.url = "http://" + r.Addr().String()
			stopAtEnd(t, r)
			for range 3 {
				res, body := r.call(t, "POST", "/v1/chat/completions", ping)
				wantError(t, res, body, 403, "peer_not_allowed")
			}
			if asked != 1 {
				t.Errorf("the peer of one connection was looked up %d times", asked)
			}
			if res, _ := r.call(t, "GET", "/health", ""); res.StatusCode != 200 {
				t.Errorf("health: %d", res.StatusCode)
			}
		})
	}
}

func TestTooMuch(t *testing.T) {
	r := newRig(t, &fakeGateway{}, nil)
	message := func(n int) string {
		return `{"messages":[{"role":"user","content":"` + strings.Repeat("ä", n) + `"}]}`
	}
	res, body := r.call(t, "POST", "/v1/chat/completions", message(6<<20))
	wantError(t, res, body, 413, "body_too_large")
	// More than fits between the two sockets: the answer must be read all the same.
	res, body = r.call(t, "POST", "/v1/chat/completions", message(25<<20))
	wantError(t, res, body, 413, "body_too_large")
	res, body = r.call(t, "POST", "/v1/chat/completions", message(500_000)) // one megabyte
	wantError(t, res, body, 413, "text_too_long")
	res, body = r.call(t, "POST", "/v1/chat/completions", message(maxText))
	if res.StatusCode != 200 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if n := len(r.gateway.requests()); n != 1 {
		t.Errorf("%d turns ran", n)
	}
}

func TestHeaderBomb(t *testing.T) {
	r := newRig(t, &fakeGateway{}, nil)
	c := r.dial(t)
	fmt.Fprintf(c, "GET /health HTTP/1.1\r\nHost: localhost\r\n")
	for i := range 3000 {
		// The server hangs up before we are done.
		if _, err := fmt.Fprintf(c, "X-%d: %s\r\n", i, strings.Repeat("b", 100)); err != nil {
			break
		}
	}
	status, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.Contains(status, "431") {
		t.Errorf("got %q", status)
	}
	if res, _ := r.call(t, "GET", "/health", ""); res.StatusCode != 200 {
		t.Errorf("the server suffers: %d", res.StatusCode)
	}
}

func TestSlowClientsAreCutOff(t *testing.T) {
	r := newRig(t, &fakeGateway{}, func(o *Options) {
		o.HeaderTimeout, o.BodyTimeout = 50*time.Millisecond, 50*time.Millisecond
	})
	t.Run("header", func(t *testing.T) {
		c := r.dial(t)
		fmt.Fprintf(c, "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("the connection was not closed: %v", err)
		}
	})
	t.Run("body", func(t *testing.T) {
		c := r.dial(t)
		fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
		raw, err := io.ReadAll(c)
		if err != nil || !strings.Contains(string(raw), " 408 ") || !strings.Contains(string(raw), "request_timeout") {
			t.Errorf("%v %s", err, raw)
		}
	})
	t.Run("a body in time and a long turn", func(t *testing.T) {
		release := make(chan struct{})
		r := newRig(t, &fakeGateway{chat: func(ctx context.Context, _ ChatRequest, _ func(domain.TurnEvent)) (ChatResult, error) {
			<-release
			return ChatResult{Text: "slow"}, ctx.Err()
		}}, func(o *Options) { o.BodyTimeout = 50 * time.Millisecond })
		time.AfterFunc(300*time.Millisecond, func() { close(release) })
		if res, body := r.call(t, "POST", "/v1/chat/completions", ping); res.StatusCode != 200 {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	})
	if len(r.gateway.requests()) != 0 {
		t.Error("a turn ran")
	}
}

func TestConcurrencyLimit(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	r := newRig(t, &fakeGateway{chat: func(context.Context, ChatRequest, func(domain.TurnEvent)) (ChatResult, error) {
		began <- struct{}{}
		<-release
		return ChatResult{Text: "ok"}, nil
	}}, func(o *Options) { o.Config.MaxRuns = 2 })
	done := make(chan int, 2)
	for range 2 {
		go func() {
			res, err := r.client.Post(r.url+"/v1/chat/completions", "application/json", strings.NewReader(ping))
			if err != nil {
				done <- 0
				return
			}
			res.Body.Close()
			done <- res.StatusCode
		}()
		<-began
	}
	res, body := r.call(t, "POST", "/v1/chat/completions", ping)
	wantError(t, res, body, 429, "rate_limit_exceeded")
	if res.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	close(release)
	for range 2 {
		if status := <-done; status != 200 {
			t.Errorf("a running turn got %d", status)
		}
	}
}

func TestPanicIsContained(t *testing.T) {
	calls := 0
	r := newRig(t, &fakeGateway{chat: func(_ context.Context, _ ChatRequest, on func(domain.TurnEvent)) (ChatResult, error) {
		if calls++; calls <= 3 {
			if calls == 3 {
				on(domain.TurnEvent{Kind: domain.EventDelta, Text: "half"})
			}
			panic("boom")
		}
		return ChatResult{Text: "fine"}, nil
	}}, nil)
	for _, request := range []string{ping, pingStream} {
		res, body := r.call(t, "POST", "/v1/chat/completions", request)
		wantError(t, res, body, 500, "internal_error")
		if strings.Contains(body, "boom") {
			t.Errorf("the panic was shown: %s", body)
		}
	}
	res, err := r.client.Post(r.url+"/v1/chat/completions", "application/json", strings.NewReader(pingStream))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("a stream that broke off looks whole")
	}
	res.Body.Close()
	if res, body := r.call(t, "POST", "/v1/chat/completions", ping); res.StatusCode != 200 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if _, body := r.call(t, "GET", "/metrics", ""); !strings.Contains(body, "hermes_api_panics_total 3\n") {
		t.Errorf("%s", body)
	}
	if !strings.Contains(r.log.String(), "boom") {
		t.Error("the log does not say why")
	}
}

func TestBindGuard(t *testing.T) {
	const good = "4b1f0c8e7d6a59483726150f4e3d2c1b"
	for _, c := range []struct{ host, key, want string }{
		{"0.0.0.0", "", "Refusing to start: binding to 0.0.0.0 requires API_SERVER_KEY"},
		{"", "", "Refusing to start: binding to 0.0.0.0 requires API_SERVER_KEY"},
		{"::", "", "Refusing to start: binding to :: requires API_SERVER_KEY"},
		{"100.101.102.103", "", "Refusing to start: binding to 100.101.102.103 requires API_SERVER_KEY"},
		{"fd7a:115c:a1e0::1", "", "requires API_SERVER_KEY"},
		{"myhost", "", "requires API_SERVER_KEY"},
		{"0.0.0.0", "short", "at least 16 characters"},
		{"0.0.0.0", "change-me", "placeholder"},
		{"0.0.0.0", "change-me-change-me-change-me", "placeholder"},
		{"0.0.0.0", "your_api_key_here_1234", "placeholder"},
		{"0.0.0.0", "<openssl rand -hex 32>", "placeholder"},
		{"0.0.0.0", "aaaaaaaaaaaaaaaaaaaaaaaa", "placeholder"},
		{"0.0.0.0", "${API_SERVER_KEY_VALUE}", "placeholder"},
		{"0.0.0.0", good, ""},
		{"::", good, ""},
		{"127.0.0.1", "", ""},
		{"127.8.9.1", "", ""},
		{"localhost", "", ""},
		{"::1", "", ""},
		{"::ffff:127.0.0.1", "", ""},
		{"127.0.0.1", "short", ""},
	} {
		t.Run(c.host+" "+c.key, func(t *testing.T) {
			r := unstarted(&fakeGateway{}, func(o *Options) {
				o.Config.Host, o.Config.Key = c.host, secret.Value(c.key)
			})
			err := r.checkBind()
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Message, c.want) || err.Code != domain.Config {
				t.Fatalf("%v", err)
			}
			if c.key != "" && strings.Contains(err.Message, c.key) {
				t.Error("the key is shown")
			}
		})
	}
}

func TestRefusedBindIsSaid(t *testing.T) {
	r := unstarted(&fakeGateway{}, func(o *Options) { o.Config.Host = "0.0.0.0" })
	err := r.Start()
	if !domain.IsCode(err, domain.Config) || r.Addr() != nil || r.Err() == nil {
		t.Fatalf("%v %v", err, r.Addr())
	}
	part := r.health.Parts()[0]
	if part.State != "down" || part.Code != "bind_refused" || !strings.Contains(part.Message, "Refusing to start: binding to 0.0.0.0 requires API_SERVER_KEY") {
		t.Errorf("%+v", part)
	}
	if !strings.Contains(r.log.String(), "[Api_Server] Refusing to start: binding to 0.0.0.0 requires API_SERVER_KEY. Set API_SERVER_KEY or use the default 127.0.0.1.") {
		t.Errorf("%s", r.log.String())
	}
	stopAtEnd(t, r)

	// A socket that was passed on is held to the same rule.
	l, lerr := net.Listen("tcp", "0.0.0.0:0")
	if lerr != nil {
		t.Fatal(lerr)
	}
	defer l.Close()
	r = unstarted(&fakeGateway{}, func(o *Options) { o.Listener = l })
	if err := r.Listen(); !domain.IsCode(err, domain.Config) {
		t.Errorf("%v", err)
	}
}

func TestNoRoute(t *testing.T) {
	r := newRig(t, &fakeGateway{}, nil)
	res, body := r.call(t, "GET", "/nowhere", "")
	wantError(t, res, body, 404, "not_found")
	res, body = r.call(t, "GET", "/v1/chat/completions", "")
	wantError(t, res, body, 405, "method_not_allowed")
	if res.Header.Get("Allow") != "POST" {
		t.Errorf("Allow: %q", res.Header.Get("Allow"))
	}
	res, body = r.call(t, "GET", "/v1/models/nobody", "")
	wantError(t, res, body, 404, "model_not_found")
	if res, _ := r.call(t, "GET", "/v1/models/hermes-agent", ""); res.StatusCode != http.StatusOK {
		t.Errorf("%d", res.StatusCode)
	}
}
