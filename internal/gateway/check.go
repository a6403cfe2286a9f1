package gateway

import (
	"context"
	"log/slog"
	"time"

	"hermes/internal/domain"
	"hermes/internal/health"
	"hermes/internal/home"
	"hermes/internal/platform"
)

// CheckPlatform proves that a platform takes the credentials of a profile. It
// receives nothing and disturbs no process that does. known is false when this
// build cannot connect to the platform, or cannot prove anything without
// connecting; account is whom the credentials belong to, as people see it
// ("@name"), "" where the platform did not say. The error is domain.Invalid for
// a configuration that an adapter refuses, else a *platform.Error.
func CheckPlatform(ctx context.Context, p domain.Platform, c home.PlatformConfig) (known bool, account string, err error) {
	k, known := kinds[p]
	if !known {
		return false, "", nil
	}
	told := health.New(time.Now)
	a, err := k.build(c, adapterDeps{log: slog.New(slog.DiscardHandler), health: told.Part("platform"), now: time.Now})
	if err != nil {
		return true, "", domain.E(domain.Invalid, nil, "%s", domain.MessageOf(err))
	}
	check, ok := a.(platform.Checker)
	if !ok {
		return false, "", nil
	}
	err = check.Check(ctx)
	return true, told.Parts()[0].Evidence["bot"], err
}

// Connectable tells whether this build can connect to a platform.
func Connectable(p domain.Platform) bool {
	_, known := kinds[p]
	return known || p == domain.PlatformWebchat
}

// CredentialScope names the machine-wide lock of a platform's credential, ""
// where there is none.
func CredentialScope(p domain.Platform) string { return kinds[p].scope }
