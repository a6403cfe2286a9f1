package tool

import (
	"hermes/internal/approval"
	"hermes/internal/domain"
)

// Decide turns the verdict on a command or file into a guard's answer. subject
// begins the question ("This command"), detail is what is to be approved.
func Decide(v approval.Verdict, subject, detail string) Decision {
	switch v.Action {
	case approval.Allow:
		return Decision{Action: Run}
	case approval.Refuse:
		return Decision{Action: Refuse, Reason: v.Reason}
	}
	return Decision{Action: Ask, Question: domain.Question{
		Kind: domain.AskApproval, Text: subject + " " + v.Reason + ". May it?", Detail: detail, Key: v.Key,
		Choices: []string{domain.ApproveOnce, domain.ApproveSession, domain.ApproveAlways, domain.ApproveDeny},
	}}
}

// ApprovalFor fills in what a call knows into the profile's approval options.
func ApprovalFor(base approval.Options, env Env) approval.Options {
	base.Granted = env.Granted
	base.Unattended = base.Unattended || env.Kind == domain.TurnCron
	if base.Home == "" {
		base.Home = env.Home
	}
	base.Workdir = env.Workdir
	return base
}
