// Package service makes a process of a function: environment, log, connections,
// HTTP, health, and draining. What the function does is wired in by the caller.
//
// A process listens at once and connects to NATS in the background, for as long
// as it takes. Events come in by POST on any path, and, unless CERTLOOP_CONSUME
// is false, from JetStream. Beside them it answers
//
//	GET /health/liveness     200 while the process serves
//	GET /health/readiness    200 when events can be handled, else 503 and what is missing, as JSON
//
// and the probes of the kubelet and of Knative on any path.
//
// The log goes to standard error, in JSON unless that is a terminal; durations are
// seconds.
//
// On SIGTERM it drains: it says that it is not ready, pulls nothing more from
// JetStream, serves HTTP until nobody has asked for a second, lets the handlers
// at work finish, and ends. Handlers that need longer than CERTLOOP_DRAIN_TIMEOUT
// are cut off; their events come again. A second signal ends the process at once.
package service
