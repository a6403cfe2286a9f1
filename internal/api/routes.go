package api

import (
	_ "embed"
	"net/http"
	"strings"
)

// route is one line of the API's table.
type route struct {
	method, path string
	access       access
	handler      http.HandlerFunc
}

// table lists every route of this package; openapi.json describes the same.
func (s *Server) table() []route {
	return append([]route{
		{"GET", "/health", open, s.getHealth},
		{"GET", "/v1/health", open, s.getHealth},
		{"GET", "/health/detailed", keyed, s.getHealthDetailed},
		{"GET", "/v1/models", keyed, s.getModels},
		{"GET", "/v1/models/{id}", keyed, s.getModel},
		{"GET", "/v1/capabilities", keyed, s.getCapabilities},
		{"POST", "/v1/chat/completions", keyed, s.postChat},
		{"GET", "/api/status", keyed, s.getStatus},
		{"GET", "/metrics", keyed, s.getMetrics},
		{"GET", "/openapi.json", open, s.getOpenAPI},
	}, s.jobRoutes()...)
}

func (s *Server) buildMux() *http.ServeMux {
	mux := http.NewServeMux()
	for _, r := range s.routes {
		mux.Handle(r.method+" "+r.path, s.guarded(r.access, false, r.handler))
	}
	for _, m := range s.o.Mounts {
		a := keyed
		if m.Open {
			a = open
		}
		mux.Handle(m.Pattern, s.guarded(a, m.UntilDrain, m.Handler))
	}
	mux.HandleFunc("/", s.noRoute)
	return mux
}

// noRoute answers for what does not exist, or not with this method.
func (s *Server) noRoute(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{"GET", "POST", "PATCH", "DELETE"} {
		probe := &http.Request{Method: method, URL: r.URL, Host: r.Host}
		if _, pattern := s.mux.Handler(probe); pattern != "/" && pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) > 0 && r.Method != http.MethodOptions {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		s.fail(w, &apiError{status: http.StatusMethodNotAllowed, kind: "invalid_request_error", code: "method_not_allowed",
			message: clip(r.Method, 20) + " is not possible here. Use " + strings.Join(allowed, " or ") + "."})
		return
	}
	s.fail(w, &apiError{status: http.StatusNotFound, kind: "invalid_request_error", code: "not_found",
		message: "There is no " + clip(r.Method, 20) + " " + clip(r.URL.Path, 200) + " here. /openapi.json lists what there is."})
}

//go:embed openapi.json
var openAPIDocument []byte

func (s *Server) getOpenAPI(w http.ResponseWriter, _ *http.Request) {
	writeBody(w, http.StatusOK, "application/json", openAPIDocument)
}
