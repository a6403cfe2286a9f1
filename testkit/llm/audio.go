package llm

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
)

// maxAudio is the service's limit of an uploaded file, 25 MB.
const maxAudio = 25 << 20

// Recording is a request for a transcription as it came in.
//
// Source: https://platform.openai.com/docs/api-reference/audio/createTranscription
type Recording struct {
	Model, Language, Name string
	Data                  []byte
	Header                http.Header
}

// Heard is what the server does with a recording: Text, or Failure, or Body as
// it stands with status 200. Before is called first; done ends with the request.
type Heard struct {
	Text    string
	Failure *Failure
	Body    string
	Before  func(done <-chan struct{})
}

// SetEars lets f answer transcriptions; without it every recording is silence.
func (s *Server) SetEars(f func(Recording) Heard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ears = f
}

// Recordings gives the requests for transcriptions so far, refused ones too.
func (s *Server) Recordings() []Recording {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.heard)
}

// transcribe answers as the service does, which knows a format by the file's name.
func (s *Server) transcribe(w http.ResponseWriter, r *http.Request) {
	invalid := func(status int, text string) { Fail(status).write(w, "invalid_request_error", "", text) }
	if err := r.ParseMultipartForm(maxAudio); err != nil {
		invalid(http.StatusBadRequest, "Could not parse multipart form")
		return
	}
	defer func() { _ = r.MultipartForm.RemoveAll() }()
	s.mu.Lock()
	wrong := s.key != "" && r.Header.Get("Authorization") != "Bearer "+s.key
	s.mu.Unlock()
	f, head, err := r.FormFile("file")
	if err != nil && wrong { // the key is looked at before the form
		Fail(http.StatusUnauthorized).write(w, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: "+r.Header.Get("Authorization")+".")
		return
	}
	if err != nil {
		invalid(http.StatusBadRequest, "you must provide a file")
		return
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxAudio+1))
	if err != nil || len(data) > maxAudio {
		invalid(http.StatusRequestEntityTooLarge, "Maximum content size limit (26214400) exceeded")
		return
	}
	rec := Recording{Model: r.FormValue("model"), Language: r.FormValue("language"), Name: head.Filename, Data: data, Header: r.Header.Clone()}
	s.mu.Lock()
	s.heard = append(s.heard, rec)
	ears, key := s.ears, s.key
	s.mu.Unlock()
	_, ext, _ := strings.Cut(rec.Name, ".")
	switch {
	case key != "" && r.Header.Get("Authorization") != "Bearer "+key:
		Fail(http.StatusUnauthorized).write(w, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: "+r.Header.Get("Authorization")+".")
		return
	case rec.Model == "":
		invalid(http.StatusBadRequest, "you must provide a model parameter")
		return
	case !slices.Contains([]string{"flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "oga", "ogg", "wav", "webm"}, ext):
		invalid(http.StatusBadRequest, "Invalid file format.")
		return
	}
	var h Heard
	if ears != nil {
		h = ears(rec)
	}
	if h.Before != nil {
		h.Before(r.Context().Done())
	}
	switch {
	case h.Failure != nil:
		h.Failure.write(w, "server_error", "", "The server had an error while processing your request.")
	case h.Body != "":
		_, _ = io.WriteString(w, h.Body)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"text": h.Text})
	}
}
