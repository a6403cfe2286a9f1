package cron

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/tool"
)

const toolSchema = `{
  "type": "object",
  "properties": {
    "action": {"type": "string", "enum": ["create", "list", "update", "pause", "resume", "run", "remove"], "description": "what to do"},
    "job_id": {"type": "string", "description": "id or name of the job, for all actions but create and list"},
    "schedule": {"type": "string", "description": "when: 'every 10m' repeats, '30m' or 'in 2h' is once, '0 9 * * 1-5' is cron, 'every monday at 9am', '2026-02-03T14:00'"},
    "timezone": {"type": "string", "description": "IANA zone of the schedule, e.g. Asia/Seoul"},
    "prompt": {"type": "string", "description": "what the agent shall do at each run; it must stand on its own, since the run does not see this conversation"},
    "name": {"type": "string"},
    "repeat": {"type": "integer", "description": "how many times; leave out for ever"},
    "deliver": {"type": "array", "items": {"type": "string"}, "description": "origin (this chat, the default), local (only saved), all, telegram, telegram:<chat id>, discord:#channel"},
    "failure_deliver": {"type": "array", "items": {"type": "string"}, "description": "where alerts go, if not to the same place"},
    "skills": {"type": "array", "items": {"type": "string"}},
    "skill": {"type": "string"},
    "script": {"type": "string", "description": "a file in the profile's scripts folder; its output is given to the agent, or delivered with no_agent"},
    "no_agent": {"type": "boolean", "description": "run only the script; what it prints is delivered, nothing printed is silence"},
    "context_from": {"type": "array", "items": {"type": "string"}, "description": "jobs whose newest output is put before the prompt"},
    "enabled_toolsets": {"type": "array", "items": {"type": "string"}},
    "workdir": {"type": "string", "description": "absolute folder to work in"},
    "model": {"type": "string"}, "provider": {"type": "string"},
    "catch_up": {"type": "string", "enum": ["one", "all", "none"], "description": "firings missed while nothing ran: one (the default) makes up for the latest"},
    "overlap": {"type": "string", "enum": ["skip", "queue", "parallel"], "description": "a firing while the one before still runs; skip is the default"},
    "on_interrupt": {"type": "string", "enum": ["fail", "retry"], "description": "a run that a crash cut off; fail (reported) is the default"},
    "timeout_seconds": {"type": "integer", "description": "longest time of a run"},
    "grace_minutes": {"type": "integer", "description": "how late a missed firing may still be made up for"},
    "reason": {"type": "string", "description": "why it is paused"},
    "include_disabled": {"type": "boolean", "description": "list paused and completed jobs too"}
  },
  "required": ["action"]
}`

type toolArgs struct {
	Change
	Action   string `json:"action"`
	JobID    string `json:"job_id"`
	Skill    string `json:"skill"`
	Reason   string `json:"reason"`
	Disabled bool   `json:"include_disabled"`
}

// Tool is the agent's tool cronjob. Inside a scheduled run it refuses to work,
// so that jobs do not make jobs.
func (s *Service) Tool() tool.Tool {
	return tool.Tool{
		Name: "cronjob", Toolset: "cronjob",
		Description: "Create, list, change and run scheduled jobs of this gateway. A job runs later in a session of its own and its answer is delivered to a chat.",
		Schema:      json.RawMessage(toolSchema),
		Label: func(raw json.RawMessage) string {
			var a toolArgs
			_ = json.Unmarshal(raw, &a) // a label for malformed arguments is just "cronjob"
			return strings.TrimSpace("cronjob " + a.Action + " " + a.JobID)
		},
		Guard: func(_ context.Context, env tool.Env, _ json.RawMessage) (tool.Decision, error) {
			if env.Kind == domain.TurnCron {
				return tool.Decision{Action: tool.Refuse, Reason: "a scheduled run may not create or change jobs; report what should be scheduled, and the user can do it"}, nil
			}
			return tool.Decision{Action: tool.Run}, nil
		},
		Run: s.runTool,
	}
}

// maxToolJobs bounds what a list puts before the model.
const maxToolJobs = 50

// runTool answers in JSON also when it fails, as models were taught to expect.
func (s *Service) runTool(ctx context.Context, env tool.Env, raw json.RawMessage) (tool.Result, error) {
	answer, err := s.toolAnswer(ctx, env, raw)
	if err != nil {
		answer = map[string]any{"success": false, "error": domain.MessageOf(err)}
	}
	b, err := marshal(answer)
	return tool.Result{Content: string(b)}, err // err is of marshal alone
}

func (s *Service) toolAnswer(ctx context.Context, env tool.Env, raw json.RawMessage) (map[string]any, error) {
	if env.Kind == domain.TurnCron {
		return nil, domain.E(domain.Forbidden, nil, "a scheduled run may not create or change jobs")
	}
	var a toolArgs
	if err := tool.Decode(raw, &a, "action"); err != nil {
		return nil, err
	}
	if a.BaseURL != nil || a.Archive != nil {
		// One would send the model's key to an address, the other write to a
		// file, that the model chose.
		return nil, domain.E(domain.Forbidden, nil, "base_url and archive of a job are set by the operator only: hermes cron edit")
	}
	if a.Skill != "" && a.Skills == nil {
		a.Skills = &[]string{a.Skill}
	}
	if a.Action != "create" && a.Action != "list" && a.JobID == "" {
		return nil, domain.E(domain.Invalid, nil, "the action %s needs job_id, the id or name of a job", a.Action)
	}
	switch a.Action {
	case "list":
		views, total, err := s.List(ctx, Page{All: a.Disabled, Limit: maxToolJobs})
		return s.withWarning(ctx, map[string]any{"success": true, "jobs": views, "total": total}), err
	case "create":
		a.Origin = nil
		if env.Source.ChatID != "" && env.Kind != domain.TurnAPI {
			a.Origin = &Origin{Platform: env.Source.Platform, ChatID: env.Source.ChatID, ChatName: env.Source.ChatName, ThreadID: env.Source.ThreadID}
		}
		e, err := s.Create(ctx, a.Change)
		return s.explained(ctx, e), err
	case "update":
		a.Origin, a.Paused = nil, nil
		e, err := s.Edit(ctx, a.JobID, a.Change)
		return s.explained(ctx, e), err
	case "pause":
		v, err := s.Pause(ctx, a.JobID, a.Reason)
		return map[string]any{"success": true, "job_id": v.ID, "name": v.Name, "state": v.State}, err
	case "resume":
		e, err := s.Resume(ctx, a.JobID, deref(a.Schedule))
		return s.explained(ctx, e), err
	case "run":
		job, run, err := s.Run(ctx, a.JobID)
		return s.withWarning(ctx, map[string]any{"success": true, "job_id": job.ID, "name": job.Name, "run_id": run.ID}), err
	case "remove":
		job, err := s.Remove(ctx, a.JobID)
		return map[string]any{"success": true, "job_id": job.ID, "name": job.Name, "removed": true}, err
	}
	return nil, domain.E(domain.Invalid, nil, "%q is no action; it is one of create, list, update, pause, resume, run, remove", a.Action)
}

func (s *Service) explained(ctx context.Context, e Explained) map[string]any {
	var next []string
	for _, t := range e.Next {
		next = append(next, bothClocks(t, e.Job.Zone))
	}
	return s.withWarning(ctx, map[string]any{"success": true, "job_id": e.Job.ID, "name": e.Job.Name, "schedule": e.Job.ScheduleDisplay,
		"meaning": e.Words, "repeat": e.Job.Repeat.text(), "deliver": e.Job.Deliver, "next_run_at": deref(e.Job.NextRunAt), "next_runs": next, "advice": e.Advice})
}

// withWarning says in the answer itself when nothing would fire the job.
func (s *Service) withWarning(ctx context.Context, answer map[string]any) map[string]any {
	if w := s.NotRunning(ctx); w != "" {
		answer["warning"] = fmt.Sprint(w)
	}
	return answer
}
