package mattermost

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"hermes/internal/domain"
	"hermes/internal/platform"
	"hermes/internal/platform/clean"
)

// With MATTERMOST_CALLBACK_URL, buttons are Mattermost's own
// (https://developers.mattermost.com/integrate/plugins/interactive-messages/):
// its server calls that address, which leads to the API of this gateway, when
// one is pressed. What a call says is believed because of the signature in the
// button's context, which the server keeps from its clients.
const (
	maxCall         = 64 << 10         // bytes of a call
	maxWait         = 10 * time.Second // for a sink, while the process has just taken over
	attachmentsProp = "attachments"
)

// buttonRow is the part of a post that holds buttons.
type buttonRow struct {
	Fallback string   `json:"fallback"`
	Actions  []button `json:"actions"`
}

// button is one button. Ids take letters and digits only.
type button struct {
	ID          string `json:"id"`
	Type        string `json:"type"`
	Name        string `json:"name"`
	Integration struct {
		URL     string        `json:"url"`
		Context buttonContext `json:"context"`
	} `json:"integration"`
}

// buttonContext is what the server repeats when a button is pressed.
type buttonContext struct {
	Choice    int    `json:"choice"` // counted from 0, in the post's choices
	Channel   string `json:"channel"`
	Nonce     string `json:"nonce"`
	Signature string `json:"signature"`
}

// buttons are the attachments of a post with native buttons.
func (a *Adapter) buttons(o outgoing) []buttonRow {
	out := buttonRow{Fallback: "Choose: " + clean.Clip(oneLine(o.text), 80)}
	for i, label := range o.labels {
		b := button{ID: "choice" + strconv.Itoa(i), Type: "button", Name: label}
		b.Integration.URL = a.cfg.CallbackURL
		b.Integration.Context = buttonContext{Choice: i, Channel: o.to.ChatID, Nonce: o.nonce, Signature: a.sign(i, o.to.ChatID, o.nonce)}
		out.Actions = append(out.Actions, b)
	}
	return []buttonRow{out}
}

// sign proves that a button is ours. It is bound to the token, so that it means
// nothing once that was replaced.
func (a *Adapter) sign(choice int, channel, nonce string) string {
	m := hmac.New(sha256.New, []byte(a.cfg.Token.Reveal()))
	io.WriteString(m, "button "+strconv.Itoa(choice)+" "+channel+" "+nonce)
	return hex.EncodeToString(m.Sum(nil))
}

// Callback takes a call of the server: somebody pressed a button. It is answered
// with 200 once the press is committed, and with 503 while it cannot be, which
// the server shows to whoever pressed.
func (a *Adapter) Callback(w http.ResponseWriter, r *http.Request) {
	var in struct {
		UserID  string        `json:"user_id"`
		PostID  string        `json:"post_id"`
		Channel string        `json:"channel_id"`
		Context buttonContext `json:"context"`
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCall))
	if err != nil || json.Unmarshal(body, &in) != nil || !isID(in.UserID) || !isID(in.PostID) {
		http.Error(w, "this is no call of a button", http.StatusBadRequest)
		return
	}
	c := in.Context
	want := a.sign(c.Choice, c.Channel, c.Nonce)
	if !hmac.Equal([]byte(want), []byte(c.Signature)) || c.Channel != in.Channel {
		a.log.Warn("a call that claims to be a button's is not signed by this bot, and was refused")
		http.Error(w, "this button is not ours", http.StatusForbidden)
		return
	}
	sink := a.running.wait(r.Context())
	if sink == nil {
		http.Error(w, "the bot is not connected at the moment: press again", http.StatusServiceUnavailable)
		return
	}
	// Pressing twice is one answer.
	ev, ok, e := a.choice(r.Context(), in.UserID, in.PostID, c.Choice)
	if e == nil && ok {
		ev.EventID = in.PostID + ":" + in.UserID + ":button" + strconv.Itoa(c.Choice)
		err = sink.Accept(r.Context(), ev.Account, []domain.Inbound{ev}, "")
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case e != nil, err != nil:
		a.log.Warn("a press of a button could not be stored; whoever pressed is told to do it again", "post", in.PostID, "error", e, "cause", a.scrubError(err))
		http.Error(w, `{"error":{"message":"It could not be stored: press again."}}`, http.StatusServiceUnavailable)
	case !ok:
		io.WriteString(w, `{"ephemeral_text":"This question is no longer open."}`)
	default:
		a.health.Note("last_event", a.now().UTC().Format(time.RFC3339))
		io.WriteString(w, `{}`)
	}
}

// running is the sink of the Run that goes on. Its methods are safe for
// concurrent use.
type running struct {
	mu    sync.Mutex
	sink  platform.Sink
	began chan struct{} // closed when there is a sink; nil while nobody waits
}

func (r *running) set(s platform.Sink) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sink = s
	if s != nil && r.began != nil {
		close(r.began)
		r.began = nil
	}
}

// wait gives the sink, and nil when there is none for some seconds.
func (r *running) wait(ctx context.Context) platform.Sink {
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	for {
		r.mu.Lock()
		if r.sink != nil || ctx.Err() != nil {
			defer r.mu.Unlock()
			return r.sink
		}
		if r.began == nil {
			r.began = make(chan struct{})
		}
		began := r.began
		r.mu.Unlock()
		select {
		case <-began:
		case <-ctx.Done():
		}
	}
}

// CallbackURL is the address that the server calls; "" when it calls none.
func (a *Adapter) CallbackURL() string { return a.cfg.CallbackURL }

// choice reads a press of the n-th choice under a post; ok is false when the bot
// did not offer it.
func (a *Adapter) choice(ctx context.Context, user, id string, n int) (in domain.Inbound, ok bool, e *platform.Error) {
	self, e := a.identify(ctx)
	if e != nil {
		return in, false, e
	}
	var p post
	if _, e := a.get(ctx, "/posts/"+id, &p); e != nil {
		return in, false, unlessGone(e)
	}
	choices, _ := p.Props[choicesProp].([]any)
	if p.UserID != self.id || p.DeleteAt != 0 || n < 0 || n >= len(choices) || !isID(p.ChannelID) {
		return in, false, nil
	}
	command, _ := choices[n].(string)
	var ch channel
	if _, e := a.get(ctx, "/channels/"+p.ChannelID, &ch); e != nil {
		return in, false, unlessGone(e)
	}
	chatType, known := chatTypes[ch.Type]
	if !known || command == "" || !a.heard(ch) {
		return in, false, nil
	}
	who, e := a.userName(ctx, user)
	if e != nil {
		return in, false, e
	}
	who = clean.Name(who, user)
	in.Source = domain.Source{
		Address:  domain.Address{Platform: Name, ChatID: p.ChannelID, ThreadID: p.RootID},
		ChatType: chatType, ChatName: clean.Name(ch.DisplayName, ch.Name), MessageID: p.ID, UserID: user, UserName: who,
	}
	if chatType == domain.ChatDM {
		in.ChatName = who
	}
	in.Account, in.Text, in.Button, in.Mentioned = self.id, clean.Clip(clean.Text(command), maxInText), true, true
	in.ChatListed = matches(a.cfg.Allowed, ch)
	in.SentAt, in.ReceivedAt, in.State = a.now(), a.now(), domain.InboundReceived
	return in, true, nil
}
