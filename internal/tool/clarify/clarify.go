// Package clarify lets the agent ask the user a question. The turn then waits,
// durably and without a goroutine, and the answer is the tool's result.
package clarify

import (
	"context"
	"encoding/json"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/tool"
)

// Bounds of a question.
const (
	maxQuestion = 2000 // characters
	maxChoices  = 6
	maxChoice   = 100 // characters
)

type args struct {
	Question string   `json:"question"`
	Choices  []string `json:"choices"`
}

// New gives the tool clarify.
func New() tool.Tool {
	return tool.Tool{
		Name: "clarify", Toolset: "clarify", ReadOnly: true,
		Description: "Ask the user a question and wait for the answer. Only for what you cannot find out or decide yourself. With choices (up to 6) the user can pick one; any other answer is possible too.",
		Schema: json.RawMessage(`{"type":"object","properties":{
			"question":{"type":"string"},
			"choices":{"type":"array","items":{"type":"string"},"description":"Short answers to pick from."}},
			"required":["question"]}`),
		Label: func(json.RawMessage) string { return "question to the user" },
		Guard: func(_ context.Context, env tool.Env, raw json.RawMessage) (tool.Decision, error) {
			a, err := decode(raw)
			if err != nil {
				return tool.Decision{}, err
			}
			if env.Kind == domain.TurnCron {
				return tool.Decision{Action: tool.Refuse, Reason: "nobody can be asked in a scheduled job; decide yourself, and say what you decided"}, nil
			}
			return tool.Decision{Action: tool.Ask, Question: domain.Question{Kind: domain.AskClarify, Text: a.Question, Choices: a.Choices}}, nil
		},
		Run: func(_ context.Context, env tool.Env, raw json.RawMessage) (tool.Result, error) {
			if _, err := decode(raw); err != nil {
				return tool.Result{}, err
			}
			switch env.Answer {
			case "", domain.AnswerExpired:
				return tool.Result{Content: "The user did not answer in time. Go on with what is most likely meant, and say what you assumed; or end here and say what you need to know."}, nil
			}
			return tool.Result{Content: "The user answered: " + env.Answer}, nil
		},
	}
}

func decode(raw json.RawMessage) (args, error) {
	var a args
	if err := tool.Decode(raw, &a, "question"); err != nil {
		return a, err
	}
	if a.Question = strings.TrimSpace(a.Question); a.Question == "" || len([]rune(a.Question)) > maxQuestion {
		return a, domain.E(domain.Invalid, nil, "the question must have 1 to %d characters", maxQuestion)
	}
	var choices []string
	for _, c := range a.Choices {
		if c = strings.TrimSpace(c); c == "" {
			continue
		}
		if r := []rune(c); len(r) > maxChoice {
			c = string(r[:maxChoice-1]) + "…"
		}
		choices = append(choices, c)
	}
	if len(choices) > maxChoices {
		return a, domain.E(domain.TooLarge, nil, "at most %d choices can be shown, not %d; leave some out", maxChoices, len(choices))
	}
	a.Choices = choices
	return a, nil
}
