package home

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"hermes/internal/domain"
)

type nodeKind int

const (
	nullNode nodeKind = iota
	scalarNode
	listNode
	mapNode
)

// node is a YAML value with its place. Aliases and merge keys are resolved.
type node struct {
	kind    nodeKind
	value   any    // of a scalar: string, bool, int64, uint64 or float64
	text    string // of a scalar: as it is written, without quotes
	items   []*node
	entries []entry
	flow    bool // { } or [ ]
	line    int
	column  int
}

type entry struct {
	key          string
	value        *node
	line, column int // of the key
	merged       bool
}

// get gives the value of a key, or nil.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for i := range n.entries {
		if n.entries[i].key == key {
			return n.entries[i].value
		}
	}
	return nil
}

// at gives the value at a path, or nil.
func (n *node) at(path ...string) *node {
	for _, key := range path {
		n = n.get(key)
	}
	return n
}

const (
	maxYAMLDepth = 64
	maxYAMLNodes = 200_000 // aliases may multiply a small file
)

// parseYAML parses one document. An empty one gives a null node. Errors:
// Config with file, line and column in the message.
func parseYAML(file string, data []byte) (*node, error) {
	data = bytes.TrimPrefix(data, utf8BOM)
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")) // the parser's line numbers go astray else
	f, err := safeParse(data)
	if err != nil {
		place := file
		if line, column, msg, ok := syntaxPlace(err); ok {
			place, err = fmt.Sprintf("%s:%d:%d", file, line, column), errors.New(msg)
		}
		return nil, domain.E(domain.Config, err, "%s is not valid YAML, so none of it is used; correct that line", place)
	}
	root := &node{}
	c := converter{anchors: map[string]*node{}, sizes: map[string]int{}}
	for _, doc := range f.Docs {
		if doc.Body == nil {
			continue
		}
		if _, isComment := doc.Body.(*ast.CommentGroupNode); isComment {
			continue
		}
		if root, err = c.convert(doc.Body, 0); err != nil {
			return nil, domain.E(domain.Config, err, "%s cannot be read, so none of it is used", file)
		}
		break
	}
	if root.kind != mapNode && root.kind != nullNode {
		return nil, domain.E(domain.Config, nil, "%s:%d is not a mapping of keys to values, so none of it is used; write `key: value` lines", file, root.line)
	}
	return root, nil
}

// safeParse turns a panic of the parser into an error: a file must never be
// able to end the process.
func safeParse(data []byte) (f *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, err = nil, fmt.Errorf("the parser gave up: %v", p)
		}
	}()
	return parser.ParseBytes(data, 0)
}

// syntaxPlace gives the place that a parser's error names.
func syntaxPlace(err error) (line, column int, msg string, ok bool) {
	var at interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if !errors.As(err, &at) || at.GetToken() == nil || at.GetToken().Position == nil {
		return 0, 0, "", false
	}
	pos := at.GetToken().Position
	return pos.Line, pos.Column, at.GetMessage(), true
}

type converter struct {
	anchors map[string]*node
	sizes   map[string]int // nodes under each anchor, aliases counted as if written out
	nodes   int
}

func (c *converter) convert(n ast.Node, depth int) (*node, error) {
	if c.nodes++; c.nodes > maxYAMLNodes || depth > maxYAMLDepth {
		return nil, errors.New("it is nested too deeply, or too large")
	}
	if n == nil {
		return &node{}, nil
	}
	out := &node{}
	if tok := n.GetToken(); tok != nil && tok.Position != nil {
		out.line, out.column, out.text = tok.Position.Line, tok.Position.Column, tok.Value
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return out, nil
	case *ast.AnchorNode:
		before := c.nodes
		v, err := c.convert(n.Value, depth+1)
		if err == nil {
			name := n.Name.GetToken().Value
			c.anchors[name], c.sizes[name] = v, c.nodes-before
		}
		return v, err
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		v := c.anchors[name]
		if v == nil {
			return nil, fmt.Errorf("line %d: *%s names no anchor", out.line, name)
		}
		if c.nodes += c.sizes[name]; c.nodes > maxYAMLNodes {
			return nil, errors.New("its aliases multiply it beyond measure")
		}
		return v, nil
	case *ast.TagNode:
		v, err := c.convert(n.Value, depth+1)
		if err == nil && v.kind == scalarNode && n.Start != nil && n.Start.Value == "!!str" {
			v.value = v.text
		}
		return v, err
	case *ast.MappingNode:
		out.flow = n.IsFlowStyle
		return out, c.mapping(out, n.Values, depth)
	case *ast.MappingValueNode:
		return out, c.mapping(out, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		out.kind, out.flow = listNode, n.IsFlowStyle
		for _, item := range n.Values {
			v, err := c.convert(item, depth+1)
			if err != nil {
				return nil, err
			}
			out.items = append(out.items, v)
		}
		return out, nil
	case *ast.LiteralNode:
		out.kind, out.value, out.text = scalarNode, n.Value.Value, n.Value.Value
		return out, nil
	case ast.ScalarNode:
		out.kind, out.value = scalarNode, n.GetValue()
		if s, ok := out.value.(string); ok {
			out.text = s
		}
		return out, nil
	}
	return nil, fmt.Errorf("line %d: %s is not understood here", out.line, n.Type())
}

func (c *converter) mapping(out *node, values []*ast.MappingValueNode, depth int) error {
	out.kind = mapNode
	var merged []*node
	for _, mv := range values {
		tok := mv.Key.GetToken()
		v, err := c.convert(mv.Value, depth+1)
		if err != nil {
			return err
		}
		if mv.Key.IsMergeKey() {
			merged = append(merged, v)
			continue
		}
		key := tok.Value
		if s, ok := mv.Key.(*ast.StringNode); ok {
			key = s.Value
		}
		out.entries = append(out.entries, entry{key: key, value: v, line: tok.Position.Line, column: tok.Position.Column})
	}
	if len(out.entries) > 0 {
		out.line, out.column = out.entries[0].line, out.entries[0].column
	}
	for _, m := range merged {
		for _, from := range append([]*node{m}, m.items...) {
			for _, e := range from.entries {
				if out.get(e.key) == nil {
					e.merged = true
					out.entries = append(out.entries, e)
				}
			}
		}
	}
	return nil
}

// plain gives the node as the values of encoding/json.
func (n *node) plain() any {
	switch {
	case n == nil:
		return nil
	case n.kind == scalarNode:
		return n.value
	case n.kind == listNode:
		out := make([]any, 0, len(n.items))
		for _, item := range n.items {
			out = append(out, item.plain())
		}
		return out
	case n.kind == mapNode:
		out := make(map[string]any, len(n.entries))
		for _, e := range n.entries {
			out[e.key] = e.value.plain()
		}
		return out
	}
	return nil
}
