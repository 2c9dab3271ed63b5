//! The ring itself: set up, fed, waited on.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue};

use super::clock;
use crate::io::Wait;
use crate::limits::{
    COMPLETIONS_PER_TURN, DISK_WORKERS_MAX, OTHER_WORKERS_MAX, RING_COMPLETIONS, RING_ENTRIES,
};
use crate::time::Nanos;

/// A reactor that has run this long without sleeping gives way to the worker that carries the flush. The worker shares
/// its core, and would else wait for the scheduler's next tick, 4 ms on a kernel with HZ=250.
const RUN_BEFORE_YIELD: Nanos = Nanos::from_millis(1);

/// Whom a completion concerns; what the kernel carries as user data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// Another shard woke us.
    Wake,
    /// Nobody waits for it: an attempt to cancel or to wake that came too late.
    Nobody,
    /// The bell rang.
    Bell,
    /// A disk operation, or the write half of a durable append.
    Disk(u32),
    /// A flush: an operation of its own, or the second half of a durable append.
    Flush(u32),
    /// A listener's accept.
    Accept(u32),
    /// A connection's receive.
    Receive(u32),
    /// A connection's send.
    Send(u32),
}

impl Owner {
    pub(super) fn pack(self) -> u64 {
        let (kind, index) = match self {
            Owner::Wake => (0, 0),
            Owner::Nobody => (1, 0),
            Owner::Bell => (2, 0),
            Owner::Disk(index) => (3, index),
            Owner::Flush(index) => (4, index),
            Owner::Accept(index) => (5, index),
            Owner::Receive(index) => (6, index),
            Owner::Send(index) => (7, index),
        };
        kind << 32 | u64::from(index)
    }

    fn unpack(packed: u64) -> Owner {
        let index = packed as u32;
        match packed >> 32 {
            0 => Owner::Wake,
            1 => Owner::Nobody,
            2 => Owner::Bell,
            3 => Owner::Disk(index),
            4 => Owner::Flush(index),
            5 => Owner::Accept(index),
            6 => Owner::Receive(index),
            7 => Owner::Send(index),
            kind => panic!("the kernel returned user data of kind {kind}, which nobody gave it"),
        }
    }

    /// Whether a completion is sure to come. The others complete only if they fail, or come from elsewhere.
    fn is_awaited(self) -> bool {
        !matches!(self, Owner::Wake | Owner::Nobody)
    }
}

/// What the kernel answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub owner: Owner,
    /// A count, a descriptor, or a negated errno.
    pub result: i32,
    flags: u32,
}

impl Completion {
    /// Whether more completions of the same operation follow.
    pub(super) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The lent buffer that was filled.
    pub(super) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// A ring. It belongs to the thread that made it: the kernel refuses submissions of any other (`SINGLE_ISSUER`), and
/// that is why the type is not `Send`.
pub(super) struct Ring {
    uring: IoUring,
    /// Taken from the completion queue, and not yet looked at.
    pending: VecDeque<Completion>,
    /// Operations whose last completion is to come.
    outstanding: usize,
    /// Flushes among them.
    flushes: usize,
    /// When this thread last slept.
    slept: Nanos,
    not_send: PhantomData<*const ()>,
}

/// The flags in the order of their arrival in the kernel, newest first: where a kernel refuses all, the next line is
/// tried. `DEFER_TASKRUN` (6.1) runs completions when we ask for them and at no other time; it needs `SINGLE_ISSUER`
/// (6.0). `COOP_TASKRUN` (5.19) spares the interrupt. `TASKRUN_FLAG` tells whether it is worth to ask.
fn build(entries: u32, completions: u32) -> io::Result<IoUring> {
    let mut refused = None;
    for age in 0..4 {
        let mut builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(completions).dontfork();
        if age < 3 {
            builder.setup_submit_all().setup_coop_taskrun().setup_taskrun_flag();
        }
        if age < 2 {
            builder.setup_single_issuer();
        }
        if age < 1 {
            builder.setup_defer_taskrun();
        }
        match builder.build(entries) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = Some(error),
            outcome => return outcome,
        }
    }
    Err(refused.expect("the loop ends early unless a set of flags was refused"))
}

impl Ring {
    pub(super) fn new() -> io::Result<Ring> {
        let uring = build(RING_ENTRIES, RING_COMPLETIONS)?;
        // See `limits`: cold reads and changes of names must leave a worker for the flush of a commit.
        uring.submitter().register_iowq_max_workers(&mut [DISK_WORKERS_MAX, OTHER_WORKERS_MAX])?;
        Ok(Ring {
            uring,
            pending: VecDeque::with_capacity(COMPLETIONS_PER_TURN),
            outstanding: 0,
            flushes: 0,
            slept: clock::now(),
            not_send: PhantomData,
        })
    }

    pub(super) fn uring(&self) -> &IoUring {
        &self.uring
    }

    pub(super) fn fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    /// Operations whose last completion is to come.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Queues an operation.
    ///
    /// # Safety
    ///
    /// All memory that `entry` points to must stay where it is, untouched by us, until the operation's last completion.
    pub(super) unsafe fn push(&mut self, owner: Owner, entry: Entry) {
        self.make_room(1);
        // SAFETY: the caller's promise.
        unsafe { self.push_into_room(owner, entry) }
    }

    /// Queues two operations, of which the second runs only if the first has done all it was told to.
    ///
    /// # Safety
    ///
    /// As for [`Ring::push`].
    pub(super) unsafe fn push_linked(&mut self, first: (Owner, Entry), second: (Owner, Entry)) {
        // A link does not reach over two submissions.
        self.make_room(2);
        // SAFETY: the caller's promise.
        unsafe {
            self.push_into_room(first.0, first.1.flags(Flags::IO_LINK));
            self.push_into_room(second.0, second.1);
        }
    }

    /// Queues an operation that points to no memory, and that is heard of only if it fails.
    pub(super) fn push_quiet(&mut self, entry: Entry) {
        self.make_room(1);
        // SAFETY: used for cancelling and for messages to rings, which point to no memory.
        unsafe { self.push_into_room(Owner::Nobody, entry.flags(Flags::SKIP_SUCCESS)) }
    }

    /// # Safety
    ///
    /// As for [`Ring::push`].
    unsafe fn push_into_room(&mut self, owner: Owner, entry: Entry) {
        // SAFETY: the caller's promise.
        let pushed = unsafe { self.uring.submission().push(&entry.user_data(owner.pack())) };
        pushed.expect("room was made in the submission queue");
        self.outstanding += usize::from(owner.is_awaited());
        self.flushes += usize::from(matches!(owner, Owner::Flush(_)));
    }

    fn make_room(&mut self, entries: usize) {
        loop {
            let queue = self.uring.submission();
            if queue.capacity() - queue.len() >= entries {
                return;
            }
            drop(queue);
            self.submit();
            // A kernel whose completion queue overflows takes nothing until there is room in it.
            self.reap(usize::MAX);
        }
    }

    /// Submits what is queued, and has the kernel run what it has deferred. Costs nothing if there is neither.
    pub(super) fn submit(&mut self) {
        let queue = self.uring.submission();
        let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        if !idle {
            check(self.uring.submit());
        }
    }

    /// Has the kernel run what it has deferred, if a flush may wait for that.
    pub(super) fn pump(&mut self) {
        if self.flushes > 0 && self.uring.submission().taskrun() {
            check(self.uring.submit());
        }
    }

    /// Sleeps until there is a completion, or that time has come. Submits what is queued first.
    fn sleep(&mut self, until: Option<Nanos>) {
        let Some(until) = until else {
            check(self.uring.submitter().submit_and_wait(1));
            self.slept = clock::now();
            return;
        };
        let left = until.since(clock::now()).0;
        if left == 0 {
            return self.submit();
        }
        let span = Timespec::new().sec(left / 1_000_000_000).nsec((left % 1_000_000_000) as u32);
        check(self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&span)));
        self.slept = clock::now();
    }

    fn reap(&mut self, most: usize) {
        let taken = self.uring.completion().take(most);
        for entry in taken {
            let completion = Completion {
                owner: Owner::unpack(entry.user_data()),
                result: entry.result(),
                flags: entry.flags(),
            };
            if completion.owner.is_awaited() && !completion.more() {
                self.outstanding -= 1;
                self.flushes -= usize::from(matches!(completion.owner, Owner::Flush(_)));
            }
            self.pending.push_back(completion);
        }
    }

    /// Submits what is queued, sleeps as told unless something has completed already, and takes completions.
    pub(super) fn turn(&mut self, wait: Wait) {
        self.reap(COMPLETIONS_PER_TURN);
        // With a flush under way we must know whether we sleep; so what completes while it is submitted is taken first.
        if wait == Wait::No || self.flushes > 0 || !self.pending.is_empty() {
            self.submit();
            self.reap(COMPLETIONS_PER_TURN);
        }
        if wait == Wait::No || !self.pending.is_empty() {
            return self.give_way();
        }
        self.sleep(match wait {
            Wait::Until(at) => Some(at),
            Wait::No | Wait::Forever => None,
        });
        self.reap(COMPLETIONS_PER_TURN);
    }

    fn give_way(&self) {
        if self.flushes > 0 && clock::now().since(self.slept) > RUN_BEFORE_YIELD {
            std::thread::yield_now();
        }
    }

    /// The next completion that was taken.
    pub(super) fn next(&mut self) -> Option<Completion> {
        self.pending.pop_front()
    }
}

/// Tells what may happen to a submission from what is our fault.
fn check(outcome: io::Result<usize>) {
    if let Err(error) = outcome {
        let expected = [libc::EINTR, libc::ETIME, libc::EAGAIN, libc::EBUSY];
        let errno = error.raw_os_error();
        assert!(
            errno.is_some_and(|errno| expected.contains(&errno)),
            "the ring refuses to be entered: {error}"
        );
    }
}
