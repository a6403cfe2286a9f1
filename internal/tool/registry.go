package tool

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"hermes/internal/domain"
)

// AllToolsets names every toolset at once. "all" and any composite toolset of a
// platform ("hermes-cli", "hermes-telegram", …) mean the same.
const AllToolsets = "all"

// validName tells whether model services take a name for a function.
func validName(name string) bool {
	for _, c := range []byte(name) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return name != "" && len(name) <= 64
}

// sameToolset gives other names of toolsets that users' files hold.
var sameToolset = map[string]string{"search": "web", "files": "file", "shell": "terminal", "debugging": "terminal", "cron": "cronjob"}

// Registry holds the tools of a profile by name. It is safe for concurrent use.
type Registry struct {
	mu    sync.RWMutex
	tools map[string]Tool
}

// NewRegistry makes a registry with the given tools. The error is that of Add.
func NewRegistry(tools ...Tool) (*Registry, error) {
	r := &Registry{tools: map[string]Tool{}}
	return r, r.Add(tools...)
}

// Add registers tools. domain.Invalid for a tool that no model could call (a
// name that services refuse, no function, a schema that is no JSON object);
// domain.Conflict for a name that is taken. With an error none is added.
func (r *Registry) Add(tools ...Tool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := map[string]bool{}
	for _, t := range tools {
		if err := check(t); err != nil {
			return err
		}
		if _, taken := r.tools[t.Name]; taken || names[t.Name] {
			return domain.E(domain.Conflict, nil, "two tools are named %q; rename or switch off one of them", t.Name)
		}
		names[t.Name] = true
	}
	for _, t := range tools {
		r.tools[t.Name] = t
	}
	return nil
}

func check(t Tool) error {
	switch {
	case !validName(t.Name):
		return domain.E(domain.Invalid, nil, "the tool name %q is not usable: 1 to 64 letters, digits, _ and - are", t.Name)
	case t.Run == nil:
		return domain.E(domain.Invalid, nil, "the tool %q has no function", t.Name)
	}
	var schema struct {
		Type       string                     `json:"type"`
		Properties map[string]json.RawMessage `json:"properties"`
		Required   []string                   `json:"required"`
	}
	if err := json.Unmarshal(t.Schema, &schema); err != nil {
		return domain.E(domain.Invalid, err, "the schema of the tool %q is not valid JSON", t.Name)
	}
	if schema.Type != "object" {
		return domain.E(domain.Invalid, nil, "the schema of the tool %q is not of type object", t.Name)
	}
	for _, name := range schema.Required {
		if _, ok := schema.Properties[name]; !ok {
			return domain.E(domain.Invalid, nil, "the schema of the tool %q requires %q, which it does not describe", t.Name, name)
		}
	}
	return nil
}

// Remove forgets tools; unknown names are no error.
func (r *Registry) Remove(names ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range names {
		delete(r.tools, n)
	}
}

// Lookup finds a tool by name.
func (r *Registry) Lookup(name string) (Tool, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	t, ok := r.tools[name]
	return t, ok
}

// Select gives the tools of the named toolsets without those of the excluded
// ones, by name. A toolset may also be a tool's name. No toolsets means all.
func (r *Registry) Select(toolsets, without []string) []Tool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []Tool
	for _, t := range r.tools {
		if (len(toolsets) == 0 || belongs(t, toolsets)) && !belongs(t, without) {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b Tool) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func belongs(t Tool, sets []string) bool {
	return slices.ContainsFunc(sets, func(s string) bool {
		s = strings.TrimSpace(s)
		return s == AllToolsets || strings.HasPrefix(s, "hermes-") || s == t.Toolset || s == t.Name || sameToolset[s] == t.Toolset && t.Toolset != ""
	})
}

// Toolsets lists the toolsets that have a tool, by name, with their tools.
func (r *Registry) Toolsets() map[string][]string {
	out := map[string][]string{}
	for _, t := range r.Select(nil, nil) {
		out[t.Toolset] = append(out[t.Toolset], t.Name)
	}
	return out
}

// Unknown gives those names that are neither a toolset nor a tool, for advice.
func (r *Registry) Unknown(toolsets []string) []string {
	var out []string
	for _, s := range toolsets {
		if len(r.Select([]string{s}, nil)) == 0 {
			out = append(out, s)
		}
	}
	return out
}

// Suggest is what a model is told that called a tool which does not exist.
func (r *Registry) Suggest(name string) string {
	var names []string
	for _, t := range r.Select(nil, nil) {
		names = append(names, t.Name)
	}
	return fmt.Sprintf("There is no tool named %q. The tools are: %s.", name, strings.Join(names, ", "))
}
