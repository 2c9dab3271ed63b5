//! The rules of a queue, one by one. `tests/tests/queue.rs` holds all of them together against a model.

use super::*;
use crate::config::{Overflow, QueueSettings};
use crate::time::WallMs;
use crate::types::Seq;

/// A queue under test, its clock, and what it has put out.
struct Rig {
    queue: Queue,
    now: WallMs,
    out: Vec<Output>,
    locators: u64,
}

const PLENTY: Credit = Credit { messages: 1_000, bytes: 1 << 30 };

impl Rig {
    fn new(settings: QueueSettings) -> Rig {
        let now = WallMs(1_700_000_000_000);
        Rig { queue: Queue::new(settings, now), now, out: Vec::new(), locators: 0 }
    }

    fn plain() -> Rig {
        Rig::new(QueueSettings::default())
    }

    fn publish_with(&mut self, priority: u8, ttl_ms: Option<i64>) -> Seq {
        self.locators += 1;
        let message = Incoming {
            locator: Locator(self.locators),
            size: 10,
            persistent: true,
            priority,
            expires_at: ttl_ms.map(|ttl| WallMs(self.now.0 + ttl)),
        };
        assert_eq!(self.queue.admit(message.size, self.now, &mut self.out), Admission::Take);
        self.queue.publish(message, self.now)
    }

    fn publish(&mut self) -> Seq {
        self.publish_with(0, None)
    }

    fn publish_many(&mut self, messages: usize) {
        for _ in 0..messages {
            self.publish();
        }
    }

    fn refused(&mut self, size: u32) -> Admission {
        self.queue.admit(size, self.now, &mut self.out)
    }

    fn consume_as(&mut self, consume: Consume) -> Keeper {
        self.queue.consume(consume, self.now, &mut self.out).expect("nobody is exclusive")
    }

    fn consume(&mut self, token: u64, credit: Credit) -> Keeper {
        self.consume_as(consumer(token, credit))
    }

    /// Runs the queue, and gives all that it has put out since the last time.
    fn run(&mut self) -> Vec<Output> {
        assert!(!self.queue.run(self.now, 1_000_000, &mut self.out));
        std::mem::take(&mut self.out)
    }

    /// The same, of which only who was given what.
    fn deliveries(&mut self) -> Vec<(u64, u64)> {
        let deliveries = self.run();
        deliveries
            .iter()
            .filter_map(|output| match output {
                Output::Deliver(token, delivery) => Some((token.0, delivery.seq.0)),
                _ => None,
            })
            .collect()
    }

    fn settle(&mut self, keeper: Keeper, first: u64, last: u64, verdict: Verdict) -> u32 {
        self.queue.settle(keeper, Seq(first), Seq(last), verdict, &mut self.out)
    }

    fn ready(&self) -> u64 {
        self.queue.stats().ready
    }
}

fn consumer(token: u64, credit: Credit) -> Consume {
    Consume { token: Token(token), no_ack: false, exclusive: false, priority: 0, timeout_ms: None, credit }
}

fn credit(messages: u32) -> Credit {
    Credit { messages, ..PLENTY }
}

const REQUEUE: Verdict = Verdict::Requeue { failed: false };
const FAIL: Verdict = Verdict::Requeue { failed: true };

/// Of what was put out, how which messages were settled.
fn settled(out: &[Output]) -> Vec<(u64, Cause)> {
    out.iter()
        .filter_map(|output| match output {
            Output::Settled { seq, cause, .. } => Some((seq.0, *cause)),
            _ => None,
        })
        .collect()
}

/// Of what was put out, which messages had to leave, and why.
fn leaving(out: &[Output]) -> Vec<(u64, LeaveReason)> {
    out.iter()
        .filter_map(|output| match output {
            Output::Leaving { seq, reason, .. } => Some((seq.0, *reason)),
            _ => None,
        })
        .collect()
}

#[test]
fn messages_go_out_in_the_order_of_publishing_as_far_as_credit_goes() {
    let mut rig = Rig::plain();
    rig.publish_many(3);
    let keeper = rig.consume(7, credit(2));
    assert_eq!(rig.deliveries(), [(7, 0), (7, 1)]);
    assert_eq!(rig.deliveries(), []);
    rig.queue.credit(keeper, credit(5));
    assert_eq!(rig.deliveries(), [(7, 2)]);
    let stats = rig.queue.stats();
    assert_eq!((stats.ready, stats.unacked, stats.unacked_bytes), (0, 3, 30));
}

#[test]
fn a_consumers_window_of_bytes_is_overdrawn_by_one_message_at_most() {
    let mut rig = Rig::plain();
    rig.publish_many(5);
    let keeper = rig.consume(7, Credit { messages: 100, bytes: 11 });
    assert_eq!(rig.deliveries().len(), 2);
    rig.queue.credit(keeper, Credit { messages: 0, bytes: 9 });
    assert_eq!(rig.deliveries().len(), 0);
    rig.queue.credit(keeper, Credit { messages: 0, bytes: 1 });
    assert_eq!(rig.deliveries().len(), 1);
}

#[test]
fn consumers_take_turns() {
    let mut rig = Rig::plain();
    rig.consume(1, credit(2));
    rig.consume(2, PLENTY);
    rig.consume(3, PLENTY);
    rig.publish_many(8);
    let turns: Vec<_> = rig.deliveries().iter().map(|(token, _)| *token).collect();
    assert_eq!(turns, [1, 2, 3, 1, 2, 3, 2, 3]);
}

#[test]
fn the_highest_priority_of_consumers_is_served_while_it_has_credit() {
    let mut rig = Rig::plain();
    let low = rig.consume_as(Consume { priority: -1, ..consumer(1, PLENTY) });
    let high = rig.consume_as(Consume { priority: 5, ..consumer(2, credit(2)) });
    rig.publish_many(3);
    assert_eq!(rig.deliveries(), [(2, 0), (2, 1), (1, 2)]);
    rig.queue.credit(high, credit(1));
    rig.publish_many(2);
    assert_eq!(rig.deliveries(), [(2, 3), (1, 4)]);
    rig.queue.cancel(low, rig.now, &mut rig.out);
    rig.publish();
    assert_eq!(rig.deliveries(), []);
}

#[test]
fn an_acknowledged_range_settles_what_its_keeper_keeps_and_nothing_else() {
    let mut rig = Rig::plain();
    let first = rig.consume(1, PLENTY);
    let second = rig.consume(2, PLENTY);
    rig.publish_many(200);
    rig.run();
    assert_eq!(rig.settle(first, 0, 129, Verdict::Ack), 65);
    let out = rig.run();
    let expected: Vec<_> = (0..130).step_by(2).map(|seq| (seq, Cause::Acked)).collect();
    assert_eq!(settled(&out), expected);
    assert_eq!(rig.settle(first, 0, 129, Verdict::Ack), 0, "they were settled before");
    assert_eq!(rig.settle(second, 1, 1, Verdict::Ack), 1);
    assert_eq!(rig.queue.stats().unacked, 134);
}

#[test]
fn without_acknowledgement_a_delivery_is_settled_when_it_is_made() {
    let mut rig = Rig::plain();
    rig.consume_as(Consume { no_ack: true, ..consumer(1, PLENTY) });
    rig.publish_many(2);
    let out = rig.run();
    assert!(matches!(out[..2], [Output::Deliver(..), Output::Settled { .. }]), "{out:?}");
    assert_eq!(settled(&out), [(0, Cause::Delivered), (1, Cause::Delivered)]);
    assert_eq!(rig.queue.stats().unacked, 0);
}

#[test]
fn what_goes_back_goes_to_its_old_place_and_is_redelivered() {
    let mut rig = Rig::plain();
    rig.publish_many(100);
    let keeper = rig.consume(1, credit(80));
    rig.run();
    assert_eq!(rig.settle(keeper, 70, 70, REQUEUE), 1);
    assert_eq!(rig.settle(keeper, 3, 4, REQUEUE), 2);
    rig.queue.credit(keeper, credit(4));
    let out = rig.run();
    let given: Vec<_> = out
        .iter()
        .filter_map(|output| match output {
            Output::Deliver(_, delivery) => Some((delivery.seq.0, delivery.redelivered, delivery.failures)),
            _ => None,
        })
        .collect();
    assert_eq!(given, [(3, true, 0), (4, true, 0), (70, true, 0), (80, false, 0)]);
}

#[test]
fn a_message_that_fails_too_often_is_given_up() {
    let mut rig = Rig::new(QueueSettings { delivery_limit: Some(2), ..QueueSettings::default() });
    rig.publish();
    let keeper = rig.consume(1, PLENTY);
    for failures in 1..=2 {
        assert_eq!(rig.deliveries(), [(1, 0)]);
        rig.settle(keeper, 0, 0, FAIL);
        assert!(matches!(rig.out[..], [Output::Failed { failures: told, .. }] if told == failures));
    }
    assert_eq!(rig.deliveries(), [(1, 0)]);
    rig.settle(keeper, 0, 0, REQUEUE);
    assert_eq!(rig.deliveries(), [(1, 0)], "giving back is not failing");
    rig.settle(keeper, 0, 0, FAIL);
    assert_eq!(settled(&rig.run()), [(0, Cause::Dropped(LeaveReason::DeliveryLimit))]);
}

#[test]
fn higher_priorities_go_first_and_equal_ones_in_order() {
    let mut rig = Rig::new(QueueSettings { max_priority: Some(4), ..QueueSettings::default() });
    let published: Vec<_> = [0, 4, 1, 200, 4, 0].map(|priority| rig.publish_with(priority, None).0).to_vec();
    let keeper = rig.consume(1, credit(5));
    let given: Vec<_> = rig.deliveries().iter().map(|(_, seq)| *seq).collect();
    assert_eq!(given, [1, 3, 4, 2, 0].map(|at: usize| published[at]));
    rig.settle(keeper, published[3], published[3], REQUEUE);
    let more = rig.publish_with(4, None).0;
    rig.queue.credit(keeper, PLENTY);
    let given: Vec<_> = rig.deliveries().iter().map(|(_, seq)| *seq).collect();
    assert_eq!(given, [published[3], more, published[5]]);
}

#[test]
fn each_message_expires_when_it_is_to_whatever_stands_before_it() {
    let mut rig = Rig::plain();
    for ttl in [None, Some(50), Some(20), Some(90), Some(20)] {
        rig.publish_with(0, ttl);
    }
    rig.now.0 += 19;
    assert_eq!(rig.queue.next_deadline(), Some(WallMs(rig.now.0 + 1)));
    assert_eq!(rig.run(), []);
    rig.now.0 += 1;
    let expired = Cause::Dropped(LeaveReason::Expired);
    assert_eq!(settled(&rig.run()), [(2, expired), (4, expired)]);
    rig.now.0 += 30;
    assert_eq!(rig.queue.next_deadline(), Some(rig.now));
    assert_eq!(settled(&rig.run()), [(1, expired)]);
    assert_eq!(rig.ready(), 2);
}

#[test]
fn a_message_without_time_is_delivered_at_once_or_never() {
    let mut rig = Rig::plain();
    rig.consume(1, credit(1));
    rig.publish_with(0, Some(0));
    rig.publish_with(0, Some(0));
    let out = rig.run();
    assert!(matches!(out[0], Output::Deliver(_, Delivery { seq: Seq(0), .. })), "{out:?}");
    assert_eq!(settled(&out), [(1, Cause::Dropped(LeaveReason::Expired))]);
}

#[test]
fn what_is_kept_does_not_expire_before_it_goes_back() {
    let mut rig = Rig::plain();
    rig.publish_with(0, Some(10));
    let keeper = rig.consume(1, PLENTY);
    rig.run();
    rig.now.0 += 100;
    assert_eq!(rig.run(), []);
    rig.settle(keeper, 0, 0, REQUEUE);
    assert_eq!(settled(&rig.run()), [(0, Cause::Dropped(LeaveReason::Expired))]);
}

#[test]
fn the_queue_may_end_messages_sooner_than_they_say() {
    let mut rig = Rig::new(QueueSettings { message_ttl_ms: Some(30), ..QueueSettings::default() });
    rig.publish_with(0, Some(20));
    rig.publish_with(0, Some(40));
    rig.publish();
    rig.now.0 += 20;
    assert_eq!(settled(&rig.run()).len(), 1);
    rig.now.0 += 10;
    assert_eq!(settled(&rig.run()).len(), 2);
}

#[test]
fn a_full_queue_drops_its_first_messages() {
    let mut rig = Rig::new(QueueSettings { max_messages: Some(2), ..QueueSettings::default() });
    rig.publish_many(3);
    let dropped = Cause::Dropped(LeaveReason::MaxLength);
    assert_eq!(settled(&rig.run()), [(0, dropped)]);
    let mut rig = Rig::new(QueueSettings { max_bytes: Some(25), ..QueueSettings::default() });
    rig.publish_many(4);
    assert_eq!(settled(&rig.run()), [(0, dropped), (1, dropped)]);
}

#[test]
fn a_queue_without_room_still_hands_messages_on() {
    let mut rig = Rig::new(QueueSettings { max_messages: Some(0), ..QueueSettings::default() });
    rig.consume(1, credit(1));
    rig.publish_many(2);
    let out = rig.run();
    assert!(matches!(out[0], Output::Deliver(_, Delivery { seq: Seq(0), .. })), "{out:?}");
    assert_eq!(settled(&out), [(1, Cause::Dropped(LeaveReason::MaxLength))]);
}

#[test]
fn a_full_queue_that_rejects_counts_only_what_waits() {
    let settings = QueueSettings {
        max_messages: Some(2),
        max_bytes: Some(25),
        overflow: Overflow::RejectPublish,
        ..QueueSettings::default()
    };
    let mut rig = Rig::new(settings.clone());
    rig.publish();
    assert_eq!(rig.refused(16), Admission::Refuse);
    rig.publish();
    assert_eq!(rig.refused(1), Admission::Refuse);
    rig.consume(1, credit(1));
    rig.publish();
    assert_eq!(rig.deliveries(), [(1, 0)]);
    assert_eq!(rig.ready(), 2);

    let overflow = Overflow::RejectPublishDeadLetter;
    let mut rig = Rig::new(QueueSettings { overflow, dead_letter: true, ..settings });
    rig.publish_many(2);
    assert_eq!(rig.refused(10), Admission::RefuseAndLeave);
    let message = Incoming { locator: Locator(9), size: 10, persistent: true, priority: 0, expires_at: None };
    rig.queue.publish_refused(message, rig.now, &mut rig.out);
    assert_eq!(leaving(&rig.run()), [(2, LeaveReason::MaxLength)]);
    assert_eq!((rig.ready(), rig.queue.stats().leaving), (2, 1));
}

#[test]
fn dead_letters_stay_until_they_are_where_they_belong() {
    let mut rig = Rig::new(QueueSettings { dead_letter: true, ..QueueSettings::default() });
    rig.publish_many(70);
    let keeper = rig.consume(1, PLENTY);
    rig.run();
    rig.settle(keeper, 60, 66, Verdict::Reject);
    assert_eq!(leaving(&rig.run()).len(), 7);
    let told = |rig: &mut Rig, most| {
        rig.queue.tell_leaving(most, &mut rig.out);
        let told: Vec<_> = std::mem::take(&mut rig.out)
            .iter()
            .map(|output| match output {
                Output::Leave { seq, reason: LeaveReason::Rejected, .. } => seq.0,
                other => panic!("{other:?}"),
            })
            .collect();
        told
    };
    assert_eq!(told(&mut rig, 5), [60, 61, 62, 63, 64]);
    assert!(rig.queue.left(Seq(61), &mut rig.out));
    assert!(!rig.queue.left(Seq(61), &mut rig.out));
    assert!(!rig.queue.left(Seq(0), &mut rig.out), "it is not leaving");
    assert_eq!(settled(&rig.run()), [(61, Cause::Left)]);
    // Of 64 at a time: the first four are in one such lot, the others in the next.
    assert_eq!(rig.queue.tell_again(Seq(0), 1, |seq| seq == Seq(62)), Some(Seq(64)));
    assert_eq!(told(&mut rig, 2), [60, 63]);
    assert_eq!(rig.queue.tell_again(Seq(64), 9, |_| false), None);
    assert_eq!(told(&mut rig, 9), [64, 65, 66]);
    assert_eq!(told(&mut rig, 9), []);
    assert_eq!(rig.queue.stats().leaving, 6);
}

#[test]
fn a_message_whose_bytes_are_lost_is_settled_wherever_it_is() {
    let mut rig = Rig::new(QueueSettings { dead_letter: true, ..QueueSettings::default() });
    rig.publish_many(5);
    let keeper = rig.consume(1, Credit { messages: 3, bytes: 1_000 });
    rig.run();
    rig.settle(keeper, 0, 0, Verdict::Reject);
    rig.run();
    let lost: Vec<bool> =
        [0, 1, 4, 4, 9].into_iter().map(|seq| rig.queue.lose(Seq(seq), &mut rig.out)).collect();
    assert_eq!(lost, [true, true, true, false, false]);
    assert_eq!(settled(&rig.run()), [(0, Cause::Lost), (1, Cause::Lost), (4, Cause::Lost)]);
    let stats = rig.queue.stats();
    assert_eq!((stats.ready, stats.unacked, stats.leaving), (1, 1, 0));
    rig.queue.cancel(keeper, rig.now, &mut rig.out);
    assert!(rig.queue.lose(Seq(2), &mut rig.out));
    assert!(rig.run().contains(&Output::Released(Token(1))), "it keeps nothing any more");
}

#[test]
fn a_purge_takes_what_waits_and_nothing_else() {
    let mut rig = Rig::plain();
    rig.publish_many(200);
    rig.consume(1, credit(3));
    rig.run();
    assert_eq!(rig.queue.purge(), 197);
    assert_eq!(rig.ready(), 0);
    rig.publish();
    assert!(rig.queue.run(rig.now, 100, &mut rig.out), "there is more to do");
    let out = rig.run();
    assert_eq!(settled(&out).len(), 197);
    assert!(settled(&out).iter().all(|(seq, cause)| (3..200).contains(seq) && *cause == Cause::Purged));
    assert_eq!((rig.ready(), rig.queue.stats().unacked), (1, 3));
}

#[test]
fn one_consumer_at_a_time_is_active_and_the_best_and_oldest_follows() {
    let mut rig = Rig::new(QueueSettings { single_active_consumer: true, ..QueueSettings::default() });
    let first = rig.consume(1, PLENTY);
    rig.consume(2, PLENTY);
    rig.consume_as(Consume { priority: 1, ..consumer(3, PLENTY) });
    rig.consume_as(Consume { priority: 1, ..consumer(4, PLENTY) });
    assert_eq!(rig.out, [Output::Activated(Token(1))]);
    rig.publish_many(2);
    assert_eq!(rig.deliveries(), [(1, 0), (1, 1)]);
    rig.queue.cancel(first, rig.now, &mut rig.out);
    assert_eq!(rig.out, [Output::Activated(Token(3))]);
    rig.settle(first, 0, 1, REQUEUE);
    assert_eq!(rig.deliveries(), [(3, 0), (3, 1)]);
    rig.queue.configure(QueueSettings::default(), rig.now, &mut rig.out);
    rig.publish_many(4);
    let turns: Vec<_> = rig.deliveries().iter().map(|(token, _)| *token).collect();
    assert_eq!(turns, [3, 4, 3, 4]);
}

#[test]
fn an_exclusive_consumer_is_alone() {
    let mut rig = Rig::plain();
    let exclusive = |token| Consume { exclusive: true, ..consumer(token, PLENTY) };
    let first = rig.consume_as(exclusive(1));
    for consume in [consumer(2, PLENTY), exclusive(2)] {
        assert_eq!(rig.queue.consume(consume, rig.now, &mut rig.out), Err(ConsumeError::InUse));
    }
    rig.queue.cancel(first, rig.now, &mut rig.out);
    rig.consume(2, PLENTY);
    let refused = rig.queue.consume(exclusive(3), rig.now, &mut rig.out);
    assert_eq!(refused, Err(ConsumeError::InUse));
}

#[test]
fn a_cancelled_consumer_settles_what_it_keeps_and_is_forgotten_then() {
    let mut rig = Rig::plain();
    rig.publish_many(2);
    let keeper = rig.consume(1, PLENTY);
    rig.run();
    rig.queue.cancel(keeper, rig.now, &mut rig.out);
    assert_eq!(rig.run(), [Output::Unused]);
    assert_eq!(rig.queue.stats().unacked, 2);
    rig.settle(keeper, 0, 0, Verdict::Ack);
    assert_eq!(rig.run().len(), 1);
    rig.settle(keeper, 1, 1, REQUEUE);
    assert_eq!(rig.run(), [Output::Released(Token(1))]);
    assert_eq!(rig.ready(), 1);
}

#[test]
fn messages_are_got_one_by_one() {
    let mut rig = Rig::plain();
    rig.publish_many(2);
    let got = rig.queue.get(None, rig.now, &mut rig.out).expect("there are two");
    assert_eq!(got.seq, Seq(0));
    assert_eq!(settled(&rig.run()), [(0, Cause::Delivered)]);
    let keeper = rig.queue.add_keeper(Token(5));
    assert_eq!(rig.queue.get(Some(keeper), rig.now, &mut rig.out).expect("there is one").seq, Seq(1));
    assert_eq!(rig.queue.get(Some(keeper), rig.now, &mut rig.out), None);
    assert_eq!(rig.run(), []);
    assert_eq!(rig.settle(keeper, 0, u64::MAX, Verdict::Ack), 1);
    assert_eq!(rig.run().last(), Some(&Output::Released(Token(5))));
}

#[test]
fn who_keeps_a_message_for_too_long_loses_all_that_it_keeps() {
    let mut rig = Rig::new(QueueSettings { consumer_timeout_ms: Some(100), ..QueueSettings::default() });
    let slow = rig.consume(1, credit(1));
    let patient = rig.consume_as(Consume { timeout_ms: Some(1_000), ..consumer(2, credit(1)) });
    rig.publish_many(2);
    rig.run();
    rig.now.0 += 60;
    rig.publish();
    rig.queue.credit(slow, credit(1));
    assert_eq!(rig.deliveries(), [(1, 2)]);
    rig.now.0 += 39;
    assert_eq!(rig.run(), []);
    rig.now.0 += 1;
    assert_eq!(rig.queue.next_deadline(), Some(rig.now));
    let out = rig.run();
    assert_eq!(out[0], Output::TimedOut(Token(1)));
    assert!(out.contains(&Output::Released(Token(1))));
    assert_eq!((rig.ready(), rig.queue.stats().consumers), (2, 1));
    assert_eq!(rig.settle(slow, 0, 2, Verdict::Ack), 0, "it keeps nothing any more");
    assert_eq!(rig.settle(patient, 0, 2, Verdict::Ack), 1);
}

#[test]
fn an_unused_queue_expires_once() {
    let mut rig = Rig::new(QueueSettings { expires_ms: Some(100), ..QueueSettings::default() });
    rig.now.0 += 90;
    rig.queue.touch(rig.now);
    rig.now.0 += 90;
    let keeper = rig.consume(1, PLENTY);
    rig.now.0 += 200;
    assert_eq!(rig.run(), []);
    rig.queue.cancel(keeper, rig.now, &mut rig.out);
    rig.run();
    assert_eq!(rig.queue.next_deadline(), Some(WallMs(rig.now.0 + 100)));
    rig.now.0 += 100;
    assert_eq!(rig.run(), [Output::Expired]);
    assert_eq!(rig.run(), []);
    assert_eq!(rig.queue.next_deadline(), None);
}

#[test]
fn what_is_stored_comes_back_as_it_was() {
    let settings = QueueSettings { dead_letter: true, max_priority: Some(1), ..QueueSettings::default() };
    let mut rig = Rig::new(settings.clone());
    for number in 0..300 {
        rig.publish_with((number % 2) as u8, Some(1_000 + number));
    }
    let keeper = rig.consume(1, credit(100));
    rig.run();
    rig.settle(keeper, 0, 9, Verdict::Ack);
    rig.settle(keeper, 20, 20, FAIL);
    rig.settle(keeper, 30, 31, Verdict::Reject);
    rig.run();
    let stored: Vec<_> = rig.queue.stored(Seq(0)).collect();
    assert_eq!(stored.len(), 290);
    assert!(rig.queue.relocate(Seq(50), Locator(777)));
    assert!(!rig.queue.relocate(Seq(5), Locator(777)));
    let from: Vec<_> = rig.queue.stored(Seq(50)).take(1).map(|stored| stored.locator).collect();
    assert_eq!(from, [Locator(777)]);

    let mut again = Queue::new(settings, rig.now);
    for &message in &stored {
        assert_eq!(again.recover(message), Recovered::New);
        assert_eq!(again.recover(message), Recovered::Known(message.locator));
    }
    for &next in rig.queue.next_seqs() {
        again.recover_next(next);
    }
    assert!(again.stored(Seq(0)).eq(stored.iter().copied()));
    assert_eq!(again.next_seqs(), rig.queue.next_seqs());
    let stats = again.stats();
    assert_eq!((stats.ready, stats.leaving, stats.unacked, stats.persistent), (288, 2, 0, 290));

    // What came after that was stored.
    let mut gone = Vec::new();
    again.recover_settled(Seq(5), Seq(12), &mut gone);
    assert_eq!(gone, stored[..3].iter().map(|stored| (stored.locator, stored.size)).collect::<Vec<_>>());
    again.recover_delivered(Seq(120), Seq(122));
    again.recover_failures(Seq(13), 3);
    again.recover_leaving(Seq(14), LeaveReason::Expired);
    let after: Vec<_> = again.stored(Seq(0)).take(2).collect();
    assert_eq!((after[0].seq, after[0].failures, after[0].delivered), (Seq(13), 3, true));
    assert_eq!((after[1].seq, after[1].leaving), (Seq(14), Some(LeaveReason::Expired)));
    let late = again.stored(Seq(100)).take_while(|stored| stored.seq < Seq(150));
    let delivered: Vec<_> = late.filter(|stored| stored.delivered).map(|stored| stored.seq.0).collect();
    assert_eq!(delivered, [120, 121, 122]);
}

#[test]
fn what_is_stored_comes_back_in_whatever_order_and_also_behind_pages() {
    let mut rig = Rig::plain();
    rig.publish_many(64 * 12);
    let stored: Vec<_> = rig.queue.stored(Seq(0)).collect();
    let mut again = Queue::new(QueueSettings::default(), rig.now);
    again.page_by(2, 2);
    let (late, early): (Vec<_>, Vec<_>) = stored.iter().partition(|stored| stored.seq.0 % 7 == 3);
    for message in early {
        assert_eq!(again.recover(message), Recovered::New);
    }
    let mut bytes = Vec::new();
    let page = again.page_out(|_| true, &mut bytes).expect("there are chunks enough");
    assert_eq!((page, again.page_of(Seq(64 * 3)), again.page_of(Seq(64 * 4))), (PageId(2), Some(page), None));
    assert_eq!(again.page_between(Seq(0), Seq(64 * 2 - 1)), None);
    assert_eq!(again.page_between(Seq(64 * 3 + 63), Seq(u64::MAX)), Some(page));
    let here = again.index_bytes();
    for message in late {
        let paged = (64 * 2..64 * 4).contains(&message.seq.0);
        let expected = if paged { Recovered::PagedOut(page) } else { Recovered::New };
        assert_eq!(again.recover(message), expected);
        let live = again.live(Seq(message.seq.0 / 64 * 64));
        assert_eq!(live & 1 << (message.seq.0 % 64) != 0, !paged);
    }
    assert_eq!(again.page_in(page, &bytes), Ok(()));
    assert!(again.index_bytes() > here);
    for &message in &stored {
        again.recover(message);
    }
    assert!(again.stored(Seq(0)).eq(stored.iter().copied()));
    assert_eq!(again.next_seqs(), rig.queue.next_seqs());
}

#[test]
fn a_page_comes_back_before_it_is_needed_and_only_as_it_was() {
    let mut rig = Rig::plain();
    rig.queue.page_by(2, 2);
    rig.publish_many(64 * 8);
    let page_out = |rig: &mut Rig| {
        let mut bytes = Vec::new();
        rig.queue.page_out(|locator| locator.0 != 64 * 7, &mut bytes).map(|page| (page, bytes))
    };
    let (first, bytes) = page_out(&mut rig).expect("there are chunks enough");
    let (second, _) = page_out(&mut rig).expect("there are chunks enough");
    assert_eq!([first, second], [PageId(2), PageId(4)]);
    assert_eq!(page_out(&mut rig), None, "a message's bytes may move");
    assert_eq!(rig.ready(), 64 * 8);
    assert_eq!(rig.queue.stored(Seq(0)).count(), 64 * 4);
    assert_eq!(rig.queue.persistent().map(|(_, mask)| mask.count_ones()).sum::<u32>(), 64 * 8);

    let keeper = rig.consume(1, credit(64));
    assert_eq!(rig.deliveries().len(), 64);
    rig.queue.credit(keeper, credit(1));
    assert!(!rig.run().contains(&Output::PageIn(first)), "a chunk is before it");
    rig.queue.credit(keeper, credit(100));
    let out = rig.run();
    assert_eq!(out.len(), 64, "63 messages, and");
    assert_eq!(out.last(), Some(&Output::PageIn(first)));
    assert_eq!(rig.run(), [], "it is asked for once");

    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(rig.queue.page_in(first, &damaged).is_err(), "byte {at}");
        assert!(rig.queue.page_in(first, &bytes[..at]).is_err(), "{at} bytes");
    }
    assert!(rig.queue.page_in(second, &bytes).is_err());
    assert_eq!(rig.queue.page_in(first, &bytes), Ok(()));
    assert!(rig.queue.page_in(first, &bytes).is_err(), "it is here");
    let given: Vec<_> = rig.deliveries().iter().map(|(_, seq)| *seq).collect();
    assert_eq!(given, (128..165).collect::<Vec<_>>());
}
