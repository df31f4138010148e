package service

import (
	"encoding/json"
	"net/http"
	"sync/atomic"
)

// Paths of the probes.
const (
	readinessPath = "/health/readiness"
	livenessPath  = "/health/liveness"
)

// health answers the probes of a function.
type health struct {
	function string
	env      *Env
	draining atomic.Bool
}

// state is the answer to a probe.
type state struct {
	Function string   `json:"function"`
	Ready    bool     `json:"ready"`
	Missing  []string `json:"missing,omitempty"` // why not, in words
}

func (h *health) state() state {
	var missing []string
	if h.draining.Load() {
		missing = append(missing, "the process is shutting down")
	}
	if !h.env.NATS.IsConnected() {
		missing = append(missing, "NATS is not connected: "+servers(h.env.NATSURL))
	}
	return state{Function: h.function, Ready: len(missing) == 0, Missing: missing}
}

// ServeHTTP says whether the function is ready. On the path of the liveness probe
// the answer is 200 all the same: a restart brings back no broker.
func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := h.state()
	w.Header().Set("Content-Type", "application/json")
	if !s.Ready && r.URL.Path != livenessPath {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(s)
}
