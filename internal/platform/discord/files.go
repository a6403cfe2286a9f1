package discord

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/network"
	"hermes/internal/plain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
	"hermes/internal/platform/files"
)

// takes is what bots may send, https://discord.com/developers/docs/reference#uploading-files.
var takes = files.Service{Code: "discord_file", Name: "Discord", Most: maxUpload, TooLarge: "bots may send (10 MiB)"}

// upload is one file that is to be sent.
type upload struct {
	path, name string
	size       int64
}

// uploads looks at the files that are to be sent. Its errors are for people.
func uploads(files []domain.Attachment) ([]upload, error) {
	var out []upload
	for _, f := range files {
		shown := strings.ReplaceAll(clean.FileName(cmp.Or(f.Name, filepath.Base(f.Path))), `"`, "_")
		open, size, e := takes.Open(&f, shown)
		if e != nil {
			return nil, e
		}
		open.Close()
		out = append(out, upload{f.Path, shown, size})
	}
	return out, nil
}

// multipartBody writes a message with files,
// https://discord.com/developers/docs/reference#uploading-files. Its files are
// at most maxUpload together, but for one alone.
func multipartBody(s step) ([]byte, string, *platform.Error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	fail := func(reason string, err error) ([]byte, string, *platform.Error) {
		return nil, "", &platform.Error{Kind: platform.GiveUp, Code: "discord_file", Reason: reason, Cause: err}
	}
	payload, err := json.Marshal(s.body)
	if err != nil {
		return fail("the message cannot be written", err)
	}
	if err := w.WriteField("payload_json", string(payload)); err != nil {
		return fail("the message cannot be written", err)
	}
	for i, u := range s.files {
		h := textproto.MIMEHeader{}
		h.Set("Content-Disposition", multipart.FileContentDisposition("files["+strconv.Itoa(i)+"]", u.name))
		h.Set("Content-Type", "application/octet-stream") // Discord finds out by the name
		part, err := w.CreatePart(h)
		if err == nil {
			err = copyFile(part, u.path)
		}
		if err != nil {
			return fail("the file "+u.name+" cannot be read", err)
		}
	}
	if err := w.Close(); err != nil {
		return fail("the message cannot be written", err)
	}
	return b.Bytes(), w.FormDataContentType(), nil
}

// copyFile copies at most what may be sent, should the file have grown.
func copyFile(w io.Writer, path string) error {
	f, err := plain.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(w, io.LimitReader(f, maxUpload+1))
	if n > maxUpload {
		return errors.New("it has become larger than bots may send (10 MiB)")
	}
	return err
}

// Fetch downloads an inbound file. Its message is read again, since the address
// of a file is valid for a day only. At most max bytes, and what
// DISCORD_MAX_ATTACHMENT_BYTES allows, are written to w.
func (a *Adapter) Fetch(ctx context.Context, at domain.Attachment, max int64, w io.Writer) (domain.Attachment, error) {
	limit := min(max, a.cfg.MaxFile)
	give := func(reason string) error {
		return &platform.Error{Kind: platform.GiveUp, Code: "discord_file", Reason: reason}
	}
	tooLarge := give("the file " + at.Name + " is larger than is allowed here (" + strconv.FormatInt(limit, 10) + " bytes, DISCORD_MAX_ATTACHMENT_BYTES)")
	if at.Size > limit {
		return at, tooLarge
	}
	ref := strings.Split(at.Ref, "/")
	if len(ref) != 3 || slices.ContainsFunc(ref, func(s string) bool { return snowflake(s) == 0 }) {
		return at, give("the file " + at.Name + " has no address on Discord")
	}
	var m message
	path := "/channels/" + ref[0] + "/messages/"
	if perr := a.get(ctx, "finding the file", path, path+ref[1], &m); perr != nil {
		if perr.Kind == platform.EditRefused { // which is said of messages that are gone
			return at, give("the file " + at.Name + " was deleted on Discord: send it again")
		}
		return at, perr
	}
	i := slices.IndexFunc(m.Attachments, func(f file) bool { return f.ID == ref[2] })
	if i < 0 {
		return at, give("the file " + at.Name + " was deleted on Discord: send it again")
	}
	n, err := a.download(ctx, m.Attachments[i].URL, at.Name, limit, w)
	if errors.Is(err, files.ErrTooLarge) {
		return at, tooLarge
	}
	if err != nil {
		return at, err
	}
	at.Size = n
	return at, nil
}

// download copies a file of at most limit bytes. files.ErrTooLarge.
func (a *Adapter) download(ctx context.Context, address, shown string, limit int64, w io.Writer) (int64, error) {
	retry := func(err error) error {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the address is signed
		}
		if errors.Is(err, network.ErrPrivate) {
			return &platform.Error{Kind: platform.GiveUp, Code: "discord_file", Reason: "the file " + shown + " is said to lie at a private address, and is not fetched from there"}
		}
		return &platform.Error{Kind: platform.Retry, Code: "discord_file", Reason: "the file " + shown + " could not be fetched from Discord: it is tried again", Cause: err}
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && privateHost(a.cfg.BaseURL)) {
		return 0, &platform.Error{Kind: platform.GiveUp, Code: "discord_file", Reason: "Discord gave no usable address for the file " + shown}
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout+files.Patience(limit))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, retry(err)
	}
	resp, err := a.files.Do(req)
	if err != nil {
		return 0, retry(err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusForbidden:
		return 0, &platform.Error{Kind: platform.GiveUp, Code: "discord_file", Reason: "the file " + shown + " is not on Discord's server any more: send it again"}
	case resp.StatusCode != http.StatusOK:
		return 0, retry(errors.New(resp.Status))
	}
	n, err := files.Copy(w, resp.Body, limit)
	if err != nil && !errors.Is(err, files.ErrTooLarge) {
		err = retry(err)
	}
	return n, err
}
