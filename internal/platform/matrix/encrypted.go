package matrix

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"hermes/internal/platform"
)

// encryptedNotice is said once in each room that is encrypted.
const encryptedNotice = "This room is end-to-end encrypted, which I cannot read or write. Please write to me in a room that is not encrypted (a new room with encryption switched off; it cannot be switched off again in this one)."

// tellEncrypted says, once in each room, that its messages cannot be read. It is
// the only thing that is written there, since what people take to be encrypted
// must not be sent in the clear.
func (r *receiver) tellEncrypted(ctx context.Context, id string) {
	if known, ok := r.a.rooms.get(id); ok && !known.encrypted {
		known.encrypted = true
		r.a.rooms.set(id, known)
	}
	if slices.Contains(r.at.Told, id) {
		return
	}
	in := map[string]any{"msgtype": "m.notice", "body": encryptedNotice, "m.mentions": struct{}{}}
	// The transaction id keeps a repetition from being shown.
	_, e := r.a.call(ctx, request{method: http.MethodPut, path: "/v3/rooms/" + url.PathEscape(id) + "/send/" + typeMessage + "/hermes-encrypted", in: in}, nil)
	if e != nil && e.Kind != platform.GiveUp {
		r.a.log.Warn("a room could not be told that it is encrypted; it is tried again at its next message", "room", id, "reason", e.Reason)
		return
	}
	r.at.Told = append(slices.Clone(r.at.Told), id)
	if n := len(r.at.Told); n > maxTold {
		r.at.Told = r.at.Told[n-maxTold:]
	}
	r.a.log.Warn("a room is end-to-end encrypted, so that its messages cannot be read; the room was told", "room", id)
	r.noteEncrypted()
}

// noteEncrypted shows in the status what cannot be read.
func (r *receiver) noteEncrypted() {
	switch n := len(r.at.Told); n {
	case 0:
		if r.a.cfg.Encryption {
			r.a.health.Note("encryption", "asked for, but not to be had: encrypted rooms are not read")
		}
	case 1:
		r.a.health.Note("encryption", "one room is end-to-end encrypted and is not read: "+r.at.Told[0])
	default:
		r.a.health.Note("encryption", strconv.Itoa(n)+" rooms are end-to-end encrypted and are not read, the latest "+r.at.Told[n-1])
	}
}

// encrypted tells whether a room is encrypted. It asks for no more than that.
func (a *Adapter) encrypted(ctx context.Context, id string) (bool, *platform.Error) {
	if known, ok := a.rooms.get(id); ok {
		return known.encrypted, nil
	}
	var c content
	return a.state(ctx, id, typeCrypto, "", &c)
}
