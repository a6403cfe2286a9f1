package telegram

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"image"
	_ "image/gif"  // the formats of which sendPhoto
	_ "image/jpeg" // reads the size
	_ "image/png"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

// stored is a file on the server.
type stored struct {
	File
	path          string
	unique        string
	data          []byte
	width, height int
}

const maxPhoto = 10 << 20 // bytes, https://core.telegram.org/bots/api#sendphoto

// store keeps a file; the caller holds s.mu.
func (s *Server) store(kind, name, mimeType string, data []byte) *stored {
	s.ids++
	sum := sha256.Sum256(data)
	if mimeType == "" {
		mimeType = mime.TypeByExtension(path.Ext(name))
	}
	ext := map[string]string{"photo": ".jpg", "voice": ".oga"}[kind]
	if ext == "" {
		ext = path.Ext(name)
	}
	f := &stored{
		File:   File{ID: "AgACAgIAAxk" + itoa(s.ids), Kind: kind, Name: name, MIME: mimeType, Size: int64(len(data))},
		path:   kind + "s/file_" + itoa(s.ids) + ext,
		unique: "AQAD" + hex.EncodeToString(sum[:6]),
		data:   data,
	}
	if c, _, err := image.DecodeConfig(bytes.NewReader(data)); err == nil {
		f.width, f.height = c.Width, c.Height
	}
	s.files[f.ID] = f
	return f
}

// attach stores a file and adds it to a message.
func (s *Server) attach(m *message, kind, name, mimeType string, data []byte) *File {
	f := s.store(kind, name, mimeType, data)
	f.describe(m)
	return &f.File
}

// describe puts the file into the field that a message has for its kind.
func (f *stored) describe(m *message) {
	w := file{FileID: f.ID, FileUniqueID: f.unique, FileName: f.Name, MimeType: f.MIME, FileSize: f.Size}
	switch f.Kind {
	case "photo":
		w.FileName, w.MimeType = "", ""
		w.Width, w.Height = max(f.width, 1), max(f.height, 1)
		small := w
		small.FileID, small.FileUniqueID = f.ID+"-s", f.unique+"s"
		small.Width, small.Height, small.FileSize = min(w.Width, 90), min(w.Height, 90), w.FileSize/10+1
		if small.Width < w.Width || small.Height < w.Height {
			m.Photo = append(m.Photo, small)
		}
		m.Photo = append(m.Photo, w)
	case "voice":
		w.FileName, w.Duration = "", 3
		m.Voice = &w
	case "audio":
		m.Audio = &w
	case "video", "animation":
		w.Width, w.Height = 320, 240
		m.Video = &w
	default:
		m.Document = &w
	}
}

// sendMedia makes the method that sends a kind of file, by upload or by the id
// of a file that is on the server.
func sendMedia(kind string) func(*Server, *params) (any, *apiError) {
	return func(s *Server, p *params) (any, *apiError) {
		c, err := s.place(p)
		if err != nil {
			return nil, err
		}
		caption, entities, err := p.text("caption", maxCaption, "message caption is too long")
		if err != nil {
			return nil, err
		}
		m, err := s.compose(p, c)
		if err != nil {
			return nil, err
		}
		f, err := s.incoming(p, kind)
		if err != nil {
			return nil, err
		}
		if err := s.flood(c); err != nil {
			return nil, err
		}
		m.Text, m.Source, m.Entities, m.File = caption, p.values["caption"], entities, &f.File
		return s.wireMessage(c, s.show(c, m)), nil
	}
}

// incoming takes the file of a request.
func (s *Server) incoming(p *params, kind string) (*stored, *apiError) {
	u := p.uploads[kind]
	if name, ok := strings.CutPrefix(p.values[kind], "attach://"); ok {
		u = p.uploads[name]
	}
	if u == nil {
		id := p.values[kind]
		switch f := s.files[id]; {
		case f != nil:
			return f, nil
		case id == "":
			return nil, badRequest("there is no " + kind + " in the request")
		}
		return nil, badRequest("wrong file identifier/HTTP URL specified")
	}
	if len(u.data) == 0 {
		return nil, badRequest("file must be non-empty")
	}
	mimeType := u.mime
	if mimeType == "application/octet-stream" {
		mimeType = ""
	}
	if kind == "photo" {
		if len(u.data) > maxPhoto {
			return nil, badRequest("file is too big")
		}
		cfg, _, err := image.DecodeConfig(bytes.NewReader(u.data))
		switch {
		case err != nil:
			return nil, badRequest("IMAGE_PROCESS_FAILED")
		case cfg.Width+cfg.Height > 10_000 || cfg.Width > 20*cfg.Height || cfg.Height > 20*cfg.Width:
			return nil, badRequest("PHOTO_INVALID_DIMENSIONS")
		}
	}
	return s.store(kind, u.name, mimeType, u.data), nil
}

// getFile is https://core.telegram.org/bots/api#getfile.
func (s *Server) getFile(p *params) (any, *apiError) {
	f := s.files[strings.TrimSuffix(p.values["file_id"], "-s")]
	switch {
	case f == nil:
		return nil, badRequest("invalid file_id")
	case f.Size > maxDownload:
		return nil, badRequest("file is too big")
	}
	return file{FileID: f.ID, FileUniqueID: f.unique, FileSize: f.Size, FilePath: f.path}, nil
}

// download serves /file/bot<token>/<path>; faults know it as "file".
func (s *Server) download(w http.ResponseWriter, r *http.Request, rest string) {
	token, name, _ := strings.Cut(rest, "/")
	s.Serve(w, r, "file", "", func(w http.ResponseWriter) {
		s.mu.Lock()
		var found *stored
		for _, f := range s.files {
			if name != "" && f.path == name && token == s.token {
				found = f
			}
		}
		s.mu.Unlock()
		if found == nil {
			answer(w, nil, &apiError{Code: http.StatusNotFound, Description: "Not Found"})
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(found.data))
	})
}

// FileData gives the bytes of a file that a chat shows; nil when there is none.
func (s *Server) FileData(id string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.files[id]; f != nil {
		return f.data
	}
	return nil
}

// DropFiles makes the server forget every file, as Telegram does in time.
func (s *Server) DropFiles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		f.path = ""
	}
}
