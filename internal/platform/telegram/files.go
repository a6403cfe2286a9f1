package telegram

import (
	"cmp"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"path"
	"path/filepath"
	"strings"

	"github.com/go-telegram/bot"
	"github.com/go-telegram/bot/models"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
	"hermes/internal/platform/files"
)

// takes is what bots may send, https://core.telegram.org/bots/api#sending-files.
var takes = files.Service{Code: "telegram_file", Name: "Telegram", Most: maxUpload, TooLarge: "bots may send (50 MB)"}

// sendFile sends one file with its caption. A picture that Telegram cannot
// show as a photo goes as a document.
func (a *Adapter) sendFile(ctx context.Context, t *target, s step) (int, *call, error) {
	kind := s.file.Kind
	if s.file.Path == "" {
		return a.upload(ctx, t, s, kind, &models.InputFileString{Data: s.file.Ref}, 0)
	}
	for {
		f, size, e := takes.Open(s.file, filepath.Base(s.file.Path))
		if e != nil {
			return 0, nil, e
		}
		if kind == domain.Image && (size > maxPhoto || !photoType(s.file)) {
			kind = domain.Document
		}
		id, c, err := a.upload(ctx, t, s, kind, &models.InputFileUpload{Filename: uploadName(s.file), Data: f}, size)
		f.Close()
		if err != nil && kind == domain.Image && c.Status == http.StatusBadRequest && a.classify(c, err).Code == codePhoto {
			kind = domain.Document
			continue
		}
		return id, c, err
	}
}

// photoType tells whether sendPhoto takes the type; others would lose their
// transparency, animation or name.
func photoType(f *domain.Attachment) bool {
	switch strings.ToLower(filepath.Ext(uploadName(f))) {
	case ".jpg", ".jpeg", ".png", ".webp":
		return true
	case "":
		return f.MIME == "image/jpeg" || f.MIME == "image/png"
	}
	return false
}

func uploadName(f *domain.Attachment) string {
	return strings.ReplaceAll(clean.FileName(cmp.Or(f.Name, filepath.Base(f.Path))), `"`, "_")
}

// upload makes the request for a kind of file; the library has a type for each.
func (a *Adapter) upload(ctx context.Context, t *target, s step, kind domain.AttachmentKind, file models.InputFile, size int64) (int, *call, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout+files.Patience(size))
	defer cancel()
	mode, reply, keys := t.parseMode(), t.reply(), s.buttons.markup()
	var m *models.Message
	var err error
	var c *call
	switch kind {
	case domain.Image:
		ctx, c = withCall(ctx, "sendPhoto")
		m, err = a.bot.SendPhoto(ctx, &bot.SendPhotoParams{ChatID: t.chat, MessageThreadID: t.thread, DirectMessagesTopicID: t.direct,
			Photo: file, Caption: s.text, ParseMode: mode, DisableNotification: t.silent, ReplyParameters: reply, ReplyMarkup: keys})
	case domain.Voice:
		ctx, c = withCall(ctx, "sendVoice")
		m, err = a.bot.SendVoice(ctx, &bot.SendVoiceParams{ChatID: t.chat, MessageThreadID: t.thread, DirectMessagesTopicID: t.direct,
			Voice: file, Caption: s.text, ParseMode: mode, DisableNotification: t.silent, ReplyParameters: reply, ReplyMarkup: keys})
	case domain.Audio:
		ctx, c = withCall(ctx, "sendAudio")
		m, err = a.bot.SendAudio(ctx, &bot.SendAudioParams{ChatID: t.chat, MessageThreadID: t.thread, DirectMessagesTopicID: t.direct,
			Audio: file, Caption: s.text, ParseMode: mode, DisableNotification: t.silent, ReplyParameters: reply, ReplyMarkup: keys})
	case domain.Video:
		ctx, c = withCall(ctx, "sendVideo")
		m, err = a.bot.SendVideo(ctx, &bot.SendVideoParams{ChatID: t.chat, MessageThreadID: t.thread, DirectMessagesTopicID: t.direct,
			Video: file, Caption: s.text, ParseMode: mode, DisableNotification: t.silent, ReplyParameters: reply, ReplyMarkup: keys})
	default:
		ctx, c = withCall(ctx, "sendDocument")
		m, err = a.bot.SendDocument(ctx, &bot.SendDocumentParams{ChatID: t.chat, MessageThreadID: t.thread, DirectMessagesTopicID: t.direct,
			Document: file, Caption: s.text, ParseMode: mode, DisableNotification: t.silent, ReplyParameters: reply, ReplyMarkup: keys})
	}
	if err != nil {
		return 0, c, err
	}
	return m.ID, c, nil
}

// Fetch downloads an inbound file by its file id
// (https://core.telegram.org/bots/api#getfile) and completes what the
// attachment says of it. At most max bytes are written to w.
func (a *Adapter) Fetch(ctx context.Context, at domain.Attachment, max int64, w io.Writer) (domain.Attachment, error) {
	limit := min(max, maxDownload)
	tooLarge := &platform.Error{Kind: platform.GiveUp, Code: "telegram_file", Reason: "the file " + at.Name + " is larger than bots may download from Telegram (20 MB), or than is allowed here"}
	if at.Size > limit {
		return at, tooLarge
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SendTimeout+files.Patience(limit))
	defer cancel()
	fctx, c := withCall(ctx, "getFile")
	file, err := a.bot.GetFile(fctx, &bot.GetFileParams{FileID: at.Ref})
	if err != nil {
		return at, a.fetchFailure(c, err)
	}
	if file.FileSize > limit {
		return at, tooLarge
	}
	dctx, c := withCall(ctx, "the download")
	req, err := http.NewRequestWithContext(dctx, http.MethodGet, a.bot.FileDownloadLink(file), nil)
	if err != nil {
		return at, a.fetchFailure(c, a.scrub(err))
	}
	resp, err := a.wire.Do(req)
	if err != nil {
		return at, a.fetchFailure(c, err)
	}
	defer resp.Body.Close()
	if c.Status == http.StatusNotFound {
		return at, &platform.Error{Kind: platform.GiveUp, Code: "telegram_file", Reason: "the file " + at.Name + " is not on Telegram's server any more: send it again"}
	}
	if c.Status != http.StatusOK {
		return at, a.fetchFailure(c, errors.New(resp.Status))
	}
	n, err := files.Copy(w, resp.Body, limit)
	if errors.Is(err, files.ErrTooLarge) {
		return at, tooLarge
	}
	if err != nil {
		return at, a.fetchFailure(c, err)
	}
	at.Size = n
	at.Name = cmp.Or(at.Name, clean.FileName(file.FilePath))
	at.MIME = cmp.Or(at.MIME, mime.TypeByExtension(path.Ext(at.Name)))
	return at, nil
}

// fetchFailure says of a download what classify says of a send: it repeats no
// harm, so its outcome is never uncertain.
func (a *Adapter) fetchFailure(c *call, err error) *platform.Error {
	e := a.classify(c, err)
	if e.Uncertain {
		e.Uncertain = false
		e.Reason = "the file could not be fetched from Telegram: it is tried again"
	}
	return e
}
