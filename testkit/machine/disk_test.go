package machine

import (
	"bytes"
	"testing"
)

// block is a sector full of one byte.
func block(b byte) []byte { return bytes.Repeat([]byte{b}, sector) }

func newDisk(t *testing.T, seed uint64) *Disk {
	t.Helper()
	d, err := NewDisk(make([]byte, 64*sector), seed)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// ask is a request that must be answered well.
func ask(t *testing.T, d *Disk, kind, flags uint16, at int, data []byte) []byte {
	t.Helper()
	n := len(data)
	if kind == nbdRead {
		n = sector
	}
	code, out, powered := d.act(kind, flags, uint64(at*sector), uint32(n), data)
	if code != 0 || !powered {
		t.Fatalf("the request is answered with %d, power %t", code, powered)
	}
	return out
}

// What was flushed or written through stays, whatever chance does; of the rest
// some is lost and some is not, and a later write to a sector never gives way to
// an earlier one that came after it.
func TestACutTakesOnlyWhatWasNotFlushed(t *testing.T) {
	kept, lost := 0, 0
	for seed := range uint64(200) {
		d := newDisk(t, seed)
		ask(t, d, nbdWrite, 0, 1, block(1))
		ask(t, d, nbdFlush, 0, 0, nil)
		ask(t, d, nbdWrite, 0, 2, block(2)) // older than what is written through
		ask(t, d, nbdWrite, nbdFUA, 2, block(3))
		ask(t, d, nbdWrite, 0, 3, append(block(4), block(4)...))
		if got := ask(t, d, nbdRead, 0, 3, nil); got[0] != 4 {
			t.Fatal("a disk shows what was written")
		}
		d.Cut()
		d.PowerOn()
		if got := ask(t, d, nbdRead, 0, 1, nil); got[0] != 1 {
			t.Fatalf("seed %d: what was flushed is lost", seed)
		}
		if got := ask(t, d, nbdRead, 0, 2, nil); got[0] != 3 {
			t.Fatalf("seed %d: what was written through became %d", seed, got[0])
		}
		for at := 3; at <= 4; at++ {
			switch got := ask(t, d, nbdRead, 0, at, nil); {
			case bytes.Equal(got, block(4)):
				kept++
			case bytes.Equal(got, block(0)):
				lost++
			default:
				t.Fatalf("seed %d: a sector was torn", seed)
			}
		}
	}
	if kept < 20 || lost < 20 {
		t.Errorf("%d sectors kept, %d lost: this is no chance", kept, lost)
	}
}

func TestThePowerGoesAtTheNthChange(t *testing.T) {
	d := newDisk(t, 1)
	off := d.Arm(3)
	ask(t, d, nbdWrite, 0, 1, block(1))
	ask(t, d, nbdFlush, 0, 0, nil)
	ask(t, d, nbdRead, 0, 1, nil)
	select {
	case <-off:
		t.Fatal("the power went too early")
	default:
	}
	if _, _, powered := d.act(nbdWrite, 0, 2*sector, sector, block(2)); powered {
		t.Error("the third change was answered")
	}
	<-off
	if _, _, powered := d.act(nbdFlush, 0, 0, 0, nil); powered {
		t.Error("a disk without power was flushed")
	}
	d.Cut()
	d.PowerOn()
	if got := ask(t, d, nbdRead, 0, 1, nil); got[0] != 1 {
		t.Error("what was flushed is lost")
	}
}

func TestRequestsBeyondTheDisk(t *testing.T) {
	d := newDisk(t, 1)
	for _, at := range []uint64{64 * sector, 1 << 62, ^uint64(0) - 511, 7} {
		if code, _, _ := d.act(nbdRead, 0, at, sector, nil); code != nbdInvalid {
			t.Errorf("a read at %d is answered with %d", at, code)
		}
	}
	if _, err := NewDisk(make([]byte, 100), 1); err == nil {
		t.Error("a disk of a part of a sector was made")
	}
}

// A write is torn between the atoms of a disk and never within one.
func TestAWriteIsTornBetweenAtomsOnly(t *testing.T) {
	const per = atom / sector
	halves := 0
	for seed := range uint64(400) {
		d := newDisk(t, seed)
		ask(t, d, nbdWrite, 0, per-2, bytes.Repeat(block(7), 4)) // two sectors on each side of an edge
		d.Cut()
		d.PowerOn()
		var got [4]byte
		for i := range got {
			got[i] = ask(t, d, nbdRead, 0, per-2+i, nil)[0]
		}
		if got[0] != got[1] || got[2] != got[3] {
			t.Fatalf("seed %d: an atom was torn: %v", seed, got)
		}
		if got[1] != got[2] {
			halves++
		}
	}
	if halves == 0 {
		t.Error("no write was torn, so nothing is tried")
	}
}
