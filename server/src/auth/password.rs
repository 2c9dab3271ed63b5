//! Passwords: RabbitMQ's `rabbit_password_hashing_sha256` and `..._sha512`, so that its definitions can be taken over. Four bytes of
//! salt, then the digest of the salt and the password. How long that is says which of them it is.

use sha2::{Digest, Sha256, Sha512};

const SALT_BYTES: usize = 4;

/// Bytes of a hash by SHA-256, and by SHA-512.
pub const SHA256_HASH_BYTES: usize = SALT_BYTES + 32;
/// See [`SHA256_HASH_BYTES`].
pub const SHA512_HASH_BYTES: usize = SALT_BYTES + 64;

fn digest<D: Digest>(salt: &[u8], password: &[u8]) -> Vec<u8> {
    D::new().chain_update(salt).chain_update(password).finalize().to_vec()
}

/// The hash to keep of a password.
pub fn hash_password(password: &[u8], salt: [u8; SALT_BYTES]) -> Vec<u8> {
    [&salt[..], &digest::<Sha256>(&salt, password)].concat()
}

/// Whether a password is the one that was hashed. Takes as long for one that is nearly right. The empty password never is.
pub fn password_matches(hash: &[u8], password: &[u8]) -> bool {
    let Some((salt, expected)) = hash.split_at_checked(SALT_BYTES) else { return false };
    let found = if hash.len() == SHA512_HASH_BYTES {
        digest::<Sha512>(salt, password)
    } else {
        digest::<Sha256>(salt, password)
    };
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
    fn a_longer_hash_is_one_by_sha_512() {
        let hash = [&[1, 2, 3, 4][..], &digest::<Sha512>(&[1, 2, 3, 4], b"x")].concat();
        assert_eq!(hash.len(), SHA512_HASH_BYTES);
        assert!(password_matches(&hash, b"x") && !password_matches(&hash, b"y"));
        assert!(!password_matches(&hash[..SHA256_HASH_BYTES], b"x"));
    }

    #[test]
    fn nothing_matches_no_password() {
        assert!(!password_matches(&[], b"x"));
        assert!(!password_matches(&hash_password(b"", [1; 4]), b""));
    }
}
