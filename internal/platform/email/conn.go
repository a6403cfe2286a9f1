package email

import (
	"context"
	"crypto/tls"
	"errors"
	"mime"
	"net"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-message/charset"

	"hermes/internal/platform"
)

// dialTime bounds the making of a connection, TLS included.
const dialTime = 20 * time.Second

// imapConn is a connection to the IMAP server that is logged in. It ends with
// the context that it was made with.
type imapConn struct {
	*imapclient.Client
	raw     net.Conn // to be closed first: the library's Close waits until everything that came was taken
	timeout time.Duration
	stop    func() bool
}

// dialIMAP connects and logs in. changed, where not nil, gets a value when the
// server says that the mailbox has changed.
func (a *Adapter) dialIMAP(ctx context.Context, changed chan<- struct{}) (*imapConn, *platform.Error) {
	conn, err := a.dial(ctx, a.cfg.IMAP)
	if err != nil {
		return nil, a.unreachable("IMAP", err)
	}
	o := &imapclient.Options{
		TLSConfig:   a.tlsFor(a.cfg.IMAP),
		WordDecoder: &mime.WordDecoder{CharsetReader: charset.Reader},
		UnilateralDataHandler: &imapclient.UnilateralDataHandler{Mailbox: func(d *imapclient.UnilateralDataMailbox) {
			if d.NumMessages != nil && changed != nil {
				select {
				case changed <- struct{}{}:
				default:
				}
			}
		}},
	}
	// A server that says nothing must not hold us.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	fail := func(e *platform.Error) (*imapConn, *platform.Error) {
		stop()
		_ = conn.Close()
		return nil, e
	}
	var client *imapclient.Client
	if a.cfg.IMAP.Security == StartTLS {
		greeting := time.AfterFunc(a.cfg.Timeout, func() { _ = conn.Close() })
		client, err = imapclient.NewStartTLS(conn, o)
		if !greeting.Stop() && err == nil {
			err = context.DeadlineExceeded
		}
		if err != nil {
			return fail(a.unreachable("IMAP", err))
		}
	} else {
		client = imapclient.New(conn, o)
	}
	c := &imapConn{Client: client, raw: conn, timeout: a.cfg.Timeout, stop: stop}
	var refused *platform.Error
	err = c.within(func() error {
		if err := client.WaitGreeting(); err != nil {
			return err
		}
		if err := client.Login(a.cfg.User, a.cfg.Password.Reveal()).Wait(); err != nil {
			refused = a.refusedLogin(err)
		}
		return nil
	})
	if err == nil && refused == nil {
		return c, nil
	}
	c.end()
	if refused != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, refused
	}
	return nil, a.unreachable("IMAP", err)
}

// dial makes a connection, with TLS where that comes first.
func (a *Adapter) dial(ctx context.Context, s Server) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, min(dialTime, a.cfg.Timeout))
	defer cancel()
	conn, err := a.connect(ctx, "tcp", s.address())
	if err != nil || s.Security != TLS {
		return conn, err
	}
	secure := tls.Client(conn, a.tlsFor(s))
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}

func (a *Adapter) tlsFor(s Server) *tls.Config {
	c := a.tls.Clone()
	c.ServerName = s.Host
	return c
}

// within bounds an exchange with the server: a connection on which no answer
// comes is closed, so that the exchange ends.
func (c *imapConn) within(f func() error) error {
	late := time.AfterFunc(c.timeout, func() { _ = c.raw.Close() })
	err := f()
	if !late.Stop() {
		return context.DeadlineExceeded
	}
	return err
}

// end closes the connection and waits until the library has let go of it.
func (c *imapConn) end() {
	c.stop()
	_ = c.raw.Close()
	_ = c.Client.Close()
	<-c.Client.Closed()
}

// open selects a mailbox. Only the receiver marks mail as read; whoever else
// looks opens it to read only.
func (c *imapConn) open(mailbox string, readOnly bool) (*imap.SelectData, error) {
	var d *imap.SelectData
	err := c.within(func() (err error) {
		d, err = c.Select(mailbox, &imap.SelectOptions{ReadOnly: readOnly}).Wait()
		return err
	})
	return d, err
}

// search gives the UIDs that fit, ascending, at most the newest of them.
func (c *imapConn) search(criteria *imap.SearchCriteria, most int) ([]imap.UID, error) {
	var uids []imap.UID
	err := c.within(func() error {
		d, err := c.UIDSearch(criteria, nil).Wait()
		if err == nil {
			uids = d.AllUIDs()
		}
		return err
	})
	if len(uids) > most {
		uids = uids[len(uids)-most:]
	}
	return uids, err
}

// newest is when the newest of a mailbox's last mails arrived, in Unix seconds;
// 0 where there is none.
func (c *imapConn) newest(count uint32) (at int64, err error) {
	if count == 0 {
		return 0, nil
	}
	var last imap.SeqSet
	last.AddRange(count-min(count, 50)+1, count)
	got, err := c.fetch(last, &imap.FetchOptions{InternalDate: true})
	for _, m := range got {
		at = max(at, m.InternalDate.Unix())
	}
	return at, err
}

// fetch reads items of mails.
func (c *imapConn) fetch(set imap.NumSet, o *imap.FetchOptions) ([]*imapclient.FetchMessageBuffer, error) {
	var got []*imapclient.FetchMessageBuffer
	err := c.within(func() (err error) {
		got, err = c.Fetch(set, o).Collect()
		return err
	})
	return got, err
}
