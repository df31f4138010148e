// Package delivery moves CloudEvents between the functions, over HTTP and over
// NATS JetStream. Nothing else in certloop knows a transport: a function is a
// [Mux] of handlers, a [Receiver] gives it events and a [Bus] takes what follows.
//
// # Settlement
//
// Delivery is at least once and in no order. Whatever the transport, an incoming
// event is settled only after everything it led to is stored by JetStream:
//
//	the handler                        over HTTP                  over JetStream
//	returns events                     stored, then 202           stored, then acknowledged
//	returns an error or panics, or     503 with Retry-After       redelivered after 1 s, 2 s, 4 s …
//	the broker is away                                            2 min, with jitter
//	never runs: undecodable, invalid,  dead-lettered, then 400,   dead-lettered, then terminated
//	too large or of an unknown type    413, 415 or 422
//	fails the last delivery allowed    the sender's business      dead-lettered, then terminated
//
// An event of JetStream is invalid, too, when it came on the subject of another object than it
// is about: what may be published there is all that rights of NATS say.
//
// An error of a handler means only "not now, deliver again"; the events returned
// beside it are dropped. A handler that must wait returns success and an event
// delayed with [model.Delay].
//
// # Publishing
//
// [Bus.Publish] reads the event's row in [model.Kinds]: work goes to one subject
// for each function that consumes it, facts go to the history besides. The
// duplicate window of a stream is ten minutes and knows an event by its id alone,
// so that a fact told twice under one derived id is stored once, whoever tells it.
//
// A delayed event waits inside JetStream, one for each function and object: a
// later one takes the place of an earlier one, whatever their ids. Only delay
// events that say "look again", and carry nothing that may not be replaced.
//
// # Dead letters
//
// A dead letter keeps the body and the CloudEvents headers it came with, and says
// why it is dead in headers of its own ([ReasonHeader] and its neighbours), so
// that publishing it again to its former subject delivers the same event. A body
// that may hold a private key is withheld.
//
// # Concurrency
//
// Bus and Receiver are safe for concurrent use once their fields are set. A
// Receiver pulls an event from JetStream only when a handler is free to take it,
// so that nothing waits in a buffer while its acknowledgement falls due.
package delivery
