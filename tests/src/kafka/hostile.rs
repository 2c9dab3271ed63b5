//! Clients that do what no client should.

use std::net::SocketAddr;

use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::{SimPeer, World};

use super::client::{Ask, write};

/// A topic that nobody else uses: what hostile clients manage to store is nobody's business.
pub const TOPIC: &str = "hostile";

/// What one of them does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Habit {
    /// Sends bytes that mean nothing.
    Garbage,
    /// Announces a frame larger than any that is allowed.
    Oversized,
    /// Sends a part of a large request, and no more.
    Truncated,
    /// Sends requests of which a few bytes are others.
    Mutant,
    /// Sends requests with counts that cannot be.
    Counts,
    /// Sends one byte at a time.
    Dribble,
    /// Asks for much and reads nothing.
    Deaf,
    /// Asks for something and is never heard of again.
    Ghost,
    /// Says nothing at all.
    Idle,
    /// Sends more requests at once than may be under way.
    Flood,
    /// Asks one thing and is gone.
    Brief,
}

const HABITS: [Habit; 11] = [
    Habit::Garbage,
    Habit::Oversized,
    Habit::Truncated,
    Habit::Mutant,
    Habit::Counts,
    Habit::Dribble,
    Habit::Deaf,
    Habit::Ghost,
    Habit::Idle,
    Habit::Flood,
    Habit::Brief,
];

/// One of them, on one connection.
pub struct Hostile {
    peer: SimPeer,
    habit: Habit,
    /// What a dribbling client has left to send.
    left: Vec<u8>,
    acts: u32,
}

impl Hostile {
    /// Connects, with some habit.
    pub fn connect(world: &World, address: SocketAddr, random: &mut Random) -> Hostile {
        let habit = HABITS[random.below(HABITS.len() as u64) as usize];
        Hostile { peer: world.connect(address), habit, left: Vec::new(), acts: 0 }
    }

    /// Whether there is nothing more to be expected of it.
    pub fn is_over(&self) -> bool {
        let done = matches!(self.habit, Habit::Ghost | Habit::Truncated) && self.acts > 300;
        self.peer.is_closed() || done
    }

    /// Goes away, one way or the other.
    pub fn leave(&self, random: &mut Random) {
        match random.below(3) {
            0 => self.peer.reset(),
            1 => self.peer.vanish(),
            _ => self.peer.close(),
        }
    }

    /// Does what it does.
    pub fn act(&mut self, topic: &str, random: &mut Random) {
        self.acts += 1;
        let first = self.acts == 1;
        match self.habit {
            Habit::Garbage => {
                let bytes: Vec<u8> = (0..random.between(1, 3000)).map(|_| random.next() as u8).collect();
                self.peer.send(&bytes);
            }
            Habit::Oversized if first => self.peer.send(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
            Habit::Truncated if first => {
                let whole = some_request(topic, 2 << 20, random);
                self.peer.send(&whole[..random.below(whole.len() as u64) as usize]);
            }
            Habit::Mutant => {
                let mut frame = some_request(TOPIC, 2000, random);
                for _ in 0..random.between(1, 4) {
                    // The length is left as it is, or it would be garbage for the most part.
                    let at = random.between(4, frame.len() as u64 - 1) as usize;
                    frame[at] = [0, 1, 0x7f, 0x80, 0xff, random.next() as u8][random.below(6) as usize];
                }
                self.peer.send(&frame);
                drop(self.peer.received());
            }
            Habit::Counts => {
                let key = [0, 1, 2, 3][random.below(4) as usize];
                let mut frame = vec![0, key, 0, 3, 0, 0, 0, 7, 0xff, 0xff];
                frame.extend(std::iter::repeat_n(0x7f, random.between(4, 60) as usize));
                self.peer.send(&(frame.len() as u32).to_be_bytes());
                self.peer.send(&frame);
            }
            Habit::Dribble => {
                if self.left.is_empty() {
                    self.left = some_request(TOPIC, 100, random);
                    self.left.reverse();
                }
                self.left.pop().into_iter().for_each(|byte| self.peer.send(&[byte]));
                drop(self.peer.received());
            }
            Habit::Deaf => {
                if first {
                    self.peer.pause_reading(true);
                }
                let (index, offset) = (random.below(2) as i32, 0);
                let (topic, max_bytes, max_wait_ms) = (topic.to_owned(), 1 << 20, 0);
                let ask = Ask::Fetch { topic, index, offset, max_bytes, max_wait_ms };
                // What is not read piles up on this side: not for ever.
                if self.peer.unread() < 1 << 20 {
                    self.peer.send(&write(&ask, 1, random.next()).1);
                }
            }
            Habit::Ghost if first => {
                let (topic, index, offset, max_bytes) = (TOPIC.to_owned(), 0, 0, 1 << 20);
                let ask = Ask::Fetch { topic, index, offset, max_bytes, max_wait_ms: 60_000 };
                self.peer.send(&write(&ask, 1, random.next()).1);
                self.peer.vanish();
            }
            Habit::Flood if first => {
                for _ in 0..random.between(100, 600) {
                    self.peer.send(&some_request(TOPIC, 200, random));
                }
            }
            Habit::Flood => drop(self.peer.received()),
            Habit::Brief if first => self.peer.send(&some_request(topic, 1, random)),
            Habit::Brief => self.leave(random),
            Habit::Oversized | Habit::Truncated | Habit::Ghost | Habit::Idle => {}
        }
    }
}

/// A sound request. It stores nothing but in the topic [`TOPIC`].
fn some_request(topic: &str, bytes: usize, random: &mut Random) -> Vec<u8> {
    let (index, offset, max_bytes) = (random.below(3) as i32, random.below(50), 1 << 20);
    let ask = match random.below(6) {
        0 => Ask::Versions,
        1 => Ask::Topic(TOPIC.to_owned()),
        2 => Ask::List { topic: topic.to_owned(), index, timestamp: -1 - random.below(2) as i64 },
        3 => Ask::Fetch { topic: topic.to_owned(), index, offset, max_bytes, max_wait_ms: 20 },
        _ => {
            let value = vec![b'h'; bytes];
            let batch = BatchBuilder::new(1_700_000_000_000).push(None, Some(&value)).build();
            let acks = random.below(3) as i16 - 1;
            Ask::Produce { topic: TOPIC.to_owned(), index, acks, batch }
        }
    };
    write(&ask, 1, random.next()).1
}
