//! `millstream`: the broker.

fn main() {}
