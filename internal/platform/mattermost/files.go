package mattermost

import (
	"cmp"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"strconv"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
	"hermes/internal/platform/files"
)

// upload sends a file to the server, to be put under a post,
// https://api.mattermost.com/#tag/files/operation/UploadFile. The body is the
// file itself, so that it is streamed.
func (a *Adapter) upload(ctx context.Context, channel string, at *domain.Attachment) (string, *platform.Error) {
	most := int64(maxUpload)
	if l := a.limits.Load(); l != nil && l.fileBytes > 0 {
		most = l.fileBytes
	}
	name := clean.FileName(cmp.Or(at.Name, filepath.Base(at.Path)))
	f, size, e := files.Service{Code: "mattermost_file", Name: "Mattermost", Most: most,
		TooLarge: "the server takes (" + strconv.FormatInt(most>>20, 10) + " MB)"}.Open(at, name)
	if e != nil {
		return "", e
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout+files.Patience(size))
	defer cancel()
	q := url.Values{"channel_id": {channel}, "filename": {name}}
	resp, c := a.wire.do(ctx, request{method: http.MethodPost, path: "/files?" + q.Encode(), body: io.LimitReader(f, size), size: size, contentType: "application/octet-stream"})
	if resp == nil {
		return "", a.classify(c)
	}
	var out struct {
		Infos []fileInfo `json:"file_infos"`
	}
	if e := a.decode(c, resp, &out); e != nil {
		return "", e
	}
	if len(out.Infos) != 1 || !isID(out.Infos[0].ID) {
		return "", notMattermost(c.Status)
	}
	return out.Infos[0].ID, nil
}

// Fetch downloads an inbound file by its id,
// https://api.mattermost.com/#tag/files/operation/GetFile. It asks only the
// configured server and follows no redirect, so nothing that a post says can
// lead it elsewhere. At most max bytes are written to w.
func (a *Adapter) Fetch(ctx context.Context, at domain.Attachment, max int64, w io.Writer) (domain.Attachment, error) {
	tooLarge := &platform.Error{Kind: platform.GiveUp, Code: "mattermost_file", Reason: "the file " + at.Name + " is larger than is allowed here (" + strconv.FormatInt(max>>20, 10) + " MB)"}
	switch {
	case !isID(at.Ref):
		return at, &platform.Error{Kind: platform.GiveUp, Code: "mattermost_file", Reason: "the file " + at.Name + " has no id of Mattermost's"}
	case at.Size > max:
		return at, tooLarge
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout+files.Patience(max))
	defer cancel()
	resp, c := a.wire.do(ctx, request{method: http.MethodGet, path: "/files/" + at.Ref})
	const failed = "the file could not be fetched from Mattermost"
	if resp == nil {
		e := harmless(a.classify(c), failed)
		if e.Code == codeAbsent {
			e.Code, e.Reason = "mattermost_file", "the file "+at.Name+" is not on the server any more: send it again"
		}
		return at, e
	}
	defer resp.Body.Close()
	n, err := files.Copy(w, resp.Body, max)
	if errors.Is(err, files.ErrTooLarge) {
		return at, tooLarge
	}
	if err != nil {
		c.Err = err
		return at, harmless(a.classify(c), failed)
	}
	at.Size = n
	at.MIME = cmp.Or(at.MIME, mime.TypeByExtension(path.Ext(at.Name)), resp.Header.Get("Content-Type"))
	return at, nil
}
