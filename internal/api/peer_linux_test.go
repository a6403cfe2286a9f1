package api

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// The kernel's two answers about one connection must agree.
func TestBothWaysToAskForThePeer(t *testing.T) {
	for family, address := range map[string]string{"tcp": "127.0.0.1:0", "tcp6": "[::1]:0"} {
		t.Run(family, func(t *testing.T) {
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Skip("this address is not on this host: ", err)
			}
			defer l.Close()
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			src, dst, err := addrPorts(c.LocalAddr(), c.RemoteAddr())
			if err != nil {
				t.Fatal(err)
			}
			table, err := procUID("/proc/net/"+family, src, dst)
			if err != nil || table != os.Geteuid() {
				t.Errorf("from the table: %d %v", table, err)
			}
			diag, err := diagUID(src, dst)
			if err != nil {
				t.Skip("this kernel does not answer sock_diag: ", err)
			}
			if diag != table {
				t.Errorf("sock_diag says %d, the table %d", diag, table)
			}
			if _, err := diagUID(netip.AddrPortFrom(src.Addr(), dst.Port()), src); err == nil {
				t.Error("a listener was taken for a peer")
			}
		})
	}
}

func TestPortHolder(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if got := PortHolder(port); !strings.Contains(got, fmt.Sprintf("(PID %d", os.Getpid())) {
		t.Errorf("%q", got)
	}
	l.Close()
	if got := PortHolder(port); got != "" {
		t.Errorf("a free port is held by %q", got)
	}
	if got := strings.Join(withoutSystemd([]string{"systemd (PID 1)", "hermes (PID 7)"}), ","); got != "hermes (PID 7)" {
		t.Errorf("%q", got)
	}
}

func FuzzParseSocket(f *testing.F) {
	f.Add("   0: 0100007F:21C2 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0 100 0 0 10 0")
	f.Add("   1: 00000000000000000000000001000000:21C2 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 1")
	f.Fuzz(func(t *testing.T, line string) {
		if sk, ok := parseSocket(line); ok && !(sk.local.IsValid() && sk.remote.IsValid()) {
			t.Fatalf("%q gave %+v", line, sk)
		}
	})
}

func TestParseSocket(t *testing.T) {
	sk, ok := parseSocket("   0: 0100007F:21C2 0200007F:0050 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0 100 0 0 10 0")
	if !ok || sk.local.String() != "127.0.0.1:8642" || sk.remote.String() != "127.0.0.2:80" || sk.uid != 1000 || sk.inode != 12345 || sk.listening {
		t.Errorf("%+v %v", sk, ok)
	}
}
