package api

import (
	"net"
	"strings"

	"hermes/internal/domain"
	"hermes/internal/home"
)

// minKeyLength is the least length of a key for a network bind.
const minKeyLength = 16

// checkBind refuses an address that the network can reach without a proper
// key: the API runs shell commands for whoever can call it.
func (s *Server) checkBind() *domain.Error {
	if s.o.Listener == nil {
		return CheckBind(s.o.Config)
	}
	host, loopback := listenerHost(s.o.Listener)
	if loopback {
		return nil
	}
	return checkKey(host, s.o.Config.Key.Reveal())
}

// CheckBind tells whether a server would bind the configured address; nil when
// it would, else domain.Config with the reason.
func CheckBind(c home.APIConfig) *domain.Error {
	if isLoopbackHost(c.Host) {
		return nil
	}
	return checkKey(c.Host, c.Key.Reveal())
}

// checkKey refuses a key that must not guard an address of the network.
func checkKey(host, key string) *domain.Error {
	if host == "" {
		host = "0.0.0.0"
	}
	switch {
	case key == "":
		return domain.E(domain.Config, nil, "Refusing to start: binding to %s requires API_SERVER_KEY. Set API_SERVER_KEY or use the default 127.0.0.1.", host)
	case isPlaceholder(key):
		return domain.E(domain.Config, nil, "Refusing to start: binding to %s requires a real API_SERVER_KEY, and the one that is set is a placeholder. Set it to the output of `openssl rand -hex 32`.", host)
	case len(key) < minKeyLength:
		return domain.E(domain.Config, nil, "Refusing to start: binding to %s requires an API_SERVER_KEY of at least %d characters. Set it to the output of `openssl rand -hex 32`.", host, minKeyLength)
	}
	return nil
}

// isLoopbackHost tells whether a configured host can be reached from this
// machine only. Names other than localhost are not resolved: what they mean
// may change.
func isLoopbackHost(host string) bool {
	host = strings.Trim(strings.ToLower(host), "[]")
	if host == "localhost" || host == "localhost." {
		return true
	}
	host, _, _ = strings.Cut(host, "%")
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// listenerHost is the host that a given socket is bound to.
func listenerHost(l net.Listener) (host string, loopback bool) {
	switch a := l.Addr().(type) {
	case *net.TCPAddr:
		return a.IP.String(), a.IP.IsLoopback()
	case *net.UnixAddr:
		return a.Name, true // guarded by the file's mode
	}
	return l.Addr().String(), false
}

// isPlaceholder recognises keys that stand in examples.
func isPlaceholder(key string) bool {
	squeezed := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(key))
	if squeezed == "" || strings.Count(key, key[:1]) == len(key) {
		return true
	}
	if strings.ContainsAny(key, "<>") || strings.HasPrefix(key, "${") {
		return true
	}
	for _, word := range []string{"changeme", "changethis", "replaceme", "replacethis", "placeholder", "yourapikey", "yourkey", "yoursecret", "insertkey", "opensslrand"} {
		if strings.Contains(squeezed, word) {
			return true
		}
	}
	switch squeezed {
	case "secret", "password", "apikey", "apiserverkey", "token", "test", "example", "hermes", "none", "null", "todo", "0123456789abcdef", "1234567890123456":
		return true
	}
	return false
}
