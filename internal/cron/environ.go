package cron

import "strings"

// CleanEnviron takes out of an environment what a script must not have: keys
// that secret names (those of the profile's .env), keys that look like
// credentials, and what systemd gives to a service about itself.
func CleanEnviron(environ []string, secret func(key string) bool) []string {
	out := make([]string, 0, len(environ))
	for _, kv := range environ {
		key, _, ok := strings.Cut(kv, "=")
		if !ok || secretKey(key) || secret != nil && secret(key) {
			continue
		}
		out = append(out, kv)
	}
	return out
}

func secretKey(key string) bool {
	switch key {
	case "NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "HERMES_LEDGER_URL":
		return true
	}
	upper := strings.ToUpper(key)
	for _, prefix := range []string{"LISTEN_", "WATCHDOG_", "CREDENTIALS_"} {
		if strings.HasPrefix(upper, prefix) {
			return true
		}
	}
	for _, word := range []string{"TOKEN", "API_KEY", "APIKEY", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "PRIVATE_KEY", "CREDENTIAL"} {
		if strings.Contains(upper, word) {
			return true
		}
	}
	return strings.HasSuffix(upper, "_KEY")
}
