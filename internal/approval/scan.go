package approval

import (
	"fmt"
	"regexp"
	"sync"
	"unicode"
)

// Codes of what ScanPrompt finds.
const (
	ScanInvisible = "invisible_unicode" // characters that a person does not see
	ScanInjection = "prompt_injection"  // tells the model to forget its instructions
	ScanExfil     = "exfiltration"      // sends secrets out
	ScanSecrets   = "reads_secrets"     // reads stored secrets
	ScanAccess    = "changes_access"    // opens a way in: authorized_keys, sudoers
	ScanDestroy   = "destroys_system"   // rm -rf / and its like
	ScanLifecycle = "gateway_lifecycle" // stops, restarts or updates the gateway
)

// Finding is one thing that speaks against a prompt.
type Finding struct {
	Code   string
	Reason string // a sentence for people
	Offset int    // in bytes, where it stands
}

// promptRule is one pattern that a prompt must not hold.
type promptRule struct {
	code, reason string
	re           *regexp.Regexp
}

// promptRules are made when they are first needed: compiling them is a good part
// of the work of a start.
var promptRules = sync.OnceValue(func() []promptRule {
	return []promptRule{
		{ScanInjection, "it tells the model to ignore its instructions", regexp.MustCompile(`(?i)\b(ignore|disregard|forget|override|bypass)\b[^.\n]{0,40}\b(all|any|the|your|my|previous|prior|above|earlier|preceding|system)\b[^.\n]{0,30}\b(instructions?|prompts?|rules|guidelines|directives|constraints)\b`)},
		{ScanInjection, "it tells the model to hide something from the user", regexp.MustCompile(`(?i)\bdo\s+not\s+(tell|inform|notify|mention\s+(this|it)\s+to)\s+the\s+(user|owner|operator)\b`)},
		{ScanInjection, "it pretends to be a system message", regexp.MustCompile(`(?i)(<\s*/?\s*(system|im_start|im_end)\b[^>]*>|<\|im_(start|end)\|>|\[/?(SYSTEM|INST)\]|\bsystem\s+prompt\s+override\b|\byou\s+are\s+now\s+(in\s+)?(developer|dan|jailbreak|unrestricted)\b|\bact\s+as\s+(if|though)\s+you\s+(have\s+no|are\s+without)\s+(restrictions|limits|rules)\b)`)},
		{ScanExfil, "it sends a secret to the network", regexp.MustCompile(`(?i)\b(curl|wget|nc|ncat|http|fetch|scp)\b[^\n]{0,200}(\$\{?[A-Z0-9_]*(TOKEN|API_KEY|APIKEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)[A-Z0-9_]*|\.env\b|auth\.json|id_(rsa|ed25519)\b|\$\(\s*(env|printenv)\b)`)},
		{ScanExfil, "it sends the environment to the network", regexp.MustCompile(`(?i)\b(env|printenv)\b\s*\|[^\n]{0,80}\b(curl|wget|nc|ncat)\b`)},
		{ScanSecrets, "it reads stored secrets", regexp.MustCompile(`(?i)\b(cat|less|more|head|tail|grep|base64|xxd|source|cp|strings)\b[^\n|;]{0,80}(/|\s|~)(\.env\b|auth\.json\b|\.netrc\b|\.pgpass\b|id_(rsa|ed25519|ecdsa)\b|\.aws/credentials\b)|/proc/[^/\s]+/environ`)},
		{ScanAccess, "it changes who may log in or become root", regexp.MustCompile(`(?i)authorized_keys\b|/etc/sudoers|\bvisudo\b|NOPASSWD\s*:`)},
		{ScanDestroy, "it deletes the whole system", regexp.MustCompile(`(?i)\brm\s+(-[a-z-]+\s+)*-[a-z]*[rf][a-z]*\s+(-[a-z-]+\s+)*["']?(/|/\*|~|~/|\$HOME/?)["']?(\s|$|;|&|\||` + "`" + `)|--no-preserve-root|\bmkfs(\.\w+)?\s+/dev/|\bdd\b[^\n]{0,80}\bof=/dev/(sd|nvme|vd|hd)|:\(\)\s*\{\s*:\s*\|\s*:`)},
		{ScanLifecycle, "it stops, restarts or updates the gateway that would run it", regexp.MustCompile(`(?i)\bhermes\s+(-\S+\s+(\S+\s+)?)*(gateway\s+(-\S+\s+)*(stop|restart|uninstall|run\s+[^\n]{0,40}--replace)|update\b)`)},
		{ScanLifecycle, "it stops or restarts the gateway's unit", regexp.MustCompile(`(?i)\b(systemctl|service)\b[^\n;|]{0,80}\b(stop|restart|try-restart|reload|reload-or-restart|kill|disable|mask)\b[^\n;|]{0,80}hermes|\bservice\s+hermes\S*\s+(stop|restart)`)},
		{ScanLifecycle, "it ends the gateway's process or the user's service manager", regexp.MustCompile(`(?i)\b(pkill|killall|kill)\b[^\n]{0,80}(hermes|gateway\.pid)|\bpgrep\b[^\n]{0,60}hermes[^\n]{0,60}\bkill\b|\bloginctl\s+(disable-linger|terminate-user|kill-user)|\bdaemon-reexec\b|\bsystemctl\b[^\n;|]{0,40}\b(poweroff|reboot|halt|exit)\b|(^|[\s;&|"'` + "`" + `])(shutdown|poweroff)\s+(-|now)`)},
	}
})

// maxFindings bounds what one scan reports.
const maxFindings = 32

// ScanPrompt looks for what has no place in the prompt or script of a scheduled
// job, in a memory entry or in a skill: text that a person cannot see, attempts
// to take over the model, to carry secrets out, and commands that would end the
// gateway. It gives at most 32 findings, in no particular order of weight.
func ScanPrompt(text string) []Finding {
	var out []Finding
	for i, r := range text {
		if name := invisible(r, text, i); name != "" {
			out = append(out, Finding{ScanInvisible, fmt.Sprintf("it holds an invisible character (U+%04X, %s)", r, name), i})
			break
		}
	}
	for _, rule := range promptRules() {
		if at := rule.re.FindStringIndex(text); at != nil && len(out) < maxFindings {
			out = append(out, Finding{rule.code, rule.reason, at[0]})
		}
	}
	return out
}

// invisible names what kind of unseen character r is. A joiner inside an emoji
// and a byte order mark at the very start are in order.
func invisible(r rune, text string, at int) string {
	switch {
	case r == 0x200D && at > 0 && joinsEmoji(text, at):
		return ""
	case r == 0xFEFF && at == 0:
		return ""
	case r == 0x200B || r == 0x200C || r == 0x200D || r == 0x2060 || r == 0xFEFF || r == 0x180E || r == 0x00AD:
		return "zero width"
	case r >= 0x202A && r <= 0x202E || r >= 0x2066 && r <= 0x2069 || r == 0x200E || r == 0x200F || r == 0x061C:
		return "text direction"
	case r >= 0xE0000 && r <= 0xE007F:
		return "tag"
	case r >= 0x2061 && r <= 0x2064 || r == 0x115F || r == 0x1160 || r == 0x3164 || r == 0xFFA0:
		return "blank"
	case unicode.Is(unicode.Cc, r) && r != '\n' && r != '\t' && r != '\r':
		return "control"
	}
	return ""
}

// joinsEmoji tells whether the joiner at byte at stands between two symbols, as
// in a family emoji.
func joinsEmoji(text string, at int) bool {
	before := []rune(text[max(0, at-8):at])
	after := []rune(text[at+len("\u200d") : min(len(text), at+len("\u200d")+4)])
	return len(before) > 0 && len(after) > 0 && symbol(before[len(before)-1]) && symbol(after[0])
}

func symbol(r rune) bool {
	return r >= 0x1F000 && r <= 0x1FAFF || r >= 0x2190 && r <= 0x2BFF || r == 0xFE0F
}
