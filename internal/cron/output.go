package cron

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hermes/internal/domain"
	"hermes/internal/plain"
)

// outputs keeps the readable record of runs below <profile>/cron: one Markdown
// file a run, the usage log, and the heartbeat files that older tools read.
type outputs struct{ dir string }

const (
	defaultOutputKept = 50
	maxUsageLog       = 8 << 20 // bytes before usage_audit.jsonl is turned over
)

// write stores one run's file and drops the oldest beyond keep.
func (o outputs) write(id domain.JobID, at time.Time, text string, keep int) (string, error) {
	dir := filepath.Join(o.dir, "output", string(id))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	base := at.Format("2006-01-02_15-04-05")
	path := filepath.Join(dir, base+".md")
	for i := 2; i < 100; i++ {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, os.ErrExist) {
			path = filepath.Join(dir, base+"_"+strconv.Itoa(i)+".md")
			continue
		}
		if err != nil {
			return "", err
		}
		_, err = f.WriteString(text)
		if err := errors.Join(err, f.Close()); err != nil {
			return "", err
		}
		return path, o.retain(dir, keep)
	}
	return "", fmt.Errorf("a hundred outputs of %s in one second", id)
}

// retain removes all but the newest files; names sort by time.
func (o outputs) retain(dir string, keep int) error {
	if keep <= 0 {
		keep = defaultOutputKept
	}
	names := o.names(dir)
	for len(names) > keep {
		if err := os.Remove(filepath.Join(dir, names[0])); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		names = names[1:]
	}
	return nil
}

func (o outputs) names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".md") && e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names
}

// newest is the response part of a job's newest output; "" when there is none.
func (o outputs) newest(id domain.JobID) string {
	if !validID(id) {
		return ""
	}
	dir := filepath.Join(o.dir, "output", string(id))
	names := o.names(dir)
	if len(names) == 0 {
		return ""
	}
	b, err := plain.Read(filepath.Join(dir, names[len(names)-1]))
	if err != nil {
		return ""
	}
	text := string(b)
	if _, response, ok := strings.Cut(text, "\n## Response\n"); ok {
		text = response
	}
	return strings.TrimSpace(text)
}

// outputFile is the Markdown record of a run.
func outputFile(name string, id domain.JobID, d Definition, display string, at time.Time, o outcome) string {
	var b strings.Builder
	b.WriteString("# Cron Job: " + name)
	if o.failed() {
		b.WriteString(" (FAILED)")
	}
	fmt.Fprintf(&b, "\n\n**Job ID:** %s\n**Run Time:** %s\n**Schedule:** %s\n", id, at.Format("2006-01-02 15:04:05"), display)
	if d.NoAgent {
		b.WriteString("**Mode:** no_agent (script)\n")
		switch {
		case o.failed():
			b.WriteString("**Status:** script failed\n")
		case o.state == domain.RunSilent:
			b.WriteString("**Status:** silent (empty output)\n")
		}
	} else {
		b.WriteString("\n## Prompt\n\n" + o.prompt + "\n")
	}
	if o.failed() {
		b.WriteString("\n## Error\n\n```\n" + o.errText + "\n```\n")
	}
	if !o.failed() || o.text != "" {
		b.WriteString("\n## Response\n\n" + orDefault(o.text, "(No response generated)") + "\n")
	}
	return b.String()
}

// archive writes a result to the job's own path, whose %Y %m %d %H %M %S are
// filled in from at; what is there is kept and added to.
func archive(pattern string, at time.Time, text string) error {
	path := archivePath(pattern, at)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := plain.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		text = "\n" + text
	}
	_, err = f.WriteString(strings.TrimRight(text, "\n") + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

// archivePath fills in the pattern.
func archivePath(pattern string, at time.Time) string {
	return strings.NewReplacer("%Y", at.Format("2006"), "%m", at.Format("01"), "%d", at.Format("02"),
		"%H", at.Format("15"), "%M", at.Format("04"), "%S", at.Format("05"), "%%", "%").Replace(pattern)
}

// usageLine is a line of usage_audit.jsonl.
type usageLine struct {
	TS       string       `json:"ts"`
	Job      domain.JobID `json:"job_id"`
	Fire     int64        `json:"fire_id"`
	Prompt   int64        `json:"prompt_tokens"`
	Complete int64        `json:"completion_tokens"`
	Total    int64        `json:"total_tokens"`
	Silent   bool         `json:"response_silent"`
	Target   string       `json:"deliver_target"`
	Model    string       `json:"model"`
	Duration int64        `json:"duration_ms"`
	Error    string       `json:"error,omitempty"`
}

// usage appends to the usage log, which is turned over once when it is large.
func (o outputs) usage(line usageLine) error {
	b, err := json.Marshal(line)
	if err != nil {
		return err
	}
	path := filepath.Join(o.dir, "usage_audit.jsonl")
	if info, err := os.Stat(path); err == nil && info.Size() > maxUsageLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	f, err := plain.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Close())
}

// heartbeat writes the files that tell others that the scheduler turns:
// ticker_heartbeat, and ticker_last_success or ticker_last_error.
func (o outputs) heartbeat(now time.Time, failure error) error {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	epoch := strconv.FormatInt(now.Unix(), 10) + "\n"
	err := plain.Write(filepath.Join(o.dir, "ticker_heartbeat"), []byte(epoch), 0o600)
	if failure != nil {
		return errors.Join(err, plain.Write(filepath.Join(o.dir, "ticker_last_error"), []byte(epoch+domain.MessageOf(failure)+"\n"), 0o600))
	}
	return errors.Join(err, plain.Write(filepath.Join(o.dir, "ticker_last_success"), []byte(epoch), 0o600))
}

// zone is the zone that the last start found; "" at first.
func (o outputs) zone() string {
	b, err := plain.Read(filepath.Join(o.dir, "scheduler_zone"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (o outputs) setZone(zone string) error {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	return plain.Write(filepath.Join(o.dir, "scheduler_zone"), []byte(zone+"\n"), 0o600)
}

// validID tells whether a job's id has its form, and so is safe in a path.
func validID(id domain.JobID) bool {
	return len(id) == 12 && strings.Trim(string(id), "0123456789abcdef") == ""
}
