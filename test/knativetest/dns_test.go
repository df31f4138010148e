//go:build linux

package knativetest

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Addresses of the cluster, all of them loopback.
const (
	dnsAddress  = "127.0.0.1"
	httpAddress = "127.0.0.2" // every Service that speaks HTTP
	natsAddress = "127.0.0.3"

	clusterDomain = "svc.cluster.local."
	natsHost      = "nats.nats." + clusterDomain
)

// startDNS answers for the names of Services, as cluster DNS does.
func startDNS(tb testing.TB) {
	tb.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(dnsAddress+":53")))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	go func() {
		query := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(query)
			if err != nil {
				return
			}
			if answer, err := resolve(query[:n]); err == nil {
				_, _ = conn.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
}

func resolve(query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	header, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	name := strings.ToLower(q.Name.String())
	header.Response, header.Authoritative, header.RecursionAvailable = true, true, true
	if !strings.HasSuffix(name, "."+clusterDomain) {
		header.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, header)
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(q); err != nil {
		return nil, err
	}
	if header.RCode == dnsmessage.RCodeSuccess && q.Type == dnsmessage.TypeA {
		if err := b.StartAnswers(); err != nil {
			return nil, err
		}
		addr := netip.MustParseAddr(httpAddress)
		if name == natsHost {
			addr = netip.MustParseAddr(natsAddress)
		}
		if err := b.AResource(dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 5}, dnsmessage.AResource{A: addr.As4()}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}
