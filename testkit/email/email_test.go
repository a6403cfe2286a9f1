package email_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"hermes/testkit/email"
	"hermes/testkit/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// send sends a mail as programs do.
func send(srv *email.Server, timeout time.Duration) error {
	c, err := smtp.Dial("127.0.0.1:" + strconv.Itoa(srv.SMTPPort()))
	if err != nil {
		return err
	}
	defer c.Close()
	c.CommandTimeout, c.SubmissionTimeout = timeout, timeout
	if err := c.Auth(sasl.NewPlainClient("", srv.Address(), srv.Password())); err != nil {
		return err
	}
	return c.SendMail(srv.Address(), []string{"ann@people.test"}, strings.NewReader("Subject: x\r\n\r\nhello\r\n"))
}

// At each stage of SMTP a mail can be refused, cut off, held or swallowed, before
// it is taken or after.
func TestFaults(t *testing.T) {
	srv, err := email.New(email.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	const long = 20 * time.Second
	if err := send(srv, long); err != nil {
		t.Fatal(err)
	}
	taken := 1
	check := func(what string, err error, wrong bool, more int) {
		t.Helper()
		taken += more
		if wrong || len(srv.Sent()) != taken {
			t.Errorf("%s: %v, %d mails were taken, want %d", what, err, len(srv.Sent()), taken)
		}
	}
	for _, stage := range []string{"auth", "mail", "rcpt", "data", "end"} {
		srv.Fail(stage, fault.Fault{Status: 451, Message: "later"})
		err := send(srv, long)
		var said *smtp.SMTPError
		check(stage+" is refused", err, !errors.As(err, &said) || said.Code != 451 || said.Message != "later", 0)

		srv.Fail(stage, fault.CutBefore())
		err = send(srv, long)
		check(stage+" is cut", err, err == nil, 0)

		srv.Fail(stage, fault.Fault{BlackHole: true})
		err = send(srv, 50*time.Millisecond)
		check(stage+" is swallowed", err, err == nil, 0)

		hold := make(chan struct{})
		srv.Fail(stage, fault.Fault{Hold: hold})
		done := make(chan error, 1)
		go func() { done <- send(srv, long) }()
		close(hold)
		err = <-done
		check(stage+" is held and goes on", err, err != nil, 1)
	}
	srv.Fail("end", fault.CutAfter())
	err = send(srv, long)
	check("the answer is cut", err, err == nil, 1)
	srv.Fail("end", fault.Lost())
	err = send(srv, 50*time.Millisecond)
	check("the answer is lost", err, err == nil, 1)
	if err := send(srv, long); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
