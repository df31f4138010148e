package main

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// services maps "namespace/name" of a Service to the host:port that serves it,
// because a cluster without nodes has no network for webhooks to be called by.
type services map[string]string

// String is the flag's current value.
func (s services) String() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		all = append(all, name+"="+s[name])
	}
	return strings.Join(all, ",")
}

// Set adds one "namespace/name=host:port".
func (s *services) Set(v string) error {
	name, addr, _ := strings.Cut(v, "=")
	if strings.Count(name, "/") != 1 {
		return fmt.Errorf("%q is not namespace/name=host:port", v)
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return fmt.Errorf("%q is not namespace/name=host:port: %w", v, err)
	}
	if *s == nil {
		*s = services{}
	}
	(*s)[name] = addr
	return nil
}

// ResolveEndpoint says where kube-apiserver reaches a Service.
func (s services) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	addr, ok := s[namespace+"/"+name]
	if !ok {
		addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
	}
	return &url.URL{Scheme: "https", Host: addr}, nil
}
