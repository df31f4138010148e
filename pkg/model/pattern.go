package model

import (
	"regexp"
	"sync"
)

// pattern is a regular expression that is compiled when it is needed first: of the processes
// that start, few ever check a configuration.
type pattern func() *regexp.Regexp

func patternOf(expression string) pattern {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

func (p pattern) MatchString(s string) bool { return p().MatchString(s) }
