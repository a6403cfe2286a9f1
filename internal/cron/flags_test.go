package cron

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"hermes/internal/domain"
)

// What a chat may say to create a job, and what becomes of it.
func TestOptionsInChat(t *testing.T) {
	r := newRig(t)
	r.script("disk.sh", "true")
	here := Origin{Platform: "telegram", ChatID: "99"}
	for _, c := range []struct {
		line string
		want func(v View, d Definition) bool
	}{
		{`"every 10m" --no-agent --script disk.sh --deliver telegram --name disk`, func(v View, d Definition) bool {
			return v.Name == "disk" && d.NoAgent && d.Script == "disk.sh" && slices.Equal(d.Deliver, []string{"telegram"}) && d.Prompt == ""
		}},
		{`--name "two words" "weekdays at 9am" look at Ann's mail --skill one --skill=two --timezone Asia/Seoul`, func(v View, d Definition) bool {
			return v.Name == "two words" && d.Prompt == "look at Ann's mail" && slices.Equal(d.Skills, []string{"one", "two"}) && d.Timezone == "Asia/Seoul" && d.Deliver[0] == DeliverOrigin
		}},
		{"every 2h 'run ls --all' —repeat 3 —catch-up all —overlap queue —on-interrupt=retry —timeout 90s —grace 30m —model “fast one” —provider local", func(v View, d Definition) bool { // a phone's dashes and quotes
			return d.Schedule == "every 2h" && d.Prompt == "run ls --all" && d.Repeat.Times == 3 && d.CatchUp == "all" && d.Overlap == "queue" &&
				d.OnInterrupt == "retry" && d.TimeoutSeconds == 90 && d.GraceMinutes == 30 && d.Model == "fast one" && d.Provider == "local"
		}},
		{"every monday at 9am first line\nsecond line", func(v View, d Definition) bool {
			return d.Schedule == "every monday at 9am" && d.Prompt == "first line\nsecond line"
		}},
		{"@daily --name keep -- say --name to nobody", func(v View, d Definition) bool { return v.Name == "keep" && d.Prompt == "say --name to nobody" }},
		{`0 9 * * 1-5 "quoted prompt" --paused --paused-reason later`, func(v View, d Definition) bool {
			return d.Schedule == "0 9 * * 1-5" && d.Prompt == "quoted prompt" && d.Paused && d.PausedReason == "later"
		}},
		{"30m don't panic", func(v View, d Definition) bool { return d.Prompt == "don't panic" }},
	} {
		before, _, err := r.service.List(t.Context(), Page{All: true})
		if err != nil {
			t.Fatal(err)
		}
		said := r.service.Command(t.Context(), "create "+c.line, here)
		after, _, err := r.service.List(t.Context(), Page{All: true})
		if err != nil || len(after) != len(before)+1 {
			t.Errorf("%s: no job was made: %s", c.line, said)
			continue
		}
		for _, v := range after {
			if !slices.ContainsFunc(before, func(b View) bool { return b.ID == v.ID }) {
				job, err := r.store.Job(t.Context(), v.ID)
				d, derr := DefinitionOf(job)
				if err != nil || derr != nil || !c.want(v, d) {
					t.Errorf("%s became %+v\n%s (%v %v)", c.line, d, said, err, derr)
				}
			}
		}
	}
	for line, want := range map[string]string{
		`"every 10m" x --nosuch y`:                  "there is no option --nosuch",
		`"every 10m" x --name`:                      "needs a value",
		`"every 10m" x --repeat many`:               "is no value of --repeat",
		`"every 10m" x --timeout soon`:              "is no value of --timeout",
		`"every 10m" x --archive /home/me/.bashrc`:  "set in a shell",
		`"every 10m" --no-agent`:                    "write the schedule in quotes",
		`"every 10m" --no-agent --name x --skill s`: "NO_AGENT_WITHOUT_SCRIPT",
		`"every 10m" --script ../../etc/passwd`:     "lies outside",
		`--name x`:                                  "write the schedule in quotes",
	} {
		if got := r.service.Command(t.Context(), "add "+line, here); !strings.Contains(got, want) {
			t.Errorf("%s says %q, want %q in it", line, got, want)
		}
	}
	if got := r.service.Command(t.Context(), `edit disk --agent --schedule "every day at noon" --prompt "look at the disk" --add-skill s`, here); !strings.Contains(got, "at 12:00 every day") {
		t.Error(got)
	}
	job, err := r.service.Find(t.Context(), "disk")
	if err != nil {
		t.Fatal(err)
	}
	if d, err := DefinitionOf(job); err != nil || d.NoAgent || d.Prompt != "look at the disk" || !slices.Equal(d.Skills, []string{"s"}) {
		t.Errorf("%+v, %v", d, err)
	}
	for line, want := range map[string]string{
		`edit disk --agent --no-agent`:       "contradict",
		`edit disk --skill a --clear-skills`: "contradict",
		`edit disk`:                          "what to change",
		`edit disk prompt`:                   "belongs the new value",
		`edit disk --archive /x`:             "set in a shell",
	} {
		if got := r.service.Command(t.Context(), line, here); !strings.Contains(got, want) {
			t.Errorf("%s says %q, want %q in it", line, got, want)
		}
	}
}

// The agent's tool knows every field of a job but those that only people set.
func TestTheToolKnowsEveryField(t *testing.T) {
	r := newRig(t)
	var schema struct{ Properties map[string]json.RawMessage }
	if err := json.Unmarshal(r.service.Tool().Schema, &schema); err != nil {
		t.Fatal(err)
	}
	for _, key := range jsonKeys(reflect.TypeFor[Change]()) {
		_, known := schema.Properties[key]
		byPeople := slices.Contains([]string{"base_url", "archive", "origin", "paused", "paused_reason"}, key)
		if known == byPeople {
			t.Errorf("%s: known to the tool %v, for people only %v", key, known, byPeople)
		}
	}
}

func FuzzCreateLine(f *testing.F) {
	for _, s := range []string{`"every 10m" x`, "— –", `--name="`, "“", "--\n--", `--deliver=“a b” c`, "‘a’ b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words := splitLine(line)
		for i, w := range words {
			if w.from >= w.to || i > 0 && w.from < words[i-1].to || w.to > len(line) {
				t.Fatalf("%q is cut into %+v", line, words)
			}
		}
		_, rest, err := chatChange(line, false)
		if err != nil && !domain.IsCode(err, domain.Invalid) && !domain.IsCode(err, domain.Forbidden) {
			t.Fatalf("%q: %v", line, err)
		}
		joined(line, rest)
	})
}
