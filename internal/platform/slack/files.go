package slack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
	"hermes/internal/platform/files"
)

// takes is what Slack takes, https://slack.com/help/articles/201330736.
var takes = files.Service{Code: "slack_file", Name: "Slack", Most: maxUpload, TooLarge: "Slack takes (1 GB)"}

// fileHosts are where Slack keeps files, each with its subdomains. The token
// goes to no other: the address of a remote file is whatever its author wrote.
var fileHosts = []string{"slack.com", "slack-files.com", "slack-gov.com"}

func fileNames(files []domain.Attachment) string {
	var names []string
	for _, f := range files {
		names = append(names, nameOf(&f))
	}
	return strings.Join(names, ", ")
}

func nameOf(at *domain.Attachment) string {
	return clean.FileName(cmp.Or(at.Name, filepath.Base(at.Path)))
}

// share puts the files of a message behind it, each unless it is there. They
// are uploaded first, to be seen by nobody, and shared at once.
func (a *Adapter) share(ctx context.Context, o outgoing, there []file) *platform.Error {
	type ready struct {
		ID    string `json:"id"`
		Title string `json:"title"`
	}
	var all []ready
	for i := range o.files {
		at := &o.files[i]
		f, size, e := takes.Open(at, nameOf(at))
		if e != nil {
			return e
		}
		same := func(f file) bool { return f.Name == nameOf(at) && f.Size == size }
		if k := slices.IndexFunc(there, same); k >= 0 {
			there = slices.Delete(slices.Clone(there), k, k+1)
			f.Close()
			continue
		}
		id, e := a.upload(ctx, nameOf(at), f, size)
		f.Close()
		if e != nil {
			return harmless(e, "the file "+nameOf(at)+" could not be uploaded")
		}
		all = append(all, ready{id, nameOf(at)})
	}
	if len(all) == 0 {
		return nil
	}
	b, _ := json.Marshal(all) // strings only
	args := url.Values{"files": {string(b)}, "channel_id": {o.channel}}
	if o.thread != "" {
		args.Set("thread_ts", o.thread)
	}
	// https://docs.slack.dev/reference/methods/files.completeUploadExternal
	_, e := a.call(ctx, "files.completeUploadExternal", args, nil)
	return e
}

// upload hands a file to Slack, https://docs.slack.dev/messaging/working-with-files#upload.
// The address for it is a secret of its own and gets no token.
func (a *Adapter) upload(ctx context.Context, name string, body io.Reader, size int64) (string, *platform.Error) {
	var out struct {
		URL string `json:"upload_url"`
		ID  string `json:"file_id"`
	}
	args := url.Values{"filename": {name}, "length": {strconv.FormatInt(size, 10)}}
	if _, e := a.call(ctx, "files.getUploadURLExternal", args, &out); e != nil {
		return "", e
	}
	if !isID(out.ID) || !a.isSlacks(out.URL) {
		return "", &platform.Error{Kind: platform.Retry, Code: "slack_garbled", Reason: "Slack did not say where the file is to go"}
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout+files.Patience(size))
	defer cancel()
	c := &call{method: "the upload"}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, out.URL, io.LimitReader(body, size))
	if err != nil {
		c.Err = errors.New("the request could not be made")
		return "", a.classify(c)
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "application/octet-stream")
	resp := c.Do(a.http, req)
	if resp == nil {
		return "", a.classify(c)
	}
	defer resp.Body.Close()
	if c.Status != http.StatusOK {
		return "", a.classify(c)
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxErrorBody)
	return out.ID, nil
}

// isSlacks tells whether an address is one of Slack's own, or of the server
// that stands for it.
func (a *Adapter) isSlacks(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	if base, err := url.Parse(a.cfg.BaseURL); err == nil && a.cfg.BaseURL != DefaultBaseURL && u.Scheme == base.Scheme && u.Host == base.Host {
		return true
	}
	host := strings.ToLower(u.Hostname())
	return u.Scheme == "https" && u.User == nil && (u.Port() == "" || u.Port() == "443") &&
		slices.ContainsFunc(fileHosts, func(d string) bool { return host == d || strings.HasSuffix(host, "."+d) })
}

// Fetch downloads an inbound file by its id: it asks Slack for the address,
// which it gives the token only where it is Slack's own. It follows no redirect:
// one leads to the login page. At most max bytes are written to w.
func (a *Adapter) Fetch(ctx context.Context, at domain.Attachment, max int64, w io.Writer) (domain.Attachment, error) {
	give := func(reason string) *platform.Error {
		return &platform.Error{Kind: platform.GiveUp, Code: "slack_file", Reason: reason}
	}
	tooLarge := give("the file " + at.Name + " is larger than is allowed here (" + strconv.FormatInt(max>>20, 10) + " MB)")
	if !isID(at.Ref) {
		return at, give("the file " + at.Name + " has no id of Slack's")
	}
	if at.Size > max {
		return at, tooLarge
	}
	var out struct {
		File file `json:"file"`
	}
	if _, e := a.call(ctx, "files.info", url.Values{"file": {at.Ref}}, &out); e != nil {
		return at, harmless(e, "the file could not be fetched from Slack")
	}
	address := cmp.Or(out.File.Download, out.File.Private)
	if out.File.External || !a.isSlacks(address) {
		return at, give("the file " + at.Name + " is not kept by Slack but elsewhere, and is not fetched from there: send it as a file")
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout+files.Patience(max))
	defer cancel()
	c := &call{method: "the file"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return at, give("the file " + at.Name + " has no address that could be read")
	}
	req.Header.Set("Authorization", "Bearer "+a.cfg.Token.Reveal())
	const failed = "the file could not be fetched from Slack"
	resp := c.Do(a.http, req)
	if resp == nil {
		return at, harmless(a.classify(c), failed)
	}
	defer resp.Body.Close()
	if c.Status != http.StatusOK {
		if c.Status < 500 && c.Status != http.StatusTooManyRequests {
			return at, give("Slack does not let the bot read the file " + at.Name + ": the app needs the permission files:read, and has to be in the channel")
		}
		return at, harmless(a.classify(c), failed)
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "text/html" && !strings.HasPrefix(out.File.MIMEType, "text/html") {
		return at, give("Slack showed its login page in place of the file " + at.Name + ": the app needs the permission files:read")
	}
	n, err := files.Copy(w, resp.Body, max)
	if errors.Is(err, files.ErrTooLarge) {
		return at, tooLarge
	}
	if err != nil {
		c.Err = err
		return at, harmless(a.classify(c), failed)
	}
	at.Size = n
	at.MIME = cmp.Or(at.MIME, out.File.MIMEType, mime.TypeByExtension(path.Ext(at.Name)))
	return at, nil
}
