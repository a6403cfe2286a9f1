package model

import "context"

// unusable is a provider that cannot be called and says why.
type unusable struct {
	name    string
	message string
}

// Unset gives the provider for when no model is configured. Every call fails
// with Kind NotSet and says how to set one.
func Unset() Provider {
	return Unusable("none", "no model is set, so that nothing can be answered: run `hermes model` to choose one, "+
		"or set OPENROUTER_API_KEY or another provider's key in .env and the model in config.yaml")
}

// Unusable gives a provider that fails every call with Kind NotSet and the
// message, for a configuration that names what this program cannot call.
func Unusable(name, message string) Provider { return unusable{name, message} }

func (u unusable) Name() string { return u.name }

func (u unusable) Complete(ctx context.Context, _ *Request, _ func(Delta)) (*Answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, &Error{Kind: NotSet, Provider: u.name, Message: u.message}
}
