package telegram

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxUpload is the largest file that a bot may send, and maxDownload the
// largest that it may fetch, bytes.
const (
	maxUpload   = 50 << 20
	maxDownload = 20 << 20
	maxForm     = 1 << 20 // of everything that is no file
)

// params are the parameters of a call, however they came: query, form,
// multipart form or JSON, https://core.telegram.org/bots/api#making-requests.
type params struct {
	values  map[string]string // what is no string stands as JSON
	uploads map[string]*upload
}

type upload struct {
	name, mime string
	data       []byte
}

func readParams(r *http.Request) (*params, *apiError) {
	p := &params{values: map[string]string{}}
	for k, v := range r.URL.Query() {
		p.values[k] = v[0]
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var err error
	switch kind {
	case "application/json":
		err = p.readJSON(r.Body)
	case "multipart/form-data":
		err = p.readMultipart(r)
	case "application/x-www-form-urlencoded":
		r.Body = http.MaxBytesReader(nil, r.Body, maxForm)
		if err = r.ParseForm(); err == nil {
			for k, v := range r.PostForm {
				p.values[k] = v[0]
			}
		}
	default:
		_, err = io.Copy(io.Discard, io.LimitReader(r.Body, maxForm))
	}
	switch {
	case errors.Is(err, errTooLarge):
		return nil, &apiError{Code: http.StatusRequestEntityTooLarge, Description: "Request Entity Too Large"}
	case err != nil:
		return nil, badRequest("can't parse the request: " + err.Error())
	}
	for _, v := range p.values {
		if !utf8.ValidString(v) {
			return nil, badRequest("strings must be encoded in UTF-8")
		}
	}
	return p, nil
}

var errTooLarge = errors.New("too large")

func (p *params) readJSON(body io.Reader) error {
	var fields map[string]json.RawMessage
	if err := json.NewDecoder(io.LimitReader(body, maxForm)).Decode(&fields); err != nil && err != io.EOF {
		return err
	}
	for k, raw := range fields {
		var s string
		if json.Unmarshal(raw, &s) == nil {
			p.values[k] = s
		} else {
			p.values[k] = string(raw)
		}
	}
	return nil
}

func (p *params) readMultipart(r *http.Request) error {
	m, err := r.MultipartReader()
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		part, err := m.NextPart()
		if err == io.EOF || first && errors.Is(err, io.EOF) {
			return nil // an empty body is a form without fields
		}
		if err != nil {
			return err
		}
		limit := int64(maxForm)
		if part.FileName() != "" {
			limit = maxUpload
		}
		data, err := io.ReadAll(io.LimitReader(part, limit+1))
		switch {
		case err != nil:
			return err
		case int64(len(data)) > limit:
			return errTooLarge
		}
		if part.FileName() == "" {
			p.values[part.FormName()] = string(data)
			continue
		}
		if p.uploads == nil {
			p.uploads = map[string]*upload{}
		}
		p.uploads[part.FormName()] = &upload{name: part.FileName(), mime: part.Header.Get("Content-Type"), data: data}
	}
}

func (p *params) number(name string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(p.values[name]), 10, 64)
	return n
}

func (p *params) yes(name string) bool {
	v := strings.ToLower(p.values[name])
	return v == "true" || v == "yes" || v == "1"
}

// object decodes a parameter that is JSON; an absent one leaves v as it is.
func (p *params) object(name string, v any) *apiError {
	raw := p.values[name]
	if raw == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(raw), v); err != nil {
		return badRequest("can't parse " + strings.ReplaceAll(name, "_", " ") + " JSON object")
	}
	return nil
}
