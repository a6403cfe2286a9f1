package dashboard

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func serve(t *testing.T, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	mux := http.NewServeMux()
	for _, p := range Patterns() {
		mux.Handle(p, Handler())
	}
	r := httptest.NewRequest("GET", path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

func TestPages(t *testing.T) {
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/schedule": "text/html; charset=utf-8", "/status": "text/html; charset=utf-8",
		"/assets/app.css": "text/css; charset=utf-8", "/assets/chat.js": "text/javascript; charset=utf-8", "/assets/icon.svg": "image/svg+xml",
	} {
		w := serve(t, path)
		h := w.Header()
		if w.Code != 200 || h.Get("Content-Type") != kind || w.Body.Len() == 0 {
			t.Errorf("%s: %d %q", path, w.Code, h.Get("Content-Type"))
		}
		if !strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'self'") || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %v", path, h)
		}
		if again := serve(t, path, "If-None-Match", h.Get("ETag")); again.Code != http.StatusNotModified {
			t.Errorf("%s again: %d", path, again.Code)
		}
	}
	for _, path := range []string{"/assets/", "/assets/none.js", "/assets/../dashboard.go", "/nowhere"} {
		if w := serve(t, path); w.Code == 200 {
			t.Errorf("%s is served", path)
		}
	}
}

// The policy forbids inline code, and nothing may be loaded from elsewhere;
// text of a model must never become markup.
func TestAssetsKeepThePolicy(t *testing.T) {
	forbidden := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\son\w+="|\sstyle="|<script>|<style|(src|href)="https?:|url\(|@import`)
	err := fs.WalkDir(assets, "assets", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := assets.ReadFile(path)
		if err != nil {
			return err
		}
		if found := forbidden.Find(raw); found != nil {
			t.Errorf("%s has %q", path, found)
		}
		if n := strings.Count(string(raw), "\n"); n > 600 {
			t.Errorf("%s has %d lines", path, n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
