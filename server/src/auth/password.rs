//! Passwords: RabbitMQ's `rabbit_password_hashing_sha256`, so that its definitions can be taken over. Four bytes of salt, then
//! SHA-256 over the salt and the password.

use sha2::{Digest, Sha256};

const SALT_BYTES: usize = 4;

fn digest(salt: &[u8], password: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(password).finalize().into()
}

/// The hash to keep of a password.
pub fn hash_password(password: &[u8], salt: [u8; SALT_BYTES]) -> Vec<u8> {
    [&salt[..], &digest(&salt, password)].concat()
}

/// Whether a password is the one that was hashed. Takes as long for one that is nearly right. The empty password never is.
pub fn password_matches(hash: &[u8], password: &[u8]) -> bool {
    let Some((salt, expected)) = hash.split_at_checked(SALT_BYTES) else { return false };
    let found = digest(salt, password);
    let differing = found.iter().zip(expected).fold(0, |differing, (one, other)| differing | (one ^ other));
    !password.is_empty() && expected.len() == found.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_rabbitmqs() {
        // From RabbitMQ's documentation of the algorithm: password `test12`, salt 908DC60A.
        let salt = [0x90, 0x8D, 0xC6, 0x0A];
        let hash = hash_password(b"test12", salt);
        let expected = 0xA5B9_24B3_096B_8897_D65A_3B5F_80FA_5DB6_u128.to_be_bytes();
        assert_eq!(hash.split_at(20).0, [&salt[..], &expected].concat());
        assert!(password_matches(&hash, b"test12"));
        assert!(!password_matches(&hash, b"test13"));
    }

    #[test]
    fn nothing_matches_no_password() {
        assert!(!password_matches(&[], b"x"));
        assert!(!password_matches(&hash_password(b"", [1; 4]), b""));
    }
}
