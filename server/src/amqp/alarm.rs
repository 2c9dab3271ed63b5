//! What publishers have to wait for: the disk is nearly full, or memory is short. As in RabbitMQ, whoever publishes meanwhile is told
//! so if it understands that, and is not read from until it is over; consumers go on.

use millstream_engine::io::Space;

use super::kept::Everybody;
use crate::limits::AMQP_PUBLISHING_BYTES_PER_SHARD_MAX;

/// What is short.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Alarms {
    disk: bool,
    memory: bool,
}

impl Alarms {
    /// Whether anything is short.
    pub fn any(self) -> bool {
        self.disk || self.memory
    }

    /// What is told, in RabbitMQ's words.
    pub fn reason(self) -> &'static [u8] {
        match (self.memory, self.disk) {
            (true, true) => b"low on memory & disk",
            (true, false) => b"low on memory",
            _ => b"low on disk",
        }
    }

    /// Something could not be stored.
    pub fn disk_is_full(&mut self) {
        self.disk = true;
    }

    /// The disk has so much space. Publishers wait from twice what has to be free, so that what is under way when they are
    /// stopped finds room, until there is three times that.
    pub fn look_at_disk(&mut self, space: Option<Space>, free_min: u64) {
        let Some(space) = space else { return };
        let from = free_min.saturating_mul(if self.disk { 3 } else { 2 });
        self.disk = space.free_bytes < from;
    }

    /// What is on its way to queues has so many bytes, or has become less.
    pub fn look_at_memory(&mut self, everybody: &Everybody) {
        let (publishing, most) = (everybody.kept.publishing, AMQP_PUBLISHING_BYTES_PER_SHARD_MAX);
        self.memory = publishing >= if self.memory { most / 2 } else { most };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::kept::Kept;

    #[test]
    fn an_alarm_ends_later_than_it_began() {
        let mut alarms = Alarms::default();
        let told: Vec<bool> = [20, 19, 20, 29, 30, 20]
            .map(|free_bytes| {
                alarms.look_at_disk(Some(Space { free_bytes, total_bytes: 100 }), 10);
                alarms.any()
            })
            .to_vec();
        assert_eq!(told, [false, true, true, true, false, false]);
        let most = AMQP_PUBLISHING_BYTES_PER_SHARD_MAX;
        let told: Vec<bool> = [most - 1, most, most / 2, most / 2 - 1]
            .map(|publishing| {
                let kept = Kept { publishing, ..Kept::default() };
                alarms.look_at_memory(&Everybody { kept, connections: 1 });
                alarms.any()
            })
            .to_vec();
        assert_eq!(told, [false, true, true, false]);
    }

    #[test]
    fn what_is_short_is_told_in_rabbitmqs_words() {
        let told = |memory, disk| Alarms { disk, memory }.reason();
        assert_eq!(told(true, false), b"low on memory");
        assert_eq!(told(false, true), b"low on disk");
        assert_eq!(told(true, true), b"low on memory & disk");
    }
}
