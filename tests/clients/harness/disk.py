#!/usr/bin/env python3
"""A disk whose power can be cut: what was written and not flushed is in its cache, and lost then, or kept, block by block as chance has
it. A file system of one file, `disk`, for the kernel's loop driver, which passes on flushes: FUSE's protocol, spoken by hand, since no
kernel that one comes across has dm-log-writes.

    disk.py IMAGE DIRECTORY     mounts it; IMAGE is what is durable
    cut SEED                    on standard input: power is lost, where that hurts, as the next flush is asked for, or in a second;
                                tells how many blocks were lost and kept, and ends
"""

import ctypes
import errno
import os
import random
import selectors
import stat
import struct
import sys
import time

BLOCK = 4096
ROOT, DISK = 1, 2
NAME = b"disk"
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC = 1, 2, 3, 4, 14, 15, 16, 17, 18, 20
FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 25, 26, 27, 28, 29, 36, 38, 42
BIG_WRITES, MAX_PAGES = 1 << 5, 1 << 22
WRITE_BYTES_MAX = 1 << 20
HEADER = struct.Struct("<IIQQIIIHH")


class Disk:
    def __init__(self, image):
        self.image = os.open(image, os.O_RDWR)
        self.size = os.fstat(self.image).st_size
        # Blocks that were written since the last flush.
        self.cache = {}

    def read(self, at, size):
        size = max(0, min(size, self.size - at))
        first, last = at // BLOCK, (at + size + BLOCK - 1) // BLOCK
        if not any(block in self.cache for block in range(first, last)):
            return os.pread(self.image, size, at)
        found = b"".join(self.block(block) for block in range(first, last))
        return found[at - first * BLOCK :][:size]

    def block(self, block):
        return self.cache.get(block) or os.pread(self.image, BLOCK, block * BLOCK)

    def write(self, at, data):
        while data:
            block, start = divmod(at, BLOCK)
            piece = data[: BLOCK - start]
            if len(piece) < BLOCK:
                old = self.block(block)
                piece = old[:start] + piece + old[start + len(piece) :]
            self.cache[block] = piece
            done = BLOCK - start
            at, data = at + done, data[done:]

    def flush(self):
        for block, data in self.cache.items():
            os.pwrite(self.image, data, block * BLOCK)
        self.cache.clear()

    def cut(self, seed):
        """Of the cache, chance keeps nothing, everything, or some."""
        rng = random.Random(seed)
        share = rng.choice([0, 1, rng.random()])
        written = len(self.cache)
        self.cache = {block: data for block, data in self.cache.items() if rng.random() < share}
        kept = len(self.cache)
        self.flush()
        os.fsync(self.image)
        return written - kept, kept

    def attributes(self, node):
        directory = node == ROOT
        mode = stat.S_IFDIR | 0o755 if directory else stat.S_IFREG | 0o600
        size = 0 if directory else self.size
        return struct.pack("<6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, BLOCK, 0)

    def answer(self, opcode, node, body):
        """What a request is answered; an error's number if it cannot be."""
        if opcode == INIT:
            flags = struct.unpack_from("<4I", body)[3] & (BIG_WRITES | MAX_PAGES)
            return struct.pack("<4I2H2I2HI28x", 7, 31, 0, flags, 16, 12, WRITE_BYTES_MAX, 1, WRITE_BYTES_MAX // BLOCK, 0, 0)
        if opcode == LOOKUP:
            if body.rstrip(b"\0") != NAME:
                return errno.ENOENT
            return struct.pack("<4Q2I", DISK, 0, 3600, 3600, 0, 0) + self.attributes(DISK)
        if opcode in (GETATTR, SETATTR):
            return struct.pack("<Q2I", 3600, 0, 0) + self.attributes(node)
        if opcode in (OPEN, OPENDIR):
            return struct.pack("<Q2I", node, 0, 0)
        if opcode == READ:
            _, at, size = struct.unpack_from("<2QI", body)
            return self.read(at, size)
        if opcode == WRITE:
            _, at, size = struct.unpack_from("<2QI", body)
            self.write(at, body[40 : 40 + size])
            return struct.pack("<2I", size, 0)
        if opcode == FSYNC:
            self.flush()
            return b""
        if opcode in (RELEASE, RELEASEDIR, FLUSH, READDIR, DESTROY):
            return b""
        if opcode == STATFS:
            return struct.pack("<5Q4I24x", 0, 0, 0, 1, 0, BLOCK, 255, BLOCK, 0)
        return errno.ENOSYS


def serve(image, directory):
    disk = Disk(image)
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"powerloss", os.fsencode(directory), b"fuse", 0, options):
        sys.exit(f"mounting: {os.strerror(ctypes.get_errno())}")
    print("mounted", flush=True)
    both = selectors.DefaultSelector()
    both.register(device, selectors.EVENT_READ)
    both.register(sys.stdin, selectors.EVENT_READ)
    seed = end = None
    while True:
        ready = {key.fileobj for key, _ in both.select(end and max(0, end - time.monotonic()))}
        if end and time.monotonic() > end:
            return disk.cut(seed)
        if sys.stdin in ready:
            word = sys.stdin.readline().split()
            if not word:
                return None
            both.unregister(sys.stdin)
            seed, end = int(word[1]), time.monotonic() + 1
        if device not in ready:
            continue
        try:
            request = os.read(device, WRITE_BYTES_MAX + BLOCK)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None  # It was unmounted.
            if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                continue
            raise
        _, opcode, unique, node, *_ = HEADER.unpack_from(request)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            continue
        if end and opcode == FSYNC and disk.cache:
            return disk.cut(seed)
        answer = disk.answer(opcode, node, request[HEADER.size :])
        error, answer = (-answer, b"") if isinstance(answer, int) else (0, answer)
        os.write(device, struct.pack("<IiQ", 16 + len(answer), error, unique) + answer)


if __name__ == "__main__":
    if blocks := serve(*sys.argv[1:]):
        print(*blocks, flush=True)
