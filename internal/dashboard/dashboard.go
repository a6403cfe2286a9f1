// Package dashboard is the pages that a person opens in a browser: the chat at
// /, the jobs at /schedule and the state of the gateway at /status. They are plain files without any
// foreign resource; what they show they fetch from the API, so that they hold
// nothing worth guarding.
package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed assets
var assets embed.FS

// policy lets a page load only what we serve. Text of a model is never markup
// here; this is the second wall. See https://www.w3.org/TR/CSP3/.
const policy = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"

// pages maps an exact path to its file; everything under /assets/ is served
// under its own name.
var pages = map[string]string{"/": "chat.html", "/schedule": "schedule.html", "/status": "status.html"}

// Patterns are the http.ServeMux patterns that Handler serves.
func Patterns() []string { return []string{"GET /{$}", "GET /schedule", "GET /status", "GET /assets/"} }

// file is one embedded file, ready to be sent.
type file struct {
	body []byte
	kind string
	etag string
}

// Handler serves the pages. It is safe for concurrent use and needs no guard.
func Handler() http.Handler {
	files := load()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := pages[r.URL.Path]
		if !ok {
			name = strings.TrimPrefix(r.URL.Path, "/assets/")
		}
		f, found := files[name]
		if !found {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", f.kind)
		h.Set("ETag", f.etag)
		h.Set("Cache-Control", "no-cache") // asked again each time, answered 304
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(f.body))
	})
}

// load reads the embedded files. They are part of the binary, so that a
// failure is a defect of the build.
func load() map[string]file {
	files := map[string]file{}
	err := fs.WalkDir(assets, "assets", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := assets.ReadFile(p)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		name := strings.TrimPrefix(p, "assets/")
		files[name] = file{body, contentType(name), `"` + hex.EncodeToString(sum[:8]) + `"`}
		return nil
	})
	if err != nil {
		panic(err)
	}
	return files
}

// contentType does not ask the host's MIME tables, which differ.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return mime.TypeByExtension(path.Ext(name))
}
