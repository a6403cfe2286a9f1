package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
)

const (
	sector = 512 // bytes; what requests are made of
	// atom is what reaches the medium whole or not at all, in bytes: the sectors
	// of today's drives, which file systems count on. An ext4 with checksums in
	// its journal, before Linux 6.10, is mounted no more once the block of a
	// commit was torn.
	atom = 4096
)

// maxPending bounds what the cache of a Disk holds back, in bytes; beyond it the
// oldest writes reach the medium, as in a real cache.
const maxPending = 64 << 20

// Disk is a disk with a volatile cache that tells the truth: what was written is
// read back, but is on the medium only when a flush asked for it or when it says
// so itself (FUA). When the power is cut, of the writes since then any may have
// reached the medium or not, or in part. It is served by the NBD protocol
// (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md). Its
// methods are safe for concurrent use.
type Disk struct {
	mu      sync.Mutex
	medium  []byte
	shown   []byte   // what a reader sees: the medium under the cache
	pending []write  // in the order in which they came
	held    int      // bytes of pending
	seq     uint64   // of the last write
	onto    []uint64 // by sector: the write that the medium has
	rng     *rand.Rand
	off     bool // the power is gone

	armed   int // requests that change something until the power goes; 0 for none
	tripped chan struct{}
	stats   DiskStats
}

// DiskStats count what a disk saw.
type DiskStats struct {
	Writes, Flushes, Cuts int
	Lost, Torn            int // writes that a cut took, wholly or in part
	Kept                  int // writes not flushed that a cut let through
}

type write struct {
	seq  uint64
	off  int64
	data []byte
}

// NewDisk makes a disk of an image, which it keeps.
func NewDisk(image []byte, seed uint64) (*Disk, error) {
	if len(image)%sector != 0 {
		return nil, fmt.Errorf("an image of %d bytes is not made of whole sectors", len(image))
	}
	return &Disk{medium: image, shown: append([]byte(nil), image...), onto: make([]uint64, len(image)/sector),
		rng: rand.New(rand.NewPCG(seed, 2)), tripped: make(chan struct{})}, nil
}

// Stats are the counts so far.
func (d *Disk) Stats() DiskStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// Arm lets the power go at the nth write or flush from now on: the disk does not
// answer it, nor anything after. The channel is closed then. n < 1 disarms.
func (d *Disk) Arm(n int) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = max(n, 0)
	d.tripped = make(chan struct{})
	return d.tripped
}

// Cut takes the power away. What the cache held is lost but for a part that
// chance picks; the order of writes to one sector is kept.
func (d *Disk) Cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
	d.stats.Cuts++
	// Caches are all alike neither in size nor in diligence: from one that keeps
	// all to one that had written nearly everything.
	through := []float64{0, 0.1, 0.5, 0.9}[d.rng.IntN(4)]
	for _, w := range d.pending {
		switch p := d.rng.Float64(); {
		case p < through*0.7:
			d.stats.Kept++
			d.put(w, func() bool { return true })
		case p < through:
			d.stats.Torn++
			d.put(w, func() bool { return d.rng.IntN(2) == 0 })
		default:
			d.stats.Lost++
		}
	}
	d.pending, d.held = nil, 0
}

// PowerOn brings the disk back with what is on its medium.
func (d *Disk) PowerOn() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending, d.held, d.armed, d.off = nil, 0, 0, false
	copy(d.shown, d.medium)
	d.tripped = make(chan struct{})
}

// put brings what ok lets through of a write onto the medium. It is asked once
// for each atom.
func (d *Disk) put(w write, ok func() bool) {
	through, of := false, int64(-1)
	for i := 0; i < len(w.data); i += sector {
		n := (w.off + int64(i)) / sector
		if a := n * sector / atom; a != of {
			through, of = ok(), a
		}
		if d.onto[n] < w.seq && through {
			copy(d.medium[n*sector:], w.data[i:i+sector])
			d.onto[n] = w.seq
		}
	}
}

// write takes in data; through says that it must reach the medium at once.
func (d *Disk) write(off int64, data []byte, through bool) {
	d.seq++
	d.stats.Writes++
	copy(d.shown[off:], data)
	w := write{d.seq, off, data}
	if through {
		d.put(w, func() bool { return true })
		return
	}
	d.pending = append(d.pending, w)
	for d.held += len(data); d.held > maxPending; d.pending = d.pending[1:] {
		d.put(d.pending[0], func() bool { return true })
		d.held -= len(d.pending[0].data)
	}
}

func (d *Disk) flush() {
	d.stats.Flushes++
	for _, w := range d.pending {
		d.put(w, func() bool { return true })
	}
	d.pending, d.held = nil, 0
}

// goes tells whether the power is there for one more change.
func (d *Disk) goes() bool {
	if d.off {
		return false
	}
	if d.armed > 0 {
		if d.armed--; d.armed == 0 {
			d.off = true
			close(d.tripped)
			return false
		}
	}
	return true
}

// Numbers of the NBD protocol.
const (
	nbdMagic       = 0x4e42444d41474943 // NBDMAGIC
	nbdOption      = 0x49484156454f5054 // IHAVEOPT
	nbdOptionReply = 0x3e889045565a9
	nbdRequest     = 0x25609513
	nbdReply       = 0x67446698

	nbdFixedNewstyle, nbdNoZeroes = 1, 2
	nbdOptExport, nbdOptAbort     = 1, 2
	nbdOptInfo, nbdOptGo          = 6, 7
	nbdRepAck, nbdRepInfo         = 1, 3
	nbdRepUnsupported             = 1<<31 | 1
	nbdFlags                      = 1 | 1<<2 | 1<<3 // has flags, takes flush, takes FUA
	nbdRead, nbdWrite, nbdDisc    = 0, 1, 2
	nbdFlush                      = 3
	nbdFUA                        = 1
	nbdInvalid                    = 22 // EINVAL
	maxRequest                    = 32 << 20
)

var errDone = errors.New("the client is done")

// Serve answers one client until it leaves or the connection is closed. A disk
// without power takes requests and answers none.
func (d *Disk) Serve(conn net.Conn) error {
	defer conn.Close()
	if err := d.negotiate(conn); err != nil {
		return err
	}
	for {
		if err := d.request(conn); errors.Is(err, errDone) || errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// negotiate is the newstyle handshake; whatever export is asked for is this disk.
func (d *Disk) negotiate(conn net.Conn) error {
	hello := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, nbdMagic), nbdOption)
	if _, err := conn.Write(binary.BigEndian.AppendUint16(hello, nbdFixedNewstyle|nbdNoZeroes)); err != nil {
		return err
	}
	var flags [4]byte
	if _, err := io.ReadFull(conn, flags[:]); err != nil {
		return err
	}
	export := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint64(nil, uint64(len(d.medium))), nbdFlags)
	for {
		var head [16]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return err
		}
		option, n := binary.BigEndian.Uint32(head[8:]), binary.BigEndian.Uint32(head[12:])
		if binary.BigEndian.Uint64(head[:]) != nbdOption || n > 4096 {
			return errors.New("nbd: not an option")
		}
		if _, err := io.CopyN(io.Discard, conn, int64(n)); err != nil {
			return err
		}
		reply := func(kind uint32, data []byte) error {
			b := binary.BigEndian.AppendUint64(nil, nbdOptionReply)
			b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, option), kind)
			_, err := conn.Write(append(binary.BigEndian.AppendUint32(b, uint32(len(data))), data...))
			return err
		}
		var err error
		switch option {
		case nbdOptExport:
			_, err = conn.Write(export)
			return err
		case nbdOptAbort:
			return errDone
		case nbdOptInfo, nbdOptGo:
			err = errors.Join(reply(nbdRepInfo, append([]byte{0, 0}, export...)), reply(nbdRepAck, nil))
			if option == nbdOptGo {
				return err
			}
		default:
			err = reply(nbdRepUnsupported, nil)
		}
		if err != nil {
			return err
		}
	}
}

// request answers one request.
func (d *Disk) request(conn net.Conn) error {
	var head [28]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	flags, kind := binary.BigEndian.Uint16(head[4:]), binary.BigEndian.Uint16(head[6:])
	off, n := binary.BigEndian.Uint64(head[16:]), binary.BigEndian.Uint32(head[24:])
	if binary.BigEndian.Uint32(head[:]) != nbdRequest || n > maxRequest {
		return errors.New("nbd: not a request")
	}
	if kind == nbdDisc {
		return errDone
	}
	var data []byte
	if kind == nbdWrite {
		data = make([]byte, n)
		if _, err := io.ReadFull(conn, data); err != nil {
			return err
		}
	}
	code, out, powered := d.act(kind, flags, off, n, data)
	if !powered {
		return nil
	}
	reply := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, nbdReply), code)
	_, err := conn.Write(append(append(reply, head[8:16]...), out...))
	return err
}

// act does what a request asks for.
func (d *Disk) act(kind, flags uint16, off uint64, n uint32, data []byte) (code uint32, out []byte, powered bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if kind != nbdFlush && (off > uint64(len(d.medium)) || uint64(n) > uint64(len(d.medium))-off || off%sector != 0 || n%sector != 0) {
		return nbdInvalid, nil, !d.off
	}
	switch kind {
	case nbdRead:
		return 0, append([]byte(nil), d.shown[off:off+uint64(n)]...), !d.off
	case nbdWrite:
		// A write that the power went at may still have reached the cache.
		if !d.goes() {
			d.write(int64(off), data, false)
			return 0, nil, false
		}
		d.write(int64(off), data, flags&nbdFUA != 0)
	case nbdFlush:
		if !d.goes() {
			return 0, nil, false
		}
		d.flush()
	default:
		return nbdInvalid, nil, !d.off
	}
	return 0, nil, true
}
