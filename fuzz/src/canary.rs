//! A target with a planted bug. A fuzzing set-up that does not find it within seconds finds nothing else either.

/// Four bytes that chance alone takes years to hit, and coverage leads to.
pub const BUG: [u8; 4] = *b"MILL";

/// Fails on bytes that start with [`BUG`].
pub fn run(bytes: &[u8]) {
    let mut matched = 0;
    for (byte, expected) in bytes.iter().zip(BUG) {
        if *byte != expected {
            break;
        }
        matched += 1;
    }
    assert!(matched < BUG.len(), "the canary sings: this bug is planted");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_planted_bug_is_there() {
        assert!(std::panic::catch_unwind(|| run(b"MILLSTREAM")).is_err());
        run(b"MILk");
        run(b"MIL");
    }
}
