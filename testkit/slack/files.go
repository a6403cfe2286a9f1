package slack

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// stored is a file, https://docs.slack.dev/reference/objects/file-object.
type stored struct {
	id, name, kind string
	data           []byte
	expected       int64
	arrived        bool
	url            string // in place of its own, for a file that is kept elsewhere
}

func (s *Server) fileObject(f *stored) map[string]any {
	u := "http://" + s.Addr() + "/files-pri/" + f.id + "/" + url.PathEscape(f.name)
	if f.url != "" {
		u = f.url
	}
	return map[string]any{"id": f.id, "name": f.name, "title": f.name, "mimetype": f.kind, "size": len(f.data), "mode": "hosted",
		"is_external": f.url != "", "url_private": u, "url_private_download": u}
}

// store keeps a file; the caller holds s.mu.
func (s *Server) store(name, kind string, data []byte) *stored {
	if kind == "" {
		kind = mime.TypeByExtension(path.Ext(name))
	}
	if kind == "" {
		kind = "application/octet-stream"
	}
	f := &stored{id: s.newID("F"), name: name, kind: kind, data: bytes.Clone(data), arrived: true}
	s.files[f.id] = f
	return f
}

func (s *Server) fileInfo(q url.Values) (answer, string) {
	f := s.files[q.Get("file")]
	if f == nil {
		return nil, "file_not_found"
	}
	return answer{"file": s.fileObject(f)}, ""
}

// uploadURL is https://docs.slack.dev/reference/methods/files.getUploadURLExternal.
func (s *Server) uploadURL(q url.Values) (answer, string) {
	n, err := strconv.ParseInt(q.Get("length"), 10, 64)
	if err != nil || n <= 0 || q.Get("filename") == "" {
		return nil, "invalid_arguments"
	}
	f := s.store(q.Get("filename"), "", nil)
	f.arrived, f.expected = false, n
	return answer{"upload_url": "http://" + s.Addr() + "/upload/" + f.id, "file_id": f.id}, ""
}

// upload takes the bytes, as they are or as a form.
func (s *Server) upload(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	if err != nil {
		return
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data") {
		r.Body = io.NopCloser(bytes.NewReader(body))
		if f, _, err := r.FormFile("file"); err == nil {
			body, _ = io.ReadAll(f) // it is in memory
			f.Close()
		}
	}
	act := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if f := s.files[r.PathValue("id")]; f != nil && !f.arrived {
			f.data, f.arrived = body, int64(len(body)) == f.expected
		}
	}
	s.Serve(w, r, "upload", "", func(w http.ResponseWriter) {
		act()
		io.WriteString(w, "OK - "+itoa(len(body))) //nolint:errcheck // the client may be gone
	})
}

// completeUpload is https://docs.slack.dev/reference/methods/files.completeUploadExternal.
func (s *Server) completeUpload(q url.Values) (answer, string) {
	var in []struct {
		ID    string `json:"id"`
		Title string `json:"title"`
	}
	if json.Unmarshal([]byte(q.Get("files")), &in) != nil || len(in) == 0 {
		return nil, "invalid_arguments"
	}
	m := &message{User: s.self.ID, BotID: botID, Subtype: "file_share", Text: q.Get("initial_comment"), Thread: q.Get("thread_ts")}
	out := []any{}
	for _, one := range in {
		f := s.files[one.ID]
		if f == nil || !f.arrived {
			return nil, "file_not_found"
		}
		m.files = append(m.files, f)
		out = append(out, map[string]any{"id": f.id, "title": one.Title})
	}
	if id := q.Get("channel_id"); id != "" {
		c, e := s.writable(id)
		if e != "" {
			return nil, e
		}
		s.show(c, m)
	}
	return answer{"files": out}, ""
}

// download gives a file to whoever has the bot's token, and to others the login page.
func (s *Server) download(w http.ResponseWriter, r *http.Request) {
	s.Serve(w, r, "download", "", func(w http.ResponseWriter) {
		s.mu.Lock()
		f := s.files[r.PathValue("id")]
		allowed := r.Header.Get("Authorization") == "Bearer "+s.token && !s.noScope["files:read"]
		s.mu.Unlock()
		switch {
		case !allowed:
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, "<!DOCTYPE html><title>Sign in | Slack</title>") //nolint:errcheck // the client may be gone
		case f == nil:
			http.NotFound(w, r)
		default:
			w.Header().Set("Content-Type", f.kind)
			w.Write(f.data) //nolint:errcheck // as above
		}
	})
}
