//! The kernel without an engine in between: what the limits are measured with.
//!
//! The workspace keeps `unsafe` to the engine's buffers, ring and mailbox, and forbids it in the server. The harness
//! cannot measure raw operations without it, and keeps all of it in this file, behind functions that are safe to call:
//! no function here returns while the kernel may still touch memory that was lent to it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr::{NonNull, null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode};

/// The processors that this process may run on, in order.
pub fn cpus() -> Vec<usize> {
    // SAFETY: a cpu_set_t is an array of integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for writes of the size given.
    let done = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if done != 0 {
        return vec![0];
    }
    // SAFETY: every index lies below CPU_SETSIZE.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Pins the calling thread to one processor of [`cpus`].
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: as in `cpus`.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    assert!(cpu < libc::CPU_SETSIZE as usize, "a processor's number comes from `cpus`");
    // SAFETY: the index was checked; `set` is valid for reads of the size given.
    let done = unsafe {
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    check(i64::from(done)).map(drop)
}

/// Whose processor time.
#[derive(Clone, Copy)]
pub enum Clock {
    /// All threads of this process, its kernel workers included.
    Process,
    /// The calling thread.
    Thread,
}

/// Processor time used since a moment.
pub struct CpuTimer {
    clock: Clock,
    started: Duration,
}

impl CpuTimer {
    /// Starts now, on the thread that will look at it.
    pub fn start(clock: Clock) -> CpuTimer {
        CpuTimer { clock, started: cpu_time(clock) }
    }

    /// What was used since.
    pub fn elapsed(&self) -> Duration {
        cpu_time(self.clock).saturating_sub(self.started)
    }
}

fn cpu_time(clock: Clock) -> Duration {
    let id = match clock {
        Clock::Process => libc::CLOCK_PROCESS_CPUTIME_ID,
        Clock::Thread => libc::CLOCK_THREAD_CPUTIME_ID,
    };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes.
    let done = unsafe { libc::clock_gettime(id, &raw mut time) };
    assert!(done == 0, "Linux has both clocks");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Processor time that a process has used so far: all its threads, its kernel workers included.
pub fn process_cpu(process: u32) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: `clock` is valid for writes.
    match unsafe { libc::clock_getcpuclockid(process as libc::pid_t, &raw mut clock) } {
        0 => {}
        errno => return Err(io::Error::from_raw_os_error(errno)),
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes.
    check(i64::from(unsafe { libc::clock_gettime(clock, &raw mut time) }))?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Lets this process and its children have as many descriptors as the system allows, and says how many those are.
pub fn raise_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes.
    check(i64::from(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }))?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid for reads.
    check(i64::from(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }))?;
    Ok(limit.rlim_cur)
}

/// Whether somebody asked the harness to stop.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_interrupt(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Has the first Ctrl-C, or request to end, be noted instead of ending the process; the second one ends it.
pub fn note_interrupts() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: a sigaction is integers and pointers, for which zero is a value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = note_interrupt as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESETHAND;
        // SAFETY: the handler only stores to an atomic; `action` is valid for reads.
        let done = unsafe { libc::sigaction(signal, &raw const action, null_mut()) };
        assert!(done == 0, "the signals exist and may be caught");
    }
}

/// Whether it was: whatever runs long looks at this, and ends early.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// How often whoever waits looks at it.
pub const LOOK: Duration = Duration::from_millis(20);

/// What a process can be told.
#[derive(Clone, Copy)]
pub enum Signal {
    /// End in good order.
    End,
    /// End at once.
    Kill,
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
}

/// Tells a process; one that has ended already is an error.
pub fn signal(process: u32, signal: Signal) -> io::Result<()> {
    let signal = match signal {
        Signal::End => libc::SIGTERM,
        Signal::Kill => libc::SIGKILL,
        Signal::Pause => libc::SIGSTOP,
        Signal::Resume => libc::SIGCONT,
    };
    // SAFETY: no memory is passed.
    check(i64::from(unsafe { libc::kill(process as libc::pid_t, signal) })).map(drop)
}

/// Has a child be killed when this process ends, however it ends, and keeps Ctrl-C at the terminal from it.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    let parent = std::process::id();
    command.process_group(0);
    // SAFETY: between fork and exec only calls that are allowed there are made: prctl and getppid.
    unsafe {
        command.pre_exec(move || {
            check(i64::from(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)))?;
            if libc::getppid() as u32 == parent { Ok(()) } else { Err(ErrorKind::BrokenPipe.into()) }
        })
    }
}

/// Has the system write what waits in the page cache, and waits until that is done.
pub fn sync() {
    // SAFETY: no memory is passed.
    unsafe { libc::sync() };
}

/// Says which of many connections have something to read.
pub struct Readable {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Readable {
    /// Of no connection yet.
    pub fn new() -> io::Result<Readable> {
        // SAFETY: no memory is passed.
        let fd = check(i64::from(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }))?;
        // SAFETY: the descriptor was just made and is owned by nobody else.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        Ok(Readable { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; 256] })
    }

    /// Of this one too, under a number. It is forgotten when it is closed.
    pub fn add(&mut self, connection: &impl AsRawFd, number: usize) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number as u64 };
        let (epoll, fd) = (self.epoll.as_raw_fd(), connection.as_raw_fd());
        // SAFETY: `event` is valid for reads.
        check(i64::from(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) })).map(drop)
    }

    /// Waits for some, or for so long, and gives their numbers.
    pub fn wait(&mut self, for_ms: i32) -> io::Result<impl Iterator<Item = usize> + '_> {
        let (epoll, room) = (self.epoll.as_raw_fd(), self.events.len() as i32);
        // SAFETY: `events` is valid for writes of as many events as are asked for.
        let came = unsafe { libc::epoll_wait(epoll, self.events.as_mut_ptr(), room, for_ms) };
        let came = match check(i64::from(came)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            came => came? as usize,
        };
        Ok(self.events.iter().take(came).map(|event| event.u64 as usize))
    }
}

/// Sleeps until `word` is no longer `expected`, or [`futex_wake`] is called, or for no reason.
pub fn futex_wait(word: &AtomicU32, expected: u32) {
    // SAFETY: the address is that of a live u32; no timeout is passed.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            null::<libc::timespec>(),
        );
    }
}

/// Wakes one thread that sleeps in [`futex_wait`] on `word`.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: the address is that of a live u32.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
    }
}

/// An eventfd, to be read and written eight bytes at a time.
pub fn eventfd() -> io::Result<File> {
    // SAFETY: no memory is passed.
    let fd = check(i64::from(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) }))?;
    // SAFETY: the descriptor was just made and is owned by nobody else.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}

/// Allocates the file's blocks without writing them.
pub fn fallocate(file: &File, len: u64) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(i64::from(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len as i64) })).map(drop)
}

/// Drops the file's clean pages from the page cache.
pub fn drop_cache(file: &File) -> io::Result<()> {
    // SAFETY: no memory is passed.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Bytes that are free for us on the file system that holds `file`.
pub fn free_bytes(file: &File) -> io::Result<u64> {
    // SAFETY: a statvfs is integers, for which zero is a value.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid for writes.
    check(i64::from(unsafe { libc::fstatvfs(file.as_raw_fd(), &raw mut stat) }))?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// A new file without a name: nothing is left of it when the harness ends, however it ends. With `direct`, past the
/// page cache; refused with [`ErrorKind::InvalidInput`] where the file system cannot do that.
pub fn scratch_file(dir: &Path, direct: bool) -> io::Result<File> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("scratch-{}-{number}", std::process::id()));
    let flags = if direct { libc::O_DIRECT } else { 0 };
    let file = OpenOptions::new().read(true).write(true).create_new(true).custom_flags(flags).open(&path);
    // A file system that refuses O_DIRECT may have made the file all the same.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => file,
    }
}

fn check(done: i64) -> io::Result<i64> {
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

/// A stretch of address space, unmapped when dropped.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; who may write is settled by the types that hold it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(len: usize, protection: i32, flags: i32, fd: RawFd) -> io::Result<Mapping> {
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(null_mut(), len, protection, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap without MAP_FIXED does not map the null page");
        Ok(Mapping { start, len })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the stretch is mapped, readable, and initialised by the kernel, as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this very length, and unmapped once.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A huge page.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Page-aligned memory, zeroed, in huge pages where the system has them: what the machine can do is measured with the memory
/// that suits it best.
pub struct Memory {
    mapping: Mapping,
    len: usize,
}

impl Memory {
    /// `len` bytes, taken from the system when they are first touched.
    pub fn zeroed(len: usize) -> io::Result<Memory> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let whole = len.next_multiple_of(HUGE_PAGE_BYTES);
        let mapping = Mapping::new(whole, libc::PROT_READ | libc::PROT_WRITE, flags, -1)?;
        // SAFETY: the stretch is the mapping's own; a refusal changes nothing but the speed.
        unsafe { libc::madvise(mapping.start.as_ptr().cast(), whole, libc::MADV_HUGEPAGE) };
        Ok(Memory { mapping, len })
    }
}

impl Deref for Memory {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.mapping.bytes()[..self.len]
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; mapped writable, private to this process, and borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.start.as_ptr(), self.len) }
    }
}

/// A file's first bytes, mapped to be read.
pub struct Map(Mapping);

impl Map {
    /// Maps `len` bytes of a scratch file, which has no name, so that nobody cuts or writes it meanwhile.
    pub fn of(file: &File, len: usize) -> io::Result<Map> {
        assert!(file.metadata()?.len() >= len as u64, "only bytes that exist are mapped");
        Mapping::new(len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd()).map(Map)
    }
}

impl Deref for Map {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// What a stream of operations does.
#[derive(Clone, Copy)]
pub enum Op {
    /// Writes from the buffer.
    Write,
    /// Reads into the buffer.
    Read,
}

/// An io_uring, used by the thread that made it.
pub struct Ring {
    ring: IoUring,
}

impl Ring {
    /// A ring with room for `entries` operations.
    pub fn new(entries: u32) -> io::Result<Ring> {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries)?;
        Ok(Ring { ring })
    }

    fn push(&mut self, entry: &Entry) {
        // SAFETY: whatever the entry points to is borrowed by the function that pushes it, and that function waits
        // for the completion before it returns.
        unsafe { self.ring.submission().push(entry) }
            .expect("fewer operations are in flight than the ring holds");
    }

    /// Submits, waits for `count` completions, and gives their tags and results to `each`. If the wait itself
    /// fails, there is no way back: the kernel may still touch memory that a caller would free.
    fn wait(&mut self, count: usize, mut each: impl FnMut(u64, i32)) -> usize {
        let mut seen = 0;
        while seen < count {
            match self.ring.submit_and_wait(count - seen) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    eprintln!("io_uring_enter failed with operations in flight: {error}");
                    std::process::abort();
                }
            }
            for completion in self.ring.completion() {
                each(completion.user_data(), completion.result());
                seen += 1;
            }
        }
        seen
    }

    fn write_entry(file: &File, bytes: &[u8], at: u64) -> Entry {
        opcode::Write::new(Fd(file.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32).offset(at).build()
    }

    fn flush_entry(file: &File) -> Entry {
        opcode::Fsync::new(Fd(file.as_raw_fd())).flags(FsyncFlags::DATASYNC).build()
    }

    /// Writes, and flushes in an operation that is linked to the write: one submission, one wait.
    pub fn append_linked(&mut self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        self.append_beside(file, bytes, at, || {})
    }

    /// The same, and does `work` while the disk is at it.
    pub fn append_beside(
        &mut self,
        file: &File,
        bytes: &[u8],
        at: u64,
        work: impl FnOnce(),
    ) -> io::Result<()> {
        self.push(&Ring::write_entry(file, bytes, at).flags(Flags::IO_LINK).user_data(0));
        self.push(&Ring::flush_entry(file).user_data(1));
        // Should the kernel not take them now, the wait below submits them.
        let _ = self.ring.submit();
        work();
        let mut results = [0; 2];
        self.wait(2, |tag, result| results[tag as usize] = result);
        whole(results[0], bytes.len())?;
        whole(results[1], 0)
    }

    /// Writes, waits, flushes, waits.
    pub fn append_unlinked(&mut self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        self.push(&Ring::write_entry(file, bytes, at));
        self.one(bytes.len())?;
        self.flush(file)
    }

    /// Flushes the file's data.
    pub fn flush(&mut self, file: &File) -> io::Result<()> {
        self.push(&Ring::flush_entry(file));
        self.one(0)
    }

    fn one(&mut self, expected: usize) -> io::Result<()> {
        let mut outcome = 0;
        self.wait(1, |_, result| outcome = result);
        whole(outcome, expected)
    }

    /// Goes through the file's first `len` bytes in steps of `step`, from the front and around again, with as many
    /// operations in flight as `buffer` has steps, until `span` is over. Gives the bytes done.
    pub fn stream(
        &mut self,
        file: &File,
        op: Op,
        buffer: &mut [u8],
        step: usize,
        len: u64,
        span: Duration,
    ) -> io::Result<u64> {
        let started = Instant::now();
        let mut free: Vec<(u64, &mut [u8])> =
            buffer.chunks_exact_mut(step).enumerate().map(|(i, s)| (i as u64, s)).collect();
        let mut busy: Vec<Option<&mut [u8]>> = free.iter().map(|_| None).collect();
        let (mut at, mut done, mut in_flight) = (0, 0, 0_usize);
        let mut failure = None;
        loop {
            while failure.is_none() && started.elapsed() < span {
                let Some((tag, slot)) = free.pop() else { break };
                let entry = match op {
                    Op::Write => Ring::write_entry(file, slot, at),
                    Op::Read => opcode::Read::new(Fd(file.as_raw_fd()), slot.as_mut_ptr(), step as u32)
                        .offset(at)
                        .build(),
                };
                self.push(&entry.user_data(tag));
                busy[tag as usize] = Some(slot);
                at = (at + step as u64) % len;
                in_flight += 1;
            }
            if in_flight == 0 {
                return failure.map_or(Ok(done), Err);
            }
            in_flight -= self.wait(1, |tag, result| {
                match whole(result, step) {
                    Ok(()) => done += step as u64,
                    Err(error) => failure = Some(error),
                }
                free.push((tag, busy[tag as usize].take().expect("an operation completes once")));
            });
        }
    }

    /// What [`Ring::send_message`] is addressed to.
    pub fn address(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// Posts a completion into another thread's ring, and waits until that is done.
    pub fn send_message(&mut self, to: RawFd) -> io::Result<()> {
        self.push(
            &opcode::MsgRingData::new(Fd(to), 0, 0, None).build().flags(Flags::SKIP_SUCCESS).user_data(1),
        );
        self.ring.submit().map(drop)
    }

    /// Waits for a completion that another ring posted.
    pub fn receive_message(&mut self) -> io::Result<()> {
        self.one(0)
    }
}

/// A completion's result, which must be `expected`.
fn whole(result: i32, expected: usize) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    if result as usize != expected {
        return Err(io::Error::other(format!("{result} bytes were moved instead of {expected}")));
    }
    Ok(())
}
