// Package todo gives the agent a list of what it still has to do in a session.
// The list survives crashes and compressions of the history, and ends with the
// session.
package todo

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"hermes/internal/domain"
	"hermes/internal/tool"
)

// Bounds of a list.
const (
	maxItems   = 60
	maxContent = 500 // characters of an item
)

// Notes is where lists are kept; a ledger is one.
type Notes interface {
	Note(ctx context.Context, key string) (string, error)
	SetNote(ctx context.Context, key, value string) error
}

// item is one thing to do.
type item struct {
	ID      string `json:"id"`
	Content string `json:"content"`
	Status  string `json:"status"`
}

var statuses = []string{"pending", "in_progress", "completed", "cancelled"}

// list is what is kept: one for each place of conversation, with the session
// that it belongs to, so that a new session begins with none and old lists do
// not pile up.
type list struct {
	Session domain.SessionID `json:"session"`
	Items   []item           `json:"items"`
}

type args struct {
	Todos []item `json:"todos"`
	Merge bool   `json:"merge"`
}

// New gives the tool todo.
func New(notes Notes) tool.Tool {
	return tool.Tool{
		// Writing the same list twice gives the same list.
		Name: "todo", Toolset: "todo", ReadOnly: true,
		Description: "Keep a list of the steps of a longer task. Without todos it shows the list. With todos it replaces the list, or with merge changes the items with the same ids and adds the others. Have one item in_progress at a time, and mark items completed as soon as they are.",
		Schema: json.RawMessage(`{"type":"object","properties":{
			"todos":{"type":"array","items":{"type":"object","properties":{
				"id":{"type":"string"},"content":{"type":"string"},
				"status":{"type":"string","enum":["pending","in_progress","completed","cancelled"]}},"required":["id","content","status"]}},
			"merge":{"type":"boolean","description":"Change the list in place of replacing it."}}}`),
		Label: func(json.RawMessage) string { return "todo list" },
		Run: func(ctx context.Context, env tool.Env, raw json.RawMessage) (tool.Result, error) {
			var a args
			if err := tool.Decode(raw, &a); err != nil {
				return tool.Result{}, err
			}
			l, err := load(ctx, notes, env)
			if err != nil {
				return tool.Result{}, err
			}
			if a.Todos != nil {
				if err := l.update(a); err != nil {
					return tool.Result{}, err
				}
				if err := l.save(ctx, notes, env); err != nil {
					return tool.Result{}, err
				}
			}
			return tool.Result{Content: l.String()}, nil
		},
	}
}

// key is where a place's list is kept.
func key(env tool.Env) string {
	if env.SessionKey == "" {
		return "todo." + string(env.SessionID)
	}
	return "todo." + string(env.SessionKey)
}

func load(ctx context.Context, notes Notes, env tool.Env) (list, error) {
	text, err := notes.Note(ctx, key(env))
	if err != nil {
		return list{}, err
	}
	var l list
	if text == "" || json.Unmarshal([]byte(text), &l) != nil || l.Session != env.SessionID {
		return list{Session: env.SessionID}, nil //nolint:nilerr // what cannot be read is an empty list
	}
	return l, nil
}

func (l list) save(ctx context.Context, notes Notes, env tool.Env) error {
	if len(l.Items) == 0 {
		return notes.SetNote(ctx, key(env), "")
	}
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return notes.SetNote(ctx, key(env), string(b))
}

// update replaces or merges the items. domain.Invalid, domain.TooLarge.
func (l *list) update(a args) error {
	items := []item{}
	if a.Merge {
		items = slices.Clone(l.Items)
	}
	for n, it := range a.Todos {
		it.ID, it.Content = strings.TrimSpace(it.ID), strings.TrimSpace(it.Content)
		if it.ID == "" {
			it.ID = fmt.Sprint(n + 1)
		}
		at := slices.IndexFunc(items, func(x item) bool { return x.ID == it.ID })
		if at >= 0 && a.Merge {
			// What a change leaves out stays.
			if it.Content == "" {
				it.Content = items[at].Content
			}
			if it.Status == "" {
				it.Status = items[at].Status
			}
		}
		if it.Status == "" {
			it.Status = "pending"
		}
		switch {
		case it.Content == "":
			return domain.E(domain.Invalid, nil, "the item %q has no content; nothing was changed", it.ID)
		case utf8.RuneCountInString(it.Content) > maxContent:
			return domain.E(domain.TooLarge, nil, "the item %q is longer than %d characters; nothing was changed", it.ID, maxContent)
		case !slices.Contains(statuses, it.Status):
			return domain.E(domain.Invalid, nil, "the item %q has the status %q, which must be one of %s; nothing was changed", it.ID, it.Status, strings.Join(statuses, ", "))
		}
		if at >= 0 {
			items[at] = it
		} else {
			items = append(items, it)
		}
	}
	if len(items) > maxItems {
		return domain.E(domain.TooLarge, nil, "a list has at most %d items, not %d; nothing was changed", maxItems, len(items))
	}
	l.Items = items
	return nil
}

// String shows the list.
func (l list) String() string {
	if len(l.Items) == 0 {
		return "The list is empty."
	}
	done := 0
	var b strings.Builder
	for _, it := range l.Items {
		mark := map[string]string{"pending": "[ ]", "in_progress": "[>]", "completed": "[x]", "cancelled": "[-]"}[it.Status]
		if it.Status == "completed" || it.Status == "cancelled" {
			done++
		}
		fmt.Fprintf(&b, "%s %s: %s\n", mark, it.ID, it.Content)
	}
	return fmt.Sprintf("%d of %d done.\n%s", done, len(l.Items), strings.TrimRight(b.String(), "\n"))
}
