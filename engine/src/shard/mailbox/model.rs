//! Every interleaving of small cases, under `loom`: the ring's order, the credit's arithmetic, and sleeping and waking,
//! with canaries that must be caught. Run with `RUSTFLAGS="--cfg loom" cargo test -p millstream-engine --release loom_`.

use std::process::Command;

use loom::sync::Notify;
use loom::thread;

use super::*;
use crate::sync::without_fences;

const A: ShardId = ShardId(0);
const B: ShardId = ShardId(1);

/// Checks every interleaving with at most `preemptions` switches away from a thread that could go on.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Runs `canary`, a model that must fail, in a process of its own, since `loom` cannot go on after a deadlock: the test
/// called `name` starts itself again, and there does run it.
fn assert_deadlocks(name: &str, canary: impl FnOnce()) {
    const INSIDE: &str = "MILLSTREAM_CANARY";
    if std::env::var_os(INSIDE).is_some() {
        canary();
        return;
    }
    let this = std::env::current_exe().expect("a test knows its own binary");
    let test = format!("{}::{name}", module_path!().split_once("::").expect("a module within the crate").1);
    let output = Command::new(this)
        .args(["--exact", &test, "--nocapture"])
        .envs([(INSIDE, "1"), ("RUST_BACKTRACE", "0")])
        .output()
        .expect("a test can start its own binary");
    assert!(!output.status.success(), "the canary passed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("deadlock"), "the canary failed otherwise: {said}");
}

#[test]
fn loom_a_ring_keeps_order_over_wraps() {
    check(3, || {
        let (mut producer, mut consumer) = ring(2);
        let sender = thread::spawn(move || {
            for message in 0..3 {
                while producer.push(message).is_err() {
                    producer.publish();
                    thread::yield_now();
                }
            }
        });
        for expected in 0..3 {
            let message = loop {
                match consumer.pop() {
                    Some(message) => break message,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(message, expected);
        }
        assert!(consumer.is_empty());
        sender.join().expect("the sender does not panic");
    });
}

/// `loom` reports a counted reference that is never dropped.
#[test]
fn loom_what_is_left_in_a_ring_is_freed_whichever_half_goes_last() {
    check(3, || {
        let (mut producer, mut consumer) = ring(2);
        let sender = thread::spawn(move || {
            producer.push(Arc::new(1)).expect("the ring is empty");
            producer.publish();
            producer.push(Arc::new(2)).expect("the ring has two slots");
        });
        drop(consumer.pop());
        drop(consumer);
        sender.join().expect("the sender does not panic");
    });
}

/// Whether the sleeper looks again after it has announced its sleep.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SecondLook {
    Taken,
    Skipped,
}

/// `senders` threads send one message each to a sleeper that blocks whenever it has none. A lost wake-up leaves the
/// sleeper blocked with nobody to run, which `loom` reports as a deadlock.
fn sleeper(senders: usize, second_look: SecondLook) {
    let parking = Arc::new(Parking::default());
    let bell = Arc::new(Notify::new());
    let (threads, mut consumers): (Vec<_>, Vec<_>) = (0..senders)
        .map(|_| {
            let (mut producer, consumer) = ring(1);
            let (parking, bell) = (Arc::clone(&parking), Arc::clone(&bell));
            let sender = thread::spawn(move || {
                producer.push(()).expect("the ring is empty");
                producer.publish();
                if parking.must_ring(Published::fence()) {
                    bell.notify();
                }
            });
            (sender, consumer)
        })
        .unzip();
    let mut received = 0;
    loop {
        received += consumers.iter_mut().filter_map(Consumer::pop).count();
        if received == senders {
            break;
        }
        let anything =
            || second_look == SecondLook::Taken && consumers.iter().any(|consumer| !consumer.is_empty());
        if parking.announce_sleep(anything) {
            bell.wait();
            parking.awake();
        }
    }
    for sender in threads {
        sender.join().expect("the sender does not panic");
    }
}

#[test]
fn loom_no_wake_up_is_lost() {
    check(4, || sleeper(1, SecondLook::Taken));
}

#[test]
fn loom_no_wake_up_is_lost_between_two_senders() {
    check(3, || sleeper(2, SecondLook::Taken));
}

#[test]
fn loom_canary_without_fences_a_wake_up_is_lost() {
    assert_deadlocks("loom_canary_without_fences_a_wake_up_is_lost", || {
        without_fences(|| check(4, || sleeper(1, SecondLook::Taken)));
    });
}

#[test]
fn loom_canary_without_the_second_look_a_wake_up_is_lost() {
    assert_deadlocks("loom_canary_without_the_second_look_a_wake_up_is_lost", || {
        check(4, || sleeper(1, SecondLook::Skipped));
    });
}

/// One slot: each request has to find the room that its predecessor left, and so has each reply. The asserts in `send`
/// and `reply` are what is checked here.
#[test]
fn loom_a_request_with_credit_and_its_reply_always_find_room() {
    check(2, || {
        let mut posts = mesh::<u8, u8>(2, 1);
        let (mut b, mut a) = (posts.pop().expect("two posts"), posts.pop().expect("two posts"));
        let server = thread::spawn(move || {
            let (mut served, mut mail) = (0, Vec::new());
            while served < 2 {
                b.take(1, &mut mail);
                for message in mail.drain(..) {
                    let Mail::Request(from, request) = message else { panic!("a reply to nothing") };
                    b.reply(from, request);
                    served += 1;
                }
                b.publish(|_| {});
                thread::yield_now();
            }
        });
        let (mut sent, mut answered, mut mail) = (0, 0, Vec::new());
        while answered < 2 {
            if sent < 2 && a.send(B, sent).is_ok() {
                sent += 1;
            }
            a.publish(|_| {});
            a.take(1, &mut mail);
            for message in mail.drain(..) {
                assert_eq!(message, Mail::Reply(B, answered));
                answered += 1;
            }
            thread::yield_now();
        }
        assert_eq!((a.id(), a.credit(B)), (A, 1));
        server.join().expect("the sender does not panic");
    });
}
