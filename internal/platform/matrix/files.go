package matrix

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
	"strings"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/files"
)

// msgTypes is what a file of each kind is sent as.
var msgTypes = map[domain.AttachmentKind]string{
	domain.Image: "m.image", domain.Audio: "m.audio", domain.Voice: "m.audio", domain.Video: "m.video",
}

// fileContent uploads a file and fills in the content of its event,
// https://spec.matrix.org/v1.15/client-server-api/#post_matrixmediav3upload.
func (a *Adapter) fileContent(ctx context.Context, at *domain.Attachment, c map[string]any) *platform.Error {
	name := fileName(at, filepath.Base(at.Path))
	kind := cmp.Or(at.MIME, mime.TypeByExtension(path.Ext(name)), "application/octet-stream")
	most := a.uploadLimit(ctx)
	f, size, e := files.Service{Code: "matrix_file", Name: "a homeserver", Most: most,
		TooLarge: "the homeserver takes (" + strconv.FormatInt(most>>20, 10) + " MB)"}.Open(at, name)
	if e != nil {
		return e
	}
	defer f.Close()
	var out struct {
		URI string `json:"content_uri"`
	}
	r := request{method: http.MethodPost, path: "/_matrix/media/v3/upload", query: url.Values{"filename": {name}}, body: io.LimitReader(f, size), size: size,
		contentType: kind, timeout: a.cfg.SendTimeout + files.Patience(size)}
	answer, e := a.call(ctx, r, &out)
	if e != nil {
		if e.Code == codeLarge {
			e.Reason = "the file " + name + " is larger than the homeserver takes"
		}
		if answer.forgotten() && a.canLogIn() {
			if e := a.renew(ctx, answer.token); e != nil {
				return e
			}
			e.Kind = platform.Retry // the file is read again
		}
		return harmless(e, "the file "+name+" could not be uploaded")
	}
	if _, _, ok := mediaOf(out.URI); !ok {
		return notMatrix(answer.Status)
	}
	c["msgtype"] = cmp.Or(msgTypes[at.Kind], msgTypes[kindOf(kind)], "m.file")
	c["body"], c["filename"], c["url"] = name, name, out.URI
	c["info"] = map[string]any{"mimetype": kind, "size": size}
	if at.Kind == domain.Voice {
		c["org.matrix.msc3245.voice"] = struct{}{} // which no version of the specification has yet, and clients look for
	}
	return nil
}

func kindOf(mime string) domain.AttachmentKind {
	class, _, _ := strings.Cut(mime, "/")
	if class == "image" && strings.HasPrefix(mime, "image/svg") {
		return domain.Document
	}
	return map[string]domain.AttachmentKind{"image": domain.Image, "audio": domain.Audio, "video": domain.Video}[class]
}

// uploadLimit is the size of a file that the homeserver takes, in bytes,
// https://spec.matrix.org/v1.15/client-server-api/#get_matrixclientv1mediaconfig.
func (a *Adapter) uploadLimit(ctx context.Context) int64 {
	if n := a.maxFile.Load(); n > 0 {
		return n
	}
	var out struct {
		Size int64 `json:"m.upload.size"`
	}
	if _, e := a.get(ctx, "/v1/media/config", nil, &out); e != nil {
		if e.Code != refusals["M_UNRECOGNIZED"].code && e.Code != codeAbsent {
			return maxUpload
		}
		if _, e := a.get(ctx, "/_matrix/media/v3/config", nil, &out); e != nil { // before version 1.11
			return maxUpload
		}
	}
	if out.Size <= 0 {
		out.Size = maxUpload
	}
	a.maxFile.Store(out.Size)
	return out.Size
}

// mediaOf takes the parts of a content address, mxc://server/id,
// https://spec.matrix.org/v1.15/client-server-api/#matrix-content-mxc-uris.
func mediaOf(uri string) (server, id string, ok bool) {
	rest, found := strings.CutPrefix(uri, "mxc://")
	server, id, ok = strings.Cut(rest, "/")
	bad := func(s, others string) bool {
		return s == "" || len(s) > maxID || strings.ContainsFunc(s, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(others, r))
		})
	}
	if !found || !ok || bad(server, ".:-[]") || bad(id, "_-") {
		return "", "", false
	}
	return server, id, true
}

// Fetch downloads an inbound file by its address. It asks only the configured
// homeserver, which gets it from elsewhere where need be, and follows no
// redirect; so nothing that a message says can lead it anywhere. At most max
// bytes are written to w.
func (a *Adapter) Fetch(ctx context.Context, at domain.Attachment, max int64, w io.Writer) (domain.Attachment, error) {
	give := func(reason string) *platform.Error {
		return &platform.Error{Kind: platform.GiveUp, Code: "matrix_file", Reason: reason}
	}
	tooLarge := give("the file " + at.Name + " is larger than is allowed here (" + strconv.FormatInt(max>>20, 10) + " MB)")
	server, id, ok := mediaOf(at.Ref)
	switch {
	case !ok:
		return at, give("the file " + at.Name + " has no address of a homeserver")
	case at.Size > max:
		return at, tooLarge
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout+files.Patience(max))
	defer cancel()
	const failed = "the file could not be fetched from the homeserver"
	under := server + "/" + id
	// https://spec.matrix.org/v1.15/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid
	resp, c, e := a.do(ctx, request{method: http.MethodGet, path: "/v1/media/download/" + under})
	if e != nil && c.isJSON && c.reply.Code == "M_UNRECOGNIZED" { // a homeserver from before version 1.11
		resp, c, e = a.do(ctx, request{method: http.MethodGet, path: "/_matrix/media/v3/download/" + under, public: true})
	}
	switch {
	case e != nil && c.Status >= 300 && c.Status < 400:
		return at, give("the homeserver keeps the file " + at.Name + " elsewhere, and it is not fetched from there")
	case e != nil && e.Code == codeAbsent:
		return at, give("the file " + at.Name + " is not on the homeserver any more: send it again")
	case e != nil && e.Code == codeLarge:
		return at, give("the homeserver does not hand on so large a file as " + at.Name)
	case e != nil:
		return at, harmless(e, failed)
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
