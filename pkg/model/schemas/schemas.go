// Package schemas holds the JSON Schemas (draft 2020-12) of the data of events, one
// file for each event type that bears data. They are generated from the payload types of
// package model and from the custom resource definitions: make generate.
package schemas

import (
	"embed"
	"errors"
	"io/fs"
)

//go:embed *.json
var files embed.FS

// Base is what the $id of every schema begins with; the event type and .json follow.
const Base = "https://certloop.io/schemas/"

// For is the schema of the data of an event type; ok is false when the type bears no
// data that is certloop's to describe.
func For(eventType string) (schema []byte, ok bool) {
	schema, err := files.ReadFile(eventType + ".json")
	return schema, !errors.Is(err, fs.ErrNotExist)
}
