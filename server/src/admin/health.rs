//! Whether the node lives and is ready, from what its shards tell. A decision without I/O: somebody looks about once a
//! second and says what was seen.

use std::fmt::Write;

use crate::limits::STUCK_LOOKS;

/// How far the node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It recovers what its directory holds.
    Starting,
    /// It serves.
    Serving,
    /// It ends what it has begun, and takes nothing new.
    Stopping,
}

/// What is seen of a shard at one look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// Turns of its loop, from its start.
    pub turns: u64,
    /// A failed flush has ended its service.
    pub poisoned: bool,
    /// It refuses appends for want of space.
    pub disk_full: bool,
}

/// What is known of a shard.
#[derive(Debug)]
struct Shard {
    seen: Seen,
    /// Looks since its loop last turned.
    still: u32,
}

/// The health of a node.
#[derive(Debug)]
pub struct Health {
    stage: Stage,
    shards: Vec<Shard>,
}

/// An answer: whether all is well, and the body that says so or why not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Whether all is well.
    pub good: bool,
    /// In JSON.
    pub body: String,
}

impl Default for Health {
    fn default() -> Health {
        Health { stage: Stage::Starting, shards: Vec::new() }
    }
}

impl Health {
    /// The node is further now.
    pub fn enter(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Takes a look at all shards. A shard turns about once a second though nothing happens, so one that has not turned
    /// for [`STUCK_LOOKS`] looks is stuck. Looks are counted and not seconds: a process that was stopped and goes on is
    /// not stuck.
    pub fn look(&mut self, shards: impl Iterator<Item = Seen>) {
        for (place, seen) in shards.enumerate() {
            match self.shards.get_mut(place) {
                Some(shard) => {
                    shard.still =
                        if shard.seen.turns == seen.turns { shard.still.saturating_add(1) } else { 0 };
                    shard.seen = seen;
                }
                None => self.shards.push(Shard { seen, still: 0 }),
            }
        }
    }

    /// Whether this process is better left running than started anew.
    pub fn live(&self) -> Verdict {
        let wrongs: Vec<_> = self.shards.iter().map(|shard| self.what_kills(shard)).collect();
        let good = wrongs.iter().all(Option::is_none);
        let mut body = format!(r#"{{"status":"{}","shards":["#, if good { "live" } else { "not live" });
        for (shard, wrong) in wrongs.into_iter().enumerate() {
            let comma = if shard > 0 { "," } else { "" };
            let reason = wrong.map_or(String::new(), |wrong| format!(r#","reason":"{wrong}""#));
            let live = wrong.is_none();
            write!(body, r#"{comma}{{"shard":{shard},"live":{live}{reason}}}"#)
                .expect("a string takes anything");
        }
        body.push_str("]}");
        Verdict { good, body }
    }

    /// Whether clients should be sent here.
    pub fn ready(&self) -> Verdict {
        let stage = match self.stage {
            Stage::Starting => Some("the node is starting".to_owned()),
            Stage::Serving => None,
            Stage::Stopping => Some("the node is stopping".to_owned()),
        };
        let shard_wrong = |shard: &Shard| {
            self.what_kills(shard).or(shard.seen.disk_full.then_some("the disk is full: nothing is stored"))
        };
        let shards = self.shards.iter().enumerate();
        let shards =
            shards.filter_map(|(place, shard)| Some(format!("shard {place}: {}", shard_wrong(shard)?)));
        let reasons: Vec<_> =
            stage.into_iter().chain(shards).map(|reason| format!(r#""{reason}""#)).collect();
        let good = reasons.is_empty();
        let body = if good {
            r#"{"status":"ready"}"#.to_owned()
        } else {
            format!(r#"{{"status":"not ready","reasons":[{}]}}"#, reasons.join(","))
        };
        Verdict { good, body }
    }

    /// What is so wrong with a shard that only a new process helps.
    fn what_kills(&self, shard: &Shard) -> Option<&'static str> {
        if shard.seen.poisoned {
            Some("a flush has failed: nothing is stored any more")
        } else if shard.still >= STUCK_LOOKS && self.stage != Stage::Stopping {
            Some("its thread is stuck")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(shards: &[Seen]) -> Health {
        let mut health = Health::default();
        health.enter(Stage::Serving);
        health.look(shards.iter().copied());
        health
    }

    fn turning(turns: u64) -> Seen {
        Seen { turns, ..Seen::default() }
    }

    #[test]
    fn a_node_is_live_while_it_starts_and_stops_but_ready_only_between() {
        let mut health = Health::default();
        for (stage, ready) in [(Stage::Starting, false), (Stage::Serving, true), (Stage::Stopping, false)] {
            health.enter(stage);
            assert!(health.live().good);
            assert_eq!(health.ready().good, ready, "{stage:?}");
        }
        assert_eq!(health.ready().body, r#"{"status":"not ready","reasons":["the node is stopping"]}"#);
    }

    #[test]
    fn a_poisoned_shard_is_neither_live_nor_ready() {
        let health = serving(&[turning(1), Seen { poisoned: true, ..turning(1) }]);
        let Verdict { good, body } = health.live();
        assert!(!good);
        assert_eq!(
            body,
            r#"{"status":"not live","shards":[{"shard":0,"live":true},{"shard":1,"live":false,"reason":"a flush has failed: nothing is stored any more"}]}"#
        );
        let Verdict { good, body } = health.ready();
        assert!(!good && body.contains("shard 1: a flush has failed"), "{body}");
    }

    #[test]
    fn a_full_disk_is_live_but_not_ready() {
        let health = serving(&[Seen { disk_full: true, ..turning(1) }]);
        assert!(health.live().good);
        let Verdict { good, body } = health.ready();
        assert!(!good && body.contains("the disk is full"), "{body}");
    }

    #[test]
    fn a_shard_that_does_not_turn_is_stuck_until_it_does() {
        let mut health = serving(&[turning(5), turning(5)]);
        for look in 1..=STUCK_LOOKS {
            assert!(health.live().good, "{look}");
            health.look([turning(5), turning(5 + u64::from(look))].into_iter());
        }
        assert!(health.live().body.contains(r#"{"shard":0,"live":false,"reason":"its thread is stuck"}"#));
        assert!(!health.ready().good);
        health.look([turning(6), turning(100)].into_iter());
        assert!(health.live().good && health.ready().good);
    }

    #[test]
    fn a_shard_that_has_ended_for_the_stop_is_not_stuck() {
        let mut health = serving(&[turning(5)]);
        health.enter(Stage::Stopping);
        for _ in 0..2 * STUCK_LOOKS {
            health.look([turning(5)].into_iter());
        }
        assert!(health.live().good);
    }
}
