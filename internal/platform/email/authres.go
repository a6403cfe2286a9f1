package email

import "strings"

// verdict is what a server found about a mail's sender.
type verdict int

// The verdicts.
const (
	dmarcUnknown verdict = iota // nothing, or nothing of the domain that From names
	dmarcPass
	dmarcFail
)

// dmarc is what the account's own provider found about the domain that a mail's
// From names (https://www.rfc-editor.org/rfc/rfc7489#section-11.2). Of the headers
// Authentication-Results (https://www.rfc-editor.org/rfc/rfc8601) only the topmost
// of that server counts: senders write such headers too, and a server puts its own
// on top.
func dmarc(values []string, server, domain string) verdict {
	for _, v := range values {
		results := splitResults(v)
		if len(results) == 0 {
			continue
		}
		id, _, _ := strings.Cut(results[0], " ") // a version may follow
		if !strings.EqualFold(id, server) {
			continue
		}
		return saysOf(results[1:], domain)
	}
	return dmarcUnknown
}

func saysOf(results []string, domain string) verdict {
	for _, r := range results {
		words := strings.Fields(r)
		if len(words) == 0 {
			continue
		}
		var said verdict
		switch strings.ToLower(words[0]) {
		case "dmarc=pass":
			said = dmarcPass
		case "dmarc=fail":
			said = dmarcFail
		default:
			continue
		}
		for _, w := range words[1:] {
			name, value, _ := strings.Cut(w, "=")
			if strings.EqualFold(name, "header.from") && !sameDomain(value, domain) {
				return dmarcUnknown
			}
		}
		return said
	}
	return dmarcUnknown
}

// sameDomain tells whether a result's domain is the sender's. Some servers write
// the organisation's domain, under which the sender's lies.
func sameDomain(result, sender string) bool {
	result, sender = strings.ToLower(strings.Trim(result, `"`)), strings.ToLower(sender)
	if at := strings.LastIndexByte(result, '@'); at >= 0 {
		result = result[at+1:]
	}
	return result != "" && (result == sender || strings.Contains(result, ".") && strings.HasSuffix(sender, "."+result))
}

// splitResults takes comments out of a value and splits it at its semicolons,
// with one blank between words. A comment or a quoted text that does not end
// takes the rest with it.
func splitResults(v string) []string {
	var out []string
	var b strings.Builder
	depth, quoted := 0, false
	flush := func() {
		out = append(out, strings.Join(strings.Fields(b.String()), " "))
		b.Reset()
	}
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '\\' && (quoted || depth > 0):
			i++
		case quoted:
			if c == '"' {
				quoted = false
			} else if c != ';' && c != ' ' && c != '=' { // which would look like structure
				b.WriteByte(c)
			}
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
			b.WriteByte(' ')
		case depth > 0:
		case c == '"':
			quoted = true
		case c == ';':
			flush()
		default:
			b.WriteByte(c)
		}
	}
	flush()
	return out
}
