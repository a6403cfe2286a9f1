package mattermost

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"

	"hermes/internal/domain"
	"hermes/internal/plain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
)

// slowest is the rate at which a file is still waited for, bytes a second.
const slowest = 64 << 10

// upload sends a file to the server, to be put under a post,
// https://api.mattermost.com/#tag/files/operation/UploadFile. The body is the
// file itself, so that it is streamed.
func (a *Adapter) upload(ctx context.Context, channel string, at *domain.Attachment) (string, *platform.Error) {
	if at.Path == "" {
		return "", &platform.Error{Kind: platform.GiveUp, Code: "mattermost_file", Reason: "the file " + clean.FileName(at.Name) + " is not on this machine"}
	}
	f, size, e := a.open(at.Path)
	if e != nil {
		return "", e
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout+time.Duration(size/slowest)*time.Second)
	defer cancel()
	q := url.Values{"channel_id": {channel}, "filename": {clean.FileName(cmp.Or(at.Name, filepath.Base(at.Path)))}}
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
		return "", notMattermost(c.status)
	}
	return out.Infos[0].ID, nil
}

// open opens a file that is to be sent. Its errors are for people.
func (a *Adapter) open(name string) (*os.File, int64, *platform.Error) {
	give := func(reason string, cause error) *platform.Error {
		return &platform.Error{Kind: platform.GiveUp, Code: "mattermost_file", Reason: reason, Cause: cause}
	}
	most := int64(maxUpload)
	if l := a.limits.Load(); l != nil && l.fileBytes > 0 {
		most = l.fileBytes
	}
	base := filepath.Base(name)
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, 0, give("the file "+base+" is not there any more", nil)
	case err != nil:
		return nil, 0, give("the file "+base+" cannot be read", err)
	case !info.Mode().IsRegular(): // a FIFO or a device would never end
		return nil, 0, give(base+" is no file that could be sent", nil)
	case info.Size() == 0:
		return nil, 0, give("the file "+base+" is empty, and Mattermost takes no empty files", nil)
	case info.Size() > most:
		return nil, 0, give("the file "+base+" is larger than the server takes ("+strconv.FormatInt(most>>20, 10)+" MB)", nil)
	}
	f, err := plain.Open(name)
	if err != nil {
		return nil, 0, give("the file "+base+" cannot be read", err)
	}
	return f, info.Size(), nil
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
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout+time.Duration(max/slowest)*time.Second)
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
	n, err := io.Copy(w, io.LimitReader(resp.Body, max))
	if err != nil {
		c.err = err
		return at, harmless(a.classify(c), failed)
	}
	if more, _ := io.CopyN(io.Discard, resp.Body, 1); more > 0 {
		return at, tooLarge
	}
	at.Size = n
	at.MIME = cmp.Or(at.MIME, mime.TypeByExtension(path.Ext(at.Name)), resp.Header.Get("Content-Type"))
	return at, nil
}
