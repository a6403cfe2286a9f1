package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hermes/internal/domain"
	"hermes/internal/ledger"
	"hermes/internal/ledger/sqlite"
)

func newSessionsCommand(app *App) *cobra.Command {
	return group("sessions", "Look at the agent's conversations, and tidy them up",
		newSessionsListCommand(app), newSessionsShowCommand(app), newSessionsExportCommand(app),
		newSessionsDeleteCommand(app), newSessionsRenameCommand(app), newSessionsPruneCommand(app))
}

// sessionPage is how many sessions are read at once.
const sessionPage = 500

// eachSession calls f for every session of a source ("" for any), most recently
// used first.
func eachSession(ctx context.Context, s *sqlite.Store, source domain.Platform, f func(domain.Session) error) error {
	for offset := 0; ; offset += sessionPage {
		list, err := s.ListSessions(ctx, ledger.SessionFilter{Source: source, Limit: sessionPage, Offset: offset})
		if err != nil {
			return err
		}
		for _, one := range list {
			if err := f(one); err != nil {
				return err
			}
		}
		if len(list) < sessionPage {
			return nil
		}
	}
}

// findSession gives the session that a reference means: its id, "latest", a
// beginning of an id or a title that only one session has. domain.NotFound,
// domain.Invalid when it is ambiguous.
func findSession(ctx context.Context, s *sqlite.Store, ref string) (domain.Session, error) {
	if one, err := s.Session(ctx, domain.SessionID(ref)); !domain.IsCode(err, domain.NotFound) {
		return one, err
	}
	var found []domain.Session
	err := eachSession(ctx, s, "", func(one domain.Session) error {
		if ref == "latest" && len(found) == 0 || strings.HasPrefix(string(one.ID), ref) || one.Title != "" && strings.EqualFold(one.Title, ref) {
			found = append(found, one)
		}
		return nil
	})
	switch {
	case err != nil:
		return domain.Session{}, err
	case len(found) == 0:
		return domain.Session{}, domain.E(domain.NotFound, nil, "there is no session %q; `hermes sessions list` shows them", ref)
	case len(found) > 1:
		return domain.Session{}, domain.E(domain.Invalid, nil, "%q means %d sessions, such as %s and %s; write more of the id", ref, len(found), found[0].ID, found[1].ID)
	}
	return found[0], nil
}

func newSessionsListCommand(app *App) *cobra.Command {
	var asJSON bool
	var source string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List sessions, most recently used first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return domain.E(domain.Invalid, nil, "--limit takes a number over 0")
			}
			return app.withLedger(cmd.Context(), func(s *sqlite.Store) (bool, error) {
				list, err := s.ListSessions(cmd.Context(), ledger.SessionFilter{Source: domain.Platform(source), Limit: limit})
				if err != nil {
					return false, err
				}
				return false, app.printSessions(list, asJSON)
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().StringVar(&source, "source", "", "only those that began on this platform (telegram, webchat, api_server, cron …)")
	cmd.Flags().IntVarP(&limit, "limit", "n", 20, "how many")
	return cmd
}

func (a *App) printSessions(list []domain.Session, asJSON bool) error {
	if asJSON {
		if list == nil {
			list = []domain.Session{}
		}
		return a.JSON(list)
	}
	if len(list) == 0 {
		fmt.Fprintln(a.Out, "There are none.")
		return nil
	}
	w := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSOURCE\tWITH\tMESSAGES\tLAST USED\tTITLE")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", s.ID, s.Source.Platform, dash(cut(orName(s.Source), 16)), s.MessageCount,
			s.UpdatedAt.Local().Format("2006-01-02 15:04"), dash(cut(s.Title, 30)))
	}
	return w.Flush()
}

// transcript is a session with what was said, as show and export print it.
type transcript struct {
	domain.Session
	Messages []domain.Message `json:"messages"`
}

func readTranscript(ctx context.Context, s *sqlite.Store, one domain.Session) (transcript, error) {
	messages, err := s.History(ctx, one.ID)
	if messages == nil {
		messages = []domain.Message{}
	}
	return transcript{one, messages}, err
}

func newSessionsShowCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show what was said; ID may be its beginning, a title, or latest", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.withLedger(cmd.Context(), func(s *sqlite.Store) (bool, error) {
				one, err := findSession(cmd.Context(), s, args[0])
				if err != nil {
					return false, err
				}
				t, err := readTranscript(cmd.Context(), s, one)
				switch {
				case err != nil:
					return false, err
				case asJSON:
					return false, app.JSON(t)
				}
				app.printTranscript(t)
				return false, nil
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *App) printTranscript(t transcript) {
	fmt.Fprintf(a.Out, "%s  %s  %s\n", t.ID, t.Source.Address, dash(t.Title))
	for _, m := range t.Messages {
		who := string(m.Role)
		if m.Role == domain.RoleTool {
			who += " " + m.ToolName
		}
		fmt.Fprintf(a.Out, "\n%s  %s\n", m.At.Local().Format("2006-01-02 15:04:05"), who)
		for _, c := range m.ToolCalls {
			fmt.Fprintf(a.Out, "  → %s %s\n", c.Name, cut(c.Arguments, 200))
		}
		for l := range strings.Lines(m.Content) {
			fmt.Fprintf(a.Out, "  %s\n", strings.TrimRight(l, "\r\n"))
		}
	}
}

func newSessionsExportCommand(app *App) *cobra.Command {
	var file, source string
	cmd := &cobra.Command{
		Use: "export [ID]", Short: "Write sessions with their messages as JSON, one a line; all of them without an ID", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.withLedger(cmd.Context(), func(s *sqlite.Store) (bool, error) {
				if file == "" || file == "-" {
					_, err := exportSessions(cmd.Context(), s, app.Out, source, args)
					return false, err
				}
				return false, app.exportTo(cmd.Context(), s, file, source, args)
			})
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "write to `FILE`, readable by its owner only")
	cmd.Flags().StringVar(&source, "source", "", "only those that began on this platform")
	return cmd
}

func (a *App) exportTo(ctx context.Context, s *sqlite.Store, file, source string, args []string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return domain.E(domain.Unavailable, err, "the file cannot be written")
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	n, err := exportSessions(ctx, s, w, source, args)
	if err != nil {
		return err
	}
	for _, end := range []func() error{w.Flush, f.Close} {
		if err := end(); err != nil {
			return domain.E(domain.Unavailable, err, "%s could not be written to its end", file)
		}
	}
	fmt.Fprintf(a.Out, "✓ %d session(s) written to %s.\n", n, file)
	return nil
}

// exportSessions writes the named session, or those of a source, and counts them.
func exportSessions(ctx context.Context, s *sqlite.Store, to io.Writer, source string, args []string) (n int, err error) {
	enc := json.NewEncoder(to)
	enc.SetEscapeHTML(false)
	write := func(one domain.Session) error {
		t, err := readTranscript(ctx, s, one)
		if err != nil {
			return err
		}
		n++
		return enc.Encode(t)
	}
	if len(args) == 0 {
		err = eachSession(ctx, s, domain.Platform(source), write)
		return n, err
	}
	one, err := findSession(ctx, s, args[0])
	if err == nil {
		err = write(one)
	}
	return n, err
}

func newSessionsDeleteCommand(app *App) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete ID", Aliases: []string{"rm"}, Short: "Delete a session and what was said in it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.withLedger(cmd.Context(), func(s *sqlite.Store) (bool, error) {
				one, err := findSession(cmd.Context(), s, args[0])
				if err != nil {
					return false, err
				}
				if err := app.sure(cmd.Context(), yes, fmt.Sprintf("Delete session %s with its %d messages for good?", one.ID, one.MessageCount)); err != nil {
					return false, err
				}
				if err := s.DeleteSession(cmd.Context(), one.ID); err != nil {
					return false, err
				}
				fmt.Fprintf(app.Out, "✓ Deleted session %s.\n", one.ID)
				return false, nil
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// sure asks, unless yes is given. domain.Cancelled when it is not confirmed.
func (a *App) sure(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	ok, err := a.asker().yes(ctx, question)
	if err == nil && !ok {
		err = domain.E(domain.Cancelled, nil, "nothing was deleted, since it was not confirmed; -y goes on without asking")
	}
	return err
}

func newSessionsRenameCommand(app *App) *cobra.Command {
	return &cobra.Command{
		Use: "rename ID TITLE", Short: "Give a session a title", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			title := strings.Join(strings.Fields(strings.Join(args[1:], " ")), " ")
			return app.withLedger(cmd.Context(), func(s *sqlite.Store) (bool, error) {
				one, err := findSession(cmd.Context(), s, args[0])
				if err != nil {
					return false, err
				}
				if err := s.EditSession(cmd.Context(), one.ID, &title, nil); err != nil {
					return false, err
				}
				fmt.Fprintf(app.Out, "✓ Session %s is called %q now.\n", one.ID, title)
				return false, nil
			})
		},
	}
}

func newSessionsPruneCommand(app *App) *cobra.Command {
	var days int
	var yes bool
	var source string
	cmd := &cobra.Command{
		Use: "prune --older-than DAYS", Short: "Delete the sessions that were last used before so many days", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if days < 1 {
				return domain.E(domain.Invalid, nil, "--older-than takes a number of days over 0, such as --older-than 90")
			}
			return app.withLedger(cmd.Context(), func(s *sqlite.Store) (bool, error) {
				return false, app.prune(cmd.Context(), s, domain.Platform(source), days, yes)
			})
		},
	}
	cmd.Flags().IntVar(&days, "older-than", 0, "days since the last use")
	cmd.Flags().StringVar(&source, "source", "", "only those that began on this platform")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// prune deletes old sessions. One with an open turn stays.
func (a *App) prune(ctx context.Context, s *sqlite.Store, source domain.Platform, days int, yes bool) error {
	before := a.Now().Add(-time.Duration(days) * 24 * time.Hour)
	var old []domain.SessionID
	err := eachSession(ctx, s, source, func(one domain.Session) error {
		if one.UpdatedAt.Before(before) {
			old = append(old, one.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(old) == 0 {
		fmt.Fprintf(a.Out, "No session is that old.\n")
		return nil
	}
	if err := a.sure(ctx, yes, fmt.Sprintf("Delete %d session(s) last used before %s for good?", len(old), before.Local().Format(time.DateOnly))); err != nil {
		return err
	}
	deleted := 0
	for _, id := range old {
		err := s.DeleteSession(ctx, id)
		switch {
		case domain.IsCode(err, domain.Conflict):
			fmt.Fprintf(a.Err, "hermes: session %s stays: %s\n", id, domain.MessageOf(err))
		case domain.IsCode(err, domain.NotFound): // deleted meanwhile
		case err != nil:
			return err
		default:
			deleted++
		}
	}
	fmt.Fprintf(a.Out, "✓ Deleted %d session(s).\n", deleted)
	return nil
}

// orName is what people call a chat.
func orName(s domain.Source) string {
	if s.ChatName != "" {
		return s.ChatName
	}
	return s.UserName
}
