package openai

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// readAll gives all events of a stream and how it ended.
func readAll(r io.Reader) ([]string, error) {
	e := newEvents(r)
	var out []string
	for {
		data, err := e.next()
		if err != nil {
			return out, err
		}
		out = append(out, string(data))
	}
}

func TestEvents(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		want []string
	}{
		"one":                {"data: a\n\n", []string{"a"}},
		"two":                {"data: a\n\ndata: b\n\n", []string{"a", "b"}},
		"CRLF":               {"data: a\r\n\r\ndata: b\r\n\r\n", []string{"a", "b"}},
		"CR":                 {"data: a\r\rdata: b\r\r", []string{"a", "b"}},
		"mixed":              {"data: a\r\n\ndata: b\n\r\n", []string{"a", "b"}},
		"no space":           {"data:a\n\n", []string{"a"}},
		"one space only":     {"data:  a\n\n", []string{" a"}},
		"several lines":      {"data: a\ndata: b\n\n", []string{"a\nb"}},
		"comments":           {": hi\n\n:\n\ndata: a\n: there\n\n", []string{"a"}},
		"other fields":       {"event: x\nid: 7\nretry: 10\ndata: a\n\n", []string{"a"}},
		"no data":            {"event: x\n\n\n\n", nil},
		"empty data":         {"data\n\ndata:\n\n", []string{"", ""}},
		"no blank line":      {"data: a", []string{"a"}},
		"data is in a word":  {"database: a\n\n", nil},
		"nothing":            {"", nil},
		"longer than buffer": {"data: " + strings.Repeat("x", 3*firstBuffer) + "\n\n", []string{strings.Repeat("x", 3*firstBuffer)}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(test.in), iotest.OneByteReader(strings.NewReader(test.in)), iotest.DataErrReader(strings.NewReader(test.in))} {
				got, err := readAll(r)
				if diff := cmp.Diff(test.want, got); diff != "" || err != io.EOF {
					t.Errorf("%v, -want +got\n%s", err, diff)
				}
			}
		})
	}
}

func TestEventsAreBounded(t *testing.T) {
	for name, in := range map[string]io.Reader{
		"one line":   io.MultiReader(strings.NewReader("data: "), endless('x')),
		"many lines": &repeat{text: []byte("data: " + strings.Repeat("x", 1000) + "\n")},
	} {
		if got, err := readAll(in); !errors.Is(err, errTooLong) || len(got) > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// endless gives one byte for ever.
type endless byte

func (e endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(e)
	}
	return len(b), nil
}

// repeat gives a text for ever.
type repeat struct {
	text []byte
	at   int
}

func (r *repeat) Read(b []byte) (int, error) {
	n := copy(b, r.text[r.at:])
	r.at = (r.at + n) % len(r.text)
	return n, nil
}

func TestReadErrorIsKept(t *testing.T) {
	broken := errors.New("broken")
	got, err := readAll(io.MultiReader(strings.NewReader("data: a\n\ndata: b"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || len(got) != 1 {
		t.Errorf("got %q, %v", got, err)
	}
}

// FuzzEvents: the events do not depend on how the bytes arrive, and nothing
// panics, also not in what is done with the events.
func FuzzEvents(f *testing.F) {
	for _, s := range []string{
		"data: a\r\n\r\ndata: b\r\rdata\n\n: c\n",
		"data: {\"choices\":[{\"delta\":{\"content\":\"x\",\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"n\",\"arguments\":\"{\"}}]}}]}\n\ndata: [DONE]\n\n",
		"data: {\"choices\":[{\"delta\":{\"content\":[{\"type\":\"text\",\"text\":\"x\"}],\"tool_calls\":[{\"function\":{\"arguments\":{}}}]},\"finish_reason\":\"stop\"}]}\n\n",
		"data: {\"error\":{\"message\":\"x\",\"code\":502}}\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, err1 := readAll(bytes.NewReader(in))
		drip, err2 := readAll(iotest.OneByteReader(bytes.NewReader(in)))
		if diff := cmp.Diff(whole, drip); diff != "" || err1 != err2 {
			t.Fatalf("%v, %v\n%s", err1, err2, diff)
		}
		a := newAssembly(&Limits{AnswerBytes: 1000, ArgumentBytes: 100, ToolCalls: 3})
		for _, data := range whole {
			if _, err := a.add([]byte(data)); err != nil {
				continue
			}
		}
		ans := a.answer("p")
		if len(ans.Text) > 1000 || len(ans.ToolCalls) > 3 || ans.Finish == "" {
			t.Fatalf("answer out of bounds: %+v", ans)
		}
		for _, c := range ans.ToolCalls {
			if c.ID == "" || len(c.Arguments) > 100 {
				t.Fatalf("tool call out of bounds: %+v", c)
			}
		}
	})
}

// FuzzErrorBody: no body makes the reader of errors panic or say too much.
func FuzzErrorBody(f *testing.F) {
	for _, s := range []string{`{"error":{"message":"x"}}`, `[{"error":"x"}]`, `[[[`, `<title>x</title>`, `{"error":{"error":{"error":1}}}`, "\xff"} {
		f.Add([]byte(s))
	}
	c, err := New(Config{Name: "p", BaseURL: "http://x/v1", Key: "sk-secret-123456"}, Deps{Transport: NewTransport()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b := parseErrorBody(body)
		if kindOf(400, b) == "" {
			t.Fatal("no kind")
		}
		if s := c.quote(b); len(s) > 5*maxQuote || !utf8.ValidString(s) || strings.Contains(s, "sk-secret-123456") {
			t.Fatalf("quote %q", s)
		}
	})
}
