package clarify

import (
	"encoding/json"
	"strings"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/tool"
)

func TestClarify(t *testing.T) {
	x := New()
	if _, err := tool.NewRegistry(x); err != nil {
		t.Fatal(err)
	}
	raw := json.RawMessage(`{"question":" Which one? ","choices":["a",""," b "]}`)
	d, err := x.Guard(t.Context(), tool.Env{}, raw)
	if err != nil || d.Action != tool.Ask || d.Question.Kind != domain.AskClarify || d.Question.Text != "Which one?" || len(d.Question.Choices) != 2 {
		t.Errorf("got %+v, %v", d, err)
	}
	if d, err := x.Guard(t.Context(), tool.Env{Kind: domain.TurnCron}, raw); err != nil || d.Action != tool.Refuse || d.Reason == "" {
		t.Errorf("in a job: %+v, %v", d, err)
	}
	for answer, want := range map[string]string{"b": "The user answered: b", domain.AnswerExpired: "did not answer", "": "did not answer"} {
		if res, err := x.Run(t.Context(), tool.Env{Answer: answer}, raw); err != nil || !strings.Contains(res.Content, want) {
			t.Errorf("%q: got %q, %v", answer, res.Content, err)
		}
	}
	for _, bad := range []string{`{}`, `{"question":" "}`, `{"question":"x","choices":["1","2","3","4","5","6","7"]}`, `{"question":"` + strings.Repeat("x", maxQuestion+1) + `"}`} {
		if _, err := x.Guard(t.Context(), tool.Env{}, json.RawMessage(bad)); err == nil {
			t.Errorf("%.60s: no error", bad)
		}
	}
}
