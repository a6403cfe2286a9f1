// Package network knows which addresses are part of the public network, so that
// nobody who may name an address leads a request of ours inside. All functions
// are safe for concurrent use.
package network

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
)

// ErrPrivate is the failure of a connection that PublicOnly forbids.
var ErrPrivate = errors.New("the address is a private one")

// PublicOnly is a net.Dialer's Control that lets only addresses of the public
// network be connected to; others fail with ErrPrivate. It judges where the
// connection is made, after the name was resolved: neither a name that leads
// inside, nor one that changes its mind between two lookups, gets past it.
func PublicOnly(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !Public(at.Addr()) {
		return ErrPrivate
	}
	return nil
}

// special are the blocks that are no part of the public network, from the
// registries of special-purpose addresses:
// https://www.iana.org/assignments/iana-ipv4-special-registry
// https://www.iana.org/assignments/iana-ipv6-special-registry
// Blocks that carry an IPv4 address inside an IPv6 one (NAT64, 6to4, Teredo)
// are among them: what they lead to is not visible here.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16",
	"fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// Public tells whether an address belongs to the public network.
func Public(ip netip.Addr) bool {
	if !ip.IsValid() {
		return false
	}
	ip = ip.Unmap().WithZone("")
	return !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(ip) })
}
