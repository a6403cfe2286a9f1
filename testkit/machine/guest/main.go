// Command guest is the first process of the machine that tests boot: it mounts
// what there is, loads the modules, brings the loopback up, connects to the test
// and serves its orders. It never ends by itself.
package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hermes/testkit/machine/agent"
	"hermes/testkit/machine/link"
)

func main() {
	if err := boot(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	select {}
}

// boot brings the machine up to where it takes orders.
func boot() error {
	for _, m := range []struct{ what, where, kind string }{
		{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"dev", "/dev", "devtmpfs"}, {"tmp", "/tmp", "tmpfs"},
	} {
		if err := os.MkdirAll(m.where, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.what, m.where, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mounting %s: %w", m.where, err)
		}
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("the loopback: %w", err)
	}
	port, err := await("/dev/vport*")
	if err != nil {
		return err
	}
	channel, err := os.OpenFile(port, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	disk, err := await("/dev/vda")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(agent.Home, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(disk, agent.Home, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", disk, err)
	}
	return serve(channel)
}

// loadModules loads what lies in a folder in the order of the names.
func loadModules(dir string) error {
	list, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return err
	}
	for _, name := range list {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
	}
	return nil
}

// loopbackUp is `ip link set lo up`; netdevice(7).
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// await waits for a device to appear.
func await(pattern string) (string, error) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if list, err := filepath.Glob(pattern); err != nil || len(list) > 0 {
			return list[0], err
		}
	}
	return "", fmt.Errorf("%s does not appear", pattern)
}

// serve takes orders, and carries the connections to the ports that the kernel's
// command line names (forward=1234,5678) to the test.
func serve(channel *os.File) error {
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(agent.Port)))
	if err != nil {
		return err
	}
	var orders agent.Server
	go func() {
		err := http.Serve(ln, orders.Handler())
		fmt.Fprintln(os.Stderr, "guest: the agent ended:", err)
	}()
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	l := link.New(channel, link.Second)
	for word := range strings.FieldsSeq(string(text)) {
		ports, ok := strings.CutPrefix(word, "forward=")
		if !ok || ports == "" {
			continue
		}
		for p := range strings.SplitSeq(ports, ",") {
			n, err := strconv.Atoi(p)
			if err != nil {
				return fmt.Errorf("forward=%s: %w", ports, err)
			}
			if err := l.Listen(n, func(err error) { fmt.Fprintln(os.Stderr, "guest: forwarding:", err) }); err != nil {
				return err
			}
		}
	}
	go func() {
		<-l.Done()
		fmt.Fprintln(os.Stderr, "guest: the link ended")
	}()
	fmt.Fprintln(os.Stderr, "guest: up")
	return nil
}
