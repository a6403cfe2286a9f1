package starts

import "strings"

// killed is the reason of an end that nobody wrote down.
const killed = "killed by somebody else"

// soleJob is the only job that ran when a life ended, "" for none or several.
func (s Start) soleJob() string {
	sole := ""
	for _, p := range s.Parts {
		if !strings.HasPrefix(p, "job.") {
			continue
		}
		if sole != "" {
			return ""
		}
		sole = p
	}
	return sole
}

// killedLast tells whether the last life of a unit was killed by nobody knows
// whom.
func (r Record) killedLast() bool {
	last, ok := r.Last()
	return ok && last.Unit != "" && last.End != nil && last.End.Reason == killed
}

// blameJobs finds the job whose run kills the process: a kill from outside does
// not count, but of the second in a row a job that was alone at work is suspect,
// unless another was at work when the first came. It is done for units only,
// which are started again until their limit; whoever kills a process that was
// started by hand sees what comes of it.
func blameJobs(r *Record) {
	for i := 1; i < len(r.Starts); i++ {
		before, s := r.Starts[i-1], &r.Starts[i]
		job := s.soleJob()
		if job == "" || s.Unit == "" || s.End == nil || s.End.Reason != killed || before.End == nil {
			continue
		}
		first := before.End.Reason == killed && (!before.Jobs || before.soleJob() == job)
		if first || before.End.Death() && before.End.Part == job {
			s.End = &End{At: s.End.At, Code: s.End.Code, Cause: Vanished, Part: job, Reason: "it was killed once more, and this job was at work"}
		}
	}
}
