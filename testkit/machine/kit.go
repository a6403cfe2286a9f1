// Package machine boots a real Linux kernel in qemu, with the real binary, a disk
// that forgets what was not flushed when its power is cut, a clock that can be
// set and a processor that can be suspended, to prove what a process on a running
// host cannot show. Nothing in the machine reaches further than its loopback;
// chosen ports of that are carried to the test (testkit/machine/link).
//
// The processor is emulated (TCG) also where /dev/kvm is there: a hypervisor
// within one may open and then hang, and what is measured here is not speed.
package machine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"

	"hermes/testkit/rig"
)

// Folder is where scripts/setup puts the kernel and its modules, within the module.
const Folder = "build/machine"

// modules are what a disk and a channel on virtio need, in the order of their
// dependencies. ext4 is built into Debian's kernel for clouds.
var modules = []string{"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk", "virtio_console"}

// applets are the names under which the machine has its busybox.
var applets = []string{"sh", "cat", "date", "echo", "env", "kill", "ls", "ps", "sleep", "sync", "wget"}

// Kit is what every machine is made of.
type Kit struct {
	qemu, kernel, initrd string
	dir                  string
}

// Missing names what machines cannot be made without and is not there.
func Missing(ctx context.Context) []string {
	var missing []string
	for _, program := range []string{"qemu-system-x86_64", "mke2fs", "busybox"} {
		if _, err := look(program); err != nil {
			missing = append(missing, program)
		}
	}
	root, err := rig.Root(ctx)
	if err != nil {
		return append(missing, err.Error())
	}
	for _, file := range append([]string{"vmlinuz"}, withSuffix(modules, ".ko")...) {
		if _, err := os.Stat(filepath.Join(root, Folder, file)); err != nil {
			missing = append(missing, filepath.Join(Folder, file))
		}
	}
	return missing
}

func withSuffix(names []string, suffix string) (out []string) {
	for _, n := range names {
		out = append(out, n+suffix)
	}
	return out
}

// look finds a program, also where only root's PATH leads.
func look(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/" + program)
}

// NewKit makes the first file system of machines that run the binary hermes. Its
// files are put into dir.
func NewKit(ctx context.Context, dir, hermes string) (*Kit, error) {
	root, err := rig.Root(ctx)
	if err != nil {
		return nil, err
	}
	k := &Kit{kernel: filepath.Join(root, Folder, "vmlinuz"), initrd: filepath.Join(dir, "initrd"), dir: dir}
	if k.qemu, err = look("qemu-system-x86_64"); err != nil {
		return nil, err
	}
	guest := filepath.Join(dir, "guest")
	build := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", guest, "./testkit/machine/guest")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -trimpath", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("the machine's first program does not build: %w\n%s", err, out)
	}
	busybox, err := look("busybox")
	if err != nil {
		return nil, err
	}
	files := map[string]string{"init": guest, "bin/hermes": hermes, "bin/busybox": busybox}
	for i, m := range modules {
		files[fmt.Sprintf("modules/%02d-%s.ko", i, m)] = filepath.Join(root, Folder, m+".ko")
	}
	return k, k.pack(files)
}

// pack writes the archive that the kernel unpacks into its first file system
// (https://docs.kernel.org/driver-api/early-userspace/buffer-format.html).
func (k *Kit) pack(files map[string]string) error {
	var out bytes.Buffer
	entries := 0
	entry := func(name string, mode int, data []byte) {
		entries++
		fields := []int{entries, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0}
		out.WriteString("070701")
		for _, f := range fields {
			fmt.Fprintf(&out, "%08x", f)
		}
		out.WriteString(name)
		out.Write(make([]byte, 1+pad(110+len(name)+1)))
		out.Write(data)
		out.Write(make([]byte, pad(len(data))))
	}
	for _, d := range []string{"bin", "dev", "etc", "home", "modules", "proc", "sys", "tmp"} {
		entry(d, 0o040755, nil)
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		data, err := os.ReadFile(files[name])
		if err != nil {
			return err
		}
		entry(name, 0o100755, data)
	}
	for _, a := range applets {
		entry("bin/"+a, 0o120777, []byte("busybox"))
	}
	entry("bin/bash", 0o100755, []byte("#!/bin/sh\nexec /bin/sh \"$@\"\n"))
	entry("etc/passwd", 0o100644, []byte("root:x:0:0:root:/home:/bin/sh\n"))
	entry("etc/hosts", 0o100644, []byte("127.0.0.1 localhost\n"))
	entry("TRAILER!!!", 0, nil)
	return os.WriteFile(k.initrd, out.Bytes(), 0o600)
}

// pad is what is missing to a multiple of four.
func pad(n int) int { return -n & 3 }

// Image makes an ext4 file system of so many MiB with these files, by their paths.
func (k *Kit) Image(ctx context.Context, mib int, files map[string]string) ([]byte, error) {
	dir, err := os.MkdirTemp(k.dir, "image")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	tree := filepath.Join(dir, "tree")
	for name, text := range files {
		path := filepath.Join(tree, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		mode := os.FileMode(0o600)
		if strings.HasSuffix(name, ".sh") {
			mode = 0o700
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			return nil, err
		}
	}
	mkfs, err := look("mke2fs")
	if err != nil {
		return nil, err
	}
	image := filepath.Join(dir, "image")
	// Nothing is left for the kernel to write later, so that writes are those of
	// what is tested.
	cmd := exec.CommandContext(ctx, mkfs, "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", tree, image, fmt.Sprintf("%dM", mib))
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mke2fs: %w\n%s", err, out)
	}
	return os.ReadFile(image)
}
