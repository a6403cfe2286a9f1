// Package oauth is a fake sign-in service: the device flow of RFC 8628 and
// refresh tokens that are good for one use (RFC 9700, section 4.14.2).
package oauth

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
)

// Server is one service. Its methods are safe for concurrent use.
type Server struct {
	http *httptest.Server

	mu        sync.Mutex
	n         int
	good      map[string]bool // refresh tokens; false: used up or revoked
	access    map[string]bool
	confirmed bool
	polls     int
	renewals  int
	reuses    int
	seconds   int
	status    int
	hold      func() // called when a renewal is done, before its answer goes out whole
}

// Start starts a service whose tokens last so many seconds.
func Start(seconds int) *Server {
	s := &Server{good: map[string]bool{}, access: map[string]bool{}, seconds: seconds}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /device", s.device)
	mux.HandleFunc("POST /token", s.token)
	s.http = httptest.NewUnstartedServer(mux) // assigned before anybody can call
	s.http.Start()
	return s
}

// Close stops it.
func (s *Server) Close() { s.http.CloseClientConnections(); s.http.Close() }

// DeviceURL and TokenURL are its addresses.
func (s *Server) DeviceURL() string { return s.http.URL + "/device" }

// TokenURL is where tokens are given.
func (s *Server) TokenURL() string { return s.http.URL + "/token" }

// Confirm is the person who types the code.
func (s *Server) Confirm() { s.mu.Lock(); s.confirmed = true; s.mu.Unlock() }

// Login gives a pair of tokens, as after a sign-in.
func (s *Server) Login() (access, refresh string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pair()
}

func (s *Server) pair() (access, refresh string) {
	s.n++
	access, refresh = fmt.Sprintf("access-token-%04d", s.n), fmt.Sprintf("refresh-token-%04d", s.n)
	s.good[refresh], s.access[access] = true, true
	return access, refresh
}

// Revoke makes every refresh token worthless.
func (s *Server) Revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.good)
}

// Fail answers every renewal with an HTTP status; 0 ends it.
func (s *Server) Fail(status int) { s.mu.Lock(); s.status = status; s.mu.Unlock() }

// Hold is called after a refresh token was used up and before the client has
// the whole answer.
func (s *Server) Hold(f func()) { s.mu.Lock(); s.hold = f; s.mu.Unlock() }

// Counts tells how many renewals were granted, and how often a refresh token
// was shown that was used up.
func (s *Server) Counts() (renewals, reuses int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewals, s.reuses
}

func (s *Server) device(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("client_id") == "" {
		refuse(w, http.StatusBadRequest, "invalid_client")
		return
	}
	tell(w, map[string]any{"device_code": "device-code-secret", "user_code": "ABCD-1234", "verification_uri": s.http.URL + "/activate", "expires_in": 600, "interval": 0.02})
}

func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status != 0 {
		refuse(w, s.status, "server_error")
		return
	}
	if r.FormValue("grant_type") != "refresh_token" {
		s.polls++
		if s.polls < 2 || !s.confirmed {
			refuse(w, http.StatusBadRequest, "authorization_pending")
			return
		}
		s.give(w)
		return
	}
	old := r.FormValue("refresh_token")
	if !s.good[old] {
		if _, known := s.good[old]; known {
			s.reuses++
		}
		refuse(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	s.good[old] = false
	s.renewals++
	if s.hold != nil {
		w.Header().Set("Content-Length", "500")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		s.hold()
	}
	s.give(w)
}

func (s *Server) give(w http.ResponseWriter) {
	access, refresh := s.pair()
	tell(w, map[string]any{"access_token": access, "refresh_token": refresh, "expires_in": s.seconds, "token_type": "Bearer"})
}

func tell(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	tell(w, map[string]string{"error": why})
}
