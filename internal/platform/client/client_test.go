package client_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"

	"hermes/internal/platform/client"
)

// Over TLS too HTTP/1.1 is spoken, whatever the server would like.
func TestSpeaksHTTP1(t *testing.T) {
	var proto string
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { proto = r.Proto }))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	c := client.New("", nil)
	defer c.CloseIdleConnections()
	c.Transport.(*http.Transport).TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	c.Transport.(*http.Transport).TLSClientConfig.NextProtos = nil
	res, err := c.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if proto != "HTTP/1.1" {
		t.Errorf("it spoke %s", proto)
	}
}

func TestGoesThroughTheProxy(t *testing.T) {
	var asked string
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked = r.URL.String() }))
	defer proxy.Close()
	c := client.New(proxy.URL, nil)
	defer c.CloseIdleConnections()
	res, err := c.Get("http://service.invalid/path")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if asked != "http://service.invalid/path" {
		t.Errorf("the proxy was asked for %q", asked)
	}
}

func TestAsksBeforeItConnects(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it connected") }))
	defer srv.Close()
	refused := errors.New("not there")
	c := client.New("", func(string, string, syscall.RawConn) error { return refused })
	if res, err := c.Get(srv.URL); !errors.Is(err, refused) {
		t.Errorf("%v, %v", res, err)
	}
}
