package secret_test

import (
	"errors"
	"io"
	"testing"

	"hermes/internal/secret"
)

func TestHide(t *testing.T) {
	if got := secret.Hide("a s3cret and an0ther, s3cret", "s3cret", "", "an0ther"); got != "a <secret> and <secret>, <secret>" {
		t.Errorf("%q", got)
	}
	if err := secret.HideIn(nil, "s3cret"); err != nil {
		t.Error(err)
	}
	if err := secret.HideIn(io.EOF, "s3cret", ""); !errors.Is(err, io.EOF) {
		t.Errorf("an error without a secret has changed: %v", err)
	}
	err := secret.HideIn(&hides{errors.New("with s3cret in it")}, "s3cret")
	if err == nil || err.Error() != "x with <secret> in it" || errors.As(err, new(*hides)) {
		t.Errorf("%#v", err)
	}
}

type hides struct{ error }

func (h *hides) Error() string { return "x " + h.error.Error() }
