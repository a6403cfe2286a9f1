package email

import "strings"

// passedDMARC tells whether the account's own provider found that a mail is
// from the domain that its From names. Of the headers Authentication-Results
// (https://www.rfc-editor.org/rfc/rfc8601) only the topmost of that server
// counts: senders write such headers too, and a server puts its own on top.
func passedDMARC(values []string, server, domain string) bool {
	for _, v := range values {
		results := splitResults(v)
		if len(results) == 0 {
			continue
		}
		id, _, _ := strings.Cut(results[0], " ") // a version may follow
		if !strings.EqualFold(id, server) {
			continue
		}
		return saysPass(results[1:], domain)
	}
	return false
}

func saysPass(results []string, domain string) bool {
	for _, r := range results {
		words := strings.Fields(r)
		if len(words) == 0 || !strings.EqualFold(words[0], "dmarc=pass") {
			continue
		}
		for _, w := range words[1:] {
			name, value, _ := strings.Cut(w, "=")
			if strings.EqualFold(name, "header.from") && !sameDomain(value, domain) {
				return false
			}
		}
		return true
	}
	return false
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
