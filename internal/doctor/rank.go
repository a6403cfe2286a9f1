package doctor

import (
	"path"
	"slices"
	"strings"
)

// depth is how near to the root of everything a fault lies. What stands higher
// in this list is looked at first, for it may be why the rest fails.
type depth int

const (
	ofHost    depth = iota // disk, clock, the home folder
	ofFiles                // files that cannot be read or understood
	ofSetting              // what they say
	ofUnit                 // how it is started
	ofProcess              // whether it runs
	ofPart                 // what in it works
	ofWork                 // what it was asked to do
)

// severities in the order of their weight.
var weight = map[Severity]int{Error: 0, Warning: 1, Advice: 2}

// rank orders findings, cause before consequence: errors before the rest, and
// among these what lies deeper first. A finding that another one explains
// becomes a symptom of that one, whatever its own weight.
func rank(found []Finding) []Finding {
	found = merge(found)
	slices.SortStableFunc(found, func(a, b Finding) int {
		if w := weight[a.Severity] - weight[b.Severity]; w != 0 {
			return w
		}
		return int(a.depth - b.depth)
	})
	cause := make([]int, len(found)) // index of what explains a finding, -1 for none
	for i := range found {
		cause[i] = slices.IndexFunc(found, func(f Finding) bool { return f.ID != found[i].ID && f.explained(found[i]) })
	}
	out := make([]Finding, 0, len(found))
	place := map[int]int{}
	for i, f := range found {
		if root(cause, i) == i {
			place[i] = len(out)
			out = append(out, f)
		}
	}
	for i, f := range found {
		if r := root(cause, i); r != i {
			at := &out[place[r]]
			at.Symptoms = append(at.Symptoms, Symptom{f.ID, f.What})
			// A cause weighs as much as what it brings about.
			if weight[f.Severity] < weight[at.Severity] {
				at.Severity = f.Severity
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Finding) int { return weight[a.Severity] - weight[b.Severity] })
	return out
}

// root follows causes to the last one. Two findings that explain each other
// are told in their order.
func root(cause []int, i int) int {
	seen := map[int]bool{}
	for cause[i] >= 0 && !seen[i] {
		seen[i] = true
		if seen[cause[i]] {
			return min(i, cause[i])
		}
		i = cause[i]
	}
	return i
}

// explained tells whether f is why the other one was found.
func (f Finding) explained(other Finding) bool {
	return slices.ContainsFunc(f.explains, func(p string) bool {
		id, about, narrow := strings.Cut(p, ":")
		ok, err := path.Match(id, other.ID)
		return err == nil && ok && (!narrow || about == other.about)
	})
}

// merge makes one finding of those with the same ID about the same thing: what
// two checks saw is evidence twice over.
func merge(found []Finding) []Finding {
	var out []Finding
	for _, f := range found {
		i := slices.IndexFunc(out, func(o Finding) bool { return o.ID == f.ID && o.about == f.about })
		if i < 0 {
			out = append(out, f)
			continue
		}
		for _, e := range f.Evidence {
			if !slices.Contains(out[i].Evidence, e) {
				out[i].Evidence = append(out[i].Evidence, e)
			}
		}
	}
	return out
}
