package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"hermes/internal/domain"
)

// asker puts questions on Err and reads the answers, one a line, from In:
// standard output stays free for what the command yields.
type asker struct {
	app   *App
	in    *bufio.Reader
	ended bool // the input ended before a question was answered
}

func (a *App) asker() *asker {
	return &asker{app: a, in: bufio.NewReader(io.LimitReader(a.In, 1<<20))}
}

// line asks and gives the answer without blanks around it; an empty one is
// fallback. domain.Invalid when the input ends, domain.Cancelled when ctx does.
func (q *asker) line(ctx context.Context, question, fallback string) (string, error) {
	if fallback != "" {
		question += " [" + fallback + "]"
	}
	fmt.Fprint(q.app.Err, question+": ")
	text, err := q.answer(ctx)
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
	text, err := q.read(ctx)
	if f, ok := q.app.In.(*os.File); err == nil && (!ok || !isTerminal(f)) {
		fmt.Fprintln(q.app.Err)
	}
	return text, err
}

// yes asks for a yes; the end of the input is a no.
func (q *asker) yes(ctx context.Context, question string) (bool, error) {
	fmt.Fprint(q.app.Err, question+" [y/N]: ")
	text, err := q.answer(ctx)
	if domain.IsCode(err, domain.Invalid) {
		return false, nil
	}
	text = strings.ToLower(text)
	return text == "y" || text == "yes", err
}

// sure asks for a yes or a no; an empty answer is fallback.
func (q *asker) sure(ctx context.Context, question string, fallback bool) (bool, error) {
	hint := " [y/N]: "
	if fallback {
		hint = " [Y/n]: "
	}
	for {
		fmt.Fprint(q.app.Err, question+hint)
		text, err := q.answer(ctx)
		if err != nil {
			return false, err
		}
		switch strings.ToLower(text) {
		case "":
			return fallback, nil
		case "y", "yes":
			return true, nil
		case "n", "no":
			return false, nil
		}
	}
}

// option is one line of a menu: the word that stands for it in flags, and what
// it means.
type option struct{ word, text string }

// menu shows numbered options and gives the word of the one that is chosen, by
// number or by word. An empty answer is fallback. domain.Invalid after three
// answers that are none of them.
func (q *asker) menu(ctx context.Context, question string, options []option, fallback string) (string, error) {
	for i, o := range options {
		wrap(q.app.Err, fmt.Sprintf("%3d  %-11s ", i+1, o.word), o.text)
	}
	for range 3 {
		text, err := q.line(ctx, question, fallback)
		if err != nil {
			return "", err
		}
		for i, o := range options {
			if strings.EqualFold(text, o.word) || text == strconv.Itoa(i+1) {
				return o.word, nil
			}
		}
		fmt.Fprintf(q.app.Err, "Type one of the numbers, not %q.\n", text)
	}
	return "", domain.E(domain.Invalid, nil, "the question was not answered; nothing was changed")
}

// answer reads an answer that is no secret. Where it is piped in, it is shown
// behind its question, as it would be on a terminal.
func (q *asker) answer(ctx context.Context) (string, error) {
	text, err := q.read(ctx)
	if f, ok := q.app.In.(*os.File); err == nil && (!ok || !isTerminal(f)) {
		fmt.Fprintln(q.app.Err, text)
	}
	return text, err
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
			q.ended = true
			return "", domain.E(domain.Invalid, nil, "the input ended before every question was answered; nothing was changed")
		}
		return r.text, nil
	}
}
