package cron

import (
	"encoding/json"
	"fmt"
	"testing"

	"hermes/internal/domain"
)

// Thousands of jobs that are all alike are told of a few others each.
func TestManyTwins(t *testing.T) {
	jobs := make([]domain.Job, 5000)
	for i := range jobs {
		jobs[i] = domain.Job{ID: domain.JobID(fmt.Sprintf("%012x", i)), Name: fmt.Sprint("job ", i), Definition: json.RawMessage(`{"script":"same.sh"}`)}
	}
	jobs[0].Name, jobs[1].Name = "Same", "same"
	jobs = append(jobs, domain.Job{ID: "ffffffffffff", Name: "alone", Definition: json.RawMessage(`{"script":"own.sh"}`)})
	told := duplicates(jobs)
	if len(told) != 5000 || told["ffffffffffff"] != nil {
		t.Errorf("%d jobs are told of others", len(told))
	}
	for id, list := range told {
		if len(list) != maxTwins+1 || list[maxTwins] != "and 4994 more" {
			t.Fatalf("%s: %v", id, list)
		}
	}
}
