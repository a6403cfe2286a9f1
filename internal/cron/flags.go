package cron

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"hermes/internal/domain"
)

// Flags are the options of a job, defined once for the command line and for
// /cron in a chat.
type Flags struct {
	set *pflag.FlagSet
	c   Change // what the flags are read into; Change says which count

	skills, deliver, failure, contextFrom, toolsets  []string
	name, script, model, provider, workdir, timezone string
	catchUp, overlap, onInterrupt, archive, reason   string
	schedule, prompt                                 string
	repeat                                           int
	timeout, grace                                   time.Duration
	noAgent, agent, clearSkills, paused              bool
}

// NewFlags adds the options to a set: those of a new job, or those of a change.
func NewFlags(set *pflag.FlagSet, editing bool) *Flags {
	f := &Flags{set: set}
	set.StringVar(&f.name, "name", "", "name of the job (default: the beginning of the prompt)")
	set.StringArrayVar(&f.deliver, "deliver", nil, "where the result goes: local, origin, all, telegram, telegram:CHAT[:TOPIC], discord:#channel; repeatable")
	set.StringArrayVar(&f.failure, "failure-deliver", nil, "where alerts go, if not to the same place; repeatable")
	set.IntVar(&f.repeat, "repeat", 0, "how many times it fires; 0 means for ever")
	set.StringArrayVar(&f.skills, "skill", nil, "skill to load before the prompt; repeatable")
	set.StringVar(&f.script, "script", "", "script in the profile's scripts folder; its output goes to the agent")
	set.BoolVar(&f.noAgent, "no-agent", false, "run only the script, and deliver what it prints")
	set.StringVar(&f.workdir, "workdir", "", "absolute folder to work in")
	set.StringVar(&f.timezone, "timezone", "", "zone of the schedule, e.g. Asia/Seoul (default: the profile's)")
	set.StringVar(&f.catchUp, "catch-up", "", "firings missed while nothing ran: one (default), all, none")
	set.StringVar(&f.overlap, "overlap", "", "a firing while the one before still runs: skip (default), queue, parallel")
	set.StringVar(&f.onInterrupt, "on-interrupt", "", "a run that a crash cut off: fail (default) or retry")
	set.DurationVar(&f.timeout, "timeout", 0, "longest time of a run, e.g. 90s")
	set.DurationVar(&f.grace, "grace", 0, "how late a missed firing may still be made up for, e.g. 30m")
	set.StringVar(&f.model, "model", "", "model of this job")
	set.StringVar(&f.provider, "provider", "", "provider of this job")
	set.StringArrayVar(&f.toolsets, "toolset", nil, "toolset that the agent gets; repeatable")
	set.StringArrayVar(&f.contextFrom, "context-from", nil, "job whose newest output is put before the prompt; repeatable")
	set.StringVar(&f.archive, "archive", "", "file to keep each result in, e.g. '/home/me/reports/%Y-%m-%d.md'")
	if !editing {
		set.BoolVar(&f.paused, "paused", false, "create it paused")
		set.StringVar(&f.reason, "paused-reason", "", "why it is paused")
		return f
	}
	set.StringVar(&f.schedule, "schedule", "", "new schedule")
	set.StringVar(&f.prompt, "prompt", "", "new prompt")
	set.StringArrayVar(&f.c.AddSkills, "add-skill", nil, "skill to add; repeatable")
	set.StringArrayVar(&f.c.RemoveSkills, "remove-skill", nil, "skill to take away; repeatable")
	set.BoolVar(&f.clearSkills, "clear-skills", false, "take all skills away")
	set.BoolVar(&f.agent, "agent", false, "let the agent run again (undoes --no-agent)")
	return f
}

// Change gives what the options that were given say. It is called once they are
// parsed. domain.Invalid when two of them contradict each other.
func (f *Flags) Change() (Change, error) {
	c := f.c
	for name, set := range map[string]func(){
		"name": func() { c.Name = &f.name }, "script": func() { c.Script = &f.script }, "model": func() { c.Model = &f.model },
		"provider": func() { c.Provider = &f.provider }, "workdir": func() { c.Workdir = &f.workdir }, "timezone": func() { c.Timezone = &f.timezone },
		"catch-up": func() { c.CatchUp = &f.catchUp }, "overlap": func() { c.Overlap = &f.overlap }, "on-interrupt": func() { c.OnInterrupt = &f.onInterrupt },
		"archive": func() { c.Archive = &f.archive }, "deliver": func() { c.Deliver = &f.deliver }, "failure-deliver": func() { c.FailureDeliver = &f.failure },
		"skill": func() { c.Skills = &f.skills }, "context-from": func() { c.ContextFrom = &f.contextFrom }, "toolset": func() { c.Toolsets = &f.toolsets },
		"repeat": func() { c.Repeat = &f.repeat }, "no-agent": func() { c.NoAgent = &f.noAgent },
		"paused": func() { c.Paused = &f.paused }, "paused-reason": func() { c.PausedReason = &f.reason },
		"schedule": func() { c.Schedule = &f.schedule }, "prompt": func() { c.Prompt = &f.prompt },
		"timeout": func() { n := int(f.timeout.Round(time.Second).Seconds()); c.TimeoutSeconds = &n },
		"grace":   func() { n := int(f.grace.Round(time.Minute).Minutes()); c.GraceMinutes = &n },
	} {
		if f.set.Changed(name) {
			set()
		}
	}
	if f.agent && f.noAgent || f.clearSkills && f.set.Changed("skill") {
		return c, domain.E(domain.Invalid, nil, "two of the options contradict each other: give either --agent or --no-agent, either --skill or --clear-skills")
	}
	if f.agent {
		c.NoAgent = new(bool)
	}
	if f.clearSkills {
		c.Skills = &[]string{}
	}
	return c, nil
}

// word is a piece of a chat's line: what it says, and where it stands.
type word struct {
	text       string
	from, to   int  // bytes of the line
	quoted     bool // as a whole
	flag, bare bool // flag: "--name…"; bare: a lone "--"
}

// quotes are the pairs that people and their keyboards write.
func quotes() map[rune]rune {
	return map[rune]rune{'"': '"', '\'': '\'', '“': '”', '„': '“', '‘': '’', '«': '»'}
}

// splitLine cuts a chat's line into words. A quote counts where it begins a word
// (or a flag's value) and its pair ends one, so that an apostrophe is a letter.
// Phones turn "--" into a dash; before a letter it is "--" again.
func splitLine(line string) []word {
	var out []word
	for i := 0; i < len(line); {
		r, size := utf8.DecodeRuneInString(line[i:])
		if unicode.IsSpace(r) {
			i += size
			continue
		}
		end := wordEnd(line, i)
		w := word{text: line[i:end], from: i, to: end}
		for _, dash := range []string{"—", "–"} {
			if after, ok := strings.CutPrefix(w.text, dash); ok && after != "" && after[0] >= 'a' && after[0] <= 'z' {
				w.text = "--" + after
			}
		}
		switch inner, quoted := unquoted(w.text); {
		case quoted:
			w.text, w.quoted = inner, true
		case w.text == "--":
			w.bare = true
		case strings.HasPrefix(w.text, "--"):
			w.flag = true
		}
		out = append(out, w)
		i = end
	}
	return out
}

// wordEnd is where the word that begins at from ends.
func wordEnd(line string, from int) int {
	open := from // where a quote may begin
	if strings.HasPrefix(line[from:], "--") || strings.HasPrefix(line[from:], "—") || strings.HasPrefix(line[from:], "–") {
		if eq := strings.IndexFunc(line[from:], func(r rune) bool { return r == '=' || unicode.IsSpace(r) }); eq > 0 && line[from+eq] == '=' {
			open = from + eq + 1
		}
	}
	if open < len(line) {
		first, size := utf8.DecodeRuneInString(line[open:])
		if closing, ok := quotes()[first]; ok {
			for i, r := range line[open+size:] {
				end := open + size + i + utf8.RuneLen(r)
				if r != closing {
					continue
				}
				if after, _ := utf8.DecodeRuneInString(line[end:]); end == len(line) || unicode.IsSpace(after) {
					return end
				}
			}
		}
	}
	if space := strings.IndexFunc(line[from:], unicode.IsSpace); space >= 0 {
		return from + space
	}
	return len(line)
}

// unquoted takes the quotes off a word.
func unquoted(text string) (string, bool) {
	runes := []rune(text)
	if len(runes) >= 2 && quotes()[runes[0]] == runes[len(runes)-1] && quotes()[runes[0]] != 0 {
		return string(runes[1 : len(runes)-1]), true
	}
	return text, false
}

// parseLine reads the options out of a chat's line and gives the words that are
// none. It fails with domain.Invalid.
func parseLine(line string, set *pflag.FlagSet) ([]word, error) {
	var rest []word
	words := splitLine(line)
	for i := 0; i < len(words); i++ {
		w := words[i]
		if w.bare {
			return append(rest, words[i+1:]...), nil
		}
		if !w.flag {
			rest = append(rest, w)
			continue
		}
		name, value, given := strings.Cut(strings.TrimPrefix(w.text, "--"), "=")
		flag := set.Lookup(name)
		switch {
		case flag == nil:
			return nil, domain.E(domain.Invalid, nil, "there is no option --%s; the options are %s. If it belongs to the prompt, put the prompt in quotes", name, optionNames(set))
		case given:
			value, _ = unquoted(value)
		case flag.NoOptDefVal != "":
			value = flag.NoOptDefVal
		case i+1 == len(words) || words[i+1].flag || words[i+1].bare:
			return nil, domain.E(domain.Invalid, nil, "the option --%s needs a value: %s", name, flag.Usage)
		default:
			i++
			value = words[i].text
		}
		if err := set.Set(name, value); err != nil {
			return nil, domain.E(domain.Invalid, err, "%q is no value of --%s: %s", value, name, flag.Usage)
		}
	}
	return rest, nil
}

func optionNames(set *pflag.FlagSet) string {
	var names []string
	set.VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	return strings.Join(names, ", ")
}

// joined gives what words say together: as it was written where they stand side
// by side, so that lines stay lines.
func joined(line string, words []word) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			if gap := line[words[i-1].to:w.from]; strings.TrimSpace(gap) == "" {
				b.WriteString(gap)
			} else {
				b.WriteString(" ")
			}
		}
		if len(words) == 1 {
			b.WriteString(w.text)
		} else {
			b.WriteString(line[w.from:w.to])
		}
	}
	return strings.TrimSpace(b.String())
}
