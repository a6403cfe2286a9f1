package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"hermes/internal/domain"
)

// asker puts questions on Err and reads the answers, one a line, from In:
// standard output stays free for what the command yields.
type asker struct {
	app *App
	in  *bufio.Reader
}

func (a *App) asker() *asker { return &asker{a, bufio.NewReader(io.LimitReader(a.In, 1<<20))} }

// line asks and gives the answer without blanks around it; an empty one is
// fallback. domain.Invalid when the input ends, domain.Cancelled when ctx does.
func (q *asker) line(ctx context.Context, question, fallback string) (string, error) {
	if fallback != "" {
		question += " [" + fallback + "]"
	}
	fmt.Fprint(q.app.Err, question+": ")
	text, err := q.read(ctx)
	if err == nil && text == "" {
		text = fallback
	}
	return text, err
}

// secret asks for something that is not shown while it is typed.
func (q *asker) secret(ctx context.Context, question string) (string, error) {
	if f, ok := q.app.In.(*os.File); ok {
		if restore, hidden := hideEcho(f); hidden {
			defer func() {
				restore()
				fmt.Fprintln(q.app.Err) // the line break that was typed is not shown either
			}()
			question += " (not shown)"
		} else if isTerminal(f) {
			question += " (shown as you type!)"
		}
	}
	fmt.Fprint(q.app.Err, question+": ")
	return q.read(ctx)
}

// yes asks for a yes; the end of the input is a no.
func (q *asker) yes(ctx context.Context, question string) (bool, error) {
	fmt.Fprint(q.app.Err, question+" [y/N]: ")
	text, err := q.read(ctx)
	if domain.IsCode(err, domain.Invalid) {
		return false, nil
	}
	text = strings.ToLower(text)
	return text == "y" || text == "yes", err
}

// read gives the next line. A read from a terminal cannot be taken back, so
// that one that ctx outruns goes on until the program ends, which is at once.
func (q *asker) read(ctx context.Context) (string, error) {
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := q.in.ReadString('\n')
		done <- result{strings.TrimSpace(text), err}
	}()
	select {
	case <-ctx.Done():
		return "", domain.E(domain.Cancelled, ctx.Err(), "nothing was changed")
	case r := <-done:
		if r.err != nil && r.text == "" {
			fmt.Fprintln(q.app.Err)
			return "", domain.E(domain.Invalid, nil, "the input ended before every question was answered; nothing was changed")
		}
		return r.text, nil
	}
}
