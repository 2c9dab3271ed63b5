//! A work queue, as a state machine without I/O: which messages wait, who keeps which, and what is to be done next.
//!
//! [`Queue`] sees no bytes, only where they are ([`Locator`]) and how many. Its methods are its inputs; [`Output`] is what it
//! wants done, appended to a list of the caller's. Time is passed in.
//!
//! ```text
//!                                      delivered, no_ack
//!                 +------------------------------------------------------------+
//!                 |                                                            v
//!   publish --> Ready --- delivered ---> Kept --------------- Ack --------> settled
//!                 |  ^                    |  |                                 ^
//!                 |  +----- Requeue ------+  | Reject, Requeue past the limit  |
//!                 |     to its old place     v                                 |
//!                 +--- expired, no room --> Leaving -------- left -------------+
//!                                        (if the host wants to be asked)
//! ```
//!
//! # In which order to call
//! 1. [`Queue::admit`], and unless it says no, [`Queue::publish`]; [`Queue::settle`], [`Queue::credit`] and the others, as they
//!    come in. These only change the state.
//! 2. Once per turn, [`Queue::run`] for each queue that was touched: it delivers, expires and makes room, within a budget.
//!    So a batch of messages is there when the first consumer is looked for, and a message that may not wait at all
//!    meets every consumer that could take it.
//! 3. [`Queue::next_deadline`]: call `run` again by then, whatever happens.
//! 4. [`Queue::page_out`] when memory is short, and [`Queue::page_in`] when a page is asked for.
//! 5. [`Queue::tell_leaving`] when the host can take dead letters; [`Queue::left`] when one has gone where it belongs.
//!
//! **What holds.** A message is in one state. Numbers are given once. Among consumers of one priority the messages go round;
//! each message goes out in the order of its number, which for messages of equal priority is the order of publishing. Nothing
//! is delivered after it has expired. Publishing, delivering and settling take the same time however long the queue is, but for
//! a search among its chunks once in 64 messages.

mod chunk;
mod consuming;
mod events;
mod index;
mod keepers;
mod paging;
mod recovery;
mod settling;
mod state;
mod work;

#[cfg(test)]
mod tests;

pub use events::{
    Admission, Cause, Consume, ConsumeError, Credit, Delivery, Incoming, Keeper, LeaveReason, Locator,
    Output, PageId, QueueCounts, QueueStats, Stored, Token, Verdict,
};
pub use index::rank_of;
pub use recovery::Recovered;
pub use state::Queue;
