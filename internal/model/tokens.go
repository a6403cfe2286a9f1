package model

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"hermes/internal/domain"
)

// DefaultContext is the context window, in tokens, of a model that nothing is
// known about.
const DefaultContext = 128_000

const (
	messageTokens = 4   // what a message costs beside its content
	imageTokens   = 800 // an image of usual size; providers count by tiles
)

// EstimateTokens estimates how many tokens a text is, without the model's
// vocabulary: four bytes of ASCII a token, one token for a CJK character, two
// characters a token in other scripts. It is meant to be within about a third
// of the truth, which is what budgets and compression need.
func EstimateTokens(text string) int {
	var quarters int
	for i := 0; i < len(text); {
		if text[i] < utf8.RuneSelf {
			quarters++
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		i += n
		if wide(r) {
			quarters += 4
		} else {
			quarters += 2
		}
	}
	return (quarters + 3) / 4
}

// wide tells whether a character is usually a token of its own.
func wide(r rune) bool {
	return unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul) || r >= 0x1F000
}

// EstimateMessage estimates the tokens of one message of a transcript.
func EstimateMessage(m domain.Message) int {
	n := messageTokens + EstimateTokens(m.Content) + imageTokens*len(m.Images)
	for _, c := range m.ToolCalls {
		n += messageTokens + EstimateTokens(c.Name) + EstimateTokens(c.Arguments)
	}
	return n
}

// EstimateRequest estimates the input tokens of a whole call: system prompt,
// messages and tools.
func EstimateRequest(r *Request) int {
	n := messageTokens + EstimateTokens(r.System)
	for _, m := range r.Messages {
		n += EstimateMessage(m)
	}
	for _, t := range r.Tools {
		n += messageTokens + EstimateTokens(t.Name) + EstimateTokens(t.Description) + (len(t.Schema)+3)/4
	}
	return n
}

// family is a row of the table of context windows: the models whose name
// holds the text.
type family struct {
	name   string
	tokens int
}

// families is the table of context windows. The longest name that fits
// wins. The figures are those of the makers' model pages, in tokens.
var families = []family{
	{"gpt-3.5", 16_385}, {"gpt-4", 8_192}, {"gpt-4-turbo", 128_000}, {"gpt-4o", 128_000},
	{"gpt-4.1", 1_047_576}, {"gpt-5", 400_000}, {"gpt-oss", 131_072}, {"o1", 200_000}, {"o3", 200_000}, {"o4-mini", 200_000},
	{"claude", 200_000}, {"gemini", 1_048_576}, {"gemma-3", 131_072}, {"gemma-2", 8_192},
	{"deepseek", 128_000}, {"qwen", 131_072}, {"qwen3-coder", 262_144}, {"kimi-k2", 262_144}, {"kimi", 131_072},
	{"glm-4.5", 131_072}, {"glm-4.6", 200_000}, {"grok-3", 131_072}, {"grok-4", 256_000}, {"minimax-m2", 196_608},
	{"llama-3", 131_072}, {"llama-2", 4_096}, {"mistral", 128_000}, {"codestral", 256_000}, {"offline", 32_768},
}

// ContextLength gives the context window of a model in tokens: the configured
// one, else the table's for names like it, else DefaultContext.
func ContextLength(name string, configured int) int {
	if configured > 0 {
		return configured
	}
	name = strings.ToLower(name)
	best := family{tokens: DefaultContext}
	for _, f := range families {
		if len(f.name) > len(best.name) && holdsName(name, f.name) {
			best = f
		}
	}
	return best.tokens
}

// holdsName tells whether part stands in name at the start of a word, so that
// "o1" does not match "solo1".
func holdsName(name, part string) bool {
	for at := 0; ; {
		i := strings.Index(name[at:], part)
		if i < 0 {
			return false
		}
		i += at
		if i == 0 || !isWord(name[i-1]) {
			return true
		}
		at = i + 1
	}
}

func isWord(b byte) bool { return b >= 'a' && b <= 'z' || b >= '0' && b <= '9' }
