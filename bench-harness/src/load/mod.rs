//! What every load generator is made of, whatever protocol it speaks: pinned threads, a time that all of them measure
//! in, a schedule that does not wait for the server, counts, and what the server used meanwhile.

pub mod count;
pub mod crew;
pub mod footprint;
pub mod inbox;
pub mod keys;
pub mod notify;
pub mod schedule;
pub mod turn;
pub mod window;

pub use count::Count;
pub use window::{Span, Window, now_ns};

/// Bytes at the start of a payload that hold the moment at which it was due, for whoever receives it.
pub const STAMP_BYTES: usize = 8;

/// Says in a payload when it was due.
pub fn stamp(payload: &mut [u8], due_ns: u64) {
    if let Some(place) = payload.first_chunk_mut() {
        *place = due_ns.to_le_bytes();
    }
}

/// When a payload was due; `None` if it does not say.
pub fn stamped(payload: &[u8]) -> Option<u64> {
    let due_ns = u64::from_le_bytes(*payload.first_chunk()?);
    (due_ns > 0).then_some(due_ns)
}

/// A payload of so many bytes that no codec makes smaller, without a stamp. The same for the same `seed`.
pub fn payload(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut payload: Vec<u8> = std::iter::repeat_with(|| keys::mix(&mut state) as u8).take(bytes).collect();
    stamp(&mut payload, 0);
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_when_it_was_due_and_only_then() {
        let mut bytes = payload(100, 1);
        assert_eq!(stamped(&bytes), None);
        stamp(&mut bytes, 77);
        assert_eq!(stamped(&bytes), Some(77));
        let mut short = payload(3, 1);
        stamp(&mut short, 77);
        assert_eq!(stamped(&short), None, "there is no room for it");
    }
}
