//! Who may do what: passwords as RabbitMQ hashes them, and permissions as regular expressions over names.

mod password;
mod pattern;

pub use password::{SHA256_HASH_BYTES, SHA512_HASH_BYTES, hash_password, password_matches};
pub use pattern::Pattern;
