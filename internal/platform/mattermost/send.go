package mattermost

import (
	"cmp"
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
)

// What is looked through for a message that may have arrived.
const (
	lookPages = 5              // of pageLimit posts each
	lookBack  = 48 * time.Hour // from the channel's latest post; an outbox gives up long before
	nonceProp = "hermes_nonce"
)

// Send sends a part as one post with its files, or as several when it has more
// files than a post takes. The receipt is the id of the first, which carries
// the text.
//
// A post is never repeated: the server drops a second one with the same
// pending_post_id for half a minute, and beyond that the channel is searched
// for the nonce before a message goes that may have arrived: one whose outcome
// this process does not know, and the first that it sends to an address, which
// its predecessor may have sent.
//
// A thread that is gone does not stop the message: it goes to the channel.
func (a *Adapter) Send(ctx context.Context, to domain.Address, p domain.Part, nonce string) (string, error) {
	self, e := a.identify(ctx)
	if e != nil {
		return "", harmless(e, "Mattermost did not say who the bot is")
	}
	root, e := target(to, p)
	if e != nil {
		return "", e
	}
	text := strings.ToValidUTF8(p.Text, "\uFFFD")
	if strings.TrimSpace(text) == "" && len(p.Attachments) == 0 {
		return "", &platform.Error{Kind: platform.GiveUp, Code: "mattermost_empty", Reason: "there is nothing in the message that Mattermost could show"}
	}
	under, labels, choices := legend(p.Buttons, a.cfg.CallbackURL == "")
	receipt := ""
	_, look := a.sends.Begin(to.String(), nonce)
	for i, files := 0, p.Attachments; i == 0 || len(files) > 0; i++ {
		n := min(len(files), filesPerPost)
		one := outgoing{self: self, to: to, root: root, text: text + under, labels: labels, choices: choices, files: files[:n], nonce: nonce}
		if i > 0 {
			one.text, one.labels, one.choices, one.nonce = "", nil, nil, nonce+"."+strconv.Itoa(i)
			if look && nonce != "" { // so for each of them, also once the first was found
				a.sends.Unknown(one.nonce)
			}
		}
		id, e := a.sendOne(ctx, one)
		if e != nil {
			return "", e
		}
		if receipt == "" {
			receipt = id
		}
		files = files[n:]
	}
	return receipt, nil
}

// target checks an address and finds the thread to answer in.
func target(to domain.Address, p domain.Part) (root string, e *platform.Error) {
	bad := func(what, value string) *platform.Error {
		return &platform.Error{Kind: platform.GiveUp, Code: "mattermost_address",
			Reason: "the " + what + " " + strconv.Quote(clean.Clip(value, 40)) + " is not one of Mattermost's: write the id (26 letters and digits; in a channel's menu under View Info)"}
	}
	switch {
	case !isID(to.ChatID):
		return "", bad("channel id", to.ChatID)
	case to.ThreadID != "" && !isID(to.ThreadID):
		return "", bad("thread id", to.ThreadID)
	case to.ThreadID != "":
		return to.ThreadID, nil
	case isID(p.ReplyTo):
		return p.ReplyTo, nil
	}
	return "", nil
}

// outgoing is one post.
type outgoing struct {
	self    *identity
	to      domain.Address
	root    string
	text    string
	labels  []string // of the choices
	choices []string // commands that are offered
	files   []domain.Attachment
	nonce   string
}

// sendOne sends a post, unless it has been sent.
func (a *Adapter) sendOne(ctx context.Context, o outgoing) (string, *platform.Error) {
	receipt, look := a.sends.Begin(o.to.String(), o.nonce)
	if receipt != "" {
		return receipt, nil
	}
	if look {
		id, e := a.find(ctx, o)
		if e != nil {
			a.sends.Unknown(o.nonce)
			return "", e
		}
		if id != "" {
			a.log.Info("a message that may have arrived has arrived", "post", id)
			a.sends.Done(o.to.String(), o.nonce, id)
			return id, nil
		}
	}
	var ids []string
	for i := range o.files {
		id, e := a.upload(ctx, o.to.ChatID, &o.files[i])
		if e != nil {
			return "", harmless(e, "the file "+clean.FileName(o.files[i].Name)+" could not be uploaded")
		}
		ids = append(ids, id)
	}
	made, e := a.create(ctx, o, ids)
	if e != nil && e.Code == codeRoot && o.root != "" {
		a.log.Warn("a thread is gone; its message goes to the channel", "channel", o.to.ChatID, "thread", o.root)
		o.root = ""
		made, e = a.create(ctx, o, ids)
	}
	if e != nil {
		if e.Uncertain {
			a.sends.Unknown(o.nonce)
		}
		return "", e
	}
	a.sends.Done(o.to.String(), o.nonce, made.ID)
	if a.cfg.CallbackURL == "" {
		a.offer(made.ID, len(o.choices))
	}
	if o.root != "" {
		a.names.joinThread(o.root)
	}
	return made.ID, nil
}

// newPost is a post to be made.
type newPost struct {
	ChannelID     string         `json:"channel_id"`
	RootID        string         `json:"root_id,omitempty"`
	Message       string         `json:"message"`
	FileIDs       []string       `json:"file_ids,omitempty"`
	PendingPostID string         `json:"pending_post_id,omitempty"`
	Props         map[string]any `json:"props,omitempty"`
}

// create makes the post, https://api.mattermost.com/#tag/posts/operation/CreatePost.
func (a *Adapter) create(ctx context.Context, o outgoing, files []string) (post, *platform.Error) {
	in := newPost{ChannelID: o.to.ChatID, RootID: o.root, Message: o.text, FileIDs: files, Props: map[string]any{}}
	if o.nonce != "" {
		in.PendingPostID = o.self.id + ":" + o.nonce
		in.Props[nonceProp] = o.nonce
	}
	if len(o.choices) > 0 {
		in.Props[choicesProp] = o.choices
		if a.cfg.CallbackURL != "" {
			in.Props[attachmentsProp] = a.buttons(o)
		}
	}
	if e := a.fits(o.text); e != nil {
		return post{}, e
	}
	var made post
	c, e := a.call(ctx, http.MethodPost, "/posts", in, &made)
	if e == nil && !isID(made.ID) {
		e = notMattermost(c.Status)
		e.Uncertain = true
	}
	return made, e
}

// fits holds a text to what the server itself says that it takes.
func (a *Adapter) fits(text string) *platform.Error {
	l := a.limits.Load()
	if l == nil || l.postRunes == 0 || utf8.RuneCountInString(text) <= l.postRunes {
		return nil
	}
	return &platform.Error{Kind: platform.GiveUp, Code: "mattermost_length", Reason: "the message is longer than the server allows (" + strconv.Itoa(l.postRunes) + " characters)"}
}

// find looks for a post of ours with a nonce among the latest of the channel.
func (a *Adapter) find(ctx context.Context, o outgoing) (string, *platform.Error) {
	newest := int64(0)
	for page := range lookPages {
		var l postList
		path := "/channels/" + o.to.ChatID + "/posts?page=" + strconv.Itoa(page) + "&per_page=" + strconv.Itoa(pageLimit)
		if _, e := a.call(ctx, http.MethodGet, path, nil, &l); e != nil {
			return "", harmless(e, "it is not known yet whether the message has arrived")
		}
		oldest := newest
		for _, p := range l.Posts {
			if p == nil {
				continue
			}
			newest, oldest = max(newest, p.CreateAt), min(cmp.Or(oldest, p.CreateAt), p.CreateAt)
			if p.UserID == o.self.id && p.Props[nonceProp] == o.nonce && isID(p.ID) {
				return p.ID, nil
			}
		}
		if len(l.Order) < pageLimit || newest-oldest > lookBack.Milliseconds() {
			break
		}
	}
	return "", nil
}

// Edit changes a post's text, https://api.mattermost.com/#tag/posts/operation/PatchPost.
func (a *Adapter) Edit(ctx context.Context, to domain.Address, messageID string, p domain.Part) error {
	if !isID(messageID) {
		return &platform.Error{Kind: platform.EditRefused, Code: "mattermost_edit", Reason: "the message id " + strconv.Quote(clean.Clip(messageID, 40)) + " is not one of Mattermost's"}
	}
	under, _, _ := legend(p.Buttons, false) // the props, which would give numbers a meaning, stay what they were
	text := strings.ToValidUTF8(p.Text, "\uFFFD") + under
	if e := a.fits(text); e != nil {
		return e
	}
	_, e := a.call(ctx, http.MethodPut, "/posts/"+messageID+"/patch", map[string]string{"message": text}, nil)
	if e == nil {
		return nil
	}
	if e.Kind == platform.GiveUp && e.Code != "mattermost_length" {
		// Deleted, written by another account, or older than the server's limit
		// for edits: a new message says the same.
		e.Kind, e.Code = platform.EditRefused, "mattermost_edit"
	}
	return e
}

// Typing shows that the bot writes, for about five seconds,
// https://api.mattermost.com/#tag/users/operation/PublishUserTyping.
func (a *Adapter) Typing(ctx context.Context, to domain.Address) error {
	if a.cfg.NoTyping {
		return nil
	}
	self, e := a.identify(ctx)
	if e != nil {
		return e
	}
	root, e := target(to, domain.Part{})
	if e != nil {
		return e
	}
	in := map[string]string{"channel_id": to.ChatID, "parent_id": root}
	if _, e := a.call(ctx, http.MethodPost, "/users/"+self.id+"/typing", in, nil); e != nil {
		return e
	}
	return nil
}
