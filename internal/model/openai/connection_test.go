package openai_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"hermes/internal/model"
	"hermes/internal/model/openai"
	"hermes/testkit/llm"
)

// TestDeadConnection: a kept-alive connection that the service closed while it
// was idle costs no call, although a POST went out on it.
func TestDeadConnection(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"choices":[{"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}]}`
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for n := 0; ; n++ {
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					if n > 0 {
						return // the second request of a connection meets its end
					}
					fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				}
			})
		}
	})
	transport := openai.NewTransport()
	defer wg.Wait()
	defer ln.Close()
	defer transport.CloseIdleConnections()
	client, err := openai.New(openai.Config{Name: "fake", BaseURL: "http://" + ln.Addr().String(), Model: "m"}, openai.Deps{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if answer, err := client.Complete(t.Context(), ask(strings.Repeat("long ", 10_000)), nil); err != nil || answer.Text != "ok" {
			t.Fatalf("%+v, %v", answer, err)
		}
	}
}

// TestHTTP2 streams over TLS and HTTP/2, as the large services do.
func TestHTTP2(t *testing.T) {
	fake, err := llm.Start(llm.Always(llm.Reply{Text: "one two three"}))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	target, err := url.Parse(strings.TrimSuffix(fake.URL(), "/v1"))
	if err != nil {
		t.Fatal(err)
	}
	inner := openai.NewTransport()
	defer inner.CloseIdleConnections()
	var protocols []string
	proxy := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocols = append(protocols, r.Proto)
		(&httputil.ReverseProxy{Transport: inner, FlushInterval: -1, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) }}).ServeHTTP(w, r)
	}))
	proxy.EnableHTTP2 = true
	proxy.StartTLS()
	defer proxy.Close()
	transport := openai.NewTransport()
	defer transport.CloseIdleConnections()

	call := func() (*model.Answer, error) {
		client, err := openai.New(openai.Config{Name: "fake", BaseURL: proxy.URL + "/v1", Key: key, Model: "m"}, openai.Deps{Transport: transport})
		if err != nil {
			t.Fatal(err)
		}
		return client.Complete(t.Context(), ask("x"), func(model.Delta) {})
	}
	_, err = call()
	if e := failure(t, err, model.Unavailable); !strings.Contains(e.Message, "certificate") {
		t.Errorf("message %q", e.Message)
	}
	transport.TLSClientConfig = proxy.Client().Transport.(*http.Transport).TLSClientConfig
	transport.TLSClientConfig.NextProtos = []string{"h2", "http/1.1"}
	transport = transport.Clone() // the first call has fixed the protocols of the old one
	defer transport.CloseIdleConnections()
	answer, err := call()
	if err != nil || answer.Text != "one two three" || len(protocols) != 1 || protocols[0] != "HTTP/2.0" {
		t.Errorf("%+v, %v over %v", answer, err, protocols)
	}
}
