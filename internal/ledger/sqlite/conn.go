package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"hermes/internal/domain"
)

// conn is one connection with its prepared statements. The driver is used
// without database/sql: the ledger has one writer and a few readers of its own,
// and needs neither that package's pool nor its bookkeeping for each statement.
// A conn is not safe for concurrent use.
type conn struct {
	raw   driver.Conn
	stmts map[string]statement // by text; bounded by the texts in this package
}

// statement is what the driver's statements can do.
type statement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

func openConn(connector driver.Connector) (*conn, error) {
	raw, err := connector.Connect(context.Background())
	if err != nil {
		return nil, err
	}
	return &conn{raw: raw, stmts: map[string]statement{}}, nil
}

func (c *conn) close() error {
	for _, st := range c.stmts {
		_ = st.Close() // closing the connection frees what is left
	}
	return c.raw.Close()
}

// prepare gives the kept statement of a text.
func (c *conn) prepare(q string) (statement, error) {
	if st := c.stmts[q]; st != nil {
		return st, nil
	}
	st, err := c.compile(q)
	if err != nil {
		return nil, fmt.Errorf("prepare %.60q: %w", q, err)
	}
	c.stmts[q] = st
	return st, nil
}

func (c *conn) compile(q string) (statement, error) {
	st, err := c.raw.Prepare(q)
	if err != nil {
		return nil, err
	}
	full, ok := st.(statement)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver's %T lacks the methods with a context", st), st.Close())
	}
	return full, nil
}

// script runs text of several statements once, without keeping it.
func (c *conn) script(text string) error {
	st, err := c.compile(text)
	if err != nil {
		return err
	}
	defer func() { _ = st.Close() }() // it has no result that could be lost
	_, err = st.ExecContext(context.Background(), nil)
	return err
}

// exec runs a statement and tells how many rows it changed.
func (c *conn) exec(q string, args ...any) (int64, error) {
	res, err := c.run(q, args)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// insert runs an INSERT and gives the new row's id.
func (c *conn) insert(q string, args ...any) (int64, error) {
	res, err := c.run(q, args)
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

// execContext is exec for a statement that may take long; it is interrupted when
// ctx ends.
func (c *conn) execContext(ctx context.Context, q string, args ...any) error {
	st, err := c.compile(q)
	if err != nil {
		return err
	}
	defer func() { _ = st.Close() }() // its outcome is known by then
	vals, err := values(args)
	if err != nil {
		return err
	}
	_, err = st.ExecContext(ctx, vals)
	return err
}

func (c *conn) run(q string, args []any) (driver.Result, error) {
	st, err := c.prepare(q)
	if err != nil {
		return nil, err
	}
	vals, err := values(args)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(context.Background(), vals)
}

// each calls f for every row of a query; f scans it.
func (c *conn) each(q string, args []any, f func(r row) error) (err error) {
	st, err := c.prepare(q)
	if err != nil {
		return err
	}
	vals, err := values(args)
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(context.Background(), vals)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := rows.Close(); err == nil {
			err = cerr
		}
	}()
	r := make(row, len(rows.Columns()))
	for {
		switch err := rows.Next(r); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := f(r); err != nil {
			return err
		}
	}
}

// one scans the first row of a query; found is false when there is none.
func (c *conn) one(q string, args []any, dst ...any) (found bool, err error) {
	err = c.each(q, args, func(r row) error {
		if found {
			return nil
		}
		found = true
		return r.scan(dst...)
	})
	return found, err
}

// ids collects a query's only column.
func (c *conn) ids(q string, args ...any) (out []int64, err error) {
	err = c.each(q, args, func(r row) error {
		var id int64
		err := r.scan(&id)
		out = append(out, id)
		return err
	})
	return out, err
}

// row holds the values of one row.
type row []driver.Value

// asJSON scans a JSON column into v; NULL and "" leave v as it is.
type asJSON struct{ v any }

// scan copies the row into dst. NULL gives the zero value.
func (r row) scan(dst ...any) error {
	if len(dst) != len(r) {
		return fmt.Errorf("scan: %d columns into %d variables", len(r), len(dst))
	}
	for i, d := range dst {
		if err := scanValue(r[i], d); err != nil {
			return fmt.Errorf("scan column %d: %w", i, err)
		}
	}
	return nil
}

func scanValue(v driver.Value, dst any) error {
	n, _ := v.(int64)
	s, isText := v.(string)
	switch d := dst.(type) {
	case *int64:
		*d = n
	case *int:
		*d = int(n)
	case *uint64:
		*d = uint64(n)
	case *bool:
		*d = n != 0
	case *string:
		*d = s
	case *time.Time:
		*d = time.Time{}
		if v != nil {
			*d = time.UnixMilli(n).UTC()
		}
	case *json.RawMessage:
		*d = json.RawMessage(s)
	case asJSON:
		if isText && s != "" {
			return json.Unmarshal([]byte(s), d.v)
		}
	default:
		e := reflect.ValueOf(dst).Elem()
		if e.Kind() != reflect.String {
			return fmt.Errorf("no rule for %T", dst)
		}
		e.SetString(s)
	}
	return nil
}

// nullID is an id that is stored as NULL when it is zero.
type nullID int64

// values converts arguments to what the driver takes: times to milliseconds
// (zero to NULL), flags to 0 and 1, named strings to strings.
func values(args []any) ([]driver.NamedValue, error) {
	out := make([]driver.NamedValue, len(args))
	for i, a := range args {
		out[i].Ordinal = i + 1
		switch a := a.(type) {
		case nil:
		case int64:
			out[i].Value = a
		case string:
			out[i].Value = a
		case int:
			out[i].Value = int64(a)
		case uint64:
			out[i].Value = int64(a)
		case bool:
			out[i].Value = bit(a)
		case time.Time:
			out[i].Value = millis(a)
		case nullID:
			if a != 0 {
				out[i].Value = int64(a)
			}
		case []byte: // JSON; nil is NULL
			if a != nil {
				out[i].Value = string(a)
			}
		case json.RawMessage:
			out[i].Value = string(a)
		default:
			v := reflect.ValueOf(a)
			if v.Kind() != reflect.String {
				return nil, fmt.Errorf("argument %d: no rule for %T", i, a)
			}
			out[i].Value = v.String()
		}
	}
	return out, nil
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func millis(t time.Time) driver.Value {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

// encode gives v as JSON, made before the writer is asked, so that the one
// writer spends no time on it. Values of the domain always encode, but for
// raw JSON that the caller brought.
func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, domain.E(domain.Invalid, err, "the ledger cannot store a %T that is not valid JSON; nothing was written", v)
	}
	return b, nil
}

// encodeUsage gives NULL for no usage, which is the common case.
func encodeUsage(u domain.Usage) []byte {
	if u == (domain.Usage{}) {
		return nil
	}
	b, _ := json.Marshal(u) // four integers
	return b
}
