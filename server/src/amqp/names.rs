//! Names that we make up: for queues and consumers whose clients leave that to us.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// `prefix`, then 22 characters that say 128 random bits.
pub fn random_name(prefix: &str, random: [u64; 2]) -> Vec<u8> {
    let mut name = prefix.as_bytes().to_vec();
    let mut bits = u128::from(random[0]) << 64 | u128::from(random[1]);
    for _ in 0..22 {
        name.push(ALPHABET[(bits & 63) as usize]);
        bits >>= 6;
    }
    name
}

/// A name without line ends, which RabbitMQ drops from what is declared.
pub fn without_line_ends(name: &[u8]) -> Vec<u8> {
    name.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_differ_in_every_bit() {
        let name = |random| String::from_utf8(random_name("amq.gen-", random)).unwrap();
        assert_eq!(name([0, 0]), format!("amq.gen-{}", "A".repeat(22)));
        assert_ne!(name([1 << 63, 0]), name([0, 0]));
        assert_ne!(name([0, 1]), name([0, 0]));
        assert_eq!(without_line_ends(b"a\r\nb\n"), b"ab");
    }
}
