package httpcall_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"hermes/internal/platform/httpcall"
)

func ask(t *testing.T, ctx context.Context, to string) (*httpcall.Call, *http.Response) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader("text"))
	if err != nil {
		t.Fatal(err)
	}
	client := httpcall.Fixed(httpcall.NewClient(""))
	t.Cleanup(client.CloseIdleConnections)
	var c httpcall.Call
	resp := c.Do(client, req)
	if resp != nil {
		t.Cleanup(func() { resp.Body.Close() })
	}
	return &c, resp
}

// A request that nobody took was certainly not carried out; one that was
// written, and whose answer was lost, may have been.
func TestWroteSaysWhatMayHaveBeenCarriedOut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	c, resp := ask(t, t.Context(), "http://"+nobody+"/bot-s3cret/send")
	if resp != nil || c.Wrote() || c.Err == nil || c.Status != 0 || c.OK() {
		t.Errorf("nobody listens: wrote %v, status %d, %v", c.Wrote(), c.Status, c.Err)
	}
	if strings.Contains(c.Err.Error(), "s3cret") {
		t.Errorf("the error has the address in it: %v", c.Err)
	}

	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close()
	}))
	defer cut.Close()
	c, resp = ask(t, t.Context(), cut.URL)
	if resp != nil || !c.Wrote() || c.Err == nil || c.Status != 0 {
		t.Errorf("the answer was cut: wrote %v, status %d, %v", c.Wrote(), c.Status, c.Err)
	}
}

func TestNoRedirectIsFollowed(t *testing.T) {
	from := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:1/elsewhere", http.StatusFound))
	defer from.Close()
	c, resp := ask(t, t.Context(), from.URL)
	if resp == nil || c.Status != http.StatusFound || c.OK() || c.Header.Get("Location") == "" {
		t.Errorf("status %d, %v", c.Status, c.Err)
	}
}

func TestAnAnswerIsBounded(t *testing.T) {
	if b, err := httpcall.ReadAll(strings.NewReader("12345"), 5); err != nil || string(b) != "12345" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := httpcall.ReadAll(strings.NewReader("123456"), 5); !errors.Is(err, httpcall.ErrTooLarge) {
		t.Errorf("%v", err)
	}
}
