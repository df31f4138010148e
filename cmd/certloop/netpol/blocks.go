package netpol

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
)

// From how many addresses on a block is taken for the internet, as the length of a prefix:
// nobody's CA, API server or NATS is that large.
const (
	internetBits4 = 16
	internetBits6 = 32
)

// From how many private addresses on a block may well hold Pods, as the length of a prefix.
const (
	narrowBits4 = 23
	narrowBits6 = 63
)

func prefixes(all ...string) (parsed []netip.Prefix) {
	for _, s := range all {
		parsed = append(parsed, netip.MustParsePrefix(s))
	}
	return parsed
}

// private are addresses of networks of one's own (RFC 1918, RFC 6598, RFC 4193), which
// Pods get too.
func private() []netip.Prefix {
	return prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
}

// special are addresses that the internet does not route (RFC 6890): of IPv6 it routes
// 2000::/3 alone.
func special() []netip.Prefix {
	return append(private(), prefixes("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.2.0/24", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3", "::/3", "4000::/2", "8000::/1", "2001:db8::/32")...)
}

// internet tells whether a block holds, beside what it excepts, public addresses in such
// number that it names nobody in particular.
func internet(b *networkingv1.IPBlock) bool {
	block, err := netip.ParsePrefix(b.CIDR)
	return err == nil && holds(block.Masked(), bitsOf(block, internetBits4, internetBits6), append(special(), excepted(b)...))
}

func bitsOf(block netip.Prefix, bits4, bits6 int) int {
	if block.Addr().Is4() {
		return bits4
	}
	return bits6
}

func excepted(b *networkingv1.IPBlock) (holes []netip.Prefix) {
	for _, except := range b.Except {
		if hole, err := netip.ParsePrefix(except); err == nil {
			holes = append(holes, hole)
		}
	}
	return holes
}

// holds tells whether there is a prefix of the given length within a block and outside of
// all holes.
func holds(block netip.Prefix, bits int, holes []netip.Prefix) bool {
	if block.Bits() > bits || slices.ContainsFunc(holes, func(h netip.Prefix) bool { return contains(h, block) }) {
		return false
	}
	if !slices.ContainsFunc(holes, block.Overlaps) {
		return true
	}
	low, high := halves(block)
	return holds(low, bits, holes) || holds(high, bits, holes)
}

func halves(block netip.Prefix) (low, high netip.Prefix) {
	n := block.Bits()
	raw := block.Addr().AsSlice()
	low = netip.PrefixFrom(block.Addr(), n+1)
	raw[n/8] |= 0x80 >> (n % 8)
	addr, _ := netip.AddrFromSlice(raw)
	return low, netip.PrefixFrom(addr, n+1)
}

// contains tells whether all addresses of inner are in outer.
func contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// privateRange tells whether a block holds, beside what it excepts, so many private addresses
// that some may be those of Pods.
func privateRange(b *networkingv1.IPBlock) bool {
	block, err := netip.ParsePrefix(b.CIDR)
	return err == nil && slices.ContainsFunc(private(), func(p netip.Prefix) bool {
		if contains(p, block) {
			p = block.Masked()
		}
		return p.Overlaps(block) && holds(p, bitsOf(p, narrowBits4, narrowBits6), excepted(b))
	})
}
