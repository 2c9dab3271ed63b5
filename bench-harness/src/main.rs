//! `millbench`: measures Millstream beside the machine's limits and its peers.

fn main() {}
