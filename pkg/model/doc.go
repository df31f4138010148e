// Package model is the vocabulary of certloop: the custom resources, the events
// and their payloads, the names everything goes by, and the pure questions that
// can be answered from them ("is this configuration valid?", "when is it due?").
//
// Nothing here talks to anything. Every function is deterministic in its
// arguments, safe for concurrent use, and never returns secret material: no type
// of this package can hold a private key or a shared secret, only the names of
// the Secrets that do.
//
// The events of the system stand in one table, [Kinds]; where an event travels
// (which function consumes it, whether it is kept as history) is read from that
// table and from nowhere else.
//
// +kubebuilder:object:generate=true
// +groupName=certloop.io
// +versionName=v1alpha1
package model
