// Package access decides who may talk to the agent, and pairs strangers by a
// code that the operator approves. The default is to deny.
package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/ledger"
)

// The rules of pairing.
const (
	CodeLength   = 8
	CodeTTL      = time.Hour
	RequestEvery = 10 * time.Minute // a user gets a new code at most this often
	MaxPending   = 3                // codes that wait on one platform
	MaxFailures  = 5                // wrong codes before approvals are locked
	LockFor      = time.Hour
)

// alphabet has no letters and digits that are easily taken for one another.
const alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"

// Store is the part of the ledger that pairing needs.
type Store interface {
	ledger.Pairings
	ledger.Notes
}

// Gate decides. It is safe for concurrent use.
type Gate struct {
	store   Store
	profile home.Profile
	cfg     *home.Config
	log     *slog.Logger
	now     func() time.Time
}

// New makes a Gate for a profile.
func New(store Store, profile home.Profile, cfg *home.Config, log *slog.Logger, now func() time.Time) *Gate {
	return &Gate{store, profile, cfg, log, now}
}

// Verdict is what the gate says of one event. A refused event may carry a
// reply and a pairing request, to be committed with it.
type Verdict struct {
	Allowed bool
	Reason  string // why it was refused, for the log
	Reply   string
	Pairing *ledger.Pairing
}

// ownAuth names the sources that authenticate by themselves.
func ownAuth(p domain.Platform) bool {
	return p == domain.PlatformAPI || p == domain.PlatformWebchat || p == domain.PlatformCLI || p == domain.PlatformCron || p == domain.PlatformWebhook
}

// Decide applies the order: everybody of the platform, paired users, the
// platform's list, of roles too, the gateway's list, everybody, deny. A group is heard when
// its writer is allowed, or when the group itself is on the list of chats.
func (g *Gate) Decide(ctx context.Context, in domain.Inbound) (Verdict, error) {
	if ownAuth(in.Platform) {
		return Verdict{Allowed: true}, nil
	}
	p := g.cfg.Platforms[in.Platform]
	if len(p.AllowedChats) > 0 && in.ChatType != domain.ChatDM && !in.ChatListed && !has(p.AllowedChats, in.ChatID) {
		return Verdict{Reason: "the chat is not among the allowed chats"}, nil
	}
	if in.UserListed || g.listed(in.Platform, in.UserID) {
		return Verdict{Allowed: true}, nil
	}
	if in.ChatType != domain.ChatDM && (has(p.GroupUsers, in.UserID) || has(p.GroupChats, in.ChatID)) {
		return Verdict{Allowed: true}, nil
	}
	known, err := g.store.ListPairings(ctx, in.Platform)
	if err != nil {
		return Verdict{}, err
	}
	i := slices.IndexFunc(known, func(k ledger.Pairing) bool { return k.UserID == in.UserID })
	if i >= 0 && !known[i].ApprovedAt.IsZero() {
		return Verdict{Allowed: true}, nil
	}
	if in.ChatType != domain.ChatDM || !p.PairDMs || in.UserID == "" {
		return Verdict{Reason: "the user is on no list and is not paired"}, nil
	}
	return g.offer(in, known, i)
}

// Knows tells whether a user may talk to the agent wherever they do: because a
// list has them or everybody, or because they are paired. It offers nothing.
func (g *Gate) Knows(ctx context.Context, p domain.Platform, user string) (bool, error) {
	if g.listed(p, user) {
		return true, nil
	}
	known, err := g.store.ListPairings(ctx, p)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(known, func(k ledger.Pairing) bool { return k.UserID == user && user != "" && !k.ApprovedAt.IsZero() }), nil
}

// listed tells whether the configuration lets a user talk.
func (g *Gate) listed(on domain.Platform, user string) bool {
	p := g.cfg.Platforms[on]
	return p.AllowAll || has(p.AllowedUsers, user) || has(g.cfg.Access.AllowedUsers, user) || g.cfg.Access.AllowAll
}

// Named tells whether the operator let this very person in: by their id on a list,
// or by approving their pairing. Whoever may talk only because everybody may, or
// everybody of a group, is not named; neither is a program. A person on the
// profile's own page or API holds its key.
func (g *Gate) Named(ctx context.Context, from domain.Source) (bool, error) {
	switch from.Platform {
	case domain.PlatformAPI, domain.PlatformWebchat, domain.PlatformCLI:
		return true, nil
	case domain.PlatformCron, domain.PlatformWebhook:
		return false, nil
	}
	if from.UserID == "" || from.UserID == "*" {
		return false, nil
	}
	p := g.cfg.Platforms[from.Platform]
	if slices.Contains(slices.Concat(p.AllowedUsers, p.GroupUsers, g.cfg.Access.AllowedUsers), from.UserID) {
		return true, nil
	}
	known, err := g.store.ListPairings(ctx, from.Platform)
	return slices.ContainsFunc(known, func(k ledger.Pairing) bool { return k.UserID == from.UserID && !k.ApprovedAt.IsZero() }), err
}

// offer makes a pairing request, unless the user has a fresh one or too many wait.
func (g *Gate) offer(in domain.Inbound, known []ledger.Pairing, mine int) (Verdict, error) {
	now := g.now()
	if mine >= 0 && now.Sub(known[mine].RequestedAt) < RequestEvery {
		return Verdict{Reason: "stranger; a pairing code was sent to them less than ten minutes ago"}, nil
	}
	waiting := 0
	for i, k := range known {
		if i != mine && k.ApprovedAt.IsZero() && now.Sub(k.RequestedAt) < CodeTTL {
			waiting++
		}
	}
	if waiting >= MaxPending {
		return Verdict{Reason: fmt.Sprintf("stranger; %d pairing codes wait already", waiting)}, nil
	}
	code, salt, err := newCode()
	if err != nil {
		return Verdict{}, domain.E(domain.Internal, err, "no pairing code could be made")
	}
	cmd := g.ApproveCommand(in.Platform, code)
	g.log.Info("a stranger asks to talk; to let them in run: "+cmd, "component", "access", "platform", string(in.Platform), "user", in.UserID, "name", in.UserName)
	return Verdict{
		Reason:  "stranger; a pairing code was sent to them",
		Pairing: &ledger.Pairing{Platform: in.Platform, UserID: in.UserID, UserName: in.UserName, CodeHash: hashCode(salt, code), Salt: salt, RequestedAt: now},
		Reply:   fmt.Sprintf("Hello! I do not know you yet. Your pairing code is `%s`. Whoever runs me can let you in within the hour with\n\n`%s`", code, cmd),
	}, nil
}

// ApproveCommand is what the operator types to let a code's owner in.
func (g *Gate) ApproveCommand(p domain.Platform, code string) string {
	cmd := "hermes "
	if g.profile.Name != "default" {
		cmd += "-p " + g.profile.Name + " "
	}
	return cmd + "pairing approve " + string(p) + " " + code
}

// Warnings are what the start should say about who may talk.
func (g *Gate) Warnings() []string {
	var out []string
	for name, p := range g.cfg.Platforms {
		if !p.Enabled || ownAuth(name) {
			continue
		}
		up := strings.ToUpper(string(name))
		open := len(p.AllowedUsers)+len(p.GroupUsers)+len(p.GroupChats)+len(g.cfg.Access.AllowedUsers)+len(p.Extra["allowed_roles"]) > 0
		switch {
		case p.AllowAll || g.cfg.Access.AllowAll || has(p.AllowedUsers, "*"):
			out = append(out, fmt.Sprintf("%s: everybody may talk to this agent and use its tools; set %s_ALLOWED_USERS to narrow that", name, up))
		case !open:
			out = append(out, fmt.Sprintf("%s: no allowlist is set, so nobody but paired users may talk; set %s_ALLOWED_USERS, or approve a pairing code", name, up))
		}
	}
	slices.Sort(out)
	return out
}

// Approve lets the owner of a code in. domain.NotFound for a wrong or expired
// code; domain.RateLimited after too many wrong ones.
func (g *Gate) Approve(ctx context.Context, platform domain.Platform, code string) (ledger.Pairing, error) {
	key := "access." + string(platform) + ".failures"
	failed, err := g.failures(ctx, key)
	if err != nil {
		return ledger.Pairing{}, err
	}
	now := g.now()
	if failed.Count >= MaxFailures && now.Before(failed.Last.Add(LockFor)) {
		return ledger.Pairing{}, domain.E(domain.RateLimited, nil, "%d wrong codes were tried; approvals on %s are locked until %s", failed.Count, platform, failed.Last.Add(LockFor).Format(time.RFC3339))
	}
	known, err := g.store.ListPairings(ctx, platform)
	if err != nil {
		return ledger.Pairing{}, err
	}
	code = strings.ToUpper(strings.TrimSpace(code))
	for _, k := range known {
		if !k.ApprovedAt.IsZero() || now.Sub(k.RequestedAt) > CodeTTL || subtle.ConstantTimeCompare([]byte(hashCode(k.Salt, code)), []byte(k.CodeHash)) != 1 {
			continue
		}
		k.ApprovedAt, k.CodeHash, k.Salt = now, "", ""
		if err := g.store.PutPairing(ctx, k); err != nil {
			return ledger.Pairing{}, err
		}
		return k, g.store.SetNote(ctx, key, "")
	}
	if now.After(failed.Last.Add(LockFor)) {
		failed.Count = 0
	}
	failed.Count, failed.Last = failed.Count+1, now
	text, _ := json.Marshal(failed)
	if err := g.store.SetNote(ctx, key, string(text)); err != nil {
		return ledger.Pairing{}, err
	}
	return ledger.Pairing{}, domain.E(domain.NotFound, nil, "no request on %s waits with this code; a code is valid for one hour, and the next message of the stranger brings a new one", platform)
}

// List lists requests that are still valid and approved users.
func (g *Gate) List(ctx context.Context, platform domain.Platform) ([]ledger.Pairing, error) {
	all, err := g.store.ListPairings(ctx, platform)
	return slices.DeleteFunc(all, func(k ledger.Pairing) bool {
		return k.ApprovedAt.IsZero() && g.now().Sub(k.RequestedAt) > CodeTTL
	}), err
}

// Revoke takes a user's right or request away. domain.NotFound.
func (g *Gate) Revoke(ctx context.Context, platform domain.Platform, userID string) error {
	return g.store.DeletePairing(ctx, platform, userID)
}

// ClearPending removes every request that waits, and tells how many.
func (g *Gate) ClearPending(ctx context.Context) (int, error) {
	all, err := g.store.ListPairings(ctx, "")
	n := 0
	for _, k := range all {
		if k.ApprovedAt.IsZero() {
			if err := g.store.DeletePairing(ctx, k.Platform, k.UserID); err != nil && !domain.IsCode(err, domain.NotFound) {
				return n, err
			}
			n++
		}
	}
	return n, err
}

type failures struct {
	Count int       `json:"count"`
	Last  time.Time `json:"last"`
}

func (g *Gate) failures(ctx context.Context, key string) (f failures, err error) {
	text, err := g.store.Note(ctx, key)
	if err == nil && text != "" && json.Unmarshal([]byte(text), &f) != nil {
		f = failures{}
	}
	return f, err
}

func newCode() (code, salt string, err error) {
	b := make([]byte, CodeLength)
	for i := range b {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			return "", "", err
		}
		b[i] = alphabet[n.Int64()]
	}
	s := make([]byte, 16)
	if _, err := rand.Read(s); err != nil {
		return "", "", err
	}
	return string(b), hex.EncodeToString(s), nil
}

// hashCode is hex(SHA-256(salt bytes + code)).
func hashCode(salt, code string) string {
	raw, _ := hex.DecodeString(salt)
	sum := sha256.Sum256(append(raw, code...))
	return hex.EncodeToString(sum[:])
}

func has(list []string, id string) bool {
	return slices.Contains(list, "*") || id != "" && slices.Contains(list, id)
}
