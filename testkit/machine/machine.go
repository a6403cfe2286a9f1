package machine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"hermes/testkit/machine/agent"
	"hermes/testkit/machine/link"
)

// Machine is a computer: a disk and the ports of its loopback that lead to the
// test. It has one Life at a time.
type Machine struct {
	kit   *Kit
	Disk  *Disk
	ports []string
}

// NewMachine makes a machine that is switched off. ports are those of the test's
// 127.0.0.1 that programs on the machine reach under the same numbers.
func (k *Kit) NewMachine(disk *Disk, ports ...int) *Machine {
	m := &Machine{kit: k, Disk: disk}
	for _, p := range ports {
		m.ports = append(m.ports, strconv.Itoa(p))
	}
	return m
}

// Life is a machine from its boot to its end. Its Client gives it orders.
type Life struct {
	*agent.Client
	machine *Machine
	dir     string
	cmd     *exec.Cmd
	link    *link.Link
	qmp     *qmp
	console *os.File
	serving sync.WaitGroup
	lns     []net.Listener
	conns   []net.Conn
	ended   chan struct{}
	over    bool
	// forgotten close the connections that sleeps cut, on the side of the test.
	forgotten []func()
}

// bootTime bounds how long qemu takes to connect to what it is made of.
const bootTime = time.Minute

// Boot switches the machine on. Its clock shows rtc at first, or the time of the
// host when that is zero. It returns before the machine is up; the first order
// waits for that.
func (m *Machine) Boot(ctx context.Context, rtc time.Time) (_ *Life, err error) {
	dir, err := os.MkdirTemp("", "machine") // a socket's path must be short
	if err != nil {
		return nil, err
	}
	l := &Life{machine: m, dir: dir, ended: make(chan struct{})}
	defer func() {
		if err != nil {
			err = fmt.Errorf("the machine does not start: %w\n%s", err, l.Console())
			l.Cut()
		}
	}()
	m.Disk.PowerOn()
	channel, disk, err := l.listen()
	if err != nil {
		return l, err
	}
	if l.console, err = os.Create(filepath.Join(dir, "console")); err != nil {
		return l, err
	}
	base := "utc"
	if !rtc.IsZero() {
		base = rtc.UTC().Format("2006-01-02T15:04:05")
	}
	l.cmd = exec.Command(m.kit.qemu, "-M", "pc", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "320",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-rtc", "clock=host,base="+base,
		"-kernel", m.kit.kernel, "-initrd", m.kit.initrd,
		"-append", "console=ttyS0 quiet panic=-1 no_timer_check no_console_suspend forward="+strings.Join(m.ports, ","),
		"-serial", "stdio",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=link,path="+l.path("link"), "-device", "virtserialport,chardev=link,name=link",
		"-blockdev", "driver=nbd,node-name=disk,server.type=unix,server.path="+l.path("disk")+",cache.direct=on",
		"-device", "virtio-blk-pci,drive=disk,write-cache=on",
		"-qmp", "unix:"+l.path("qmp")+",server=on,wait=off", "-qtest", "unix:"+l.path("qtest")+",server=on,wait=off", "-qtest-log", "none")
	l.cmd.Stdout, l.cmd.Stderr = l.console, l.console
	if err := l.cmd.Start(); err != nil {
		l.cmd = nil
		return l, err
	}
	go func() {
		_ = l.cmd.Wait() // it is killed
		close(l.ended)
		for _, ln := range l.lns {
			ln.Close()
		}
	}()
	conn, err := disk.Accept()
	if err != nil {
		return l, err
	}
	l.conns = append(l.conns, conn)
	l.serving.Go(func() { _ = m.Disk.Serve(conn) }) // a cut ends it anyhow
	serial, err := channel.Accept()
	if err != nil {
		return l, err
	}
	l.link = link.New(serial, link.First)
	l.Client = agent.NewClient(func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		return near, l.link.Carry(far, agent.Port)
	})
	l.qmp, err = dialQMP(ctx, l.path("qmp"))
	return l, err
}

func (l *Life) path(name string) string { return filepath.Join(l.dir, name) }

// listen opens the sockets that qemu connects to.
func (l *Life) listen() (channel, disk net.Listener, err error) {
	for _, name := range []string{"link", "disk"} {
		ln, err := net.Listen("unix", l.path(name))
		if err != nil {
			return nil, nil, err
		}
		l.lns = append(l.lns, ln)
		_ = ln.(*net.UnixListener).SetDeadline(time.Now().Add(bootTime))
	}
	return l.lns[0], l.lns[1], nil
}

// Console is what the machine and its programs printed.
func (l *Life) Console() string {
	text, err := os.ReadFile(l.path("console"))
	if err != nil {
		return err.Error()
	}
	const most = 64 << 10
	return string(bytes.ToValidUTF8(text[max(0, len(text)-most):], nil))
}

// Cut takes the power away, as if the plug was pulled: nothing is said, written
// or flushed any more. Connections to the test end.
func (l *Life) Cut() { l.cut(false) }

// CutSilently is Cut, but that the connections to the test stay open and silent,
// as those of a computer do that is gone from the network. They are closed by the
// function that it gives.
func (l *Life) CutSilently() (bury func()) { return l.cut(true) }

func (l *Life) cut(silently bool) (bury func()) {
	bury = func() {}
	if l.over {
		return bury
	}
	l.over = true
	for _, bury := range l.forgotten {
		bury()
	}
	if silently && l.link != nil {
		bury = l.link.Abandon()
	}
	if l.cmd != nil {
		_ = l.cmd.Process.Kill() // it may have ended by itself
		<-l.ended
	}
	for _, ln := range l.lns {
		ln.Close()
	}
	for _, c := range l.conns {
		c.Close()
	}
	l.serving.Wait()
	l.machine.Disk.Cut()
	if l.link != nil {
		l.link.Close()
	}
	if l.qmp != nil {
		l.qmp.conn.Close()
	}
	if l.console != nil {
		l.console.Close()
	}
	os.RemoveAll(l.dir)
	return bury
}

// Suspend lets the machine sleep ("mem" or "freeze", as in /sys/power/state),
// moves its clock on by that much meanwhile, and wakes it. Nothing reaches it
// while it sleeps, and every connection to the test is forgotten without a word, as
// those of a machine are that was away for that long.
func (l *Life) Suspend(ctx context.Context, state string, asleep time.Duration) error {
	if err := l.Sleep(ctx, state); err != nil {
		return err
	}
	resume := l.link.Pause()
	defer resume()
	l.forgotten = append(l.forgotten, l.link.Forget())
	if err := l.qmp.await(ctx, "SUSPEND"); err != nil {
		return fmt.Errorf("the machine does not sleep: %w\n%s", err, l.Console())
	}
	if err := l.advanceRTC(ctx, asleep); err != nil {
		return err
	}
	if err := l.qmp.execute(ctx, "system_wakeup"); err != nil {
		return err
	}
	return l.qmp.await(ctx, "WAKEUP")
}

// Registers of the real-time clock (MC146818, as in every PC).
const (
	rtcIndex, rtcData                          = 0x70, 0x71
	rtcSec, rtcMin, rtcHour                    = 0, 2, 4
	rtcDay, rtcMonth, rtcYear, rtcCentury      = 7, 8, 9, 0x32
	rtcControl, rtcHold                   byte = 0x0b, 0x80 // register B, bit SET
)

// advanceRTC moves the machine's real-time clock on, by the ports of the machine,
// as its battery would have in that time.
func (l *Life) advanceRTC(ctx context.Context, by time.Duration) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", l.path("qtest"))
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	in := bufio.NewReader(conn)
	ask := func(format string, args ...any) (string, error) {
		if _, err := fmt.Fprintf(conn, format+"\n", args...); err != nil {
			return "", err
		}
		for {
			line, err := in.ReadString('\n')
			if err != nil || strings.HasPrefix(line, "OK") {
				return strings.TrimSpace(strings.TrimPrefix(line, "OK")), err
			}
			if !strings.HasPrefix(line, "IRQ") {
				return "", errors.New("qtest: " + line)
			}
		}
	}
	read := func(register int) (int, error) {
		if _, err := ask("outb %#x %#x", rtcIndex, register); err != nil {
			return 0, err
		}
		text, err := ask("inb %#x", rtcData)
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseUint(text, 0, 8)
		return int(n>>4*10 + n&15), err // binary coded decimals
	}
	var fields [7]int
	registers := [7]int{rtcCentury, rtcYear, rtcMonth, rtcDay, rtcHour, rtcMin, rtcSec}
	for i, r := range registers {
		if fields[i], err = read(r); err != nil {
			return err
		}
	}
	now := time.Date(fields[0]*100+fields[1], time.Month(fields[2]), fields[3], fields[4], fields[5], fields[6], 0, time.UTC).Add(by)
	write := func(register, value int) error {
		_, err1 := ask("outb %#x %#x", rtcIndex, register)
		_, err2 := ask("outb %#x %#x", rtcData, value)
		return errors.Join(err1, err2)
	}
	err = write(int(rtcControl), int(rtcHold|2)) // 24 hours
	for i, v := range [7]int{now.Year() / 100, now.Year() % 100, int(now.Month()), now.Day(), now.Hour(), now.Minute(), now.Second()} {
		err = errors.Join(err, write(registers[i], v/10<<4|v%10))
	}
	return errors.Join(err, write(int(rtcControl), 2))
}

// qmp is qemu's machine protocol; one caller at a time.
// https://qemu-project.gitlab.io/qemu/interop/qmp-spec.html
type qmp struct {
	conn net.Conn
	in   *bufio.Scanner
	seen map[string]bool // events that came before somebody waited for them
}

func dialQMP(ctx context.Context, path string) (*qmp, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	q := &qmp{conn: conn, in: bufio.NewScanner(conn), seen: map[string]bool{}}
	_ = conn.SetReadDeadline(time.Now().Add(bootTime))
	if !q.in.Scan() { // the greeting
		return nil, errors.Join(errors.New("qmp: no greeting"), q.in.Err(), conn.Close())
	}
	return q, q.execute(ctx, "qmp_capabilities")
}

// message is what qemu says.
type message struct {
	Event  string          `json:"event"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
}

func (q *qmp) next(ctx context.Context) (m message, err error) {
	deadline, _ := ctx.Deadline()
	if err := q.conn.SetReadDeadline(deadline); err != nil {
		return m, err
	}
	if !q.in.Scan() {
		return m, errors.Join(errors.New("qmp: the machine has ended or says nothing"), q.in.Err())
	}
	return m, json.Unmarshal(q.in.Bytes(), &m)
}

func (q *qmp) execute(ctx context.Context, command string) error {
	if _, err := fmt.Fprintf(q.conn, "{\"execute\":%q}\n", command); err != nil {
		return err
	}
	for {
		m, err := q.next(ctx)
		switch {
		case err != nil:
			return err
		case m.Error != nil:
			return errors.New("qmp: " + m.Error.Desc)
		case m.Event != "":
			q.seen[m.Event] = true
		case m.Return != nil:
			return nil
		}
	}
}

// await waits for an event, or finds that it has come already.
func (q *qmp) await(ctx context.Context, event string) error {
	for !q.seen[event] {
		m, err := q.next(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", event, err)
		}
		if m.Event != "" {
			q.seen[m.Event] = true
		}
	}
	delete(q.seen, event)
	return nil
}
